"""On-demand features of Arrow tables: training sets, feature rows, what was served computed again."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import SourceError
from noria.features.code_bundling import folder_of
from noria.features.columns import column_type, entity_texts, floats
from noria.features.on_demand import Bound, OnDemand, OnDemandSpec
from noria.features.on_demand_values import Computed, Failure, check_rows_alone, compute, frozen
from noria.pipelines.loading import importing_from

__all__ = [
    "add_on_demand",
    "failure_facts",
    "on_demand_facts",
    "read_columns",
    "refuse_useless",
    "told_failures",
]

_MANY = 10  # rows from which on a function that fails for all of them is mistaken


def add_on_demand(
    table: pa.Table, wanted: Iterable[Bound], *, check: bool = False, as_served: bool = False
) -> tuple[pa.Table, dict[str, Computed]]:
    """Give a table with the columns of on-demand features, in place of those of that name.

    Parameters
    ----------
    table : Table
        Holds the columns that they read.
    wanted : iterable of Bound
        Each behind those that it reads, as `on_demand_of` gives them.
    check : bool
        Refuse a function whose value for a row depends on other rows, as `check_rows_alone` does.
    as_served : bool
        Give what a worker would: where a function fails values are missing, and nothing is refused.

    Returns
    -------
    Table
        With `<name>__<output>` as float64; NaN where missing.
    dict
        What was computed, by name: which rows failed, and why the first did.

    Raises
    ------
    ConfigError
        If what a function gives is malformed.
    SourceError
        If a column is missing or of a type that it cannot read, or a function that refuses raises for a row.
    """
    made: dict[str, Computed] = {}
    for bound in wanted:
        spec = bound.spec
        columns = read_columns(table, spec)
        with _importing(bound):
            found = made[spec.name] = compute(bound, columns, table.num_rows, strict=not as_served)
            if check:
                check_rows_alone(bound, columns, found)
        if found.first is not None and spec.errors == "refuse" and not as_served:
            raise SourceError(
                f"on-demand feature {spec.name!r} refuses rows for which it fails, {len(found.failed)} of "
                f"{table.num_rows} here; the first is {found.first}. Take such rows out, or declare it with "
                "errors='missing'"
            )
        for place, name in enumerate(spec.columns):
            values = pa.array(np.ascontiguousarray(found.values[:, place]))
            at = table.schema.get_field_index(name)
            table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
    return table, made


@contextmanager
def _importing(bound: Bound) -> Iterator[None]:
    """Have the function find modules of its project where it imports them as it runs."""
    module = bound.function.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    folder = None if file is None else folder_of(module, Path(file))
    if folder is None or not folder.is_dir() or str(folder) in sys.path:
        yield
    else:
        with importing_from(folder):
            yield


def refuse_useless(name: str, *, failed: int, rows: int, first: Failure) -> None:
    """Raise `SourceError` if a feature failed for all rows of ten or more: its function is mistaken."""
    if failed == rows >= _MANY:
        raise SourceError(
            f"on-demand feature {name!r} fails for every one of {rows} rows; the first is {first}. Correct "
            "its function, or what it is given"
        )


def read_columns(table: pa.Table, spec: OnDemandSpec) -> Mapping[str, npt.NDArray[Any]]:
    """Give the columns that an on-demand feature reads, as its function is given them."""
    lacking = [name for name in spec.inputs if name not in table.column_names]
    if lacking:
        raise SourceError(
            f"on-demand feature {spec.name!r} reads {', '.join(lacking)}; there is "
            f"{', '.join(table.column_names)}"
        )
    columns: dict[str, npt.NDArray[Any]] = {}
    for read, names, kind in (
        (_numbers, (*spec.numbers, *spec.features), "number"),
        (_texts, spec.texts, "text"),
    ):
        for name in names:
            try:
                columns[name] = frozen(read(table, name))
            except SourceError as err:
                raise SourceError(
                    f"on-demand feature {spec.name!r} reads {name!r} as a {kind}, and it is "
                    f"{column_type(table, name)}; give one of these, or declare it as what it is"
                ) from err
    return columns


def failure_facts(
    made: Mapping[str, Computed], rows: npt.NDArray[np.int64] | None = None
) -> dict[str, dict[str, int]]:
    """Count for the record the rows that failed, by what and where; no value of a row is told.

    Parameters
    ----------
    rows : ndarray of int64, optional
        Only these are counted.
    """
    facts: dict[str, dict[str, int]] = {}
    for name, each in made.items():
        counted = set(each.failed if rows is None else np.intersect1d(each.failed, rows).tolist())
        told = Counter(why for row, why in zip(each.failed, each.reasons, strict=True) if row in counted)
        if told:
            facts[name] = dict(sorted(told.items()))
    return facts


def on_demand_facts(features: Sequence[OnDemand], made: Mapping[str, Computed]) -> dict[str, Any]:
    """Tell of on-demand features for the record of a set: their definitions, and rows that failed."""
    if not features:
        return {}
    facts: dict[str, Any] = {"on_demand": {each.name: each.spec().digest for each in features}}
    failed = failure_facts(made)
    return {**facts, "failed": failed} if failed else facts


def told_failures(made: Mapping[str, Computed]) -> Sequence[str]:
    """Say for whoever computed them which rows failed, with what the first error says."""
    return [
        f"{name}: {len(each.failed)} of {len(each.values)} rows are missing; the first is {each.first}"
        for name, each in made.items()
        if each.first is not None
    ]


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if pa.types.is_null(column_type(table, name)):
        return np.full(table.num_rows, np.nan)
    return floats(table, name)


def _texts(table: pa.Table, name: str) -> npt.NDArray[np.object_]:
    texts = np.empty(table.num_rows, dtype=np.object_)
    texts[:] = pc.cast(entity_texts(table, [name]), pa.string()).to_pylist()
    return texts
