"""What a run uses of the machine."""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import noria
from noria.errors import Conflict
from noria.tracking.system_metrics import GpuReader, SystemMetrics, SystemReader


def test_shares_lie_between_0_and_1_and_work_shows() -> None:
    reader = SystemReader()
    ends = time.process_time() + 0.3
    while time.process_time() < ends:
        pass
    found = reader.read()
    assert 0.05 < found["system/process_cpu_cores"] < 1.5
    shares = {name: value for name, value in found.items() if name.endswith("_share")}
    assert {"system/cpu_share", "system/memory_share", "system/disk_share"} <= shares.keys()
    assert all(0 <= value <= 1 for value in shares.values())
    assert found["system/process_memory_bytes"] > 10 << 20
    assert all(value >= 0 for value in found.values())


def test_without_proc_there_is_what_every_system_tells(tmp_path: Path) -> None:
    found = SystemReader(tmp_path).read()
    assert found["system/process_peak_memory_bytes"] > 10 << 20
    assert "system/cpu_share" not in found


def test_a_gpu_is_followed(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!{sys.executable}\n"
        + """import time
print("0, 50, 1024, 2048, 99.5\\n1, [N/A], 0, 2048, [N/A]")  # into a pipe it would be held back
time.sleep(60)
"""
    )
    program.chmod(0o755)
    reader = GpuReader(str(program))
    ends = time.monotonic() + 10
    while "system/gpu1_memory_bytes" not in reader.read() and time.monotonic() < ends:
        time.sleep(0.01)
    assert reader.read() == {
        "system/gpu0_share": 0.5,
        "system/gpu0_memory_share": 0.5,
        "system/gpu0_memory_bytes": 1 << 30,
        "system/gpu0_power_w": 99.5,
        "system/gpu1_memory_share": 0.0,
        "system/gpu1_memory_bytes": 0.0,
    }
    reader.close()


def test_without_a_gpu_there_is_nothing() -> None:
    reader = GpuReader("no-such-program")
    assert reader.read() == {}
    reader.close()


def test_measuring_ends_with_the_run() -> None:
    told, enough = [], threading.Event()

    def log(metrics: Mapping[str, float]) -> None:
        told.append(metrics)
        if len(told) == 3:
            enough.set()
            raise Conflict("the run has ended")

    metrics = SystemMetrics(log, every_s=0.01)
    assert enough.wait(10)
    metrics.stop()
    metrics.join()
    assert len(told) == 3


def test_a_run_that_lasts_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.tracking.system_metrics._EVERY_S", 0.05)
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    with noria.start_run(project=tmp_path) as run:
        ends = time.monotonic() + 10
        while "system/memory_share" not in run.metrics and time.monotonic() < ends:
            time.sleep(0.01)
    assert 0 < run.run.metrics["system/memory_share"] < 1
