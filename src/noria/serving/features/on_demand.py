"""On-demand features in a worker: code that came with the model, verified, and called once per request."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigError, DeploymentError, DigestMismatch
from noria.features.code_bundle import differing_distributions, load_functions, read_bundle
from noria.features.on_demand import Bound, OnDemandSpec
from noria.features.on_demand_values import Computed, compute, differing_values, frozen
from noria.records import sha256_hex
from noria.serving.records import Samples, ServedModel
from noria.serving.requests import BadRequestError

__all__ = ["OnDemandFeatures", "load_on_demand"]

_LOG = logging.getLogger(__name__)
_TOLD = 100  # reasons that are logged, once each; all are counted

Floats = NDArray[np.float64]
Numbers = Mapping[str, Floats]
Texts = Mapping[str, Sequence[str | None]]


class OnDemandFeatures:
    """The on-demand features of one model.

    Parameters
    ----------
    bounds
        Each behind those that it reads.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self.bounds = tuple(bounds)
        self.specs = tuple(bound.spec for bound in bounds)
        self.columns = tuple(name for spec in self.specs for name in spec.columns)
        # Of each input: its name, and whether it is a text, a number of the request, or a feature.
        kinds = {name: "feature" for spec in self.specs for name in spec.features}
        kinds |= {name: "number" for spec in self.specs for name in spec.numbers}
        kinds |= {name: "text" for spec in self.specs for name in spec.texts}
        self._inputs = tuple((name, kind) for name, kind in kinds.items() if name not in self.columns)
        self._read_on = tuple(
            tuple((place, name) for place, name in enumerate(spec.columns) if name in kinds)
            for spec in self.specs
        )
        self._told: set[str] = set()

    def compute(self, rows: int, numbers: Numbers, texts: Texts, features: Numbers) -> list[Computed]:
        """Compute all of them for the rows of a request; where a function raises, those rows are missing."""
        columns: dict[str, NDArray[Any]] = {}
        for name, kind in self._inputs:
            if kind == "text":
                values = np.empty(rows, dtype=np.object_)
                values[:] = texts[name]
                columns[name] = frozen(values)
            else:
                columns[name] = frozen(numbers[name] if kind == "number" else features[name])
        found = []
        for bound, read_on in zip(self.bounds, self._read_on, strict=True):
            made = compute(bound, columns, rows)
            if made.failed:
                self._tell(bound.spec, made)
            for place, name in read_on:
                columns[name] = frozen(made.values[:, place])
            found.append(made)
        return found

    def by_name(self, computed: Sequence[Computed]) -> dict[str, Floats]:
        """Give the columns of what `compute` gave."""
        values = (each.values[:, place] for each in computed for place in range(each.values.shape[1]))
        return dict(zip(self.columns, values, strict=True))

    def matrix(self, computed: Sequence[Computed]) -> Floats:
        """Give what `compute` gave as one array of shape (rows, columns)."""
        return computed[0].values if len(computed) == 1 else np.hstack([each.values for each in computed])

    def failed(self, computed: Sequence[Computed]) -> dict[str, int]:
        """Count the rows that are missing, by feature; those of which none is are left out."""
        pairs = zip(self.bounds, computed, strict=True)
        return {bound.spec.name: len(each.failed) for bound, each in pairs if each.failed}

    def refuse(self, computed: Sequence[Computed], answered: Sequence[bool]) -> None:
        """Raise `BadRequestError` for a row that is to be answered and that a feature refuses."""
        for bound, each in zip(self.bounds, computed, strict=True):
            if bound.spec.errors != "refuse":
                continue
            for row, reason in zip(each.failed, each.reasons, strict=True):
                if answered[row]:
                    raise BadRequestError(
                        f"the on-demand feature {bound.spec.name!r} cannot be computed for row {row} "
                        f"({reason}), and the model answers no row without it; correct that row, or leave "
                        "it out"
                    )

    def _tell(self, spec: OnDemandSpec, made: Computed) -> None:
        """Log what is new of the reasons: without what the error says, for that may be data."""
        for reason in dict.fromkeys(made.reasons):
            told = f"{spec.name}: {reason}"
            if told not in self._told and len(self._told) < _TOLD:
                self._told.add(told)
                _LOG.warning("on-demand feature %s: rows are missing; told once, counted always", told)


def load_on_demand(served: ServedModel, folder: Path) -> OnDemandFeatures | None:
    """Import the code of a model's on-demand features, and see that the sample rows get the same bits.

    Raises
    ------
    ConfigError
        If the code cannot be imported.
    DeploymentError
        If it is not there, is of other features, or gives other values.
    DigestMismatch
        If it is not what was recorded.
    """
    if not served.on_demand:
        return None
    if served.code is None or served.code_digest is None:
        raise DeploymentError("the model has on-demand features, and its release names no code for them")
    path = folder / served.code
    try:
        data = path.read_bytes()
    except OSError as err:
        raise DeploymentError(
            f"the code of on-demand features {path} cannot be read: {err.strerror}"
        ) from err
    if (found := sha256_hex(data)) != served.code_digest:
        raise DigestMismatch(f"the code of on-demand features {path}", served.code_digest, found)
    bundle = read_bundle(data)
    if bundle.on_demand != served.on_demand:
        raise DeploymentError("the code kept with the model is of other on-demand features than its release")
    others = differing_distributions(bundle)
    try:
        made = OnDemandFeatures(load_functions(bundle))
        _verify(made, served.samples)
    except (ConfigError, DeploymentError) as err:
        if others:
            raise DeploymentError(f"{err}; it was trained with {', '.join(others)}") from err
        raise
    if others:
        _LOG.warning(
            "%s:%d was trained with %s; its sample rows get the same values here",
            served.model, served.version, ", ".join(others),
        )  # fmt: skip
    return made


def _verify(made: OnDemandFeatures, samples: Samples) -> None:
    numbers = {name: np.frombuffer(values, dtype="<f8") for name, values in samples.numbers.items()}
    wanted = {name for spec in made.specs for name in (*spec.numbers, *spec.features, *spec.columns)}
    lacking = sorted(
        wanted - numbers.keys() | {each for spec in made.specs for each in spec.texts} - samples.texts.keys()
    )
    rows = len(samples.scores) // 8
    lengths = {*map(len, numbers.values()), *map(len, samples.texts.values())}
    if lacking or lengths - {rows}:
        told = f": no {', '.join(lacking)}" if lacking else ""
        raise DeploymentError(f"its sample rows do not fit its on-demand features{told}")
    for spec, found in zip(made.specs, made.compute(rows, numbers, samples.texts, numbers), strict=True):
        before = np.column_stack([numbers[name] for name in spec.columns])
        if differing := differing_values(found.values, before):
            raise DeploymentError(
                f"on-demand feature {spec.name!r} gives other values than were stored with the version for "
                f"{len(differing)} of {rows} sample rows, the first is row {differing[0]}"
                + (f" ({found.reasons[0]})" if found.failed else "")
            )
