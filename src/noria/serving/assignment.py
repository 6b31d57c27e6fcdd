"""Which release answers a row: rules by header first, then weights, the same way every time.

A route without a salt places each unit on [0, 1), by a hash of it and the route's id, and gives every release
a part of that. A route with one ranks the releases for each unit instead, by weighted rendezvous hashing:
when weights change, a unit moves only to a release that gained weight against the one it leaves. A canary
that grows so only ever wins units, and keeps those it has.

References
----------
D. G. Thaler and C. V. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions
on Networking 6 (1998), 1-14; for weights: J. Resch, "New hashing algorithms for data storage", SNIA Storage
Developer Conference (2015).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

import numpy as np

from noria.serving.records import HEADER_UNIT, Route, RouteEntry, RouteRule, split
from noria.serving.requests import BadRequestError, Column, shown

__all__ = ["Assignment"]

_NO_HEADERS: Mapping[str, str] = {}
_WORDS = 8  # 64-bit numbers in one digest: one for each release
_DIGEST = Struct("<8Q")
_SCALE = 2.0**-53


class Assignment:
    """The rules and weights of a route, ready to be asked for each row.

    Parameters
    ----------
    route
        Its entries keep their order while a salt is kept: it is by their position that they are ranked.
    releases
        Only these may answer, such as those of one model; None: all of the route. Where none of them
        answers by weight (a shadow asked for by name), the first does.

    Examples
    --------
    >>> from noria.serving.records import Route, RouteEntry
    >>> entries = (RouteEntry(release="a:1", weight=0.9), RouteEntry(release="a:2", weight=0.1))
    >>> route = Route(environment="production", deployment="a", number=1, id="0" * 64, entries=entries,
    ...               models=(), unit="customer_id", salt="autumn")
    >>> assignment = Assignment(route)
    >>> assignment.choose(["17", "18", "17", "31"])
    ['a:1', 'a:1', 'a:1', 'a:1']
    """

    __slots__ = ("_arms", "_bases", "_parts", "_place", "_rules", "_single", "column", "header", "headers")

    def __init__(self, route: Route, *, releases: Collection[str] | None = None) -> None:
        wanted = {each.release for each in route.entries} if releases is None else set(releases)
        self._rules: tuple[RouteRule, ...] = tuple(each for each in route.rules if each.release in wanted)
        self._place = _placed_by(route.id)
        is_header = route.unit.startswith(HEADER_UNIT)
        self.column = None if is_header or not route.unit else route.unit
        self.header = route.unit.removeprefix(HEADER_UNIT).lower() if is_header else None
        needed = [each.header for each in self._rules] + ([self.header] if self.header else [])
        self.headers = tuple(dict.fromkeys(needed))
        own = [each for each in route.entries if each.release in wanted]
        parts = tuple(split(own)) or ((own[0].release, 1.0),)
        self._parts = parts
        self._single = parts[0][0] if len(parts) == 1 else None
        self._arms = _ranked(route.entries, wanted) if route.salt else ()
        blocks = 1 + max((position for position, _, _ in self._arms), default=0) // _WORDS
        self._bases = [
            blake2b(f"{route.salt}\0".encode(), person=block.to_bytes(2, "big")) for block in range(blocks)
        ]

    @property
    def fixed(self) -> str | None:
        """The release that answers every row, where one does whoever asks."""
        return None if self._rules else self._single

    def choose(self, units: Sequence[str], headers: Mapping[str, str] = _NO_HEADERS) -> list[str]:
        """Give the release that answers each row of a request.

        Parameters
        ----------
        units
            Of `units_of`, one for each row.
        headers
            Of the request, named in lower case; those of `headers` are looked at.
        """
        fixed = self._fixed(headers) if self._rules else self._single
        if fixed is not None:
            return [fixed] * len(units)
        return [self._choose(unit) for unit in units]

    def choose_one(self, unit: str, headers: Mapping[str, str] = _NO_HEADERS) -> str:
        """Give the release that answers a request of one row. See `choose`."""
        fixed = self._fixed(headers) if self._rules else self._single
        return self._choose(unit) if fixed is None else fixed

    def units_of(
        self,
        ids: Sequence[str],
        columns: Mapping[str, Column],
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Sequence[str]:
        """Give the unit of each row: its value in the route's column or header, else its prediction id.

        A number and its text are one unit: 17, 17.0 and "17" are alike.

        Raises
        ------
        BadRequestError
            If the column is one of vectors, which name nobody.
        """
        if self.header is not None:
            unit = headers.get(self.header)
            return ids if not unit else [unit] * len(ids)
        column = None if self.column is None else columns.get(self.column)
        if column is None:
            return ids
        if column.width != 1:
            raise BadRequestError(
                f"{shown(self.column or '')} has {column.width} values a row, and who answers goes by it; "
                "send one value a row"
            )
        values = column.values.tolist() if isinstance(column.values, np.ndarray) else column.values
        return [_unit(value) or each for value, each in zip(values, ids, strict=True)]

    def _fixed(self, headers: Mapping[str, str]) -> str | None:
        for rule in self._rules:
            if rule.holds(headers):
                return rule.release
        return self._single

    def _choose(self, unit: str) -> str:
        if not self._arms:
            point = self._place(unit)
            for release, end in self._parts:
                if point < end:
                    return release
            return self._parts[-1][0]
        written = unit.encode("utf-8", "surrogatepass")
        words: list[int] = []
        for base in self._bases:
            digest = base.copy()
            digest.update(written)
            words += _DIGEST.unpack(digest.digest())
        best, least = self._arms[0][1], math.inf
        for position, release, weight in self._arms:
            drawn = -math.log(((words[position] >> 11) + 1) * _SCALE) / weight
            if drawn < least:
                best, least = release, drawn
        return best


def _placed_by(route_id: str) -> Callable[[str], float]:
    """Give `assignment_point` for one route, with what all its units share hashed once."""
    shared = blake2b(f"{route_id}\0".encode(), digest_size=8)

    def place(unit: str) -> float:
        digest = shared.copy()
        digest.update(unit.encode("utf-8", "surrogatepass"))
        return (int.from_bytes(digest.digest(), "big") >> 11) * _SCALE

    return place


def _ranked(entries: Sequence[RouteEntry], wanted: Collection[str]) -> tuple[tuple[int, str, float], ...]:
    """Give the releases that answer by weight, with their position among all that may."""
    answering = [each for each in entries if each.mode == "answer"]
    return tuple(
        (position, each.release, each.weight)
        for position, each in enumerate(answering)
        if each.weight > 0 and each.release in wanted
    )


def _unit(value: Any) -> str:
    """Write a value as the name of a unit; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return str(value)
