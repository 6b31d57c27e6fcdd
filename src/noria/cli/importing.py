"""`noria import mlflow`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.mlflow.importing import MlflowImport

__all__ = ["import_mlflow"]

_SHOWN = 20


def import_mlflow(
    source: Annotated[str, Parameter(name="SOURCE")],
    /,
    *,
    artifacts: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Take in experiments, runs and models of an MLflow store, with metrics and files; it is only read.

    Runs keep their ids, versions of models their numbers. The same command again goes on where it was cut
    off, or adds what is new.

    Parameters
    ----------
    source
        sqlite:///PATH/mlflow.db, postgresql://..., or http://... of a running server.
    artifacts
        The folder that holds the files of runs, where a database does not say so or they were moved.
    dry_run
        Only tell.
    """
    from noria.cli import screen

    with options.open() as project:
        done = project.import_mlflow(source, artifacts=artifacts, dry_run=dry_run)
    if options.json:
        screen.json(done)
        return
    _show(done)


def _show(done: "MlflowImport") -> None:
    from noria.cli import screen

    screen.line(f"{'Would take' if done.is_dry else 'Took'} from {done.source}:")
    counted = {
        "experiments": done.experiments,
        "runs": done.runs,
        "points of metrics": done.points,
        "parameters": done.params,
        "tags": done.tags,
        "datasets": done.datasets,
        "logged models": done.models,
        "registered models": done.registered_models,
        "versions of them": done.model_versions,
        "files": done.files,
    }
    rows = [(what, screen.number(count)) for what, count in counted.items()]
    screen.table(["what", "new"], rows, right=["new"])
    if done.runs_known:
        were = "was" if done.runs_known == 1 else "were"
        screen.line(f"{screen.count(done.runs_known, 'run')} {were} here already.")
    if done.runs_continued:
        screen.line(f"{done.runs_continued:,} of them had not ended: brought up to date.")
    if done.left_count:
        screen.line(f"Not taken: {done.left_count:,}.")
        screen.table(["what", "why"], [(each.what, each.why) for each in done.left[:_SHOWN]], wrap="why")
        if done.left_count > _SHOWN:
            screen.line(f"... and {done.left_count - _SHOWN:,} more; `--json` names the first thousand.")
