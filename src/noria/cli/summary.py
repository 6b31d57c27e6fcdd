"""What a replay came to, on the screen: months, money, accidents, decisions."""

import shutil

from noria.cli import screen
from noria.replay.declarations import DAY, Replay
from noria.replay.report import MonthLine, Report
from noria.value.money import Money

__all__ = ["show_report"]

_ACCIDENTAL = {"accident.planted", "accident.settled", "dataset.blocked"}
_WIDE = 108  # from here on the interval of each month has room


def show_report(report: Report, replay: Replay) -> None:
    """Write a report."""
    objective = replay.training.objective
    unit = objective.unit if objective is not None else ""
    last = report.until - DAY
    state = "" if report.finished else ", so far"
    screen.heading(f"{report.replay}, {report.start:%Y-%m-%d} to {last:%Y-%m-%d}{state}")
    screen.line(
        f"loop: what was answered. frozen: what {report.frozen_version}, never retrained, would have."
    )
    screen.line()
    _show_months(report, unit)
    screen.line()
    screen.line(
        f"{screen.count(report.predictions, 'prediction')}, {report.unlabelled:,} without an outcome: they "
        f"are counted and pay nothing. {screen.count(report.retrains, 'retrain')}; the trigger waited "
        f"{screen.count(report.waits, 'time')}; {screen.count(report.alerts, 'alert')} of drift."
    )
    parity = f"{report.parity_differences or 'no'} values differ"
    screen.line(f"{report.parity_rows:,} served rows were computed again offline: {parity}.")
    if objective is not None and report.money is not None and report.frozen_money is not None:
        screen.heading(f"Money: {objective.decision}, against '{objective.baseline}'")
        screen.facts({"loop": _paid(report.money, unit), "frozen": _paid(report.frozen_money, unit)})
    if report.accidents:
        screen.heading("Planted accidents and drills")
        rows = [
            (
                screen.instant(each.at),
                each.kind,
                "as it should" if each.as_wanted else "NOT AS IT SHOULD",
                each.reason,
            )
            for each in report.accidents
        ]
        screen.table(["at", "kind", "dealt with", "how"], rows, wrap="how")
    _show_decisions(report, replay)


def _show_months(report: Report, unit: str) -> None:
    wide = shutil.get_terminal_size((_WIDE, 25)).columns >= _WIDE
    columns = ["month", "predictions", "AUC", "frozen", "log loss", "frozen", "retrains"]
    if unit:
        columns += [unit, *(["95 % interval"] if wide else []), "frozen"]
    rows = [_month(each, unit=unit, wide=wide) for each in report.months]
    loop, frozen = report.loop, report.frozen
    total = [
        "all", screen.number(report.predictions), screen.number(loop.auc, 4), screen.number(frozen.auc, 4),
        screen.number(loop.log_loss, 4), screen.number(frozen.log_loss, 4), screen.number(report.retrains),
    ]  # fmt: skip
    if unit and report.money is not None and report.frozen_money is not None:
        money = report.money
        total += [screen.number(money.gain), *([_between(money.low, money.high)] if wide else [])]
        total.append(screen.number(report.frozen_money.gain))
    screen.table(columns, [*rows, total], right=columns[1:])


def _month(each: MonthLine, *, unit: str, wide: bool) -> list[str]:
    row = [
        each.month, screen.number(each.predictions), screen.number(each.loop.auc, 4),
        screen.number(each.frozen.auc, 4), screen.number(each.loop.log_loss, 4),
        screen.number(each.frozen.log_loss, 4), screen.number(each.retrains),
    ]  # fmt: skip
    if unit:
        row += [screen.number(each.value), *([_between(each.value_low, each.value_high)] if wide else [])]
        row.append(screen.number(each.frozen_value))
    return row


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:,.0f} to {high:,.0f}"


def _paid(money: Money, unit: str) -> str:
    interval = f"95 % interval {_between(money.low, money.high)}"
    return (
        f"{money.gain:,.0f} {unit} ({interval}): acted on {money.acted:,} of {money.rows:,}, "
        f"{money.tp:,} rightly and {money.fp:,} in vain, {money.fn:,} missed"
    )


def _show_decisions(report: Report, replay: Replay) -> None:
    """Write what was decided, without what the accidents told and without moves that repeat a verdict."""
    screen.heading("Decisions")
    rows = []
    told: set[str] = set()
    for each in report.decisions:
        in_staging = each.verb == "pointer.moved" and each.subject.startswith(f"{replay.staging}/")
        if each.verb in _ACCIDENTAL or in_staging or each.reason in told:
            continue
        told.add(each.reason)
        rows.append((f"{each.at:%Y-%m-%d}", _named(each.verb, each.decision), each.reason))
    screen.table(["at", "decision", "because"], rows, wrap="because")


def _named(verb: str, decision: str) -> str:
    if verb == "trigger.decided":
        return "retrain" if decision == "run" else f"trigger: {decision}"
    return verb.replace(".", " ")
