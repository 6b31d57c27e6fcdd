"""The trend of the rejected share: what a batch comes to once all of its rows are decided about."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from noria.checks.declarations import Rule
from noria.checks.trends import FEW_BATCHES, rejected_share_p_value
from noria.checks.verdicts import Finding, row_json

__all__ = ["RejectedTrend"]

Earlier = Callable[[datetime, str], Sequence[tuple[int, int]]]


class RejectedTrend:
    """The rules `rejected_share` of one batch.

    Parameters
    ----------
    at
        The instant of the batch.
    earlier
        Gives rejected and all rows of the batches that landed since an instant, without those of which the
        rule of a name did not hold.
    """

    def __init__(self, rules: Sequence[Rule], *, at: datetime, earlier: Earlier) -> None:
        self._rules = [each for each in rules if each.kind == "rejected_share"]
        self._at = at
        self._earlier = earlier
        self._past: dict[str, list[tuple[int, int]]] = {}

    def findings(self, *, rejected: int, rows: int) -> list[Finding]:
        """Judge a batch."""
        found = (self._finding(each, rejected, rows) for each in self._rules if rows)
        return [each for each in found if each is not None]

    def _finding(self, rule: Rule, rejected: int, rows: int) -> Finding | None:
        earlier = self._past_of(rule)
        if len(earlier) < FEW_BATCHES or not rejected:
            return None
        share = rejected / rows
        usual = sum(some for some, _ in earlier) / sum(of for _, of in earlier)
        assert isinstance(rule.high, int | float)
        assert rule.alpha is not None
        if share < rule.high * usual or rejected_share_p_value(rejected, rows, earlier) > rule.alpha:
            return None
        detail = (
            f"{rejected} of {rows} rows ({share:.2%}) break the contract, {share / usual:.3g} times the "
            if usual
            else f"{rejected} of {rows} rows ({share:.2%}) break the contract, after none in the "
        )
        detail += (
            f"{usual:.2%} of the {len(earlier)} batches before" if usual else f"{len(earlier)} batches before"
        )
        return Finding(
            rule=rule.name,
            severity=rule.severity,
            failing=rows,
            share=1.0,
            example=row_json({"rejected_share": share, "usual": usual}),
            detail=f"{detail} (by chance in at most {rule.alpha:g} of all batches)",
        )

    def _past_of(self, rule: Rule) -> list[tuple[int, int]]:
        if rule.name not in self._past:
            since = self._at - timedelta(seconds=rule.span_s or 0)
            self._past[rule.name] = [each for each in self._earlier(since, rule.name) if each[1]]
        return self._past[rule.name]
