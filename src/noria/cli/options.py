"""What every command takes, and how it opens the project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from noria.workspace.project import Project
from noria.workspace.project import open as open_project

__all__ = ["DEBUG", "DEFAULT", "JSON", "PROJECT", "Options"]

PROJECT = Parameter(
    name="--project", help="The project's folder. Default: the current one, or the nearest above."
)
DEBUG = Parameter(name="--debug", negative="", show_default=False, help="Show where an error came from.")

JSON = Parameter(name="--json", negative="", show_default=False, help="Give the answer as JSON.")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Options:
    """Where the project is, and how the answer is to look."""

    project: Annotated[Path | None, PROJECT] = None
    json: Annotated[bool, JSON] = False
    debug: Annotated[bool, DEBUG] = False  # read by `entry.main`, which sees every error

    def open(self) -> Project:
        """Open the project."""
        return open_project(self.project)


DEFAULT = Options()
