"""Evaluating a monitor on record: a run, what it measured, and the news that others act on."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from noria.clock import to_micros
from noria.ledger.store import Ledger
from noria.monitoring.declarations import Monitor, Volume
from noria.monitoring.judging import judge
from noria.monitoring.records import MonitorReport
from noria.monitoring.window import Past, WindowData
from noria.profiles.records import Profile
from noria.records import Event, EventId

__all__ = ["evaluate", "find_report", "list_reports"]

_LEAST_HISTORY = 28


def evaluate(
    ledger: Ledger,
    monitor: Monitor,
    window: WindowData,
    *,
    profile: Profile | None,
    reference: Mapping[str, float],
    key: str,
    at: datetime,
    cause: EventId | None = None,
) -> MonitorReport:
    """Judge a window and record it: a run of kind `monitor` and its events, once for each key.

    - `monitor.evaluated`: always, with the whole report.
    - `data.bad`: the window's data are bad; nothing else was judged.
    - `drift.found`: columns do not look as in training. An alert.
    - `decay.found`: one for each quality beyond its limit. What triggers act on.

    The last three have the first as their cause. The same key again gives the report on record; killed in
    between, it goes on where it stopped. Earlier evaluations (those before `at`) are read from the ledger.

    Parameters
    ----------
    profile, reference
        Of the version in charge; see `noria.monitoring.judging.judge`.
    key
        Of this evaluation, such as monitor, deployment and day.
    at
        The instant at which the window ends.

    Raises
    ------
    ValueError
        If the window's arrays do not belong together.
    """
    with ledger.running("monitor", monitor.name, cause=cause, key=key, at=at) as run:
        evaluated = ledger.find_event(key=f"{key}:evaluated")
        if evaluated is None:
            past = _past(ledger, monitor, window, at)
            report = judge(monitor, window, profile=profile, reference=reference, at=at, past=past)
            payload = {"run_key": key, **msgspec.to_builtins(report)}
            evaluated = ledger.append(
                "monitor.evaluated",
                subject=monitor.name,
                payload=payload,
                cause=cause,
                key=f"{key}:evaluated",
                at=at,
            )
        report = _report(evaluated)
        if not run.is_done:
            ledger.add_input(run.id, window.version.id)
            _tell(ledger, report, evaluated, key=key)
            run.metrics.update(report.metrics)
    return report


def find_report(ledger: Ledger, *, key: str) -> MonitorReport | None:
    """Find the report of an evaluation by its key."""
    event = ledger.find_event(key=f"{key}:evaluated")
    return _report(event) if event else None


def list_reports(
    ledger: Ledger, monitor: str, *, since: datetime | None = None, until: datetime | None = None
) -> list[MonitorReport]:
    """List the reports of a monitor with `since <= at < until`, oldest first."""
    events = ledger.list_events(verb="monitor.evaluated", subject=monitor, since=since, until=until)
    return [_report(event) for event in events]


def _report(event: Event) -> MonitorReport:
    return msgspec.convert(event.payload, MonitorReport)


def _past(ledger: Ledger, monitor: Monitor, window: WindowData, at: datetime) -> Past:
    every_us = int(monitor.every_s * 1e6)
    lookback_us = int(monitor.lookback.total_seconds() * 1e6)
    history = max(
        (check.history for check in monitor.checks if isinstance(check, Volume)), default=_LEAST_HISTORY
    )
    events = ledger.list_events(
        verb="monitor.evaluated",
        subject=monitor.name,
        until=at,
        limit=max(history, -(-lookback_us // every_us)),
        newest_first=True,
    )
    here = [
        event
        for event in events
        if (event.payload["environment"], event.payload["deployment"])
        == (window.environment, window.deployment)
    ]
    same = here[0] if here and here[0].payload["version"] == window.version.id else None
    return Past(
        volumes=tuple(event.payload["rows"] for event in here if not event.payload["bad"]),
        streaks=same.payload["streaks"] if same else {},
        bad=tuple(
            (to_micros(event.at) - every_us, to_micros(event.at)) for event in here if event.payload["bad"]
        ),
    )


def _tell(ledger: Ledger, report: MonitorReport, evaluated: Event, *, key: str) -> None:
    """Append the news of a report, each once."""
    about: dict[str, Any] = {
        "environment": report.environment,
        "deployment": report.deployment,
        "version": report.version,
        "version_ref": report.version_ref,
    }
    if report.bad:
        wrong = [check for check in report.checks if check.passed is False]
        told = "; ".join(f"{check.name}: {check.detail}" for check in wrong)
        payload = about | {
            "checks": msgspec.to_builtins(wrong),
            "rows": report.rows,
            "reason": f"bad data at {report.environment}/{report.deployment}: {told}",
        }
        _append(ledger, "data.bad", report, payload, evaluated, key=f"{key}:bad")
    if report.drift:
        drifted = next(check for check in report.checks if check.name == "drift")
        payload = about | {
            "columns": msgspec.to_builtins(report.drift),
            "rows": report.rows,
            "reason": f"{report.version_ref}: {drifted.detail}",
        }
        _append(ledger, "drift.found", report, payload, evaluated, key=f"{key}:drift")
    for decay in report.decay:
        payload = about | msgspec.to_builtins(decay) | {"reason": f"{report.version_ref}: {decay.reason}"}
        _append(
            ledger, "decay.found", report, payload, evaluated, key=f"{key}:decay:{decay.kind}:{decay.metric}"
        )


def _append(
    ledger: Ledger, verb: str, report: MonitorReport, payload: Mapping[str, Any], cause: Event, *, key: str
) -> None:
    ledger.append(verb, subject=report.monitor, payload=payload, cause=cause.id, key=key, at=report.at)
