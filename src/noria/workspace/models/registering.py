"""Models made anywhere, registered as they are: kept, opened as a server opens them, and verified."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from noria.deploy.model_releases import served_inputs, served_outputs
from noria.errors import ConfigError, DeploymentError, SourceError
from noria.profiles.build import build_profile
from noria.records import RunId, Version
from noria.registry import records as kept
from noria.registry.catalogue_rules import check_model_name
from noria.registry.folders.contents import checked_member
from noria.registry.folders.frames import as_rows
from noria.registry.folders.trust import PickleTrust
from noria.registry.rows import encode_rows, output_column
from noria.serving.formats.python_models import DESCRIPTION, RowsAs
from noria.serving.formats.samples import verify_samples
from noria.serving.formats.scorers import open_scorer
from noria.serving.records import SCORE, Output, Samples, ServedFile, ServedModel
from noria.workspace.endpoints import samples_as_served
from noria.workspace.models.given_models import GivenModel, read_model

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["example_rows", "register_model"]

_MOST_ROWS = 100  # of an example that are kept
_ROWS_AS = ("columns", "matrix", "pandas")


def register_model(
    project: "Project",
    model: Any,
    *,
    name: str,
    example: object,
    artifacts: Mapping[str, str | Path] | None,
    rows: RowsAs,
    metrics: Mapping[str, float] | None,
    run: str | None,
) -> Version:
    """Register a model as it is; see `noria.workspace.models.models.Models.register`."""
    check_model_name(name)
    if rows not in _ROWS_AS:
        raise ConfigError(f"rows={rows!r}: found another than {', '.join(_ROWS_AS)}")
    figures = {each: float(value) for each, value in (metrics or {}).items()}
    if odd := [each for each, value in figures.items() if not math.isfinite(value)]:
        raise ConfigError(f"metrics have to be finite; {', '.join(odd)} are not")
    trust = PickleTrust.of(project.settings.registry.trust_pickle)
    table = example_rows(example, model)
    given = read_model(model, table, name=name, artifacts=_artifacts(artifacts or {}), rows=rows, trust=trust)
    registry = project.registry
    part = registry.put(given.data)
    files = {path: registry.put(data) for path, data in given.files.items()}
    signature, samples = _verified(project, name, given, table, part=part, files=files, trust=trust)
    return registry.register_as_given(
        name,
        format=given.format,
        model=part,
        files=files,
        signature=signature,
        profile=build_profile(_profiled(signature, samples), window_rows=max(1, samples.num_rows // 2)),
        samples=samples,
        metrics=figures,
        facts={"estimator": given.kind},
        run=None if run is None else RunId(run),
    )


def example_rows(example: object, model: object = None) -> pa.Table:
    """Give an example as a table of at most 100 rows; columns of an array are called as the model calls them.

    Raises
    ------
    SourceError
        If it is none, or has no rows.
    """
    found = as_rows(example)
    if isinstance(found, np.ndarray):
        if found.ndim == 1:
            found = found.reshape(-1, 1)
        if found.ndim != 2:
            raise SourceError(f"the example has {found.ndim} dimensions; give rows of columns")
        names = _names(model, found.shape[1])
        found = pa.table([pa.array(found[:, place]) for place in range(found.shape[1])], names=names)
    if not found.num_rows:
        raise SourceError(
            "the example has no rows; give a few that the model reads: a server verifies it by them"
        )
    few: pa.Table = found.slice(0, _MOST_ROWS).combine_chunks()
    return few


def _names(model: Any, width: int) -> list[str]:
    for told in (getattr(model, "feature_name", None), getattr(model, "feature_names", None)):
        names = told() if callable(told) else told
        if isinstance(names, list) and len(names) == width:
            return [str(each) for each in names]
    return [f"x{each}" for each in range(width)]


def _artifacts(given: Mapping[str, str | Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, told in given.items():
        path = Path(told)
        checked_member(name, "the model")
        if path.is_dir():
            for file in sorted(each for each in path.rglob("*") if each.is_file()):
                found[f"{name}/{file.relative_to(path).as_posix()}"] = file
        elif path.is_file():
            found[name] = path
        else:
            raise SourceError(f"the artifact {name!r} is {path}, which is no file and no folder")
    return found


def _verified(
    project: "Project",
    name: str,
    given: GivenModel,
    table: pa.Table,
    *,
    part: kept.Part,
    files: Mapping[str, kept.Part],
    trust: PickleTrust,
) -> tuple[kept.Signature, pa.Table]:
    """Open the model from its bytes as a worker does, see that it gives the same; give what is recorded."""
    fetch = project.storage.fetch
    paths = {**files, **({DESCRIPTION: part} if given.format == "python" else {})}
    draft = ServedModel(
        release=f"{name}:0",
        model=name,
        version=0,
        digest=part.sha256,
        path="",
        inputs=served_inputs(kept.Signature(given.inputs, " ")),
        samples=Samples(matrix=b"", scores=b""),
        format=given.format,
        outputs=given.outputs or (SCORE,),
        files=tuple(
            ServedFile(name=path, digest=each.sha256, path=str(fetch(each.sha256)))
            for path, each in sorted(paths.items())
        ) if files else (),
        trust_pickle=trust.covers(name),
    )  # fmt: skip
    try:
        scorer = open_scorer(draft, given.data, folder=project.root)
        outputs = tuple(scorer.outputs)
        signature, samples = _recorded(given, outputs, table)
        served = _with(draft, signature, samples)
        width = sum(each.columns for each in signature.inputs)
        if scorer.columns is not None and scorer.columns != width:
            raise ConfigError(f"model {name!r} reads {scorer.columns} columns; the example has {width}")
        verify_samples(served, scorer, width=width)
    except DeploymentError as err:
        raise ConfigError(f"model {name!r} cannot be served as it is kept: {err}") from err
    return signature, samples


def _with(draft: ServedModel, signature: kept.Signature, samples: pa.Table) -> ServedModel:
    import msgspec

    return msgspec.structs.replace(
        draft, outputs=served_outputs(signature), samples=samples_as_served(signature, samples)
    )


def _recorded(
    given: GivenModel, outputs: tuple[Output, ...], table: pa.Table
) -> tuple[kept.Signature, pa.Table]:
    told = tuple(
        kept.Output(name=each.name, datatype=each.datatype, width=each.width, labels=each.labels)
        for each in outputs
    )
    is_plain = given.format in ("lightgbm", "xgboost", "onnx") and outputs == (SCORE,)
    is_plain = is_plain and all(each.kind != "string" and each.columns == 1 for each in given.inputs)
    if lacking := [each.name for each in outputs if each.name not in given.given]:
        raise DeploymentError(f"its scorer gives {', '.join(lacking)}, which the model itself does not")
    if is_plain:
        signature = kept.Signature(given.inputs, outputs[0].name)
    else:
        signature = kept.Signature(given.inputs, outputs[0].name, told)
    samples = table.select([each.name for each in given.inputs])
    for each in outputs:
        samples = samples.append_column(each.name, output_column(given.given[each.name]))
    return signature, samples


def _profiled(signature: kept.Signature, samples: pa.Table) -> dict[str, Any]:
    """Give the columns that have a profile: numbers and texts, and the score."""
    matrix, strings = encode_rows(signature, samples)
    columns: dict[str, Any] = dict(strings)
    at = 0
    for each in signature.inputs:
        if each.is_text:
            columns[each.name] = samples[each.name].cast(pa.string()).to_pylist()
        elif each.columns == 1:
            columns[each.name] = matrix[:, at]
        at += each.columns
    if not signature.is_as_given or served_outputs(signature) == (SCORE,):
        columns[signature.output] = np.asarray(samples[signature.output].to_numpy(), dtype=np.float64)
    return columns
