"""Numbers in tables of dashboards: no digit of an integer is lost."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import noria
from noria.warehouse.dashboards.content import Column, read_content
from noria.warehouse.dashboards.page import cell

NUMBER = Column("n", "number")


@given(st.integers())
def test_an_integer_is_written_with_all_its_digits(value: int) -> None:
    assert int(cell(value, NUMBER).replace(",", "")) == value


@given(st.floats(min_value=-1e14, max_value=1e14))
def test_a_real_number_is_written_to_the_cent_or_to_four_digits(value: float) -> None:
    read = float(cell(value, NUMBER).replace(",", ""))
    assert abs(read - value) <= max(0.0051, abs(value) * 1e-14) if abs(value) >= 1 else True
    assert read == pytest.approx(value, rel=5.1e-4, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (12_345_678.0, "12,345,678"),
        (98_765.4321, "98,765.43"),
        (9_999.5, "9999.5"),
        (2013.0, "2013"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        (1e20, "1e+20"),
        (2**70, "1,180,591,620,717,411,303,424"),
    ],
)
def test_large_numbers_are_not_rounded(value: float, told: str) -> None:
    assert cell(value, NUMBER) == told


def test_an_integer_of_more_than_64_bits_comes_whole_into_a_table(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "sums"\n')
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "sums.toml").write_text(
        '[panels.t]\nkind = "table"\nsql = "select 170141183460469231731687303715884105727 as n"\n'
    )
    with noria.open(tmp_path) as project:
        built = project.build_dashboard("sums")
        assert built.failed == {}
        page = built.files[0].read_text()
        assert "170,141,183,460,469,231,731,687,303,715,884,105,727" in page
        assert read_content(project.storage.get(built.report.sha256)).panels["t"].count == 1
