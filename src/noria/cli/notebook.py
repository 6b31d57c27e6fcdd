"""`noria notebook`."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["notebook"]

_KERNEL = "noria"
_EXTENSION = "noria.notebook"


def notebook(
    *,
    port: int = 8888,
    browser: Annotated[bool, Parameter(name="--browser")] = True,
    options: Options = DEFAULT,
) -> int:
    """Open JupyterLab in the project's folder, with `project` and `%%noria` at hand, until Ctrl-C.

    It listens on this machine alone, and its address holds a token. Needs the extra `notebook`.

    Parameters
    ----------
    port
        Where it listens; the next free one if it is taken.
    browser
        Open it in a browser; `--no-browser` prints the address.
    """
    if find_spec("jupyterlab") is None:
        raise ConfigError("a notebook needs the package jupyterlab; install noria[notebook]")
    with options.open() as project:
        kernels = write_kernel(project)
        root = project.root
    command = [
        "env",  # JupyterLab looks for kernels where this variable says, and takes no option for it
        f"JUPYTER_PATH={kernels.parent}",
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={root}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--MultiKernelManager.default_kernel_name={_KERNEL}",
        *(() if browser else ("--no-browser",)),
        *(("--allow-root",) if os.geteuid() == 0 else ()),
    ]
    process = subprocess.Popen(command, cwd=root)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()  # Ctrl-C has reached it as well, and it asks back; this is the answer
        process.wait()
        raise


def write_kernel(project: "Project") -> Path:
    """Write the kernel of this very Python, which opens this project, and give the folder of kernels."""
    kernels = project.state / "notebook" / "kernels"
    folder = kernels / _KERNEL
    folder.mkdir(parents=True, exist_ok=True)
    kernel = {
        "argv": [
            sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
            f"--IPKernelApp.extra_extensions={_EXTENSION}",
        ],
        "display_name": f"{project.name} (noria)",
        "language": "python",
        "env": {"NORIA_PROJECT": str(project.root)},
        "metadata": {"debugger": True},
    }  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(kernel, indent=2), encoding="utf-8")
    return kernels
