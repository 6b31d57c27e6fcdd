"""What is counted of requests that are answered together, and entered once: the same as entering each."""

from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from noria.serving.http.metrics import Metrics

STATUSES = [HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE]
COUNTED = st.tuples(
    st.sampled_from(["late", "other", ""]),
    st.sampled_from(STATUSES),
    st.sampled_from([0.0, 2**-11, 0.5, 0.75, 1.0, 7.0]),
    st.dictionaries(st.sampled_from(["a:1", "a:2"]), st.integers(0, 5)),
    st.booleans(),  # whether all so far leave then
)


def told(metrics: Metrics) -> set[str]:
    """Give what is exposed of requests."""
    return {
        line
        for line in metrics.expose().decode().splitlines()
        if line.startswith("noria_") and "_created" not in line
    }


@given(st.lists(COUNTED, max_size=30))
def test_entering_many_at_once_tells_what_entering_each_tells(
    counted: list[tuple[str, HTTPStatus, float, dict[str, int], bool]],
) -> None:
    together, one_by_one = Metrics(environment="production"), Metrics(environment="production")
    for deployment, status, seconds, rows, leaves in counted:
        for metrics in (together, one_by_one):
            counting = metrics.of(deployment)
            if status is HTTPStatus.OK:
                more = {each: count + 1 for each, count in rows.items()}
                counting.count_answer(deployment, seconds, scored=more, answered=rows, repeated=len(rows))
            else:
                counting.count_refusal(deployment, seconds, status)
        one_by_one.of(deployment).enter()
        if leaves:
            together.of(deployment).enter()
    assert told(together) == told(one_by_one)
    times = [line for line in told(together) if line.startswith("noria_request_seconds_count")]
    assert sum(float(line.split()[-1]) for line in times) == len(counted)
