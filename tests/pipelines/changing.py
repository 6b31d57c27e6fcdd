"""A project of several modules that a test changes one thing at a time, and a plain model of what it gives.

The model says for each task what its result depends on, and what the result is. It knows nothing of keys,
digests or syntax trees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["COUNTED", "Shape", "Task"]

COUNTED = "ran.log"  # each step writes its name here when it runs
COUNTING = """
from pathlib import Path


def note(name):
    with (Path(__file__).parent / "ran.log").open("a") as file:
        file.write(name + "\\n")
"""
LOADING = """
from typing import Any
from pathlib import Path

from counting import note
from noria import step

START = {loading}


@step(files=["data/*.txt"])
def base(month: str) -> int:
    note("base")
    texts = [path.read_text() for path in sorted((Path(__file__).parent / "data").glob("*.txt"))]
    return START + len(month) + sum(map(int, "".join(texts).split()))


@step
def numbers(n: int) -> list[int]:
    note(f"numbers {{n}}")
    return [START + each for each in range(n)]
"""
SQUARES = """
from typing import Any

from counting import note
from library.scaling import scaled
from noria import step


@step
def coarse(base: int) -> int:
    note("coarse")
    return base // 10


@step
def square(x: int, factor: Any, base: int) -> str:
    note(f"square {{x}}")
    return f"{{scaled(x)}}/{own}/{{factor!r}}/{{base}}"
"""
SUMS = """
from counting import note
from noria import step


@step
def joined(parts: list[str], end: str = ".") -> str:
    note("joined")
    return " ".join(parts) + end


@step
def size(xs: list[int]) -> int:
    note("size")
    return len(xs)


@step(cache=False)
def stamp(text: str) -> int:
    note("stamp")
    return len(text) % 2


@step
def report(text: str, stamp: int, size: int) -> str:
    note("report")
    return f"{{text}} {{stamp}} {{size}}"
"""
FLOW = """
from typing import Any

from loading import base, numbers
from noria import pipeline
from squares import coarse, square
from sums import joined, report, size, stamp

FACTOR: Any = {factor!r}


@pipeline
def inner(n: int, month: str) -> str:
    rows = numbers(n)
    least = coarse(base(month))
    parts = square.map(x={items})({arguments})
    return joined({joined})


@pipeline
def flow(n: int = 2, month: str = "May") -> str:
    text = inner(n, month)
    return report(text, stamp(text), size(numbers.named("again")(n + 1)))
"""


@dataclass(frozen=True)
class Task:
    """What the model says of a task."""

    id: str
    noted: str  # what it writes when it runs
    depends_on: tuple[Any, ...]
    is_kept: bool = True


@dataclass(frozen=True)
class Shape:
    """All that a test may change."""

    deep: int = 1  # a constant two imports away from `square`
    own: int = 1  # a constant in the code of `square`
    loading: int = 1  # a constant beside `base` and `numbers`
    file: str = "3 4"  # what `base` reads
    factor: Any = 1
    n: int = 2
    month: str = "May"
    runtime: str = "numpy==1"
    is_split: bool = True  # whether `square` takes the list that `numbers` gives item by item
    is_turned: bool = False  # whether arguments are written the other way round
    comment: str = ""

    def files(self) -> dict[str, str]:
        """Write the project."""
        arguments = ["factor=FACTOR", "base=least"]
        joined = ["parts", "end='!'"] if not self.is_turned else ["end='!'", "parts=parts"]
        items = "rows" if self.is_split else "[5, 6]"
        written = {
            "counting.py": COUNTING,
            "loading.py": LOADING.format(loading=self.loading),
            "squares.py": SQUARES.format(own=self.own),
            "sums.py": SUMS.format(),
            "flow.py": FLOW.format(
                factor=self.factor,
                items=items,
                arguments=", ".join(reversed(arguments) if self.is_turned else arguments),
                joined=", ".join(joined),
            ),
            "library/__init__.py": "",
            "library/scaling.py": "from library.deep import DEEP\n\n\ndef scaled(x):\n    return x * DEEP\n",
            "library/deep.py": f"DEEP = {self.deep}\n",
        }
        if self.comment:
            written = {name: f"# {self.comment}\n{text}\n\n# the end\n" for name, text in written.items()}
        return {**written, "data/table.txt": self.file}

    @property
    def params(self) -> dict[str, Any]:
        """What the pipeline is called with."""
        return {"n": self.n, "month": self.month}

    # -- the model

    @property
    def _base(self) -> int:
        return self.loading + len(self.month) + sum(map(int, self.file.split()))

    @property
    def _items(self) -> list[int]:
        return [self.loading + each for each in range(self.n)] if self.is_split else [5, 6]

    @property
    def _parts(self) -> list[str]:
        return [f"{x * self.deep}/{self.own}/{self.factor!r}/{self._base // 10}" for x in self._items]

    @property
    def _text(self) -> str:
        return " ".join(self._parts) + "!"

    @property
    def value(self) -> str:
        """What the pipeline gives."""
        return f"{self._text} {len(self._text) % 2} {self.n + 1}"

    def tasks(self) -> Iterator[Task]:
        """Give the tasks, each with what its result depends on."""
        code = (self.own, self.deep)
        base = self._base // 10
        yield Task("inner/numbers", f"numbers {self.n}", (self.loading, self.n, self.is_split))
        yield Task("inner/base", "base", (self.loading, self.file, self.month))
        yield Task("inner/coarse", "coarse", (*code, self._base))
        for index, x in enumerate(self._items):
            said = (*code, x, repr(self.factor), base)
            yield Task(f"inner/square[{index}]", f"square {x}", said)
        yield Task("inner/joined", "joined", tuple(self._parts))
        yield Task("stamp", "stamp", (self._text,), is_kept=False)
        yield Task("again", f"numbers {self.n + 1}", (self.loading, self.n + 1, False))
        yield Task("size", "size", tuple(self.loading + each for each in range(self.n + 1)))
        yield Task("report", "report", (self._text, len(self._text) % 2, self.n + 1))
