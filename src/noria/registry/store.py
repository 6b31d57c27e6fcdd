"""The registry's verbs: register a model version, load it verified, list and show what there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from noria.errors import ConfigError, NotFound
from noria.features.code_bundle import Bundle, load_functions, read_bundle
from noria.features.on_demand_tables import add_on_demand
from noria.ledger.redacted import expected_digest
from noria.ledger.store import Ledger
from noria.profiles.records import ColumnProfile, Profile
from noria.records import RunId, Version, VersionId, VersionRef, canonical_json
from noria.registry.formats import load_estimator, load_scorer, scorer_of
from noria.registry.labels import add_native
from noria.registry.matrix import Matrix, Scorer, column_floats, encode
from noria.registry.records import (
    FolderManifest,
    ModelDetails,
    ModelFormat,
    ModelManifest,
    ModelSummary,
    Part,
    Signature,
    is_folder,
)
from noria.storage.contract import Storage

__all__ = ["FILES", "LoadedModel", "Registry", "sample_bytes"]

FILES = "files/"  # what parts are called that are files of a model
_KIND = "model"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model version in memory, every digest verified.

    Attributes
    ----------
    version, manifest
        Its records.
    profile : Profile
        Of the rows it was trained on and of its scores.
    samples : pa.Table
        Some of those rows, before encoding, and in the column of the signature's output the scores that
        the model gave when it was registered.
    estimator
        The model as its library has it.
    """

    version: Version
    manifest: ModelManifest
    profile: Profile
    samples: pa.Table
    estimator: Any
    scorer: Scorer

    @property
    def signature(self) -> Signature:
        """The columns it reads and gives."""
        return self.manifest.signature

    def score(self, matrix: Matrix) -> Matrix:
        """Score encoded rows: one probability for each.

        Raises
        ------
        ValueError
            If the matrix has another number of columns than the signature.
        """
        width = len(self.signature.inputs)
        if matrix.ndim != 2 or matrix.shape[1] != width:
            raise ValueError(f"the matrix has shape {matrix.shape}; {self.version.ref} wants (n, {width})")
        return self.scorer(matrix) if len(matrix) else np.empty(0)

    def score_rows(self, rows: pa.Table) -> Matrix:
        """Encode and score rows of named columns. Raises `SourceError` as `encode` does."""
        return self.score(encode(self.signature, rows))

    def encoded_samples(self) -> tuple[Matrix, Matrix]:
        """Give the samples as the model reads them, and their scores when registered."""
        return encode(self.signature, self.samples), _expected(self.signature, self.samples)

    def sample_error(self) -> float:
        """Give the largest difference between the samples' scores now and when registered; 0 is as it was."""
        return _sample_error(self.signature, self.samples, self.scorer)


class Registry:
    """Model versions of one scope: their records in the ledger, their parts in the storage."""

    def __init__(self, ledger: Ledger, storage: Storage) -> None:
        self._ledger, self._storage = ledger, storage

    def register(
        self,
        name: str,
        *,
        model_bytes: bytes,
        format: ModelFormat,
        signature: Signature,
        profile: Profile,
        samples: pa.Table,
        metrics: Mapping[str, float],
        run: RunId | None = None,
        parents: Sequence[VersionId] = (),
        facts: Mapping[str, Any] | None = None,
        code: bytes | None = None,
        at: datetime | None = None,
    ) -> Version:
        """Keep a model as the next version of its name; the same content again gives the version it has.

        Parameters
        ----------
        name : str
            The model's name.
        model_bytes, format
            As `noria.registry.formats.dump_estimator` gives them.
        signature : Signature
        profile : Profile
            Of the training rows, inputs by name, and of the scores under the signature's output.
        samples : pa.Table
            Rows before encoding, with their scores under the signature's output: checked here. Other columns
            are what its on-demand features read and give.
        metrics : mapping
            Figures of its quality that belong to the content, finite.
        run : RunId, optional
            The run that made it.
        parents : sequence of VersionId
            Versions it comes from, such as the gated one of which it is a refit.
        facts : mapping, optional
            What else is to be known of it, as JSON; part of the content.
        code : bytes, optional
            Of its on-demand features, as `noria.features.code_bundling.make_bundle` gives it.
        at : datetime, optional
            The project's instant.

        Raises
        ------
        ConfigError
            If the bytes are no model of the format, or the model does not give the samples' scores.
        """
        _check(load_scorer(format, model_bytes), signature, samples, name)
        manifest = ModelManifest(
            name=name,
            format=format,
            signature=signature,
            metrics=dict(metrics),
            parts={
                "model": self._put(model_bytes),
                "profile": self._put(_profile_bytes(profile)),
                "samples": self._put(sample_bytes(samples, signature)),
                **({} if code is None else {"code": self._put(code)}),
            },
            parents=tuple(parents),
            facts=dict(facts or {}),
        )
        return self._record(manifest, run=run, at=at)

    def register_as_given(
        self,
        name: str,
        *,
        format: ModelFormat,
        model: Part,
        files: Mapping[str, Part],
        signature: Signature,
        profile: Profile,
        samples: pa.Table,
        metrics: Mapping[str, float],
        facts: Mapping[str, Any],
        run: RunId | None = None,
        at: datetime | None = None,
    ) -> Version:
        """Keep a model that somebody made elsewhere, as the next version of its name; see `register`.

        Parameters
        ----------
        model, files
            Its parts in the storage: the one that a worker reads first, and others by their path.
        samples
            Rows, and in the columns of the signature's outputs what the model gives for them. Whoever
            registers has seen that it gives the same again from these bytes.
        """
        manifest = ModelManifest(
            name=name,
            format=format,
            signature=signature,
            metrics=dict(metrics),
            parts={
                "model": model,
                "profile": self._put(_profile_bytes(profile)),
                "samples": self._put(sample_bytes(samples, signature)),
                **{f"{FILES}{path}": part for path, part in files.items()},
            },
            facts=dict(facts),
        )
        return self._record(manifest, run=run, at=at)

    def copy(self, other: "Registry", version: Version, *, name: str) -> Version:
        """Keep a version of another registry, byte for byte, as the next version of a name.

        What it comes from is on record there, so it has no parents here. Raises like `read_manifest`.
        """
        manifest = other.read_manifest(version)
        for part in manifest.parts.values():
            self._put(other._storage.get(part.sha256))
        facts = {**manifest.facts, "copied_from": version.ref}
        copied = msgspec.structs.replace(manifest, name=name, parents=(), facts=facts)
        return self._record(copied, run=None, at=None)

    def put(self, data: bytes | Path) -> Part:
        """Keep the bytes of a part, or of a file that becomes one."""
        if isinstance(data, bytes):
            return self._put(data)
        return Part(self._storage.put_file(data), data.stat().st_size)

    def read_model(self, version: Version) -> bytes:
        """Give the bytes of the model itself. Raises like `load`."""
        return self._storage.get(self.read_manifest(version).parts["model"].sha256)

    def read_samples(self, version: Version) -> pa.Table:
        """Give the rows that are stored with a version, and what it gave for them. Raises like `load`."""
        part = self.read_manifest(version).parts["samples"]
        return pa.ipc.open_stream(self._storage.get(part.sha256)).read_all()

    def _record(self, manifest: ModelManifest, *, run: RunId | None, at: datetime | None) -> Version:
        sha256 = self._storage.put(canonical_json(manifest))
        facts = {
            **manifest.facts,
            "format": manifest.format,
            "metrics": manifest.metrics,
            "parents": manifest.parents,
        }
        uri = self._storage.uri(sha256)
        with self._ledger.database.write() as connection:
            version = self._ledger.record_version(
                _KIND, manifest.name, sha256=sha256, uri=uri, run=run, facts=facts, at=at
            )
            add_native(connection, version)
        return version

    def record_report(
        self,
        kind: str,
        name: str,
        content: bytes,
        *,
        run: RunId,
        facts: Mapping[str, Any],
        at: datetime | None = None,
    ) -> Version:
        """Keep what a training tells beside its model, as a version that its run made."""
        sha256 = self._storage.put(content)
        uri = self._storage.uri(sha256)
        return self._ledger.record_version(kind, name, sha256=sha256, uri=uri, run=run, facts=facts, at=at)

    def read_report(self, version: Version) -> bytes:
        """Give what `record_report` kept. Raises `NotFound`, `DigestMismatch`."""
        return self._storage.get(version.sha256)

    def get(self, reference: str) -> Version:
        """Give the version that `NAME` (its newest) or `NAME:3` names.

        Raises
        ------
        NotFound
            If there is none; it says what exists.
        ValueError
            If the reference names an environment: that is for the deployments to tell.
        """
        wanted = VersionRef.parse(reference)
        if wanted.environment is not None:
            raise ValueError(f"{reference!r} names an environment; a registry knows names and numbers only")
        return self._ledger.get_version(_KIND, wanted.name, wanted.number)

    def read_manifest(self, version: Version) -> ModelManifest:
        """Give the manifest of a version, verified.

        Raises
        ------
        NotFound
            If the version is no model, or its manifest is gone from the storage.
        DigestMismatch
            If the manifest is not what was recorded.
        ConfigError
            If it is a folder; see `read_folder`.
        """
        if is_folder(version):
            raise ConfigError(
                f"{version.ref} is a folder of MLflow, which has no parts of its own: `project.load_model` "
                "loads it, `noria deploy` serves it, and `project.models.register` makes a version of the "
                "model in it"
            )
        return msgspec.json.decode(self._manifest_bytes(version), type=ModelManifest)

    def read_folder(self, version: Version) -> FolderManifest:
        """Give the manifest of a version for which `is_folder` holds. Raises like `read_manifest`."""
        return msgspec.json.decode(self._manifest_bytes(version), type=FolderManifest)

    def check(self, version: Version) -> int:
        """Read all bytes of a version, and give how many blobs they are. Raises like `read_manifest`.

        The files of a folder are the project's artifacts, and are left out.
        """
        if is_folder(version):
            self.read_folder(version)
            return 1
        parts = self.read_manifest(version).parts
        for part in parts.values():
            self._storage.get(part.sha256)
        return 1 + len(parts)

    def read_code(self, version: Version) -> Bundle | None:
        """Give the code of a version's on-demand features, verified; None if it has none.

        Raises
        ------
        NotFound
            If it is no model, or a part is gone from the storage.
        DigestMismatch
            If a part is not what was recorded.
        """
        part = self.read_manifest(version).parts.get("code")
        return None if part is None else read_bundle(self._storage.get(part.sha256))

    def add_on_demand(self, version: Version, rows: pa.Table) -> pa.Table:
        """Give rows with the on-demand features of a version, computed by the code kept with it."""
        bundle = self.read_code(version)
        return rows if bundle is None else add_on_demand(rows, load_functions(bundle), as_served=True)[0]

    def load(self, version: Version) -> LoadedModel:
        """Give a version ready to score, the digests of all its parts verified.

        Raises
        ------
        NotFound
            If it is no model, or a part is gone from the storage.
        DigestMismatch
            If a part is not what was recorded.
        ConfigError
            If it is a folder, or was registered as it is: it gives other than a probability of one class.
        """
        manifest = self.read_manifest(version)
        if manifest.signature.is_as_given:
            raise ConfigError(
                f"{version.ref} was registered as it is (a {manifest.format} model that gives "
                f"{', '.join(each.name for each in manifest.signature.given)}); `project.load_model` loads "
                "it, and `noria deploy` serves it"
            )
        parts = {name: self._storage.get(part.sha256) for name, part in manifest.parts.items()}
        estimator = load_estimator(manifest.format, parts["model"])
        return LoadedModel(
            version=version,
            manifest=manifest,
            profile=msgspec.json.decode(parts["profile"], type=Profile),
            samples=pa.ipc.open_stream(parts["samples"]).read_all(),
            estimator=estimator,
            scorer=scorer_of(manifest.format, estimator),
        )

    def list_models(self, name: str | None = None) -> list[ModelSummary]:
        """List model versions by name and number; the storage is not read."""
        return [_summary(each) for each in self._ledger.list_versions(kind=_KIND, name=name)]

    def show(self, version: Version) -> ModelDetails:
        """Give what is known of a version. Raises like `read_manifest`, but shows folders too."""
        if is_folder(version):
            files = self.read_folder(version).files
            return ModelDetails(model=_summary(version), signature=None, parts=files, profile={})
        manifest = self.read_manifest(version)
        profile = msgspec.json.decode(self._storage.get(manifest.parts["profile"].sha256), type=Profile)
        return ModelDetails(
            model=_summary(version),
            signature=manifest.signature,
            parts=manifest.parts,
            profile=_profile_summary(profile),
        )

    def _manifest_bytes(self, version: Version) -> bytes:
        if version.kind != _KIND:
            raise NotFound(_KIND, version.ref, (each.ref for each in self._ledger.list_versions(kind=_KIND)))
        return self._storage.get(expected_digest(self._ledger, version))

    def _put(self, data: bytes) -> Part:
        return Part(self._storage.put(data), len(data))


def _check(scorer: Scorer, signature: Signature, samples: pa.Table, name: str) -> None:
    if signature.output not in samples.column_names or not samples.num_rows:
        raise ConfigError(f"the samples of model {name!r} need rows, and scores in {signature.output!r}")
    scores = _expected(signature, samples)
    if not ((scores >= 0) & (scores <= 1)).all():  # NaN is refused as well
        raise ConfigError(f"model {name!r} gives scores outside 0 to 1; train it to give probabilities")
    error = _sample_error(signature, samples, scorer)
    if error:
        raise ConfigError(f"model {name!r} read back from its bytes scores otherwise by up to {error}")


def _sample_error(signature: Signature, samples: pa.Table, scorer: Scorer) -> float:
    return float(np.abs(scorer(encode(signature, samples)) - _expected(signature, samples)).max())


def _expected(signature: Signature, samples: pa.Table) -> Matrix:
    return column_floats(signature.output, samples.column(signature.output))


def _profile_bytes(profile: Profile) -> bytes:
    """Write a profile; statistics that are numpy's floats, which JSON does not know, as plain ones."""
    return canonical_json(msgspec.to_builtins(profile, enc_hook=float))


def sample_bytes(samples: pa.Table, signature: Signature) -> bytes:
    """Write inputs in the signature's order, others by name, and scores: equal rows, equal bytes."""
    others = sorted({*samples.column_names} - {*signature.names, signature.output})
    table = samples.select([*signature.names, *others, signature.output]).replace_schema_metadata(None)
    rows = table.take(pa.array(np.arange(table.num_rows))).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _summary(version: Version) -> ModelSummary:
    facts = dict(version.facts)
    return ModelSummary(
        ref=version.ref,
        id=version.id,
        name=version.name,
        number=version.number,
        sha256=version.sha256,
        run=version.run,
        at=version.at,
        format=facts.pop("format"),
        metrics=facts.pop("metrics"),
        parents=tuple(facts.pop("parents")),
        facts=facts,
    )


def _profile_summary(profile: Profile) -> dict[str, Any]:
    return {name: _column_summary(column) for name, column in profile.columns.items()}


def _column_summary(column: ColumnProfile) -> dict[str, Any]:
    common = {"kind": column.kind, "rows": column.rows, "missing_share": column.missing_share}
    if column.kind == "category":
        return {**common, "categories": len(column.categories), "most_frequent": column.categories[:3]}
    return {**common, "low": column.low, "mean": column.mean, "high": column.high}
