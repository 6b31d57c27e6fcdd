"""Runs told as OpenLineage events: what was read and written, for any collector that speaks the standard.

The events follow version 2-0-2 of the specification, each facet the version that its `_schemaURL` names.

=================  =====================================================================================
run                the run's id as a UUID
job                `<kind>/<name>` of the run
dataset            `<kind>/<name>` of a version; its number is the facet `version`
namespace          the project's; things of another scope than `project` have `/<scope>` appended
`eventTime`        the wall; the project's instant is the facet `nominalTime`
`noria_run`        a facet of the run: state, kind, attempt, cause, scope, uncommitted diff, runtime
`noria_version`    a facet of the dataset: id, kind, number, sha256
=================  =====================================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from noria.clock import format_instant
from noria.pipelines.openlineage.facets import (
    CORE,
    datasets,
    described_job,
    described_run,
    error_facet,
    parent_facet,
    producer,
)
from noria.records import Run, RunState, Version

__all__ = ["Lineage", "LineageEmitter", "Sink", "end_event", "start_event"]

_ENDED_AS = {
    RunState.FINISHED: "COMPLETE",
    RunState.FAILED: "FAIL",
    RunState.CANCELLED: "ABORT",
    RunState.KILLED: "ABORT",
}


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is told of one run.

    Parameters
    ----------
    run
        As the ledger has it: at work for `start_event`, closed for `end_event`.
    parent
        The run that started it.
    inputs, outputs
        The versions it read and wrote; what is not known at the start is told at the end.
    root
        The run on top of all; not needed where that is `parent`.
    """

    run: Run
    parent: Run | None = None
    inputs: Sequence[Version] = ()
    outputs: Sequence[Version] = ()
    root: Run | None = None


class Sink(Protocol):
    """Where events go. Many threads may write; what `write` has taken survives kill -9."""

    def write(self, line: bytes) -> None:
        """Take one event, a line of JSON with its end. Raises `StoreError` if it cannot be kept."""
        ...

    def pending(self) -> int:
        """Count the events that were taken and have not arrived."""
        ...

    def close(self, *, timeout_s: float) -> None:
        """Stop; what has not arrived by then stays where the next sink of this URL finds it."""
        ...


def start_event(lineage: Lineage, *, namespace: str) -> dict[str, Any]:
    """Tell that a run began: START, at the instant it did.

    Parameters
    ----------
    namespace
        The project's, such as `noria://shop`.
    """
    return _event("START", lineage, namespace, at=lineage.run.started_at, state=RunState.RUNNING)


def end_event(lineage: Lineage, *, namespace: str) -> dict[str, Any]:
    """Tell how a run ended: COMPLETE, FAIL, or ABORT where it was cancelled or killed.

    Raises
    ------
    ValueError
        If it is still at work.
    """
    run = lineage.run
    if run.state is RunState.RUNNING or run.ended_at is None:
        raise ValueError(f"run {run.id} is {run.state}; its end is told once it has ended")
    event = _event(_ENDED_AS[run.state], lineage, namespace, at=run.ended_at, state=run.state)
    if run.error is not None and run.state is not RunState.FINISHED:
        event["run"]["facets"]["errorMessage"] = error_facet(run.error)
    return event


class LineageEmitter:
    r"""Sends events to a file or a URL.

    A file gets one line of JSON an event, whole even where several processes write and one of them is
    killed. A URL is posted to by a thread in the background, out of a spool on the disk: an endpoint that
    is slow or away holds nobody up, and what it has not taken is sent later, by this or the next process
    that emits to it, oldest first. Delivery is at least once: an event whose receipt was cut off is sent
    again, with the same bytes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with LineageEmitter.open("file:lineage.jsonl", root=Path(folder), namespace="noria://x") as out:
    ...         out.emit({"eventType": "OTHER"})
    ...     (Path(folder) / "lineage.jsonl").read_text()
    '{"eventType":"OTHER"}\n'
    """

    def __init__(self, sink: Sink, *, namespace: str) -> None:
        self._sink, self._namespace = sink, namespace

    @classmethod
    def open(cls, url: str, *, root: Path, namespace: str) -> Self:
        """Open what a URL names.

        Parameters
        ----------
        url
            `file:PATH` or a path; or `http://…`, `https://…`, posted to `/api/v1/lineage` where it has no
            path. `https://TOKEN@HOST` sends a bearer token, `https://USER:PASSWORD@HOST` basic credentials.
        root
            The project's folder: relative paths start there, the spool is in its `.noria`.
        namespace
            Of `started` and `ended`.

        Raises
        ------
        ConfigError
            If the URL is neither.
        StoreError
            If the file cannot be written.
        """
        if url.lower().startswith(("http:", "https:")):
            from noria.pipelines.openlineage.http import HttpSink

            return cls(HttpSink.open(url, root=root), namespace=namespace)
        from noria.pipelines.openlineage.files import FileSink

        return cls(FileSink.open(url, root=root), namespace=namespace)

    def emit(self, event: dict[str, Any]) -> None:
        """Send an event; when this returns it is in the file, or in the spool.

        Raises
        ------
        StoreError
            If neither can be written (`DiskFull` for want of room), or the emitter is closed.
        """
        self._sink.write(msgspec.json.encode(event) + b"\n")

    def started(self, lineage: Lineage) -> None:
        """Send `start_event`."""
        self.emit(start_event(lineage, namespace=self._namespace))

    def ended(self, lineage: Lineage) -> None:
        """Send `end_event`."""
        self.emit(end_event(lineage, namespace=self._namespace))

    def pending(self) -> int:
        """Count the events that the endpoint has not taken yet; 0 for a file."""
        return self._sink.pending()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Send what is left, for `timeout_s` at most and not if the endpoint is away; the rest is spooled."""
        self._sink.close(timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _event(kind: str, lineage: Lineage, namespace: str, *, at: datetime, state: RunState) -> dict[str, Any]:
    run, parent = lineage.run, lineage.parent
    told = described_run(run, state=state)
    if parent is not None:
        root = parent if lineage.root is None and parent.parent is None else lineage.root
        told["facets"]["parent"] = parent_facet(parent, root=root, namespace=namespace)
    return {
        "eventType": kind,
        "eventTime": format_instant(at),
        "run": told,
        "job": described_job(run, namespace),
        "inputs": datasets(lineage.inputs, namespace),
        "outputs": datasets(lineage.outputs, namespace),
        "producer": producer(),
        "schemaURL": f"{CORE}/RunEvent",
    }
