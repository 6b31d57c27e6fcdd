"""What happens when somebody types `noria`: find the command, run it, tell of errors, end with its code.

`noria --help` and `noria --version` are answered from here, without loading anything.
"""

import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from noria.cli.commands import overview
from noria.cli.interrupts import Interrupts
from noria.config import is_debugging
from noria.errors import NoriaError

if TYPE_CHECKING:
    from cyclopts import CycloptsError

__all__ = ["main", "run"]

EXIT_USAGE = 2
EXIT_BUG = 70  # EX_SOFTWARE of sysexits(3)
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
_OBJECTS_PER_COLLECTION = 10_000  # loading makes hundreds of thousands, and hardly one is garbage
_HELP = {"--help", "-h", "help"}
_FAULT = (
    "This is a fault of noria, or of code that your project runs. What was recorded is safe, and the same "
    "command may be run again. `--debug` shows where it came from: please report that."
)
_PROGRESS = ("demo", "replay")  # their --json names a file: the screen stays for people


def run() -> NoReturn:
    """Run the command of this process and end the process with its code.

    All stores are closed by then, so the interpreter is spared its own tidying up, which would take longer
    than many a command.
    """
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    code = main()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, and give the code to end with.

    Parameters
    ----------
    arguments
        Default: those of the process.

    Returns
    -------
    int
        0, or the `exit_code` of the error; 2 for a command or option that does not exist, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # some terminals have fewer characters than we use
    words = _command_first(sys.argv[1:] if arguments is None else arguments)
    debug = is_debugging() or "--debug" in words
    interrupts = Interrupts()
    try:
        with interrupts:
            code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        return _tell(words, stop, str(stop) or "stopped", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _silence()
        return EXIT_PIPE
    except Exception as error:
        if interrupts.came:
            return _tell(words, KeyboardInterrupt(), "stopped", EXIT_INTERRUPTED)
        if isinstance(error, NoriaError) and not debug:
            return _tell(words, error, str(error), error.exit_code)
        if debug:
            raise
        return _tell(words, error, f"unexpected {type(error).__name__}: {error}\n{_FAULT}", EXIT_BUG)
    return code


def _command_first(arguments: Sequence[str]) -> list[str]:
    """Move options before the command behind it: `noria --project DIR status` is understood as well."""
    words = list(arguments)
    options: list[str] = []
    while words and words[0].split("=")[0] in {"--debug", "--json", "--project"}:
        with_value = words[0] == "--project" and len(words) > 1
        options += words[: 1 + with_value]
        del words[: 1 + with_value]
    return [*words, *options]


def _run(words: list[str]) -> int:
    if not words or words[0] in _HELP:
        print(overview(), end="")
        return 0
    if words[0] == "--version":
        from noria import __version__

        print(f"noria {__version__}")
        return 0
    from cyclopts import CycloptsError

    from noria.cli.application import application

    try:
        code = application()(words)
    except CycloptsError as error:
        return _tell(words, error, _explain(words, error), EXIT_USAGE)
    return code if isinstance(code, int) else 0


def _explain(words: Sequence[str], error: "CycloptsError") -> str:
    """Say what is wrong with what was typed, and where to read on."""
    from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

    error.verbose = False
    command = " ".join(("noria", *(error.command_chain or ())))
    match error:
        case MissingArgumentError(argument=argument) if argument is not None and not error.tokens_so_far:
            is_typed = any(each.partition("=")[0] in argument.names for each in words)
            told = f"{argument.name} needs a value." if is_typed else f"`{command}` needs {argument.name}."
        case UnusedCliTokensError(unused_tokens=[first, *_]):
            told = f"{first!r} is one argument too many."
        case _:
            told = str(error)
    return told if "Did you mean" in told else f"{told} See `{command} --help`."


def _tell(words: Sequence[str], error: BaseException, message: str, code: int) -> int:
    """Tell of an error: a line for people, or JSON where JSON was asked for."""
    notes = getattr(error, "__notes__", [])
    if "--json" in words and words[0] not in _PROGRESS:
        import msgspec

        told: dict[str, object] = {"kind": type(error).__name__, "message": message, "exit_code": code}
        if notes:
            told["notes"] = notes
        text = msgspec.json.encode({"error": told}).decode()
    else:
        text = message if isinstance(error, KeyboardInterrupt) else f"error: {message}"
        text = "\n".join([text, *notes])
    print(text, file=sys.stderr)
    return code


def _silence() -> None:
    """Let nothing more be written to a pipe that nobody reads, at the end of the process neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
