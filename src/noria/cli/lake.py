"""`noria dataset list`, `show`, `read`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.workspace.project import Project

__all__ = ["list_datasets", "read_dataset", "show_dataset"]

_SHOWN_ROWS = 20
_LOSSES = ("delete", "forget")  # runs that change a table, whoever makes it
_NUMBERS = ("int", "float", "double", "decimal")


def list_datasets(*, options: Options = DEFAULT) -> None:
    """List the datasets: what has landed, how fresh it is, who owns it."""
    from noria.cli import screen

    with options.open() as project:
        found = project.datasets.list()
        models = {each.name for each in found if not each.is_declared and _is_model(project, each.name)}
    if options.json:
        screen.json(found)
        return
    if not found:
        screen.line("The project declares no dataset. Write one: `noria.Dataset(...)`.")
        return
    rows = [
        (
            each.name,
            screen.number(each.version),
            screen.number(each.rows),
            screen.number(each.rejected),
            screen.instant(each.landed_at),
            "blocked"
            if each.is_blocked
            else "stale"
            if each.stale
            else ""
            if each.is_declared
            else "model"
            if each.name in models
            else "not declared",
            each.owner or "",
            ", ".join(each.tags),
            each.description or "",
        )
        for each in found
    ]
    columns = ["dataset", "version", "rows", "rejected", "landed at", "state", "owner", "tags", "what it is"]
    used = [place for place, name in enumerate(columns) if place < 5 or any(row[place] for row in rows)]
    shown = [columns[place] for place in used]
    screen.table(
        shown,
        [[row[place] for place in used] for row in rows],
        right=["version", "rows", "rejected"],
        wrap="what it is" if "what it is" in shown else None,
    )


def show_dataset(name: Annotated[str, Parameter(name="NAME")], /, *, options: Options = DEFAULT) -> None:
    """Show a dataset: contract, columns, freshness, versions, where it comes from, who reads it.

    Parameters
    ----------
    name
        Of a dataset that is declared, or has landed.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.datasets.show(name)
    if options.json:
        screen.json(found)
        return
    summary = found.summary
    screen.line(f"Dataset {name}" + ("  (blocked)" if summary.is_blocked else ""), style="bold")
    screen.facts({
        "what it is": summary.description, "owner": summary.owner, "tags": ", ".join(summary.tags) or None,
        "key": ", ".join(found.key) or None, "event_at": found.event_at, "known_at": found.known_at,
        "files": found.files, "rows": None if summary.rows is None else screen.number(summary.rows),
        "rejected": None if summary.rejected is None else screen.number(summary.rejected),
        "bytes": None if found.size_bytes is None else screen.number(found.size_bytes),
        "newest event": found.newest_event_at, "newest known": found.newest_known_at,
        "stale": summary.stale,
        "checks": "; ".join(found.checks) or None,
    })  # fmt: skip
    if found.columns:
        screen.heading("Columns")
        rows = [
            (each.name, each.type, screen.number(each.nulls), _short(each.low), _short(each.high))
            for each in found.columns
        ]
        screen.table(["column", "type", "missing", "low", "high"], rows, right=["missing"])
    if found.changes:
        screen.heading("How the columns changed")
        for event in found.changes:
            screen.line(f"{screen.instant(event.at)}  {_changed(event.payload)}")
    if found.versions:
        screen.heading(f"Versions ({screen.number(found.version_count)})")
        written = {each.version: each for each in found.writers}
        screen.table(
            ["version", "at", "rows", "by", "from", "read"],
            [
                (each.ref, each.at, screen.number(each.facts.get("rows")), *_origin(written.get(each.ref)))
                for each in found.versions
            ],
            right=["rows"],
        )
    if found.readers:
        screen.heading("Who reads it")
        screen.table(
            ["kind", "name", "versions", "wrote"],
            [(each.kind, each.name, _few(each.versions), _few(each.wrote)) for each in found.readers],
        )


def read_dataset(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    version: int | None = None,
    at: str | None = None,
    rows: int | None = None,
    format: Literal["table", "csv", "json", "jsonl", "parquet", "arrow"] | None = None,
    output: Path | None = None,
    options: Options = DEFAULT,
) -> None:
    """Read rows of a dataset, as they are, of a version, or as they stood at an instant.

    Parameters
    ----------
    name
        Of a dataset, or another table of the lake.
    version
        The number of a version.
    at
        An instant, such as 2024-03-02T12:00Z.
    rows
        At most so many; default: 20 as a table, else all.
    format
        Default: a table on the screen, by the file's name into a file.
    output
        Write to this file: all of it or none.
    """
    from noria.cli import screen
    from noria.warehouse.query_output import Format, format_of, whole_file, write_rows

    if output is not None and format == "table":
        raise ConfigError("a table is for the screen; give --format csv, json, jsonl, parquet or arrow")
    with options.open() as project:
        schema = project.datasets.schema(name, version=version, at=at)
        found = project.datasets.read(name, version=version, at=at)
        if output is not None:
            kind = format_of(output) if format is None else Format.read(format)
            with whole_file(output) as file:
                written = write_rows(_first(found, rows), schema, kind, file)
            screen.verbatim(f"{screen.count(written, 'row')} in {output}")
        elif format in (None, "table") and not options.json:
            _show_rows(_first(found, _SHOWN_ROWS if rows is None else rows), schema)
        else:
            kind = Format.JSON if format in (None, "table") else Format.read(format)
            if not kind.is_text and sys.stdout.isatty():
                raise ConfigError(f"{kind} is no text for a terminal; name a file by --output")
            sys.stdout.flush()
            write_rows(_first(found, rows), schema, kind, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _show_rows(batches: "Iterator[pa.RecordBatch]", schema: "pa.Schema") -> None:
    from noria.cli import screen

    rows = [list(row.values()) for batch in batches for row in batch.to_pylist()]
    numbers = [
        each.name for each in schema if str(each.type).startswith(("int", "float", "double", "decimal"))
    ]
    screen.table(schema.names, rows, right=numbers)
    screen.line(screen.count(len(rows), "row"))


def _first(batches: "Iterator[pa.RecordBatch]", limit: int | None) -> "Iterator[pa.RecordBatch]":
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield batch.slice(0, left)
        left -= batch.num_rows


def _is_model(project: "Project", name: str) -> bool:
    """Say whether a model built the newest version but those that lost rows by a person's word."""
    for version in reversed(project.ledger.list_versions(kind="dataset", name=name)):
        kind = None if version.run is None else project.ledger.get_run(version.run).kind
        if kind not in _LOSSES:
            return kind == "transform"
    return False


def _short(value: object) -> object:
    return f"{value[:24]}…" if isinstance(value, str) and len(value) > 25 else value


def _few(refs: tuple[str, ...]) -> str:
    return ", ".join(refs[:3]) + (f" and {len(refs) - 3} more" if len(refs) > 3 else "") if refs else "-"


def _changed(payload: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in payload.items() if value)


def _origin(writer: Any) -> tuple[str, str, str]:
    if writer is None:
        return "-", "-", "-"
    return f"{writer.kind} {writer.run[:8]}", writer.source or "-", _few(writer.read)
