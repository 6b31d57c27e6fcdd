"""What keys are made of, where a whole run would show it too late."""

import os
import time
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from tests.pipelines.conftest import write_files

from noria.pipelines.code.project import ProjectCode
from noria.pipelines.declarations import Step, step
from noria.pipelines.graph import Graph, Node, Result
from noria.pipelines.keys import KeyMaker, Literals, NoResolver
from noria.pipelines.progression import Progression
from noria.pipelines.trees import Keyed, Listed, Recorded, Stored, Tree
from noria.records import Version, VersionId, sha256_hex
from noria.storage.opening import open_storage


@step
def unsaid(rows):  # type: ignore[no-untyped-def]
    return rows


@step
def wants_version(rows: Version) -> int:
    return rows.number


@step
def wants_rows(rows: pa.Table) -> int:
    return len(rows)


class Declared:
    """Stands for a version, as a dataset does."""

    def __init__(self, version: Recorded) -> None:
        self.version = version


class Resolver(NoResolver):
    def version_of(self, value: object) -> Any:
        return value.version if isinstance(value, Declared) else None


ONE, SAME, OTHER = (
    Recorded(VersionId("project/dataset/one/1"), "a" * 64),
    Recorded(VersionId("project/dataset/two/1"), "a" * 64),
    Recorded(VersionId("project/dataset/one/2"), "b" * 64),
)


@pytest.fixture
def literals(tmp_path: Path) -> Literals:
    return Literals(open_storage(str(tmp_path / "storage")), tmp_path, Resolver(), keep=True)


@step
def source() -> Any:
    return None


def key(step: Step[..., Any], tree: Tree) -> str:
    """Give the key of a step that takes a tree."""
    nodes = (Node("source", source), Node("n", step, {"rows": Result("source")}))
    progression = Progression(Graph("g", nodes))
    code = ProjectCode(Path(__file__).parent)
    keys = KeyMaker(progression, code, cast(Literals, None), runtime="", once="")
    return keys.make(progression.tasks["n"][0], {"rows": tree}).key


def test_who_sees_a_version_sees_its_name_and_number() -> None:
    for sees in (unsaid, wants_version):
        assert len({key(sees, each) for each in (ONE, SAME, OTHER)}) == 3


def test_who_sees_rows_sees_what_a_version_holds() -> None:
    assert key(wants_rows, ONE) == key(wants_rows, SAME) != key(wants_rows, OTHER)


def test_a_table_is_no_file_of_the_same_bytes() -> None:
    kinds = [Stored(each, "c" * 64, 99_999, "") for each in ("arrow", "file", "folder", "value")]
    assert len({key(unsaid, each) for each in kinds}) == 4
    assert len({key(unsaid, Listed((each,))) for each in kinds}) == 4


def test_declarations_within_lists_and_dicts_are_their_versions(literals: Literals) -> None:
    one, other = Declared(ONE), Declared(OTHER)
    three = literals(3)
    assert literals(one) == ONE
    assert literals([one, 3]) == Listed((ONE, three))
    assert literals((3, [other])) == Listed((three, Listed((OTHER,))), is_tuple=True)
    assert literals({"a": one}) == Keyed(literals._stored(["a"]), (ONE,))
    assert isinstance(literals([1, 2]), Stored)


def test_equal_values_of_other_types_are_other_values(literals: Literals) -> None:
    values = [1, 1.0, True, "1", b"1", [1], (1,), {1}, None, 0, 0.0, -0.0, False, "", [], (), {}]
    trees = [literals(each) for each in values]
    assert len({each.sha256 for each in trees if isinstance(each, Stored)}) == len(values)


# -- files that change after a key was made

NAMES = ("data.txt", "deep.py", "lazy.py", "more.txt", "work.py")


class Changing:
    """A step's code, whose files are then changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        texts = {"work.py": "import deep, lazy\n", "deep.py": "A = 1\n", "lazy.py": "A = 1\n"}
        write_files(root, {**texts, "data.txt": "1", "more.txt": "1"})
        time.sleep(0.1)  # longer than the instants of files are coarse
        code = ProjectCode(root)
        progression = Progression(Graph("g", (Node("source", source),)))
        self.keys = KeyMaker(progression, code, cast(Literals, None), runtime="", once="")
        self.code = code.of("work", declared=["*.txt"])
        self.loaded = {str(root / name): code.source_digest(name) for name in ("work.py", "deep.py")}

    def changed(self) -> list[str]:
        return self.keys.changed_since(self.code, self.loaded)


@pytest.fixture
def changing(tmp_path: Path) -> Changing:
    return Changing(tmp_path / "project")


def test_files_that_stay_have_not_changed(changing: Changing) -> None:
    assert tuple(changing.code.files) == NAMES
    assert changing.changed() == []
    (changing.root / "data.txt").write_text("1", encoding="utf-8")
    assert changing.changed() == []


def test_a_source_counts_as_it_was_loaded(changing: Changing) -> None:
    for name in (
        "deep.py",
        "lazy.py",
    ):  # while the step runs, which has the former alone
        (changing.root / name).write_text("A = 2\n", encoding="utf-8")
    assert changing.changed() == []
    changing.loaded[str(changing.root / "lazy.py")] = sha256_hex(b"A = 2\n")
    assert changing.changed() == ["lazy.py"]


def test_other_files_count_as_they_lie_on_disk(changing: Changing) -> None:
    (changing.root / "data.txt").write_text("2", encoding="utf-8")
    (changing.root / "more.txt").unlink()
    assert changing.changed() == ["data.txt", "more.txt"]
    (changing.root / "data.txt").write_text("1", encoding="utf-8")
    assert changing.changed() == ["more.txt"]


def test_a_file_of_before_that_takes_the_place_is_seen(changing: Changing) -> None:
    other = changing.root / "other"
    other.write_text("2", encoding="utf-8")
    os.utime(other, (1, 1))
    other.replace(changing.root / "data.txt")
    assert changing.changed() == ["data.txt"]
