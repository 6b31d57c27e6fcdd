"""How an input's contribution goes with its value."""

from collections.abc import Iterator

import numpy as np

from noria.explain.records import Effect
from noria.registry.matrix import Matrix
from noria.registry.records import Input

__all__ = ["effects_of"]

_SPANS = 8
_CATEGORIES = 8


def effects_of(column: Input, values: Matrix, contributions: Matrix) -> tuple[Effect, ...]:
    """Give the mean contribution by spans of about as many rows each, or by the most frequent categories.

    Parameters
    ----------
    values, contributions : arrays of shape (n,)
        As the model reads them, NaN where one is missing; and what they add.

    Examples
    --------
    >>> found = effects_of(Input("x", "number"), np.array([1.0, 2.0, np.nan]), np.array([-0.5, 0.5, 0.1]))
    >>> [(each.low, each.high, each.mean) for each in found]
    [(1.0, 1.0, -0.5), (2.0, 2.0, 0.5), (None, None, 0.1)]
    """
    there = ~np.isnan(values)
    found = list(_by_category(column, values, contributions, there) if column.is_text
                 else _by_span(values, contributions, there))  # fmt: skip
    if not there.all():
        found.append(Effect(rows=int((~there).sum()), mean=float(contributions[~there].mean())))
    return tuple(found)


def _by_category(column: Input, values: Matrix, contributions: Matrix, there: Matrix) -> Iterator[Effect]:
    codes, counts = np.unique(values[there].astype(np.int64), return_counts=True)
    for place in np.argsort(-counts, kind="stable")[:_CATEGORIES]:
        mine = values == codes[place]
        yield Effect(
            category=column.categories[codes[place]],
            rows=int(counts[place]),
            mean=float(contributions[mine].mean()),
        )


def _by_span(values: Matrix, contributions: Matrix, there: Matrix) -> Iterator[Effect]:
    known, added = values[there], contributions[there]
    if not known.size:
        return
    if np.unique(known).size <= _SPANS:
        edges = np.unique(known)
    else:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, _SPANS + 1)[1:], method="higher"))
    spans = np.searchsorted(edges, known, side="left")
    for span in np.unique(spans):
        mine = spans == span
        yield Effect(
            low=float(known[mine].min()),
            high=float(known[mine].max()),
            rows=int(mine.sum()),
            mean=float(added[mine].mean()),
        )
