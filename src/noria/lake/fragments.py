"""Parquet files as a dataset of pyarrow, whose files know their bounds: a filter opens only those it must.

It is apart from what writes them, as `pyarrow.dataset` takes a quarter of a second to load where pandas is
installed, which it loads.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from noria.lake.data_files import BOUNDED_TYPES, TICK, DataFile, sha256_in
from noria.lake.files import Files

__all__ = ["PARQUET", "dataset_of", "whole_dataset_of"]

PARQUET = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
)


def dataset_of(files: Sequence[DataFile], schema: pa.Schema, store: Files, name: str) -> Any:
    """Give files of a table's folder with the columns of `schema`; those that a file lacks are null."""
    fragments = [_fragment_of(each, schema, store.arrow(f"{name}/{each.path}")) for each in files]
    return pads.FileSystemDataset(fragments, schema, PARQUET, store.arrow(name)[0])


def whole_dataset_of(files: Sequence[DataFile], schema: pa.Schema, store: Files, name: str) -> Any:
    """Give files without their bounds, which only a filter needs."""
    system, folder = store.arrow(name)
    fragments = [PARQUET.make_fragment(f"{folder}/{each.path}", system) for each in files]
    return pads.FileSystemDataset(fragments, schema, PARQUET, system)


def _fragment_of(file: DataFile, schema: pa.Schema, where: tuple[Any, str]) -> Any:
    if file.fragment is None:
        system, path = where
        file.fragment = PARQUET.make_fragment(path, system, partition_expression=_bounds(file, schema))
    return file.fragment


def _bounds(file: DataFile, schema: pa.Schema) -> Any:
    """Say in pyarrow's terms what the statistics promise of every row of `file`."""
    promise = pads.scalar(True)
    for each in schema:
        name = each.name
        low, high = file.low.get(name), file.high.get(name)
        if isinstance(low, bool) or not isinstance(low, BOUNDED_TYPES) or high is None:
            continue
        if isinstance(low, float) and sha256_in(file.path) is None:
            continue  # other writers leave a NaN out of the bounds
        if isinstance(high, datetime):
            high += TICK
        column = pads.field(name)
        held = (column >= pa.scalar(low, each.type)) & (column <= pa.scalar(high, each.type))
        if file.nulls.get(name) != 0:
            held = held | column.is_null()
        promise = promise & held
    return promise
