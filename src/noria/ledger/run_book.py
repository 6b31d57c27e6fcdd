"""The runs of a ledger: started, kept alive, closed, found."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from noria.ledger import runs
from noria.ledger.acting import acting_as
from noria.ledger.book import Book
from noria.ledger.code import CodeState
from noria.ledger.whole_runs import WholeRun, record_whole_runs
from noria.records import Cost, Run, RunState, Version

__all__ = ["RunBook"]


class RunBook(Book):
    """The verbs of runs. See `noria.ledger.store.Ledger`."""

    def start_run(
        self,
        kind: str,
        name: str,
        *,
        cause: str | None = None,
        parent: str | None = None,
        experiment: str | None = None,
        params: Mapping[str, Any] | None = None,
        seed: int | None = None,
        key: str | None = None,
        id: str | None = None,
        at: datetime | None = None,
        actor: str | None = None,
        is_held: bool = True,
        code: CodeState | None = None,
    ) -> Run:
        """Record that a run begins, held by this process; not held, it goes on until it is closed.

        `code` is this process's where none is given.

        With a key: if the run of that key is finished, it is given as it is; if it failed, was cancelled or
        its process has died, a new attempt begins.

        Raises
        ------
        LeaseHeld
            If the run of that key is at work in a living process (this one included).
        Conflict
            If the key is that of a run of another kind or name.
        """
        code = self.code_state() if code is None else code
        with self.change(at, actor=actor) as change:
            run = runs.start_run(
                change,
                kind=kind,
                name=name,
                cause=cause,
                parent=parent,
                experiment=experiment,
                params=params,
                seed=seed,
                key=key,
                code=code,
                id=id,
                is_held=is_held,
            )
            if run.state is RunState.RUNNING:
                self.tell_of(run.id)
            return run

    def record_runs(self, found: Sequence[WholeRun], *, at: datetime | None = None) -> list[list[Version]]:
        """Record runs that have ended, each as a whole, in one transaction; give what each of them made.

        One event covers a run's row, its new versions and its edges.
        """
        code = self.code_state()
        with self.change(at) as change:
            made = record_whole_runs(change, found, code)
            for each in found:
                self.tell_of(each.id)
            return made

    def heartbeat(self, run_id: str) -> None:
        """Say that a run is alive. Raises `Conflict` if it was closed, `NotFound` if there is none."""
        with self.database.write() as connection:
            runs.beat(connection, run_id, datetime.now(UTC))

    def heartbeat_all(self, run_ids: Sequence[str]) -> None:
        """Say that runs are alive; those that were closed meanwhile are left as they are."""
        with self.database.write() as connection:
            runs.beat_all(connection, run_ids, datetime.now(UTC))

    def finish_run(
        self,
        run_id: str,
        *,
        state: RunState,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        error: str | None = None,
        cost: Cost | None = None,
        at: datetime | None = None,
        actor: str | None = None,
    ) -> Run:
        """Close a run; `params` are added to those it has. Closing it the same way again does nothing.

        Raises
        ------
        ValueError
            If `state` is `running`.
        Conflict
            If it was closed another way.
        """
        if state is RunState.RUNNING:
            raise ValueError("a run is closed as finished, failed, cancelled or killed, not as running")
        with self.change(at, actor=actor) as change:
            run = runs.close_run(
                change, run_id, state=state, metrics=metrics, params=params, error=error, cost=cost
            )
            self.tell_of(run.id)
            return run

    def resume_run(
        self, run_id: str, *, is_held: bool = True, actor: str | None = None, at: datetime | None = None
    ) -> Run:
        """Record that a run goes on that had ended; one at work is given as it is. Raises `NotFound`."""
        with self.change(at, actor=actor) as change:
            run = runs.resume_run(change, run_id, is_held=is_held)
            self.tell_of(run.id)
            return run

    def mark_killed(self) -> list[Run]:
        """Close as killed the runs whose process is gone, and give them.

        A process of this machine is gone when nothing with its pid and start time lives; one of another
        machine when it was silent for 90 s.
        """
        with self.database.read() as connection:
            if not runs.dead_runs_exist(connection, self.scope, datetime.now(UTC)):
                return []
        with acting_as(None), self.change(None) as change:  # who has found it has not done it
            killed = runs.kill_dead_runs(change)
            for each in killed:
                self.tell_of(each.id)
            return killed

    def get_run(self, id: str) -> Run:
        """Give a run of any scope. Raises `NotFound`."""
        with self.database.read() as connection:
            return runs.get_run(connection, id)

    def find_runs(self, beginning: str, *, limit: int = 2) -> list[Run]:
        """List runs whose id begins so."""
        with self.database.read() as connection:
            return runs.find_runs(connection, self.scope, beginning, limit=limit)

    def find_start(self, run_id: str) -> str | None:
        """Give the event that started a run that is at work."""
        with self.database.read() as connection:
            return runs.started_by(connection, run_id)

    def find_run(self, *, key: str) -> Run | None:
        """Give the latest attempt at the run of an idempotency key."""
        with self.database.read() as connection:
            return runs.find_run(connection, self.scope, key)

    def list_runs(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        state: RunState | None = None,
        experiment: str | None = None,
        parent: str | None = None,
        with_steps: bool = True,
        limit: int | None = None,
        newest_first: bool = True,
    ) -> list[Run]:
        """List runs by the instant at which they started; `with_steps`: those of pipelines' steps as well."""
        with self.database.read() as connection:
            return runs.list_runs(
                connection,
                self.scope,
                kind=kind,
                name=name,
                state=state,
                experiment=experiment,
                parent=parent,
                with_steps=with_steps,
                limit=limit,
                newest_first=newest_first,
            )
