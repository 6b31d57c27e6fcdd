"""`noria export`, `noria import export`, `noria backup`, `noria restore`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEBUG, DEFAULT, JSON, Options

if TYPE_CHECKING:
    from noria.workspace.moving.backup_records import Backup
    from noria.workspace.moving.importing_export import ExportImport

__all__ = ["back_up", "check_backup", "export", "import_export", "list_backups", "restore"]

_SHOWN = 20
_DAMAGED = 7  # what `DigestMismatch` ends with


def export(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    experiment: Annotated[list[str] | None, Parameter(negative="")] = None,
    options: Options = DEFAULT,
) -> None:
    """Write experiments, runs and models as open files: tables of Parquet, and the files themselves.

    Parameters
    ----------
    folder
        Empty or not there.
    experiment
        Only this one, with what belongs to it; may be given several times.
    """
    from noria.cli import screen

    with options.open() as project:
        done = project.export(folder, experiments=experiment)
    if options.json:
        screen.json(done)
        return
    screen.line(f"Exported to {done.folder}:")
    rows = [(name, screen.number(count)) for name, count in sorted(done.rows.items()) if count]
    screen.table(["table", "rows"], rows, right=["rows"])
    screen.line(f"{screen.count(done.files, 'file')} of runs and models, {done.file_bytes:,} bytes.")
    _show_left(len(done.left), done.left)


def import_export(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Take in what `noria export` wrote. The same command again goes on where it was cut off.

    Parameters
    ----------
    folder
        Of the export.
    dry_run
        Only tell.
    """
    from noria.cli import screen

    with options.open() as project:
        done = project.import_export(folder, dry_run=dry_run)
    if options.json:
        screen.json(done)
        return
    _show_import(done)


def back_up(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    keep: int | None = None,
    options: Options = DEFAULT,
) -> int:
    """Keep the project as it is now, while others write to it; only what is new is copied.

    `noria backup list FOLDER` tells what there is, `noria restore FOLDER --to DIR` makes a project of it.

    Parameters
    ----------
    folder
        Of this project's backups.
    keep
        How many stay; older ones are removed. Default: all.
    """
    from noria.cli import screen

    with options.open() as project:
        done = project.backup(folder, keep=keep)
    if options.json:
        screen.json(done)
    else:
        screen.line(f"Kept in {done.folder}:")
        screen.facts(
            {
                "events, rows": f"{done.events:,}, {done.rows:,}",
                "tables of the lake": f"{done.tables:,}",
                "blobs": f"{done.blobs:,}",
                "bytes": f"{done.size_bytes:,}, of these {done.copied_bytes:,} are new",
            }
        )
        if done.linked:
            screen.line(
                f"{screen.count(done.linked, 'blob')} linked: this folder is on the project's own disk."
            )
        if done.waiting:
            were = "process was" if done.waiting == 1 else "processes were"
            screen.line(f"{done.waiting:,} {were} logging: the last half second of that is not in it.")
        if done.removed:
            screen.line(f"Removed: {', '.join(done.removed)}.")
        _show_damaged(done.damaged)
    return _DAMAGED if done.damaged else 0


def list_backups(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    json: Annotated[bool, JSON] = False,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """List the backups in a folder, oldest first. No project is needed.

    Parameters
    ----------
    folder
        Of backups.
    """
    from noria.cli import screen
    from noria.workspace.moving.backup import backups_in

    found = backups_in(folder)
    if json:
        screen.json(found)
        return
    columns = ["name", "project", "database", "events", "rows", "blobs", "bytes", "damaged"]
    screen.table(columns, [_row(each) for each in found], right=columns[3:])


def check_backup(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    json: Annotated[bool, JSON] = False,
    debug: Annotated[bool, DEBUG] = False,
) -> int:
    """Compute every digest of backups again, without restoring them. No project is needed.

    Parameters
    ----------
    folder
        Of backups, or of one of them.
    """
    from noria.cli import screen
    from noria.workspace.moving.checks import check_backups

    found = check_backups(folder)
    if json:
        screen.json(found)
    else:
        read = f"{screen.count(found.backups, 'backup')}, {screen.count(found.files, 'file')} read"
        screen.line(f"{found.folder}: {read}, {len(found.damaged):,} damaged.")
        for each in found.damaged:
            screen.line(each, indent=2)
        if found.damaged:
            screen.line(
                "Remove a damaged file below blobs: the next backup takes it from the project anew. "
                "`noria restore --leave-damaged` restores the rest."
            )
    return _DAMAGED if found.damaged else 0


def restore(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    to: Path,
    database: str | None = None,
    storage: str | None = None,
    leave_damaged: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, JSON] = False,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Make a project of a backup; every digest is computed again. The same command again goes on.

    Parameters
    ----------
    folder
        Of backups, of which the newest is taken; or of one of them.
    to
        The project's folder: empty, not there, or with a project's files and nothing recorded yet.
    database
        Where its records go, such as postgresql://...; default: as noria.toml says.
    storage
        Where its bytes go, such as s3://...; default: as noria.toml says.
    leave_damaged
        Restore the rest, where bytes of the backup are damaged or gone.
    """
    from noria.cli import screen
    from noria.workspace.moving.restoring_backup import restore_backup

    done = restore_backup(folder, to, database=database, storage=storage, leave_damaged=leave_damaged)
    if json:
        screen.json(done)
        return
    screen.line(f"Restored {done.backup} of project {done.project!r} to {done.folder}:")
    screen.facts(
        {
            "events, rows": f"{done.events:,}, {done.rows:,}; the ledger verifies",
            "tables of the lake": f"{done.tables:,}",
            "blobs": f"{done.blobs:,}",
            "database": done.database,
        }
    )
    if done.is_upgraded:
        screen.line(f"Its tables were of an older noria; they are of revision {done.revision} now.")
    for each in done.todo:
        screen.line(f"Next: {each}")
    _show_damaged(done.damaged)


def _row(each: "Backup") -> tuple[str, ...]:
    counts = (each.events, each.rows, each.blobs, each.size_bytes, len(each.damaged))
    return (each.name, each.project, each.database, *(f"{count:,}" for count in counts))


def _show_damaged(damaged: tuple[str, ...]) -> None:
    from noria.cli import screen

    if damaged:
        screen.line(f"Damaged, and left out: {len(damaged):,}.")
        for each in damaged[:_SHOWN]:
            screen.line(each, indent=2)


def _show_import(done: "ExportImport") -> None:
    from noria.cli import screen

    screen.line(f"{'Would take' if done.is_dry else 'Took'} from {done.source}:")
    counted = {
        "experiments": done.experiments,
        "runs": done.runs,
        "points of metrics": done.points,
        "parameters": done.params,
        "tags": done.tags,
        "inputs": done.inputs,
        "logged models": done.logged_models,
        "registered models": done.models,
        "versions of them": done.model_versions,
        "other versions": done.versions,
        "files": done.files,
    }
    rows = [(what, screen.number(count)) for what, count in counted.items()]
    screen.table(["what", "new"], rows, right=["new"])
    if done.runs_known:
        were = "was" if done.runs_known == 1 else "were"
        screen.line(f"{screen.count(done.runs_known, 'run')} {were} here already.")
    if done.runs_continued:
        screen.line(f"{done.runs_continued:,} more had not ended: brought up to date.")
    _show_left(done.left_count, [(each.what, each.why) for each in done.left])


def _show_left(count: int, left: "list[tuple[str, str]] | tuple[tuple[str, str], ...]") -> None:
    from noria.cli import screen

    if count:
        screen.line(f"Left out: {count:,}.")
        screen.table(["what", "why"], list(left[:_SHOWN]), wrap="why")
        if count > _SHOWN:
            screen.line(f"... and {count - _SHOWN:,} more; `--json` names the first thousand.")
