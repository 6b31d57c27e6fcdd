import pyarrow as pa
import pytest

from .parcel_project import make_rows


@pytest.fixture(scope="session")
def rows_and_labels() -> tuple[pa.Table, pa.Table]:
    return make_rows(3_000)
