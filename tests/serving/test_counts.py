"""Counts of releases: what is observed, in whatever worker, is what is added up."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from noria.serving.counts import BUCKETS, ReleaseCounts, RouteCounts, bucket_ends_us, bucket_of

REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["m:1", "m:2"]),
        st.integers(1, 50),
        st.integers(-5, 2**40),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=30,
)


@given(st.integers(-5, 2**40))
def test_a_time_lies_in_its_bucket_which_is_narrow(latency_us: int) -> None:
    bucket = bucket_of(latency_us)
    least, above = bucket_ends_us(bucket)
    assert 0 <= bucket < BUCKETS
    assert least <= max(latency_us, 0) < above
    assert bucket == BUCKETS - 1 or above - least <= max(1.0, least / 16)


def test_buckets_have_no_gaps() -> None:
    ends = [bucket_ends_us(each) for each in range(BUCKETS)]
    assert [least for least, _ in ends[1:]] == [above for _, above in ends[:-1]]
    assert [bucket_of(int(least)) for least, _ in ends] == list(range(BUCKETS))


@given(REQUESTS, st.integers(0, 30))
def test_workers_add_up_to_one_that_saw_all(
    requests: list[tuple[str, int, int, int, bool]], cut: int
) -> None:
    whole, parts = RouteCounts(route=7), [RouteCounts(route=7), RouteCounts(route=7)]
    for place, (release, rows, latency_us, missing, failed) in enumerate(requests):
        for counts in (whole, parts[place >= cut]):
            counts.of(release).observe(rows, latency_us, missing=missing, failed=failed)
    sent = [msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=RouteCounts) for each in parts]
    added = RouteCounts.merged(7, [*sent, RouteCounts(route=6, releases={"m:1": ReleaseCounts(requests=9)})])
    assert added.releases.keys() == whole.releases.keys()
    for release, expected in whole.releases.items():
        found = added.of(release)
        assert (found.requests, found.errors, found.incomplete, found.rows, found.missing) == (
            expected.requests,
            expected.errors,
            expected.incomplete,
            expected.rows,
            expected.missing,
        )
        assert found.buckets == expected.buckets
        assert (found.latency_us, sum(found.buckets)) == (expected.latency_us, found.requests)


@given(st.integers(-5, 2**40))
def test_a_request_is_counted_in_the_bucket_of_its_time(latency_us: int) -> None:
    counts = ReleaseCounts()
    counts.observe(3, latency_us, missing=1, failed=True)
    assert counts.buckets[bucket_of(latency_us)] == 1
    assert (counts.requests, counts.errors, counts.incomplete, counts.rows, counts.missing) == (1, 1, 1, 3, 1)


@given(st.integers(-5, 2**20), st.integers(1, 50), st.integers(1, 9), st.booleans(), st.booleans())
def test_requests_that_are_alike_are_counted_at_once_as_one_by_one(
    latency_us: int, count: int, rows: int, has_missing: bool, failed: bool
) -> None:
    at_once, one_by_one = ReleaseCounts(), ReleaseCounts()
    missing = int(has_missing)
    at_once.observe(count * rows, latency_us, missing=count * missing, failed=failed, requests=count)
    for _ in range(count):
        one_by_one.observe(rows, latency_us, missing=missing, failed=failed)
    assert at_once == one_by_one
