"""The verbs of a project about where data come from and what there is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from noria.lake.declarations import Dataset
    from noria.lake.file_declarations import Files
    from noria.lake.recording import Ingested
    from noria.workspace.datasets import Datasets

__all__ = ["DataVerbs"]


class DataVerbs(Opened):
    """What `noria.workspace.project.Project` can do with data."""

    def ingest(
        self,
        dataset: str | Dataset | Files,
        what: Any = None,
        *,
        format: str | None = None,
        batch: int | None = None,
        reading: Mapping[str, Any] | None = None,
        query: str | None = None,
        table: str | None = None,
        since: str | None = None,
        cause: str | None = None,
        at: datetime | None = None,
    ) -> list[Ingested]:
        """Take in rows: new files, a frame, what a database has got. The same content lands once.

        Parameters
        ----------
        dataset
            By name, or itself; of a folder of files what has changed is taken in.
        what
            A file, a pattern of files (`data/*.csv`), several; a frame; a URL of a database, an engine, a
            connection. None: the files that the dataset declares.
        format
            Of files: `csv`, `tsv`, `jsonl`, `parquet`, `arrow`, `excel`. None: their names tell.
        batch
            The batch's number, above the last one. None: the content tells whether it has landed.
        reading
            How it is read, such as `{"delimiter": ";", "time_zone": "Europe/Vienna"}`. None: as declared.
        query, table, since
            Of a database: a SELECT or a table; the column whose greatest value in the dataset is where to
            go on.
        cause, at
            The event that led to it; the project's instant, by default the clock's.

        Returns
        -------
        list of Ingested
            What became of each file, or of the one source.

        Raises
        ------
        SourceError
            If a source cannot be read. Of several files the others are taken before it is raised.
        BatchBlocked
            If too many rows break the contract; nothing of that file was written.
        ConfigError
            If there is no such dataset, or nothing that gives rows.
        """
        from noria.lake.reading import Reading
        from noria.workspace.ingesting import take
        from noria.workspace.source_openings import Request

        request = Request(
            what=what,
            format=format,
            batch=batch,
            reading=None if reading is None else Reading.of(reading),
            query=query,
            table=table,
            since=since,
        )
        taken = list(take(self, dataset, request, cause=None if cause is None else lambda: cause, at=at))
        for each in taken:
            if each.error is not None:
                raise each.error
        return [each.done for each in taken if each.done is not None]

    @contextmanager
    def blob(self, files: str, wanted: str, *, version: int | None = None) -> Iterator[IO[bytes]]:
        """Open what was kept of a file of a declared folder; its digest is verified first.

        Parameters
        ----------
        files
            The name of the folder's declaration.
        wanted
            The file's path, or its sha256.
        version
            Of the table of files; None: as it is now.

        Raises
        ------
        NotFound
            If there is no such folder or file, or the file was removed; says the nearest.
        DigestMismatch
            If the bytes are not those that were kept.
        """
        from noria.workspace.file_sets import open_file_of

        with open_file_of(self, files, wanted, version=version) as opened:
            yield opened

    @property
    def datasets(self) -> Datasets:
        """What data there is: `list()`, `show(name)`."""
        from noria.workspace.datasets import Datasets

        return Datasets(self)
