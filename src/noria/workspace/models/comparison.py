"""What two model versions differ in: quality, inputs, data, parameters, code, what they depend on, size."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from noria.evaluation.intervals import Interval
from noria.profiles.between import distance_between
from noria.profiles.records import Profile
from noria.records import Run, Version
from noria.registry.records import Input, Part, Signature, is_folder
from noria.training.explanations import find_explanation, read_explanation
from noria.workspace.models.outcomes import Paired, paired
from noria.workspace.restoring import run_git
from noria.workspace.runs.comparison import CodeDifference, Pair, RunDifference, difference_of

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["ModelComparison", "PairedScores", "Shift", "compare_models"]

_WINDOW = ("since", "until", "holdout_from", "rows", "positives", "holdout_rows")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How far the training rows of two versions are apart in a column.

    Parameters
    ----------
    distance
        Jensen-Shannon, 0 to 1, estimated from the profiles; None where they are of two kinds.
    usual
        What windows of the first version's own rows reached.
    """

    column: str
    distance: float | None
    usual: float
    means: Pair
    missing: Pair


class PairedScores(msgspec.Struct, frozen=True, kw_only=True):
    """Both versions on the same requests, none of which either has learned from.

    Parameters
    ----------
    differences
        The other's figure minus the one's, with its 95 % interval.
    """

    rows: int
    days: int
    since: Any
    until: Any
    metrics: dict[str, Pair]
    differences: dict[str, Interval]


class ModelComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What two model versions differ in. Maps hold what differs only, but for `metrics` and `importance`.

    Parameters
    ----------
    inputs_added, inputs_removed, inputs_changed
        What the other reads and the one does not, and so on; None where one has no signature on record.
    data
        Versions that were read, by kind and name.
    window
        Since and until when rows were learned from, and how many.
    params, distributions, seed
        Of their runs.
    code, files
        Commits, and the files that differ between them, where git has both.
    shifts
        Of the training rows, the largest first.
    importance
        Shares of the mean absolute contributions, by input.
    sizes
        Bytes by part.
    paired, unpaired
        Their scores on the same rows, or why there are none.
    """

    one: str
    other: str
    format: Pair
    metrics: dict[str, Pair]
    inputs_added: tuple[str, ...] | None
    inputs_removed: tuple[str, ...] | None
    inputs_changed: dict[str, Pair]
    output: Pair | None
    data: dict[str, Pair]
    window: dict[str, Pair]
    params: dict[str, Pair]
    code: CodeDifference | None
    files: tuple[str, ...] | None
    distributions: dict[str, Pair]
    seed: Pair | None
    shifts: tuple[Shift, ...]
    importance: dict[str, Pair]
    sizes: dict[str, Pair]
    paired: PairedScores | None
    unpaired: str | None


def compare_models(project: "Project", one: Version, other: Version) -> ModelComparison:
    """Tell what two versions differ in. Raises `DigestMismatch`, `NotFound` if a part is changed or gone."""
    signatures = [_signature(project, each) for each in (one, other)]
    runs = [_run(project, each) for each in (one, other)]
    differ: RunDifference | None = None
    if runs[0] is not None and runs[1] is not None:
        differ = difference_of(project, runs[0], runs[1])
    before, after = (_metrics(each, run) for each, run in zip((one, other), runs, strict=True))
    scored = paired(project, one, other) if all(signatures) else "one is a folder of MLflow"
    added, removed, changed, output = _inputs(*signatures)
    return ModelComparison(
        one=one.ref,
        other=other.ref,
        format=Pair(one.facts.get("format"), other.facts.get("format")),
        metrics={name: Pair(before.get(name), after.get(name)) for name in sorted({*before, *after})},
        inputs_added=added,
        inputs_removed=removed,
        inputs_changed=changed,
        output=output,
        data={} if differ is None else differ.inputs,
        window=_pairs({name: one.facts.get(name) for name in _WINDOW},
                      {name: other.facts.get(name) for name in _WINDOW}),
        params={} if differ is None else _without(differ.params, {*_WINDOW, "step_run"}),
        code=None if differ is None else differ.code,
        files=None if differ is None else _files(project, differ.code),
        distributions={} if differ is None else differ.distributions,
        seed=None if differ is None else differ.seed,
        shifts=_shifts(project, one, other) if all(signatures) else (),
        importance=_importance(project, one, other),
        sizes=_pairs(*({name: part.size_bytes for name, part in _parts(project, each).items()}
                       for each in (one, other))),
        paired=_told(scored) if isinstance(scored, Paired) else None,
        unpaired=scored if isinstance(scored, str) else None,
    )  # fmt: skip


def _signature(project: "Project", version: Version) -> Signature | None:
    return None if is_folder(version) else project.registry.read_manifest(version).signature


def _parts(project: "Project", version: Version) -> Mapping[str, Part]:
    if is_folder(version):
        return project.registry.read_folder(version).files
    return project.registry.read_manifest(version).parts


def _run(project: "Project", version: Version) -> Run | None:
    return None if version.run is None else project.ledger.get_run(version.run)


def _metrics(version: Version, run: Run | None) -> dict[str, float]:
    found = dict(version.facts.get("metrics") or {})
    return found or ({} if run is None else dict(run.metrics))


def _inputs(
    one: Signature | None, other: Signature | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, dict[str, Pair], Pair | None]:
    if one is None or other is None:
        return None, None, {}, None
    before, after = ({each.name: each for each in signature.inputs} for signature in (one, other))
    changed = {
        name: Pair(_kind(before[name]), _kind(after[name]))
        for name in before
        if name in after and before[name] != after[name]
    }
    output = None if one.output == other.output else Pair(one.output, other.output)
    return (
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        changed,
        output,
    )


def _kind(column: Input) -> str:
    return f"{column.kind}, {len(column.categories)} known texts" if column.is_text else column.kind


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    return {
        name: Pair(one.get(name), other.get(name))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    }


def _without(pairs: Mapping[str, Pair], names: set[str]) -> dict[str, Pair]:
    return {name: each for name, each in pairs.items() if name not in names}


def _files(project: "Project", code: CodeDifference | None) -> tuple[str, ...] | None:
    """Name the files below the project's folder that differ between two commits; None if git cannot tell."""
    if code is None:
        return None
    commits = [str(each) for each in (code.commits.one, code.commits.other)]
    if not all(map(_COMMIT.fullmatch, commits)):
        return None
    told = run_git(project.root, "diff", "--name-only", "--relative", "-z", *commits, "--", ".")
    return None if told is None else tuple(each for each in told.decode(errors="replace").split("\0") if each)


def _shifts(project: "Project", one: Version, other: Version) -> tuple[Shift, ...]:
    profiles = [
        msgspec.json.decode(project.storage.get(_parts(project, each)["profile"].sha256), type=Profile)
        for each in (one, other)
    ]
    found = []
    signature = _signature(project, one)
    output = None if signature is None else signature.output
    for name, before in profiles[0].columns.items():
        after = profiles[1].columns.get(name)
        if after is not None:
            found.append(
                Shift(
                    column=f"{name} (its scores)" if name == output else name,
                    distance=distance_between(before, after),
                    usual=before.calibration.js_max,
                    means=Pair(before.mean, after.mean),
                    missing=Pair(before.missing_share, after.missing_share),
                )
            )
    return tuple(sorted(found, key=lambda each: (-(each.distance or 0.0), each.column)))


def _importance(project: "Project", one: Version, other: Version) -> dict[str, Pair]:
    shares = []
    for each in (one, other):
        if find_explanation(project.ledger, each) is None:
            return {}
        found = read_explanation(project.ledger, project.registry, each).inputs
        total = sum(column.mean_absolute for column in found) or 1.0
        shares.append({column.name: column.mean_absolute / total for column in found})
    largest = {name: max(each.get(name, 0.0) for each in shares) for name in {*shares[0], *shares[1]}}
    names = sorted(largest, key=lambda name: (-largest[name], name))
    return {name: Pair(shares[0].get(name), shares[1].get(name)) for name in names}


def _told(found: Paired) -> PairedScores:
    return PairedScores(
        rows=found.rows,
        days=found.days,
        since=found.since,
        until=found.until,
        metrics={name: Pair(*each) for name, each in found.metrics.items()},
        differences=found.differences,
    )
