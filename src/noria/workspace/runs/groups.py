"""Runs that repeat one another: alike in all but their seed, or the fold of the data that they leave out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

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
        What they have in common, by `params.NAME`, `tags.NAME`, `name` or `experiment`; None: they have none.
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


@lru_cache(maxsize=4_096)
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
        `params.NAME`, `tags.NAME`, `name`, `seed` or `experiment` that make a group; none: every parameter
        but those that tell repeats apart, the tags that name a model, and of several experiments which.
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
    summed_up = {above.id for each in runs if metric in each.metrics for above in _above(each, parents)}
    told = [(each, _told(each, parents)) for each in runs if each.id not in summed_up]
    names = [*by] or sorted({name for _, facts in told for name in facts if _names_configuration(name)})
    if by:
        _check_known(by, told)
    is_of_several = not by and len({run.experiment for run, _ in told}) > 1
    groups: dict[frozenset[tuple[str, str | None]], list[tuple[RunFigures, dict[str, str]]]] = {}
    for run, facts in told:
        key = {name: facts.get(name) for name in names}
        if not by and not any(each is not None for each in key.values()):
            key["name"] = _name(run, parents)
        if is_of_several:  # other data: no repeats of one another
            key["experiment"] = run.experiment
        groups.setdefault(frozenset(key.items()), []).append((run, facts))
    return [Group(dict(sorted(key)), _marked(members)) for key, members in groups.items()]


def varying(groups: Iterable[Group]) -> tuple[list[str], dict[str, str]]:
    """Give the names that groups differ in, and what is the same in all of them."""
    listed = list(groups)
    names = sorted({name for each in listed for name in each.key})
    values = {name: {each.key.get(name) for each in listed} for name in names}
    same = {name: str(value) for name in names if len(values[name]) == 1 for value in values[name]}
    return [name for name in names if name not in same], same


def _told(run: RunFigures, parents: Mapping[str, RunFigures]) -> dict[str, str]:
    """Give what is said of a run, by itself or by those that it is nested in."""
    found: dict[str, str] = {}
    for each in reversed([run, *_above(run, parents)]):
        found |= {f"tags.{name}": value for name, value in each.tags.items()}
        found |= {f"params.{name}": value for name, value in each.params.items()}
        if each.seed is not None:
            found["seed"] = str(each.seed)
    found["name"], found["experiment"] = run.name, run.experiment
    return found


def _above(run: RunFigures, parents: Mapping[str, RunFigures]) -> list[RunFigures]:
    """Give the runs that one is nested in, the innermost first."""
    found: list[RunFigures] = []
    while (above := (found or [run])[-1].parent) in parents and len(found) < len(parents):
        found.append(parents[str(above)])
    return found


def _names_configuration(name: str) -> bool:
    kind, _, rest = name.partition(".")
    if kind == "tags":
        return rest in _NAMING
    return kind == "params" and not is_repeat(rest)


def _name(run: RunFigures, parents: Mapping[str, RunFigures]) -> str:
    above = parents.get(run.parent or "")
    return run.name if above is None else above.name


def _marked(members: Sequence[tuple[RunFigures, Mapping[str, str]]]) -> list[tuple[Repeat, RunFigures]]:
    """Say of the runs of a group which repeat each of them is.

    Of several seeds, say one of the model and one of the split, those count that are not the same throughout.
    """
    marks = [_marks(facts) for _, facts in members]
    values: dict[str, set[str]] = {}
    for name, value in (pair for each in marks for found in each.values() for pair in found.items()):
        values.setdefault(name, set()).add(value)
    return [
        (tuple(sorted((what, _joined(found, values)) for what, found in each.items())), run)
        for each, (run, _) in zip(marks, members, strict=True)
    ]


def _joined(found: Mapping[str, str], values: Mapping[str, set[str]]) -> str:
    varied = [value for name, value in sorted(found.items()) if len(values[name]) > 1]
    return ", ".join(dict.fromkeys(varied or [found[name] for name in sorted(found)]))


def _marks(facts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Give by `seed`, `fold` and so on what says it of a run; tags count where nothing else does."""
    found: dict[str, dict[str, str]] = {"seed": {"seed": facts["seed"]}} if "seed" in facts else {}
    tagged: dict[str, dict[str, str]] = {}
    for name, value in facts.items():
        kind, _, rest = name.partition(".")
        what = _repeated(rest) if kind in ("params", "tags") else None
        if what is not None:
            (tagged if kind == "tags" else found).setdefault(what, {})[name] = value
    return tagged | found


def _check_known(by: Sequence[str], told: Sequence[tuple[RunFigures, Mapping[str, str]]]) -> None:
    known = {name for _, facts in told for name in facts}
    for name in by:
        kind, _, rest = name.partition(".")
        if name not in ("experiment", "name", "seed") and (kind not in ("params", "tags") or not rest):
            raise ConfigError(f"by names {name!r}; write params.NAME, tags.NAME, name, seed or experiment")
        if told and name not in known:
            raise NotFound("parameter or tag", name, known)
