"""A statement and the lake give one answer for one instant."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import noria
from noria.errors import NotFound

DAY0 = datetime(2013, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "small"\nmodules = ["small"]\n')
    (tmp_path / "small.py").write_text(
        'import noria\n\nrows = noria.Dataset("rows", key="id", event_at="t", known_at="t")\n'
    )
    return tmp_path


def test_batches_that_are_recorded_for_earlier_instants_read_alike_in_both(root: Path) -> None:
    def instant(day: int) -> datetime:
        return DAY0 + timedelta(days=day)

    with noria.open(root) as project:
        for batch, day in enumerate((2, 5, 3, 3), 1):
            rows = pa.table({"id": [batch], "t": pa.array([batch], pa.timestamp("us", "UTC"))})
            project.lake.ingest(project.declarations.datasets["rows"], rows, batch=batch, at=instant(day))
        project.lake.compact("rows")
        for day, many in ((2, 1), (3, 4), (4, 4), (5, 2), (9, 2)):
            at = instant(day)
            assert project.lake.read("rows", at=at).num_rows == many
            asked = f"select count(*) as n from rows for timestamp as of '{at.isoformat()}'"
            assert project.query(asked)["n"].to_pylist() == [many]
        with pytest.raises(NotFound, match="rows:1 of 2013-01-03"):
            project.lake.read("rows", at=instant(1))
        with pytest.raises(NotFound, match="rows:1 of 2013-01-03"):
            project.query(f"from rows for timestamp as of '{instant(1).isoformat()}'")
