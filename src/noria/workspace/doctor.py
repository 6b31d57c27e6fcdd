"""Looking a project and its machine over: each check says what was found and what to do about it.

A check that cannot be made because an earlier one failed is left out; nothing is changed, and nothing is
made that is not there.
"""

import importlib
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import msgspec

from noria.clock import format_instant, to_micros
from noria.config import find_project, read_settings
from noria.errors import NoriaError
from noria.lake.freshness import wanted_age
from noria.pipelines.kept import look_at_kept
from noria.pipelines.store import PipelineStore
from noria.tracking.spools.spool import count_spools
from noria.workspace.features.standing import online_states
from noria.workspace.freshness import told_stale
from noria.workspace.project import Project
from noria.workspace.remote_runs import waiting_runs

__all__ = ["Finding", "Health", "examine"]

_ENGINES = (
    "alembic",
    "deltalake",
    "duckdb",
    "lightgbm",
    "lmdb",
    "obstore",
    "pyarrow",
    "sklearn",
    "sqlalchemy",
)
_LOW_BYTES, _TOO_LOW_BYTES = 2 * 2**30, 200 * 2**20
_UNREADABLE = "correct that file"  # what to do where modules cannot be read
_SAMPLE = 10  # model versions whose every digest is computed again
_NAMED = 5  # runs
_OLDEST_CLOCK = datetime(2025, 1, 1, tzinfo=UTC)


class Health(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found."""

    check: str
    health: Health
    found: str
    todo: str = ""


def examine(start: Path | None = None) -> Iterator[Finding]:
    """Look over the machine, then the project in `start` or above it, check by check."""
    broken = False
    for finding in _machine():
        broken |= finding.health is Health.FAIL
        yield finding
    if broken:
        return
    try:
        root = find_project(start)
    except NoriaError as error:
        yield _finding("project", Health.FAIL, str(error), "make one with `noria init DIR`, or name one")
        return
    try:
        read_settings(root)
    except NoriaError as error:
        yield _finding("noria.toml", Health.FAIL, str(error), "correct that line")
        return
    with Project(root) as project:
        yield _finding("noria.toml", Health.OK, f"{root / 'noria.toml'}: project {project.name!r}")
        modules = list(_guarded("modules", _UNREADABLE, lambda: _modules(project)))
        yield from modules
        yield from _disk(project)
        yield from _ports(project)
        if not project.has_begun:
            yield _finding("records", Health.OK, "nothing was recorded yet")
            return
        for finding in _guarded("database", "see the message", lambda: _database(project)):
            broken |= finding.check == "database" and finding.health is Health.FAIL
            yield finding
        if not broken:
            yield from _tracking(project)
            yield from _guarded("sending", "see [tracking] and its variables", _remote)
            yield from _guarded("storage", "restore the storage from a backup", lambda: _storage(project))
            yield from _guarded("results", "restore the storage from a backup", lambda: _results(project))
            yield from _guarded("lake", "restore the lake from a backup", lambda: _lake(project))
            if any(each.todo == _UNREADABLE for each in modules):
                return  # what follows is about what they declare
            yield from _guarded("freshness", "restore the lake from a backup", lambda: _freshness(project))
            yield from _guarded("online store", "the next replay makes it anew", lambda: _online(project))


def _finding(check: str, health: Health, found: str, todo: str = "") -> Finding:
    return Finding(check=check, health=health, found=found, todo=todo)


def _guarded(check: str, todo: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Give what `look` finds; an error of ours ends it as a finding."""
    try:
        yield from look()
    except NoriaError as error:
        yield _finding(check, Health.FAIL, str(error), todo)


# -- the machine


def _machine() -> Iterator[Finding]:
    yield _finding("python", Health.OK, f"{sys.version.split()[0]} at {sys.executable}")
    yield from _packages()
    now = datetime.now(UTC)
    if now < _OLDEST_CLOCK:
        told = f"it is {format_instant(now)} here, which cannot be"
        yield _finding("clock", Health.FAIL, told, "set the machine's clock")
    else:
        yield _finding("clock", Health.OK, f"{now:%Y-%m-%d %H:%M} UTC")


def _packages() -> Iterator[Finding]:
    try:
        wanted = [each for each in requires("noria") or () if "extra ==" not in each]
    except PackageNotFoundError:
        yield _finding("packages", Health.WARN, "noria itself is not installed", "install it with pip or uv")
        return
    wrong = [told for each in wanted if (told := _lacking(each))]
    broken = [told for each in _ENGINES if (told := _unloadable(each))]
    todo = "run `make install`, or install noria again"
    if wrong or broken:
        yield _finding("packages", Health.FAIL, "; ".join((*wrong, *broken)), todo)
    else:
        yield _finding("packages", Health.OK, f"all {len(wanted)} are installed, the engines load")


def _lacking(requirement: str) -> str | None:
    """Tell what is wrong with an installed package, such as of `duckdb>=2.0`."""
    name, _, least = requirement.partition(">=")
    name = name.split(";")[0].split("[")[0].strip()
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is not installed"
    if least and _numbers(found) < _numbers(least.split(",")[0].split(";")[0]):
        return f"{name} is {found}, at least {least} is wanted"
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip().split(".") if part.isdecimal())


def _unloadable(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library such as libgomp is not there
        return f"{module} cannot be loaded: {error}"
    return None


# -- the project


def _modules(project: Project) -> Iterator[Finding]:
    declared = project.declarations
    told = ", ".join(
        f"{name} {len(found)}"
        for name, found in (
            ("datasets", declared.datasets), ("views", declared.views), ("trainings", declared.trainings),
            ("gates", declared.gates), ("monitors", declared.monitors), ("triggers", declared.triggers),
            ("replays", declared.replays), ("pipelines", declared.pipelines), ("steps", declared.steps),
        )
    )  # fmt: skip
    missing = [
        f"environment {name!r} names the gate {each.gate!r}, which no module declares"
        for name, each in project.settings.environments.items()
        if each.gate is not None and each.gate not in declared.gates
    ]
    if missing:
        yield _finding("modules", Health.FAIL, "; ".join(missing), "declare it, or correct noria.toml")
    else:
        yield _finding("modules", Health.OK, told)


def _disk(project: Project) -> Iterator[Finding]:
    place = project.state if project.state.exists() else project.root
    free = shutil.disk_usage(place).free
    told = f"{free / 2**30:.1f} GiB are free at {place}"
    if free < _TOO_LOW_BYTES:
        yield _finding("disk", Health.FAIL, told, "free some: nothing can be recorded soon")
    elif free < _LOW_BYTES:
        yield _finding("disk", Health.WARN, told, "free some before a long run")
    else:
        yield _finding("disk", Health.OK, told)


def _ports(project: Project) -> Iterator[Finding]:
    wanted = {
        (each.host, each.port): name
        for name, each in project.settings.environments.items()
    } or {("127.0.0.1", 0): "any"}  # fmt: skip
    for (host, port), environment in wanted.items():
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                told = f"{host}:{port} of environment {environment!r} cannot be listened on: {error.strerror}"
                todo = "if it is not noria's own server, stop what listens there or choose another port"
                yield _finding("ports", Health.WARN, told, todo)
                return
    named = ", ".join(f"{host}:{port or 'any free port'}" for host, port in wanted)
    yield _finding("ports", Health.OK, f"{named} can be listened on")


# -- the records


def _database(project: Project) -> Iterator[Finding]:
    began = time.perf_counter()
    ledger = project.ledger
    verified = ledger.verify()
    took = time.perf_counter() - began
    if not verified.ok:
        todo = "somebody changed the database outside of noria: restore it from a backup"
        yield _finding("database", Health.FAIL, "; ".join(verified.problems[:3]), todo)
        return
    told = f"{verified.events:,} events and {verified.rows:,} rows verify in {took:.1f} s"
    yield _finding("database", Health.OK, told)
    newest = ledger.list_events(newest_first=True, limit=1)
    if newest and newest[0].recorded_at > datetime.now(UTC) + timedelta(minutes=1):
        told = f"the newest record is of {format_instant(newest[0].recorded_at)}, which is still to come"
        yield _finding("clock", Health.WARN, told, "the machine's clock went backwards: set it")
    dead = ledger.mark_killed()
    if dead:
        named = ", ".join(f"{run.kind} {run.name}" for run in dead[:5])
        todo = "run the same command again: it goes on where it was"
        yield _finding("runs", Health.WARN, f"{len(dead)} were killed while at work: {named}", todo)
    else:
        yield _finding("runs", Health.OK, "none was left behind by a dead process")


def _tracking(project: Project) -> Iterator[Finding]:
    """Look for what runs have logged and the database has not: opening the project has moved the rest."""
    waiting, aside = count_spools(project.state / "tracking")
    if aside:
        told = f"what {aside} processes have logged was set aside as {project.state / 'tracking' / 'aside.*'}"
        todo = "it is damaged, or of a run that is not in this database: look at it, then remove it"
        yield _finding("tracking", Health.WARN, told, todo)
    else:
        told = f"{waiting} processes are logging" if waiting else "all that was logged is in the database"
        yield _finding("tracking", Health.OK, told)


def _remote() -> Iterator[Finding]:
    """Look for what waits on this machine for servers."""
    for each in waiting_runs():
        if each.refused:
            told = f"{each.server} has refused something of {each.refused} logs; they are in {each.folder}"
            yield _finding("sending", Health.WARN, told, "`noria run sync` says what and why")
        if each.logs:
            told = f"{each.logs} logs for {each.server} are at work, or wait in {each.folder}"
            yield _finding("sending", Health.OK, told, "")


def _storage(project: Project) -> Iterator[Finding]:
    models = project.ledger.list_versions(kind="model")
    sample = models[-_SAMPLE:]
    blobs = sum(project.registry.check(each) for each in sample)
    told = f"{blobs} blobs of {len(sample)} of {len(models)} model versions have the digests on record"
    yield _finding("storage", Health.OK, told)


def _results(project: Project) -> Iterator[Finding]:
    """Look whether kept results of steps are there: their bytes are not read."""
    ledger = project.ledger
    store = PipelineStore(ledger.database, ledger.scope)
    kept = look_at_kept(store, project.storage)
    if not kept.results:
        yield _finding("results", Health.OK, "none of a step is kept yet")
        return
    told = f"{kept.results:,} kept, {_size(kept.size_bytes)}; "
    looked = f"of the newest {kept.looked_at:,} " if kept.looked_at < kept.results else "of these "
    if kept.gone:
        names = sorted({ledger.get_run(run).name for run in kept.gone[:_NAMED]})
        told += f"{looked}the bytes of {len(kept.gone):,} are gone, such as of {', '.join(names)}"
        yield _finding("results", Health.WARN, told, "nothing: what needs them makes them again")
    else:
        yield _finding("results", Health.OK, f"{told}the bytes {looked}are there")


def _size(size_bytes: int) -> str:
    """Write a size in the largest unit that it fills."""
    size, units = float(size_bytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:,.0f} bytes" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"


def _lake(project: Project) -> Iterator[Finding]:
    lake = project.lake
    names = lake.names()
    rows, problems = 0, []
    for name in names:
        try:
            rows += lake.reader(name).count_rows()
        except OSError as error:
            problems.append(f"table {name} cannot be read: {error}")
    newest = {each.name: each for each in project.ledger.list_versions(kind="dataset")}
    for name, each in newest.items():
        if name not in names:
            problems.append(f"the table of {each.ref} is gone")
        elif (found := lake.version_digest(name, each)) != (wanted := lake.expected_digest(each)):
            problems.append(f"{each.ref} has digest {found[:16]}…, recorded was {wanted[:16]}…")
    if problems:
        yield _finding("lake", Health.FAIL, "; ".join(problems), "restore the lake from a backup")
    else:
        told = f"{len(names)} tables with {rows:,} rows, {len(newest)} datasets as recorded"
        yield _finding("lake", Health.OK, told)


def _freshness(project: Project) -> Iterator[Finding]:
    stale = told_stale(project)
    for name, told in stale.items():
        todo = f"look at what feeds it; `noria dataset show {name}` tells where it came from"
        yield _finding("freshness", Health.WARN, f"dataset {name} is stale: {told}", todo)
    if not stale:
        wanted = sum(wanted_age(each) is not None for each in project.declarations.datasets.values())
        told = f"{wanted} datasets have to be fresh" if wanted else "no dataset has to be"
        yield _finding("freshness", Health.OK, f"{told}; none is stale" if wanted else told)


def _online(project: Project) -> Iterator[Finding]:
    from noria.features.online import open_online_store

    views = [view.spec() for view in project.declarations.views.values()]
    if not views or not project.has_online:
        yield _finding("online store", Health.OK, "nothing is kept there yet")
        return
    store = open_online_store(project.settings.stores.online, root=project.root, readonly=True)
    try:
        kept = store.definitions()
        position = store.position()
        at_us = to_micros(datetime.now(UTC)) if position is None else position
        here = [view for view in views if view.digest in kept.get(view.name, ())]
        for view in here:
            entities: dict[str, Sequence[str | int | None]] = {name: [None] for name in view.entity}
            store.read([view], entities, at_us)
    finally:
        store.close()
    told = f"{len(here)} of {len(views)} declared views are kept, as declared"
    if others := [view.name for view in views if view.name in kept and view not in here]:
        names = " ".join(others)
        told = f"{told}; {', '.join(others)} as defined before"
        yield _finding("online store", Health.WARN, told, f"`noria feature materialize {names}` loads them")
        return
    stale = [each for each in online_states(project).values() if each.is_stale]
    for each in stale:
        todo = "see what `noria up` says of it, or run `noria feature follow --once`"
        yield _finding("online store", Health.WARN, f"view {each.view} is stale: {each.told()}", todo)
    if not stale:
        yield _finding("online store", Health.OK, told)
