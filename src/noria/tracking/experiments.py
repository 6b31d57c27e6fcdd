"""Experiments: made, named, tagged, deleted, restored. Each change is an event."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, bindparam, insert, select

from noria.database.upserts import Upsert
from noria.errors import Conflict, NotFound
from noria.ledger.chain import Change
from noria.ledger.store import Ledger
from noria.tracking.names import check_title
from noria.tracking.records import Experiment
from noria.tracking.tables import experiment_tags, experiments, tracked_runs

__all__ = ["ExperimentBook", "get_open_experiment", "read_experiments"]

_TAGS = Upsert(experiment_tags, replaced=("value",))
_NUMBERED: BindParameter[Any] = bindparam("experiments", expanding=True)
_READ = select(experiments).where(experiments.c.id.in_(_NUMBERED))
_TAGS_OF = (
    select(experiment_tags)
    .where(experiment_tags.c.experiment.in_(_NUMBERED))
    .order_by(experiment_tags.c.name)
)
_AT_ONCE = 500  # experiments in one question


class ExperimentBook:
    """The experiments of a project. Safe to use from many threads and processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def create(
        self,
        name: str,
        *,
        artifact_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        actor: str | None = None,
        at: datetime | None = None,
    ) -> Experiment:
        """Make an experiment.

        Raises
        ------
        Conflict
            If there is one of that name, if only a deleted one.
        ConfigError
            If the name is none, or too long.
        """
        check_title("experiment", name)
        with self._ledger.change(at, actor=actor) as change:
            found = change.connection.execute(select(experiments).where(experiments.c.name == name)).first()
            if found is not None:
                raise Conflict(_taken(found))
            row = {"name": name, "artifact_uri": artifact_uri, "at": change.at, "updated_at": change.at}
            statement = insert(experiments).values(row).returning(experiments.c.id)
            number = change.connection.execute(statement).scalar_one()
            _TAGS.execute(change.connection, _tag_rows(number, tags or {}))
            change.record("experiment.created", f"experiment/{number}", payload={"name": name}, cause=None)
            return read_experiments(change.connection, [number])[0]

    def find(self, name: str) -> Experiment | None:
        """Give the experiment of that name, also a deleted one; or `None`."""
        query = select(experiments.c.id).where(experiments.c.name == name)
        with self._ledger.database.read() as connection:
            number = connection.execute(query).scalar()
            return None if number is None else read_experiments(connection, [number])[0]

    def get(self, name: str) -> Experiment:
        """Give the experiment of that name. Raises `NotFound`, naming those that exist."""
        found = self.find(name)
        if found is None:
            raise NotFound("experiment", name, [each.name for each in self.list_all()])
        return found

    def get_by_id(self, id: str) -> Experiment:
        """Give the experiment of that id, also a deleted one. Raises `NotFound`."""
        return self.read([_number(id)])[0]

    def open(self, name: str, *, actor: str | None = None) -> Experiment:
        """Give the experiment of that name; make it if it is not there. Two may do so at once."""
        found = self.find(name)
        if found is not None:
            return found
        with self._ledger.database.write():
            return self.find(name) or self.create(name, actor=actor)

    def list_all(self) -> list[Experiment]:
        """Give all experiments that are not deleted, oldest first."""
        query = select(experiments.c.id).where(experiments.c.deleted_at.is_(None)).order_by(experiments.c.id)
        with self._ledger.database.read() as connection:
            return read_experiments(connection, connection.execute(query).scalars().all())

    def read(self, numbers: Sequence[int]) -> list[Experiment]:
        """Give experiments of these numbers, in that order. Raises `NotFound`."""
        with self._ledger.database.read() as connection:
            return read_experiments(connection, numbers)

    def rename(self, id: str, name: str, *, actor: str | None = None) -> Experiment:
        """Give an experiment another name. Raises like `create`; `NotFound`; `Conflict` if it is deleted."""
        check_title("experiment", name)
        with self._ledger.change(None, actor=actor) as change:
            found = _get_open(change.connection, id)
            other = change.connection.execute(select(experiments).where(experiments.c.name == name)).first()
            if other is not None and other.id != found.id:
                raise Conflict(_taken(other))
            if found.name != name:
                _change(change, found.id, "renamed", {"name": name}, {"name": name, "before": found.name})
            return read_experiments(change.connection, [found.id])[0]

    def delete(self, id: str, *, actor: str | None = None) -> None:
        """Mark an experiment and its runs as deleted; nothing is lost. Raises `NotFound`, `Conflict`."""
        with self._ledger.change(None, actor=actor) as change:
            found = _get_open(change.connection, id)
            _change(change, found.id, "deleted", {"deleted_at": change.recorded_at}, {"name": found.name})
            change.connection.execute(
                tracked_runs.update()
                .where(tracked_runs.c.experiment == found.id, tracked_runs.c.deleted_at.is_(None))
                .values(deleted_at=change.recorded_at)
            )

    def restore(self, id: str, *, actor: str | None = None) -> None:
        """Restore a deleted experiment, and the runs that were deleted with it. Raises `NotFound`."""
        with self._ledger.change(None, actor=actor) as change:
            found = _get(change.connection, id)
            if found.deleted_at is None:
                return
            change.connection.execute(
                tracked_runs.update()
                .where(tracked_runs.c.experiment == found.id, tracked_runs.c.deleted_at == found.deleted_at)
                .values(deleted_at=None)
            )
            _change(change, found.id, "restored", {"deleted_at": None}, {"name": found.name})

    def put_tag(self, id: str, name: str, value: str) -> None:
        """Set a tag of an experiment. Raises `NotFound`; `Conflict` if it is deleted."""
        with self._ledger.database.write() as connection:
            found = _get_open(connection, id)
            _TAGS.execute(connection, _tag_rows(found.id, {name: value}))
            _touch(connection, found.id)

    def remove_tag(self, id: str, name: str) -> None:
        """Take a tag of an experiment away. Raises `NotFound`; `Conflict` if the experiment is deleted."""
        with self._ledger.database.write() as connection:
            found = _get_open(connection, id)
            mine = (experiment_tags.c.experiment == found.id, experiment_tags.c.name == name)
            if not connection.execute(experiment_tags.delete().where(*mine)).rowcount:
                raise NotFound("tag", name, read_experiments(connection, [found.id])[0].tags)
            _touch(connection, found.id)


def get_open_experiment(connection: Connection, id: str) -> Row[Any]:
    """Give the row of an experiment that may take runs. Raises `NotFound`, `Conflict`."""
    return _get_open(connection, id)


def _number(id: str) -> int:
    if not (id.isascii() and id.isdecimal() and len(id) <= 18):
        raise NotFound("experiment", id)
    return int(id)


def _get(connection: Connection, id: str) -> Row[Any]:
    found = connection.execute(select(experiments).where(experiments.c.id == _number(id))).first()
    if found is None:
        raise NotFound("experiment", id)
    return found


def _get_open(connection: Connection, id: str) -> Row[Any]:
    found = _get(connection, id)
    if found.deleted_at is not None:
        raise Conflict(f"experiment {found.name!r} ({id}) is deleted; restore it first")
    return found


def _change(
    change: Change, number: int, verb: str, values: Mapping[str, Any], payload: Mapping[str, Any]
) -> None:
    statement = experiments.update().where(experiments.c.id == number)
    change.connection.execute(statement.values(**values, updated_at=change.at))
    change.record(f"experiment.{verb}", f"experiment/{number}", payload=payload, cause=None)


def _touch(connection: Connection, number: int) -> None:
    now = datetime.now(UTC)
    connection.execute(experiments.update().where(experiments.c.id == number).values(updated_at=now))


def _taken(row: Row[Any]) -> str:
    if row.deleted_at is None:
        return f"there is an experiment {row.name!r} already; use it, or choose another name"
    return (
        f"there is an experiment {row.name!r} already, which is deleted; restore it (its id is {row.id}), "
        "or choose another name"
    )


def _tag_rows(number: int, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"experiment": number, "name": name, "value": value} for name, value in tags.items()]


def read_experiments(connection: Connection, numbers: Sequence[int]) -> list[Experiment]:
    """Give experiments of these numbers, in that order. Raises `NotFound`."""
    found: dict[int, Experiment] = {}
    for start in range(0, len(numbers), _AT_ONCE):
        some = [*numbers[start : start + _AT_ONCE]]
        tags: dict[int, dict[str, str]] = {}
        for row in connection.execute(_TAGS_OF, {"experiments": some}):
            tags.setdefault(row.experiment, {})[row.name] = row.value
        for row in connection.execute(_READ, {"experiments": some}):
            found[row.id] = Experiment(
                id=str(row.id),
                name=row.name,
                at=row.at,
                updated_at=row.updated_at,
                deleted_at=row.deleted_at,
                artifact_uri=row.artifact_uri,
                tags=tags.get(row.id, {}),
            )
    missing = [each for each in numbers if each not in found]
    if missing:
        raise NotFound("experiment", str(missing[0]))
    return [found[each] for each in numbers]
