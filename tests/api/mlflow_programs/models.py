# mypy: ignore-errors
"""Models of every library that a user of MLflow logs and registers, and loads that somebody else wrote."""

import json
import sys
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import onnx
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

given, out = Path(sys.argv[1]), Path(sys.argv[2])
rows = pd.DataFrame(json.loads((given / "rows.json").read_text()))
numbers = rows[["weight", "stops"]]
late = (rows.weight > 1).astype(int)
kind = rows.stops % 3
FAST = {"pip_requirements": ["mlflow"]}
TREES = [  # that a client has to trust to store them without pickle
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]


def graph() -> onnx.ModelProto:
    """A network whose weights are large enough to lie in a file beside it."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("first", (2, 300)), ("second", (300, 1)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["kept"]),
        helper.make_node("MatMul", ["kept", "second"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    made = helper.make_graph(nodes, "network", [x], [y], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class Doubled(mlflow.pyfunc.PythonModel):
    """A model of a user's own."""

    def predict(self, context, model_input):
        """Double a column."""
        return model_input["weight"] * 2


columns = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["depot"]), (StandardScaler(), ["weight", "stops"])
)
histogram = HistGradientBoostingRegressor(max_iter=5).fit(numbers, rows.weight)
booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(numbers, late), 5)
leaves = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1)
data = xgboost.DMatrix(numbers, label=late)
models = {
    "pipeline": (mlflow.sklearn, make_pipeline(columns, LogisticRegression()).fit(rows, late), rows),
    "regressor": (mlflow.sklearn, histogram, numbers),
    "forest": (mlflow.sklearn, RandomForestClassifier(5, random_state=0).fit(numbers, kind), numbers),
    "booster": (mlflow.lightgbm, booster, numbers),
    "leaves": (mlflow.lightgbm, leaves.fit(numbers, kind), numbers),
    "extreme": (mlflow.xgboost, xgboost.XGBClassifier(n_estimators=5).fit(numbers, kind), numbers),
    "trees": (mlflow.xgboost, xgboost.train({"objective": "binary:logistic"}, data, 5), numbers),
}
predicted = {}
with mlflow.start_run() as run:
    for name, (flavor, model, x) in models.items():
        y = model.predict(data if name == "trees" else x)
        more = {"skops_trusted_types": TREES} if flavor.__name__ == "mlflow.sklearn" else {}
        told = infer_signature(x, y)
        logged = flavor.log_model(
            model, name=name, registered_model_name=name, signature=told, **FAST, **more
        )
        again = mlflow.pyfunc.load_model(logged.model_uri)
        predicted[name] = np.asarray(again.predict(x), dtype=float).tolist()
        probabilities = getattr(model, "predict_proba", None)
        if probabilities is not None:
            predicted[f"{name} probabilities"] = np.asarray(probabilities(x), dtype=float).tolist()
    single = numbers.to_numpy(dtype=np.float32)
    network = mlflow.onnx.log_model(graph(), name="network", registered_model_name="network", **FAST)
    answer = mlflow.pyfunc.load_model(network.model_uri).predict(single)
    predicted["network"] = np.asarray(answer["y"], dtype=float).tolist()
    mlflow.sklearn.log_model(
        models["forest"][1],
        name="pickled",
        registered_model_name="pickled",
        serialization_format="cloudpickle",
        **FAST,
    )
    mlflow.pyfunc.log_model(name="custom", python_model=Doubled(), registered_model_name="custom", **FAST)
    mlflow.log_artifact(given / "rows.json", "plain")
mlflow.MlflowClient().set_registered_model_alias("forest", "champion", 1)

for folder in sorted(given.iterdir()):
    if not folder.is_dir():
        continue
    loaded = mlflow.pyfunc.load_model(str(folder))
    x = rows if "depot" in (loaded.metadata.get_input_schema().input_names() or ()) else numbers
    if not loaded.metadata.get_input_schema().has_input_names():
        x = single
    found = loaded.predict(x)
    found = next(iter(found.values())) if isinstance(found, dict) else found
    predicted[f"given {folder.name}"] = np.asarray(found, dtype=float).tolist()
    (own,) = [each for each in loaded.metadata.flavors if each != "python_function"]
    native = getattr(mlflow, own).load_model(str(folder))
    predicted[f"type {folder.name}"] = type(native).__name__
out.write_text(
    json.dumps({"run": run.info.run_id, "forest": models["forest"][1].n_features_in_, **predicted})
)
