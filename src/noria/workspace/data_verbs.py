"""The verbs of a project about where data come from and what there is."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, cast

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from noria.lake.declarations import Dataset
    from noria.lake.file_declarations import Files
    from noria.lake.maintenance import Vacuumed
    from noria.lake.recording import Ingested
    from noria.workspace.datasets import Datasets
    from noria.workspace.features.features import Features
    from noria.workspace.forgetting.records import Forgetting
    from noria.workspace.project import Project

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
            connection. None: the files, or the `source`, that the dataset declares.
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
            If a source cannot be read. Of several files the others are taken before the first error is
            raised, whose notes tell of the others.
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
        failed = {each.source: each.error for each in taken if each.error is not None}
        for source, error in failed.items():
            if len(taken) > 1:
                error.add_note(f"This is {source}; of {len(taken)} sources {len(failed)} could not be taken.")
            for other in list(failed)[1:]:
                error.add_note(f"{other}: {failed[other]}")
            raise error
        return [each.done for each in taken if each.done is not None]

    def forget(
        self,
        dataset: str,
        column: str,
        values: Iterable[Any],
        *,
        reason: str = "asked for",
        dry_run: bool = False,
        cause: str | None = None,
    ) -> Forgetting:
        """Take a subject's rows out of a dataset and of all that was derived from them, for good.

        The dataset with its rejected rows, tables that carry the subject on, feature rows, predictions and
        outcomes, all with their older versions; samples of models, kept results of steps, events of local
        streams, answers kept for retries, online features. What can be made anew from what is left is. What
        models have learned is not taken out: `.models` names them. Killed in between, the same call
        completes it.

        Parameters
        ----------
        column, values
            The subject's rows are those in which the column has one of these values.
        reason
            Why, for the record; without the name of the subject.
        dry_run
            Only tell what is held where.
        cause
            The event that led to it.

        Returns
        -------
        Forgetting
            Store by store what was found and what became of it; `.left` is what was not reached, and why.

        Raises
        ------
        NotFound
            If there is no such table or column.
        ConfigError
            If there is no value, or one that is not of the column's type.
        Conflict
            If a pipeline or a replay is at work.
        """
        from noria.workspace.forgetting.forgetting import forget_subject

        project = cast("Project", self)
        return forget_subject(project, dataset, column, values, reason=reason, cause=cause, dry_run=dry_run)

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

    def vacuum(
        self, name: str, *, retention: timedelta = timedelta(days=7), dry_run: bool = False
    ) -> Vacuumed:
        """Remove files of a table that no version needs; of a folder of files, bytes that no row names too.

        Parameters
        ----------
        name
            Of a table of the lake, or of a declared folder of files.
        retention
            What went, or never landed, stays so long: others may be at work with it.
        dry_run
            Only tell.

        Raises
        ------
        NotFound
            If there is no such table.
        LeaseHeld
            If files of the folder are being taken in right now.
        """
        if name not in self.declarations.files:
            return self.lake.vacuum(name, retention=retention, dry_run=dry_run)
        from noria.workspace.file_sets import vacuum_files

        return vacuum_files(self, name, retention=retention, dry_run=dry_run)

    @property
    def features(self) -> Features:
        """Feature views: `list()`, `show`, `training_set`, `get`, `materialize`, `compare`, `trace`."""
        from noria.workspace.features.features import Features

        return Features(cast("Project", self))

    @property
    def datasets(self) -> Datasets:
        """What data there is: `list()`, `show(name)`."""
        from noria.workspace.datasets import Datasets

        return Datasets(self)
