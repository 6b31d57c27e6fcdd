# mypy: ignore-errors
"""What a user of MLflow does all day: experiments, runs, metrics, files, searches. Knows nothing of noria."""

import math
import os
import sys
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

client = MlflowClient()


def code_of(call, *arguments, **named) -> str:
    try:
        call(*arguments, **named)
    except MlflowException as error:
        return error.error_code
    raise AssertionError(f"{call} was not refused")


assert [each.name for each in client.search_experiments()] == ["Default"]
folder = mlflow.set_experiment("night shift")
assert mlflow.set_experiment("night shift").experiment_id == folder.experiment_id
client.set_experiment_tag(folder.experiment_id, "team", "ops")

with mlflow.start_run(run_name="first", tags={"why": "to see"}) as outer:
    mlflow.log_param("leaves", 31)
    mlflow.log_params({"rate": 0.1, "text": "ä ö ü"})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"auc": 0.9, "nan": math.nan, "inf": math.inf})
    mlflow.log_text("hello", "notes/über uns.txt")
    mlflow.log_dict({"a": 1}, "settings.json")
    mlflow.log_table({"x": [1, 2]}, "table.json")
    mlflow.log_input(mlflow.data.from_pandas(pd.DataFrame({"x": [1, 2]}), name="pairs"), context="training")
    with mlflow.start_run(run_name="inner", nested=True) as inner:
        mlflow.log_metric("loss", 0.01)

run = client.get_run(outer.info.run_id)
assert (run.info.status, run.info.run_name, run.info.experiment_id) == (
    "FINISHED",
    "first",
    folder.experiment_id,
)
assert run.info.end_time >= run.info.start_time > 0
assert run.data.params == {"leaves": "31", "rate": "0.1", "text": "ä ö ü"}
assert (run.data.metrics["loss"], run.data.metrics["auc"]) == (0.05, 0.9)
assert math.isnan(run.data.metrics["nan"])
assert run.data.tags["why"] == "to see"
assert run.inputs.dataset_inputs[0].dataset.name == "pairs"
assert client.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] == outer.info.run_id
history = client.get_metric_history(outer.info.run_id, "loss")
assert [(each.step, each.value) for each in history] == [(step, 1 / (step + 1)) for step in range(20)]

found = mlflow.search_runs(
    filter_string="params.leaves = '31' and metrics.loss < 0.1", order_by=["metrics.loss DESC"]
)
assert list(found["run_id"]) == [outer.info.run_id]
children = client.search_runs([folder.experiment_id], f"tags.mlflow.parentRunId = '{outer.info.run_id}'")
assert [each.info.run_id for each in children] == [inner.info.run_id]
assert (
    client.search_runs([folder.experiment_id], "attributes.run_name ILIKE 'FIR%'")[0].info.run_name == "first"
)

assert {each.path for each in client.list_artifacts(outer.info.run_id)} == {
    "notes",
    "settings.json",
    "table.json",
}
assert mlflow.artifacts.load_text(f"runs:/{outer.info.run_id}/notes/über uns.txt") == "hello"
there = Path(client.download_artifacts(outer.info.run_id, "", dst_path=os.environ["HOME"]))
assert (there / "settings.json").exists()
big = Path(os.environ["HOME"], "big.bin")
big.write_bytes(os.urandom(3 << 20))
client.log_artifact(outer.info.run_id, str(big), "deep/down")
assert (
    Path(client.download_artifacts(outer.info.run_id, "deep/down/big.bin")).read_bytes() == big.read_bytes()
)

with mlflow.start_run(run_id=outer.info.run_id):
    mlflow.log_metric("late", 1)
assert client.get_run(outer.info.run_id).info.status == "FINISHED"
client.set_terminated(inner.info.run_id, "FAILED")
assert client.get_run(inner.info.run_id).info.status == "FAILED"
client.update_run(inner.info.run_id, name="renamed")
assert client.get_run(inner.info.run_id).data.tags["mlflow.runName"] == "renamed"

client.delete_run(inner.info.run_id)
assert client.get_run(inner.info.run_id).info.lifecycle_stage == "deleted"
assert code_of(client.log_metric, inner.info.run_id, "loss", 1.0) == "INVALID_PARAMETER_VALUE"
client.restore_run(inner.info.run_id)

assert code_of(client.log_param, outer.info.run_id, "leaves", 32) == "INVALID_PARAMETER_VALUE"
assert code_of(client.get_run, "0" * 32) == "RESOURCE_DOES_NOT_EXIST"
assert code_of(client.create_experiment, "night shift") == "RESOURCE_ALREADY_EXISTS"
assert code_of(client.get_experiment, "4711") == "RESOURCE_DOES_NOT_EXIST"
assert code_of(client.search_runs, ["0"], "loss > 1 OR loss < 2") == "INVALID_PARAMETER_VALUE"
assert code_of(client.delete_tag, outer.info.run_id, "none") == "RESOURCE_DOES_NOT_EXIST"
assert client.get_experiment_by_name("never made") is None

client.delete_experiment(folder.experiment_id)
assert client.get_experiment(folder.experiment_id).lifecycle_stage == "deleted"
client.restore_experiment(folder.experiment_id)
client.rename_experiment(folder.experiment_id, "day shift")
assert client.get_experiment_by_name("day shift").experiment_id == folder.experiment_id
print(outer.info.run_id, file=sys.stdout)
