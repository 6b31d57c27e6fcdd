"""Everything noria raises on purpose.

Each error says what was found, what was wanted and what to do next, keeps its facts as attributes, and
inherits the builtin that callers expect. What ends a run is on record as that run's error: what to do next is
then a note (`BaseException.add_note`), which screens and tracebacks show and records do not.

::

    NoriaError
    ├── ConfigError (ValueError)          noria.toml or a declaration is wrong
    │   └── Unstorable                    a value can be no argument or result of a step
    ├── ProjectNotFound (LookupError)     no noria.toml here or above
    ├── NotFound (LookupError)            a named thing does not exist
    ├── Conflict (ValueError)             the same identity with other content
    ├── BadFilter (ValueError)            a filter, an order or a page of a search that is none
    ├── BadPath (ValueError)              a path that can name no artifact
    ├── SourceError (ValueError)          a source is gone, empty where it may not be, or malformed
    │   └── TooLarge                      it has more bytes than may be taken at once
    ├── BatchBlocked (ValueError)         a batch broke its contract beyond the limit; nothing was written
    ├── GateRefused (RuntimeError)        a version did not pass its gate
    ├── LeaseHeld (RuntimeError)          somebody else holds it
    ├── DigestMismatch (ValueError)       bytes are not what was recorded
    ├── LedgerCorrupt (ValueError)        the chain or a row does not verify
    ├── Unreadable (ValueError)           bytes are no value, or one of code that is gone
    ├── DeploymentError (RuntimeError)    a server did not come up or answer
    ├── PortInUse (OSError)               somebody else listens there
    ├── QueryStopped (RuntimeError)       a query took more time or memory than it may
    ├── StepFailed (RuntimeError)         a step of a pipeline failed for good
    ├── RunCancelled (RuntimeError)       a run was cancelled while it was at work
    └── StoreError (OSError)              a store cannot be read or written
        ├── DiskFull
        ├── StoreDamaged                  what is there is not what was written
        └── StoreMissing                  there is none where one was to be read
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BadFilter",
    "BadPath",
    "BatchBlocked",
    "ConfigError",
    "Conflict",
    "DeploymentError",
    "DigestMismatch",
    "DiskFull",
    "GateRefused",
    "LeaseHeld",
    "LedgerCorrupt",
    "NoriaError",
    "NotFound",
    "PortInUse",
    "ProjectNotFound",
    "QueryStopped",
    "RunCancelled",
    "SourceError",
    "StepFailed",
    "StoreDamaged",
    "StoreError",
    "StoreMissing",
    "TooLarge",
    "Unreadable",
    "Unstorable",
]

_LINES = 8  # of what a step said, in the error of its pipeline
_SHOWN = 200  # characters of what was given, in an error about it


class NoriaError(Exception):
    """Base of all errors that noria raises on purpose. `exit_code` is what a command ends with."""

    exit_code = 1


class ConfigError(NoriaError, ValueError):
    """A setting or a declaration is wrong."""

    exit_code = 2


class ProjectNotFound(NoriaError, LookupError):
    """There is no project where one was looked for."""

    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(
            f"no noria.toml in {path} or any folder above it; `noria init DIR` makes a project, "
            "`--project DIR` names one"
        )
        self.path = path


class NotFound(NoriaError, LookupError):
    """A named thing does not exist.

    Parameters
    ----------
    kind, name
        What was looked for.
    existing
        Names that do exist: the nearest are suggested. None: there are too many to name.
    advice
        What to do, where no names help.
    """

    exit_code = 3

    def __init__(
        self, kind: str, name: str, existing: Iterable[str] | None = None, *, advice: str | None = None
    ) -> None:
        known = sorted(set(existing or ()))
        near = get_close_matches(name, known, n=3)
        if near:
            hint = f"did you mean {', '.join(repr(each) for each in near)}?"
        elif known:
            shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            hint = f"there is {shown}"
        elif advice is not None:
            hint = advice
        elif existing is None:
            hint = f"list the {kind}s to see what exists"
        else:
            hint = f"there is no {kind} yet"
        super().__init__(f"no {kind} named {name!r}; {hint}")
        self.kind, self.name, self.existing = kind, name, tuple(known)


class Conflict(NoriaError, ValueError):
    """The same identity was given with other content."""

    exit_code = 4


class BadFilter(NoriaError, ValueError):
    """A filter, an order or a page token of a search is none.

    Parameters
    ----------
    part
        `filter`, `order_by`, `page token` or `limit`.
    found, wanted, advice
        What stood there, what was wanted, and what to do.
    """

    exit_code = 2

    def __init__(self, part: str, found: str, wanted: str, advice: str = "") -> None:
        super().__init__(f"{part}: found {found}, wanted {wanted}" + (f"; {advice}" if advice else ""))
        self.part, self.found, self.wanted, self.advice = part, found, wanted, advice


class BadPath(NoriaError, ValueError):
    """A path that can name no artifact."""

    exit_code = 2

    def __init__(self, path: str, why: str) -> None:
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
        super().__init__(
            f"{shown!r} can name no artifact: {why}; give a relative path such as 'model/weights.bin'"
        )
        self.path, self.why = path, why


class SourceError(NoriaError, ValueError):
    """A source vanished, is empty where it may not be, or does not have the shape that was declared."""

    exit_code = 4


class TooLarge(SourceError):
    """A source has more bytes than may be taken at once, once it is unpacked; nothing of it was written."""

    def __init__(self, what: str, most_bytes: int) -> None:
        self.what, self.most_bytes = what, most_bytes
        super().__init__(
            f"{what} is more than {most_bytes >> 20} MiB once it is unpacked, so nothing of it was taken; "
            "send fewer rows at once"
        )


class BatchBlocked(NoriaError, ValueError):
    """A batch broke its contract beyond the limit; nothing of it was written.

    Attributes
    ----------
    reasons
        Rule, value and limit, without a value of any row.
    example
        A rule and values of a row that fails it, and its line in the file. It is a note of the error: what is
        on record holds no row's values.
    source
        What is known by its content, which has no number to be repaired under: a file, a body; else None.
    """

    exit_code = 5

    def __init__(
        self,
        dataset: str,
        batch: str,
        reasons: Iterable[str],
        *,
        example: str = "",
        source: str | None = None,
    ) -> None:
        self.dataset, self.batch, self.reasons, self.example = dataset, batch, tuple(reasons), example
        self.source = source
        named, again = f"batch {batch} of dataset {dataset!r}", "batch and ingest it again under the same id"
        if source is not None:
            named, again = f"{source}, for dataset {dataset!r},", "rows and ingest them again"
        super().__init__(
            f"{named} is blocked, nothing of it was written: {'; '.join(self.reasons)}. Repair the {again}"
        )
        if example:
            self.add_note(f"For example: {example}")


class GateRefused(NoriaError, RuntimeError):
    """A version did not pass its gate."""

    exit_code = 5

    def __init__(self, subject: str, environment: str, reasons: Iterable[str]) -> None:
        self.subject, self.environment, self.reasons = subject, environment, tuple(reasons)
        super().__init__(f"{subject} may not enter {environment}: {'; '.join(self.reasons)}")


class LeaseHeld(NoriaError, RuntimeError):
    """Somebody else holds the lease."""

    exit_code = 6

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"{name} is in use by {holder}; wait for it to end, or stop it first")
        self.name, self.holder = name, holder


class DigestMismatch(NoriaError, ValueError):
    """Bytes are not what was recorded."""

    exit_code = 7

    def __init__(self, what: str, wanted: str, found: str) -> None:
        super().__init__(
            f"{what} has digest {found[:16]}…, recorded was {wanted[:16]}…: it was changed or damaged; "
            "restore it from a backup or make a new version"
        )
        self.what, self.wanted, self.found = what, wanted, found


class LedgerCorrupt(NoriaError, ValueError):
    """The chain of events or a row that it covers does not verify."""

    exit_code = 7


class DeploymentError(NoriaError, RuntimeError):
    """A server did not come up, or did not answer as it should."""

    exit_code = 8


class PortInUse(NoriaError, OSError):
    """Somebody else listens on the port."""

    exit_code = 8

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is in use; choose another with `--port`, 0 picks a free one")
        self.host, self.port = host, port


class StoreError(NoriaError, OSError):
    """A store cannot be read or written."""

    exit_code = 9


class DiskFull(StoreError):
    """No room is left where a store lives."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no space left on the disk of {path}; free some and run the same command again")
        self.path = path


class StoreDamaged(StoreError):
    """What a store holds is not what was written there, or of another format."""


class StoreMissing(StoreError):
    """There is no store where one was to be read."""


class QueryStopped(NoriaError, RuntimeError):
    """A query took more time or memory than it may."""

    exit_code = 12


class StepFailed(NoriaError, RuntimeError):
    """A run of a pipeline in which a step failed for good."""

    exit_code = 10

    def __init__(self, pipeline: str, run: str, reasons: Iterable[str]) -> None:
        self.pipeline, self.run, self.reasons = pipeline, run, tuple(reasons)
        shown = [_head(each) for each in self.reasons[:3]]
        if len(self.reasons) > 3:
            shown.append(f"and {len(self.reasons) - 3} more")
        between = "\n" if any("\n" in each for each in self.reasons[:3]) else "; "
        super().__init__(f"pipeline {pipeline!r} failed: {between.join(shown)}")
        self.add_note(
            f"`noria run logs {run[:16]}` shows what the steps printed; the same command goes on with what "
            "is left."
        )


def _head(text: str) -> str:
    """Give the first lines of a message that may hold a whole table."""
    lines = text.splitlines()
    more = [f"... {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


class RunCancelled(NoriaError, RuntimeError):
    """A run was cancelled while it was at work."""

    exit_code = 11

    def __init__(self, what: str, by: str) -> None:
        self.what, self.by = what, by
        super().__init__(f"{what} was cancelled by {by}")
        self.add_note("The same command goes on with what is left.")


class Unstorable(ConfigError):
    """A value cannot be written as bytes, so it can be neither an argument nor a result of a step.

    Parameters
    ----------
    where
        Which argument or result it is.
    place
        Where in it: `value['a'][3]`.
    found, advice
        What was found there, and what to do.
    """

    def __init__(self, where: str, place: str, found: str, advice: str) -> None:
        super().__init__(f"{where}: {place} cannot be stored: it is {found}; {advice}")
        self.where, self.place, self.found, self.advice = where, place, found, advice


class Unreadable(NoriaError, ValueError):
    """Bytes are no value, or not one that the code of today can make."""

    exit_code = 7

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} cannot be read: {why}; it was damaged, or written by code that has changed since: "
            "run the step that made it again"
        )
        self.what, self.why = what, why
