"""A project with two models of two versions each, whose scores are known."""

import socket
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from tests.serving.load_client import ROWS

from noria.workspace.project import Project

DEPLOYMENTS = ("early", "late")
PLACES = DEPLOYMENTS * 2


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_project(root: Path, database: str, port: int) -> None:
    root.mkdir()
    (root / "noria.toml").write_text(
        f'[project]\nname = "loaded"\nmodules = []\n[stores]\ndatabase = "{database}"\n'
        f"[server]\nport = 0\n[environments.production]\nport = {port}\nworkers = 2\ndrain_s = 2.0\n"
    )


def register(project: Project) -> dict[tuple[str, str], list[float]]:
    """Register two versions for each deployment; give what each scores for the rows that are asked."""
    rng, scores = np.random.default_rng(3), {}
    rows = pd.DataFrame(ROWS, columns=list("abc"))
    for number, name in enumerate(PLACES):
        frame = pd.DataFrame(rng.normal(size=(300, 3)), columns=list("abc"))
        params = {"objective": "regression", "num_leaves": 15, "num_threads": 1, "verbosity": -1}
        data = lightgbm.Dataset(frame, frame.a * (number + 1) + frame.b, params={"verbosity": -1})
        booster = lightgbm.train(params, data, 60)
        version = project.models.register(booster, name=name, example=frame[:40])
        scores[name, str(version.number)] = np.asarray(booster.predict(rows, num_threads=1)).tolist()
    return scores
