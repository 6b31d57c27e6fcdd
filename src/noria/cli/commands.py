"""Every command: its words, where it is written, and one line about it. Importing this loads nothing else."""

import textwrap
from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "overview"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Parameters
    ----------
    words
        What is typed after `noria`: `run list`.
    arguments
        What usually follows, as the overview shows it.
    target
        The function: `module:name`.
    about
        One line.
    part
        The heading under which the overview lists it.
    """

    words: str
    arguments: str
    target: str
    about: str
    part: str

    @property
    def name(self) -> str:
        """The last word."""
        return self.words.rpartition(" ")[2]

    @property
    def noun(self) -> str | None:
        """The first of two words: `run` of `run list`."""
        return self.words.rpartition(" ")[0] or None


_BEGIN, _SEE, _EXPLAIN, _ACT = "Begin", "See what is there", "Ask why", "Act"

COMMANDS = (
    Command("demo", "[DIR]", "noria.cli.replay:demo", "Live through a year of real flights, loop closed.", _BEGIN),
    Command("init", "DIR", "noria.cli.workspace:init", "Make a project that runs.", _BEGIN),
    Command("doctor", "", "noria.cli.workspace:doctor", "Look machine and project over; say what to do.", _BEGIN),
    Command("status", "", "noria.cli.workspace:status", "Tell where the project stands.", _SEE),
    Command("run list", "", "noria.cli.tracking:list_runs", "List what ran, newest first.", _SEE),
    Command("run show", "RUN", "noria.cli.tracking:show_run", "Show a run: inputs, outputs, metrics, cost.", _SEE),
    Command("model list", "", "noria.cli.registry:list_models", "List model versions and where they stand.", _SEE),
    Command("model show", "MODEL", "noria.cli.registry:show_model", "Show a model version and its gates.", _SEE),
    Command("query", "SQL", "noria.cli.warehouse:query", "Answer one SELECT over every table.", _SEE),
    Command(
        "trace", "PREDICTION_ID", "noria.cli.audit:trace", "Trace a prediction to its raw rows and its money.", _EXPLAIN
    ),
    Command(
        "why", "MODEL@ENVIRONMENT", "noria.cli.audit:why", "Tell what put a model where it is.", _EXPLAIN
    ),
    Command("ledger verify", "", "noria.cli.ledger:verify", "Prove that no record was changed.", _EXPLAIN),
    Command("replay", "", "noria.cli.replay:replay", "Live through a replay that the project declares.", _ACT),
    Command("serve", "[MODEL@ENVIRONMENT]", "noria.cli.serving:serve", "Answer requests over HTTP.", _ACT),
    Command("rollback", "MODEL@ENVIRONMENT", "noria.cli.deploy:rollback", "Go back to the last stable route.", _ACT),
)  # fmt: skip

_HEAD = """\
noria: the whole MLOps loop in one library.

Usage: noria COMMAND [ARGUMENTS] [OPTIONS]
"""
_TAIL = """\
Every command takes
  --project DIR  the project's folder; default: the current one, or one above it
  --json         the answer as JSON (demo and replay: --json FILE)
  --debug        where an error came from
  --help         what else it takes

Begin with `noria demo`, or with `noria init DIR`.
"""
_COLUMN = 28


def overview() -> str:
    """Give the screen of `noria --help`."""
    parts = dict.fromkeys(each.part for each in COMMANDS)
    blocks = [_HEAD]
    for part in parts:
        lines = [_line(each) for each in COMMANDS if each.part == part]
        blocks.append("\n".join([part, *lines]) + "\n")
    return "\n".join([*blocks, _TAIL])


def _line(command: Command) -> str:
    typed = f"  {command.words} {command.arguments}".rstrip()
    about = textwrap.wrap(command.about, 80 - _COLUMN - 2)
    first, *more = about if len(typed) <= _COLUMN else ["", *about]
    lines = [f"{typed:<{_COLUMN}}  {first}".rstrip(), *(" " * (_COLUMN + 2) + each for each in more)]
    return "\n".join(lines)
