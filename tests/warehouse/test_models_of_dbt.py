"""The models of a dbt project are taken in; what is not understood is refused by name."""

from pathlib import Path

import pytest
from tests.warehouse.small_project import SmallProject, orders

from noria.errors import ConfigError

PROJECT = """
    name: jaffle
    version: "1.0"
    profile: none
    vars:
      least: 5
    models:
      jaffle:
        +materialized: table
        staging:
          +materialized: view
"""
PROPERTIES = """
    version: 2
    sources:
      - name: raw
        tables:
          - name: sales
            identifier: orders
    models:
      - name: by_shop
        description: Sums of each shop.
        columns:
          - name: shop
            tests:
              - unique
              - not_null
              - accepted_values:
                  values: [a, b]
              - relationships:
                  to: ref('stg_orders')
                  field: shop
          - name: total
            data_tests:
              - dbt_utils.accepted_range:
                  min_value: 0
"""


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.write(
        {
            "noria.toml": '[project]\nname = "shop"\n[warehouse]\ndbt = "jaffle"\n',
            "jaffle/dbt_project.yml": PROJECT,
            "jaffle/models/schema.yml": PROPERTIES,
            "jaffle/models/staging/stg_orders.sql": """
                -- a comment
                select * from {{ source('raw', 'sales') }}
                where amount >= {{ var('least') }}
            """,
            "jaffle/models/by_shop.sql": """
                {{ config(materialized='table', tags=['sums']) }}
                {% set columns = ['amount'] %}
                select shop, {% for each in columns %}sum({{ each }}) as total{% endfor %}
                from {{ ref('stg_orders') }}
                {% if is_incremental() %}
                where placed_at > (select max(placed_at) from {{ this }})
                {% endif %}
                group by shop
            """,
            "jaffle/models/by_day.sql": """
                {{ config(materialized='incremental',
                          partition_by={'field': 'day', 'granularity': 'day'}) }}
                select date_trunc('day', placed_at) as day, count(*) as n
                from {{ ref('stg_orders') }} group by 1
            """,
            "jaffle/tests/none_below.sql": "select * from {{ ref('by_shop') }} where total < 5",
        }
    )
    made.add(orders((0, "a", 10), (1, "b", 20), (1, "a", 1)))
    return made


def test_its_models_are_built_as_it_says(shop: SmallProject) -> None:
    assert shop.transform() == {"stg_orders": "view", "by_day": "built", "by_shop": "built"}
    assert shop.rows("by_shop") == [{"shop": "a", "total": 10}, {"shop": "b", "total": 20}]
    assert shop.transform() == {"stg_orders": "view", "by_day": "unchanged", "by_shop": "unchanged"}
    with shop.open() as project:
        shown = project.show_table("by_shop")
        assert (shown.description, shown.tags) == ("Sums of each shop.", ("sums",))
        assert [each.name for each in shown.tests] == [
            "unique(shop)",
            "not_null(shop)",
            "shop in ('a', 'b')",
            "none_below",
            "shop refers to stg_orders.shop",
        ]


def test_partitions_that_it_names_are_built_alone(shop: SmallProject) -> None:
    shop.transform()
    before = shop.files("by_day")
    shop.add(orders((1.5, "b", 7)))
    shop.transform()
    assert {name for name, file in shop.files("by_day").items() if before.get(name) != file} == {"20260102"}


def test_its_tests_block(shop: SmallProject) -> None:
    shop.add(orders((2, "c", 30)))
    assert "test shop in ('a', 'b') fails for 1 row, for example shop = 'c'" in shop.reasons()["by_shop"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "select {{ dbt_utils.star(ref('by_shop')) }} from x",
            "it uses dbt_utils.star; noria understands config",
        ),
        ("select * from {{ made_up('x') }}", "it uses 'made_up'"),
        ("select {{ env_var('HOME') }}", "it uses 'env_var'"),
        ("{{ config(materialized='snapshot') }} select 1 as n", "it is materialized as 'snapshot'"),
        ("{{ config(pre_hook='drop table x') }} select 1 as n", "it has a pre_hook, and noria runs none"),
        ("select {{ var('nothing') }}", "var('nothing') is set nowhere"),
        ("select {% if %}", "line 1: "),
        ("select {{ ''.__class__.__mro__ }}", "it uses '__class__'"),
        ("select * from {{ ref('gone') }}", "no table named 'gone'"),
        ("select 1 from", "line 1, column"),
        ("select {{ 1 / 0 }}", "it cannot be rendered: division by zero"),
        ("select {{ range(10 ** 9) | length }}", "it cannot be rendered: Range too big"),
        ("{{ ref() }}", "ref() names no model"),
        ("select * from {{ ref('other', 'by_shop') }}", "names a model of the package 'other'"),
        ("select * from {{ ref('by_shop', v=2) }}", "wants version 2, which no file of properties declares"),
        ("select * from {{ source('raw', 'by_shop') }}", "and a model makes one of that name"),
    ],
)
def test_what_is_not_understood_is_refused_by_name_and_the_rest_goes_on(
    shop: SmallProject, text: str, told: str
) -> None:
    shop.write({"jaffle/models/odd.sql": text})
    found = shop.reasons()
    assert found["odd"].startswith("jaffle/models/odd.sql")
    assert told in found["odd"]
    assert shop.rows("by_shop")


def test_tests_of_packages_and_incremental_without_a_partition_are_noted(shop: SmallProject) -> None:
    shop.write({"jaffle/models/merged.sql": "{{ config(materialized='incremental') }} select 1 as n"})
    with shop.open() as project:
        notes = project.transform().notes
    assert "test dbt_utils.accepted_range of model by_shop is not understood, and not run" in notes[0]
    assert notes[1].startswith("jaffle/models/merged.sql: it is incremental without partition_by")


def test_a_folder_that_is_no_dbt_project_is_told(shop: SmallProject) -> None:
    (shop.root / "jaffle/dbt_project.yml").unlink()
    with (
        shop.open() as project,
        pytest.raises(ConfigError, match=r"there is no .*dbt_project\.yml; correct `dbt`"),
    ):
        project.transform()


def test_what_jinja_has_is_understood(shop: SmallProject) -> None:
    shop.write(
        {
            "jaffle/models/wide.sql": """
                {% set sums = namespace(of=0) %}
                {% for each in range(3) %}{% set sums.of = sums.of + each %}{% endfor %}
                select {{ sums.of }} as total, * from {{ ref('jaffle', 'by_shop') }}
            """
        }
    )
    shop.transform()
    assert {each["total"] for each in shop.rows("wide")} == {3}


def test_versions_are_told_apart(shop: SmallProject) -> None:
    versions = """
        models:
          - name: prices
            latest_version: 2
            versions:
              - {v: 1, defined_in: prices_old}
              - {v: 2}
              - {v: 3, config: {enabled: false}}
            columns:
              - name: n
                tests: [unique]
    """
    shop.write(
        {
            "jaffle/models/versions.yml": versions,
            "jaffle/models/prices_old.sql": "select 1 as n",
            "jaffle/models/prices_v2.sql": "select 2 as n",
            "jaffle/models/prices_v3.sql": "select n from nowhere",
            "jaffle/models/both.sql": """
                select 'old' as what, n from {{ ref('prices', version=1) }}
                union all select 'new', n from {{ ref('prices') }}
            """,
        }
    )
    assert "prices_v3" not in shop.transform()
    assert {each["what"]: each["n"] for each in shop.rows("both")} == {"old": 1, "new": 2}
    with shop.open() as project:
        assert [each.name for each in project.show_table("prices_old").tests] == ["unique(n)"]


def test_two_sources_of_one_name_are_not_taken_for_one(shop: SmallProject) -> None:
    shop.write(
        {
            "jaffle/models/more.yml": """
                sources:
                  - name: elsewhere
                    tables: [{name: orders}]
            """,
            "jaffle/models/odd.sql": "select * from {{ source('elsewhere', 'orders') }}",
        }
    )
    found = shop.reasons()
    told = "the sources raw.sales and elsewhere.orders are two tables, and both would be 'orders'"
    assert told in found["stg_orders"]
    assert "give one an `identifier`" in found["odd"]


def test_what_is_switched_off_is_left_out(shop: SmallProject) -> None:
    shop.write(
        {
            "jaffle/dbt_project.yml": PROJECT + "        old:\n          +enabled: false\n",
            "jaffle/models/old/gone.sql": "select {{ made_up() }}",
            "jaffle/models/off.sql": "{{ config(enabled=false) }} select {{ made_up() }}",
            "jaffle/models/unsaid.sql": "select 1 as n",
            "jaffle/models/off.yml": "models: [{name: unsaid, config: {enabled: false}}]",
            "jaffle/tests/off.sql": "{{ config(enabled=false) }} select {{ made_up() }}",
            "jaffle/tests/generic/even.sql": "{% test even(model) %} select 1 {% endtest %}",
        }
    )
    assert set(shop.transform()) == {"stg_orders", "by_day", "by_shop"}


def test_tests_are_limited_as_they_say(shop: SmallProject) -> None:
    shop.write(
        {
            "jaffle/models/all_orders.sql": "select * from {{ source('raw', 'sales') }}",
            "jaffle/models/tests.yml": """
                models:
                  - name: all_orders
                    tests:
                      - unique: {column_name: "shop || amount"}
                      - name: as_dbt_writes_it_too
                        test_name: not_null
                        column_name: shop
                    columns:
                      - name: shop
                        tests:
                          - unique: {config: {where: amount >= 20}}
                          - relationships: {to: ref('by_shop'), field: shop, where: amount > 5}
                          - not_null: {config: {enabled: false}}
                      - name: amount
                        tests:
                          - accepted_values: {values: [1, 10], quote: false, config: {where: "shop = 'a'"}}
                          - accepted_values: {values: [7], config: {error_if: "> 100"}}
                          - not_null: {config: {where: "{{ var('x') }} > 1"}}
            """,
        }
    )
    with shop.open() as project:
        done = project.transform()
        tests = [each.name for name in ("all_orders", "by_shop") for each in project.show_table(name).tests]
    assert {each.model: each.state for each in done.models}["all_orders"] == "built"
    assert set(tests) > {
        "amount in (1, 10) where shop = 'a'",
        "not_null(shop)",
        "shop refers to by_shop.shop where amount > 5",
        "unique(shop) where amount >= 20",
        "unique(shop || amount)",
    }
    assert sum("of model all_orders is not understood, and not run" in each for each in done.notes) == 2
    shop.add(orders((3, "b", 21)))
    assert "unique(shop) where amount >= 20 fails for 1 row" in shop.reasons()["all_orders"]
    shop.add(orders((3, "a", 7)))
    assert "amount in (1, 10) where shop = 'a' fails for 1 row" in shop.reasons()["all_orders"]


def test_what_noria_does_not_make_is_told_where_it_is_read(shop: SmallProject) -> None:
    shop.write(
        {
            "jaffle/seeds/codes.csv": "a\n1\n",
            "jaffle/snapshots/past.sql": "{% snapshot shops_then %} select 1 {% endsnapshot %}",
            "jaffle/models/learned.py": "def model(dbt, session): ...",
            "jaffle/models/odd.sql": """
                select * from {{ ref('codes') }}, {{ ref('shops_then') }}, {{ ref('learned') }}
            """,
        }
    )
    with shop.open() as project:
        notes = project.transform().notes
    assert any("jaffle/seeds/codes.csv: 'codes' is a seed, and noria loads none" in each for each in notes)
    assert any("'shops_then' is a snapshot" in each for each in notes)
    assert any("'learned' is a model in Python" in each for each in notes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: 5", "models is '5', wanted is a list"),
        ("models: [a]", "wanted is a list"),
        ("models: [{name: a, columns: {x: 1}}]", "columns is"),
        ("models: [{name: a, columns: [{tests: [unique]}]}]", "a column of model a has no name"),
        ("models: [{name: a, tests: unique}]", "tests is 'unique', wanted is a list"),
        ("models: [{name: a, tests: [5]}]", "'5' is no test"),
        ("models: [{name: a, tests: [{}]}]", "is no test"),
        ("models: [{name: a, tests: [{unique: [x]}]}]", "no mapping"),
        ("models: [{name: a, config: 5}]", "config is '5', wanted is a mapping"),
        ("models: [{name: a, versions: [{x: 1}]}]", "a version of model a has no `v`"),
        ("models: [{name: a, latest_version: 3, versions: [{v: 1}]}]", "which is none of 1"),
        ("sources: [x]", "sources is"),
        ("sources: [{name: a, tables: [{identifier: y}]}]", "a table of source a has no name"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_of_properties_that_cannot_be_is_told(shop: SmallProject, text: str, told: str) -> None:
    shop.write({"jaffle/models/odd.yml": text})
    with pytest.raises(ConfigError) as caught:
        shop.transform()
    assert "odd.yml" in str(caught.value)
    assert told in str(caught.value)
