# mypy: ignore-errors
"""Three libraries trained with autologging, their models registered and loaded. Knows nothing of noria."""

import mlflow
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

client = MlflowClient()
data = load_breast_cancer(as_frame=True)
features, labels = data.data.iloc[:, :8], data.target
mlflow.set_experiment("autologged")
mlflow.autolog(log_input_examples=True, silent=True)


def train(name: str, estimator) -> tuple[str, np.ndarray]:
    with mlflow.start_run(run_name=name) as run:
        estimator.fit(features, labels)
    kept = client.get_run(run.info.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params, name
    assert kept.inputs.dataset_inputs, name
    return run.info.run_id, estimator.predict(features)


made = {
    "scikit-learn": train("scikit-learn", make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))),
    "lightgbm": train("lightgbm", LGBMClassifier(n_estimators=12, verbose=-1)),
    "xgboost": train("xgboost", XGBClassifier(n_estimators=12)),
}
assert client.get_run(made["scikit-learn"][0]).data.metrics["training_roc_auc"] > 0.9

for name, (run, expected) in made.items():
    (logged,) = mlflow.search_logged_models(filter_string=f"source_run_id = '{run}'", output_format="list")
    assert logged.status == "READY"
    version = mlflow.register_model(f"models:/{logged.model_id}", f"autologged {name}")
    assert (version.version, version.run_id) == ("1", run)
    client.set_registered_model_alias(f"autologged {name}", "champion", "1")
    for uri in (f"models:/autologged {name}/1", f"models:/autologged {name}@champion", f"runs:/{run}/model"):
        loaded = mlflow.pyfunc.load_model(uri)
        found = np.asarray(loaded.predict(pd.DataFrame(features)))
        assert (np.round(found).astype(int) == expected).mean() > 0.99, (uri, found[:5], expected[:5])
    assert client.get_model_version_by_alias(f"autologged {name}", "champion").version == "1"

mlflow.sklearn.autolog(log_models=False)
with mlflow.start_run(run_name="searched") as run:
    search = GridSearchCV(LogisticRegression(max_iter=50), {"C": [0.1, 1.0]}, cv=2)
    search.fit(features / features.max(), labels)
children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
assert len(children) == 2, children
print(",".join(run for run, _ in made.values()))
