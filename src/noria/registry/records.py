"""What a model version consists of, as values."""

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from noria.errors import ConfigError
from noria.records import RunId, Version, VersionId

__all__ = [
    "FOLDER_FORMAT",
    "FolderManifest",
    "Input",
    "InputKind",
    "ModelDetails",
    "ModelFormat",
    "ModelManifest",
    "ModelSummary",
    "Output",
    "Part",
    "Signature",
    "is_folder",
]

InputKind = Literal["number", "category", "feature", "text", "string"]
ModelFormat = Literal["lightgbm", "xgboost", "onnx", "skops", "mlflow", "python"]
FOLDER_FORMAT: Literal["mlflow"] = "mlflow"  # of what is kept as a folder of files


class Input(msgspec.Struct, frozen=True):
    """One column that a model reads.

    Parameters
    ----------
    name : str
        The column; a feature's is `<view>__<feature>`.
    kind : {"number", "category", "feature", "text", "string"}
        Numbers, categories and strings come with the request; features are numbers, and texts are texts,
        that are looked up in a feature view. A string reaches the model as it is.
    categories : tuple of str
        The vocabulary of a category or text in the order of its codes: the first is 0. Any other text, and
        a missing one, is NaN.
    width : int
        Of a number that is a vector.
    datatype : str
        What the model was given of it, as the Open Inference Protocol names it.
    optional : bool
        Whether a request may leave it out.
    """

    name: str
    kind: InputKind
    categories: tuple[str, ...] = ()
    width: int | UnsetType = UNSET  # unset is not written: what was recorded before has none of these
    datatype: str | UnsetType = UNSET
    optional: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not self.is_text and self.categories:
            raise ConfigError(f"input {self.name!r} is a {self.kind} and may have no categories")
        if len(set(self.categories)) != len(self.categories):
            raise ConfigError(f"the categories of input {self.name!r} repeat")

    @property
    def is_text(self) -> bool:
        """Whether it is a text, whose code the model reads."""
        return self.kind in ("category", "text")

    @property
    def columns(self) -> int:
        """How many columns of the model's matrix it is: none of a string."""
        return 0 if self.kind == "string" else 1 if self.width is UNSET else self.width


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column that a model gives.

    Parameters
    ----------
    datatype : {"FP64", "INT64", "BOOL", "BYTES"}
        As the Open Inference Protocol names it.
    width : int
        0: one value for a row; else a vector of so many.
    labels : tuple of str
        What the elements of a vector are of, such as the classes of probabilities.
    """

    name: str
    datatype: Literal["FP64", "INT64", "BOOL", "BYTES"] = "FP64"
    width: int = 0
    labels: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True):
    """The columns that a model reads, in its order, and what it gives.

    Parameters
    ----------
    output : str
        The one column that it gives, or the first of them.
    outputs : tuple of Output
        What it gives, where it was registered as it is; unset: one number for a row, the probability of 1.
    """

    inputs: tuple[Input, ...]
    output: str
    outputs: tuple[Output, ...] | UnsetType = UNSET

    def __post_init__(self) -> None:
        names = self.names
        if not names:
            raise ConfigError("a signature needs at least one input")
        if len(set(names)) != len(names):
            twice = sorted({each for each in names if names.count(each) > 1})
            raise ConfigError(f"inputs repeat in the signature: {', '.join(twice)}")
        given = [self.output] if self.outputs is UNSET else [each.name for each in self.outputs]
        if both := [each for each in given if each in names]:
            raise ConfigError(f"the output {both[0]!r} is an input as well")
        if given[:1] != [self.output] or len(set(given)) != len(given):
            told = ", ".join(given) or "none"
            raise ConfigError(f"the outputs {told} repeat, or {self.output!r} is not first")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in the model's order."""
        return tuple(each.name for each in self.inputs)

    @property
    def is_as_given(self) -> bool:
        """Whether it is of a model that was registered as it is, and not of one that gives a probability."""
        return self.outputs is not UNSET

    @property
    def given(self) -> tuple[Output, ...]:
        """What it gives."""
        return (Output(name=self.output),) if self.outputs is UNSET else self.outputs

    @property
    def category_columns(self) -> tuple[int, ...]:
        """Positions of the categories."""
        return tuple(number for number, each in enumerate(self.inputs) if each.is_text)


class Part(msgspec.Struct, frozen=True):
    """Bytes in the storage."""

    sha256: str
    size_bytes: int


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Names every part of a model version; its digest is the version's.

    It holds nothing that differs between two trainings that gave the same model: no run, no instant.
    """

    name: str
    format: ModelFormat
    signature: Signature
    metrics: dict[str, float]
    parts: dict[str, Part]  # "model", "profile", "samples"; "code" of on-demand features; files by path
    parents: tuple[VersionId, ...] = ()  # versions it comes from, such as the gated one of a refit
    facts: dict[str, Any] = {}


class FolderManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version consists of that was registered by where its files are; its digest is the version's.

    Parameters
    ----------
    files : dict of str to Part
        By their path below the source, as they were then, with the digests that they have in the project's
        artifacts; none where the source is elsewhere.
    registration : str
        Tells one registration from another of the same source.
    """

    name: str
    source: str
    location: str
    run: str | None
    logged_model: str | None
    files: dict[str, Part]
    registration: str
    format: Literal["mlflow"] = FOLDER_FORMAT


def is_folder(version: Version) -> bool:
    """Tell whether a model version is a folder of files that somebody registered by where it is."""
    return version.kind == "model" and version.facts.get("format") == FOLDER_FORMAT


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A model version as a list shows it."""

    id: VersionId
    ref: str
    name: str
    number: int
    sha256: str
    run: RunId | None
    at: datetime
    format: ModelFormat
    metrics: dict[str, float]
    parents: tuple[VersionId, ...]
    facts: dict[str, Any]


class ModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A model version as it is shown alone. Its gate results are events about the model's id."""

    model: ModelSummary
    signature: Signature | None  # None: of a folder, whose parts are its files
    parts: dict[str, Part]
    profile: dict[str, Any]  # by column: the kind, what is missing, where it lies
