"""`noria ingest`."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.errors import NoriaError
    from noria.lake.reading import Reading
    from noria.workspace.ingesting import Taken, Trial
    from noria.workspace.project import Project

__all__ = ["ReadingOptions", "ingest"]

_FORMATS = Literal["arrow", "csv", "excel", "jsonl", "parquet", "tsv"]
_SHOWN_REASONS = 8


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """How files and databases are read, where the dataset does not declare it."""

    delimiter: str | None = None
    """Between the fields of a line."""
    encoding: str | None = None
    """Of text files, where it is not UTF-8."""
    no_header: Annotated[bool, Parameter(negative="")] = False
    """The first line names no columns; --names does."""
    names: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None
    """The columns' names."""
    null: Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=True)] = None
    """A text that stands for no value; may be given several times."""
    time_zone: str | None = None
    """Where clocks showed instants that name no offset, such as Europe/Vienna."""
    sheet: str | None = None
    """Of a workbook."""

    def over(self, declared: "Reading") -> "Reading":
        """Give what the dataset declares, with what was typed in its place."""
        from dataclasses import replace

        given: dict[str, Any] = {
            "delimiter": self.delimiter.replace("\\t", "\t") if self.delimiter else None,
            "encoding": self.encoding,
            "header": False if self.no_header else None,
            "names": self.names,
            "nulls": self.null,
            "time_zone": self.time_zone,
            "sheet": self.sheet,
        }
        return replace(declared, **{name: value for name, value in given.items() if value is not None})


def ingest(
    dataset: Annotated[str, Parameter(name="DATASET")],
    /,
    *what: Annotated[str, Parameter(name="WHAT")],
    format: _FORMATS | None = None,
    batch: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    query: str | None = None,
    table: str | None = None,
    since: str | None = None,
    reading: ReadingOptions = ReadingOptions(),
    options: Options = DEFAULT,
) -> int:
    """Take in rows: each file once, known by its content; what cannot be read or breaks the contract is kept.

    Parameters
    ----------
    dataset
        The name of a declared dataset.
    what
        Files, patterns of files, or the URL of a database. Default: the files or the source of the dataset.
    format
        Of files; default: their names tell.
    batch
        The batch's number, above the last one; default: the content tells whether it has landed.
    dry_run
        Only tell what would land.
    query
        Of a database: a SELECT.
    table
        Of a database: a table.
    since
        Of a database: go on from the greatest value of this column that has landed.
    """
    from noria.cli import screen
    from noria.cli.ingest_display import IngestDisplay
    from noria.errors import BatchBlocked
    from noria.lake.file_declarations import Files
    from noria.lake.reading import Reading
    from noria.workspace.ingesting import find_folder, take, try_out
    from noria.workspace.source_openings import Request, dataset_of

    with options.open() as project:
        declared = find_folder(project, dataset) or dataset_of(project, dataset)
        declared_reading = Reading() if isinstance(declared, Files) else Reading.of(declared.reading)
        request = Request(
            what=_what(what),
            format=format,
            batch=batch,
            reading=reading.over(declared_reading),
            query=query,
            table=table,
            since=since,
        )
        with IngestDisplay(quiet=options.json) as display:
            if dry_run:
                trials = list(try_out(project, declared, request, tell=display.tell))
            else:
                asked = _asked(project, dataset, what)
                taken = [
                    display.done(each)
                    for each in take(project, declared, request, cause=asked, tell=display.tell)
                ]
    if dry_run:
        if options.json:
            screen.json([_tried(each) for each in trials])
        else:
            _show_trials(trials)
        failed = next((each.error.exit_code for each in trials if each.error is not None), None)
        blocked = BatchBlocked.exit_code if any(each.blocked for each in trials) else 0
        return blocked if failed is None else failed
    if len(taken) == 1 and taken[0].error is not None:
        raise taken[0].error
    if options.json:
        screen.json([_told(each) for each in taken])
    else:
        _show_taken(taken, dataset)
    return next((each.error.exit_code for each in taken if each.error is not None), 0)


def _what(given: tuple[str, ...]) -> Any:
    """Give None for nothing, a URL by itself, else the list of files."""
    if not given:
        return None
    return given[0] if len(given) == 1 else list(given)


@dataclass(slots=True)
class _Asked:
    project: "Project"
    dataset: str
    what: tuple[str, ...]
    event: str | None = field(default=None)

    def __call__(self) -> str:
        """Record that a person has asked for it, once something is to land."""
        if self.event is None:
            import getpass

            named = [each.partition("?")[0].rpartition("@")[2] for each in self.what]
            self.event = self.project.ledger.append(
                "person.asked",
                actor=f"person:{getpass.getuser()}",
                subject=self.dataset,
                payload={"verb": "ingest", "what": named},
            ).id
        return self.event


def _asked(project: "Project", dataset: str, what: tuple[str, ...]) -> _Asked:
    return _Asked(project, dataset, what)


def _tried(trial: "Trial") -> dict[str, object]:
    return {
        "source": trial.source,
        "state": _trial_state(trial),
        "accepted": trial.accepted,
        "rejected": trial.rejected,
        "repeated": trial.repeated,
        "reasons": dict(trial.reasons),
        "blocked": list(trial.blocked),
        "columns": trial.columns,
        "error": _error(trial.error),
    }


def _trial_state(trial: "Trial") -> str:
    if trial.error is not None:
        return "would fail"
    if trial.blocked:
        return "would be blocked"
    return "already landed" if trial.landed else "would land"


def _error(error: "NoriaError | None") -> dict[str, str] | None:
    return None if error is None else {"kind": type(error).__name__, "message": _whole(error)}


def _whole(error: "NoriaError") -> str:
    """Give an error with its notes, which hold what no record may."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def _named(taken: "Taken") -> str:
    """Give the error of a source, which is named once."""
    told = _whole(taken.error) if taken.error is not None else ""
    return told if told.startswith(taken.source) else f"{taken.source}: {told}"


def _told(taken: "Taken") -> dict[str, object]:
    if taken.error is not None:
        return {"source": taken.source, "state": "failed", "error": _error(taken.error)}
    assert taken.done is not None
    done = taken.done
    return {
        "source": taken.source,
        "state": done.state,
        "version": None if done.version is None else done.version.ref,
        "accepted": done.accepted,
        "rejected": done.rejected,
        "repeated": done.repeated,
        "replaced": done.replaced,
        "findings": done.findings,
    }


def _show_taken(taken: "list[Taken]", dataset: str) -> None:
    from noria.cli import screen

    if not taken:
        screen.line(f"No file of {dataset} has come yet.")
        return
    rows: list[tuple[str, ...]] = []
    for each in taken:
        done = each.done
        if done is None:
            rows.append((each.source, "failed", "-", "-", "-", "-"))
            continue
        version = "-" if done.version is None else done.version.ref
        counts = [screen.number(number) for number in (done.accepted, done.rejected, done.repeated)]
        rows.append((each.source, done.state, version, *counts))
    screen.table(
        ["from", "state", "version", "accepted", "rejected", "repeated"],
        rows,
        right=["accepted", "rejected", "repeated"],
    )
    rejected = False
    for each in taken:
        for finding in () if each.done is None else each.done.findings:
            if finding.detail:
                screen.line(f"{each.source}: {finding.rule} does not hold: {finding.detail}")
                continue
            first = f", first in {finding.where}" if finding.where else ""
            screen.line(
                f"{each.source}: {finding.rule} fails for {screen.count(finding.failing, 'row')}{first}"
            )
        rejected = rejected or (each.done is not None and each.done.rejected > 0)
    if rejected:
        screen.line(f"What was rejected is in {dataset}__rejected, with its reason.")
    failed = [each for each in taken if each.error is not None]
    for each in failed:
        print(f"error: {_named(each)}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {screen.count(len(taken), 'source')} could not be taken", file=sys.stderr)


def _show_trials(trials: "list[Trial]") -> None:
    from noria.cli import screen

    rows = [
        (
            each.source,
            _trial_state(each),
            *(screen.number(count) for count in (each.accepted, each.rejected, each.repeated)),
        )
        for each in trials
    ]
    if not rows:
        screen.line("No file has come yet.")
        return
    counts = ["accepted", "rejected", "repeated"]
    screen.table(["from", "state", *counts], rows, right=counts)
    for each in trials:
        for reason, count in each.reasons.most_common(_SHOWN_REASONS):
            screen.line(f"{each.source}: {screen.count(count, 'row')}: {reason}")
        for why in each.blocked:
            screen.line(f"{each.source}: blocked: {why}")
        if each.error is not None:
            screen.line(f"{each.source}: {_whole(each.error)}")
