"""A backup made a project again: digests are computed anew, and the database comes last, in one transaction.

Until that is committed there is no project, only bytes that the same command finds again; after it the
project is whole. So a restore that was killed is simply asked for again.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import URL, make_url

from noria.clock import WallClock
from noria.config import FILE_NAME, Settings, read_settings
from noria.database.revisions import current_revision, newest_revision, upgrade_tables
from noria.database.store import Database
from noria.errors import ConfigError, Conflict, DigestMismatch, LedgerCorrupt, NotFound, SourceError
from noria.lake.files import open_files
from noria.ledger.store import Ledger
from noria.records import new_id
from noria.storage.contract import blob_key
from noria.storage.opening import open_storage
from noria.workspace.moving.backup_bytes import Pool
from noria.workspace.moving.backup_lake import put_tables
from noria.workspace.moving.backup_records import (
    BLOBS,
    MANIFEST,
    STREAM_PART,
    BackupManifest,
    Restored,
    list_backups,
    read_manifest,
)
from noria.workspace.moving.backup_tables import has_rows, load_tables
from noria.workspace.moving.checks import leaving_damaged
from noria.workspace.moving.table_files import checked_file, disk_faults, read_pieces, synced, write_file

if TYPE_CHECKING:
    from noria.lake.files import Files
    from noria.storage.contract import Storage

__all__ = ["restore_backup"]

_STATE = ".noria"
_NOTE = "restoring.json"


class _Note(msgspec.Struct, frozen=True):
    """What stands in a folder while a restore is at work in it."""

    backup: str
    restore: str
    name: str


def restore_backup(
    folder: Path,
    to: Path,
    *,
    database: str | None = None,
    storage: str | None = None,
    leave_damaged: bool = False,
) -> Restored:
    """Make a project of a backup.

    Parameters
    ----------
    folder
        A folder of backups, whose newest is taken, or one of the folders in it.
    to
        A folder that is empty or not there; or one with a project's own files, as a checkout, in which
        nothing was recorded yet.
    database, storage
        Where it is to be kept, as `[stores]` of `noria.toml` says it; default: as the `noria.toml` of `to` or
        of the backup says.
    leave_damaged
        Restore what can be, where shared bytes of the backup are damaged or gone: `damaged` names them then.

    Raises
    ------
    NotFound
        If there is no backup.
    Conflict
        If the folder, the database or the storage holds something already.
    DigestMismatch
        If any file of the backup is not what was written; there is no project then.
    SourceError
        If a file is gone, or the backup is of a newer noria.
    LedgerCorrupt
        If the ledger that was backed up does not verify.
    """
    place, manifest = _find(folder)
    _check(place, manifest)
    settings = _settings(place, to, database=database, storage=storage)
    text = _settings_text(to, place, database=database, storage=storage)
    note, is_begun = _begin(to, place, manifest)
    left: list[str] | None = [] if leave_damaged else None
    stores = _Stores(to, settings)
    with closing(stores):
        if is_begun and stores.is_restored_by(note):
            told = _told(place, manifest, to, settings, stores)
            _end(to)
            return told
        stores.refuse_rows()
        if not is_begun:
            stores.refuse_bytes()
            _write_note(to, note)
        pool = Pool(place.parent / BLOBS)
        try:
            _put_blobs(place, pool, manifest, stores.storage, left=left)
            put_tables(place, pool, stores.files, logs=manifest.logs, data=manifest.files, left=left)
            _put_streams(place, pool, manifest, stores.streams, left=left)
        except (DigestMismatch, NotFound) as err:
            err.add_note(
                "`noria backup check` names all that is damaged in the backup; `--leave-damaged` restores "
                "the rest."
            )
            raise
        if text is not None:
            write_file(to / FILE_NAME, text.encode())
        stores.load(place, manifest, note)
        told = _told(place, manifest, to, settings, stores)
    _end(to)  # last: killed before it, the same command again finds that all is there, and tells it
    return msgspec.structs.replace(told, damaged=(*told.damaged, *(left or ())))


def _find(folder: Path) -> tuple[Path, BackupManifest]:
    if (folder / MANIFEST).is_file():
        return folder.absolute(), read_manifest(folder.absolute())
    found = list_backups(folder.absolute())
    if not found:
        raise NotFound("backup", str(folder), [])
    return found[-1]


def _check(place: Path, manifest: BackupManifest) -> None:
    """Compute the digests of all tables again, before anything is written."""
    if manifest.revision > newest_revision():
        raise SourceError(
            f"{place} has tables of revision {manifest.revision}, this noria knows up to "
            f"{newest_revision()}: it was written by a newer noria; upgrade noria"
        )
    for each in (*manifest.tables.values(), manifest.blobs, manifest.logs, manifest.files, manifest.streams):
        checked_file(place, each.file, sha256=each.sha256)
    checked_file(place, FILE_NAME, sha256=manifest.settings_sha256)


def _settings(place: Path, to: Path, *, database: str | None, storage: str | None) -> Settings:
    """Give the settings that the project will have. Raises `ConfigError` where they contradict each other."""
    has_own = (to / FILE_NAME).is_file()
    settings = read_settings(to if has_own else place)
    stores = settings.stores
    wanted = {
        name: value
        for name, value in (("database", database), ("storage", storage))
        if value is not None and _without_password(value) != _without_password(getattr(stores, name))
    }
    if wanted and has_own:
        named = next(iter(wanted))
        raise ConfigError(
            f"{to / FILE_NAME} says {named} = {_plain(getattr(stores, named))!r}, asked for was "
            f"{_plain(wanted[named])!r}; write that into [stores] of the file first"
        )
    given = {"database": database or stores.database, "storage": storage or stores.storage}
    return msgspec.structs.replace(settings, stores=msgspec.structs.replace(stores, **given))


def _begin(to: Path, place: Path, manifest: BackupManifest) -> tuple[_Note, bool]:
    """Give what stands in the folder of a restore that was cut off, or what is to stand there.

    Raises
    ------
    Conflict
        If the folder holds something else.
    """
    path = to / _STATE / _NOTE
    if path.is_file():
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
        if note.backup != manifest.id:
            raise Conflict(
                f"a restore of the backup {note.name} was cut off in {to}; go on with that one, or empty the "
                "folder first"
            )
        return note, True
    if to.exists() and not to.is_dir():
        raise Conflict(f"{to} is a file; name a folder for the project")
    holds = sorted(each.name for each in to.iterdir()) if to.is_dir() else []
    if _STATE in holds and any(_meaningful(to / _STATE)):
        raise Conflict(f"{to} holds what a project has recorded ({_STATE}); name another folder")
    if holds and FILE_NAME not in holds:
        raise Conflict(
            f"{to} holds {holds[0]!r} and no {FILE_NAME}; name an empty folder, or one of a project"
        )
    return _Note(manifest.id, new_id(), place.name), False


def _meaningful(state: Path) -> Iterator[Path]:
    """Give what is in a project's state but empty folders and a note that is being written."""
    return (each for each in state.rglob("*") if not each.is_dir() and _NOTE not in each.name)


def _write_note(to: Path, note: _Note) -> None:
    write_file(to / _STATE / _NOTE, msgspec.json.encode(note))


def _end(to: Path) -> None:
    (to / _STATE / _NOTE).unlink(missing_ok=True)


class _Stores:
    """Where the project will be kept."""

    def __init__(self, to: Path, settings: Settings) -> None:
        stores = settings.stores
        self.url, self._to = stores.database, to.absolute()
        if self.url.startswith("sqlite:///"):
            self.url = f"sqlite:///{self._to / self.url.removeprefix('sqlite:///')}"
        where = stores.storage if "://" in stores.storage else str(self._to / stores.storage)
        self._storage_place = where
        self._lake_place = f"{where.rstrip('/')}/tables"
        backend, _, folder = stores.stream.partition(":")
        self.streams: Path | None = self._to / folder if backend == "log" else None
        self._database: Database | None = None
        self.events = self.rows = 0

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()

    @property
    def storage(self) -> Storage:
        """The blobs."""
        return open_storage(self._storage_place)

    @property
    def files(self) -> Files:
        """The lake's."""
        return open_files(self._lake_place)

    @property
    def database(self) -> Database:
        """The database, opened as it is."""
        if self._database is None:
            self._database = Database.open(self.url, are_tables_made=False)
        return self._database

    def is_restored_by(self, note: _Note) -> bool:
        """Tell whether the database was committed already."""
        if not self._is_there():
            return False
        with self.database.read() as connection:
            if current_revision(connection) != newest_revision():
                return False
        ledger = Ledger(self.database, clock=WallClock())
        found = ledger.list_events(verb="project.restored", newest_first=True, limit=1)
        if found and found[0].payload["restore"] == note.restore:
            self.events, self.rows = found[0].payload["events"], found[0].payload["rows"]
            return True
        return False

    def refuse_rows(self) -> None:
        """Raise `Conflict` if the database holds something."""
        if not self._is_there():
            return
        with self.database.read() as connection:
            if has_rows(connection):
                raise Conflict(
                    f"the database {self.database.location} holds records already; name an empty one"
                )

    def refuse_bytes(self) -> None:
        """Raise `Conflict` if the storage, the lake or the streams hold something."""
        local = "://" not in self._storage_place
        if not local or Path(self._storage_place).is_dir():
            storage = self.storage
            if storage.parts() or next(iter(storage.listed()), None) is not None or self.files.folders():
                raise Conflict(
                    f"the storage {self._storage_place} holds something already; name an empty one"
                )
        if self.streams is not None and self.streams.is_dir() and any(self.streams.iterdir()):
            raise Conflict(f"the streams in {self.streams} hold something already; name an empty folder")

    def load(self, place: Path, manifest: BackupManifest, note: _Note) -> None:
        """Write the database: tables as they were, then up to this noria's, verified, and committed."""
        with self.database.write() as connection:
            found = current_revision(connection)
            if found not in {None, manifest.revision}:
                raise Conflict(
                    f"the database {self.database.location} is empty, but has tables of revision {found}, "
                    f"the backup has {manifest.revision}; give one without tables"
                )
            upgrade_tables(connection, location=self.database.location, revision=manifest.revision)
            self.rows = load_tables(connection, place, manifest.tables)
            upgrade_tables(connection, location=self.database.location)
            ledger = Ledger(self.database, clock=WallClock())
            verified = ledger.verify(head=manifest.head if manifest.events else None)
            if not verified.ok:
                told = "; ".join(verified.problems[:3])
                raise LedgerCorrupt(f"the ledger in {place} does not verify: {told}; take another backup")
            self.events = manifest.events
            payload = {
                "backup": manifest.id,
                "name": place.name,
                "restore": note.restore,
                "taken_at": manifest.taken_at,
                "head": manifest.head,
                "events": self.events,
                "rows": self.rows,
                "revision": manifest.revision,
            }
            ledger.append("project.restored", subject="project", payload=payload)

    def _is_there(self) -> bool:
        """Whether there is a database to look into: SQLite would make one."""
        return not self.url.startswith("sqlite:") or Path(self.url.removeprefix("sqlite:///")).exists()


def _put_blobs(
    place: Path, pool: Pool, manifest: BackupManifest, storage: Storage, *, left: list[str] | None
) -> None:
    for rows in read_pieces(place, manifest.blobs):
        for part, sha256 in zip(rows["part"].to_pylist(), rows["sha256"].to_pylist(), strict=True):
            target = storage.part(part) if part else storage
            path = pool.part(part).root / blob_key(sha256)
            with leaving_damaged(left):
                found = target.put_file(path)
                if found != sha256:
                    target.remove(found)
                    raise DigestMismatch(f"the file {path}", sha256, found)


def _put_streams(
    place: Path, pool: Pool, manifest: BackupManifest, streams: Path | None, *, left: list[str] | None
) -> None:
    kept = pool.part(STREAM_PART)
    for rows in read_pieces(place, manifest.streams):
        for row in rows.to_pylist():
            if streams is None:
                raise ConfigError(
                    "the backup holds local streams, and [stores] stream names a broker; set it to "
                    '"log:.noria/streams" for the restore'
                )
            target = streams / row["path"]
            if not target.resolve().is_relative_to(streams.resolve()):
                raise SourceError(f"{place} names a file outside of the streams: {row['path']!r}")
            with leaving_damaged(left):
                _put_segment(kept.fetch(row["sha256"]), target)


def _put_segment(source: Path, target: Path) -> None:
    staged = target.with_name(f".{target.name}.part")
    with disk_faults(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as given, staged.open("wb") as file:
            shutil.copyfileobj(given, file)
            synced(file)
        staged.replace(target)


def _settings_text(to: Path, place: Path, *, database: str | None, storage: str | None) -> str | None:
    """Give what `noria.toml` is to say, None if the folder has its own; a password stays out of it."""
    if (to / FILE_NAME).is_file():
        return None
    text = (place / FILE_NAME).read_text(encoding="utf-8")
    if storage is not None:
        text = _with_store(text, "storage", storage)
    if database is not None:
        text = _with_store(text, "database", _without_password(database))
    return text


def _with_store(text: str, key: str, value: str) -> str:
    r"""Set a key of `[stores]` in the text of a `noria.toml`.

    Examples
    --------
    >>> print(_with_store('[stores]\nstorage = "a"\n', "storage", "b"), end="")
    [stores]
    storage = "b"
    """
    line = f"{key} = {msgspec.json.encode(value).decode()}"
    lines = text.splitlines()
    start = next((at for at, each in enumerate(lines) if re.match(r"\s*\[\s*stores\s*\]", each)), None)
    if start is None:
        return _checked_text("\n".join([*lines, "", "[stores]", line]) + "\n", key, value)
    end = next((at for at in range(start + 1, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
    same = re.compile(rf"\s*[\"']?{key}[\"']?\s*=")
    found = next((at for at in range(start + 1, end) if same.match(lines[at])), None)
    if found is None:
        lines.insert(start + 1, line)
    else:
        lines[found] = line
    return _checked_text("\n".join(lines) + "\n", key, value)


def _checked_text(text: str, key: str, value: str) -> str:
    try:
        found = tomllib.loads(text)["stores"][key]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        found = None
    if found != value:
        raise ConfigError(
            f"{key} = {value!r} cannot be written into the {FILE_NAME} of the backup, which says its stores "
            f"in a way of its own; put a {FILE_NAME} that says it into the new folder, and leave out --{key}"
        )
    return text


def _has_password(url: str) -> bool:
    parsed = make_url(url)
    return parsed.password is not None or "password" in parsed.query


def _without_password(url: str) -> str:
    if "://" not in url or not _has_password(url):
        return url
    parsed = make_url(url)
    query = {name: value for name, value in parsed.query.items() if name != "password"}
    kept = URL.create(
        parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, query
    )
    return kept.render_as_string()


def _plain(url: str) -> str:
    """Give a URL without its password; a path as it is."""
    return make_url(url).render_as_string(hide_password=True) if "://" in url else url


def _told(place: Path, manifest: BackupManifest, to: Path, settings: Settings, stores: _Stores) -> Restored:
    url = settings.stores.database
    missing = [each for each in settings.project.modules if not any(to.glob(f"{each.replace('.', '/')}*"))]
    todo = [f"noria --project {to} feature materialize   # online features are derived: load them anew"]
    if not url.startswith("sqlite:") and _has_password(url):
        todo.insert(0, "set NORIA_STORES__DATABASE to its URL: a password is not written into noria.toml")
    if missing:
        todo.insert(
            0,
            f"put the project's own files into {to}, such as the module {missing[0]}: no backup holds them",
        )
    return Restored(
        backup=place.name,
        project=manifest.project,
        folder=str(to),
        database=_plain(url),
        taken_at=manifest.taken_at,
        rows=stores.rows,
        events=stores.events,
        blobs=manifest.blobs.rows,
        tables=len(manifest.lake),
        revision=newest_revision(),
        is_upgraded=manifest.revision != newest_revision(),
        damaged=manifest.damaged,
        todo=tuple(todo),
    )
