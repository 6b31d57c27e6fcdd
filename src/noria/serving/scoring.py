"""What the releases of a target give for the new rows of a request."""

import logging
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import NoriaError, SourceError
from noria.features.on_demand_values import Computed
from noria.registry.whole_numbers import are_whole
from noria.serving.binding import Bound
from noria.serving.features.looked_up import TextMatrix
from noria.serving.formats.scorers import Rows, Values
from noria.serving.jobs import Job
from noria.serving.logs.log import ReleaseScores
from noria.serving.models import LoadedModel
from noria.serving.records import SCORE, Output
from noria.serving.requests import BadRequestError, Column, RequestError

__all__ = ["Part", "alike", "joined", "kept", "missing", "score"]

_LOG = logging.getLogger(__name__)
_NUMBER = struct.Struct("<d")


class Part:
    """The new rows of a job while they are scored: what models share is made once."""

    def __init__(
        self,
        job: Job,
        bound: Bound,
        features: NDArray[np.float64],
        feature_texts: TextMatrix,
        *,
        at: int,
    ) -> None:
        self.job, self.bound, self.at = job, bound, at
        self.features, self.feature_texts = features, feature_texts
        self.scored: dict[str, Sequence[Values]] = {}
        self.took_us: dict[str, int] = {}
        self.scores: list[ReleaseScores] = []
        self.lacks_release = False  # one that was asked beside another gave nothing
        self.failed: dict[str, int] = {}
        self._rows: dict[int, Rows] = {}
        self._computed: dict[str, list[Computed]] = {}
        assignment = job.target.assignment
        if (fixed := assignment.fixed) is not None:
            self.chosen = [fixed] * bound.rows
            return
        headers = job.request.headers
        units: Sequence[str] = job.ids if bound.rows == len(job.ids) else [job.ids[row] for row in job.new]
        if assignment.column is not None or assignment.header is not None:
            units = assignment.units_of(units, self._units(assignment.column), headers)
        self.chosen = assignment.choose(units, headers)

    def _units(self, name: str | None) -> Mapping[str, Column]:
        """Give the column by which rows are assigned."""
        plan = self.job.target.plan
        if name is None:
            return {}
        if name in self.bound.texts:
            return {name: Column("BYTES", self.bound.texts[name])}
        return {name: Column("FP64", self.bound.numbers[:, plan.places[name]].reshape(-1))}

    def rows_of(self, model: LoadedModel) -> Rows:
        """Give the rows as a model reads them; models that read the same share them."""
        encoding = self.job.target.encodings[model.served.release]
        rows = self._rows.get(id(encoding))
        if rows is None:
            by_name: Mapping[str, NDArray[np.float64]] = {}
            if model.on_demand is not None:
                by_name = model.on_demand.by_name(self.computed_of(model))
            rows = encoding.rows(self.bound, self.features, self.feature_texts, by_name)
            self._rows[id(encoding)] = rows
        return rows

    def computed_of(self, model: LoadedModel) -> list[Computed]:
        """Give what a model's on-demand features are for the rows."""
        if model.on_demand is None:
            return []
        key = model.served.code_digest or ""
        places = self.job.target.columns.releases[model.served.release]
        if (found := self._computed.get(f"{key}{places}")) is None:
            bound, plan = self.bound, self.job.target.plan
            numbers = {name: bound.numbers[:, plan.places[name].start] for name in plan.number_names}
            by_name = {name: self.features[:, column] for name, column in places}
            found = model.on_demand.compute(bound.rows, numbers, bound.texts, by_name)
            self._computed[f"{key}{places}"] = found
        return found


def missing(scores: bytes) -> int:
    """Count the rows without a number."""
    if len(scores) == 8:
        return int(math.isnan(_NUMBER.unpack(scores)[0]))
    return int(np.count_nonzero(np.isnan(np.frombuffer(scores, dtype="<f8"))))


def joined(rows: Sequence[Rows]) -> Rows:
    """Put the rows of several requests behind each other."""
    strings = {name: [each for part in rows for each in part.strings[name]] for name in rows[0].strings}
    return Rows(np.concatenate([each.matrix for each in rows]), strings)


def alike(model: LoadedModel, rows: Sequence[Rows]) -> Iterable[Sequence[int]]:
    """Group requests by the types that a model would read each alone as, by their places.

    Code of a user may read whole numbers and truths as such only where all of a column are: a stranger's
    missing value must not make fractions of them.
    """
    if model.scorer.is_native:
        return (range(len(rows)),)
    columns: list[tuple[slice, str]] = []
    at = 0
    for each in model.served.inputs:
        if each.kind == "string":
            continue
        if each.kind == "number" and each.datatype[:1] in ("I", "U", "B"):
            columns.append((slice(at, at + each.width), "bool" if each.datatype == "BOOL" else "int64"))
        at += each.width
    if not columns:
        return (range(len(rows)),)
    groups: dict[tuple[bool, ...], list[int]] = {}
    for place, each_rows in enumerate(rows):
        types = tuple(bool(are_whole(each_rows.matrix[:, column], kind).all()) for column, kind in columns)
        groups.setdefault(types, []).append(place)
    return groups.values()


def score(model: LoadedModel, rows: Rows) -> Sequence[Values]:
    """Give what a model gives for rows, as many as they are.

    Raises
    ------
    RequestError
        400 where the model takes no such values, 500 where it fails.
    """
    try:
        found = model.scorer.predict(rows)
    except SourceError as err:  # its message names columns, no values
        raise BadRequestError(f"{model.served.model}:{model.served.version} refused the rows: {err}") from err
    except NoriaError as err:
        raise _failure(model) from err
    if any(len(values) != rows.count for values in found):
        _LOG.error(
            "%s:%d gave %s values for %d rows",
            model.served.model, model.served.version, "/".join(str(len(each)) for each in found), rows.count,
        )  # fmt: skip
        raise _failure(model)
    return found


def _failure(model: LoadedModel) -> RequestError:
    served = model.served
    return RequestError(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"{served.model}:{served.version} could not score the rows"
    )


def kept(outputs: tuple[Output, ...], found: Sequence[Values]) -> tuple[bytes, dict[str, bytes | list[Any]]]:
    """Give a model's outputs as a frame keeps them: the one number, and all where there is more than that."""
    if outputs == (SCORE,):
        return np.asarray(found[0], dtype="<f8").tobytes(), {}
    others: dict[str, bytes | list[Any]] = {}
    number: bytes | None = None
    for output, values in zip(outputs, found, strict=True):
        if output.datatype == "FP64":
            floats = np.ascontiguousarray(values, dtype="<f8").tobytes()
            others[output.name] = floats
            if number is None and not output.width:
                number = floats
        else:
            others[output.name] = values.tolist() if isinstance(values, np.ndarray) else list(values)
            if number is None and output.datatype == "INT64":
                number = np.array(others[output.name], dtype="<f8").tobytes()
    return number or np.full(len(found[0]), np.nan).tobytes(), others
