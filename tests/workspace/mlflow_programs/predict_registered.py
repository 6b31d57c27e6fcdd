# mypy: ignore-errors
"""Loads registered models and tells what they predict. Knows nothing of noria."""

import json
import sys

import mlflow
import numpy as np

x = np.array(json.loads(sys.argv[1]))
found = {}
for uri in sys.argv[2:]:
    found[uri] = mlflow.pyfunc.load_model(uri).predict(x).tolist()
print(json.dumps(found))
