# mypy: ignore-errors
"""What the programs share: each check is run, and what it gave or raised goes into one JSON object."""

import json
import sys
from pathlib import Path

import numpy as np


def told_models():
    """Give the models to ask: name, url, columns and the width of the matrix."""
    return json.loads(Path(sys.argv[1]).read_text())


def run_all(checks):
    found = {}
    for name, check in checks.items():
        try:
            found[name] = {"gave": check()}
        except Exception as err:  # noqa: BLE001  the test tells it
            found[name] = {"raised": f"{type(err).__name__}: {err}"}
    json.dump(found, sys.stdout, default=plain)


def plain(value):
    """Give arrays as lists, and bytes as texts."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"{type(value)} is no JSON")
