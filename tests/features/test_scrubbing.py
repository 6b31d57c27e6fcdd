"""What an online store has let go of leaves no byte behind."""

from datetime import UTC, datetime
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from noria.clock import to_micros
from noria.errors import StoreError
from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.features.scrubbing import scrub
from noria.lake.declarations import Dataset

INSTANT = pa.timestamp("us", tz="UTC")
AT = datetime(2024, 3, 1, tzinfo=UTC)
VISITS = Dataset("visits", key="id", event_at="at", known_at="at")
VIEW = FeatureView(
    "by_who", source=VISITS, entity="who", features={"n": agg.count("1d"), "last": agg.last("eur")}
)


def visits(many: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"visit-of-{number % 997}-{number}" for number in range(many)],
            "who": [f"person-{number % 997}-" for number in range(many)],
            "eur": [float(number % 7) for number in range(many)],
            "at": pa.array([AT] * many, INSTANT),
        }
    )


def test_a_view_that_is_loaded_without_an_entity_and_scrubbed_has_no_byte_of_it(tmp_path: Path) -> None:
    rows = visits(5_000)
    with LmdbOnlineStore(tmp_path) as store:
        prepared = store.prepare(VIEW, rows)
        for start in range(0, 5_000, 500):  # pages are written over and over
            store.apply([(VIEW.spec(), prepared, start, start + 500)])
    data = tmp_path / "data.mdb"
    assert b"person-7-" in data.read_bytes()
    reader = LmdbFeatureReader(tmp_path)
    asked = [f"person-{number}-" for number in range(997)]
    before = reader.read([VIEW.spec()], {"who": asked}, to_micros(AT))
    reader.close()
    with LmdbOnlineStore(tmp_path) as store:
        store.load(VIEW, rows.filter(pc.not_equal(rows["who"], "person-7-")))
        store.scrub()
    raw = data.read_bytes()
    assert (raw.count(b"person-7-"), raw.count(b"visit-of-7-")) == (0, 0)
    reader = LmdbFeatureReader(tmp_path)
    after = reader.read([VIEW.spec()], {"who": asked}, to_micros(AT))
    reader.close()
    others = np.arange(997) != 7
    np.testing.assert_array_equal(after[others], before[others])
    assert np.nan_to_num(after[7]).tolist() == [0, 0]


def test_a_reader_that_stays_keeps_what_it_reads_and_the_rest_goes_on(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=4, map_size=1 << 26) as environment:
        rows = environment.open_db(b"rows")
        with environment.begin(write=True) as txn:
            for number in range(2_000):
                txn.put(b"key-%d" % number, b"secret" * 20, db=rows)
        with environment.begin() as reading:
            with environment.begin(write=True) as txn:
                txn.drop(rows, delete=False)
            scrub(environment)
            assert reading.get(b"key-7", db=rows) == b"secret" * 20
        scrub(environment)
        assert b"secret" not in (tmp_path / "data.mdb").read_bytes()


def test_only_a_writer_scrubs(tmp_path: Path) -> None:
    with LmdbOnlineStore(tmp_path) as store:
        store.load(VIEW, visits(3))
    with (
        LmdbOnlineStore(tmp_path, readonly=True) as store,
        pytest.raises(StoreError, match="not open to write"),
    ):
        store.scrub()
