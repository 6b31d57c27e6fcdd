"""What a run uses of the machine, measured every ten seconds: from /proc, and of GPUs by nvidia-smi.

Where there is no /proc, memory and CPU of the process are all.
"""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from noria.errors import Conflict, StoreError

__all__ = ["GpuReader", "SystemMetrics", "SystemReader", "gpu_metrics"]

_EVERY_S = 10.0
_PROC = Path("/proc")
_GPU_FIELDS = ("utilization.gpu", "memory.used", "memory.total", "power.draw")
_MIB = 1 << 20


class SystemMetrics:
    """Measures in a thread, from ten seconds after it was made until `stop`."""

    def __init__(self, log: Callable[[Mapping[str, float]], None], *, every_s: float | None = None) -> None:
        self._log, self._every_s = log, _EVERY_S if every_s is None else every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Measure no more."""
        self._ended.set()

    def join(self) -> None:
        """Wait until the last measure is over."""
        self._thread.join()

    def _work(self) -> None:
        reader, gpus = SystemReader(), None
        while not self._ended.wait(self._every_s):
            if gpus is None:  # only for runs that last
                gpus = GpuReader(every_s=self._every_s)
            try:
                self._log({**reader.read(), **gpus.read()})
            except (Conflict, StoreError):
                break  # the run has ended, or meets the same trouble itself and says so
        if gpus is not None:
            gpus.close()


class SystemReader:
    """Reads what this process and the machine used since the last time.

    CPU of the process in cores, all else of the machine as a share of 0 to 1, in bytes, or in bytes a second.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._before = (time.monotonic(), dict(self._counts()))

    def read(self) -> dict[str, float]:
        """Give the metrics by name."""
        now, counts = time.monotonic(), dict(self._counts())
        then, before = self._before
        self._before = now, counts
        seconds = max(now - then, 1e-6)
        found = dict(self._levels())
        for name, count in counts.items():
            if name in before and name not in {"idle", "ticks"}:
                found[f"system/{name}"] = max(count - before[name], 0.0) / seconds
        ticks = counts.get("ticks", 0.0) - before.get("ticks", 0.0)
        if ticks > 0:
            idle = counts["idle"] - before["idle"]
            found["system/cpu_share"] = min(max(1.0 - idle / ticks, 0.0), 1.0)
        return found

    def _counts(self) -> Iterator[tuple[str, float]]:
        """Give what only grows."""
        times = os.times()
        yield "process_cpu_cores", times.user + times.system + times.children_user + times.children_system
        with suppress(OSError, ValueError, IndexError):
            ticks = [float(each) for each in self._text("stat").split("\n", 1)[0].split()[1:9]]
            yield "ticks", sum(ticks)
            yield "idle", ticks[3] + ticks[4]  # waiting for the disk is idle
        with suppress(OSError, ValueError, KeyError):
            fields = dict(_pairs(self._text("self/io")))
            yield "process_read_bytes_per_s", fields["read_bytes"]
            yield "process_written_bytes_per_s", fields["write_bytes"]
        with suppress(OSError, ValueError, IndexError):
            devices = [line.split(":", 1) for line in self._text("net/dev").splitlines()[2:]]
            traffic = [each.split() for name, each in devices if name.strip() != "lo"]
            yield "network_received_bytes_per_s", sum(float(each[0]) for each in traffic)
            yield "network_sent_bytes_per_s", sum(float(each[8]) for each in traffic)

    def _levels(self) -> Iterator[tuple[str, float]]:
        """Give what goes up and down."""
        with suppress(OSError, ValueError, KeyError):
            fields = dict(_pairs(self._text("meminfo")))
            yield "system/memory_share", 1.0 - fields["MemAvailable"] / fields["MemTotal"]
        try:
            pages = float(self._text("self/statm").split()[1])
            yield "system/process_memory_bytes", pages * resource.getpagesize()
        except (OSError, ValueError, IndexError):
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            yield "system/process_peak_memory_bytes", float(most * (1 if sys.platform == "darwin" else 1_024))
        with suppress(OSError):
            disk = shutil.disk_usage(Path.cwd())
            yield "system/disk_share", disk.used / disk.total

    def _text(self, path: str) -> str:
        return (self._proc / path).read_text(encoding="utf-8")


class GpuReader:
    """Follows `nvidia-smi`, one process for the whole run; nothing where there is none.

    Parameters
    ----------
    program
        Which; for tests.
    """

    def __init__(self, program: str = "nvidia-smi", *, every_s: float = _EVERY_S) -> None:
        self._lines: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        command = [
            program,
            f"--query-gpu=index,{','.join(_GPU_FIELDS)}",
            "--format=csv,noheader,nounits",
            f"--loop-ms={max(int(every_s * 1_000), 100)}",
        ]
        if shutil.which(program) is None:
            return
        try:
            ours, its = os.openpty()  # into a terminal it writes line by line, whatever it does with a pipe
        except OSError:
            return
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=its, stderr=subprocess.DEVNULL
            )
        except OSError:
            os.close(ours)
            return
        finally:
            os.close(its)
        lines = os.fdopen(ours, encoding="utf-8", errors="replace")
        threading.Thread(target=self._follow, args=(lines,), name="nvidia-smi", daemon=True).start()

    def read(self) -> dict[str, float]:
        """Give the newest figures of each GPU."""
        found: dict[str, float] = {}
        for line in [*self._lines.values()]:
            found.update(gpu_metrics(line))
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _follow(self, lines: IO[str]) -> None:
        with lines, suppress(OSError):  # that is how a terminal tells that nobody writes any more
            for line in lines:
                index = line.partition(",")[0].strip()
                if index.isdecimal():
                    self._lines[int(index)] = line


def gpu_metrics(line: str) -> dict[str, float]:
    """Read a line of `nvidia-smi`; what it does not know is left out.

    Examples
    --------
    >>> gpu_metrics("0, 50, 1024, 4096, [N/A]")
    {'system/gpu0_share': 0.5, 'system/gpu0_memory_share': 0.25, 'system/gpu0_memory_bytes': 1073741824.0}
    """
    index, *texts = (each.strip() for each in line.split(","))
    values: dict[str, float] = {}
    for name, text in zip(_GPU_FIELDS, texts, strict=False):
        with suppress(ValueError):
            values[name] = float(text)
    found: dict[str, float] = {}
    if "utilization.gpu" in values:
        found[f"system/gpu{index}_share"] = values["utilization.gpu"] / 100
    if "memory.used" in values:
        if values.get("memory.total"):
            found[f"system/gpu{index}_memory_share"] = values["memory.used"] / values["memory.total"]
        found[f"system/gpu{index}_memory_bytes"] = values["memory.used"] * _MIB
    if "power.draw" in values:
        found[f"system/gpu{index}_power_w"] = values["power.draw"]
    return found


def _pairs(text: str) -> Iterator[tuple[str, float]]:
    """Give the fields of lines such as `MemTotal: 12 kB`."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            yield name, float(number[0])
