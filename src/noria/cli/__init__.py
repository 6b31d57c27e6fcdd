"""The command line: `noria COMMAND`. It does nothing that Python cannot: `noria.open` gives the verbs."""

from noria.cli.entry import main, run

__all__ = ["main", "run"]
