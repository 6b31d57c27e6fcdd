"""`python -m bench [NAME ...]`: measure, and print one table."""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.measuring import Line

BENCHES = (
    "starting",
    "ledger",
    "tracking",
    "autolog",
    "tracking_remote",
    "tracking_search",
    "tracking_server",
    "pages",
    "lake",
    "streams",
    "queries",
    "warehouse",
    "scores",
    "features",
    "feature_sets",
    "large_sets",
    "feature_store",
    "offline",
    "online",
    "following",
    "serving",
    "serving_load",
    "compiled",
    "batches",
    "pipelines_steps",
    "pipelines_deciding",
    "pipelines_naps",
    "artifacts",
)
_HEAD = ("what", "noria", "floor or peer, same run", "its figure", "ratio", "goal", "")
_WIDTHS = (46, 8, 25, 10, 6, 10, 7)
_RIGHT = (1, 3, 4)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHES)}; default: all"
    )
    names = parser.parse_args().names or BENCHES
    if unknown := sorted(set(names) - set(BENCHES)):
        parser.error(f"there is no bench {', '.join(unknown)}; there is {', '.join(BENCHES)}")
    print(_row(_HEAD), _row("-" * width for width in _WIDTHS), sep="\n")
    for line in measured(names):
        print(_row(_cells(line)), flush=True)
    print(
        "\nCPU of all threads, medians; ours and the floor take turns; wall times say so. Ratios of CPU"
        "\nin serving_load are medians over runs that followed each other. Peers are installed into"
        "\n.bench-peers, each for itself; one that cannot be had is left out, and told of."
    )
    return 0


def measured(names: Iterable[str]) -> Iterator[Line]:
    for name in names:
        started = time.monotonic()
        bench = importlib.import_module(f"bench.{name}")
        with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
            yield from bench.lines(Path(folder))
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)


def _cells(line: Line) -> tuple[str, ...]:
    return (
        line.what,
        _shown(line.figure, line.unit),
        line.floor,
        "" if line.floor_figure is None else _shown(line.floor_figure, line.unit),
        "" if line.ratio is None else f"{line.ratio:.3g}",
        line.goal,
        {None: "", True: "reached", False: "MISSED"}[line.reached],
    )


def _shown(figure: float, unit: str) -> str:
    return f"{figure:,.0f} {unit}" if figure >= 100 else f"{figure:.3g} {unit}"


def _row(cells: Iterable[str]) -> str:
    aligned = (
        cell.rjust(width) if place in _RIGHT else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return "  ".join(aligned).rstrip()


if __name__ == "__main__":
    sys.exit(main())
