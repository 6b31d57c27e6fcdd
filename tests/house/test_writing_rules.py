"""How noria is written, where a tool can tell: the environment, wide excepts, sizes, domain words."""

import ast
import re
from collections.abc import Iterator

from tests.house.conftest import ROOT, SOURCE, functions, short, source_files, tree_of

MAX_LINES = 500
# Who touches the environment besides config.py, and why that is no setting of noria.
ENVIRONMENT = {
    "clock.py": "takes out a variable by which pyarrow would drop offsets",
    "config.py": "the settings",
    "ledger/code.py": "hands git the environment without GIT_*, which would name another repository",
    "pipelines/surroundings.py": "puts back what a step has changed in it, for the step that comes after",
    "workspace/restoring.py": "hands git the environment without GIT_*, which would name another repository",
    "serving/__main__.py": "sets OPENBLAS_NUM_THREADS, which numpy's library reads when it is loaded",
}
# Who catches everything without raising the same again.
OUTERMOST = {
    ("cli/entry.py", "main"): "the process: what reaches it is told, with its exit code",
    ("api/mlflow/application.py", "__call__"): "a request: it gets a 500 that clients know, the others go on",
    ("api/mlflow/together.py", "_answers"): "several requests: each is tried alone, and told of its own",
    ("serving/http/app.py", "__call__"): "a request: it gets a 500, the others go on",
    ("pipelines/work.py", "perform"): "a step: what goes wrong in it is its answer, the run goes on",
    ("training/statistics.py", "record_statistics"): "what goes wrong in them is an event; the model stands",
    ("training/explanations.py", "record_explanation"): "what goes wrong is an event; the model stands",
    ("workspace/features/registering.py", "measure_view"): "what goes wrong is an event; the view is used",
    ("training/autologging/guarding.py", "guarded"): "logging by itself: a training goes on, a warning tells",
    ("features/code_bundle.py", "_function"): "code that came with a model: what its import raises is told",
    ("features/code_bundle.py", "import_kept"): "code that came with a model: what its import raises is told",
    ("serving/http/answering.py", "begin"): "a request for predictions: it gets a 500, the others go on",
    ("serving/http/answering.py", "_answered"): "a request for predictions: it gets a 500, the others go on",
    ("serving/batching.py", "_answer"): "several requests: each is tried alone, and gets a 500 of its own",
    ("serving/batching.py", "_tell"): "an answer: the loop tells of it, the others leave",
    ("serving/features/patience.py", "_work"): "a call of a store: raised where it is waited for",
    (
        "serving/process/control.py",
        "answer_calls",
    ): "a call of the supervisor: it is told, the worker goes on",
    ("serving/formats/user_code.py", "called"): "a model's own code: what it raises is told, without data",
    ("features/on_demand_values.py", "_fill"): "a user's function: rows for which it fails are missing, told",
    ("cli/replay.py", "_live_through"): "after Ctrl-C whatever an engine made of it is a KeyboardInterrupt",
}
# Words of the demo's data. Docstrings and comments may use them as examples; code may not.
DOMAIN = re.compile(
    r"flight|airline|airport|carrier|tail_?num|nycflights|weather|depart(ed|ure)|arr_(time|delay)|dep_(time|delay)"
    r"|landings|faa\b",
    re.IGNORECASE,
)
# The demo command tells what it shows, and names its template and its project.
DOMAIN_ALLOWED = {
    ("cli/commands.py", "Live through a year of real flights, loop closed."),
    ("cli/replay.py", "flights"),
    ("cli/replay.py", "flights-demo"),
}


def test_only_config_reads_the_environment() -> None:
    found = {short(path) for path in source_files() if any(_touches_environment(tree_of(path)))}
    assert found == set(ENVIRONMENT)


def _touches_environment(tree: ast.Module) -> Iterator[bool]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "putenv"):
                yield True
            case ast.ImportFrom(module="os", names=names):
                yield any(each.name in {"environ", "environb", "getenv", "putenv"} for each in names)
            case _:
                yield False


def test_wide_excepts_are_outermost_or_raise_again() -> None:
    found = {
        (short(path), function)
        for path in source_files()
        for function, node in functions(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and _is_wide(node.type) and not _raises_again(node)
    }
    assert found == set(OUTERMOST)


def _is_wide(caught: ast.expr | None) -> bool:
    match caught:
        case None | ast.Name(id="Exception" | "BaseException"):
            return True
        case ast.Tuple(elts=each):
            return any(map(_is_wide, each))
    return False


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_no_file_is_longer_than_500_lines() -> None:
    files = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    lengths = {each.relative_to(ROOT).as_posix(): len(each.read_text().splitlines()) for each in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_there_are_no_drawers_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}
    assert [short(each) for each in source_files() if drawers & {each.stem, each.parent.name}] == []


def test_the_library_knows_nothing_of_flights() -> None:
    found = {
        (short(path), said) for path in source_files() for said in _said(tree_of(path)) if DOMAIN.search(said)
    }
    assert found == DOMAIN_ALLOWED


def _said(tree: ast.Module) -> Iterator[str]:
    """Give identifiers, and texts that are no docstrings."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield from (name, other or "")
            case ast.keyword(arg=str(name)):
                yield name
            case ast.Constant(value=str(text)) if id(node) not in documents:
                yield text
