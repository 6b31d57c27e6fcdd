"""The features of several views at the rows of one spine, two views at a time."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from noria.features.declarations import ViewSpec
from noria.features.offline import point_in_time

__all__ = ["features_of_views"]

_AT_ONCE = min(os.cpu_count() or 1, 2)  # each holds some ten columns as long as its source
_WORTHWHILE = 1 << 15  # rows of a source and its spine, below which threads save nothing


def features_of_views(
    specs: Sequence[ViewSpec], sources: Mapping[str, pa.Table], spine: pa.Table
) -> Iterator[pa.Table]:
    """Compute the features of each view at every row of `spine`, as `point_in_time` does.

    Parameters
    ----------
    specs : sequence of ViewSpec
        What to compute.
    sources : mapping of str to Table
        The rows of each view's source, by its name.
    spine : Table
        Has the views' entity columns and `at`.

    Yields
    ------
    Table
        The features of each of `specs`, in their order.

    Raises
    ------
    SourceError
        If a column is missing or has the wrong type, or a row was known before it happened.
    """
    tables = [sources[spec.source] for spec in specs]
    rows = max((table.num_rows for table in tables), default=0) + spine.num_rows
    compute = partial(point_in_time, spine=spine)
    if len(specs) < 2 or _AT_ONCE < 2 or rows < _WORTHWHILE:
        yield from map(compute, specs, tables)
        return
    # numpy and pyarrow let go of the interpreter while they work.
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="noria-features") as threads:
        yield from threads.map(compute, specs, tables)
