"""Frames of the log for what was answered: small requests that were answered alike share one.

Making, checking and writing a frame costs little more for a hundred rows than for one.
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count, repeat
from typing import TypeVar

import numpy as np

from noria.serving.logs.log import PredictionFrame, ReleaseScores
from noria.serving.logs.log_writing import LogWriter
from noria.serving.scoring import Part

__all__ = ["Framer"]

T = TypeVar("T")
_NONE: list[str] = []
_ROWS, _BYTES = 64, 1 << 16  # a request of more rows, or whose columns are larger, has a frame of its own
_PARTS = 256  # requests that share a frame


class Framer:
    """Makes the frames of one deployment.

    Parameters
    ----------
    environment, deployment
        Whose frames these are.
    log
        By whose rules values are left out, and requests sampled: each by itself, so that they share no frame.
    """

    def __init__(self, *, environment: str, deployment: str, log: LogWriter) -> None:
        self._environment, self._deployment, self._log = environment, deployment, log
        self._stamps = count((secrets.randbits(31) << 32) + 1)  # the loop and the thread draw from it

    def frames(self, parts: Iterable[Part]) -> list[tuple[PredictionFrame, Sequence[Part]]]:
        """Give frames, each with those that are in it.

        One whose ids came from a client is in a frame of its own, as it may turn out to be answered already.
        """
        groups: list[list[Part]] = []
        alike: dict[tuple[object, ...], list[Part]] = {}
        group: list[Part] = []
        target, at, fallbacks = None, 0, _NONE
        is_sampled = self._log.is_sampled
        for part in parts:
            job, bound = part.job, part.bound
            is_large = bound.rows > _ROWS or bound.numbers.nbytes + _characters(bound.texts) > _BYTES
            if is_large or is_sampled or job.names_ids or part.lacks_release:
                groups.append([part])
                continue
            told = _fallbacks(part) if job.target.views else _NONE
            if job.target is not target or part.at != at or told != fallbacks:
                target, at, fallbacks = job.target, part.at, told
                group = alike.setdefault((id(target), at, *told), [])
            group.append(part)
        for each in alike.values():
            groups += [each[place : place + _PARTS] for place in range(0, len(each), _PARTS)]
        return [(self.frame(each), each) for each in groups]

    def frame(self, parts: Sequence[Part], *, stamp: int | None = None) -> PredictionFrame:
        """Give one frame for requests that are alike.

        They are to one target, of one instant, scored by the same releases, and lack the same views.

        Parameters
        ----------
        stamp
            Where the rows are in a frame already, scored by others: its stamp.
        """
        jobs = [each.job for each in parts]
        route, target, plan = jobs[0].loaded.route, jobs[0].target, jobs[0].target.plan
        now_ns = time.perf_counter_ns()
        latencies = [(now_ns - job.arrived_ns) // 1_000 for job in jobs]
        requests = [job.request for job in jobs]
        callers, traces = [each.caller for each in requests], [each.trace for each in requests]
        is_one = len(parts) == 1
        ids: list[str] = []
        digests: list[bytes] = []
        for job in jobs:
            is_all = len(job.new) == len(job.ids)
            ids += job.ids if is_all else [job.ids[row] for row in job.new]
            digests += job.digests if is_all else [job.digests[row] for row in job.new]
        bounds = [each.bound for each in parts]
        numbers: dict[str, bytes] = {}
        if not plan.is_flat:
            matrix = np.concatenate([each.numbers for each in bounds])
            numbers = {
                name: np.ascontiguousarray(matrix[:, place]).tobytes() for name, place in plan.places.items()
            }
        has_views = bool(target.views)
        frame = PredictionFrame(  # by place: CPython calls slowly where places + 2 * names > 30
            parts[0].at,
            time.time_ns() // 1_000,
            self._environment,
            self._deployment,
            route.id,
            route.number,
            max(latencies),
            ids,
            b"".join(digests),
            {name: _chained([each.texts[name] for each in bounds]) for name in plan.texts},
            numbers,
            target.columns.names if has_views else [],
            _features(parts) if has_views else b"",
            _merged([each.scores for each in parts]),
            _feature_texts(parts) if has_views else {},
            list(plan.number_names) if plan.is_flat else [],
            b"".join([each.numbers.tobytes() for each in bounds]) if plan.is_flat else b"",
            next(self._stamps) if stamp is None else stamp,
            callers[0] if is_one else None,
            traces[0] if is_one else None,
            _fallbacks(parts[0]),
            latencies_us=[] if is_one else _by_row(parts, latencies),
            callers=[] if is_one or not any(callers) else _by_row(parts, callers),
            traces=[] if is_one or not any(traces) else _by_row(parts, traces),
        )
        return self._log.redact(frame)


def _characters(texts: Mapping[str, list[str | None]]) -> int:
    return sum(len(each) for values in texts.values() for each in values if each) if texts else 0


def _fallbacks(part: Part) -> list[str]:
    found = part.job.looked_up
    return [] if found is None else [*found.defaulted, *found.lacking]


def _chained(values: Sequence[Iterable[T]]) -> list[T]:
    return [*chain.from_iterable(values)]


def _by_row(parts: Sequence[Part], values: Sequence[T]) -> list[T]:
    rows = [each.bound.rows for each in parts]
    return list(values) if sum(rows) == len(parts) else _chained([*map(repeat, values, rows)])


def _features(parts: Sequence[Part]) -> bytes:
    columns = parts[0].job.target.columns
    return b"".join([columns.logged(each.features, each.chosen).tobytes() for each in parts])


def _feature_texts(parts: Sequence[Part]) -> dict[str, list[str | None]]:
    texts = parts[0].job.target.texts
    matrix = np.concatenate([texts.logged(each.feature_texts, each.chosen) for each in parts])
    return dict(zip(texts.names, matrix.T.tolist(), strict=True))


def _merged(scores: Sequence[list[ReleaseScores]]) -> list[ReleaseScores]:
    """Put what each release gave for several requests behind each other."""
    if len(scores) == 1:
        return scores[0]
    return [_of_release(each) for each in zip(*scores, strict=True)]


def _of_release(scores: Sequence[ReleaseScores]) -> ReleaseScores:
    first = scores[0]
    outputs: dict[str, bytes | list[object]] = {}
    for name, values in first.outputs.items():
        every = [each.outputs[name] for each in scores]
        outputs[name] = b"".join(every) if isinstance(values, bytes) else _chained(every)  # type: ignore[arg-type]
    return ReleaseScores(
        first.release,
        first.model,
        first.version,
        b"".join([each.scores for each in scores]),
        b"".join([each.answered for each in scores]),
        first.computed_names,
        b"".join([each.computed for each in scores]) if first.computed_names else b"",
        outputs,
    )
