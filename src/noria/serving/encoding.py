"""How bound request columns and looked-up features become what one model reads."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from noria.serving.binding import Bound, RequestPlan
from noria.serving.features.looked_up import Places, TextMatrix
from noria.serving.formats.scorers import Rows
from noria.serving.records import Input

__all__ = ["Codes", "Encoding"]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class Codes:
    """The numbers that the values of a category or a text become."""

    def __init__(self, column: Input) -> None:
        self._unseen = np.nan if column.unseen == "nan" else -1.0
        self._codes: dict[str | None, float] = {None: np.nan}
        self._codes |= {value: float(code) for code, value in enumerate(column.categories)}

    def of(self, values: Sequence[str | None]) -> list[float]:
        """Give the code of each value."""
        codes, unseen = self._codes, self._unseen
        return [codes.get(value, unseen) for value in values]


class Encoding:
    """One model's matrix by one target's request columns.

    Parameters
    ----------
    inputs, codes
        Of the model; the codes by the names of its categories and texts.
    plan
        By which requests are bound.
    places, text_places
        Where its looked-up features are.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        codes: Mapping[str, Codes],
        *,
        plan: RequestPlan,
        places: Places,
        text_places: Places,
    ) -> None:
        looked_up, texts = dict(places), dict(text_places)
        number_from: list[int] = []
        number_to: list[int] = []
        feature_from: list[int] = []
        feature_to: list[int] = []
        self._computed: list[tuple[str, int]] = []
        self._coded: list[tuple[str, Codes, int]] = []
        self._coded_features: list[tuple[int, Codes, int]] = []
        self._strings: list[str] = []
        at = 0
        for column in inputs:
            match column.kind:
                case "number":
                    place = plan.places[column.name]
                    number_from += range(place.start, place.stop)
                    number_to += range(at, at + column.width)
                case "feature" if column.name in looked_up:
                    feature_from.append(looked_up[column.name])
                    feature_to.append(at)
                case "feature":
                    self._computed.append((column.name, at))
                case "category":
                    self._coded.append((column.name, codes[column.name], at))
                case "text":
                    self._coded_features.append((texts[column.name], codes[column.name], at))
                case "string":
                    self._strings.append(column.name)
                    continue
            at += column.width
        self.width = at
        self._is_whole = number_from == list(range(plan.width)) and len(number_to) == at == plan.width
        self._numbers = _indices(number_from), _indices(number_to)
        self._features = _indices(feature_from), _indices(feature_to)

    def rows(
        self, bound: Bound, features: Floats, feature_texts: TextMatrix, computed: Mapping[str, Floats]
    ) -> Rows:
        """Give rows as the model reads them.

        Parameters
        ----------
        bound
            Of the request.
        features, feature_texts
            As they were looked up, at the places that the encoding knows.
        computed
            On-demand features by name.
        """
        strings = {name: bound.texts[name] for name in self._strings}
        if self._is_whole:
            return Rows(bound.numbers, strings)
        matrix = np.empty((bound.rows, self.width))
        source, target = self._numbers
        if len(source):
            matrix[:, target] = bound.numbers[:, source]
        source, target = self._features
        if len(source):
            matrix[:, target] = features[:, source]
        for name, at in self._computed:
            matrix[:, at] = computed[name]
        for name, codes, at in self._coded:
            matrix[:, at] = codes.of(bound.texts[name])
        for place, codes, at in self._coded_features:
            matrix[:, at] = codes.of(feature_texts[:, place].tolist())
        return Rows(matrix, strings)


def _indices(places: Sequence[int]) -> Indices:
    return np.array(places, dtype=np.intp)
