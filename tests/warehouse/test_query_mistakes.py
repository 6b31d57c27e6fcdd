"""What is misspelt in a query is told with what was meant."""

import pyarrow as pa
import pytest

from noria.errors import ConfigError
from noria.warehouse.query import query

TABLES = {
    "sales": lambda: pa.table({"sold_at": [1], "Amount": [2.5], "shop": ["a"]}),
    "shops": lambda: pa.table({"shop": ["a"], "town": ["Graz"]}),
}


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select amont from sales", "did you mean 'Amount'?"),
        ("select s.amont from sales s", "did you mean 'Amount'?"),
        ("select sum(amount) from sales group by SHPO", "did you mean 'shop'?"),
        ("select * exclude (amuont) from sales", "did you mean 'Amount'?"),
        ("select twon from sales join shops using (shop)", "did you mean 'town'?"),
        ("with x as (select amount as eur from sales) select eurr from x", "did you mean 'eur'?"),
        ("select xyz from shops", "there is shop, town"),
        ("select foo(shop) from shops", "did you mean 'floor'?"),
    ],
)
def test_the_nearest_column_is_suggested(sql: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        query(sql, TABLES)
    first, *rest = str(error.value).splitlines()
    assert first.endswith(told), first
    assert rest == [f"  {sql}"]


def test_a_value_that_is_missing_is_asked_for_as_it_is_given() -> None:
    with pytest.raises(ConfigError, match=r"needs a value for \$e; give `--param e=\.\.\.`") as told:
        query("select shop from sales where amount > $e", TABLES)
    assert 'params={"e": ...}' in str(told.value)
    with pytest.raises(ConfigError, match=r"`--param a=\.\.\. --param b=\.\.\.`"):
        query("select $a + $b + $c as x", TABLES, params={"c": 1})
    with pytest.raises(ConfigError, match="give all in order"):
        query("select ? + ? as x", TABLES, params=[1])
    with pytest.raises(ConfigError, match=r"needs a value for \$v"):
        query("select * from sales for version as of $v", TABLES, travel=lambda name, state: TABLES[name]())
