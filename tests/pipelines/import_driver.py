"""Import modules of projects for real, each in a process of its own, and tell which files that ran.

Reads lines of JSON [root, module]; writes lines of JSON [files below the root, whether nothing failed].
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import ModuleType

sys.dont_write_bytecode = True


def import_for_real(root: str, module: str) -> tuple[list[str], bool]:
    """Import a module, and call every `run_...` in what that loads."""
    ran: list[str] = []
    execute = SourceFileLoader.exec_module

    def note(loader: SourceFileLoader, loaded: ModuleType) -> None:
        ran.append(os.path.relpath(loader.path, root))
        execute(loader, loaded)

    SourceFileLoader.exec_module = note  # type: ignore[method-assign, assignment]
    sys.path.insert(0, root)
    known = set(sys.modules)
    went_well = [goes_well(lambda: importlib.import_module(module))]
    while fresh := sys.modules.keys() - known:
        known |= fresh
        for name in sorted(fresh):
            loaded = vars(sys.modules[name]) if name in sys.modules else {}
            went_well += [goes_well(call) for each, call in list(loaded.items()) if each.startswith("run_")]
    return sorted(each for each in ran if not each.startswith("..")), all(went_well)


def goes_well(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:  # noqa: BLE001 - modules may raise what they like
        return False
    return True


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            found = import_for_real(*json.loads(line))
            os.write(1, json.dumps(found).encode() + b"\n")
            os._exit(0)
        os.waitpid(child, 0)
