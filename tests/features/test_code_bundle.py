"""Code that travels with a model: what is in a bundle, and that it is what runs."""

import io
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from noria.errors import ConfigError
from noria.features.code_bundle import differing_distributions, load_functions, read_bundle, write_bundle
from noria.features.code_bundling import make_bundle
from noria.features.on_demand import OnDemand
from noria.features.on_demand_values import compute, frozen
from noria.pipelines.loading import forget_modules, importing_from

FILES = {
    "fleet/__init__.py": "",
    "fleet/trips.py": """
        import noria
        import settings
        from fleet import units
        from . import geo
        from .geo import WEIGHTS

        flights = noria.Dataset("flights", key="id", event_at="at", known_at="at")

        @noria.on_demand(inputs=["miles"], outputs=["km", "weight"])
        def trip(columns):
            from fleet.deep import lazily
            km = units.to_km(columns["miles"])
            return {"km": km + settings.OFFSET, "weight": WEIGHTS["a"] * lazily.one(km) * geo.half()}
    """,
    "fleet/units.py": "def to_km(miles):\n    return miles * 1.609\n",
    "fleet/geo.py": """
        from __future__ import annotations
        from dataclasses import dataclass
        import fleet.deep.lazily as lazy

        @dataclass
        class Weight:
            value: float
        WEIGHTS = {"a": Weight(2.0).value}
        def half():
            return lazy.HALF
    """,
    "fleet/deep/lazily.py": "HALF = 0.5\n\ndef one(values):\n    return values * 0 + 1\n",
    "settings.py": "from pathlib import Path\nHERE = Path(__file__).parent\nOFFSET = 100.0\n",
    "unrelated.py": "raise RuntimeError('nobody asked for this')\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    write(tmp_path, FILES)
    yield tmp_path
    forget_modules(tmp_path)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text))


def load(root: Path, module: str = "fleet.trips", name: str = "trip") -> OnDemand:
    with importing_from(root):
        found = getattr(import_module(module), name)
    assert isinstance(found, OnDemand)
    return found


def km(data: bytes, miles: float = 1.0) -> list[float]:
    (bound,) = load_functions(read_bundle(data))
    found = compute(bound, {"miles": frozen(np.array([miles]))}, 1)
    assert not found.failed, found.first
    return [float(value) for value in found.values[0]]


def test_a_bundle_holds_what_is_reached_and_nothing_else(root: Path) -> None:
    bundle = read_bundle(make_bundle([load(root)]))
    assert sorted(bundle.sources) == [
        "fleet", "fleet.deep", "fleet.deep.lazily", "fleet.geo", "fleet.trips", "fleet.units", "settings",
    ]  # fmt: skip
    assert bundle.on_demand[0].columns == ("trip__km", "trip__weight")
    assert list(bundle.distributions) == ["numpy"]
    assert differing_distributions(bundle) == []


def test_equal_code_gives_equal_bytes(root: Path) -> None:
    assert make_bundle([load(root)]) == make_bundle([load(root)])


def test_a_bundle_runs_as_the_project_did(root: Path) -> None:
    feature = load(root)
    assert km(make_bundle([feature])) == [101.609, 1.0]
    found = feature({"miles": np.array([1.0])})
    assert [float(found[name][0]) for name in ("km", "weight")] == [101.609, 1.0]


def test_bundles_of_changed_code_stand_side_by_side(root: Path) -> None:
    before = make_bundle([load(root)])
    (bound,) = load_functions(read_bundle(before))
    write(
        root,
        {
            "settings.py": "OFFSET = 200.0\n",
            "fleet/deep/lazily.py": "HALF = 1.0\ndef one(x):\n    return x * 0 + 3\n",
        },
    )
    forget_modules(root)
    after = make_bundle([load(root)])
    assert km(after) == [201.609, 6.0]
    assert km(before) == [101.609, 1.0]
    # Imports inside of the function are the bundle's, too, though the project's are loaded now.
    found = compute(bound, {"miles": frozen(np.array([1.0]))}, 1)
    assert found.values.tolist() == [[101.609, 1.0]]


def test_code_that_was_changed_since_it_was_loaded_is_refused(root: Path) -> None:
    feature = load(root)
    write(root, {"settings.py": "OFFSET = 300.0\n"})
    with pytest.raises(ConfigError, match=r"settings.py was changed since it was loaded"):
        make_bundle([feature])


def test_a_bundle_runs_where_there_is_no_project_and_no_engine(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(make_bundle([load(root)]))
    script = dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from noria.features.code_bundle import load_functions, read_bundle
        (bound,) = load_functions(read_bundle(Path(sys.argv[1]).read_bytes()))
        print(bound.function({"miles": np.array([1.0])})["km"][0])
        heavy = {"sqlalchemy", "duckdb", "deltalake", "pyarrow", "fleet", "settings"}
        print(sorted(heavy & set(sys.modules)))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bundle.zip")],
        capture_output=True, text=True, check=True, cwd=tmp_path.parent,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["101.609", "[]"]


def test_an_error_in_bundled_code_names_its_line(root: Path) -> None:
    write(root, {"fleet/units.py": "def to_km(miles):\n    raise KeyError('no such unit')\n"})
    (bound,) = load_functions(read_bundle(make_bundle([load(root)])))
    found = compute(bound, {"miles": frozen(np.array([1.0]))}, 1)
    assert found.first is not None
    assert (found.first.kind, found.first.place) == ("KeyError", "trips.py line 13")


def test_a_module_that_cannot_be_imported_is_told(root: Path) -> None:
    bundle = read_bundle(make_bundle([load(root)]))
    broken = write_bundle(bundle.on_demand, {"fleet.trips": (b"import nothing_like_it", False)}, {})
    for _ in range(2):  # it is no other when it is tried again
        with pytest.raises(
            ConfigError, match=r"'fleet.trips'.*ModuleNotFoundError: No module named 'nothing"
        ):
            load_functions(read_bundle(broken))
    empty = write_bundle(bundle.on_demand, {"fleet.trips": (b"", False)}, {})
    with pytest.raises(ConfigError, match="has no function 'trip'"):
        load_functions(read_bundle(empty))


def test_changed_bytes_are_read_or_refused(root: Path) -> None:
    data = make_bundle([load(root)])
    chance = random.Random(7)
    for _ in range(1_000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(-1_500, 0)] = chance.randrange(256)  # mostly where names and places are
        with suppress(ConfigError):
            read_bundle(bytes(changed))


def test_a_small_zip_of_very_much_is_refused() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("noria.json", b'{"on_demand": [], "distributions": {}}')
        archive.writestr("code/vast.py", bytes(1_000_000))
    with pytest.raises(ConfigError, match="it is compressed, and may be larger than memory"):
        read_bundle(sink.getvalue())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"raise SystemExit(3)", "SystemExit: 3$"),
        (
            b"open(__file__ + '.csv')",
            "FileNotFoundError: .*; files beside a module do not travel: write tables",
        ),
    ],
)
def test_a_module_that_exits_or_opens_a_file_ends_no_process(root: Path, source: bytes, told: str) -> None:
    bundle = read_bundle(make_bundle([load(root)]))
    broken = read_bundle(write_bundle(bundle.on_demand, {"fleet.trips": (source, False)}, {}))
    with pytest.raises(ConfigError, match=told):
        load_functions(broken)


def test_other_distributions_are_told(root: Path) -> None:
    bundle = read_bundle(make_bundle([load(root)]))
    other = read_bundle(write_bundle(bundle.on_demand, bundle.sources, {"numpy": "0.1", "not-there": "3"}))
    assert differing_distributions(other) == [
        "not-there 3 (here: none)", f"numpy 0.1 (here: {np.__version__})"
    ]  # fmt: skip


def test_other_bytes_are_no_bundle() -> None:
    with pytest.raises(ConfigError, match="4 bytes are no code of on-demand features"):
        read_bundle(b"\0\1\2\3")
