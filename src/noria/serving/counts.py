"""What each release did since its route began to answer: counts that add up over workers.

A worker observes, its supervisor adds, and whoever guards a canary compares. The time that a release took is
counted in fixed buckets, 16 for each doubling of microseconds, so that quantiles are known to 6.25 % and two
workers' counts add exactly.
"""

from collections.abc import Iterable

import msgspec

__all__ = ["BUCKETS", "ReleaseCounts", "RouteCounts", "bucket_ends_us", "bucket_of"]

BUCKETS = 368  # up to 2**26 us, 67 s; what takes longer is in the last
_LONGEST_US = 2**26 - 1
_WITHIN = 16  # buckets for each doubling; below 32 us each microsecond has its own


class ReleaseCounts(msgspec.Struct, kw_only=True):
    """What one release did: requests, those that failed, rows, missing scores, time.

    Attributes
    ----------
    requests
        That it was asked to score, whether or not it answered them.
    errors
        Requests in which it raised, or did not end in time.
    incomplete
        Requests in which it gave no score (NaN) for some row.
    crashes
        Requests by which a worker ended; they are among `requests` and `errors`.
    rows, missing
        Rows that it was asked for, and rows for which it gave no score.
    latency_us, latency_us_squared
        Sums over its requests of the time that it took, failed ones included.
    buckets
        Requests by time; see `bucket_of`.
    """

    requests: int = 0
    errors: int = 0
    crashes: int = 0
    incomplete: int = 0
    rows: int = 0
    missing: int = 0
    latency_us: int = 0
    latency_us_squared: float = 0.0
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * BUCKETS)

    def observe(
        self, rows: int, latency_us: int, missing: int = 0, failed: bool = False, *, requests: int = 1
    ) -> None:
        """Count a request that the release was asked to score, or several that are alike.

        Parameters
        ----------
        rows
            How many, of all requests.
        latency_us
            What each took, microseconds.
        missing
            Rows for which it gave NaN; of several requests each has some.
        failed
            Whether it raised or did not end in time.
        requests
            How many.
        """
        self.requests += requests
        self.rows += rows
        self.latency_us += requests * latency_us
        self.latency_us_squared += requests * float(latency_us) * latency_us
        if failed:
            self.errors += requests
        if missing:
            self.incomplete += requests
            self.missing += missing
        self.buckets[bucket_of(latency_us)] += requests

    @property
    def timed(self) -> int:
        """Of how many requests it is known how long they took."""
        return self.requests - self.crashes

    def count_crash(self) -> None:
        """Count a request by which a worker ended; nobody knows how long it took."""
        self.requests += 1
        self.errors += 1
        self.crashes += 1

    def add(self, other: "ReleaseCounts") -> None:
        """Take another worker's counts in."""
        self.requests += other.requests
        self.errors += other.errors
        self.crashes += other.crashes
        self.incomplete += other.incomplete
        self.rows += other.rows
        self.missing += other.missing
        self.latency_us += other.latency_us
        self.latency_us_squared += other.latency_us_squared
        self.buckets = [ours + theirs for ours, theirs in zip(self.buckets, other.buckets, strict=True)]


class RouteCounts(msgspec.Struct, kw_only=True):
    """What the releases of one route did since it began to answer.

    Attributes
    ----------
    route
        Its number. Another route begins with new counts.
    releases
        By reference.
    """

    route: int
    releases: dict[str, ReleaseCounts] = {}

    def of(self, release: str) -> ReleaseCounts:
        """Give the counts of a release, to observe into; new ones where there are none yet."""
        found = self.releases.get(release)
        if found is None:
            found = self.releases[release] = ReleaseCounts()
        return found

    @classmethod
    def merged(cls, route: int, counts: Iterable["RouteCounts"]) -> "RouteCounts":
        """Add up what workers counted of a route; counts of other routes are left out."""
        total = cls(route=route)
        for each in counts:
            if each.route == route:
                for release, found in each.releases.items():
                    total.of(release).add(found)
        return total


def bucket_of(latency_us: int) -> int:
    """Give the bucket of a time.

    Examples
    --------
    >>> [bucket_of(each) for each in (0, 15, 31, 32, 33, 34, 2**40)]
    [0, 15, 31, 32, 32, 33, 367]
    """
    held = min(max(latency_us, 0), _LONGEST_US)
    if held < _WITHIN:
        return held
    shift = held.bit_length() - 5
    return (shift << 4) + (held >> shift)


def bucket_ends_us(bucket: int) -> tuple[float, float]:
    """Give the least time of a bucket, and the least above it; that of the last has no end.

    Examples
    --------
    >>> bucket_ends_us(31), bucket_ends_us(32), bucket_ends_us(367)[1]
    ((31.0, 32.0), (32.0, 34.0), inf)
    """
    return _least(bucket), float("inf") if bucket == BUCKETS - 1 else _least(bucket + 1)


def _least(bucket: int) -> float:
    if bucket < 2 * _WITHIN:
        return float(bucket)
    return float((_WITHIN + bucket % _WITHIN) << (bucket // _WITHIN - 1))
