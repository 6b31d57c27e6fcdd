"""The code of a step: which modules count, what of them counts, and what is said of the rest."""

import ast
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import ConfigError, NotFound, SourceError
from noria.pipelines.code.imports import read_python
from noria.pipelines.code.project import ProjectCode, StepCode

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes files into a project."""

    def write(files: Mapping[str, str | bytes], root: Path = tmp_path) -> Path:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return write


def names(code: StepCode) -> list[str]:
    return list(code.files)


def reached(write: Write, files: Mapping[str, str | bytes], module: str = "steps") -> list[str]:
    return names(ProjectCode(write(files)).of(module))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("import a.b.c", ["a/__init__.py", "a/b/__init__.py", "a/b/c.py"]),
        ("import a.b", ["a/__init__.py", "a/b/__init__.py"]),
        ("from a import b", ["a/__init__.py", "a/b/__init__.py"]),
        ("from a import value", ["a/__init__.py"]),
        ("from a.b import c as d", ["a/__init__.py", "a/b/__init__.py", "a/b/c.py"]),
        ("import free.inside", ["free/inside.py"]),
        ("import free", []),
        ("def f():\n  import plain", ["plain.py"]),
        ("try:\n  import none\nexcept ImportError:\n  import plain", ["plain.py"]),
        ("import sys\nif sys.platform == 'win32': import plain", ["plain.py"]),
        ("from importlib import import_module as load\nload('plain')", ["plain.py"]),
        ("import importlib\nimportlib.import_module(name='plain')", ["plain.py"]),
        (
            "import importlib as i\ni.import_module('.c', 'a.b')",
            ["a/__init__.py", "a/b/__init__.py", "a/b/c.py"],
        ),
        ("__import__('plain')", ["plain.py"]),
        ("from importlib import resources\nresources.files('a')", ["a/__init__.py"]),
        ("import sys\nsys.modules['plain']", ["plain.py"]),
        ("import sys\nsys.modules[__name__]; 'plain' in sys.modules", []),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING: import plain", []),
        ("import typing as t\nif t.TYPE_CHECKING: import plain\nelse: import a", ["a/__init__.py"]),
        ("import typing as t\nif not t.TYPE_CHECKING: import plain", ["plain.py"]),
        ("TYPE_CHECKING = True\nif TYPE_CHECKING: import plain", ["plain.py"]),
        ("import json, numpy, noria, missing.module", []),
        ("import math, time", []),
    ],
)
def test_imports_are_followed(write: Write, text: str, wanted: list[str]) -> None:
    files = {
        **{"a/__init__.py": "value = 1", "a/b/__init__.py": "", "a/b/c.py": "", "free/inside.py": ""},
        **{"plain.py": "", "time.py": "", "steps.py": text},
    }
    found = ProjectCode(write(files)).of("steps")
    assert (names(found), found.unseen) == (sorted([*wanted, "steps.py"]), None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from . import sibling", ["sibling.py"]),
        ("from .sibling import x", ["sibling.py"]),
        ("from .. import other", ["../other.py"]),
        ("from ..other import x", ["../other.py"]),
        ("from ... import beyond", []),
        ("from importlib import import_module\nimport_module('.sibling', __package__)", ["sibling.py"]),
        (
            "from importlib import import_module\nimport_module('..other', package=__package__)",
            ["../other.py"],
        ),
    ],
)
def test_relative_imports_are_followed(write: Write, text: str, wanted: list[str]) -> None:
    files = ["top/__init__.py", "top/other.py", "top/mid/__init__.py", "top/mid/sibling.py", "beyond.py"]
    root = write({**dict.fromkeys(files, ""), "top/mid/steps.py": text})
    always = {"top/__init__.py", "top/mid/__init__.py", "top/mid/steps.py"}
    found = {f"top/{each[3:]}" if each.startswith("..") else f"top/mid/{each}" for each in wanted}
    assert set(names(ProjectCode(root).of("top.mid.steps"))) == always | found


@pytest.mark.parametrize(
    ("exports", "wanted"),
    [
        ("", []),
        ("__all__ = ['one']", ["one"]),
        ("__all__: list[str] = ['one']\n__all__ += ('two',)", ["one", "two"]),
        ("__all__ = ['one', *others]", ["one", "two", "sub/__init__", "sub/deep"]),
        ("__all__ = []\n__all__.append('one')", ["one", "two", "sub/__init__", "sub/deep"]),
        ("from other import __all__", ["one", "two", "sub/__init__", "sub/deep"]),
    ],
)
def test_a_star_takes_what_the_package_offers(write: Write, exports: str, wanted: list[str]) -> None:
    inside = dict.fromkeys(["pack/one.py", "pack/two.py", "pack/sub/__init__.py", "pack/sub/deep.py"], "")
    files = {**inside, "pack/__init__.py": exports, "steps.py": "from pack import *"}
    found = reached(write, files)
    assert set(found) == {"pack/__init__.py", "steps.py", *(f"pack/{each}.py" for each in wanted)}


@pytest.mark.parametrize(
    "text",
    [
        "import pack\npack.part.work()",
        "import pack as p\np.part",
        "from facade import pack\npack.part.work()",
        "import facade\nfacade.pack.part",
        "from facade import *\npack.part",
        "import pack\nload(pack)",
        "import pack\ngetattr(pack, 'part')",
        "import pack\nvars(pack), pack.__dict__['part']",
        "from importlib import import_module\nimport_module('pack').part",
        "import sys\nsys.modules['pack'].part",
        "__import__('pack.nothing').part",
    ],
)
def test_a_submodule_that_somebody_else_imported_counts(write: Write, text: str) -> None:
    files = {"pack/__init__.py": "", "pack/part.py": "", "facade.py": "import pack", "steps.py": text}
    assert "pack/part.py" in reached(write, files)


def test_names_of_a_package_are_no_use_of_its_submodules(write: Write) -> None:
    text = "import pack\npack.work(), pack.__name__\nthing.part.run()"
    files = {"pack/__init__.py": "", "pack/part.py": "", "steps.py": text}
    assert reached(write, files) == ["pack/__init__.py", "steps.py"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import importlib\n\nimportlib.import_module(name)", "line 3: importlib.import_module of a name"),
        ("load = __import__", "line 1: builtins.__import__ of a name"),
        ("from importlib import *\nimport_module(name)", "line 2: importlib.import_module of a name"),
        ("from importlib import import_module", "line 1: importlib.import_module"),
        ("eval('1')", "line 1: builtins.eval"),
        ("run = exec", "line 1: builtins.exec"),
        ("import runpy\nrunpy.run_path('x.py')", "line 2: runpy.run_path"),
        ("import pickle as p\np.load(file)", "line 2: pickle.load"),
        ("import sys\nsys.path.insert(0, 'lib')", "line 2: sys.path.insert"),
        ("import importlib.util as u\nu.spec_from_file_location('x', 'y')", "line 2: importlib.util.spec"),
        ("import pkgutil\npkgutil.iter_modules(__path__)", "line 2: "),
    ],
)
def test_unseen_code_makes_everything_count(write: Write, text: str, told: str) -> None:
    files = {
        "steps.py": "import deep",
        "deep.py": text,
        "lib/any-name.py": "",
        "broken.py": "def",
        "note.txt": "",
    }
    found = ProjectCode(write(files)).of("steps")
    assert names(found) == ["broken.py", "deep.py", "lib/any-name.py", "steps.py"]
    assert (found.unseen or "").startswith(f"deep.py {told}")


def test_methods_and_variables_of_such_names_are_no_unseen_code(write: Write) -> None:
    text = "import pandas as pd\nmodel.eval(); pd.eval('a'); re.compile('x'); code = imp = 1; code.x, runpy.y"
    assert ProjectCode(write({"steps.py": text, "other.py": ""})).of("steps").unseen is None


def test_compiled_modules_count_by_their_bytes_and_may_import_anything(write: Write) -> None:
    suffix = ".so" if sys.platform != "win32" else ".pyd"
    root = write({"steps.py": "import fast", f"fast{suffix}": b"\x7fELF", "fast.py": "", "other.py": ""})
    found = ProjectCode(root).of("steps")
    assert set(names(found)) == {f"fast{suffix}", "fast.py", "other.py", "steps.py"}
    assert found.unseen == f"fast{suffix} is compiled"
    (root / f"fast{suffix}").write_bytes(b"\x7fELG")
    assert ProjectCode(root).of("steps").digest != found.digest


def test_folders_of_tools_hold_no_code_of_the_project(write: Write) -> None:
    files = dict.fromkeys(
        [
            "venv/pyvenv.cfg",
            "venv/tool.py",
            ".venv/x.py",
            ".noria/x.py",
            "node_modules/x.py",
            "conda/conda-meta/x",
        ],
        "",
    )
    root = write({**files, "conda/y.py": "", "steps.py": "import venv, node_modules.x, conda.y\neval('1')"})
    assert names(ProjectCode(root).of("steps")) == ["steps.py"]


def test_a_folder_without_init_does_not_stand_before_a_package(write: Write) -> None:
    root = write(
        {"steps.py": "import email.nothing, rich.nothing", "email/nothing.py": "", "rich/nothing.py": ""}
    )
    assert names(ProjectCode(root).of("steps")) == ["steps.py"]
    write({"rich/__init__.py": ""})
    assert names(ProjectCode(root).of("steps")) == ["rich/__init__.py", "rich/nothing.py", "steps.py"]


def test_cycles_end(write: Write) -> None:
    files = {
        "steps.py": "from b import *\nimport c",
        "b.py": "from steps import *\nimport steps\nc.x",
        "c.py": "import b",
    }
    assert reached(write, files) == ["b.py", "c.py", "steps.py"]


@pytest.mark.parametrize(
    "text",
    [
        "# a note\nlimit = 3\n\n\ndef f(x):\n  # another\n  return (x +\n    limit)  # at the end\n",
        "limit=3\ndef f(x,):\n        return x + \\\n limit;",
        "\ufefflimit = 3\r\ndef f(x):\r\n    return x + limit\r\n",
        "limit = 0x3\ndef f(x): return (x + limit)",
    ],
)
def test_comments_and_layout_do_not_count(write: Write, text: str) -> None:
    root = write({"steps.py": "limit = 3\ndef f(x):\n    return x + limit\n"})
    before = ProjectCode(root).of("steps")
    write({"steps.py": text})
    assert ProjectCode(root).of("steps") == before


@pytest.mark.parametrize(
    "text",
    [
        "limit = 3.0\ndef f(x):\n    return x + limit\n",
        "limit = 3\ndef f(x):\n    'Add.'\n    return x + limit\n",
        "limit = 3\ndef f(x: int):\n    return x + limit\n",
        "limit = 3\nasync def f(x):\n    return x + limit\n",
        "limit = 3\ndef f(x):\n    return limit + x\n",
        "limit = 3\ndef f(*x):\n    return x + limit\n",
        "limit = 3\ndef f(x):\n    (return_) = x + limit\n",
    ],
)
def test_what_is_said_counts(write: Write, text: str) -> None:
    root = write({"steps.py": "limit = 3\ndef f(x):\n    return x + limit\n"})
    before = ProjectCode(root).of("steps")
    write({"steps.py": text})
    assert ProjectCode(root).of("steps").digest != before.digest


Nested = st.recursive(
    st.just("a"), lambda each: st.lists(each, max_size=3).map(lambda of: f"[{', '.join(of)}]")
)


@given(Nested, Nested)
def test_sources_say_the_same_where_their_trees_are_equal(one: str, other: str) -> None:
    trees = [ast.dump(ast.parse(each)) for each in (one, other)]
    digests = [read_python(each.encode()).digest for each in (one, other)]
    assert (digests[0] == digests[1]) == (trees[0] == trees[1])
    assert read_python(b"[a, [b], c]").digest != read_python(b"[a, [b, c]]").digest


def test_encodings_are_honoured(write: Write) -> None:
    root = write({"steps.py": "# -*- coding: latin-1 -*-\nname = 'é'".encode("latin-1")})
    before = ProjectCode(root).of("steps")
    write({"steps.py": "name = 'é'"})
    assert ProjectCode(root).of("steps") == before


def test_huge_and_deep_sources_are_read(write: Write) -> None:
    root = write({"steps.py": f"x = 0x{'f' * 9000}\ny = {' + '.join(['x'] * 900)}\nz = '\\ud800\\d'\n"})
    assert names(ProjectCode(root).of("steps")) == ["steps.py"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\ndef", "deep.py, line 2: invalid syntax"),
        (b"x = '\xff'", "deep.py, line 1: "),
        ("x\0", "deep.py, line 1: "),
    ],
)
def test_a_module_that_does_not_parse_is_named_with_its_line(write: Write, text: str, told: str) -> None:
    root = write({"steps.py": "import deep", "deep.py": text})
    with pytest.raises(ConfigError, match=told):
        ProjectCode(root).of("steps")


def test_an_unknown_module_is_refused(write: Write, tmp_path: Path) -> None:
    code = ProjectCode(write({"steps.py": ""}))
    with pytest.raises(ConfigError, match="no module 'stepz'"):
        code.of("stepz")
    with pytest.raises(ConfigError, match="lies in no file"):
        code.of("__main__", file=Path("<stdin>"))


def test_a_step_that_is_installed_has_no_code_of_the_project(write: Write) -> None:
    found = ProjectCode(write({"x.py": ""})).of("pytest", file=Path(pytest.__file__))
    assert names(found) == []


def test_a_module_elsewhere_counts_with_what_lies_beside_it(write: Write, tmp_path: Path) -> None:
    place, root = tmp_path / "elsewhere", tmp_path / "project"
    write(
        {
            "pack/__init__.py": "",
            "pack/steps.py": "from . import near\nimport beside, ours",
            "pack/near.py": "",
        },
        place,
    )
    write({"beside.py": "", "unused.py": ""}, place)
    write({"ours.py": ""}, root)
    code = ProjectCode(root)
    found = code.of("pack.steps", file=place / "pack/steps.py")
    assert names(found) == ["beside", "ours.py", "pack", "pack.near", "pack.steps"]
    assert code.text("pack.steps").startswith(b"from . import near")


def test_a_module_elsewhere_that_runs_unseen_code_takes_its_package_too(write: Write, tmp_path: Path) -> None:
    place, root = tmp_path / "elsewhere", write({"ours.py": ""}, tmp_path / "project")
    write({"pack/__init__.py": "", "pack/steps.py": "eval('1')", "pack/near.py": "", "beside.py": ""}, place)
    write({"script.py": "exec('')"}, place)
    pack, script = (place / each for each in ("pack/steps.py", "script.py"))
    assert names(ProjectCode(root).of("pack.steps", file=pack)) == [
        "ours.py",
        "pack",
        "pack.near",
        "pack.steps",
    ]
    assert names(ProjectCode(root).of("script", file=script)) == ["beside", "ours.py", "script"]


def test_what_is_on_the_import_path_and_not_installed_counts(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, root = tmp_path / "shared", tmp_path / "project"
    write(
        {"our_library/__init__.py": "from . import part", "our_library/part.py": "", "spaced/inner.py": ""},
        place,
    )
    write({"spaced/own.py": "", "steps.py": "import our_library, spaced.inner, spaced.own"}, root)
    monkeypatch.syspath_prepend(place)
    wanted = ["our_library", "our_library.part", "spaced.inner", "spaced/own.py", "steps.py"]
    assert names(ProjectCode(root).of("steps")) == wanted
    (place / "any-1.0.dist-info").mkdir()
    assert "our_library" not in names(ProjectCode(root).of("steps"))


def test_a_script_sees_its_folder_and_its_package(write: Write) -> None:
    files = {"tools/run.py": "from . import near\nimport beside", "tools/near.py": "", "tools/beside.py": ""}
    found = ProjectCode(write(files)).of("__main__", file=write({}) / "tools/run.py")
    assert names(found) == ["tools/beside.py", "tools/near.py", "tools/run.py"]


def test_sources_in_a_folder_of_their_own_are_found_from_where_they_were_loaded(write: Write) -> None:
    root = write(
        {"src/pack/__init__.py": "", "src/pack/steps.py": "import pack.near, top", "src/pack/near.py": ""}
    )
    write({"src/top.py": "", "top.py": ""})
    found = ProjectCode(root).of("pack.steps", file=root / "src/pack/steps.py")
    assert names(found) == [
        "src/pack/__init__.py",
        "src/pack/near.py",
        "src/pack/steps.py",
        "src/top.py",
        "top.py",
    ]


def test_links_are_followed(write: Write, tmp_path: Path) -> None:
    root = write({"steps.py": "import linked, pack.part"}, tmp_path / "project")
    write({"linked.py": "", "real/__init__.py": "", "real/part.py": ""}, tmp_path)
    (root / "linked.py").symlink_to(tmp_path / "linked.py")
    (root / "pack").symlink_to(tmp_path / "real")
    (root / "gone.py").symlink_to(tmp_path / "gone.py")
    (root / "itself.py").symlink_to("itself.py")
    wanted = ["linked.py", "pack/__init__.py", "pack/part.py", "steps.py"]
    assert names(ProjectCode(root).of("steps")) == wanted
    (tmp_path / "by_link").symlink_to(root)
    assert ProjectCode(tmp_path / "by_link").of("steps", file=root / "steps.py") == ProjectCode(root).of(
        "steps"
    )


def test_files_are_read_once(write: Write) -> None:
    root = write({"steps.py": "import deep", "deep.py": "x = 1", "conf.json": "{}"})
    code = ProjectCode(root)
    before = code.of("steps", declared=["conf.json"])
    write({"deep.py": "x = 2", "conf.json": "[]"})
    assert code.of("deep").files == {"deep.py": before.files["deep.py"]}
    assert code.of("deep", declared=["conf.json"]).files["conf.json"] == before.files["conf.json"]
    assert (code.text("deep.py"), code.text("conf.json")) == (b"x = 1", b"{}")
    assert ProjectCode(root).of("steps").digest != before.digest


def test_a_large_file_that_changes_in_between_is_refused(write: Write) -> None:
    root = write({"steps.py": "", "large.bin": b"\0" * 2_000_000})
    code = ProjectCode(root)
    code.of("steps", declared=["large.bin"])
    assert len(code.text("large.bin")) == 2_000_000
    write({"large.bin": b"\1" * 2_000_000})
    with pytest.raises(SourceError, match="was changed while"):
        code.text("large.bin")


def test_texts_are_given_for_names_of_steps_only(write: Write) -> None:
    code = ProjectCode(write({"steps.py": "", "other.py": ""}))
    code.of("steps")
    assert (code.text("steps.py"), len(code.source_digest("steps.py"))) == (b"", 64)
    with pytest.raises(NotFound):
        code.text("other.py")


def test_steps_of_the_same_module_share_their_code(write: Write) -> None:
    code = ProjectCode(write({"steps.py": "", "a.txt": ""}))
    assert code.of("steps") is code.of("steps")
    assert code.of("steps", declared=["a.txt"]) is code.of("steps", declared=("a.txt",))
