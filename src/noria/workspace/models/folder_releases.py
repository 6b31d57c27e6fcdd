"""Releases of folders of MLflow: what they read and give, and rows by which a server verifies them."""

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from noria.deploy.model_releases import served_inputs
from noria.deploy.releases import record_release
from noria.errors import ConfigError, DeploymentError, NoriaError, SourceError
from noria.records import EventId, Version
from noria.registry import records as kept
from noria.registry.folders.contents import Contents
from noria.registry.folders.served import folder_inputs
from noria.registry.folders.signatures import FolderSignature
from noria.registry.rows import encode_rows, output_column
from noria.registry.store import sample_bytes
from noria.serving.formats.given import as_columns, describe
from noria.serving.formats.mlflow_models import folder_prediction
from noria.serving.formats.scorers import Rows
from noria.serving.records import Output
from noria.workspace.models.loading import ModelLoading
from noria.workspace.models.registering import example_rows

if TYPE_CHECKING:
    from noria.registry.folders.loaded import LoadedEstimator
    from noria.workspace.project import Project

__all__ = ["release_folder"]

_EXAMPLES = ("serving_input_example.json", "input_example.json")
_MADE_UP = (
    0.0,
    1.0,
    0.5,
)  # rows for a folder that has no example: the model still has to give the same again


def release_folder(
    project: "Project", version: Version, example: object | None, *, cause: EventId | None = None
) -> Version:
    """Record the release of a version that is a folder of MLflow.

    Parameters
    ----------
    example
        Rows that it reads. Default: the example in the folder, else rows that are made up.

    Raises
    ------
    ConfigError
        If its files are elsewhere, it is none that is loaded, does not say what it reads, or fails on rows.
    SourceError
        If the rows are none of its.
    """
    loading = ModelLoading(project)
    loaded, contents, files = loading.load_folder_version(version)
    signature = loaded.signature
    inputs = folder_inputs(signature if isinstance(signature, FolderSignature) else None, version.ref)
    told = cast("FolderSignature", signature)
    rows, is_made_up = _rows(example, contents, inputs)
    try:
        outputs, samples = _given(loaded, told, inputs, rows, version.ref)
    except NoriaError as err:
        if not is_made_up:
            raise ConfigError(f"{version.ref} fails on the example: {err}") from err
        raise ConfigError(
            f"{version.ref} holds no example of its rows, and fails on made-up ones ({err}); give some: "
            f"`project.deploy({version.ref!r}, to=..., example=rows)`"
        ) from err
    recorded = kept.Signature(inputs, outputs[0].name, _kept(outputs))
    return record_release(
        project.ledger,
        version,
        file_digest=version.sha256,
        inputs=served_inputs(recorded),
        model_format="mlflow",
        outputs=outputs,
        files={path: part.sha256 for path, part in files.items()},
        samples=project.registry.put(sample_bytes(samples, recorded)).sha256,
        cause=cause,
    )


def _given(
    loaded: "LoadedEstimator",
    signature: FolderSignature,
    inputs: tuple[kept.Input, ...],
    table: pa.Table,
    ref: str,
) -> tuple[tuple[Output, ...], pa.Table]:
    matrix, strings = encode_rows(kept.Signature(inputs, " "), table)
    found = folder_prediction(loaded, signature, Rows(matrix, strings), what=ref)
    outputs = describe(found, table.num_rows, what=ref)
    samples = table.select([each.name for each in inputs])
    if both := [each.name for each in outputs if each.name in samples.column_names]:
        raise DeploymentError(f"{ref} gives {both[0]!r}, which is the name of a column that it reads as well")
    for each, values in zip(outputs, as_columns(found, outputs, table.num_rows, what=ref), strict=True):
        samples = samples.append_column(each.name, output_column(values))
    return outputs, samples


def _rows(
    example: object | None, contents: Contents, inputs: tuple[kept.Input, ...]
) -> tuple[pa.Table, bool]:
    found = example if example is not None else _kept_example(contents)
    if found is not None:
        if isinstance(found, np.ndarray) and len(inputs) == 1 and inputs[0].columns > 1:
            flat = np.asarray(found, dtype=np.float64).reshape(len(found), -1)
            return pa.table({inputs[0].name: output_column(flat)}), False
        table = example_rows(found)
        names = [each.name for each in inputs]
        if not set(names) <= set(table.column_names) and table.num_columns == len(names):
            table = table.rename_columns(names)  # an array has no names of its own
        missing = [each for each in inputs if each.name not in table.column_names]
        for each in missing:
            if each.optional is not True:
                raise SourceError(
                    f"the example lacks {each.name!r}, which the model reads; it has "
                    f"{', '.join(table.column_names)}"
                )
            kind = pa.string() if each.kind == "string" else pa.float64()
            table = table.append_column(each.name, pa.nulls(table.num_rows, kind))
        return table.select(names), False
    columns: dict[str, Any] = {}
    for each in inputs:
        if each.kind == "string":
            columns[each.name] = pa.array(["a"] * len(_MADE_UP))
        elif each.columns > 1:
            columns[each.name] = output_column(np.outer(_MADE_UP, np.ones(each.columns)))
        else:
            whole = isinstance(each.datatype, str) and each.datatype[:1] in ("I", "B")
            columns[each.name] = pa.array(np.rint(_MADE_UP) if whole else np.array(_MADE_UP))
    return pa.table(columns), True


def _kept_example(contents: Contents) -> object | None:
    """Give the example that a client of MLflow logged with the model; None where it is none."""
    for name in _EXAMPLES:
        if name not in contents.names:
            continue
        try:
            said = json.loads(contents.read(name))
        except ValueError as err:
            raise ConfigError(f"{name} of {contents.where} is no JSON: {err}") from err
        split = said.get("dataframe_split", said) if isinstance(said, dict) else said
        if isinstance(split, dict) and {"columns", "data"} <= set(split):
            rows = [list(each) for each in split["data"]]
            return {
                str(column): [each[place] for each in rows] for place, column in enumerate(split["columns"])
            }
        given = said.get("inputs") if isinstance(said, dict) else said
        if isinstance(given, list) and given:
            return np.asarray(given)
    return None


def _kept(outputs: tuple[Output, ...]) -> tuple[kept.Output, ...]:
    return tuple(
        kept.Output(name=each.name, datatype=each.datatype, width=each.width, labels=each.labels)
        for each in outputs
    )
