"""Told when a module has been imported: at once if it is there, else whenever that is; never imports one."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["ImportHook"]

Then = Callable[[ModuleType], None]


class ImportHook(MetaPathFinder):
    """Calls a function for each of some modules, once it is imported."""

    def __init__(self, wanted: Mapping[str, Then]) -> None:
        self._waiting = dict(wanted)
        self._turn = threading.Lock()
        self._asking = threading.local()

    def install(self) -> None:
        """Begin: modules that are there are told of at once."""
        for name in [*self._waiting]:
            module = sys.modules.get(name)
            if module is not None and not _is_at_work(module):
                self._tell(name, module)
        if self._waiting:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """End."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give a module as others find it, with a word to us at the end of its import."""
        before = getattr(self._asking, "name", None)
        if fullname not in self._waiting or before == fullname:
            return None  # in the second case another hook asks everybody, also us who asked it
        self._asking.name = fullname
        try:
            others = (each for each in [*sys.meta_path] if each is not self and hasattr(each, "find_spec"))
            found = (each.find_spec(fullname, path, target) for each in others)
            spec = next((each for each in found if each is not None), None)
        finally:
            self._asking.name = before
        if spec is not None and spec.loader is not None:
            self._follow(fullname, spec.loader)
        return spec

    def _follow(self, name: str, loader: Any) -> None:
        run = getattr(loader, "exec_module", None)
        if run is None:
            return
        held = "exec_module" in getattr(loader, "__dict__", {})  # set by another hook

        def run_and_tell(module: ModuleType) -> None:
            if held:
                loader.exec_module = run
            else:
                del loader.exec_module
            run(module)
            self._tell(name, module)

        with suppress(AttributeError):  # a loader that cannot be changed: that module is not followed
            loader.exec_module = run_and_tell

    def _tell(self, name: str, module: ModuleType) -> None:
        with self._turn:
            then = self._waiting.pop(name, None)
        if then is not None:
            then(module)


def _is_at_work(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
