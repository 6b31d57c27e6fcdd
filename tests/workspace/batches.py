"""A project with two models, and rows for them; and a process that scores them, to be killed."""

import sys
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import noria
from noria.workspace.predicting import inputs

__all__ = ["NUMBERS", "rows_of", "trained", "words_of"]

NUMBERS = [f"x{each}" for each in range(4)]
SETTINGS = """\
[project]
name = "batches"
modules = ["models_of_batches"]
[environments.production]
"""
MODELS = '''\
class Halved:
    """Fails for rows of one word."""

    def predict(self, rows):
        if "bad" in list(rows["word"]):
            raise ValueError("no")
        return rows["x"] / 2
'''


def rows_of(count: int, *, seed: int = 3) -> pa.Table:
    """Give rows of numbers, some of them missing, with ids."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(size=count) for name in NUMBERS}
    columns["x1"][::7] = np.nan
    return pa.table({**columns, "order": [f"o{each}" for each in range(count)]})


def words_of(count: int) -> pa.Table:
    """Give rows of numbers and texts, some of them missing or never seen."""
    rng = np.random.default_rng(4)
    words = rng.choice(["u", "v", "w", "new"], count).tolist()
    return pa.table({
        "a": pa.array(rng.normal(size=count), mask=rng.random(count) < 0.1),
        "b": rng.integers(0, 3, count),
        "c": [None if place % 9 == 0 else word for place, word in enumerate(words)],
    })  # fmt: skip


def trained(root: Path) -> Path:
    """Make a project with a model of LightGBM and a pipeline of scikit-learn."""
    root.mkdir()
    (root / "noria.toml").write_text(SETTINGS)
    (root / "models_of_batches.py").write_text(MODELS)
    numbers = rows_of(300).to_pandas()[NUMBERS]
    trees = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1)
    trees.fit(numbers, numbers.x0 + numbers.x2 > 0)
    mixed = words_of(200).to_pandas()
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["c"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
    )
    pipeline = make_pipeline(encoder, LogisticRegression())
    pipeline.fit(mixed, pd.Series(mixed.b > 1))
    with noria.open(root) as project:
        project.models.register(trees, name="trees", example=numbers)
        project.models.register(pipeline, name="mixed", example=mixed)
    return root


def main() -> None:
    """Score in small parts, one by one: `python batches.py ROOT INPUT OUTPUT`."""
    root, rows, output = sys.argv[1:]
    inputs.ROWS_PER_PART = 1_000
    with noria.open(root) as project:
        project.predict(
            "trees", Path(rows), output=output, id="order", log=True, executor="inline",
            tell=lambda progress: print(progress.stage, progress.done, flush=True),
        )  # fmt: skip


if __name__ == "__main__":
    main()
