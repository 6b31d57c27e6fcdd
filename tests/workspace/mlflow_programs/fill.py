# mypy: ignore-errors
"""Fills a store of MLflow with all that an import has to bring along. Knows nothing of noria."""

import math
import os
import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelInput, LoggedModelOutput, LoggedModelStatus, Metric, RunStatus
from mlflow.tracking import MlflowClient

client = MlflowClient()
shift = client.create_experiment("night shift", tags={"team": "ops", "note": "x" * 4_000})
gone = client.create_experiment("once upon a time")
client.create_experiment("empty", tags={"ä": "ö"})

with mlflow.start_run(experiment_id=shift, run_name="outer", tags={"why": "to see"}) as outer:
    mlflow.log_params({"leaves": 31, "rate": 0.1, "text": "ä ö ü ☃", "long": "p" * 6_000, "none": ""})
    mlflow.set_tag("long", "t" * 8_000)
    mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "minus inf": -math.inf, "tiny": 5e-324})
    for step in (3, 1, 2, -1):
        mlflow.log_metric("loss", 1 / (step + 2), step=step)
    mlflow.log_metric("loss", math.nan, step=2)
    mlflow.log_text("hello", "notes/über uns ☃.txt")
    mlflow.log_text("", "empty.txt")
    mlflow.log_dict({"a": 1}, "deep/down/a & b+c = 100% (ß).json")
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})
    mlflow.log_input(mlflow.data.from_pandas(frame, name="pairs"), context="training", tags={"k": "v"})
    mlflow.log_input(mlflow.data.from_pandas(frame[:1], name="one"))
    with mlflow.start_run(experiment_id=shift, run_name="inner", nested=True) as inner:
        mlflow.log_metric("loss", 0.01)
        with mlflow.start_run(experiment_id=gone, run_name="innermost", nested=True):
            mlflow.log_param("depth", 3)

many = client.create_run("0", run_name="many points").info.run_id
now = int(time.time() * 1_000)
points = [Metric("curve", math.sin(i), now + i // 3, i // 7) for i in range(int(os.environ["POINTS"]))]
for start in range(0, len(points), 1_000):
    client.log_batch(many, points[start : start + 1_000])
client.set_terminated(many)

client.create_run(shift, run_name="at work")
client.update_run(client.create_run(shift, run_name="to come").info.run_id, status="SCHEDULED")
client.set_terminated(client.create_run(shift, run_name="broken").info.run_id, "FAILED")
client.set_terminated(client.create_run(shift, run_name="killed").info.run_id, "KILLED", end_time=now)
net = client.create_logged_model(
    shift, name="net", source_run_id=outer.info.run_id, model_type="agent", params={"k": "ä"}, tags={"t": "v"}
).model_id
Path("MLmodel").write_text("flavors: {}")
client.log_model_artifact(net, "MLmodel")
client.finalize_logged_model(net, LoggedModelStatus.READY)
client.log_outputs(outer.info.run_id, [LoggedModelOutput(net, step=3)])
client.log_inputs(inner.info.run_id, models=[LoggedModelInput(net)])
client.log_metric(inner.info.run_id, "acc", 0.75, step=2, model_id=net, dataset_name="d", dataset_digest="1")
client.log_metric(inner.info.run_id, "acc", math.inf, step=4, model_id=net)
client.create_logged_model(shift, name="half done")
bad = client.create_logged_model("0", name="bad").model_id
client.finalize_logged_model(bad, LoggedModelStatus.FAILED)
client.delete_logged_model(client.create_logged_model(shift, name="regretted").model_id)

removed = client.create_run(shift, run_name="removed", start_time=1).info.run_id
client.log_metric(removed, "loss", 7.0)
with mlflow.start_run(run_id=removed):
    mlflow.log_text("still here", "rest.txt")
client.log_outputs(removed, [LoggedModelOutput(bad, step=0)])
client.delete_run(removed)
client.delete_experiment(gone)
assert client.get_run(many).info.status == RunStatus.to_string(RunStatus.FINISHED)
print(outer.info.run_id, inner.info.run_id, many, Path.cwd())
