"""The file `MLmodel`: which libraries can load a folder, and what the model reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noria.errors import ConfigError, SourceError
from noria.registry.folders.contents import Contents
from noria.registry.folders.signatures import FolderSignature, read_signature
from noria.registry.folders.yaml_reading import read_yaml

__all__ = ["FILE_NAME", "MlModel", "read_mlmodel"]

FILE_NAME = "MLmodel"


@dataclass(frozen=True, slots=True)
class MlModel:
    """What a folder says of itself.

    Attributes
    ----------
    flavors
        By name: what is told to the library of that name.
    signature
        None if it says none.
    """

    flavors: Mapping[str, Mapping[str, Any]]
    signature: FolderSignature | None


def read_mlmodel(contents: Contents) -> MlModel:
    """Read what a folder says of itself.

    Raises
    ------
    SourceError
        If it has no `MLmodel`.
    ConfigError
        If that is none.
    """
    where = f"the MLmodel of {contents.where}"
    if FILE_NAME not in contents.names:
        found = ", ".join(contents.names[:8]) or "nothing"
        raise SourceError(
            f"{contents.where} has no file {FILE_NAME!r}, so it is no model of MLflow; there is {found}"
        )
    said = read_yaml(contents.read(FILE_NAME), where)
    flavors = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavors, dict) or not flavors:
        raise ConfigError(f"{where} names no flavors; write the model again by the library that made it")
    for name, conf in flavors.items():
        if not isinstance(name, str) or not isinstance(conf, dict):
            raise ConfigError(f"{where}: the flavor {str(name)[:60]!r} is no mapping")
    signature = said.get("signature")
    return MlModel(flavors, None if signature is None else read_signature(signature, where))
