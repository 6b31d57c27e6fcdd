"""Removing the bytes of files that were deleted or put anew: nothing on record is made of them any more.

Named are: every artifact by its path, those of deleted runs too; every file of a registered version, as it
was registered. Logs of runs that have not been moved into the database name bytes as well: while there is one
on this machine, nothing is removed. What another machine has kept and not named yet is protected by its age.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError, Conflict
from noria.registry.records import is_folder
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.spools.spool import count_spools
from noria.workspace.opened import Opened

__all__ = ["PrunedArtifacts", "prune_artifacts"]

_LEAST = timedelta(hours=1)


class PrunedArtifacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be.

    Attributes
    ----------
    before
        Bytes that nobody has put since then.
    """

    before: datetime
    blobs: int
    bytes: int
    is_dry: bool


def prune_artifacts(
    opened: Opened, store: ArtifactStore, *, older_than: str | timedelta = "30d", dry_run: bool = False
) -> PrunedArtifacts:
    """Remove bytes of artifacts that nothing names, from the storage, for good.

    Parameters
    ----------
    older_than
        How long ago they were put the last time: `30d`; an hour is the least, as uploads are at work.
    dry_run
        Only tell.

    Raises
    ------
    ConfigError
        If `older_than` is no duration, or too short.
    Conflict
        If runs have logged what is not in the database yet.
    """
    try:
        age = parse_duration(older_than) if isinstance(older_than, str) else older_than
    except ValueError as err:
        raise ConfigError(f"older_than: {err}") from err
    if age < _LEAST:
        raise ConfigError(
            f"older_than is {age}; an hour is the least: what is younger may be about to be named"
        )
    waiting = sum(count_spools(opened.state / "tracking"))
    if waiting and not dry_run:
        raise Conflict(
            f"{waiting} logs of runs are not in the database yet, and may name bytes that nothing else does; "
            "wait for those runs to end, or see to what `noria doctor` tells of them"
        )
    ledger, before = opened.ledger, datetime.now(UTC) - age

    def tell(blobs: int, size: int) -> None:
        payload = {"blobs": blobs, "bytes": size, "before": before.isoformat()}
        ledger.append("artifacts.pruned", payload=payload)

    named = _OfVersions(opened)
    blobs, size = store.prune(before=before, named=named.digests, dry_run=dry_run, tell=tell)
    return PrunedArtifacts(before=before, blobs=blobs, bytes=size, is_dry=dry_run)


class _OfVersions:
    """The files of all versions that were registered by where their files are."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._read: set[str] = set()  # versions
        self._digests: set[str] = set()

    def digests(self) -> Collection[str]:
        """Give their digests; what was registered since the last time is read, nothing else."""
        for version in self._opened.ledger.list_versions(kind="model"):
            if is_folder(version) and version.id not in self._read:
                self._digests.update(
                    part.sha256 for part in self._opened.registry.read_folder(version).files.values()
                )
                self._read.add(version.id)
        return self._digests
