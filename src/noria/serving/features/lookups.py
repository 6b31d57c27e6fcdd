"""The online features of requests: looked up together, refused or made up for where they cannot be.

Requests that want the same views as of the same instant are one reading. Where the store is away, or lacks a
view, the deployment refuses (503), or, where it is set so, takes the views' declared defaults, and missing
where there is none, as of an entity that is not named.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import msgspec
import numpy as np

from noria.errors import NoriaError, NotFound, StoreDamaged
from noria.features.declarations import FeatureType, ViewSpec
from noria.serving.binding import Bound
from noria.serving.features.looked_up import Matrix, TextMatrix, logged_name, matrices_of
from noria.serving.features.online import OnlineFeatures
from noria.serving.models import Target
from noria.serving.requests import RequestError

__all__ = ["Asked", "Found", "Lookups"]

_LOG = logging.getLogger(__name__)
_TOLD_EVERY_S = 1.0


class Asked(msgspec.Struct, frozen=True, gc=False):  # made for each request: a fifth of a dataclass
    """Rows whose features are wanted."""

    target: Target
    bound: Bound
    at: int  # microseconds since 1970


class Found(msgspec.Struct, frozen=True, gc=False):
    """Features of rows, as `noria.serving.features.looked_up` has them.

    Attributes
    ----------
    defaulted
        Views whose features are the declared defaults.
    lacking
        Those whose features are so too, and that nothing reads but what is tried in the shadow.
    stale
        Views whose features are older than they may be, and how old, in seconds.
    """

    numbers: Matrix
    texts: TextMatrix
    defaulted: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    stale: Mapping[str, int] = {}


class Lookups:
    """Looks up what requests to one deployment need.

    Parameters
    ----------
    features
        The online store, None where no model may need it.
    """

    def __init__(self, features: OnlineFeatures | None) -> None:
        self._features = features
        self._with_defaults = features is not None and features.with_defaults
        self._wanted: dict[int, _Wanted] = {}
        self._told_at, self._untold = 0.0, 0

    def may_wait(self, target: Target) -> bool:
        """Say whether looking up for a target may take long."""
        return bool(target.views) and self._features is not None and self._features.is_remote

    def position(self) -> int | None:
        """Give the instant that the store stands at. Raises `RequestError` (503) where it is away."""
        if self._features is None:
            return None
        try:
            return self._features.position()
        except (NoriaError, OSError) as err:
            raise self._away(err) from err

    def find(self, asked: Sequence[Asked]) -> list[Found | RequestError]:
        """Give what each gets, or why it gets nothing."""
        if len(asked) == 1:
            return self._of(asked)
        if not any(each.target.views for each in asked):
            return [_nothing(each.bound.rows) for each in asked]
        together: dict[tuple[int, int], list[int]] = {}
        for number, each in enumerate(asked):
            together.setdefault((id(each.target.views), each.at), []).append(number)
        made: list[Found | RequestError] = [_NOTHING] * len(asked)
        for numbers in together.values():
            for number, found in zip(numbers, self._of([asked[each] for each in numbers]), strict=True):
                made[number] = found
        return made

    def forget(self) -> None:
        """Keep nothing of targets: they may not be asked any more."""
        self._wanted.clear()
        if self._features is not None:
            self._features.forget()

    def _of(self, asked: Sequence[Asked]) -> list[Found | RequestError]:
        """Look up for requests of the same views and instant."""
        target, at = asked[0].target, asked[0].at
        if not target.views:
            return [_nothing(each.bound.rows) for each in asked]
        if self._features is None:
            error = "the model needs features, but no online store is set"
            return [RequestError(HTTPStatus.SERVICE_UNAVAILABLE, error)] * len(asked)
        wanted = self._wanted_by(target)
        rows = sum(each.bound.rows for each in asked)
        texts: Mapping[str, Sequence[str | None]] = asked[0].bound.texts
        if len(asked) > 1:
            texts = {
                name: [value for each in asked for value in each.bound.texts[name]]
                for name in wanted.entities
            }
        try:
            found = self._read(wanted, texts, rows, at, is_alone=len(asked) == 1)
        except StoreDamaged as err:
            if len(asked) > 1:  # it may be the value of one entity
                return [each for one in asked for each in self._of([one])]
            return [self._away(err)]
        except RequestError as err:
            return [err] * len(asked)
        return _split(found, [each.bound.rows for each in asked])

    def _read(
        self,
        wanted: "_Wanted",
        texts: Mapping[str, Sequence[str | None]],
        rows: int,
        at: int,
        *,
        is_alone: bool,
    ) -> Found:
        assert self._features is not None  # else nothing is looked up
        try:
            numbers, found_texts = self._ask(wanted.views, texts, rows, at, wanted.is_of_numbers)
        except StoreDamaged as err:
            if not is_alone:
                raise
            if not self._with_defaults and len(wanted.answering) == len(wanted.views):
                raise
            return self._pieced(wanted, texts, rows, at, err)
        except NotFound as err:
            if not self._with_defaults and len(wanted.answering) == len(wanted.views):
                raise self._away(err) from err
            return self._pieced(wanted, texts, rows, at, err)
        except (NoriaError, OSError) as err:
            if not self._with_defaults:
                raise self._away(err) from err
            self._tell(err)
            numbers, found_texts = wanted.defaults(rows)
            return wanted.found(numbers, found_texts, wanted.labels)
        return Found(numbers, found_texts, (), (), self._stale(wanted, at))

    def _pieced(
        self,
        wanted: "_Wanted",
        texts: Mapping[str, Sequence[str | None]],
        rows: int,
        at: int,
        error: NoriaError,
    ) -> Found:
        """Look up view by view, with the defaults of those that cannot be."""
        self._tell(error)
        numbers, found_texts = wanted.defaults(rows)
        defaulted: list[str] = []
        for view, label, place, text_place in zip(
            wanted.views, wanted.labels, wanted.places, wanted.text_places, strict=True
        ):
            try:
                mine, mine_texts = self._ask([view], texts, rows, at, wanted.is_of_numbers)
            except (NoriaError, OSError) as err:
                if label in wanted.answering and not self._with_defaults:
                    raise self._away(err) from err
                self._tell(err)
                defaulted.append(label)
                continue
            numbers[:, place], found_texts[:, text_place] = mine, mine_texts
        stale = {view: age for view, age in self._stale(wanted, at).items() if view not in defaulted}
        return wanted.found(numbers, found_texts, defaulted, stale)

    def _ask(
        self,
        views: Sequence[ViewSpec],
        texts: Mapping[str, Sequence[str | None]],
        rows: int,
        at: int,
        is_of_numbers: bool,
    ) -> tuple[Matrix, TextMatrix]:
        assert self._features is not None  # else nothing is looked up
        if is_of_numbers:
            return self._features.read(views, texts, at), _nothing(rows).texts
        return matrices_of(views, self._features.read_values(views, texts, at), rows)

    def _stale(self, wanted: "_Wanted", at: int) -> Mapping[str, int]:
        assert self._features is not None  # else nothing is looked up
        ages = self._features.stale(wanted.views, at)
        if not ages:
            return _FRESH
        found = {wanted.labels[place]: age for place, age in ages.items()}
        return {label: age for label, age in found.items() if label in wanted.answering}

    def _wanted_by(self, target: Target) -> "_Wanted":
        found = self._wanted.get(id(target.views))
        if found is None or found.views is not target.views:
            found = self._wanted[id(target.views)] = _Wanted(target)
        return found

    def _away(self, error: Exception) -> RequestError:
        self._tell(error)
        return RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "features cannot be looked up now; the server's log says why",
            retry_after_s=1,
        )

    def _tell(self, error: Exception) -> None:
        """Log why, and not for each request."""
        now = time.monotonic()
        if now < self._told_at + _TOLD_EVERY_S:
            self._untold += 1
            return
        more = f" ({self._untold} more times since this was told last)" if self._untold else ""
        self._told_at, self._untold = now, 0
        _LOG.warning("features cannot be looked up: %s%s", error, more)


class _Wanted:
    """What the views of a target are called, which entities they read, and what stands in for them."""

    def __init__(self, target: Target) -> None:
        self.views, self.is_of_numbers = target.views, target.reads_numbers_only
        views = self.views
        answering = [view for model in target.scoring for view in model.served.views]
        names = [view.name for view in views]
        self.labels = tuple(
            view.name if names.count(view.name) == 1 else logged_name(view, view.name) for view in views
        )
        self.answering = frozenset(
            label for view, label in zip(views, self.labels, strict=True) if view in answering
        )
        self.entities = tuple(dict.fromkeys(name for view in views for name in view.entity))
        self.places: list[slice] = []
        self.text_places: list[slice] = []
        numbers: list[float] = []
        texts: list[str | None] = []
        for view in views:
            at, text_at = len(numbers), len(texts)
            for feature in view.features:
                default = feature.default
                match feature.type:
                    case FeatureType.NUMBER:
                        numbers.append(float(default) if isinstance(default, float | int) else np.nan)
                    case FeatureType.TEXT:
                        texts.append(default if isinstance(default, str) else None)
                    case FeatureType.VECTOR:
                        width = feature.aggregation.dimensions or 0
                        given = default if isinstance(default, tuple) else [np.nan] * width
                        numbers += np.array(given, dtype=np.float32).tolist()  # as the store keeps them
                    case FeatureType.LIST:
                        pass  # no model reads it
            self.places.append(slice(at, len(numbers)))
            self.text_places.append(slice(text_at, len(texts)))
        self.numbers: Matrix = np.array(numbers, dtype=np.float64)
        self.texts: TextMatrix = np.empty(len(texts), dtype=np.object_)
        self.texts[:] = texts

    def defaults(self, rows: int) -> tuple[Matrix, TextMatrix]:
        """Give the defaults of all views for so many rows."""
        return np.tile(self.numbers, (rows, 1)), np.tile(self.texts, (rows, 1))

    def found(
        self,
        numbers: Matrix,
        texts: TextMatrix,
        defaulted: Iterable[str],
        stale: Mapping[str, int] | None = None,
    ) -> Found:
        """Give features, some of them defaults."""
        told = tuple(each for each in defaulted if each in self.answering)
        lacking = tuple(each for each in defaulted if each not in self.answering)
        return Found(numbers, texts, told, lacking, stale or _FRESH)


def _nothing(rows: int) -> Found:
    return _NOTHING if rows == 1 else Found(np.empty((rows, 0)), np.empty((rows, 0), dtype=np.object_))


def _split(found: Found, sizes: Sequence[int]) -> list[Found | RequestError]:
    if len(sizes) == 1:
        return [found]
    made: list[Found | RequestError] = []
    start = 0
    for size in sizes:
        stop = start + size
        mine = found.numbers[start:stop], found.texts[start:stop]
        made.append(Found(*mine, found.defaulted, found.lacking, found.stale))
        start = stop
    return made


_FRESH: Mapping[str, int] = {}
_NOTHING = Found(np.empty((1, 0)), np.empty((1, 0), dtype=np.object_))
