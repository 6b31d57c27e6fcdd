# mypy: ignore-errors
"""Registers models in a store of MLflow in all the ways there are. Knows nothing of noria."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
from lightgbm import LGBMClassifier
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient

client = MlflowClient()
experiment = client.create_experiment("models")
rng = np.random.default_rng(7)
x = rng.normal(size=(200, 3))
y = (x[:, 0] + 0.3 * rng.normal(size=200) > 0).astype(int)


def trained(leaves):
    model = LGBMClassifier(n_estimators=5, num_leaves=leaves, verbose=-1, n_jobs=1).fit(x, y)
    return model, infer_signature(x, model.predict(x))


late = client.create_registered_model("late_arrival", {"team": "ops", "none": ""}, "Whether it is late. ☃")
predictions = {}
for leaves in (3, 7, 11, 15, 31):
    with mlflow.start_run(experiment_id=experiment, run_name=f"leaves {leaves}"):
        model, signature = trained(leaves)
        logged = mlflow.lightgbm.log_model(
            model, name="net", signature=signature, registered_model_name="late_arrival",
            pip_requirements=["lightgbm"],
        )  # fmt: skip
        predictions[logged.registered_model_version] = model.predict(x[:20]).tolist()
for number in ("3", "4"):
    client.delete_model_version("late_arrival", number)
client.update_model_version("late_arrival", "5", "the best so far")
client.set_model_version_tag("late_arrival", "5", "checked", "yes")
client.set_model_version_tag("late_arrival", "1", "ä", "")
client.set_registered_model_alias("late_arrival", "champion", "2")
client.set_registered_model_alias("late_arrival", "challenger", "5")
client.transition_model_version_stage("late_arrival", "1", "Archived")
client.transition_model_version_stage("late_arrival", "2", "Production")
client.transition_model_version_stage("late_arrival", "5", "Staging")

folder = Path("by hand")
shutil.rmtree(folder, ignore_errors=True)
model, signature = trained(5)
mlflow.lightgbm.save_model(model, folder, signature=signature, pip_requirements=["lightgbm"])
predictions["by hand"] = model.predict(x[:20]).tolist()
with mlflow.start_run(experiment_id=experiment, run_name="by hand") as run:
    mlflow.log_artifacts(folder, "a model/best one")
root = client.get_run(run.info.run_id).info.artifact_uri

client.create_registered_model("Odd Name's 5% ü")
for source, named in (
    (f"runs:/{run.info.run_id}/a model/best one", run.info.run_id),
    (f"{root}/a model/best one", run.info.run_id),
    (str(folder.absolute()), None),
    ("s3://bucket/models/7", None),
    (str(Path("nowhere").absolute()), None),
    ("models:/late_arrival/2", None),
):
    client.create_model_version(
        "Odd Name's 5% ü", source, named, {"from": source[:5]}, "http://elsewhere/run"
    )
client.create_registered_model("without versions")
before = client.create_registered_model("before")
client.create_model_version("before", "s3://bucket/models/8")
client.set_registered_model_alias("before", "it", "1")
client.rename_registered_model("before", "after @ work")
client.create_registered_model("gone")
client.create_model_version("gone", "s3://bucket/models/9")
client.delete_registered_model("gone")
mlflow.genai.register_prompt("a-prompt", "Say {{ what }}.")
print(json.dumps({"predictions": predictions, "x": x[:20].tolist(), "files": str(Path("mlruns").absolute())}))
