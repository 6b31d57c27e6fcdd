"""Where the peers live: an environment each below `.bench-peers`, made by `uv` from the pins beside this."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

__all__ = ["NotMeasured", "Taken", "environment", "measure", "printed", "python_of"]

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_HOMES = _ROOT / ".bench-peers"
_LIMIT_S = 600
_SILENT = {  # nobody is told that they ran here
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "METAFLOW_DEFAULT_EVENT_LOGGER": "nullSidecarLogger",
    "METAFLOW_DEFAULT_MONITOR": "nullSidecarMonitor",
    "FEAST_USAGE": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # it would report there that it is not to report
}
_PLAIN = {
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there: its processes speak over the loopback
    "USERNAME": "bench",  # Metaflow asks who runs it
}


class NotMeasured(RuntimeError):
    """A peer cannot be had, or does not run, here."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer's program printed: its version, and what a step costs it beside its fixed costs."""

    version: str
    cpu_ms: float
    wall_ms: float


def measure(peer: str, *arguments: str, folder: Path) -> Taken:
    """Run the program of `peer` in its own environment, with `folder` for all that it writes.

    Raises
    ------
    NotMeasured
        If the environment cannot be made, or the program fails.
    """
    return msgspec.json.decode(printed(peer, *arguments, folder=folder), type=Taken)


def printed(peer: str, *arguments: str, folder: Path) -> str:
    """Give the last line that the program of `peer` printed. Raises as `measure` does."""
    command = [str(python_of(peer)), "-m", f"bench.peers.run_{peer}", *arguments]
    home = folder / "-".join((peer, *(each.replace("/", "_") for each in arguments)))
    return _said(command, variables=environment(home)).splitlines()[-1]


def environment(home: Path) -> dict[str, str]:
    """Give what a peer is started with: all of its files below `home`, which is made, and nobody told."""
    home.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NORIA"))}
    homes = {
        "HOME": home,
        "PREFECT_HOME": home / "prefect",
        "DAGSTER_HOME": home,
        "METAFLOW_HOME": home / "metaflow",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": home,
    }
    # Without this file Ray asks the addresses of cloud providers which of them it is at.
    (home / "ray_bootstrap_config.yaml").write_text("provider:\n  type: local\n")
    return kept | _SILENT | _PLAIN | {name: str(path) for name, path in homes.items()}


def python_of(peer: str) -> Path:
    """Find or make the environment of `peer`; it is made anew when its pins or our Python change.

    Raises
    ------
    NotMeasured
        If it cannot be made.
    """
    pins, home = _HERE / f"{peer}.txt", _HOMES / peer
    python, stamp = home / "bin" / "python", home / "made-of"
    made_of = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != made_of:
        uv = shutil.which("uv") or str(_ROOT / ".venv-uv" / "bin" / "uv")
        print(f"making the environment of {peer}", file=sys.stderr)
        _said([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)])
        installing = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        _said([*installing, "--requirement", str(pins)])
        stamp.write_text(made_of)
    return python


def _said(command: list[str], *, variables: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise NotMeasured(f"{command[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"{' '.join(command)} took more than {_LIMIT_S} s") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout).strip().splitlines()[-1:]
        told = f"{' '.join(command)} ended with status {error.returncode}"
        raise NotMeasured(": ".join([told, *last])) from error
    return done.stdout
