"""What can be asked of runs and done with them: find, follow, cancel, retry, read logs, reproduce."""

import getpass
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from noria.errors import ConfigError, Conflict, NotFound
from noria.ledger.tables import runs
from noria.pipelines.accounts import RunAccount, account_of
from noria.pipelines.executor import log_path
from noria.pipelines.records import PipelineResult, Progress
from noria.pipelines.store import PipelineStore
from noria.records import Event, Run, RunState
from noria.tracking.experiments import ExperimentBook
from noria.tracking.searches.searching import search_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.evaluation.surrogates import Influences
    from noria.pipelines.reproduction import Reproduction
    from noria.workspace.project import Project
    from noria.workspace.runs.comparison import RunDifference
    from noria.workspace.runs.pictures import RunPictures

__all__ = ["Runs"]

_LOOK_EVERY_S = 0.3


class Runs:
    """The runs of a project; `project.runs` gives it."""

    def __init__(self, project: "Project") -> None:
        self._project = project

    @property
    def _store(self) -> PipelineStore:
        ledger = self._project.ledger
        return PipelineStore(ledger.database, ledger.scope)

    def get(self, reference: str) -> Run:
        """Give the run whose id begins like this, or the newest run of a pipeline of this name.

        Raises
        ------
        NotFound
            If there is none.
        Conflict
            If several ids begin so.
        """
        ledger = self._project.ledger
        found = ledger.find_runs(reference) if reference else []
        if len(found) > 1 and reference not in {each.id for each in found}:
            raise Conflict(f"several runs begin with {reference!r}; write more of the id")
        if found:
            return found[0]
        newest = ledger.list_runs(kind="pipeline", name=reference, limit=1)
        if newest:
            return newest[0]
        raise NotFound("run", reference, advice="`noria run list` shows what ran")

    def search(
        self,
        filter: str = "",
        *,
        experiments: str | Sequence[str] | None = None,
        order_by: str | Sequence[str] = (),
        limit: int = 100,
    ) -> list[Run]:
        """Find runs of experiments that are not deleted, the newest first unless `order_by` says otherwise.

        Parameters
        ----------
        filter
            Such as `metrics.auc > 0.7 AND params.model = 'lgbm'`.
        experiments
            Their names, or one; default: all.
        order_by
            Such as `"metrics.auc DESC"`, or several.

        Raises
        ------
        NotFound
            If there is no such experiment.
        BadFilter
            If `filter` or `order_by` cannot be read.
        """
        ledger = self._project.ledger
        book = ExperimentBook(ledger)
        folders = (
            book.list_all() if experiments is None else [book.get(each) for each in _several(experiments)]
        )
        numbers = [int(each.id) for each in folders]
        with ledger.database.read() as connection:
            page = search_runs(connection, numbers, filter=filter, order_by=_several(order_by), limit=limit)
            return [ledger.get_run(each) for each in page.runs]

    def compare(self, references: str | Iterable[str]) -> "pa.Table":
        """Give runs as a table: a row each, a column for each parameter, metric and tag. Raises as `get`."""
        from noria.workspace.runs.comparison import compare_runs

        return compare_runs(self._project, [self.get(each) for each in _several(references)])

    def leaderboard(
        self,
        metric: str,
        *,
        by: str | Sequence[str] = (),
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
        higher_is_better: bool | None = None,
        level: float = 0.95,
    ) -> "pa.Table":
        """Rank what was tried by the mean of a metric over its repeats, with how sure that is.

        Runs that are alike in all but a seed or a fold are repeats of one configuration. Runs that are
        nested in others have what those have, too. Only what is finished counts, unless the filter says
        something of `status`; of a metric the latest value counts.

        Parameters
        ----------
        metric
            Its name.
        by
            What makes a configuration: `params.NAME`, `tags.NAME`, `name`, `seed`, `experiment`. Default:
            every parameter but those called seed, random_state, fold, split, repeat, tags that name a model,
            and which of several experiments it is.
        filter, experiments
            As for `search`.
        higher_is_better
            Default: guessed from the metric's name.
        level
            Of the intervals.

        Returns
        -------
        Table
            `rank`, what configurations differ in, `mean`, `sd`, `n` (repeats), `left_out` (runs whose
            value is NaN, infinite or beyond 1e150), `low` and `high` of the mean's interval, `difference`
            to the best with `difference_low` and `difference_high`, `ties_with_best`, `pairs`, `compared`,
            `best_run`, `best_value`. Null: nothing can be said, as of what ran once. The schema's metadata
            say how it was found: `direction`, `interval`, `same`.

        Raises
        ------
        NotFound
            If there is no such experiment, metric or parameter.
        ConfigError
            If it is not known whether more is better.
        BadFilter
            If the filter cannot be read.
        """
        from noria.workspace.runs.leaderboards import as_table, leaderboard_of

        return as_table(
            leaderboard_of(
                self._project, metric, by=by, filter=filter, experiments=experiments,
                higher_is_better=higher_is_better, level=level,
            )
        )  # fmt: skip

    def param_importance(
        self,
        metric: str,
        *,
        filter: str = "",
        experiments: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> "Influences":
        """Tell which parameters explain a metric over runs, or why nothing can be said of that.

        A random forest learns the metric from the parameters; what it loses, in runs that it has not seen,
        when a parameter is drawn anew is how important that is. Repeats count once, their mean; `r2` is how
        well the forest does at all. About one question in twenty names a parameter without influence.

        Parameters
        ----------
        metric, filter, experiments
            As for `leaderboard`.
        seed
            The same seed and runs give the same answer.

        Raises
        ------
        NotFound
            If there is no such experiment or metric.
        BadFilter
            If the filter cannot be read.
        """
        from noria.workspace.runs.importance import importance_of

        return importance_of(self._project, metric, filter=filter, experiments=experiments, seed=seed)

    @property
    def pictures(self) -> "RunPictures":
        """Give what draws runs: learning curves, parallel coordinates, a leaderboard, importances."""
        from noria.workspace.runs.pictures import RunPictures

        return RunPictures(self._project)

    def diff(self, one: str, other: str) -> "RunDifference":
        """Tell what two runs differ in. Raises as `get`."""
        from noria.workspace.runs.comparison import difference_of

        return difference_of(self._project, self.get(one), self.get(other))

    def steps(self, run: Run) -> list[Run]:
        """List the runs of a pipeline run's steps, oldest first."""
        return self._project.ledger.list_runs(parent=run.id, newest_first=False)

    def kinds(self) -> list[str]:
        """List the kinds of runs on record."""
        found: list[str] = []
        next_kind = select(func.min(runs.c.kind)).where(runs.c.scope == self._project.ledger.scope)
        with self._project.ledger.database.read() as connection:
            kind = connection.execute(next_kind).scalar()
            while kind is not None:  # one look into the index for each, however many runs there are
                found.append(kind)
                kind = connection.execute(next_kind.where(runs.c.kind > kind)).scalar()
        return found

    def account(self, run: Run) -> RunAccount:
        """Tell of a run of a pipeline in whole: its steps with their attempts and costs, result, versions.

        Raises
        ------
        ConfigError
            If it is no run of a pipeline.
        """
        if run.kind != "pipeline":
            raise ConfigError(f"run {run.id} is a {run.kind}; only runs of pipelines have steps to tell of")
        return account_of(
            run, self.steps(run), self.progress(run),
            ledger=self._project.ledger, storage=self._project.storage,
        )  # fmt: skip

    def progress(self, run: Run) -> Progress | None:
        """Tell how far a run of a pipeline is, or was last; None if it was over before anything was told."""
        found = self._store.find_progress(run.id)
        return None if found is None else msgspec.json.decode(found[0], type=Progress)

    def watch(self, reference: str) -> Iterator[Progress | Run]:
        """Give how far a run is, again and again, and in the end the run as it was closed."""
        run, shown = self.get(reference), None
        while True:
            self._project.ledger.mark_killed()
            progress = self.progress(run)
            if progress is not None and progress != shown:
                shown = progress
                yield progress
            run = self._project.ledger.get_run(run.id)
            if run.state is not RunState.RUNNING:
                yield run
                return
            time.sleep(_LOOK_EVERY_S)

    def cancel(self, reference: str, *, reason: str = "") -> Event:
        """Ask for a run to end. The process that runs it ends its steps and closes it within seconds.

        Raises
        ------
        Conflict
            If it has ended already, or is no run of a pipeline.
        """
        run, ledger = self.get(reference), self._project.ledger
        if run.parent is not None and run.kind == "step":
            run = ledger.get_run(run.parent)
        if run.kind != "pipeline":
            raise Conflict(f"run {run.id} is a {run.kind}; only runs of pipelines can be cancelled")
        if run.state is not RunState.RUNNING:
            raise Conflict(f"run {run.id} is already {run.state}; there is nothing to cancel")
        return ledger.append(
            "run.cancel_requested",
            subject=f"run/{run.id}",
            payload={"reason": reason or "asked for"},
            actor=f"person:{getpass.getuser()}",
            key=f"cancel:{run.id}",
        )

    def log(self, run: Run) -> bytes:
        """Give what a step has printed: so far, where it is still at work."""
        found = self._store.find_log(run.id)
        if found is None:
            live = Path(log_path(str(self._project.state / "pipelines"), run.id))
            return live.read_bytes() if live.exists() else b""
        sha256, _ = found
        small = self._store.values([sha256])
        return small[sha256] if sha256 in small else self._project.storage.get(sha256)

    def retry(
        self,
        reference: str,
        *,
        from_step: str | None = None,
        executor: str | None = None,
        tell: Callable[[Progress], None] | None = None,
    ) -> PipelineResult:
        """Run the pipeline of a run again, with its parameters: what did not finish, or all from a step on.

        Parameters
        ----------
        from_step
            This step and all that depend on it run again, whatever is kept.

        Raises
        ------
        ConfigError
            If the run is of no pipeline, or its parameters cannot be read back from the record.
        """
        run = self.get(reference)
        if run.kind != "pipeline":
            raise ConfigError(f"run {run.id} is a {run.kind}; `noria run retry` takes runs of pipelines")
        return self._project.run_pipeline(
            run.params.get("target", run.name),
            read_params(run),
            key=None if run.state is RunState.FINISHED else run.key,
            force=[] if from_step is None else [from_step],
            executor=executor,
            tell=tell,
        )

    def reproduce(self, reference: str, *, tolerance: float = 1e-9, current: bool = False) -> "Reproduction":
        """Run a recorded run again in its recorded code with its recorded inputs, and compare.

        Parameters
        ----------
        tolerance
            How far figures may differ, relative, to count as equal where bits are not.
        current
            Run the project's code as it is now instead of the recorded one.
        """
        from noria.workspace.reproducing import reproduce

        return reproduce(self._project, self.get(reference), tolerance=tolerance, current=current)


def read_params(run: Run) -> Mapping[str, Any]:
    """Give the parameters of a pipeline's run from its record. Raises `ConfigError` if they were not kept."""
    unkept = run.params.get("unkept", [])
    if unkept:
        raise ConfigError(
            f"parameters {', '.join(unkept)} of run {run.id} are no JSON and were not kept; run the pipeline "
            "from Python with them"
        )
    params: Mapping[str, Any] = run.params["params"]
    return params


def _several(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else [*given]
