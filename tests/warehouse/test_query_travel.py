"""Tables as they were, whatever else a statement holds."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import ConfigError, NotFound
from noria.warehouse.query import AsOf, query

STATES = {1: [1], 2: [1, 2], 3: [1, 2, 3]}
MADE = {
    1: datetime(2013, 1, 1, tzinfo=UTC),
    2: datetime(2013, 5, 1, tzinfo=UTC),
    3: datetime(2013, 9, 1, tzinfo=UTC),
}
TABLES = {
    "flights": lambda: pa.table({"id": STATES[3]}),
    "planes": lambda: pa.table({"id": [2, 3], "tail": ["b", "c"]}),
    "old flights": lambda: pa.table({"id": [7]}),
}


def travel(name: str, wanted: AsOf) -> pa.Table:
    assert name in {"flights", "old flights"}
    if wanted.at is not None:
        held = [number for number, at in MADE.items() if at <= wanted.at]
        number = held[-1] if held else 0
    else:
        assert wanted.version is not None
        number = wanted.version
    if number not in STATES:
        raise NotFound("dataset version", f"{name}:{number}")
    return pa.table({"id": STATES[number]})


def ask(sql: str, params: Any = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query(sql, TABLES, travel=travel, params=params).to_pylist()
    return rows


COUNT = "select count(*) as n, max(flights.id) as last from "


@pytest.mark.parametrize(
    "clause",
    [
        "FOR VERSION AS OF 2",
        "for version as of 2",
        "FOR  VERSION\n AS -- the second\n OF /* really */ 2",
        "VERSION AS OF 2",
        "FOR VERSION AS OF '2'",
        "FOR VERSION AS OF (1 + 1)",
        "AT (VERSION => 2)",
        "at(version=>2)",
        "AT (VERSION => 1 + 1)",
        "FOR TIMESTAMP AS OF '2013-05-01'",
        "TIMESTAMP AS OF '2013-05-01'",
        "FOR SYSTEM_TIME AS OF '2013-08-31 23:59:59+00'",
        "FOR TIMESTAMP AS OF TIMESTAMP '2013-05-01'",
        "FOR TIMESTAMP AS OF DATE '2013-06-01'",
        "FOR TIMESTAMP AS OF ('2013-05-01'::date + interval 2 day)",
        "AT (TIMESTAMP => '2013-05-01'::TIMESTAMP)",
        "AT (TIMESTAMP => TIMESTAMP '2013-05-03' - INTERVAL '1 day')",
    ],
)
@pytest.mark.parametrize(
    "after", ["", " as flights", " flights", " where true", " join planes using (id)", ";"]
)
def test_every_way_to_ask_for_a_table_as_it_was(clause: str, after: str) -> None:
    found = ask(f"{COUNT}flights {clause}{after}")
    assert found == [{"n": 1 if "join" in after else 2, "last": 2}]


def test_an_alias_may_stand_before_the_clause_as_in_duckdb() -> None:
    assert ask("select max(f.id) as m from flights f at (version => 1)") == [{"m": 1}]
    assert ask("select max(f.id) as m from flights as f at (version => 1) where f.id > 0") == [{"m": 1}]


def test_states_of_one_table_meet_in_one_statement() -> None:
    sql = """
        select id from flights
        except select id from flights for version as of 2
        union all select id + 100 from main.flights at (version => 1) "f.x"
        order by 1
    """
    assert ask(sql) == [{"id": 3}, {"id": 101}]
    joined = """
        with old as (select * from flights for version as of 1),
             new as (select * from flights for timestamp as of '2013-06-01')
        select count(*) filter (where old.id is null) as came from new left join old using (id)
    """
    assert ask(joined) == [{"came": 1}]


def test_quoted_names_and_descriptions() -> None:
    assert ask('select * from "old flights" for version as of 1') == [{"id": 1}]
    assert ask('describe "flights" for version as of 1')[0]["column_name"] == "id"
    assert ask("summarize flights for version as of 2")[0]["max"] == "2"
    assert ask("select count(*) as n from (summarize FLIGHTS at (version => 1))") == [{"n": 1}]


def test_parameters_name_version_or_instant() -> None:
    sql = "select count(*) as n from flights for version as of $v where id >= $low"
    assert ask(sql, {"v": 3, "low": 2}) == [{"n": 2}]
    at = datetime(2013, 6, 1, tzinfo=UTC)
    assert ask("select count(*) as n from flights for timestamp as of $at", {"at": at}) == [{"n": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "select 'flights for version as of 1' as t, count(*) as n from flights",
        "select count(*) as n, 'x' as t from flights -- for version as of 1",
        "select count(*) as n, $$ at (version => 1) $$ as t from flights",
        "select count(*) as n, 'it''s at (version => 1)' as t from flights /* for version as of 1 */",
        'select count(*) as n, 1 as "for version as of 1" from flights',
        "select count(*) as n, e'\\' for version as of 1' as t from flights",
        "select count(*) as n, substring('abc' from 1 for 2) as t from flights as version",
        "select count(version) as n, max(of.id) as t from (select id as version, id from flights) as of",
        "select len([x for x in list(id)]) as n, 1 as t from flights",
    ],
)
def test_what_only_looks_like_time_travel_is_left_alone(sql: str) -> None:
    assert ask(sql)[0]["n"] == 3


@pytest.mark.parametrize(
    ("sql", "error", "match"),
    [
        ("from flights for version as of 9", NotFound, "flights:9"),
        ("from flights for timestamp as of '2012-01-01'", NotFound, "flights:0"),
        ("from nothing for version as of 1", NotFound, "no table named 'nothing'"),
        ("from other.flights for version as of 1", NotFound, "other.flights"),
        ("from flights for version as of 'x'", ConfigError, "is not a version's number"),
        ("from flights for timestamp as of 'soon'", ConfigError, "is not an instant"),
        ("from flights for timestamp as of null", ConfigError, "followed by null"),
        ("from flights for version as of (null)", ConfigError, "is null; name a version"),
        ("from flights for version as of -1", ConfigError, "followed by -"),
        ("from flights for version as of", ConfigError, "followed by nothing"),
        ("from (from flights) for version as of 1", ConfigError, "has to follow a table's name"),
        ("for version as of 1", ConfigError, "begins with FOR"),
        ("from flights for version as of (select max(id) from planes)", NotFound, "planes"),
        ("from flights at (version => (select * from read_text('/etc/hostname')))", ConfigError, "read_text"),
    ],
)
def test_what_cannot_be_read_as_it_was_is_told(sql: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ask(sql)


def test_tables_without_versions_say_so() -> None:
    with pytest.raises(ConfigError, match="'flights' cannot be read as it was"):
        query("from flights for version as of 1", TABLES)


PIECES = st.sampled_from(
    ["flights", " for ", " version ", " as ", " of ", "1", "(", ")", " at ", "=>", "'", '"', "--", "/*", "*/",
     ";", "select ", " from ", "$", "$$", "é", "?", ",", ".", "\n", " join ", "timestamp ",
     " describe ", " pivot "]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_no_text_is_answered_by_a_fault_of_ours(sql: str) -> None:
    with suppress(ConfigError, NotFound):
        ask(sql)
