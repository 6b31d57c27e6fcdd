# mypy: ignore-errors
"""The LightGBM model behind BentoML: `bentoml serve bench.peers.serve_bentoml:Scores`."""

import os

import bentoml
import lightgbm
import pandas as pd


@bentoml.service(workers=1)
class Scores:
    """Scores a frame."""

    def __init__(self):
        self._booster = lightgbm.Booster(model_file=os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, rows: list[dict[str, float]]) -> list[float]:
        return self._booster.predict(pd.DataFrame(rows), num_threads=1).tolist()
