import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from tests.cli.conftest import Said
from tests.workspace.light_models import NUMBERS, trees

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_model_file_answers_what_the_screen_says_until_it_is_stopped(
    say: Callable[..., Said], tmp_path: Path
) -> None:
    trees().booster_.save_model(tmp_path / "trees.txt")
    command = [sys.executable, "-u", "-m", "noria", "light", "trees.txt", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    told = ""
    for line in server.stdout:
        told += line
        if line.startswith("Ctrl-C"):
            break
    assert "trees:1 answers at http://127.0.0.1:" in told
    assert "It reads 2 columns\ncolumn  takes   such as\na       number" in told
    _, _, url, _, body = shlex.split(next(line for line in told.splitlines() if line.startswith("curl ")))
    with urlopen(Request(url, body.encode()), timeout=20) as answer:
        found = json.load(answer)
    row = NUMBERS[:1] * 0 + list(json.loads(body).values())
    assert found["score"] == trees().booster_.predict(row)[0]
    server.send_signal(signal.SIGINT)
    _, ended = server.communicate(timeout=30)
    assert (server.returncode, ended) == (
        130,
        "trees stopped; `noria light log trees` shows what it answered\n",
    )
    folder = tmp_path / ".noria-light"
    listed = say("light", "list", "--folder", folder)
    assert "trees  trees:1         1  stopped               1" in listed.out
    logged = json.loads(say("light", "log", "--folder", folder, "--json").out)
    assert [(each["prediction_id"], each["score"]) for each in logged] == [
        (found["prediction_id"], found["score"])
    ]
    shown = say("light", "log", "trees", "--folder", folder).out.splitlines()
    assert shown[0].split() == ["at", "prediction", "model", "inputs", "gave", "us"]
    assert found["prediction_id"] in shown[1]
    assert "trees:1" in shown[1]


def test_what_is_no_model_ends_with_an_error(say: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("1 2 3\n")
    for argument, code in ((tmp_path / "notes.txt", 2), (tmp_path / "gone.txt", 4)):
        said = say("light", argument, "--json")
        assert json.loads(said.err)["error"]["exit_code"] == said.code
        assert (said.code, said.out) == (code, "")
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]  # nothing was left behind
    assert "no service named 'nobody'" in say("light", "log", "nobody", "--folder", tmp_path).err
    assert "There is none in" in say("light", "list", "--folder", tmp_path).out
