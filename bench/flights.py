"""The tables and declarations of the demo's template, for benches that need real rows."""

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

import noria

__all__ = ["declared", "landings", "schedule", "weather"]

_TEMPLATE = Path(noria.__file__).parent / "workspace" / "templates" / "flights"


@cache
def declared() -> Any:
    """Give the template's module: its datasets, views and models are its attributes."""
    sys.path.insert(0, str(_TEMPLATE))
    try:
        return importlib.import_module("flights")
    finally:
        sys.path.remove(str(_TEMPLATE))


@cache
def landings() -> pa.Table:
    return declared().landings.source(_TEMPLATE)


@cache
def schedule() -> pa.Table:
    """Give the year's flights with the instant `at` of their prediction."""
    rows = declared().schedule.source(_TEMPLATE)
    return rows.append_column("at", rows["predict_at"])


@cache
def weather() -> pa.Table:
    return declared().weather.source(_TEMPLATE)
