# mypy: ignore-errors
"""Feast on files and SQLite, as its quick start has it: `run_feast sets|online FOLDER ROWS`.

`sets` joins the first rows of `spine.parquet` with three views of `rows.parquet` on its DuckDB store, the
quicker one of the two that need no server. `online` loads `values.parquet` and reads entities. Prints one
line of JSON.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType

AT = "event_timestamp"


def store_of(folder: Path) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "feast.db"),
            offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": str(folder / "feast_online.db")},
            entity_key_serialization_version=3,
        )
    )


def view(entity: str, path: Path, columns: list[str]) -> tuple[Entity, FeatureView]:
    keyed = Entity(name=entity, join_keys=[entity], value_type=ValueType.STRING)
    return keyed, FeatureView(
        name=f"by_{entity}",
        entities=[keyed],
        ttl=timedelta(days=7),
        schema=[Field(name=each, dtype=Float64) for each in columns],
        source=FileSource(path=str(path), timestamp_field=AT),
    )


def sets(folder: Path, rows: int) -> dict[str, float]:
    entities, columns = ["carrier", "dest", "tailnum"], ["arr_delay", "dep_delay"]
    store = store_of(folder)
    store.apply([part for each in entities for part in view(each, folder / "rows.parquet", columns)])
    spine = pd.read_parquet(folder / "spine.parquet").head(rows)
    wanted = [f"by_{entity}:{column}" for entity in entities for column in columns]
    cpu, wall = time.process_time(), time.perf_counter()
    made = store.get_historical_features(spine, wanted, full_feature_names=True).to_arrow()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "rows": made.num_rows}


def online(folder: Path, rows: int) -> dict[str, float]:
    columns = [f"f{each}" for each in range(10)]
    store = store_of(folder)
    store.apply(list(view("who", folder / "values.parquet", columns)))
    names = pd.read_parquet(folder / "values.parquet", columns=["who"])["who"].tolist()
    cpu, wall = time.process_time(), time.perf_counter()
    store.materialize(datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC))
    loading = {
        "load_us": (time.perf_counter() - wall) / rows * 1e6,
        "load_cpu_us": (time.process_time() - cpu) / rows * 1e6,
    }
    wanted = [f"by_who:{each}" for each in columns]

    def p50_us(entities: int, runs: int) -> float:
        taken = []
        for run in range(runs):
            asked = [{"who": names[(run * 7919 + each * 104_729) % len(names)]} for each in range(entities)]
            began = time.perf_counter()
            found = store.get_online_features(wanted, asked).to_dict()
            taken.append(time.perf_counter() - began)
            assert None not in found["f0"]
        return median(taken[runs // 10 :]) * 1e6

    return loading | {"one_us": p50_us(1, 500), "hundred_us": p50_us(100, 50)}


if __name__ == "__main__":
    what, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    told = (sets if what == "sets" else online)(folder, rows)
    print(json.dumps({"version": version("feast")} | told))
