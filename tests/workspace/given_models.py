"""Models in Python of a project, as tests write them into its folder."""

from pathlib import Path

__all__ = ["make_project"]

SETTINGS = """\
[project]
name = "tried"
modules = ["given_gates"]
[environments.production]
[environments.staging]
gate = "good_enough"
"""
GATES = """\
import noria
from noria import check

good_enough = noria.Gate(checks=[check.at_least("auc", 0.7), check.samples_reproduced()])
"""
MODELS = '''\
import numpy as np

from words_of_models import UNKNOWN


class Doubler:
    def predict(self, rows):
        return rows["x"] * 2


class Looked:
    """Gives a word for a word by a file."""

    def load(self, folder):
        self.words = dict(line.split("=") for line in (folder / "words.txt").read_text().split())

    def predict(self, rows):
        found = [self.words.get(each, UNKNOWN) for each in rows["word"]]
        return {"label": found, "length": np.array([len(each) for each in found])}


class Weighted:
    def __init__(self, weights):
        self.weights = weights

    def predict(self, matrix):
        return matrix @ self.weights


class Odd:
    """Answers its example, and fails on anything else."""

    def predict(self, rows):
        x = rows["x"]
        if (x == 13).any():
            raise ValueError(f"secret {x}")
        if (x == 14).any():
            return [1.0]
        if (x == 15).any():
            return ["secret"] * len(x)
        return x


class Rule:
    def __init__(self, rule):
        self.rule = rule


class Ruled:
    def __init__(self, rule):
        self.rule = rule

    def predict(self, rows):
        return rows["x"] * self.rule.rule
'''


def make_project(folder: Path, *, settings: str = "") -> Path:
    """Write a project with an environment that has a gate, and one that has none."""
    folder.mkdir()
    (folder / "noria.toml").write_text(SETTINGS + settings)
    (folder / "given_gates.py").write_text(GATES)
    (folder / "words_of_models.py").write_text('UNKNOWN = "?"\n')
    (folder / "models_in_python.py").write_text(MODELS)
    return folder
