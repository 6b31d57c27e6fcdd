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
