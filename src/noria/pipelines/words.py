"""Texts that stand in another one as words: thousands of them are looked for in one pass."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

__all__ = ["Words"]

_TOKEN = re.compile(r"\w+|\W")
_LETTER = re.compile(r"\w")


class Words:
    """Texts that are found where no letter or digit goes on with them.

    Examples
    --------
    >>> Words(["ann", "a+b"]).replaced("ann and anna, a+b and a+bc", "?")
    '? and anna, ? and a+bc'
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._by_head: dict[str, list[str]] = defaultdict(list)
        for each in sorted(set(texts) - {""}, key=len, reverse=True):  # a longer one may begin with another
            self._by_head[next(_TOKEN.finditer(each))[0]].append(each)

    def are_in(self, text: str) -> bool:
        """Tell whether one of them stands in a text."""
        return next(self._spans(text), None) is not None

    def replaced(self, text: str, by: str) -> str:
        """Put something else in the place of each."""
        pieces, at = [], 0
        for begin, end in self._spans(text):
            pieces += [text[at:begin], by]
            at = end
        return "".join([*pieces, text[at:]])

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        at = 0
        for token in _TOKEN.finditer(text):
            begin = token.start()
            if begin < at or token[0] not in self._by_head:
                continue
            for each in self._by_head[token[0]]:
                end = begin + len(each)
                goes_on = _LETTER.match(each[-1]) and _LETTER.match(text, end)
                if text.startswith(each, begin) and not goes_on:
                    yield begin, end
                    at = end
                    break
