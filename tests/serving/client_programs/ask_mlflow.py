# mypy: ignore-errors
"""MLflow's own scoring client asks each model. Knows nothing of noria."""

import pandas as pd
from asking import run_all, told_models
from mlflow.pyfunc.scoring_server.client import ScoringServerClient


def checks_of(model):
    host, port = model["address"].split(":")
    client = ScoringServerClient(host, port)
    frame = pd.DataFrame({name: values for name, (_, values) in model["columns"].items()})
    checks = {
        "ping": client.ping,
        "version": client.get_version,
        "invoke": lambda: client.invoke(frame)["predictions"],
        "predictions": lambda: client.invoke(frame).get_predictions().to_dict("list"),
        "refused": lambda: client.invoke(frame.iloc[:, :1].rename(columns=lambda _: "nothing")),
    }
    return {f"{model['name']}/{check}": run for check, run in checks.items()}


run_all({name: check for model in told_models() for name, check in checks_of(model).items()})
