import pytest

from noria.errors import ConfigError
from noria.lake.declarations import Dataset
from noria.streams.declarations import Stream
from noria.streams.opening import open_stream

VISITS = Dataset("visits", key="id", event_at="at", schema={"id": "string", "at": "timestamp[us, tz=UTC]"})


def test_a_stream_says_when_it_commits() -> None:
    stream = Stream("clicks", into=VISITS, every="5s", late_after="2m", key="id")
    assert (stream.period.total_seconds(), stream.lateness.total_seconds(), stream.rows) == (5, 120, 10_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "cannot name a stream"),
        ({"name": "../x"}, "cannot name a stream"),
        ({"into": "visits"}, "give the noria.Dataset"),
        ({"format": "avro"}, "no format 'avro'; there is json"),
        ({"rows": 0}, "rows is 0, it goes from 1 to 1000000"),
        ({"every": "soon"}, "every: 'soon' is no duration"),
        ({"late_after": "0s"}, "late_after: '0s' is an empty duration"),
        ({"partitions": 0}, "partitions is 0"),
        ({"backlog": 0}, "backlog is 0"),
        ({"keep_bytes": 0}, "keep_bytes is 0"),
        ({"key": "user"}, "key is 'user', which dataset 'visits' has not; it has id, at"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(changes: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"name": "clicks", "into": VISITS} | changes
    with pytest.raises(ConfigError, match=message):
        Stream(given.pop("name"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["pulsar://127.0.0.1:1", "log:", "nats://", "log"])
def test_a_url_that_is_none_says_what_there_is(url: str, tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(ConfigError, match="kafka, log, nats"):
        open_stream(url, "clicks", root=Path())


def test_a_backend_that_cannot_have_partitions_says_so() -> None:
    from pathlib import Path

    pytest.importorskip("nats")
    with pytest.raises(ConfigError, match="has one partition, 3 are wanted"):
        open_stream("nats://127.0.0.1:4222", "clicks", root=Path(), partitions=3)
