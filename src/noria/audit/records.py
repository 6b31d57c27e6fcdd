"""What an audit tells, as values that JSON can hold: no NaN in them, None where something is not known."""

from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "Branch",
    "Chain",
    "CheckLine",
    "DigestLine",
    "Feature",
    "FileLine",
    "Link",
    "Money",
    "Outcome",
    "Placement",
    "Prediction",
    "RawRows",
    "ReleaseLine",
    "RouteLine",
    "RunLine",
    "Score",
    "SpineRow",
    "Trace",
    "Verdict",
    "VersionLine",
    "ViewLine",
]

Number = int | float


class DigestLine(msgspec.Struct, frozen=True, kw_only=True):
    """A digest that was recorded, and what it is when computed again from what is stored now."""

    what: str
    sha256: str  # as recorded
    how: str  # how anybody can compute it
    recomputed: str | None  # None: it was not, or could not be, computed
    ok: bool | None  # None: not computed; False as well where what it is of is gone or cannot be read
    problem: str | None = None


class CheckLine(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a verdict."""

    name: str
    value: float | None
    limit: float | None
    passed: bool | None
    detail: str
    low: float | None = None
    high: float | None = None
    rows: int | None = None


class VersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A version, by what tells it from all others."""

    id: str
    ref: str
    kind: str
    sha256: str
    uri: str
    at: datetime
    facts: dict[str, Any]
    run: str | None = None


class FileLine(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a table that holds some of the rows."""

    table: str
    path: str
    sha256: str
    rows: int  # how many of the rows lie in it
    size_bytes: int


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and answered, as it was logged."""

    id: str
    at: datetime
    recorded_at: datetime
    environment: str
    deployment: str
    route: str
    route_number: int
    release: str
    model: str  # name:number
    score: float
    latency_us: int
    inputs: dict[str, Any]
    file: FileLine | None


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What a release gave for the same row without answering it, as in a trial."""

    release: str
    model: str
    score: float


class RouteLine(msgspec.Struct, frozen=True, kw_only=True):
    """Who answered at the deployment then, and since when."""

    version: VersionLine
    entries: tuple[dict[str, Any], ...]  # release, weight, mode
    number: int | None  # which move of the pointer put it there
    since: datetime | None
    stable: bool | None
    reason: str
    event: str | None
    event_digest: str | None


class ViewLine(msgspec.Struct, frozen=True, kw_only=True):
    """A feature view as the release defines it."""

    name: str
    source: str
    sha256: str


class ReleaseLine(msgspec.Struct, frozen=True, kw_only=True):
    """What decided the answer: model, columns, definitions, threshold, code, runtime."""

    version: VersionLine
    file_digest: str
    threshold: float | None
    views: tuple[ViewLine, ...]
    code: str
    code_diff: str | None
    runtime: str
    refit_of: str | None  # id of the version that the gate judged


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """The run that made a model."""

    id: str
    model: str  # name:number of what it made
    name: str
    state: str
    at: datetime
    params: dict[str, Any]
    metrics: dict[str, float | None]
    seed: int | None
    code: str
    code_diff: str | None
    runtime: str
    cpu_s: float | None
    wall_s: float | None
    cause: str | None
    inputs: tuple[VersionLine, ...]


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature: as it was used, and computed again offline from the raw rows at that instant."""

    name: str
    used: float | str | None
    offline: float | str | None
    equal: bool | None  # None: it could not be computed again


class RawRows(msgspec.Struct, frozen=True, kw_only=True):
    """The source rows that the features of one view were made from.

    `sha256` is over JSON lines: the names of `columns`, then an array for each row, ordered by event and
    key; instants are microseconds since 1970, null is what is missing.
    """

    view: str
    dataset: str
    entity: dict[str, str | None]
    event_from: datetime | None  # the start of the longest window; None: no limit
    known_until: datetime
    only_last: bool  # the view looks at the last row only
    columns: tuple[str, ...]
    count: int
    known_first: datetime | None
    known_last: datetime | None
    sha256: str | None  # None: they could not be read
    sql: str  # shows them in `noria query`
    newest: tuple[dict[str, Any], ...]  # in full
    version: VersionLine | None
    files: tuple[FileLine, ...]
    problem: str | None = None


class SpineRow(msgspec.Struct, frozen=True, kw_only=True):
    """The row that the prediction is about."""

    dataset: str
    row: dict[str, Any] | None
    version: VersionLine | None
    file: FileLine | None
    problem: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate or a canary said."""

    event: str
    digest: str
    verb: str
    subject: str
    at: datetime
    environment: str
    passed: bool
    reason: str
    checks: tuple[CheckLine, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: 1, 0 or another number, or a label; neither where it is known that none will come."""

    outcome: float | None
    label: str | None = None
    known_at: datetime
    corrections: int  # earlier outcomes that this one replaced
    file: FileLine | None


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """What this one decision paid. Without an outcome nothing is paid yet."""

    decision: str
    unit: str
    threshold: float
    acted: bool
    cell: str | None  # tp, fp, fn, tn
    value: Number | None
    baseline_value: Number | None
    gain: Number | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction, from its raw rows to its money."""

    prediction: Prediction
    shadows: tuple[Score, ...]
    elsewhere: tuple[str, ...]  # other deployments that logged the same id
    route: RouteLine
    release: ReleaseLine
    model: VersionLine
    parts: dict[str, str]  # of the model: name -> sha256
    runs: tuple[RunLine, ...]  # what made the model; then, for a refit, what made the judged version
    features: tuple[Feature, ...]
    spine: SpineRow | None
    raw: tuple[RawRows, ...]
    verdicts: tuple[Verdict, ...]  # oldest first
    outcome: Outcome | None
    money: Money | None
    digests: tuple[DigestLine, ...] = ()

    @property
    def features_equal(self) -> bool:
        """Whether every feature that was used equals its value computed offline."""
        return all(each.equal for each in self.features)

    @property
    def ok(self) -> bool:
        """Whether no digest failed."""
        return all(each.ok is not False for each in self.digests)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The trace in a few sentences, from the answer to the money."""
        return tuple(_told(self))


def _told(trace: Trace) -> list[str]:
    asked, release = trace.prediction, trace.release
    told = [
        f"{asked.deployment} in {asked.environment} answered {asked.score:.4f} for {asked.id} at "
        f"{asked.at:%Y-%m-%d %H:%M} UTC",
        f"route {trace.route.version.ref} had {asked.model} answer (release {release.version.ref})",
    ]
    told += [
        f"{run.model} was made by train run {run.id} from {len(run.inputs)} versions, seed {run.seed}, "
        f"code {run.code[:12]}{' with uncommitted changes' if run.code_diff else ''}"
        for run in trace.runs
    ]
    equal = sum(each.equal is True for each in trace.features)
    rows = sum(each.count for each in trace.raw)
    told.append(
        f"{equal} of {len(trace.features)} features are equal when computed again from {rows} raw rows"
    )
    told += [each.reason for each in trace.verdicts]
    told.append(_told_outcome(trace))
    failed = [each.what for each in trace.digests if each.ok is False]
    checked = sum(each.ok is not None for each in trace.digests)
    told.append(
        f"{len(failed)} of {checked} digests do not hold: {', '.join(failed)}"
        if failed
        else f"all {checked} digests hold"
    )
    return told


def _told_outcome(trace: Trace) -> str:
    outcome, money = trace.outcome, trace.money
    if outcome is None:
        told = "its outcome is not known yet"
    elif outcome.label is not None:
        told = f"its outcome is {outcome.label!r}, known at {outcome.known_at:%Y-%m-%d %H:%M} UTC"
    elif outcome.outcome is None:
        told = f"it has no outcome, known at {outcome.known_at:%Y-%m-%d %H:%M} UTC"
    else:
        told = f"its outcome is {outcome.outcome:g}, known at {outcome.known_at:%Y-%m-%d %H:%M} UTC"
    if money is not None:
        did = "was acted on" if money.acted else "was not acted on"
        told += f"; it {did} ({money.decision}, threshold {money.threshold:.4f})"
        if money.gain is not None:
            told += f", which paid {money.value:g} {money.unit}, {money.gain:+g} against the baseline"
    return told


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a causal chain."""

    event: str
    at: datetime
    verb: str
    subject: str
    actor: str
    reason: str  # one sentence
    numbers: dict[str, Number]
    checks: tuple[CheckLine, ...]
    cause: str | None
    digest: str


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """How a model of the chain was made: events that lead, cause by cause, to an event of the chain."""

    model: str
    version: str
    links: tuple[Link, ...]  # newest first
    joins: str | None  # the chain's event that caused the oldest link


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment pointed to for some time."""

    route: str
    release: str
    model: str
    since: datetime
    until: datetime | None
    reason: str


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model is where it is: each link was caused by the next one."""

    environment: str
    deployment: str
    now: Placement
    before: Placement | None  # what answered before
    on_trial: Placement | None  # a route that is tried right now
    links: tuple[Link, ...]  # newest first; the first one moved the pointer
    origin: tuple[
        Link, ...
    ]  # after a rollback or restore: the chain of the move that first brought the route
    branches: tuple[Branch, ...]
    human: bool  # whether a person asked for any of it
    gap: str | None  # an event that is named as a cause but is not there

    @property
    def sentences(self) -> tuple[str, ...]:
        """The chain, newest first, a sentence for each link."""
        return tuple(f"{each.at:%Y-%m-%d %H:%M} {each.verb}: {each.reason}" for each in self.links)
