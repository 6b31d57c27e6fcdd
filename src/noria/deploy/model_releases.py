"""Releases made of model versions: what a worker needs of one, taken from its manifest."""

from datetime import datetime

from noria.deploy.releases import Release, record_release
from noria.errors import ConfigError
from noria.ledger.store import Ledger
from noria.records import EventId, Version
from noria.registry import records as kept
from noria.registry.rows import encode_rows
from noria.registry.store import FILES, Registry
from noria.serving.formats.python_models import DESCRIPTION
from noria.serving.formats.scorers import SERVED_FORMATS, Rows
from noria.serving.records import SCORE, Input, Output
from noria.training.declarations import Training

__all__ = ["release_model", "served_inputs", "served_outputs", "signature_of"]


def release_model(
    ledger: Ledger,
    registry: Registry,
    version: Version,
    *,
    training: Training | None = None,
    refit_of: Version | None = None,
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Version:
    """Record the release of a model version that has a manifest, or find the one with the same content.

    Parameters
    ----------
    training
        What it was trained by: its views and its threshold.
    refit_of
        The version that the gate judged, where this one is its refit.

    Raises
    ------
    ConfigError
        If its format is not served, or it reads features and no training tells which.
    """
    manifest = registry.read_manifest(version)
    if manifest.format not in SERVED_FORMATS:
        raise ConfigError(
            f"{version.ref} is a model of format {manifest.format!r}, which is registered and scored but not "
            f"served in this release; served are {', '.join(SERVED_FORMATS)}"
        )
    signature = manifest.signature
    looked_up = [each.name for each in signature.inputs if each.kind in ("feature", "text")]
    if looked_up and training is None:
        raise ConfigError(
            f"{version.ref} reads features ({', '.join(looked_up[:3])}), and the project declares no "
            f"training {version.name!r} any more, which says of which views; declare it again to "
            "deploy the version"
        )
    bundle = None if signature.is_as_given else registry.read_code(version)
    objective = None if training is None else training.objective
    files = {
        path.removeprefix(FILES): part.sha256
        for path, part in manifest.parts.items()
        if path.startswith(FILES)
    }
    if manifest.format == "python":
        files[DESCRIPTION] = manifest.parts["model"].sha256
    digest, format = manifest.parts["model"].sha256, manifest.format
    compiled = _compiled(registry, version, signature) if format == "skops" else None
    return record_release(
        ledger,
        version,
        file_digest=digest if compiled is None else compiled,
        inputs=served_inputs(signature),
        views=[] if training is None else [view.spec() for view in training.views],
        threshold=None if objective is None else objective.cut,
        model_format=format if compiled is None else "compiled",
        refit_of=refit_of,
        on_demand=() if bundle is None else bundle.on_demand,
        on_demand_code=None if bundle is None else bundle.digest,
        outputs=served_outputs(signature),
        files=files,
        cause=cause,
        at=at,
    )


def _compiled(registry: Registry, version: Version, signature: kept.Signature) -> str | None:
    """Keep the compiled form of an estimator of scikit-learn; give its digest, or None where it has none."""
    from noria.registry.skops_archives import load_archive
    from noria.serving.compiled import compile_to_bytes

    rows = Rows(*encode_rows(signature, registry.read_samples(version)))
    estimator = load_archive(registry.read_model(version))
    made = compile_to_bytes(estimator, served_inputs(signature), served_outputs(signature), rows=rows)
    return registry.put(made).sha256 if isinstance(made, bytes) else None


def served_inputs(signature: kept.Signature) -> tuple[Input, ...]:
    """Give what a version reads as a worker is told."""
    return tuple(
        Input(
            name=each.name,
            kind=each.kind,
            categories=each.categories,
            width=each.width or 1,
            datatype=each.datatype or "",
            optional=bool(each.optional),
        )
        for each in signature.inputs
    )


def served_outputs(signature: kept.Signature) -> tuple[Output, ...]:
    """Give what a version gives as a worker is told: the `score` of one that gives one number for a row."""
    if not signature.is_as_given:
        return (SCORE,)
    return tuple(
        Output(name=each.name, datatype=each.datatype, width=each.width, labels=each.labels)
        for each in signature.given
    )


def signature_of(release: Release) -> kept.Signature:
    """Give the signature of a model by what its release tells a worker."""
    inputs = tuple(
        kept.Input(each.name, each.kind, each.categories, width=each.width) for each in release.inputs
    )
    outputs = tuple(
        kept.Output(name=each.name, datatype=each.datatype, width=each.width, labels=each.labels)
        for each in release.outputs
    )
    return kept.Signature(inputs, outputs[0].name, outputs)
