"""Models that noria's own runs logged, loaded by a real MLflow client over HTTP."""

import json
from pathlib import Path

import lightgbm
import numpy as np
import xgboost
from sklearn.linear_model import LogisticRegression
from tests.api.test_mlflow_client import PROGRAMS, site  # noqa: F401 - a fixture
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture

import noria


def test_a_real_client_loads_what_a_run_logged(
    site: tuple[noria.Project, str],  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path: Path,
) -> None:
    import pandas as pd  # type: ignore[import-untyped]

    project, url = site
    draw = np.random.default_rng(5)
    rows = pd.DataFrame(draw.normal(size=(60, 2)), columns=["a", "b"])
    late = (rows.a + rows.b > 0).astype(int)
    train = lightgbm.Dataset(rows, late)
    models = {
        "forest": xgboost.XGBRegressor(n_estimators=4, n_jobs=1).fit(rows, rows.a),
        "line": LogisticRegression().fit(rows, late),
        "trees": lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, train, 4),
    }
    with project.start_run(params={"depth": 3}, system_metrics=False) as run:
        run.log_metric("auc", 0.7)
        for name, model in models.items():
            run.log_model(model, name, example=rows.head(), registered=name)
    told = mlflow_program(
        PROGRAMS / "logged_natively.py",
        url,
        run.id,
        json.dumps(rows.to_dict(orient="list")),
        *models,
    )
    for line, (name, model) in zip(told.splitlines()[-3:], models.items(), strict=True):
        assert np.allclose(json.loads(line), model.predict(rows), rtol=0, atol=1e-6), name
