"""Columns that come with a request, as a model or an on-demand feature reads them."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Field", "category"]


@dataclass(frozen=True, slots=True)
class Field:
    """A column that comes with the request."""

    name: str
    kind: Literal["number", "category"] = "number"


def category(name: str) -> Field:
    """Declare a request column that holds a text of a limited vocabulary.

    Examples
    --------
    >>> category("carrier").kind
    'category'
    """
    return Field(name, "category")
