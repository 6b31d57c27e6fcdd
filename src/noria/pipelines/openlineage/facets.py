"""What a run, its job and its versions become in an OpenLineage event.

Facets of the specification follow the version that their `_schemaURL` names; `noria_run` and
`noria_version` are noria's own, on the base that the specification gives to all facets of an entity.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import quote
from uuid import UUID

from noria.clock import format_instant
from noria.records import Run, RunState, Version

__all__ = [
    "CORE",
    "Facets",
    "datasets",
    "described_job",
    "described_run",
    "error_facet",
    "parent_facet",
    "producer",
]

_SPECIFICATION = "https://openlineage.io/spec"
CORE = f"{_SPECIFICATION}/2-0-2/OpenLineage.json#/$defs"
_FACETS = {
    "DatasetVersionDatasetFacet": "1-0-1",
    "ErrorMessageRunFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "NominalTimeRunFacet": "1-0-1",
    "ParentRunFacet": "1-2-0",
    "ProcessingEngineRunFacet": "1-1-1",
    "SourceCodeLocationJobFacet": "1-1-0",
}
_HOME_SCOPE = "project"
_NO_CODE = "none"
_SHA1 = re.compile(r"[0-9a-f]{40}")
_MAX_ERROR_CHARS = 4_000

Facets = dict[str, dict[str, Any]]


def described_run(run: Run, *, state: RunState) -> dict[str, Any]:
    """Give the run of an event, with what is known of it at the start and at the end alike."""
    facets: Facets = {
        "nominalTime": _facet("NominalTimeRunFacet", nominalStartTime=format_instant(run.at)),
        "processing_engine": _facet(
            "ProcessingEngineRunFacet", version=_version(), name="noria", openlineageAdapterVersion=_version()
        ),
        "noria_run": _own_facet(
            "RunFacet",
            state=state.value,
            kind=_clean(run.kind),
            attempt=run.attempt,
            scope=_clean(run.scope),
            runtime=run.runtime,
            cause=None if run.cause is None else _clean(run.cause),
            codeDiff=run.code_diff,
        ),
    }
    return {"runId": _run_id(run), "facets": facets}


def parent_facet(parent: Run, *, root: Run | None, namespace: str) -> dict[str, Any]:
    """Tell which run started this one, and which is on top of all."""
    top = None if root is None else _pointed(root, namespace)
    return _facet("ParentRunFacet", **_pointed(parent, namespace), root=top)


def error_facet(error: str) -> dict[str, Any]:
    """Tell why a run did not finish."""
    message = _clean(error)
    if len(message) > _MAX_ERROR_CHARS:
        message = message[:_MAX_ERROR_CHARS] + "…"
    return _facet("ErrorMessageRunFacet", message=message, programmingLanguage="PYTHON")


def described_job(run: Run, namespace: str) -> dict[str, Any]:
    """Give the job of an event: what a run of this kind and name is a run of, and its code."""
    facets: Facets = {
        "jobType": _facet(
            "JobTypeJobFacet", processingType="BATCH", integration="NORIA", jobType=_clean(run.kind.upper())
        )
    }
    if run.code != _NO_CODE:
        facets["sourceCodeLocation"] = _facet(
            "SourceCodeLocationJobFacet", type="git", url=_commit_uri(run.code), version=_clean(run.code)
        )
    return {**_job(run, namespace), "facets": facets}


def datasets(versions: Iterable[Version], namespace: str) -> list[dict[str, Any]]:
    """Give versions as the inputs or outputs of an event, each once."""
    return [_dataset(each, namespace) for each in {each.id: each for each in versions}.values()]


@cache
def producer() -> str:
    """Give the URI that says who tells all this."""
    return f"urn:noria:{quote(_version(), safe='')}"


def _dataset(version: Version, namespace: str) -> dict[str, Any]:
    facets: Facets = {
        "version": _facet("DatasetVersionDatasetFacet", datasetVersion=str(version.number)),
        "noria_version": _own_facet(
            "DatasetFacet",
            id=_clean(version.id),
            kind=_clean(version.kind),
            number=version.number,
            sha256=version.sha256,
        ),
    }
    return {
        "namespace": _place(namespace, version.scope),
        "name": _clean(f"{version.kind}/{version.name}"),
        "facets": facets,
    }


def _pointed(run: Run, namespace: str) -> dict[str, Any]:
    return {"run": {"runId": _run_id(run)}, "job": _job(run, namespace)}


def _run_id(run: Run) -> str:
    return str(UUID(hex=run.id))


def _job(run: Run, namespace: str) -> dict[str, Any]:
    return {"namespace": _place(namespace, run.scope), "name": _clean(f"{run.kind}/{run.name}")}


def _place(namespace: str, scope: str) -> str:
    """Give the namespace of a scope: the same for a thing whichever run tells of it."""
    if scope == _HOME_SCOPE:
        return namespace
    return f"{namespace.rstrip('/')}/{quote(_clean(scope), safe='')}"


def _commit_uri(commit: str) -> str:
    """Give the address of a commit.

    Where its repository can be had is not on record, but a commit has an identifier of its own: ISO/IEC
    18670, the software hash identifier. That knows SHA-1 only.
    """
    return (
        f"swh:1:rev:{commit}"
        if _SHA1.fullmatch(commit)
        else f"urn:noria:git:{quote(_clean(commit), safe='')}"
    )


def _facet(name: str, /, **fields: Any) -> dict[str, Any]:
    """Make a facet of the specification; a field that is None is left out."""
    return _with_base(f"{_SPECIFICATION}/facets/{_FACETS[name]}/{name}.json#/$defs/{name}", fields)


def _own_facet(base: str, /, **fields: Any) -> dict[str, Any]:
    return _with_base(f"{CORE}/{base}", fields)


def _with_base(url: str, fields: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    return {"_producer": producer(), "_schemaURL": url, **given}


@cache
def _version() -> str:
    return version("noria")


def _clean(text: str) -> str:
    """Make a text that every reader of JSON can store: whole characters, no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
