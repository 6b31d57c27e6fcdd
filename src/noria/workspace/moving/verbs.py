"""The project's verbs of moving: exports to open files, their import, backups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noria.workspace.tracking_verbs import TrackingVerbs

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from noria.workspace.moving.backup_records import Backup
    from noria.workspace.moving.exporting_records import ExportDone
    from noria.workspace.moving.importing_export import ExportImport

__all__ = ["MovingVerbs"]


class MovingVerbs(TrackingVerbs):
    """What leaves a project as a whole, and comes into one."""

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        experiments: Sequence[str] | None = None,
        tell: Callable[[dict[str, int]], None] | None = None,
    ) -> ExportDone:
        """Write experiments, runs and models as open files: tables of Parquet, and the files themselves.

        All of it is of one instant, while others go on writing.

        Parameters
        ----------
        folder
            Empty or not there; it appears once the export is whole.
        experiments
            Names of those that are wanted; of models then only versions that come from them. Default: all.
        tell
            Called now and then with how many rows are written.

        Raises
        ------
        NotFound
            If there is no such experiment; says what exists.
        Conflict
            If the folder holds something.
        LeaseHeld
            If another process exports to it right now.
        DiskFull, StoreError
            If it cannot be written.

        Examples
        --------
        ::

            project.export("all-of-it")
            points = polars.read_parquet("all-of-it/tables/points.parquet")
        """
        from noria.workspace.moving.exporting import export_project

        return export_project(self, Path(folder), experiments=experiments, tell=tell)

    def import_export(
        self,
        folder: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        tell: Callable[[ExportImport], None] | None = None,
    ) -> ExportImport:
        """Take in what `export` wrote, of this or of another project.

        Runs and logged models keep their ids, versions of models their numbers and digests, experiments and
        models their names. What is here already is not taken again: an import that was cut off goes on.

        Parameters
        ----------
        folder
            Of the export.
        dry_run
            Only tell.
        tell
            Called now and then with what was taken so far.

        Raises
        ------
        SourceError
            If it is no export, a file is gone or leads elsewhere, or it is of a newer noria.
        DigestMismatch
            If a file was changed; names it.
        """
        from noria.workspace.moving.importing_export import import_export

        return import_export(self, Path(folder), dry_run=dry_run, tell=tell)

    def backup(self, folder: str | os.PathLike[str], *, keep: int | None = None) -> Backup:
        """Keep the project as it is at this instant, while others go on writing to it.

        Database, storage, the lake's tables and local streams, with `noria.toml`; not the project's own
        files, and nothing that is derived, as the online store. A second backup into the same folder
        copies only what is new. `noria restore` makes a project of it.

        Parameters
        ----------
        folder
            Of this project's backups; made if it is not there. Each is a folder in it, called by its instant.
        keep
            How many stay: older ones are removed once this one is whole. Default: all.

        Returns
        -------
        Backup
            What it holds. `damaged` names what the project itself lacks.

        Raises
        ------
        Conflict
            If the folder holds something else, or files were removed for good meanwhile.
        LeaseHeld
            If another process is backing up into the same folder.
        DiskFull, StoreError
            If it cannot be written; nothing is left of it but bytes that the next one finds.

        Examples
        --------
        ::

            project.backup("/mnt/backups/flights", keep=7)
        """
        from noria.workspace.moving.backup import back_up

        return back_up(self, Path(folder), keep=keep)
