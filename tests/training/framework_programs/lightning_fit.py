"""Trains with Lightning, once without and once with autolog; run in a folder with a project."""

import logging
import warnings
from typing import Any

import noria

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
noria.autolog()
import lightning.pytorch as pl  # noqa: E402 - it is followed once it is imported
import torch  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402


class Small(pl.LightningModule):  # type: ignore[misc]
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)
        )

    def training_step(self, batch: Any, number: int) -> Any:
        loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, number: int) -> None:
        self.log("val_loss", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trained() -> tuple[Any, list[Any]]:
    pl.seed_everything(3, verbose=False)
    rows = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    loader = DataLoader(rows, batch_size=16)
    model = Small()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    before = [*trainer.callbacks]
    assert trainer.fit(model, loader, loader) is None
    assert trainer.callbacks == before
    return trainer, [each.detach().tolist() for each in model.parameters()]


trainer, weights = trained()
with noria.open() as project:
    (run,) = project.ledger.list_runs(kind="experiment")
    assert (run.name, run.state) == ("Small", "finished"), run
    told = {name: run.params[name] for name in ("width", "max_epochs", "optimizer_name", "optimizer_lr")}
    assert told == {"width": 8, "max_epochs": 3, "optimizer_name": "Adam", "optimizer_lr": 0.01}, told
    table = project.query("select name, step, value from tracking_metrics order by name, step").to_pylist()
    assert [(each["name"], each["step"]) for each in table] == [
        (name, step) for name in ("train_loss", "val_loss") for step in range(3)
    ], table
    last = {each["name"]: each["value"] for each in table}
    assert last == {name: float(value) for name, value in trainer.callback_metrics.items()}
    files = [each.path.partition("/artifacts/")[2] for each in project.artifacts.tree()]
    assert files == ["checkpoints/epoch=2-step=12.ckpt", "model_summary.txt"], files

noria.autolog(False)
assert trained()[1] == weights, "autolog has changed the training"
print("lightning", pl.__version__, "is followed")
