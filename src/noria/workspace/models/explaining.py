"""What each input adds to the score of rows that somebody asks about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from noria.errors import ConfigError
from noria.explain.contributions import Contributions, contributions_of
from noria.explain.records import Method, Unit
from noria.records import Version
from noria.registry.formats import load_estimator
from noria.registry.matrix import Matrix, encode
from noria.registry.records import is_folder

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Attributions", "explain_rows"]

_COLUMNS = (list, tuple, np.ndarray, pa.Array, pa.ChunkedArray)


@dataclass(frozen=True, slots=True)
class Attributions:
    """What the inputs of rows add to their scores.

    Attributes
    ----------
    version : str
        As `NAME:3`.
    unit
        What `base + values.sum(axis=1)` is, row by row: the log-odds of the score (`log_odds`, of LightGBM
        and XGBoost), the score itself (`score`), or the raw output of trees (`raw`).
    method
        `tree_shap`, exact; or `sampled_shapley`: the sum is exact, how it is shared is an estimate.
    names : tuple of str
        The inputs, in the model's order.
    base, scores : ndarray of shape (n,)
    values : ndarray of shape (n, k)
    rows : pa.Table
        The inputs as they were given.
    """

    version: str
    unit: Unit
    method: Method
    names: tuple[str, ...]
    base: Matrix
    values: Matrix
    scores: Matrix
    rows: pa.Table

    @property
    def totals(self) -> Matrix:
        """What base and contributions add up to, by row."""
        totals: Matrix = self.base + self.values.sum(axis=1)
        return totals

    def table(self) -> pa.Table:
        """Give `score`, `total`, `base`, and `contributions.<input>` for each input, a row each."""
        columns = {"score": self.scores, "total": self.totals, "base": self.base}
        columns |= {f"contributions.{name}": self.values[:, place] for place, name in enumerate(self.names)}
        return pa.table({name: pa.array(np.ascontiguousarray(each)) for name, each in columns.items()})


def explain_rows(project: "Project", version: Version, rows: Any = None) -> Attributions:
    """See `noria.workspace.models.models.Models.explain`."""
    if is_folder(version):
        raise ConfigError(
            f"{version.ref} is a folder of MLflow, of which contributions are not computed; register the "
            "model in it by `project.registry.register`"
        )
    registry = project.registry
    loaded = registry.load(version)
    table = loaded.samples if rows is None else _as_table(rows)
    if rows is not None:
        table = registry.add_on_demand(version, table)
    matrix = encode(loaded.signature, table)
    data = project.storage.get(loaded.manifest.parts["model"].sha256)
    format = loaded.manifest.format
    usual, _ = loaded.encoded_samples()
    found: Contributions = contributions_of(
        format, load_estimator(format, data), matrix, background=usual, seed=int(version.sha256[:12], 16)
    )
    names = loaded.signature.names
    return Attributions(
        version=version.ref,
        unit=found.unit,
        method=found.method,
        names=names,
        base=found.base,
        values=found.values,
        scores=found.scores,
        rows=table.select(list(names)),
    )


def _as_table(rows: Any) -> pa.Table:
    if isinstance(rows, Mapping) and not any(isinstance(each, _COLUMNS) for each in rows.values()):
        rows = [rows]  # else it is columns by name
    try:
        if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
            return pa.Table.from_pylist(list(rows))
        return pa.table(rows)
    except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise ConfigError(
            f"{type(rows).__name__} holds no rows; give an Arrow table, a frame, or a list of dicts: {error}"
        ) from error
