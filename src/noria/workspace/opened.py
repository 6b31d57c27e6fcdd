"""A project's folder opened: its settings, its declarations and its stores, each opened when first needed."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Self

from noria.clock import Clock, WallClock
from noria.config import read_settings

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from noria.lake.store import Lake
    from noria.ledger.store import Ledger
    from noria.registry.store import Registry
    from noria.storage.contract import Storage
    from noria.workspace.declared import Declarations
    from noria.workspace.features.reads import ReadLog

__all__ = ["Opened"]


class _ProjectClock:
    """The wall, until a replay takes over."""

    def __init__(self) -> None:
        self.inner: Clock = WallClock()

    def now(self) -> datetime:
        return self.inner.now()


class Opened:
    """What `noria.workspace.project.Project` is made of below its verbs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = read_settings(root)
        self.online_guard = threading.RLock()  # an embedded online store is open once in a process
        self._opened = ExitStack()
        self._clock = _ProjectClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()

    @property
    def name(self) -> str:
        """The project's name."""
        return self.settings.project.name

    @property
    def state(self) -> Path:
        """The folder `.noria`, where the embedded stores live."""
        return self.root / ".noria"

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever recorded here."""
        url = self.settings.stores.database
        return not url.startswith("sqlite:///") or self._below(url.removeprefix("sqlite:///")).exists()

    @cached_property
    def declarations(self) -> Declarations:
        """What the project's modules declare. Raises `ConfigError` if one cannot be loaded."""
        if not self.settings.project.modules:
            from noria.workspace.declared import Declarations

            return Declarations()
        from noria.workspace.scanning import scan

        return scan(self.root, self.settings.project.modules)

    def refresh(self) -> None:
        """Look at the modules again where they were changed, or loaded anew, since they were read."""
        known = self.__dict__.get("declarations")
        if known is None or not known.modules:
            return
        from noria.workspace.scanning import is_current

        if not is_current(known, self.root):
            del self.__dict__["declarations"]
            if "ledger" in self.__dict__:
                self.ledger.forget_code()

    # -- stores

    @property
    def clock(self) -> Clock:
        """The project's clock: where a replay stands, else the wall."""
        return self._clock

    def follow(self, clock: Clock) -> None:
        """Go by another clock from now on."""
        self._clock.inner = clock

    @cached_property
    def ledger(self) -> Ledger:
        """The record of everything."""
        from noria.database.store import Database
        from noria.ledger.store import Ledger

        url = self.settings.stores.database
        if url.startswith("sqlite:///"):
            path = self._below(url.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{path}"
        database = Database.open(url)
        self._opened.callback(database.close)
        ledger = Ledger(database, storage=self.storage, clock=self.clock, code_root=self.root)
        if self.settings.compute.lineage:
            from noria.workspace.lineage import observe

            self._opened.callback(observe(self, ledger).close)
        spools = self.state / "tracking"
        if spools.is_dir() and any(spools.iterdir()):
            from noria.workspace.tracking_verbs import move_left_behind

            move_left_behind(self, ledger)
        return ledger

    @cached_property
    def storage(self) -> Storage:
        """Bytes by digest."""
        from noria.storage.opening import open_storage

        url = self.settings.stores.storage
        return open_storage(url if "://" in url else str(self._below(url)))

    @cached_property
    def lake(self) -> Lake:
        """The tables."""
        from noria.lake.store import Lake

        url = self.settings.stores.storage
        place = f"{url.rstrip('/')}/tables" if "://" in url else str(self._below(url) / "tables")
        lake = Lake(place, ledger=self.ledger, clock=self.clock)
        self._opened.callback(lake.close)
        return lake

    @cached_property
    def registry(self) -> Registry:
        """The model versions."""
        from noria.registry.store import Registry

        return Registry(self.ledger, self.storage)

    @cached_property
    def feature_reads(self) -> ReadLog:
        """Who read online features on this machine."""
        from noria.workspace.features.reads import ReadLog

        log = ReadLog(self.state / "feature_reads")
        self._opened.callback(log.close)
        return log

    @property
    def has_online(self) -> bool:
        """Whether anything may have been loaded into the online store; a shared one has to be asked."""
        return self.is_online_shared or self._online_path().exists()

    @property
    def is_online_shared(self) -> bool:
        """Whether the online store is a server's, not a folder of this machine."""
        return "://" in self.settings.stores.online

    def _below(self, path: str) -> Path:
        return self.root / path

    def _online_path(self) -> Path:
        _, _, where = self.settings.stores.online.partition(":")
        return self._below(where)

    def streams_path(self) -> Path:
        """Give the folder of local streams; with a broker, of what this project keeps beside it."""
        backend, _, where = self.settings.stores.stream.partition(":")
        return self._below(where) if backend == "log" else self.state / "streams"
