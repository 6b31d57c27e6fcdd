# mypy: ignore-errors
"""A model behind FastAPI by hand: validated rows, a frame, `predict`. Arguments: `FOLDER MODEL PORT`."""

import pickle
import sys
from pathlib import Path

import lightgbm
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

folder, model, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
app = FastAPI()

if model == "lightgbm":
    booster = lightgbm.Booster(model_file=str(folder / "lightgbm.txt"))
    Row = create_model("Row", **{f"x{each}": (float, ...) for each in range(20)})

    def predict(frame):
        return booster.predict(frame, num_threads=1)

else:
    pipeline = pickle.loads((folder / "pipeline.pickle").read_bytes())
    fields = {f"n{each}": (float | None, ...) for each in range(6)} | {
        f"c{each}": (str, ...) for each in range(3)
    }
    Row = create_model("Row", **fields)

    def predict(frame):
        return pipeline.predict_proba(frame)[:, 1]


@app.get("/health")
def health():
    return {}


@app.post("/predict")
def score(rows: list[Row]):
    frame = pd.DataFrame([row.model_dump() for row in rows])
    return {"predictions": predict(frame).tolist()}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
