"""How long Python, `import noria` and `noria --help` take, byte-compiled."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.measuring import Line, run_child

_RUNS = 15
_BARE = [sys.executable, "-c", "pass"]
_COMMANDS = {
    "import noria": [sys.executable, "-c", "import noria"],
    "every name of noria but open": [
        sys.executable,
        "-c",
        "import noria\nfor name in set(noria.__all__) - {'Project', 'open'}: getattr(noria, name)",
    ],
    "noria --help": [str(Path(sys.executable).with_name("noria")), "--help"],
    "noria run list --help": [str(Path(sys.executable).with_name("noria")), "run", "list", "--help"],
}
_GOALS = {"import noria": 0.10, "noria --help": 0.20}


def lines(folder: Path) -> Iterator[Line]:
    # The first run of each writes the byte code of all that it imports to `folder`, Python's own modules too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPYCACHEPREFIX"] = str(folder)
    commands = [_BARE, *_COMMANDS.values()]
    for each in commands:
        run_child(each, environment=environment)
    taken = [[run_child(each, environment=environment) for each in commands] for _ in range(_RUNS)]
    bare, *figures = (median(each) for each in zip(*taken, strict=True))
    for what, figure in zip(_COMMANDS, figures, strict=True):
        yield Line(what, figure, "s", "python -c pass", bare, at_most=_GOALS.get(what))
