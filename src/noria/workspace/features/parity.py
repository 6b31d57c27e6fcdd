"""Features that deployments served, computed again offline for a share of the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import format_instant, parse_wait
from noria.deploy.releases import Release, read_release
from noria.deploy.shipping import PREDICTIONS
from noria.errors import ConfigError, NoriaError, NotFound, SourceError
from noria.features.parity import ViewParity, verify_view
from noria.lake.states import TableStates
from noria.workspace.features.on_demand import differing_on_demand
from noria.workspace.features.sources import FeatureSources

if TYPE_CHECKING:
    from noria.features.declarations import ViewSpec
    from noria.workspace.project import Project

__all__ = ["MOST_ROWS", "ParityReport", "ViewVerified", "verify_deployment"]

MOST_ROWS = 1_000  # of one look
LIMIT = timedelta(minutes=1)  # how far behind a store may be and still be called late instead of wrong
_EXAMPLES = 5
_COLUMNS = ("prediction_id", "at", "release", "inputs", "features")
_FALLBACKS = "fallbacks"  # where the log has it: views whose features were their defaults


class ViewVerified(msgspec.Struct, frozen=True, kw_only=True):
    """How the served values of one view compare with offline.

    Attributes
    ----------
    rows
        How many predictions were compared.
    late
        How many of them lacked rows that had landed already.
    late_s
        For how long at most, in seconds.
    differing
        How many agree with no state in which the source stood.
    unexamined
        How many differ from the newest state, and were not looked into: there were too many.
    columns
        The features that differ.
    examples
        Ids of some predictions with differing features.
    unverified
        Why nothing was compared; None where it was.
    """

    view: str
    rows: int = 0
    late: int = 0
    late_s: float = 0.0
    differing: int = 0
    unexamined: int = 0
    columns: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    unverified: str | None = None


class ParityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a deployment's predictions found.

    Attributes
    ----------
    predictions
        How many were logged in between.
    rows
        How many of them were drawn.
    until
        When the newest of them was logged; None if there was none.
    """

    environment: str
    deployment: str
    predictions: int
    rows: int
    until: datetime | None
    views: tuple[ViewVerified, ...] = ()

    @property
    def differing(self) -> int:
        """How many values of a view and prediction are wrong."""
        return sum(each.differing for each in self.views)

    @property
    def late(self) -> int:
        """How many were late."""
        return sum(each.late for each in self.views)

    @property
    def late_s(self) -> float:
        """By how much at most, in seconds."""
        return max((each.late_s for each in self.views), default=0.0)

    @property
    def is_broken(self) -> bool:
        """Whether anything that was served is not what offline gives."""
        return any(each.differing or each.unexamined for each in self.views)

    def told(self) -> str:
        """Say in a sentence what was found."""
        broken = [each for each in self.views if each.differing or each.unexamined]
        text = f"of {self.predictions} predictions {self.rows} were computed again offline: "
        if broken:
            columns = ", ".join(column for each in broken for column in each.columns)
            text += f"{sum(each.differing + each.unexamined for each in broken)} differ in {columns}"
        else:
            text += "what was served agrees"
        if self.late:
            text += f"; {self.late} lacked rows that had landed up to {self.late_s:.1f} s before"
        for each in self.views:
            if each.unverified is not None:
                text += f"; view {each.view} could not be verified: {each.unverified}"
        return text

    def payload(self) -> dict[str, Any]:
        """Give the numbers, as events and `--json` have them."""
        counts = {
            "predictions": self.predictions,
            "rows": self.rows,
            "values": self.differing,
            "unexamined": sum(each.unexamined for each in self.views),
            "late": self.late,
            "late_s": self.late_s,
            "until": None if self.until is None else format_instant(self.until),
        }
        return counts | {"views": msgspec.to_builtins(self.views)}


def verify_deployment(
    project: Project,
    environment: str,
    deployment: str,
    *,
    since: datetime | None = None,
    share: float = 1.0,
    least: int = 0,
    most: int = MOST_ROWS,
) -> ParityReport:
    """Compare features that a deployment served with the same computed offline.

    Parameters
    ----------
    since
        Only predictions that were logged after it; they are those in the lake.
    share
        Of the predictions, chosen by their ids: the same ones each time.
    least, most
        So many of them, if there are as many, and never more.

    Raises
    ------
    ConfigError
        If the environment goes by the clock of a replay, which compares every row by itself.
    """
    if project.environment(environment).clock != "wall":
        raise ConfigError(
            f"environment {environment!r} goes by the clock of a replay, which compares all that it serves "
            "by itself; `noria status` shows what it found"
        )
    where = _is_logged(project, environment, deployment, since)
    views: list[ViewVerified] = []
    ids: list[str] = []
    until, rows = None, 0
    if where is not None:
        # Of all that was logged only ids are held in memory, and the rest of those that are drawn.
        found = project.lake.read(PREDICTIONS, columns=["prediction_id", "recorded_at"], where=where)
        ids = found["prediction_id"].to_pylist()
        until = pc.max(found["recorded_at"]).as_py()
        chosen = _draw(ids, max(round(share * len(ids)), least), most=most)
        mine = ds.field("prediction_id").isin([ids[place] for place in chosen])
        there = project.lake.schema(PREDICTIONS).names
        columns = [*_COLUMNS, *({_FALLBACKS} & set(there))]
        drawn = project.lake.read(PREDICTIONS, columns=columns, where=where & mine) if chosen else None
        if drawn is not None:
            drawn = drawn.filter(pc.and_(drawn["features"].is_valid(), _were_looked_up(drawn)))
            rows = drawn.num_rows
            states = TableStates(project.lake.url)
            for release in sorted(set(drawn["release"].to_pylist())):
                of_release = drawn.filter(pc.equal(drawn["release"], release))
                views += _verify_release(project, release, of_release, states)
    return ParityReport(
        environment=environment,
        deployment=deployment,
        predictions=len(ids),
        rows=rows,
        until=until,
        views=_together(views),
    )


def _is_logged(
    project: Project, environment: str, deployment: str, since: datetime | None
) -> ds.Expression | None:
    """Say which rows of the log are meant; None: no prediction has had features yet."""
    if not project.lake.exists(PREDICTIONS) or set(_COLUMNS) - set(project.lake.schema(PREDICTIONS).names):
        return None
    where = (ds.field("environment") == environment) & (ds.field("deployment") == deployment)
    if since is not None:
        where &= ds.field("recorded_at") > pa.scalar(since, pa.timestamp("us", "UTC"))
    return where


def _were_looked_up(rows: pa.Table) -> pa.ChunkedArray:
    """Tell which rows got no view's defaults because the online store was away: nothing is compared then."""
    if _FALLBACKS not in rows.column_names:
        return pa.chunked_array([pa.array([True] * rows.num_rows, pa.bool_())])
    return pc.equal(pc.fill_null(pc.list_value_length(rows[_FALLBACKS]), 0), 0)


def _draw(ids: Sequence[str], number: int, *, most: int) -> list[int]:
    """Choose rows by their ids: those that come first by their hash."""
    hashes = [blake2b(each.encode("utf-8", "surrogatepass"), digest_size=8).digest() for each in ids]
    return sorted(sorted(range(len(ids)), key=hashes.__getitem__)[: min(number, most)])


def _verify_release(
    project: Project, release: str, rows: pa.Table, states: TableStates
) -> list[ViewVerified]:
    name, _, number = release.rpartition(":")
    content = read_release(project.ledger.get_version("release", name, int(number)))
    views = [_verify_view(project, spec, rows, states) for spec in content.views]
    return views + _verify_on_demand(project, content, rows)


def _verify_on_demand(project: Project, content: Release, rows: pa.Table) -> list[ViewVerified]:
    ids = rows["prediction_id"].to_pylist()
    try:
        found = list(differing_on_demand(project, content, rows))
    except NoriaError as error:
        return [ViewVerified(view=spec.name, unverified=str(error)) for spec in content.on_demand]
    return [
        ViewVerified(
            view=spec.name,
            rows=rows.num_rows,
            differing=len(places),
            columns=columns,
            examples=tuple(ids[place] for place in places[:_EXAMPLES]),
        )
        for spec, places, columns in found
    ]


def _verify_view(project: Project, spec: ViewSpec, rows: pa.Table, states: TableStates) -> ViewVerified:
    try:
        with FeatureSources(project, [spec]) as sources:
            found = verify_view(
                spec, _served(spec, rows), read=sources, states=states, limit_us=_limit_us(project, spec)
            )
    except (NotFound, SourceError) as error:
        return ViewVerified(view=spec.name, unverified=str(error))
    ids = rows["prediction_id"]
    return _told(found, [ids[place].as_py() for place in found.differing[:_EXAMPLES]])


def _served(spec: ViewSpec, rows: pa.Table) -> pa.Table:
    """Give the entities, instants and served values of a view. Raises `SourceError` if the log lacks one."""
    inputs, features = (rows[name].combine_chunks() for name in ("inputs", "features"))
    columns: dict[str, Any] = {}
    for struct, names in ((inputs, spec.entity), (features, spec.model_columns)):
        for name in names:
            if struct.type.get_field_index(name) < 0:
                raise SourceError(f"the log has no {name!r} of the predictions; it has {struct.type}")
            columns[name] = pc.struct_field(struct, name)
    return pa.table(columns | {"at": rows["at"]})


def _limit_us(project: Project, spec: ViewSpec) -> int:
    declared: Any = project.declarations.views.get(spec.name)
    freshness = getattr(declared, "freshness", None)
    limit = LIMIT if freshness is None else max(parse_wait(freshness), LIMIT)
    return int(limit / timedelta(microseconds=1))


def _told(found: ViewParity, examples: Sequence[str]) -> ViewVerified:
    return ViewVerified(
        view=found.view,
        rows=found.rows,
        late=len(found.late_us),
        late_s=max(found.late_us, default=0) / 1e6,
        differing=len(found.differing),
        unexamined=found.unexamined,
        columns=found.columns,
        examples=tuple(examples),
    )


def _together(views: Sequence[ViewVerified]) -> tuple[ViewVerified, ...]:
    """Add up what was found of one view for several releases."""
    by_name: Mapping[str, list[ViewVerified]] = {each.view: [] for each in views}
    for each in views:
        by_name[each.view].append(each)
    return tuple(
        ViewVerified(
            view=name,
            rows=sum(each.rows for each in mine),
            late=sum(each.late for each in mine),
            late_s=max(each.late_s for each in mine),
            differing=sum(each.differing for each in mine),
            unexamined=sum(each.unexamined for each in mine),
            columns=tuple(sorted({column for each in mine for column in each.columns})),
            examples=tuple(id for each in mine for id in each.examples)[:_EXAMPLES],
            unverified=next((each.unverified for each in mine if each.unverified), None),
        )
        for name, mine in sorted(by_name.items())
    )
