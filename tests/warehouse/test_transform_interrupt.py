"""Ctrl-C ends a transform in the middle of a long model, and the next one goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import noria

FOREVER = """
select max(n) as n from (
  with recursive r as (select 1::bigint as n union all select n + 1 from r where n < 3000000000)
  select n from r)
"""


def test_ctrl_c_ends_a_long_model_and_the_next_transform_goes_on(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "slow"\n')
    models = tmp_path / "models"
    models.mkdir()
    (models / "a_short.sql").write_text("select 1 as one")
    (models / "b_long.sql").write_text(FOREVER)
    command = [sys.executable, "-m", "noria", "transform", "--project", str(tmp_path)]
    at_work = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ends = time.monotonic() + 60
    with noria.open(tmp_path) as project:
        while not [each for each in project.ledger.list_runs(kind="transform") if "b_long" in each.name]:
            assert time.monotonic() < ends, "the long model did not begin"
            assert at_work.poll() is None, at_work.communicate()
            time.sleep(0.1)
        time.sleep(1.0)
        os.kill(at_work.pid, signal.SIGINT)
        _, told = at_work.communicate(timeout=30)
        assert at_work.returncode == 130, told
        assert "Traceback" not in told
        assert project.query("select one from a_short")["one"].to_pylist() == [1]
    (models / "b_long.sql").write_text("select 7::bigint as n")
    with noria.open(tmp_path) as project:
        states = {each.model: each.state for each in project.transform().models}
        assert states == {"a_short": "unchanged", "b_long": "built"}
        assert [each for each in project.ledger.list_runs() if each.state == "running"] == []
