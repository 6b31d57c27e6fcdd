"""`noria feature register`, `readers`, `import-feast`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError, Conflict

if TYPE_CHECKING:
    from noria.workspace.features.reader_records import FeatureReaders

__all__ = ["import_feast", "readers", "register"]

_SHOWN = 20


def register(*views: Annotated[str, Parameter(name="VIEW")], options: Options = DEFAULT) -> None:
    """Put definitions of feature views on record, and measure their features.

    Training sets, trainings and `materialize` do so by themselves.

    Parameters
    ----------
    views
        Their names. Default: all.
    """
    from noria.cli import screen

    with options.open() as project:
        done = project.features.register(views)
    if options.json:
        screen.json(done)
        return
    if not done:
        screen.line("The project declares no feature view. Write one: `noria.FeatureView(...)`.")
    for each in done:
        if each.statistics is not None:
            sampled, entities = map(screen.number, (each.statistics.sampled, each.statistics.entities))
            told = f"measured over {sampled} of {entities} entities"
        elif each.reason is not None:
            told = f"not measured: {each.reason}"
        else:
            told = "not measured: nothing has landed in its source"
        screen.line(f"{each.view}: on record as {each.version}, {told}.")


def readers(
    view: Annotated[str, Parameter(name="VIEW")],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Show who used a feature view: models, training sets, deployments, requests, and who read values.

    Parameters
    ----------
    view
        Its name; or of one of its features, as `courier__late_7d`.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.features.readers(view)
    if options.json:
        screen.json(found)
        return
    name = found.view if found.feature is None else f"{found.view}__{found.feature}"
    screen.line(f"Readers of {name}", style="bold")
    screen.facts(
        {
            "trainings": ", ".join(found.trainings) or None,
            "definitions": ", ".join(found.definitions) or None,
        }
    )
    _tell_made(found)
    _table(
        "Deployments",
        ["environment", "deployment", "release", "definition", "share", "from", "until"],
        [
            (
                each.environment,
                each.deployment,
                each.release,
                each.definition or "",
                each.mode if each.mode == "shadow" else screen.share(each.weight),
                each.since,
                each.until or "now",
            )
            for each in reversed(found.deployments)
        ],
    )
    _table(
        "Requests",
        ["day", "environment", "deployment", "release", "rows"],
        [
            (each.day, each.environment, each.deployment, each.release, screen.number(each.rows))
            for each in sorted(found.requests, key=lambda each: each.day, reverse=True)
        ],
    )
    _table(
        "Readings",
        ["day", "who", "how", "calls", "entities"],
        [
            (each.day, each.who, each.how, screen.number(each.calls), screen.number(each.entities))
            for each in reversed(found.reads)
        ],
    )
    if found.reads_since is not None:
        screen.line(f"Readings of this machine are known from {screen.instant(found.reads_since)} on.")


def _tell_made(found: "FeatureReaders") -> None:
    """Tell of model versions and training sets, the newest first."""
    _table(
        "Models",
        ["model", "definition", "by", "at"],
        [(each.model, each.definition, each.by, each.at) for each in reversed(found.models)],
    )
    _table(
        "Training sets",
        ["training set", "definition", "by", "at"],
        [(each.training_set, each.definition, each.by, each.at) for each in reversed(found.training_sets)],
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    from noria.cli import screen

    if not rows:
        return
    screen.heading(title)
    screen.table(columns, rows[:_SHOWN])
    if len(rows) > _SHOWN:
        screen.line(f"and {screen.number(len(rows) - _SHOWN)} more; `--json` gives all")


def import_feast(
    path: Annotated[Path, Parameter(name="PATH")],
    /,
    *,
    into: Annotated[
        Path | None, Parameter(name="--into", help="The module to write. Default: the answer has it.")
    ] = None,
    known_at: Annotated[
        Literal["created", "event"],
        Parameter(
            name="--known-at", help="From when on a row is known: when it was created, or when it happened."
        ),
    ] = "created",
    options: Options = DEFAULT,
) -> None:
    """Import a Feast repository: write its entities, sources, views and services as noria's declarations.

    Feast need not be installed, and no code of the repository is run. What does not map is told, with its
    file and line, why, and what to do instead.

    Parameters
    ----------
    path
        The folder with `feature_store.yaml`.
    """
    from noria.cli import screen
    from noria.config import find_project
    from noria.features import feast

    root = find_project(options.project)
    found = feast.import_feast(path, root=root, known_at=known_at)
    if into is not None:
        target = root / into
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(found.module)
        except FileExistsError as err:
            raise Conflict(
                f"there is a file {into} already, and nothing was written; name another one, or remove it"
            ) from err
        except OSError as err:
            raise ConfigError(f"{into} cannot be written: {err.strerror}; name another file") from err
    if options.json:
        screen.json(found)
        return
    if into is None:
        screen.verbatim(found.module)
        screen.line()
    screen.line(
        f"{screen.count(len(found.views), 'view')}, {screen.count(len(found.datasets), 'dataset')}, "
        f"{screen.count(len(found.streams), 'stream')}, {screen.count(len(found.services), 'service')}"
        f"{'' if into is None else f' written to {into}'}; {screen.count(len(found.notes), 'note')}.",
        style="bold",
    )
    for note in found.notes:
        screen.line(f"{note.file}:{note.line}: {note.what} {_KINDS[note.kind]}: {note.why}.")
        screen.line(f"-> {note.instead}", indent=4)
    if into is not None:
        screen.line(f'Next: add "{into.stem}" to `modules` in noria.toml, then `noria ingest DATASET`.')


_KINDS = {"left out": "is left out", "differs": "differs"}
