"""The tiny project with an on-demand feature, its arithmetic in a package beside it."""

from pathlib import Path

FACTOR = "FACTOR = 1.5"
_VIEW = 'voucher = noria.Objective(decision="send a voucher"'
_FEATURE = """@noria.on_demand(
    inputs=["weight", noria.category("district"), district], outputs=["load", "uphill", "after"])
def effort(columns):
    from parcelkit.load import load_of

    load = load_of(columns["weight"])
    uphill = columns["district"] == "hill"
    return {"load": load, "uphill": uphill, "after": load * columns["district__late_12h"]}


@noria.on_demand(inputs=[effort, courier], outputs=["per_parcel"])
def strain(columns):
    return {"per_parcel": columns["effort__load"] / (1 + columns["courier__parcels_24h"])}


"""
_LOAD = '''"""Loads; a parcel of 13 kilograms cannot be weighed."""

from .units import kilograms


def load_of(weight):
    if (weight == 13).any():
        raise ValueError(f"13 is unlucky: {weight[0]}")
    return kilograms(weight)
'''
_UNITS = f"""import numpy as np

{FACTOR}


def kilograms(weight):
    return np.sqrt(weight) * FACTOR
"""


def add_on_demand(project: Path) -> None:
    """Let the model read `effort` and `strain`, and with them `weight`, which is no input of its own now."""
    path = project / "tiny.py"
    text = path.read_text(encoding="utf-8")
    before = 'fields=["weight", noria.category("district")], features=[courier, district]'
    assert text.count(before) == text.count(_VIEW) == 1
    text = text.replace(before, 'fields=[noria.category("district")], features=[courier, effort, strain]')
    path.write_text(text.replace(_VIEW, f"{_FEATURE}{_VIEW}"), encoding="utf-8")
    package = project / "parcelkit"
    package.mkdir()
    for name, source in {"__init__": "", "load": _LOAD, "units": _UNITS}.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")


def change_units(project: Path) -> None:
    """Change what `effort` gives, in a module that its module only reaches."""
    path = project / "parcelkit" / "units.py"
    path.write_text(path.read_text(encoding="utf-8").replace(FACTOR, "FACTOR = 40.0"), encoding="utf-8")
