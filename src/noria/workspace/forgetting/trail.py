"""Where a subject's rows have gone: tables that were derived from them, and columns that carry its values.

Two things are followed: the values themselves, and the keys of the subject's rows, where a dataset has a key
of one column. Models of the warehouse are followed by the lineage of their columns; where that is not exact,
and for tables that steps have written, by the name of a column. Runs and versions are followed by the ledger.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.lake.finding import Carrying
from noria.ledger.redacted import REDACTED
from noria.records import Run, Version
from noria.replay.loop import feature_table
from noria.warehouse.forms import Form
from noria.warehouse.lineage import Lineage
from noria.workspace.features.sources import tables_behind
from noria.workspace.transforming import open_warehouse

if TYPE_CHECKING:
    from noria.features.declarations import FeatureView
    from noria.lake.forgetting import Held
    from noria.training.declarations import Training
    from noria.warehouse.transforming import Warehouse
    from noria.workspace.project import Project

__all__ = ["Descent", "Trail", "counts_subject", "descend", "find_trail"]

Paths = dict[tuple[str, ...], list[Any]]


@dataclass(slots=True)
class Trail:
    """What is followed.

    Attributes
    ----------
    held
        What the dataset and its rejected rows hold.
    key, keys
        The column that names the dataset's rows, where it is one, and its values in the subject's rows.
    tables
        Derived table -> columns that carry a value on, with the values.
    models
        Those of them that the warehouse builds, in order; views are left out.
    doubts
        Table -> what is not known for certain.
    changed
        Table -> columns that hold values in another form, where no other column tells the rows.
    prediction_ids
        Values that name a prediction.
    inputs
        Column of a request -> the values that it carries.
    """

    dataset: str
    column: str
    values: list[Any]
    held: dict[str, "Held"]
    key: str | None
    keys: list[Any]
    tables: dict[str, Paths] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)
    prediction_ids: list[Any] = field(default_factory=list)
    inputs: Paths = field(default_factory=dict)

    @property
    def own(self) -> dict[str, list[Any]]:
        """The columns of the dataset itself that are followed."""
        return {self.column: self.values} | ({self.key: self.keys} if self.key and self.keys else {})

    def carried_by(self, table: str) -> dict[str, list[Any]]:
        """Give the plain columns of a table that carry values on."""
        if table == self.dataset:
            return self.own
        return {path[0]: values for path, values in self.tables.get(table, {}).items() if len(path) == 1}

    def followed_in(self, table: str) -> dict[str, list[Any]]:
        """Give what `carried_by` gives, and the key of the dataset also where none of its values is left."""
        own = {self.key: list[Any]()} if table == self.dataset and self.key else {}
        return own | self.carried_by(table)

    def knows(self, table: str) -> bool:
        """Say whether a table is the dataset, or was derived from it."""
        return table == self.dataset or table in self.tables

    def finder(self, table: str) -> Carrying:
        """Give what finds the subject's rows in a derived table."""
        return Carrying(self.tables[table])


def find_trail(project: "Project", dataset: str, column: str, values: Iterable[Any]) -> Trail:
    """Find out where a subject's rows have gone. Raises as `Lake.forget` does."""
    wanted = list(dict.fromkeys(values))
    declared = project.declarations.datasets.get(dataset)
    keys = () if declared is None else declared.keys
    key = keys[0] if len(keys) == 1 and keys[0] != column else None
    held = project.lake.held(dataset, column, wanted, columns=[] if key is None else [key])
    found = held[dataset].found
    named = []
    if key is not None and found is not None and key in found.column_names:
        named = [each for each in found[key].unique().to_pylist() if each is not None]
    trail = Trail(dataset, column, wanted, held, key, named)
    for name in _written_from(project, trail):
        trail.tables[name] = _by_name(project, trail, name)
        trail.doubts[name] = "what wrote it is followed by the ledger, and columns by their name"
    _follow_models(project, open_warehouse(project), trail)
    for training in project.declarations.trainings.values():
        _follow_training(project, training, trail)
    return trail


def _by_name(project: "Project", trail: Trail, table: str) -> Paths:
    """Give the columns that have the name of one that is followed; of a dropped one, all of them."""
    own = trail.own
    names = project.lake.schema(table).names if project.lake.exists(table) else list(own)
    return {(name,): values for name, values in own.items() if name in names}


def _written_from(project: "Project", trail: Trail) -> Iterator[str]:
    """Name the tables that runs have written which had read the dataset, or what came of it."""
    descent = descend(project, [trail.dataset], {trail.dataset: trail.held[trail.dataset].versions})
    besides = {trail.dataset, *trail.held}
    names = {each.name for each in descent.versions.values() if each.uri.startswith("delta:")}
    for name in sorted(names - besides):
        if project.lake.exists(name, dropped=True):
            yield name


def _follow_models(project: "Project", warehouse: "Warehouse", trail: Trail) -> None:
    lake, graph = project.lake, warehouse.graph
    lineage = Lineage(graph, lambda name: lake.schema(name).names if lake.exists(name) else None)
    for name in graph.order:
        model = graph.models[name]
        inputs = [each for each in graph.inputs_of(name) if trail.knows(each)]
        if model.is_view or not inputs:
            continue
        trail.models.append(name)
        if not lake.exists(name):
            continue
        paths = _by_name(project, trail, name)
        vague, changed, whole = [], [], False
        for column in lineage.columns(name):
            if lineage.of(name, column).approximate:
                vague.append(column)
                continue
            for root, form in lineage.forms(name, column).items():
                values = {each.lower(): held for each, held in trail.followed_in(root.table).items()}
                held = values.get(root.column.lower())
                if held is None:
                    continue
                whole |= form is Form.SAME
                if form is Form.CHANGED:
                    changed.append(column)
                elif form is Form.COUNTED:
                    continue
                paths[column,] = [*dict.fromkeys([*paths.get((column,), []), *held])]
        trail.tables[name] = paths
        trail.doubts.pop(name, None)
        if vague:
            trail.doubts[name] = f"where {', '.join(vague)} come from is not known: followed by name"
        if changed and not whole:
            trail.changed[name] = list(dict.fromkeys(changed))


def _follow_training(project: "Project", training: "Training", trail: Trail) -> None:
    """Follow into a training's feature rows, and with them into requests and what they were answered."""
    spine, label = training.spine, training.label
    columns: dict[str, list[Any]] = defaultdict(list)
    reads = False
    if trail.knows(spine.source.name):
        reads = True
        for name, values in trail.carried_by(spine.source.name).items():
            columns["id" if name == spine.id else "at" if name == spine.at else name] += values
    for view in training.views:
        if counts_subject(project, view, trail):
            reads = True
            for name, values in _entities(project, view, trail):
                columns[name] += values
    if trail.knows(label.source.name):
        reads = True
        columns["id"] += trail.carried_by(label.source.name).get(label.on, [])
    if not reads:
        return
    table = feature_table(training.name)
    paths: Paths = {(name,): values for name, values in columns.items() if values}
    if project.lake.exists(table):
        trail.tables[table] = {**trail.tables.get(table, {}), **paths}
        counted = [view.name for view in training.views if counts_subject(project, view, trail)]
        if counted:
            trail.doubts[table] = f"rows of others keep what {', '.join(counted)} counted for them"
    asked = {each.name for each in training.request_fields}
    asked |= {name for view in training.views for name in view.spec().entity}
    for name, values in columns.items():
        if name == "id":
            trail.prediction_ids = [*dict.fromkeys([*trail.prediction_ids, *values])]
        elif name in asked:
            path = ("inputs", name)
            trail.inputs[path] = [*dict.fromkeys([*trail.inputs.get(path, []), *values])]


def counts_subject(project: "Project", view: "FeatureView", trail: Trail) -> bool:
    """Say whether a view counts rows of the dataset, or of what was derived from it."""
    return any(trail.knows(each) for each in tables_behind(project, view.spec()))


def _entities(project: "Project", view: "FeatureView", trail: Trail) -> Iterator[tuple[str, list[Any]]]:
    """Give the entity columns that carry values on; those of a query are followed by their name."""
    spec = view.spec()
    for table in tables_behind(project, spec):
        carried = trail.carried_by(table)
        for name in spec.entity:
            if name in carried:
                yield name, carried[name]


@dataclass(frozen=True, slots=True)
class Descent:
    """What came of some versions: the runs that read them or what came of them, and what these made."""

    runs: Mapping[str, Run]
    versions: Mapping[str, Version]

    def of(self, kind: str) -> list[Version]:
        """Give the versions of one kind, by name and number."""
        found = (each for each in self.versions.values() if each.kind == kind)
        return sorted(found, key=lambda each: (each.name, each.number))


def descend(project: "Project", tables: Iterable[str], held: Mapping[str, Iterable[Version]]) -> Descent:
    """Follow the ledger from versions that hold a subject, and from those that were rid of one meanwhile.

    Of the latter only what came before counts: who read them since has read what was left.

    Parameters
    ----------
    tables
        Whose versions.
    held
        By table, those that hold it now.
    """
    ledger = project.ledger
    until: dict[str, datetime | None] = {}
    for name in tables:
        for event in ledger.list_events(verb=REDACTED, subject=name):
            until[event.payload["version"]] = event.recorded_at
    until |= {each.id: None for versions in held.values() for each in versions}
    read: dict[str, list[str]] = defaultdict(list)
    made: dict[str, list[str]] = defaultdict(list)
    for edge in ledger.list_edges() if until else ():
        if edge.role == "input":
            read[edge.version].append(edge.run)
        else:
            made[edge.run].append(edge.version)
    runs: dict[str, Run] = {}
    versions: dict[str, Version] = {}
    waiting = list(until)
    seen = set(waiting)
    while waiting:
        id = waiting.pop()
        limit = until.get(id)
        for each in read[id]:
            run = runs.get(each) or ledger.get_run(each)
            if limit is not None and run.started_at is not None and run.started_at >= limit:
                continue
            runs[run.id] = run
            for output in made[run.id]:
                if output not in seen:
                    seen.add(output)
                    versions[output] = ledger.get_version_by_id(output)
                    waiting.append(output)
    return Descent(runs, versions)
