"""Folders of PyTorch, where it is installed."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.errors import ConfigError, SourceError
from noria.registry.folders.contents import LocalContents
from noria.registry.folders.loading import load_folder
from noria.registry.folders.trust import PickleTrust

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
X = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)


def test_scripts_load_and_pickles_only_where_they_are_trusted(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).eval()
    wanted = module(torch.from_numpy(X)).detach().numpy()
    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(module).save(str(tmp_path / "data" / "model.pth"))
    contents = LocalContents(tmp_path)
    loaded = load_folder(contents, trust=PickleTrust())
    np.testing.assert_array_equal(loaded.predict(X), wanted)
    np.testing.assert_array_equal(loaded.predict({"a": X[:, 0], "b": X[:, 1]}), wanted)
    with pytest.raises(SourceError, match="does not take the rows"):
        loaded.predict(np.zeros((2, 5), np.float32))
    torch.save(module, tmp_path / "data" / "model.pth")
    with pytest.raises(ConfigError, match="a pickle of PyTorch, which runs code"):
        load_folder(contents, trust=PickleTrust())
    trusted = load_folder(contents, trust=PickleTrust(everything=True))
    np.testing.assert_array_equal(trusted.predict(X), wanted)


class Writing(torch.nn.Module):  # type: ignore[misc]
    """One that writes a file where it is asked."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


@pytest.mark.parametrize("folder", ["/code/", "/CODE/"])
def test_code_that_writes_files_is_not_loaded(tmp_path: Path, folder: str) -> None:
    """PyTorch runs it, whatever the case of its folder."""
    made = tmp_path / "made.bin"
    written, moved = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Writing(str(made))), written)
    with zipfile.ZipFile(written) as archive, zipfile.ZipFile(moved, "w") as anew:
        for name in archive.namelist():
            anew.writestr(name.replace("/code/", folder), archive.read(name))
        anew.writestr("archive/code/fine.py", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(io.BytesIO(moved.getvalue()))(torch.zeros(1))
    assert made.exists()
    made.unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n")
    (tmp_path / "data" / "model.pth").write_bytes(moved.getvalue())
    with pytest.raises(ConfigError, match="names files to be opened"):
        load_folder(LocalContents(tmp_path), trust=PickleTrust())
    assert not made.exists()
