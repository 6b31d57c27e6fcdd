# mypy: ignore-errors
"""Loads what noria logged, and says what it predicts: RUN, then a name for each model."""

import json
import sys

import mlflow
import numpy as np
import pandas as pd

run, data, *names = sys.argv[1:]
rows = pd.DataFrame(json.loads(data))
client = mlflow.MlflowClient()
outputs = {each.model_id for each in client.get_run(run).outputs.model_outputs}
for name in names:
    loaded = mlflow.pyfunc.load_model(f"runs:/{run}/{name}")
    print(json.dumps(np.asarray(loaded.predict(rows)).tolist()))
    version = client.get_model_version(name, "1")
    assert version.run_id == run, version
    made = version.source.removeprefix("models:/")
    assert made in outputs, (version, outputs)
    again = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert np.array_equal(again.predict(rows), loaded.predict(rows))
    assert [each.name for each in loaded.metadata.get_input_schema()] == list(rows.columns)
    logged = mlflow.get_logged_model(made)
    assert logged.params["depth"] == "3", logged
    assert {each.key: each.value for each in logged.metrics} == {"auc": 0.7}
