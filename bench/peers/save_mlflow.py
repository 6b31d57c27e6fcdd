# mypy: ignore-errors
"""Save both models as folders of MLflow, as its users do: `FOLDER`."""

import pickle
import sys
from pathlib import Path

import lightgbm
import mlflow
import pandas as pd

folder = Path(sys.argv[1])
rows = pd.read_json(folder / "rows.json", orient="split")
mixed = pd.read_json(folder / "mixed.json", orient="split")
booster = lightgbm.Booster(model_file=str(folder / "lightgbm.txt"))
pipeline = pickle.loads((folder / "pipeline.pickle").read_bytes())
mlflow.lightgbm.save_model(
    booster, folder / "mlflow-lightgbm", signature=mlflow.models.infer_signature(rows, booster.predict(rows))
)
mlflow.sklearn.save_model(
    pipeline,
    folder / "mlflow-pipeline",
    pyfunc_predict_fn="predict_proba",
    serialization_format="cloudpickle",
    signature=mlflow.models.infer_signature(mixed, pipeline.predict_proba(mixed)),
)
