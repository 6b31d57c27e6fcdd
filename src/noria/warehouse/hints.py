"""What an error of DuckDB may have meant: the nearest columns, a name that is a keyword."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["hinted", "names_no_column", "nearest"]

_NO_COLUMN = re.compile(r'[Cc]olumn (?:named )?"([^"]+)"')
_MEANT = re.compile(r'Did you mean "([^"]+)"')
_QUOTED = re.compile(r'"([^"]+)"')
_SHOWN = 8


def hinted(message: str, columns: Iterable[str] = ()) -> str:
    r"""Give the first line of a message, and what to do about it where that can be told.

    Parameters
    ----------
    columns
        Of all tables that the statement reads: the nearest to one that is not there is suggested.

    Examples
    --------
    >>> hinted('Binder Error: Referenced column "eurr" not found in FROM clause!', ["eur", "shop"])
    'Binder Error: Referenced column "eurr" not found in FROM clause; did you mean \'eur\'?'
    """
    first = message.strip().splitlines()[0]
    hint = ""
    if "syntax error" in first:
        hint = '; a name that is an SQL keyword, such as "at", has to be in double quotes'
    missing = names_no_column(message)
    if missing is not None:
        hint = f"; {nearest(missing, {*columns, *_candidates(message)})}"
    elif (meant := _MEANT.search(message)) is not None:
        hint = f"; did you mean {meant[1]!r}?"
    return f"{first.rstrip('!')}{hint}"


def names_no_column(message: str) -> str | None:
    """Give the column that a message says is not there."""
    found = _NO_COLUMN.search(message.strip().splitlines()[0])
    return found and found[1]


def nearest(name: str, columns: Iterable[str]) -> str:
    """Say which of the columns a name that none has may mean, whatever its case; else which there are.

    Examples
    --------
    >>> nearest("Eurr", ["eur", "shop"]), nearest("x", ["eur", "shop"])
    ("did you mean 'eur'?", 'there is eur, shop')
    """
    known = {each.lower(): each for each in sorted(columns)}
    near = get_close_matches(name.lower(), known, n=3)
    if near:
        return f"did you mean {', '.join(repr(known[each]) for each in near)}?"
    shown = list(known.values())
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"there is {', '.join(shown[:_SHOWN])}{more}" if shown else "there is no column"


def _candidates(message: str) -> list[str]:
    """Give the columns that DuckDB would have expected."""
    _, _, listed = message.partition("Candidate bindings:")
    return [each.rpartition(".")[2] for each in _QUOTED.findall(listed.split("\n")[0])]
