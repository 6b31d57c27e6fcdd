"""Models of PyTorch: TorchScript modules, and weights in safetensors as arrays."""

import warnings
from io import BytesIO
from typing import Any

import numpy as np

from noria.errors import ConfigError, SourceError
from noria.registry.extras import import_extra
from noria.registry.folders.frames import Rows, float_matrix
from noria.registry.folders.prediction import Predictor

__all__ = ["load_module", "load_script", "read_weights", "torch_predictor"]


def load_script(data: bytes) -> Any:
    """Give the module of a TorchScript archive, on the CPU. Raises `ConfigError`."""
    torch = import_extra("torch", extra="torch", what="models of PyTorch")
    try:
        with warnings.catch_warnings():  # TorchScript is still read, but no longer recommended
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(BytesIO(data), map_location="cpu").eval()
    except (RuntimeError, ValueError) as err:
        raise ConfigError(f"the bytes are no TorchScript module: {' '.join(str(err).split())[:300]}") from err


def load_module(data: bytes) -> Any:
    """Give the module that a pickle of PyTorch holds; its code runs. Raises `ConfigError`."""
    torch = import_extra("torch", extra="torch", what="models of PyTorch")
    try:
        return torch.load(BytesIO(data), map_location="cpu", weights_only=False).eval()
    except (RuntimeError, ValueError, AttributeError, ImportError, EOFError) as err:
        raise ConfigError(f"the bytes are no module of PyTorch: {' '.join(str(err).split())[:300]}") from err


def torch_predictor(module: Any) -> Predictor:
    """Give the function that predicts rows: of columns as float32, as a client of MLflow does."""

    def predict(rows: Rows) -> Any:
        torch = import_extra("torch", extra="torch", what="models of PyTorch")
        array = rows if isinstance(rows, np.ndarray) else float_matrix(rows).astype(np.float32)
        try:
            with torch.no_grad():
                given = module(torch.from_numpy(np.ascontiguousarray(array)))
        except RuntimeError as err:
            told = " ".join(str(err).split())[:300]
            raise SourceError(f"the module does not take the rows: {told}") from err
        return given.numpy()

    return predict


def read_weights(data: bytes, where: str) -> dict[str, Any]:
    """Give the arrays of a safetensors file by name. Raises `ConfigError` if it is none."""
    safetensors = import_extra("safetensors", extra="torch", what="weights in safetensors")
    numpy_part = import_extra("safetensors.numpy", extra="torch", what="weights in safetensors")
    try:
        found: dict[str, Any] = numpy_part.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as err:
        raise ConfigError(f"{where} is no file of safetensors: {err}") from err
    return found
