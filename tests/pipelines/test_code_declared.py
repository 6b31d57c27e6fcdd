"""Files that a step declares."""

from pathlib import Path

import pytest

from noria.errors import ConfigError
from noria.pipelines.code.project import ProjectCode

FILES = [
    "conf.json",
    "data/2013/a.csv",
    "data/b.csv",
    "data/.git/x",
    "sql/one.sql",
    "sql/two.sql",
    "sql/[x].sql",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name in [*FILES, "steps.py"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("conf.json", ["conf.json"]),
        ("./conf.json", ["conf.json"]),
        ("sql/*.sql", ["sql/[x].sql", "sql/one.sql", "sql/two.sql"]),
        ("sql/[x].sql", ["sql/[x].sql"]),
        ("sql/[ot]*", ["sql/one.sql", "sql/two.sql"]),
        ("*/one.sql", ["sql/one.sql"]),
        ("**/*.csv", ["data/2013/a.csv", "data/b.csv"]),
        ("data/**", ["data/2013/a.csv", "data/b.csv"]),
        ("data/**/a.csv", ["data/2013/a.csv"]),
        ("data", ["data/2013/a.csv", "data/b.csv"]),
        ("data/", ["data/2013/a.csv", "data/b.csv"]),
        ("d*", ["data/2013/a.csv", "data/b.csv"]),
    ],
)
def test_patterns_name_files(project: Path, pattern: str, wanted: list[str]) -> None:
    assert list(ProjectCode(project).of("steps", declared=[pattern]).files) == sorted([*wanted, "steps.py"])


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("/etc/passwd", "is no pattern below the project's folder"),
        ("C:/x", "is no pattern below the project's folder"),
        ("", "is no pattern below the project's folder"),
        ("../x", "leads out of the project's folder"),
        ("sql/../../x", "leads out of the project's folder"),
        ("config.json", "'config.json' matches no file; in the project's folder there is conf.json, data/, "),
        ("config.json", "the nearest is conf.json"),
        ("sql/*.sq", "'sql/\\*.sq' matches no file; in sql there is \\[x\\].sql, one.sql, two.sql"),
        ("sql/one.sql/x", "in sql there is"),
        ("empty/*", "empty is empty"),
        ("empty", "'empty' matches no file; empty is empty"),
        ("data/.git/x", "matches no file"),
    ],
)
def test_a_pattern_that_gives_nothing_is_refused(project: Path, pattern: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ProjectCode(project).of("steps", declared=[pattern])


def test_bytes_of_declared_files_count(project: Path) -> None:
    before = ProjectCode(project).of("steps", declared=["steps.py", "sql/*"])
    (project / "steps.py").write_text("# a note\n")
    noted = ProjectCode(project).of("steps", declared=["steps.py", "sql/*"])
    (project / "sql/three.sql").touch()
    more = ProjectCode(project).of("steps", declared=["steps.py", "sql/*"])
    assert len({before.digest, noted.digest, more.digest}) == 3
    assert ProjectCode(project).of("steps", declared=["sql/*", "steps.py"]).digest == more.digest


def test_links_may_not_lead_out(project: Path) -> None:
    (project / "here.sql").symlink_to("sql/one.sql")
    (project / "data/2013/up").symlink_to("..")
    (project / "out").symlink_to(project.parent)
    code = ProjectCode(project)
    assert "here.sql" in code.of("steps", declared=["here.sql"]).files
    assert "data/b.csv" in code.of("steps", declared=["data"]).files
    with pytest.raises(ConfigError, match="by the link out"):
        code.of("steps", declared=["out"])


def test_large_files_are_streamed(project: Path) -> None:
    (project / "large.bin").write_bytes(b"\0" * 3_000_000)
    code = ProjectCode(project)
    found = code.of("steps", declared=["large.bin"])
    assert found.files["large.bin"] == code.source_digest("large.bin")
