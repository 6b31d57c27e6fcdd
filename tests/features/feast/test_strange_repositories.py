"""Feast repositories that are strange, or mean harm: no code gets into the module, and no fault out of it."""

from pathlib import Path

import pytest

from noria.errors import SourceError
from noria.features.feast import Imported, import_feast

HEAD = (
    "from datetime import timedelta\nfrom feast import Entity, FeatureView, Field, FileSource\n"
    "from feast.types import Float32\nd = Entity(name='d')\n"
)


def imported(folder: Path, code: str = "", *, path: str = "z.parquet", project: str = "rides") -> Imported:
    (folder / "feature_store.yaml").write_text(f"project: {project}\n", encoding="utf-8")
    (folder / "views.py").write_text(
        f"{HEAD}kept = FeatureView(name='kept', entities=[d], schema=[Field(name='x', dtype=Float32)],\n"
        f"  source=FileSource(path={path!r}, timestamp_field='t'){code})\n",
        encoding="utf-8",
    )
    return import_feast(folder, root=folder)


@pytest.mark.parametrize("name", ['x"""; harm = 1; """', "x\\", 'it"s', "a\x1bb", "\u202e"])
def test_the_name_of_a_project_is_no_code(tmp_path: Path, name: str) -> None:
    found: dict[str, object] = {}
    exec(imported(tmp_path, project=name).module, found)
    assert "harm" not in found
    assert str(found["__doc__"]).startswith("Declarations of the Feast project")
    assert (tmp_path / "module.py").write_text(imported(tmp_path, project=name).module, encoding="utf-8")


@pytest.mark.parametrize("told", ["\ud800", "\n", "\u202e", "🚕 \x00", "\"'\\"])
def test_any_text_is_written_as_it_was(tmp_path: Path, told: str) -> None:
    found: dict[str, object] = {}
    module = imported(tmp_path, f", description={told!a}").module
    exec(compile(module.encode("utf-8"), "module", "exec"), found)
    assert getattr(found["kept"], "description", None) == told


@pytest.mark.parametrize(
    "ttl",
    [
        "timedelta(days=99999999999)",
        "timedelta(days=999999) * 99999999",
        "timedelta(bogus=1)",
        "timedelta(1, days=2)",
        "timedelta(days=1e308 * 1e308 - 1e308 * 1e308)",
    ],
)
def test_a_duration_that_python_refuses_is_told(tmp_path: Path, ttl: str) -> None:
    found = imported(tmp_path, f", ttl={ttl}")
    assert found.views == ("kept",)
    assert "ttl of kept" in {each.what for each in found.notes}


@pytest.mark.parametrize("path", ["a\0b", "x" * 5_000])
def test_a_path_that_can_be_no_file_is_told(tmp_path: Path, path: str) -> None:
    found = imported(tmp_path, path=path)
    assert found.views == ("kept",)
    assert any("can be no file here" in each.why for each in found.notes), found.notes


def test_a_file_may_say_how_it_is_written(tmp_path: Path) -> None:
    imported(tmp_path)
    code = (tmp_path / "views.py").read_bytes()
    (tmp_path / "views.py").write_bytes(b"\xef\xbb\xbf" + code)
    assert import_feast(tmp_path, root=tmp_path).views == ("kept",)
    (tmp_path / "views.py").write_bytes(b"# -*- coding: latin-1 -*-\n# \xe9\n" + code)
    assert import_feast(tmp_path, root=tmp_path).views == ("kept",)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    imported(tmp_path)
    (tmp_path / "deep.py").write_text("x = a" + ".b" * 20_000 + "\n")
    with pytest.raises(SourceError, match=r"deep\.py, line 1: no Python that can be read"):
        import_feast(tmp_path, root=tmp_path)
    (tmp_path / "deep.py").unlink()
    (tmp_path / "feature_store.yaml").write_bytes(b"project: \xff\n")
    with pytest.raises(SourceError, match=r"feature_store\.yaml cannot be read"):
        import_feast(tmp_path, root=tmp_path)
