"""The plans of a reader, one per definition of a view; all that a serving worker needs."""

from collections.abc import Iterator

from noria.features.declarations import ViewSpec
from noria.features.view_plan import ViewPlan

__all__ = ["Plans"]

_MOST = 8  # definitions of one name: more are those of somebody who tries things out


class Plans:
    """Gives the plan by which a view is read, the same one for the same definition."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._by_name: dict[str, list[ViewPlan]] = {}

    def __iter__(self) -> Iterator[ViewPlan]:
        for plans in self._by_name.values():
            yield from plans

    def of(self, spec: ViewSpec) -> ViewPlan:
        """Give the plan of a view."""
        plans = self._by_name.setdefault(spec.name, [])
        for plan in plans:
            if plan.spec is spec:
                return plan
        for plan in plans:
            if plan.spec == spec:
                return plan
        if len(plans) >= _MOST:
            plans.clear()
        plans.append(ViewPlan(spec, self._place))
        return plans[-1]
