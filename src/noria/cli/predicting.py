"""`noria predict`."""

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from noria.workspace.predicting.records import BatchProgress, Predicted

__all__ = ["predict"]

_FILES = (".txt", ".lgb", ".json", ".ubj", ".onnx", ".skops")


def predict(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    input: Annotated[list[str], Parameter(name="--input", negative="", consume_multiple=True)] = [],  # noqa: B006
    sql: str | None = None,
    output: str,
    id: str | None = None,
    keep: Annotated[list[str], Parameter(name="--keep", negative="", consume_multiple=True)] = [],  # noqa: B006
    at: str | None = None,
    log: Annotated[bool, Parameter(negative="")] = False,
    format: Literal["parquet", "csv", "jsonl"] | None = None,
    max_rejected: float = 0.0,
    replace: Annotated[bool, Parameter(negative="")] = False,
    executor: str | None = None,
    workers: int = 0,
    options: Options = DEFAULT,
) -> None:
    """Score all rows of files, a table or a query as a server answers; killed, the same command goes on.

    Parameters
    ----------
    model
        NAME (its newest version), NAME:3, NAME@production, release:NAME:2, or the file of a model.
    input
        Files, folders or patterns (Parquet, CSV, JSON lines, Arrow); or the name of a table or a dataset.
    sql
        A SELECT instead of it.
    output
        A .parquet, .csv or .jsonl file; a folder, for a file of each part; or table:NAME.
    id
        The column that names predictions. Default: ids made of the input's digest and the row's number.
    keep
        Columns of the input that go along; '*': all.
    at
        The column of instants as of which features are taken. Default: from the online store, as they are.
    log
        Put predictions into the table `predictions` as a server does.
    format
        Of the files of a folder.
    max_rejected
        The share of rows that may be left out, such as 0.01; OUTPUT.rejected.jsonl says why.
    replace
        Take the place of an output that is there.
    executor
        Where parts are scored: inline, processes, ray. Default: as noria.toml says.
    workers
        How many CPUs to use; 0: all.
    """
    from noria.cli import screen
    from noria.errors import ConfigError

    if bool(input) == (sql is not None):
        raise ConfigError(
            "give what is to be scored: `--input FILE...`, or `--sql 'select ...'`, one of them"
        )
    with options.open() as project, _Display(quiet=options.json) as display:
        made = project.predict(
            Path(model) if Path(model).suffix.lower() in _FILES else model,
            sql if sql is not None else _input(input),
            output=output,
            sql=sql is not None,
            id=id,
            keep=keep,
            at=at,
            log=log,
            format=format,
            max_rejected=max_rejected,
            replace=replace,
            executor=executor,
            workers=workers,
            tell=display.tell,
        )
    if options.json:
        screen.json(made)
        return
    _show(made)


def _input(given: list[str]) -> Any:
    return given[0] if len(given) == 1 else given


def _show(made: "Predicted") -> None:
    from noria.cli import screen

    if made.was_there:
        screen.line(
            f"Nothing to do: {made.output} holds the {screen.count(made.rows, 'row')} of this very batch."
        )
        return
    rate = f", {made.rows_per_s:,.0f} rows/s" if made.seconds else ""
    screen.line(
        f"{made.model}:{made.version} scored {screen.count(made.rows, 'row')} in {made.seconds:,.1f} s{rate}."
    )
    parts = str(made.parts) if not made.parts_before else f"{made.parts}, {made.parts_before} done before"
    rejected = f"{made.rejected:,}, in {made.rejected_path}" if made.rejected else None
    logged = f"{made.logged:,} rows" if made.logged or made.known else None
    if logged is not None and made.known:
        logged += f", {made.known:,} were there"
        logged += f" ({made.changed:,} of them with another score, which is kept)" if made.changed else ""
    missing = ", ".join(f"{name} of {count:,} rows" for name, count in made.failed.items()) or None
    screen.facts(
        {
            "output": made.output,
            "parts": parts,
            "rejected": rejected,
            "logged": logged,
            "missing": missing,
            "release": made.release,
            "run": None if made.run is None else made.run[:16],
        }
    )


class _Display:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._tenth = -1

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            from noria.cli import screen

            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=None),
                TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn(), TextColumn("left"),
                TimeRemainingColumn(), console=screen.console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._progress.add_task("reading", total=None)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def tell(self, progress: "BatchProgress") -> None:
        """Show how far it is."""
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, description=progress.stage, completed=progress.done, total=progress.total
            )
        elif not self._quiet and progress.stage == "scoring" and progress.total:
            tenth = 10 * progress.done // progress.total
            if tenth > self._tenth:
                self._tenth = tenth
                told = f", {progress.rejected:,} rejected" if progress.rejected else ""
                print(f"{progress.done:,} of {progress.total:,} rows{told}", file=sys.stderr, flush=True)
