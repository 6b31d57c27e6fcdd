"""Find out what something is, and open it as a source of rows."""

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from noria.errors import ConfigError, SourceError
from noria.lake.reading import Reading
from noria.lake.sources.contract import Source
from noria.lake.sources.files import SourceFile

__all__ = ["FORMATS", "find_files", "open_file", "open_source"]

FORMATS = ("arrow", "csv", "excel", "jsonl", "parquet", "tsv")
_BY_SUFFIX = {
    ".arrow": "arrow", ".arrows": "arrow", ".csv": "csv", ".feather": "arrow", ".ipc": "arrow",
    ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
    ".tab": "tsv", ".tsv": "tsv", ".txt": "csv", ".xls": "excel", ".xlsb": "excel", ".xlsm": "excel",
    ".xlsx": "excel", ".ods": "excel",
}  # fmt: skip
_PACKED = {".bz2", ".gz", ".xz", ".zip", ".zst"}
_READERS = {
    "arrow": ("columnar", "ArrowRows"),
    "csv": ("delimited", "DelimitedRows"),
    "excel": ("excel", "ExcelRows"),
    "jsonl": ("json_lines", "JsonRows"),
    "parquet": ("columnar", "ParquetRows"),
    "tsv": ("delimited", "DelimitedRows"),
}
_WILD = "*?["


def open_source(
    what: Any,
    *,
    format: str | None = None,
    reading: Reading | None = None,
    query: str | None = None,
    table: str | None = None,
    since: str | None = None,
    above: Any = None,
    folder: Path | None = None,
) -> list[Source]:
    """Open whatever gives rows.

    Parameters
    ----------
    what
        A file; a pattern of files (`data/*.csv`, `data/**/*.parquet`), or several of both; a URL of a
        database, an engine, a connection; a frame that speaks the Arrow PyCapsule interface.
    format
        Of files: one of `FORMATS`. None: by the name, then by the content.
    reading
        How texts are read: delimiter, encoding, time zone and so on.
    query, table, since, above
        Of a database, see `noria.lake.sources.databases.DatabaseRows`.
    folder
        Where relative paths begin; None: the current one.

    Returns
    -------
    list of Source
        A file each, in the order of their names; else one.

    Raises
    ------
    SourceError
        If there is no such file, or nothing tells its format.
    ConfigError
        If it is nothing that gives rows.
    """
    reading = reading or Reading()

    def database() -> list[Source]:
        from noria.lake.sources.databases import DatabaseRows

        return [DatabaseRows(what, reading, query=query, table=table, since=since, above=above)]

    if isinstance(what, str) and "://" in what and not what.startswith("file://"):
        return database()
    if isinstance(what, str | Path) or (isinstance(what, list | tuple) and what):
        several = what if isinstance(what, list | tuple) else [what]
        if not all(isinstance(each, str | Path) for each in several):
            raise ConfigError("a list is given that is no list of files; give files, or one frame")
        return [
            open_file(path, format=format, reading=reading) for path in find_files(several, folder=folder)
        ]
    if hasattr(what, "__arrow_c_stream__") or hasattr(what, "__arrow_c_array__"):
        from noria.lake.sources.columnar import FrameRows

        return [FrameRows(what, name="frame")]
    if hasattr(what, "connect") or hasattr(what, "cursor") or hasattr(what, "execution_options"):
        return database()
    raise ConfigError(
        f"a {type(what).__name__} gives no rows; give a file, a pattern of files, a URL of a database, or a "
        "frame (Arrow, pandas, Polars, DuckDB)"
    )


def find_files(several: Iterable[str | Path], *, folder: Path | None = None) -> list[Path]:
    """Give the files that paths and patterns name, each once, sorted within a pattern.

    Raises
    ------
    SourceError
        If a pattern fits no file.
    """
    found: dict[Path, None] = {}
    for each in several:
        text = str(each).removeprefix("file://")
        path = Path(folder or "", text)
        if not any(sign in text for sign in _WILD) or path.exists():
            found[path] = None
            continue
        fitting = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - takes absolute patterns
        files = [Path(name) for name in fitting if Path(name).is_file()]
        if not files:
            raise SourceError(f"no file fits {text!r}; look at the pattern, or wait for the first file")
        found |= dict.fromkeys(files)
    return list(found)


def open_file(
    path: Path,
    *,
    format: str | None = None,
    reading: Reading | None = None,
    digest: str | None = None,
    name: str | None = None,
    most_bytes: int | None = None,
) -> Source:
    """Open one file; see `noria.lake.sources.files.SourceFile`. Raises like `open_source`."""
    file = SourceFile(path, digest=digest, name=name, most_bytes=most_bytes)
    kind = format or _format_of(file)
    if kind not in _READERS:
        raise ConfigError(f"{kind!r} is no format that noria reads; it reads {', '.join(FORMATS)}")
    module, name = _READERS[kind]
    make: Callable[[SourceFile, Reading], Source] = getattr(
        import_module(f"noria.lake.sources.{module}"), name
    )
    return make(file, _for_format(kind, reading or Reading()))


def _for_format(kind: str, reading: Reading) -> Reading:
    if kind == "tsv" and reading.delimiter is None:
        return replace(reading, delimiter="\t")
    return reading


def _format_of(file: SourceFile) -> str:
    suffixes: Sequence[str] = [each.lower() for each in file.path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes = suffixes[:-1]
    if suffixes and suffixes[-1] in _BY_SUFFIX:
        return _BY_SUFFIX[suffixes[-1]]
    if file.head.startswith(b"PAR1"):
        return "parquet"
    if file.head.startswith(b"ARROW1"):
        return "arrow"
    if file.head.lstrip()[:1] in (b"{", b"["):
        return "jsonl"
    raise SourceError(
        f"what {file.name} holds cannot be told by its name; say its format (--format): {', '.join(FORMATS)}"
    )
