"""A Feast repository of rides, written for these tests: several files, most of what Feast declares."""

from pathlib import Path

SETTINGS = """\
project: rides
registry: data/registry.db
provider: local
online_store:
  type: redis   # shared
  connection_string: "localhost:6379"
offline_store:
  type: file
"""
ENTITIES = '''
"""Who features are about."""
from feast import Entity, ValueType

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
zone = Entity(name="zone", join_keys=["zone_id"])
'''
VIEWS = """
import os
from datetime import timedelta
from pathlib import Path

from entities import driver, zone
from feast import FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64, Json, String

DATA = Path(__file__).parent / "data"
WEEK = timedelta(days=7)
COMMON = dict(owner="ada@example.org")

driver_stats = FileSource(
    name="driver_stats_source",
    path=str(DATA / "driver_stats.parquet"),
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
hourly = FeatureView(
    name="driver_hourly_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32, description="Accepted of \\"offered\\""),
        Field(name="trips", dtype=Int64),
        Field(name="car", dtype=String),
        Field(name="driver_id", dtype=Int64),
        Field(name="config", dtype=Json),
        Field(name="vector", dtype=Array(Float32), vector_length=3),
    ],
    source=driver_stats,
    tags={"team": "rides", "beta": ""},
    owner="ada@example.org",
    description="How drivers did",
)
ever = FeatureView(
    name="ever", entities=["driver"], ttl=timedelta(0), schema=[Field(name="conv_rate", dtype=Float32)],
    source=PushSource(name="driver_push", batch_source=driver_stats),
)
zones = FeatureView(
    name="zone__weather",
    entities=[zone],
    ttl=WEEK * 2,
    source=FileSource(path=os.path.join("data", "zones.parquet"), timestamp_field="ts",
                      field_mapping={"z": "zone_id", "t": "temperature"}),
)
for name in ("a", "b"):
    FeatureView(name=name, entities=[driver], source=driver_stats)

extra = RequestSource(name="extra", schema=[Field(name="surge", dtype=Float32)])


@on_demand_feature_view(sources=[hourly, extra], schema=[Field(name="rate", dtype=Float32)])
def surged(inputs):
    raise RuntimeError("nothing of a repository is run")


service = FeatureService(name="activity", features=[hourly[["conv_rate"]], ever, surged])
if __name__ == "__main__":
    raise SystemExit(FeatureView(name="never", entities=[driver]))
"""
STREAMS = """
from datetime import timedelta

from entities import driver
from feast import Aggregation, BigQuerySource, Field, KafkaSource, StreamFeatureView
from feast.data_format import JsonFormat
from feast.stream_feature_view import stream_feature_view
from feast.types import Float32

payments_table = BigQuerySource(table="proj.data.payments", timestamp_field="paid_at")
payments = KafkaSource(
    name="payments", kafka_bootstrap_servers="broker:9092", topic="payments", timestamp_field="paid_at",
    message_format=JsonFormat(schema_json="driver_id integer"), batch_source=payments_table,
)
paid = StreamFeatureView(
    name="paid", entities=[driver], source=payments, ttl=timedelta(hours=1),
    aggregations=[
        Aggregation(column="euros", function="sum", time_window=timedelta(hours=36)),
        Aggregation(column="euros", function="count", time_window=timedelta(days=7), name="payments_7d"),
        Aggregation(column="euros", function="median", time_window=timedelta(days=7)),
    ],
)


@stream_feature_view(entities=[driver], source=payments, schema=[Field(name="euros", dtype=Float32)])
def doubled(frame):
    raise RuntimeError("nothing of a repository is run")
"""


def write_rides(folder: Path) -> Path:
    """Write the repository."""
    (folder / "data").mkdir(parents=True)
    (folder / "old").mkdir()
    (folder / "feature_store.yaml").write_text(SETTINGS)
    (folder / "entities.py").write_text(ENTITIES)
    (folder / "views.py").write_text(VIEWS)
    (folder / "streams.py").write_text(STREAMS)
    (folder / ".feastignore").write_text("# what is not looked at\nold/\n")
    (folder / "old" / "broken.py").write_text("this is no Python")
    return folder
