# mypy: ignore-errors
"""Models that a user of MLflow logs, measures, loads again and searches for. Knows nothing of noria."""

import math

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

client = MlflowClient()
x, y = make_classification(100, 4, random_state=0)
mlflow.set_experiment("models")

with mlflow.start_run(run_name="night") as run:
    logit = LogisticRegression().fit(x, y)
    logged = mlflow.sklearn.log_model(
        logit,
        name="logit",
        input_example=x[:2],
        params={f"p{each}": each for each in range(250)},
        tags={"team": "ops"},
        model_type="classifier",
        step=3,
    )
    mlflow.log_metric("acc", 0.9, step=1, model_id=logged.model_id)
    mlflow.log_metrics({"f1": 0.8, "odd": math.nan}, model_id=logged.model_id)
    held_back = mlflow.data.from_pandas(pd.DataFrame({"x": [1, 2]}), name="held back")
    mlflow.log_metric("auc", 0.7, dataset=held_back, model_id=logged.model_id)
    trees = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 3)
    grown = mlflow.lightgbm.log_model(trees, name="trees")
id, of_run = logged.model_id, run.info.run_id

model = mlflow.get_logged_model(id)
assert (str(model.status), model.name, model.model_type) == ("READY", "logit", "classifier")
assert (model.source_run_id, model.tags["team"], len(model.params)) == (of_run, "ops", 250)
points = {each.key: each for each in model.metrics}
assert sorted(points) == ["acc", "auc", "f1", "odd"]
assert (points["acc"].value, points["acc"].step, points["acc"].run_id) == (0.9, 1, of_run)
assert (points["auc"].dataset_name, points["auc"].dataset_digest) == ("held back", held_back.digest)
assert math.isnan(points["odd"].value)
made = {each.model_id: each.step for each in client.get_run(of_run).outputs.model_outputs}
assert made == {id: 3, grown.model_id: 0}

for uri in (f"models:/{id}", f"runs:/{of_run}/logit"):
    assert np.array_equal(mlflow.sklearn.load_model(uri).predict(x), logit.predict(x))
assert np.allclose(mlflow.lightgbm.load_model(f"runs:/{of_run}/trees").predict(x), trees.predict(x))
assert np.allclose(mlflow.pyfunc.load_model(grown.model_uri).predict(x), trees.predict(x))

found = mlflow.search_logged_models(
    filter_string="metrics.auc > 0.5 AND tags.team = 'ops'",
    datasets=[{"dataset_name": "held back"}],
    order_by=[{"field_name": "metrics.auc", "ascending": False, "dataset_name": "held back"}],
    output_format="list",
)
assert [each.model_id for each in found] == [id]
assert list(mlflow.search_logged_models()["name"]) == ["trees", "logit"]
first = client.search_logged_models([model.experiment_id], max_results=1)
second = client.search_logged_models([model.experiment_id], max_results=1, page_token=first.token)
assert ([each.name for each in (*first, *second)], second.token) == (["trees", "logit"], None)

with mlflow.start_run(run_name="later") as later:
    mlflow.sklearn.load_model(f"models:/{id}")
    mlflow.log_metric("late", 1.0, model_id=id)
assert [each.model_id for each in client.get_run(later.info.run_id).inputs.model_inputs] == [id]

client.set_logged_model_tags(id, {"a": "1", "b": "ü"})
client.delete_logged_model_tag(id, "a")
assert client.get_logged_model(id).tags["b"] == "ü"
assert "a" not in client.get_logged_model(id).tags
assert "MLmodel" in [each.path for each in client.list_logged_model_artifacts(id)]

mlflow.sklearn.autolog()
with mlflow.start_run(run_name="auto") as auto:
    LogisticRegression(C=2).fit(x, y)
(output,) = client.get_run(auto.info.run_id).outputs.model_outputs
automatic = mlflow.get_logged_model(output.model_id)
assert automatic.params["C"] == "2"
assert {each.dataset_name for each in automatic.metrics} == {"dataset"}
mlflow.sklearn.autolog(disable=True)

external = mlflow.create_external_model(name="elsewhere")
assert str(external.status) == "READY"

gone = mlflow.initialize_logged_model(name="gone")
client.delete_logged_model(gone.model_id)
try:
    client.get_logged_model(gone.model_id)
except MlflowException as error:
    assert error.error_code == "RESOURCE_DOES_NOT_EXIST"
else:
    raise AssertionError("a deleted model was given")
print(of_run, later.info.run_id, auto.info.run_id)
