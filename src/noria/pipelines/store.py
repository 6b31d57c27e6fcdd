"""Where kept results are found again: keys, small values, logs and live progress in the database."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Executable, Table, bindparam, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from noria.database.store import Database
from noria.errors import DigestMismatch
from noria.pipelines.tables import run_logs, run_progress, step_cache, step_code, step_latest, step_values
from noria.pipelines.trees import Tree
from noria.records import VersionId, sha256_hex

__all__ = ["CacheEntry", "Ingredients", "PipelineStore", "Written"]

T = TypeVar("T")

_AT_ONCE = 500
_CACHED = select(step_cache).where(
    step_cache.c.scope == bindparam("scope"), step_cache.c.key.in_(bindparam("some", expanding=True))
)
_CACHED_ONE = select(step_cache.c.output).where(
    step_cache.c.scope == bindparam("scope"), step_cache.c.key == bindparam("key")
)
_LATEST = (
    select(step_latest.c.task, step_latest.c.key, step_latest.c.ingredients, step_cache.c.output)
    .select_from(
        step_latest.outerjoin(
            step_cache, (step_cache.c.scope == step_latest.c.scope) & (step_cache.c.key == step_latest.c.key)
        )
    )
    .where(step_latest.c.scope == bindparam("scope"), step_latest.c.pipeline == bindparam("pipeline"))
)
_ONE_LATEST = select(step_latest.c.key).where(
    step_latest.c.scope == bindparam("scope"),
    step_latest.c.pipeline == bindparam("pipeline"),
    step_latest.c.task == bindparam("task"),
)
_KNOWN_VALUES = select(step_values.c.sha256).where(
    step_values.c.sha256.in_(bindparam("some", expanding=True))
)
_VALUES = select(step_values).where(step_values.c.sha256.in_(bindparam("some", expanding=True)))


class Ingredients(msgspec.Struct, frozen=True, kw_only=True):
    """What a key was made of.

    Attributes
    ----------
    code
        Digest of the step's code.
    runtime
        Digest of the installed distributions.
    arguments
        By parameter: digest, in a few words, and the node that gave it if any.
    once
        Of a step that is not to be found again: the run that it belongs to.
    """

    target: str
    code: str
    runtime: str
    arguments: dict[str, tuple[str, str, str | None]]
    split: tuple[str, ...]
    once: str | None = None


class CacheEntry(msgspec.Struct, frozen=True):
    """A kept result: which run made it, what it is, and under which versions: by field, "" for the whole."""

    run: str
    output: Tree
    versions: dict[str, VersionId]


_ENTRY = msgspec.json.Decoder(CacheEntry)


class Latest(msgspec.Struct, frozen=True):
    """What a task was made from the last time; the result, where it is still kept."""

    key: str
    ingredients: bytes
    entry: CacheEntry | None

    def read(self) -> Ingredients:
        """Give the ingredients."""
        return msgspec.json.decode(self.ingredients, type=Ingredients)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What is written of one finished step."""

    pipeline: str
    task: str
    key: str
    ingredients: Ingredients
    entry: CacheEntry
    values: dict[str, bytes]
    at: datetime


class PipelineStore:
    """Kept results of one scope."""

    def __init__(self, database: Database, scope: str) -> None:
        self.database, self.scope = database, scope

    def latest(self, pipeline: str) -> dict[str, Latest]:
        """Give, by task, what each was made from the last time."""
        with self.database.read() as connection:
            rows = connection.execute(_LATEST, {"scope": self.scope, "pipeline": pipeline}).all()
        return {
            row.task: Latest(
                row.key,
                row.ingredients.encode(),
                None if row.output is None else _ENTRY.decode(row.output),
            )
            for row in rows
        }

    def find(self, keys: Sequence[str]) -> dict[str, CacheEntry]:
        """Give kept results by key."""
        if len(keys) == 1:  # a step of a chain: a list in SQL takes twice as long
            text = self.database.look(_CACHED_ONE, {"scope": self.scope, "key": keys[0]})
            return {} if text is None else {keys[0]: _ENTRY.decode(text)}
        found: dict[str, CacheEntry] = {}
        with self.database.read() as connection:
            for some in _batches(keys):
                rows = connection.execute(_CACHED, {"scope": self.scope, "some": some})
                found |= {row.key: _ENTRY.decode(row.output) for row in rows}
        return found

    def known_values(self, digests: Collection[str]) -> set[str]:
        """Tell which small values are kept."""
        found: set[str] = set()
        with self.database.read() as connection:
            for some in _batches(digests):
                found.update(connection.execute(_KNOWN_VALUES, {"some": some}).scalars())
        return found

    def values(self, digests: Collection[str]) -> dict[str, bytes]:
        """Give small values. Raises `DigestMismatch` where one was changed."""
        found: dict[str, bytes] = {}
        with self.database.read() as connection:
            for some in _batches(digests):
                for row in connection.execute(_VALUES, {"some": some}):
                    data = bytes(row.data)
                    if sha256_hex(data) != row.sha256:
                        raise DigestMismatch("a small value in the database", row.sha256, sha256_hex(data))
                    found[row.sha256] = data
        return found

    def write(self, finished: Sequence[Written]) -> None:
        """Keep what finished steps gave, inside of the caller's transaction or in one of its own."""
        values = {sha256: data for each in finished for sha256, data in each.values.items()}
        with self.database.write() as connection:
            _upsert(
                connection,
                step_values,
                [{"sha256": sha256, "data": data} for sha256, data in values.items()],
                keep=True,
            )
            _upsert(
                connection,
                step_cache,
                [
                    {
                        "scope": self.scope,
                        "key": each.key,
                        "run": each.entry.run,
                        "output": msgspec.json.encode(each.entry).decode(),
                        "at": each.at,
                    }
                    for each in finished
                ],
            )
            self.note_latest({(each.pipeline, each.task): (each.key, each.ingredients) for each in finished})

    def note_latest(self, made: Mapping[tuple[str, str], tuple[str, Ingredients]]) -> None:
        """Note what tasks are made from now."""
        rows = [
            {
                "scope": self.scope,
                "pipeline": pipeline,
                "task": task,
                "key": key,
                "ingredients": msgspec.json.encode(ingredients).decode(),
            }
            for (pipeline, task), (key, ingredients) in made.items()
        ]
        with self.database.write() as connection:
            _upsert(connection, step_latest, rows)

    def forget(self, keys: Sequence[str]) -> None:
        """Forget kept results, so that their steps run again."""
        with self.database.write() as connection:
            for some in _batches(keys):
                connection.execute(
                    delete(step_cache).where(step_cache.c.scope == self.scope, step_cache.c.key.in_(some))
                )

    # -- code

    def known_code(self, digest: str) -> dict[str, tuple[str, str]] | None:
        """Give the files of a code digest: name -> digest, sha256 of the source."""
        query = select(step_code.c.files).where(step_code.c.digest == digest)
        with self.database.read() as connection:
            text = connection.execute(query).scalar()
        return None if text is None else msgspec.json.decode(text, type=dict[str, tuple[str, str]])

    def put_code(self, digest: str, files: Mapping[str, tuple[str, str]]) -> None:
        """Keep which files a code digest stands for."""
        row = {"digest": digest, "files": msgspec.json.encode(files).decode()}
        with self.database.write() as connection:
            _upsert(connection, step_code, [row])

    # -- the run of a pipeline that was last at something

    def run_key(self, pipeline: str, identity: str) -> str | None:
        """Give the key of the last run of a pipeline with these parameters."""
        of = {"scope": self.scope, "pipeline": pipeline, "task": f"@{identity}"}
        with self.database.read() as connection:
            return connection.execute(_ONE_LATEST, of).scalar()

    def put_run_key(self, pipeline: str, identity: str, key: str) -> None:
        """Note the key of the last run of a pipeline with these parameters."""
        row = {"scope": self.scope, "pipeline": pipeline, "task": f"@{identity}", "key": key}
        row["ingredients"] = ""
        with self.database.write() as connection:
            _upsert(connection, step_latest, [row])

    # -- logs and progress

    def put_logs(self, logs: Iterable[tuple[str, str, int, bytes | None]]) -> None:
        """Keep where logs are: run, sha256, size; and the bytes of small ones."""
        found = list(logs)
        with self.database.write() as connection:
            small = [{"sha256": sha256, "data": data} for _, sha256, _, data in found if data is not None]
            _upsert(connection, step_values, small, keep=True)
            rows = [{"run": run, "sha256": sha256, "size_bytes": size} for run, sha256, size, _ in found]
            _upsert(connection, run_logs, rows)

    def find_log(self, run: str) -> tuple[str, int] | None:
        """Give digest and size of a run's log."""
        query = select(run_logs.c.sha256, run_logs.c.size_bytes).where(run_logs.c.run == run)
        with self.database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.sha256, row.size_bytes)

    def put_progress(self, run: str, body: bytes) -> None:
        """Say what a run is at."""
        row: dict[str, Any] = {"run": run, "body": body.decode(), "updated_at": datetime.now(UTC)}
        with self.database.write() as connection:
            _upsert(connection, run_progress, [row])

    def find_progress(self, run: str) -> tuple[bytes, datetime] | None:
        """Give what a run is at, or was last."""
        query = select(run_progress).where(run_progress.c.run == run)
        with self.database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.body.encode(), row.updated_at)


def _upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, keep: bool = False
) -> None:
    """Insert rows; of those that are there already the new ones win.

    With `keep` they are written only where they differ: values are named by their digests, so another one of
    the same name is damaged.
    """
    if rows:
        connection.execute(_upserting(table, connection.dialect.name, keep), list(rows))


@cache
def _upserting(table: Table, dialect: str, keep: bool) -> Executable:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table)
    names = [column.name for column in table.primary_key]
    others = {each.name: statement.excluded[each.name] for each in table.columns if each.name not in names}
    differ = or_(*(table.c[name] != value for name, value in others.items())) if keep else None
    return statement.on_conflict_do_update(index_elements=names, set_=others, where=differ)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, _AT_ONCE)):
        yield some
