"""What a team does with versions of models: cards, history, restore, compare, labels, explanations."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.clock import parse_instant
from noria.errors import ConfigError, NotFound
from noria.records import Version
from noria.registry.card_text import read_sections
from noria.registry.cards import CardBook, WrittenCard
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel
from noria.workspace.models.names import (
    find_label,
    find_registered,
    find_version,
    parse_reference,
    reference_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from noria.deploy.environments import Move
    from noria.explain.records import Explanation
    from noria.registry.version_catalogue import VersionCatalogue
    from noria.serving.formats.python_models import RowsAs
    from noria.workspace.models.cards import ModelCard
    from noria.workspace.models.comparison import ModelComparison
    from noria.workspace.models.explaining import Attributions
    from noria.workspace.models.history import Placed, PlacedStay
    from noria.workspace.project import Project

__all__ = ["Models"]


class Models:
    """The models of a project; `project.models` gives it.

    A version is named as everywhere: `NAME` (its newest), `NAME:3`, `NAME@ENVIRONMENT`; or as MLflow does:
    `models:/NAME/3`, `models:/NAME@ALIAS`. Each verb raises `NotFound` for what is not there, saying what is.
    """

    def __init__(self, project: "Project") -> None:
        self._project = project

    def get(self, reference: str) -> Version:
        """Give a version's record."""
        return find_version(self._project, reference)

    def register(
        self,
        model: Any,
        *,
        name: str,
        example: object,
        artifacts: "Mapping[str, str | Path] | None" = None,
        rows: "RowsAs" = "columns",
        metrics: Mapping[str, float] | None = None,
        run: str | None = None,
    ) -> Version:
        """Keep a model that was made anywhere as the next version of a name, ready to be deployed.

        It is opened from the bytes that are kept as a server opens it, and has to give for the example what
        the model in memory gives. The same model with the same example again is the version that is there.

        Parameters
        ----------
        model
            A Booster or an estimator of LightGBM or XGBoost of any objective; an estimator or a pipeline of
            scikit-learn; an ONNX `ModelProto`, or a `Path` of an .onnx file; or any object, or class, with a
            method `predict`, whose class stands in a module: the modules of the project that it imports are
            kept with it.
        name
            Of the model.
        example
            Rows that it reads: a frame, columns by name, or an array. Its columns and their types are what
            requests bring; at most 100 rows are kept, and a server verifies the model by them.
        artifacts
            Of a model in Python: files and folders by the name under which its `load(folder)` finds them.
        rows
            What `predict` of a model in Python is given: "columns" (arrays by name), "matrix", or "pandas".
        metrics
            Figures of its quality, such as `{"auc": 0.81}`: gates may ask for them.
        run
            The run that made it.

        Returns
        -------
        Version
            Deploy it by `project.deploy`.

        Raises
        ------
        ConfigError
            If it cannot be kept, fails on the example, or gives otherwise from its bytes. Attributes of an
            object in Python are kept by skops, and pickled only where `[registry] trust_pickle` says so.
        SourceError
            If the example is none, or not what the model reads.

        Examples
        --------
        ::

            project.models.register(pipeline, name="late", example=frame, metrics={"auc": 0.81})
        """
        from noria.workspace.models.registering import register_model

        return register_model(
            self._project,
            model,
            name=name,
            example=example,
            artifacts=artifacts,
            rows=rows,
            metrics=metrics,
            run=run,
        )

    # cards

    def card(self, reference: str) -> "ModelCard":
        """Give the card of a version: what people wrote, and what the record says, read anew.

        Raises
        ------
        DigestMismatch
            If a part of it is not what was recorded.
        """
        from noria.workspace.models.cards import make_card

        return make_card(self._project, self.get(reference))

    def put_card(
        self,
        reference: str,
        text: str | Mapping[str, str | None],
        *,
        based_on: int | None = None,
        actor: str | None = None,
    ) -> WrittenCard:
        """Keep what somebody writes of a version; what was written before stays in the card's history.

        Parameters
        ----------
        text
            Sections by name, such as `{"Limitations": "..."}`: the others stay as they are, and None takes
            one away. Or all of it as Markdown, in which `## NAME` begins a section: what is not in there is
            taken away; of a whole card, as `card(...).markdown` gives it, only what people wrote is read.
        based_on
            The number of what the writer had read (`card(...).written.number`), 0 if there was nothing: where
            somebody has written since, it is refused. Default: what the text says of itself, if it does.
        actor
            Who writes. Default: the account of this process.

        Raises
        ------
        Conflict
            If somebody has written since.
        ConfigError
            If it cannot be kept: empty, too long, a NUL, a section twice.
        """
        from noria.workspace.models.card_text import based_on_of, model_of

        version = self.get(reference)
        if not isinstance(text, str):
            return self._cards.put(version, text, based_on=based_on, actor=actor)
        if not text.strip():
            raise ConfigError(
                "the card is empty; write Markdown with sections such as '## Limitations'. A section is "
                "taken away by leaving it out"
            )
        told = model_of(text)
        if told is not None and told != version.ref:
            called = reference_of(self._project, version)
            raise ConfigError(
                f"the text is the card of {told}, not of {version.ref}; print that one first "
                f"(`noria model card {called}`), which offers what was written of earlier versions"
            )
        sections = read_sections(text)
        base = based_on_of(text) if based_on is None else based_on
        return self._cards.put(version, sections, replace=True, based_on=base, actor=actor)

    def card_history(self, reference: str) -> list[WrittenCard]:
        """List all that was written of a version, oldest first."""
        return self._cards.history(self.get(reference))

    # environments

    def history(self, reference: str) -> "list[PlacedStay]":
        """List where and when a version answered, or with `NAME` alone each version of that name.

        Times are those of the environments' clocks: of a replay, or the wall's.
        """
        from noria.workspace.models.history import history_of

        version = self.get(reference)
        one = ":" in reference or "@" in reference
        return history_of(
            self._project,
            [version] if one else self._project.ledger.list_versions(kind="model", name=version.name),
        )

    def at(self, reference: str, instant: datetime | str) -> "Placed":
        """Tell what `NAME@ENVIRONMENT` had at an instant of the environment's clock, and who put it there.

        Raises
        ------
        NotFound
            If nothing was there then; says when its first move was.
        ConfigError
            If it names no environment, or the instant cannot be read.
        """
        from noria.workspace.models.history import placed_at

        environment, name = self._project.place(reference)
        try:
            known = parse_instant(instant) if isinstance(instant, str) else instant
        except ValueError as error:
            raise ConfigError(
                f"{instant!r} is no instant; write a day such as 2013-04-01, or 2013-04-01T06:30Z"
            ) from error
        if known.tzinfo is None:
            raise ConfigError(f"{known} has no time zone; give an aware instant, such as 2013-04-01T06:30Z")
        return placed_at(self._project, environment, name, known)

    def restore(
        self, reference: str, environment: str = "production", *, share: float | None = None, reason: str = ""
    ) -> "Move":
        """Put an earlier version up in an environment again: its release, by the gate's standing verdict.

        Nothing is copied and no version is made. The newest judgement of the environment's gate on this very
        digest has to have let it in; its parts are read and its stored rows scored again first.

        Parameters
        ----------
        share
            Try it on a part of the traffic, beside what is there. Default: it answers all of it.

        Raises
        ------
        GateRefused
            If the gate has not let it in, or refused it since; notes say when and why. A refit answers all of
            it only where nothing else is; else a share of it is judged.
        Conflict
            If it is there already, or scores otherwise than it did.
        DigestMismatch
            If a part is not what was recorded.
        """
        from noria.workspace.models.restoring import restore_model

        version = self.get(reference)
        return restore_model(self._project, version, environment=environment, share=share, reason=reason)

    def compare(self, one: str, other: str) -> "ModelComparison":
        """Tell what two versions differ in, and how both score the same rows, where there are any."""
        from noria.workspace.models.comparison import compare_models

        return compare_models(self._project, self.get(one), self.get(other))

    # explanations

    def explanation(self, reference: str) -> "Explanation":
        """Give what a version depends on, as its training recorded it. Raises `NotFound` if it did not."""
        from noria.training.explanations import read_explanation

        return read_explanation(self._project.ledger, self._project.registry, self.get(reference))

    def explain(self, reference: str, rows: Any = None) -> "Attributions":
        """Tell what each input adds to the score of rows.

        Parameters
        ----------
        rows
            Columns as the version reads them: Arrow, pandas, Polars, lists by name, or a list of dicts.
            Default: the rows that are stored with the version.

        Raises
        ------
        ConfigError
            If it is a folder of MLflow, or rows are none.
        SourceError
            If an input is missing, or of another type.
        """
        from noria.workspace.models.explaining import explain_rows

        return explain_rows(self._project, self.get(reference), rows)

    # labels

    def label(self, reference: str) -> CataloguedVersion:
        """Give what people say of a version: description, tags, aliases, stage. Raises `NotFound`."""
        return self._labelled(self.get(reference))

    def registered(self, name: str) -> RegisteredModel:
        """Give what people say of a model: description, tags, aliases."""
        return self._catalogue.get(name)

    def put_alias(self, reference: str, alias: str) -> CataloguedVersion:
        """Let an alias name a version, whatever it named before; it is a label, and moves nothing.

        Raises
        ------
        ConfigError
            If it can be no alias, or an environment is called so: `NAME@ENVIRONMENT` is what stands there.
        """
        if alias in self._project.settings.environments:
            raise ConfigError(
                f"{alias!r} is an environment of this project: NAME@{alias} is what is deployed there, and "
                "an alias of that name would say something else; choose another"
            )
        label = self._labelled(self.get(reference))
        self._catalogue.put_alias(label.model, alias, label.number)
        return self._labelled(self.get(reference))

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias of a model away. Raises `NotFound` if it has none of that name."""
        known = self._catalogue.get(name).aliases
        if alias not in known:
            raise NotFound("alias", alias, known)
        self._catalogue.remove_alias(name, alias)

    def put_tag(self, reference: str, tag: str, value: str) -> None:
        """Set a tag of a version (`NAME:3`), or of a model (`NAME` alone)."""
        if _names_model(reference):
            self._catalogue.put_tag(reference, tag, value)
        else:
            label = self._labelled(self.get(reference))
            self._versions.put_tag(label.model, label.number, tag, value)

    def remove_tag(self, reference: str, tag: str) -> None:
        """Take a tag of a version, or of a model, away. Raises `NotFound` if it has none of that name."""
        if _names_model(reference):
            known = self._catalogue.get(reference).tags
        else:
            label = self._labelled(self.get(reference))
            known = label.tags
        if tag not in known:
            raise NotFound("tag", tag, known)
        if _names_model(reference):
            self._catalogue.remove_tag(reference, tag)
        else:
            self._versions.remove_tag(label.model, label.number, tag)

    def describe(self, reference: str, description: str | None) -> None:
        """Say what a version is (`NAME:3`), or what a model is for (`NAME` alone)."""
        if _names_model(reference):
            self._catalogue.describe(reference, description)
        else:
            label = self._labelled(self.get(reference))
            self._versions.describe(label.model, label.number, description)

    def undelete(self, reference: str) -> RegisteredModel | CataloguedVersion:
        """Take back the deletion of a model's labels (`NAME`), or of one version's (`NAME:3`).

        Somebody deleted them through MLflow's protocol: the versions themselves were on record all the time,
        and where they were deployed. Aliases are not there again.

        Raises
        ------
        NotFound
            If nothing of that name was deleted.
        Conflict
            If another model has the name now.
        """
        wanted = parse_reference(reference)
        if wanted.environment is not None:
            raise ConfigError(f"{reference!r} names an environment; write NAME or NAME:3")
        if wanted.number is None:
            return self._catalogue.undelete(wanted.name)
        return self._versions.undelete(wanted.name, wanted.number)

    @property
    def _cards(self) -> CardBook:
        return CardBook(self._project.ledger, self._project.storage)

    @property
    def _catalogue(self) -> ModelCatalogue:
        return ModelCatalogue(self._project.ledger)

    @property
    def _versions(self) -> "VersionCatalogue":
        from noria.registry.sources import SourceRoots
        from noria.registry.version_catalogue import VersionCatalogue

        nowhere = SourceRoots(of_run=lambda _: None, of_model=lambda _: None)  # nothing is registered here
        return VersionCatalogue(self._project.ledger, self._project.storage, self._project.artifacts, nowhere)

    def _labelled(self, version: Version) -> CataloguedVersion:
        label = find_label(self._project, version)
        if label is None or find_registered(self._project, label) is None:
            error = NotFound("label", version.ref, ())
            error.add_note(
                f"Somebody deleted it; the version is on record. `noria model undelete {version.ref}` takes "
                "that back."
            )
            raise error
        return label


def _names_model(reference: str) -> bool:
    return not any(each in reference for each in ":@")
