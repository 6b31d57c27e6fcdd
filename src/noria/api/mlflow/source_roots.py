"""Where the files of runs and of logged models are, for versions that are registered of them."""

from noria.api.mlflow.wire import artifact_root
from noria.errors import NotFound
from noria.records import RunId
from noria.registry.sources import LoggedRoot, SourceRoots
from noria.tracking.experiments import ExperimentBook
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.run_desk import RunDesk

__all__ = ["source_roots"]


def source_roots(desk: RunDesk, book: ExperimentBook, models: LoggedModels) -> SourceRoots:
    """Give what tells where files are."""

    def of_run(run: str) -> str | None:
        try:
            info = desk.get(RunId(run)).info
        except NotFound:
            return None
        return artifact_root(info, book.get_by_id(info.experiment))

    def of_model(model: str) -> LoggedRoot | None:
        try:
            found = models.get(model)
        except NotFound:
            return None
        return LoggedRoot(found.artifact_uri, found.source_run)

    return SourceRoots(of_run, of_model)
