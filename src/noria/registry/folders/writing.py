"""Writes a model folder that any client of MLflow loads, without MLflow."""

import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from noria.errors import ConfigError, SourceError
from noria.records import sha256_hex
from noria.registry.folders.frames import as_rows
from noria.registry.folders.model_dumps import Dumped, Serialization, dump_model
from noria.registry.folders.schemas import schema_of, schema_of_prediction

__all__ = ["WrittenFolder", "write_model_folder"]


@dataclass(frozen=True, slots=True)
class WrittenFolder:
    """A folder that was written.

    Attributes
    ----------
    flavor
        Which library loads it: "sklearn", "lightgbm", "xgboost" or "onnx".
    files
        Paths of its files below it, in order.
    """

    flavor: str
    files: tuple[str, ...]


def write_model_folder(
    model: object, folder: Path, *, example: object | None = None, serialization: Serialization = "skops"
) -> WrittenFolder:
    """Write a fitted model as a folder of MLflow's layout; equal models give equal bytes.

    Parameters
    ----------
    model
        A Booster or an estimator of LightGBM or XGBoost, an ONNX `ModelProto`, or an estimator of
        scikit-learn, pipelines included.
    folder
        It is made; if it is there, it has to be empty.
    example
        Some rows that the model reads: a frame, or an array. The signature is made of their columns and of
        what the model gives for them; the rows themselves are not kept. Default: no signature.
    serialization
        Of estimators that have no format of their own: "skops" executes nothing when it is loaded;
        "pickle" does, and is loaded only where the project trusts it.

    Raises
    ------
    ConfigError
        If the model cannot be stored so, the folder is not empty, or the model cannot predict the example.
    SourceError
        If the example is none.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sklearn.linear_model import LinearRegression
    >>> fitted = LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0])
    >>> write_model_folder(fitted, Path(mkdtemp()) / "model").files
    ('MLmodel', 'conda.yaml', 'model.skops', 'python_env.yaml', 'requirements.txt')
    """
    dumped = dump_model(model, serialization=serialization)
    signature = None if example is None else _signature(model, dumped, example)
    requirements = "".join(f"{each}\n" for each in _requirements(dumped))
    files = {
        dumped.file: dumped.data,
        "MLmodel": _mlmodel(dumped, signature),
        "conda.yaml": _conda(requirements),
        "python_env.yaml": _python_env(),
        "requirements.txt": requirements.encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"the folder {folder} is not empty; name a new one for the model")
    for name, data in sorted(files.items()):
        (folder / name).write_bytes(data)
    return WrittenFolder(dumped.flavor, tuple(sorted(files)))


def _mlmodel(dumped: Dumped, signature: dict[str, str | None] | None) -> bytes:
    flavors: dict[str, Any] = {dumped.flavor: dumped.conf}
    if dumped.loader is not None:
        flavors["python_function"] = {
            "loader_module": f"mlflow.{dumped.flavor}",
            "python_version": platform.python_version(),
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            **dumped.loader,
        }
    told: dict[str, Any] = {
        "flavors": flavors,
        "model_size_bytes": len(dumped.data),
        # Of the content, so that the same model is written the same again.
        "model_uuid": sha256_hex(dumped.data)[:32],
    }
    if signature is not None:
        told["signature"] = signature
    return _yaml(told)


def _signature(model: Any, dumped: Dumped, example: object) -> dict[str, str | None]:
    rows = as_rows(example)
    if not len(rows):
        raise SourceError("the example has no rows; give a few that the model reads")
    inputs = schema_of(rows)
    outputs = None
    if dumped.loader is not None:
        outputs = schema_of_prediction(_prediction(model, dumped, example))
    return {"inputs": inputs, "outputs": outputs, "params": None}


def _prediction(model: Any, dumped: Dumped, example: object) -> Any:
    from noria.registry.folders.prediction import predictor_of

    try:
        return predictor_of(dumped.flavor, model)(as_rows(example))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as err:
        raise ConfigError(
            f"the model cannot predict the example ({type(err).__name__}: {err}); give rows as it was "
            "trained on"
        ) from err


def _requirements(dumped: Dumped) -> list[str]:
    return ["mlflow", *(_pinned(each) for each in sorted({*dumped.distributions, "numpy", "scipy"}))]


@cache  # what is imported stays at its version, and looking it up reads files
def _pinned(name: str) -> str:
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:  # under another name, as xgboost-cpu is
        return name


def _conda(requirements: str) -> bytes:
    pip = requirements.splitlines()
    python = f"python={platform.python_version()}"
    return _yaml(
        {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [python, "pip", {"pip": pip}]}
    )


def _python_env() -> bytes:
    return _yaml(
        {
            "python": platform.python_version(),
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": ["-r requirements.txt"],
        }
    )


def _yaml(told: dict[str, Any]) -> bytes:
    text: str = yaml.safe_dump(told, default_flow_style=False)
    return text.encode()
