"""Trains with Keras, once without and once with autolog; run in a folder with a project."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import noria

noria.autolog()
import keras  # noqa: E402 - it is followed once it is imported
import numpy as np  # noqa: E402

draw = np.random.default_rng(0)
rows = draw.normal(size=(200, 4)).astype("float32")
late = (rows[:, 0] > 0).astype("float32")


def trained() -> tuple[dict[str, list[float]], bytes]:
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="small")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    history = model.fit(rows, late, epochs=4, validation_split=0.2, verbose=0)
    return history.history, b"".join(each.tobytes() for each in model.get_weights())


history, weights = trained()
with noria.open() as project:
    (run,) = project.ledger.list_runs(kind="experiment")
    assert (run.name, run.state) == ("small", "finished"), run
    assert (run.params["epochs"], run.params["optimizer_name"]) == (4, "adam"), run.params
    assert run.params["loss"] == "binary_crossentropy", run.params
    table = project.query("select name, step, value from tracking_metrics order by name, step").to_pylist()
    for name, values in history.items():
        assert [(each["step"], each["value"]) for each in table if each["name"] == name] == [
            *enumerate(values)
        ]
    files = {each.path.partition("/artifacts/")[2]: each.path for each in project.artifacts.tree()}
    assert sorted(files) == ["model/model.keras", "model_summary.txt"], files
    whole = project.artifacts.open(files["model/model.keras"]).read_bytes()
Path("again.keras").write_bytes(whole)
again = keras.models.load_model("again.keras")
assert b"".join(each.tobytes() for each in again.get_weights()) == weights

fit = keras.Model.fit
noria.autolog(False)
assert keras.Model.fit is not fit
assert trained() == (history, weights), "autolog has changed the training"


class Broken(keras.callbacks.Callback):  # type: ignore[misc]
    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        raise RuntimeError("it broke")


noria.autolog(log_models=False, log_every=2)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="breaks")
model.compile(loss="mse")
try:
    model.fit(rows, late, epochs=1, verbose=0, callbacks=Broken())
except RuntimeError as error:
    assert str(error) == "it broke"
else:
    raise AssertionError("the error was swallowed")
with noria.open() as project:
    (run,) = [each for each in project.ledger.list_runs(kind="experiment") if each.name == "breaks"]
    assert run.state == "failed", run
print("keras", keras.__version__, "is followed")
