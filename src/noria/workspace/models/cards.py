"""The card of a model version: what the record says of it, gathered anew, beside what people wrote."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from noria.deploy.origins import corrected_sets
from noria.records import Run, Version
from noria.registry.cards import CardBook, CarriedOver, WrittenCard
from noria.registry.catalogue_records import CataloguedVersion
from noria.registry.records import ModelDetails, Signature, is_folder
from noria.workspace.models.card_parts import CardPart, Table, figure, interval, moment
from noria.workspace.models.explained import explained_part
from noria.workspace.models.history import PlacedStay, history_of
from noria.workspace.models.names import find_label, find_registered, reference_of
from noria.workspace.models.outcomes import earned

if TYPE_CHECKING:
    from noria.records import Event
    from noria.workspace.project import Project

__all__ = ["ModelCard", "make_card", "owner_of"]

_OWNER = "Owner"


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model version on a page.

    Parameters
    ----------
    model, called
        As it is on record, and as people name it now.
    owner
        What people wrote, else who answers for the objective, else who registered it.
    written
        What people wrote of this version; None: nothing.
    carried
        What they wrote of an earlier one, where nothing is of this: to be looked over.
    parts
        What the record says.
    """

    model: str
    called: str
    project: str
    owner: str | None
    written: WrittenCard | None
    carried: CarriedOver | None
    parts: tuple[CardPart, ...]

    @property
    def sections(self) -> dict[str, str]:
        """What people wrote, of this version or carried over."""
        if self.written is not None:
            return self.written.sections
        return {} if self.carried is None else self.carried.card.sections

    @property
    def markdown(self) -> str:
        """The whole card; what people wrote can be edited in it and be put again."""
        from noria.workspace.models.card_text import write_card

        return write_card(self)

    def page(self) -> bytes:
        """Give the card as one page of HTML that fetches nothing and runs no script."""
        from noria.workspace.models.card_page import render_card

        return render_card(self)


def make_card(project: "Project", version: Version) -> ModelCard:
    """Gather the card of a version. Raises `DigestMismatch`, `NotFound` if a part is changed or gone."""
    book = CardBook(project.ledger, project.storage)
    written = book.find(version)
    carried = book.carried_over(version) if written is None else None
    label = find_label(project, version)
    details = project.registry.show(version)
    run = None if version.run is None else project.ledger.get_run(version.run)
    stays, called = history_of(project, [version]), reference_of(project, version)
    parts = [
        _what(project, version, label, run),
        _use(project, version),
        _data(project, version, run),
        _quality(project, version, details),
        explained_part(project, version),
        _inputs(details),
        _gates(project, version),
        _places(stays),
        _value(project, version, stays),
        _limits(project, version),
        _making(version, run),
        _loading(called, details),
    ]
    return ModelCard(
        model=version.ref,
        called=called,
        project=project.name,
        owner=owner_of(project, version, label, written, carried),
        written=written,
        carried=carried,
        parts=tuple(each for each in parts if each is not None),
    )


def owner_of(
    project: "Project",
    version: Version,
    label: CataloguedVersion | None,
    written: WrittenCard | None,
    carried: CarriedOver | None,
) -> str | None:
    """Give who owns a version: as people wrote, else of the objective, else who registered it."""
    sections = written.sections if written else carried.card.sections if carried else {}
    if _OWNER in sections:
        return sections[_OWNER]
    training = project.declarations.trainings.get(version.name)
    if training is not None and training.objective is not None:
        return training.objective.owner
    return None if label is None else label.owner


def _what(project: "Project", version: Version, label: CataloguedVersion | None, run: Run | None) -> CardPart:
    facts: dict[str, str | None] = {
        "model": version.ref,
        "made": f"{moment(version.at)} UTC",
        "what it is": _origin(version),
        "format": str(version.facts.get("format")),
        "digest": version.sha256,
    }
    registered = find_registered(project, label)
    if label is None:
        facts["label"] = "deleted by somebody; the version stays on record"
    elif registered is not None:
        facts |= {
            "called": None if registered.name == version.name else f"{registered.name}:{label.number}",
            "model description": registered.description or None,
            "description": label.description or None,
            "aliases": ", ".join(label.aliases) or None,
            "stage at MLflow": None if label.stage.value == "None" else label.stage.value,
            "tags": "; ".join(f"{name} = {value}" for name, value in label.tags.items()) or None,
        }
    return CardPart(title="What it is", facts=facts)


def _origin(version: Version) -> str:
    facts = version.facts
    if "drill" in facts:
        return f"a drill, never to be used: {facts['drill']}"
    if "source" in facts:
        return f"a folder of MLflow, registered from {facts['source']}"
    if facts.get("parents"):
        return f"a refit of {facts['parents'][0].rpartition('/')[2]} on all rows"
    if "estimator" in facts:
        return f"registered as it is: {facts['estimator']}"
    return "trained, and judged on rows that were held back"


def _use(project: "Project", version: Version) -> CardPart | None:
    training = project.declarations.trainings.get(version.name)
    if training is None:
        return None
    objective = training.objective
    facts: dict[str, str | None] = {
        "predicts": f"the probability of {training.label.name!r}: {training.label.column} of "
        f"{training.label.source.name}",
        "for each": f"{training.spine.id} of {training.spine.source.name}, at its {training.spine.at}",
    }
    if objective is not None:
        pays = ", ".join(f"{name} {value:g}" for name, value in objective.payoff.items())
        facts |= {
            "decision": f"to {objective.decision}, where the score is above {objective.cut:.4g}",
            "without a model": f"the decision would {objective.baseline} be taken",
            "what a row pays": f"{pays} {objective.unit}",
            "given up when": objective.stop_if,
        }
    told = (training.function.__doc__ or "").strip()
    texts = (" ".join(told.split()),) if told else ()
    return CardPart(title="What it is for, as declared", facts=facts, texts=texts)


def _data(project: "Project", version: Version, run: Run | None) -> CardPart:
    facts = version.facts
    since, until = _day(facts.get("since")) or "the beginning", _day(facts.get("until"))
    held = _day(facts.get("holdout_from"))
    told: dict[str, str | None] = {}
    if "rows" in facts:
        told = {
            "window": None if until is None else f"from {since} to before {until}",
            "rows": f"{facts['rows']:,}, of which {facts['positives']:,} positive "
            f"({facts['positives'] / max(facts['rows'], 1):.1%})",
            "held back": None if held is None else f"{facts['holdout_rows']:,} rows, from {held} on",
        }
    rows = []
    if run is not None:
        for edge in project.ledger.list_edges(run=run.id):
            if edge.role == "input":
                read = project.ledger.get_version_by_id(edge.version)
                rows.append((read.kind.replace("_", " "), read.ref, read.sha256[:16]))
    tables = [Table(columns=("kind", "version", "digest"), rows=tuple(rows))] if rows else []
    texts = () if told or rows else ("Nothing is on record of what it learned from.",)
    return CardPart(title="What it learned from", facts=told, tables=tuple(tables), texts=texts)


def _quality(project: "Project", version: Version, details: ModelDetails) -> CardPart:
    metrics = details.model.metrics
    run = None if version.run is None else project.ledger.get_run(version.run)
    if not metrics and run is not None:
        metrics = run.metrics
    rows = [(name.replace("_", " "), figure(value)) for name, value in sorted(metrics.items())]
    tables = [Table(columns=("figure", "value"), rows=tuple(rows), right=("value",))] if rows else []
    compared = [
        (event.payload["environment"], each["name"], figure(each["value"]),
         interval(each["low"], each["high"]), f"{each['rows']:,}" if each.get("rows") else "-")
        for event in _judged(project, version)
        if event.verb.startswith("gate.")
        for each in event.payload["checks"]
        if each.get("low") is not None and each.get("value") is not None
    ]  # fmt: skip
    if compared:
        columns = ("gate of", "comparison", "value", "interval", "rows")
        tables.append(Table(columns=columns, rows=tuple(compared), right=("value", "rows")))
    parents = version.facts.get("parents") or ()
    texts = []
    if not rows:
        texts.append(
            f"It was not measured itself: it is a refit of {parents[0].rpartition('/')[2]}, which was judged "
            "on rows that were held back, and a canary judges the refit."
            if parents
            else "No figures are on record."
        )
    elif details.signature is not None and version.facts.get("holdout_rows"):
        texts.append(f"On {version.facts['holdout_rows']:,} rows that were held back from training.")
    texts.append("No slices are on record: a figure of all rows may hide a group for which it is worse.")
    return CardPart(title="How good it is", tables=tuple(tables), texts=tuple(texts))


def _inputs(details: ModelDetails) -> CardPart:
    signature = details.signature
    if signature is None:
        return CardPart(
            title="Inputs and output",
            texts=(
                "There is no signature of noria's; that of the folder is in its file MLmodel, if it has one.",
            ),
        )
    rows = []
    for each in signature.inputs:
        column = details.profile.get(each.name, {})
        numbers = [figure(column.get(name)) for name in ("low", "mean", "high")]
        if each.is_text:
            numbers = ["-", f"{len(each.categories)} known texts", "-"]
        missing = column.get("missing_share")
        rows.append((each.name, each.kind, *numbers, "-" if missing is None else f"{missing:.1%}"))
    columns = ("input", "kind", "low", "mean", "high", "missing")
    return CardPart(
        title="Inputs and output",
        texts=(f"It gives {_given(signature)}. Inputs are as they were {_where(details)}.",),
        tables=(Table(columns=columns, rows=tuple(rows), right=columns[2:]),),
    )


def _given(signature: Signature) -> str:
    if not signature.is_as_given:
        return f"{signature.output}: a probability"
    return ", ".join(
        f"{each.name} ({each.datatype}{f', a vector of {each.width}' if each.width else ''})"
        for each in signature.given
    )


def _where(details: ModelDetails) -> str:
    return "in the example that it came with" if "estimator" in details.model.facts else "in training"


def _judged(project: "Project", version: Version) -> "list[Event]":
    events = project.ledger.list_events(subject=version.ref)
    return [each for each in events if each.verb.startswith(("gate.", "canary."))]


def _gates(project: "Project", version: Version) -> CardPart:
    rows = [
        (moment(each.at), each.verb.replace(".", " "), str(each.payload.get("reason", "")), each.id)
        for each in _judged(project, version)
    ]
    if not rows:
        told = "It met none itself." if version.facts.get("parents") else "It met none yet."
        return CardPart(title="Gates and canaries", texts=(told,))
    table = Table(columns=("at", "verdict", "because", "event"), rows=tuple(rows))
    return CardPart(title="Gates and canaries", tables=(table,))


def _places(stays: Sequence[PlacedStay]) -> CardPart:
    if not stays:
        return CardPart(title="Where it is, and was", texts=("It was never put up anywhere.",))
    rows = [
        (f"{each.deployment}@{each.environment}", moment(each.since),
         "still" if each.until is None else moment(each.until),
         f"{each.share:.0%}" + " in shadow" * (each.mode == "shadow") + " on trial" * each.trial,
         each.by, each.reason)
        for each in stays
    ]  # fmt: skip
    columns = ("where", "from", "to", "share", "by", "because")
    return CardPart(title="Where it is, and was", tables=(Table(columns=columns, rows=tuple(rows)),))


def _value(project: "Project", version: Version, stays: Sequence[PlacedStay]) -> CardPart | None:
    training = project.declarations.trainings.get(version.name)
    if training is None or training.objective is None:
        return None
    unit, rows = training.objective.unit, []
    for environment in dict.fromkeys(each.environment for each in stays):
        paid = earned(project, version, environment=environment)
        if paid is not None and paid.rows > paid.unlabelled:
            rows.append((environment, f"{paid.rows:,}", f"{paid.rows - paid.unlabelled:,}", f"{paid.acted:,}",
                         f"{paid.gain:+,.0f} {unit}", f"{interval(paid.low, paid.high)} {unit}"))  # fmt: skip
    if not rows:
        return CardPart(title="What it was worth", texts=("No outcome of its answers is known.",))
    columns = ("environment", "answers", "with outcome", "acted on", "gain", "95 % interval")
    return CardPart(
        title="What it was worth",
        texts=(
            f"Against {training.objective.baseline} deciding to {training.objective.decision}, by the "
            "payoffs declared now; what computing cost is not taken off.",
        ),
        tables=(Table(columns=columns, rows=tuple(rows), right=columns[1:]),),
    )


def _limits(project: "Project", version: Version) -> CardPart:
    from noria.training.statistics import list_suspicions

    suspicions = None if is_folder(version) else list_suspicions(project.ledger, version)
    texts = []
    if suspicions is None:
        texts.append("Its features were not looked at for leaks.")
    elif not suspicions:
        texts.append("No feature looks as if it knew the outcome.")
    rows = [(each.feature, each.rule.replace("_", " "), each.detail) for each in suspicions or ()]
    tables = [Table(columns=("feature", "suspicion", "because"), rows=tuple(rows))] if rows else []
    for each in corrected_sets(project.ledger, version):
        texts.append(
            f"It was made from {each.ref}, whose features hold what became known later; no gate lets it in."
        )
    if "drill" in version.facts:
        texts.append(f"It is a drill: {version.facts['drill']}.")
    return CardPart(title="Known limits and suspicions", tables=tuple(tables), texts=tuple(texts))


def _making(version: Version, run: Run | None) -> CardPart | None:
    if run is None:
        return None
    cost = run.cost
    return CardPart(
        title="How it was made",
        facts={
            "run": run.id,
            "code": run.code if run.code != "none" else "no commit is on record",
            "uncommitted": None if run.code_diff is None else f"diff {run.code_diff}",
            "runtime": run.runtime,
            "seed": None if run.seed is None else str(run.seed),
            "cost": None if cost is None else f"{cost.cpu_s:.2f} s of CPU",
            "parameters": _params(run.params),
        },
    )


def _params(params: Mapping[str, Any]) -> str | None:
    own = {name: value for name, value in sorted(params.items()) if "." in name}
    return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in own.items()) or None


def _loading(called: str, details: ModelDetails) -> CardPart:
    rows = [(name, f"{part.size_bytes:,}", part.sha256) for name, part in sorted(details.parts.items())]
    return CardPart(
        title="Parts, and how to load it",
        tables=(_parts_table(rows),),
        code=(
            "import noria\n\n"
            "with noria.open() as project:\n"
            f'    model = project.load_model("{called}")\n'
            "    scores = model.predict(rows)"
        ),
    )


def _parts_table(rows: Iterable[tuple[str, str, str]]) -> Table:
    return Table(columns=("part", "bytes", "sha256"), rows=tuple(rows), right=("bytes",))


def _day(instant: object) -> str | None:
    return instant.removesuffix("T00:00:00Z") if isinstance(instant, str) else None
