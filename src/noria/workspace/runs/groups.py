"""Runs that repeat one another: alike in all but their seed, or the fold of the data that they leave out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from noria.errors import ConfigError, NotFound
from noria.tracking.figures import RunFigures

__all__ = ["REPEATED", "Group", "Repeat", "group_runs", "is_repeat", "is_seed", "varying"]

REPEATED = ("fold", "repeat", "seed", "split")
_ALIASES = {"cv_fold": "fold", "fold_id": "fold", "fold_index": "fold", "replicate": "repeat"}
_SEED = re.compile(r"(\w+_)?(seed|random_state)")
_LAST = re.compile(r"[./:]|__")
# Tags that say what a run is; others say whose it is, or why.
_NAMING = frozenset({
    "algorithm", "architecture", "arm", "estimator", "estimator_class", "estimator_name", "method", "model",
    "model_name", "variant",
})  # fmt: skip

Repeat = tuple[tuple[str, str], ...]  # ("fold", "2"), ("seed", "7"): which repeat of its group a run is


@dataclass(slots=True)
class Group:
    """Runs of one configuration.

    Attributes
    ----------
    key
        What they have in common, by `params.NAME` or `tags.NAME`; None: they have none.
    runs
        With which repeat each is.
    """

    key: dict[str, str | None]
    runs: list[tuple[Repeat, RunFigures]] = field(default_factory=list)


def is_repeat(name: str) -> bool:
    """Tell whether a parameter or a tag only says which of several repeats a run is.

    Examples
    --------
    >>> [each for each in ("seed", "model__random_state", "cv.fold", "min_samples_split") if is_repeat(each)]
    ['seed', 'model__random_state', 'cv.fold']
    """
    return _repeated(name) is not None


def is_seed(name: str) -> bool:
    """Tell whether a parameter is a seed."""
    return _repeated(name) == "seed"


def _repeated(name: str) -> str | None:
    last = _LAST.split(name.lower())[-1].replace("-", "_")
    if _SEED.fullmatch(last):
        return "seed"
    last = _ALIASES.get(last, last)
    return last if last in REPEATED else None


def group_runs(
    runs: Sequence[RunFigures], by: Sequence[str], parents: Mapping[str, RunFigures], *, metric: str
) -> list[Group]:
    """Put runs that repeat one another together, in the order in which they come.

    Parameters
    ----------
    by
        `params.NAME`, `tags.NAME` or `name` that make a group; none: every parameter but those that tell
        repeats apart, and the tags that name a model.
    parents
        Runs that others are nested in, by id: what those do not say themselves, their parent does. One
        that has the metric itself is left out where runs within it have it: it sums them up.

    Raises
    ------
    ConfigError
        If `by` names something else.
    NotFound
        If no run has what `by` names.
    """
    summed_up = {each.parent for each in runs if each.parent is not None and metric in each.metrics}
    told = [(each, _told(each, parents)) for each in runs if each.id not in summed_up]
    names = [*by] or sorted({name for _, facts in told for name in facts if _names_configuration(name)})
    if by:
        _check_known(by, told)
    groups: dict[tuple[str | None, ...], Group] = {}
    for run, facts in told:
        key = {name: facts.get(name) for name in names}
        if not by and not any(each is not None for each in key.values()):
            key["name"] = _name(run, parents)
        place = (*key.values(), None if by else key.get("name"))  # a name is no value of a parameter
        groups.setdefault(place, Group(key)).runs.append((_which(run, facts), run))
    return list(groups.values())


def varying(groups: Iterable[Group]) -> tuple[list[str], dict[str, str]]:
    """Give the names that groups differ in, and what is the same in all of them."""
    listed = list(groups)
    names = sorted({name for each in listed for name in each.key})
    values = {name: {each.key.get(name) for each in listed} for name in names}
    same = {name: str(value) for name in names if len(values[name]) == 1 for value in values[name]}
    return [name for name in names if name not in same], same


def _told(run: RunFigures, parents: Mapping[str, RunFigures]) -> dict[str, str]:
    """Give what is said of a run, by itself or by those that it is nested in."""
    line = [run]
    while (above := line[-1].parent) is not None and above in parents and len(line) <= len(parents):
        line.append(parents[above])
    found: dict[str, str] = {}
    for each in reversed(line):
        found |= {f"tags.{name}": value for name, value in each.tags.items()}
        found |= {f"params.{name}": value for name, value in each.params.items()}
        if each.seed is not None:
            found["seed"] = str(each.seed)
    found["name"] = run.name
    return found


def _names_configuration(name: str) -> bool:
    kind, _, rest = name.partition(".")
    if kind == "tags":
        return rest in _NAMING
    return kind == "params" and not is_repeat(rest)


def _name(run: RunFigures, parents: Mapping[str, RunFigures]) -> str:
    above = parents.get(run.parent or "")
    return run.name if above is None else above.name


def _which(run: RunFigures, facts: Mapping[str, str]) -> Repeat:
    found = {"seed": facts["seed"]} if "seed" in facts else {}
    for name, value in facts.items():
        kind, _, rest = name.partition(".")
        what = _repeated(rest) if kind in ("params", "tags") else None
        if what is not None and not (kind == "tags" and what in found):
            found[what] = value
    return tuple(sorted(found.items()))


def _check_known(by: Sequence[str], told: Sequence[tuple[RunFigures, Mapping[str, str]]]) -> None:
    known = {name for _, facts in told for name in facts}
    for name in by:
        kind, _, rest = name.partition(".")
        if name not in ("name", "seed") and (kind not in ("params", "tags") or not rest):
            raise ConfigError(f"by names {name!r}; write params.NAME, tags.NAME, name or seed")
        if told and name not in known:
            raise NotFound("parameter or tag", name, known)
