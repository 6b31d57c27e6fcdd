"""The modules that are found in sources against those that Python runs, in projects made at random."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from noria.pipelines.code.project import ProjectCode, StepCode

Project = dict[str, str]  # "a/b.py" -> its text
DRIVER = Path(__file__).parent / "import_driver.py"
NAMES = ("ab", "cd", "ef")
quick = settings(max_examples=60, deadline=None)


class Importer:
    """Imports modules for real, each in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, root: Path, module: str) -> tuple[set[str], bool]:
        """Give the files that ran, and whether nothing failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(root), module]) + "\n")
        self.process.stdin.flush()
        files, went_well = json.loads(self.process.stdout.readline())
        return set(files), went_well


ROOTS = tempfile.TemporaryDirectory(prefix="noria-code-")  # one folder for the projects of all examples


@pytest.fixture(scope="module", autouse=True)
def no_remains() -> Iterator[None]:
    yield
    ROOTS.cleanup()


@pytest.fixture(scope="module")
def importer() -> Iterator[Importer]:
    made = Importer()
    yield made
    with made.process as process:
        assert process.stdin is not None
        process.stdin.close()


def write(project: Project) -> Path:
    root = Path(tempfile.mkdtemp(dir=ROOTS.name)).resolve()
    for name, text in project.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def code_of(project: Project) -> StepCode:
    return ProjectCode(write(project)).of("steps")


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def value_of(module: str) -> str:
    return f"V_{module.replace('.', '_')}"


class Ways(StrEnum):
    """Which ways to import: such that exactly what is read runs, such that at most that runs, or any."""

    EXACT = "exact"
    PLAIN = "plain"
    WILD = "wild"


@st.composite
def statements(draw: st.DrawFn, here: str, others: list[str], ways: Ways) -> str:
    """One way to import one of `others` from the file `here`."""
    other = module_of(draw(st.sampled_from(others)))
    parent, _, last = other.rpartition(".")
    alias = f"as_{draw(st.integers(0, 9))}"
    texts = [
        f"import {other}",
        f"import {other} as {alias}",
        f"from {other} import {value_of(other)} as {alias}",
        f"try:\n    import {other}.missing\nexcept ImportError:\n    pass",
        f"try:\n    import missing\nexcept ImportError:\n    import {other} as {alias}",
        f"def run():\n    import {other}",
    ]
    if parent:
        texts.append(f"from {parent} import {last} as {alias}")
    texts += relative_ways(here, other, alias)
    if ways != Ways.EXACT:
        texts += [
            f"from {other} import *",
            f"import importlib; importlib.import_module('{other}')",
            f"from importlib import import_module as load; {alias} = load(name='{other}')",
            f"__import__('{other}')",
        ]
    if ways == Ways.WILD:
        texts += [
            f"name = '{other}'\n__import__(name)",
            f"exec('import {other}')",
            f"from importlib import *\nimport_module('{other}')",
            f"from {other} import missing",
            f"try:\n    {other}.{NAMES[0]}.{NAMES[1]}\nexcept (NameError, AttributeError):\n    pass",
            f"__all__ = ['{NAMES[0]}', '{NAMES[1]}']\nfrom {other} import *",
            f"import sys\nsys.modules['{other}']",
            "raise ValueError",
        ]
    return draw(st.sampled_from(texts))


def relative_ways(here: str, other: str, alias: str) -> list[str]:
    """Ways by dots, where `other` lies in a package around `here`."""
    parts, ways = here.split("/")[:-1], []
    for level in range(1, len(parts) + 1):
        around = ".".join(parts[: len(parts) - level + 1])
        if other.startswith(f"{around}."):
            rest, dots = other.removeprefix(f"{around}."), "." * level
            before, _, last = rest.rpartition(".")
            ways += [
                f"from {dots}{before} import {last}",
                f"from {dots}{rest} import {value_of(other)} as {alias}",
            ]
    return ways


@st.composite
def projects(draw: st.DrawFn, ways: Ways = Ways.PLAIN) -> Project:
    """A `steps.py` and some packages, with and without `__init__`."""
    paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
    endings = st.sampled_from([".py", ".py", "/__init__.py"])
    files = sorted(draw(st.sets(st.builds(str.__add__, paths, endings), min_size=2, max_size=8)))
    project: Project = {}
    for file in ["steps.py", *files]:
        most = 3 if file == "steps.py" else 2
        found = draw(st.lists(statements(file, files, ways), max_size=most))
        found = [each.replace("run()", f"run_{number}()") for number, each in enumerate(found)]
        project[file] = f"{value_of(module_of(file))} = 1\n" + "".join(f"{each}\n" for each in found)
    return project


@given(projects(Ways.WILD))
@settings(max_examples=150, deadline=None)
def test_all_that_python_runs_is_read(importer: Importer, project: Project) -> None:
    root = write(project)
    assert importer.run(root, "steps")[0] <= set(ProjectCode(root).of("steps").files)


@given(projects(), st.data())
@quick
def test_a_changed_constant_counts_if_it_can_be_reached(
    importer: Importer, project: Project, data: st.DataObject
) -> None:
    root = write(project)
    ran, before = importer.run(root, "steps")[0], ProjectCode(root).of("steps")
    changed = data.draw(st.sampled_from(sorted(project)))
    after = code_of(project | {changed: project[changed].replace(" = 1\n", " = 2\n", 1)})
    assert before.unseen is None
    assert (after.digest != before.digest) == (changed in before.files)
    assert ran <= set(before.files)
    assert (after.digest != before.digest) or changed not in ran


@given(projects(Ways.EXACT))
@quick
def test_no_more_is_read_than_python_runs(importer: Importer, project: Project) -> None:
    root = write(project)
    ran, went_well = importer.run(root, "steps")
    assume(went_well)
    read = set(ProjectCode(root).of("steps").files)
    assert ran <= read
    assert {each for each in read - ran if not is_hidden(project, each)} == set()


def is_hidden(project: Project, path: str) -> bool:
    """Tell whether a package binds another thing to the name of its module, which then is not loaded."""
    package, _, name = path.removesuffix(".py").rpartition("/")
    bound = re.compile(rf"^(import .*\b{name}\b|from .* import .*\b{name}\b)", re.MULTILINE)
    return bound.search(project.get(f"{package}/__init__.py", "")) is not None


@given(projects(), st.data())
@quick
def test_comments_and_layout_never_count(project: Project, data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(sorted(project)))
    note = "# a note\n\n" + project[changed].replace(" = 1\n", "   =   1  # another\n", 1) + "\n\n# the end"
    assert code_of(project | {changed: note}) == code_of(project)


@given(projects(), st.data())
@quick
def test_a_module_that_goes_or_comes_counts_if_it_can_be_reached(
    project: Project, data: st.DataObject
) -> None:
    before = code_of(project)
    gone = data.draw(st.sampled_from(sorted(project.keys() - {"steps.py"})))
    without = {name: text for name, text in project.items() if name != gone}
    after = code_of(without)
    if gone in before.files:
        assert after.digest != before.digest
    assert code_of(without | {"renamed.py": project[gone]}) == after
    assert code_of(without | {gone: project[gone]}) == before


@given(projects(), st.data())
@quick
def test_a_module_that_stands_before_another_counts_if_python_takes_it(
    importer: Importer, project: Project, data: st.DataObject
) -> None:
    folders = {name.split("/")[0] for name in project if "/" in name}
    name = data.draw(st.sampled_from(sorted({*NAMES, *folders})))
    shadow = data.draw(st.sampled_from([f"{name}.py", f"{name}/__init__.py"]))
    root, shadowed = write(project), write(project | {shadow: "other = 1\n"})
    before, after = ProjectCode(root).of("steps"), ProjectCode(shadowed).of("steps")
    if shadow in importer.run(shadowed, "steps")[0]:
        assert before.digest != after.digest
    if shadow not in after.files:
        assert before == after


@given(projects(), st.binary(max_size=4), st.binary(max_size=4))
@quick
def test_a_declared_file_counts_by_its_bytes(project: Project, one: bytes, other: bytes) -> None:
    root = write(project)
    digests = []
    for data in (one, other):
        (root / "conf.bin").write_bytes(data)
        digests.append(ProjectCode(root).of("steps", declared=["conf.bin"]).digest)
    assert (digests[0] == digests[1]) == (one == other)
    assert ProjectCode(root).of("steps").digest not in digests
