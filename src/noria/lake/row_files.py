"""The files of one table's folder as rows: read, and written. Which of them are the table, the log says."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from noria.errors import NotFound, StoreError
from noria.lake.data_files import DataFile, FileWriter
from noria.lake.files import Files, LocalFiles, translated

__all__ = ["RowFiles"]

_UNKNOWN = re.compile(r"No match for FieldRef\.Name\((.*?)\)")


class RowFiles:
    """Reads and writes files with the columns of `schema`; columns that a file lacks are null."""

    def __init__(self, store: Files, name: str, schema: pa.Schema, *, taken: Collection[str] = ()) -> None:
        self.store = store
        self.name = name
        self.schema = schema
        self.uri = f"{store.root}/{name}"
        self._taken = taken

    def writer(self, stem: str) -> FileWriter:
        """Give what writes files; a commit makes them part of the table."""
        return FileWriter(self.store, self.name, self.schema, stem, taken=self._taken)

    def dataset_of(self, files: Sequence[DataFile], *, schema: pa.Schema | None = None) -> Any:
        """Give a pyarrow dataset whose files know their bounds, so that a filter opens only those it must.

        Parameters
        ----------
        schema
            Columns other than those that the table has now.
        """
        from noria.lake.fragments import dataset_of  # with it pyarrow loads pandas, where there is one

        return dataset_of(files, self.schema if schema is None else schema, self.store, self.name)

    def local_paths(self, files: Sequence[DataFile]) -> list[Path] | None:
        """Give where files lie on this machine; None where they lie elsewhere."""
        if not isinstance(self.store, LocalFiles):
            return None
        return [Path(self.uri, each.path) for each in files]

    def read_files(
        self, files: Sequence[DataFile], *, columns: Sequence[str] | None = None, where: Any = None
    ) -> pa.Table:
        """Read rows of `files`.

        Raises
        ------
        NotFound
            If a column is unknown.
        StoreError
            If a file is gone or damaged.
        """
        with _Reading(self, columns or ()):
            return self.dataset_of(files).to_table(
                columns=None if columns is None else list(columns), filter=where
            )

    def read_whole(self, files: Sequence[DataFile]) -> pa.Table:
        """Read all rows of many small files: without their bounds, which only a filter needs."""
        with _Reading(self, ()):
            from noria.lake.fragments import whole_dataset_of

            return whole_dataset_of(files, self.schema, self.store, self.name).to_table(use_threads=False)

    def batches(
        self, files: Sequence[DataFile], *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read rows of `files` piece by piece, in their order. Raises like `read_files`."""
        with _Reading(self, columns or ()):
            yield from self.dataset_of(files).to_batches(
                columns=None if columns is None else list(columns), batch_readahead=4, fragment_readahead=1
            )


class _Reading:
    """Turns what reading files may raise into the lake's own errors."""

    def __init__(self, files: RowFiles, columns: Sequence[str]) -> None:
        self._files = files
        for column in columns:
            if column not in files.schema.names:
                raise NotFound("column", column, files.schema.names)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: object) -> None:
        if isinstance(err, pa.ArrowInvalid):
            unknown = _UNKNOWN.search(str(err))
            if unknown:
                raise NotFound("column", unknown[1], self._files.schema.names) from err
            raise translated(err, self._files.uri) from err
        if isinstance(err, OSError) and not isinstance(err, StoreError):
            raise translated(err, self._files.uri) from err
