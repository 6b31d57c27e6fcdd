"""The deployments that a worker holds: each with its route, its log and its index, found by name."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from noria.serving.asking import Asking
from noria.serving.asking_files import asking_name
from noria.serving.batching import Batcher
from noria.serving.features.online import OnlineFeatures
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.outcomes import OutcomeBook, outcome_spool
from noria.serving.models import LoadedRoute
from noria.serving.predictor import Predictor
from noria.serving.records import Limits, LogRules
from noria.streams.spool import Spool, spool_bytes

__all__ = ["INDEX", "Hosted", "Hosting", "spool_name", "waiting_bytes"]

INDEX = "index"
_LIMITS = Limits()
_LOG_RULES = LogRules()


def spool_name(worker: int) -> str:
    """Give the name of a worker's spool in the folder of a deployment."""
    return "spool" if worker == 0 else f"spool-{worker}"


class Hosted:
    """One deployment in one worker: open from its construction to `close`.

    Parameters
    ----------
    folder
        The deployment's.
    environment, deployment
        Which it is.
    worker
        The number of this worker among those of the server, from 0: each has a spool of its own.
    clock
        With "replay" requests may carry their instant.
    features
        The online features, None where no model may need any.
    lock_wait_s
        How long to wait for another process to let go of the spool.
    limits
        Of its requests.
    log
        What is kept of each prediction.

    Raises
    ------
    LeaseHeld
        If another process serves this deployment.
    StoreError
        If its log or its index is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: str,
        deployment: str,
        worker: int,
        clock: Literal["wall", "replay"],
        features: OnlineFeatures | None,
        lock_wait_s: float = 10.0,
        limits: Limits = _LIMITS,
        log: LogRules = _LOG_RULES,
    ) -> None:
        self.name, self.folder = deployment, folder
        self._worker, self._log, self._lock_wait_s = worker, log, lock_wait_s
        self._outcomes: OutcomeBook | None = None
        self.recording = asyncio.Lock()
        with ExitStack() as opened:
            self.spool = opened.enter_context(Spool(folder / spool_name(worker), wait_s=lock_wait_s))
            self.index = opened.enter_context(
                PredictionIndex(folder / INDEX, spool=spool_name(worker), synchronous=log.synchronous)
            )
            self.caught_up = self.index.catch_up(folder / spool_name(worker))
            asking = opened.enter_context(Asking(folder / asking_name(worker)))
            self.predictor = Predictor(
                environment=environment,
                deployment=deployment,
                clock=clock,
                spool=self.spool,
                index=self.index,
                features=features,
                log=log,
                asking=asking,
            )
            self.batcher = Batcher(self.predictor, limits)
            self._opened = opened.pop_all()

    @property
    def loaded(self) -> LoadedRoute | None:
        """The route that answers; None before the first."""
        return self.predictor.loaded

    @property
    def redacted(self) -> tuple[str, ...]:
        """Request columns and features whose values are left out of its log."""
        return self._log.redact

    @property
    def outcomes(self) -> OutcomeBook:
        """Where outcomes are recorded, opened when first asked for; who records holds `recording`."""
        if self._outcomes is None:
            self._outcomes = self._opened.enter_context(
                OutcomeBook(
                    self.folder,
                    spool=outcome_spool(self._worker),
                    synchronous=self._log.synchronous,
                    wait_s=self._lock_wait_s,
                )
            )
        return self._outcomes

    async def rotate_outcomes(self) -> int | None:
        """Close the outcomes so far as `rotate` does the log; None where none was recorded here."""
        async with self.recording:
            return None if self._outcomes is None else self._outcomes.rotate()

    def measure(self) -> None:
        """Find out how much waits in the logs of all workers to be moved into the lake."""
        self.predictor.log.spool_bytes = waiting_bytes(self.folder)

    def rotate(self) -> int:
        """Close the current segment of the log, on the disk, and give the number of the last closed one."""
        self.spool.sync()
        segment = self.spool.rotate()
        self.index.mark(segment)
        return segment

    def close(self) -> None:
        """Write all to the disk and let go."""
        self.predictor.close()
        self.spool.sync()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def waiting_bytes(folder: Path) -> int:
    """Give the size of all spools of a deployment, of its predictions and their outcomes."""
    return sum(spool_bytes(each) for pattern in ("spool*", "outcomes*") for each in folder.glob(pattern))


class Hosting(Mapping[str, Hosted]):
    """What a worker holds, by the names of deployments; `find` also knows models by their names.

    One thread adds and takes away, the one that answers.
    """

    def __init__(self) -> None:
        self._deployments: dict[str, Hosted] = {}
        self._names: dict[str, Hosted] = {}
        self.revision = 0  # grows whenever there may be other names

    def __getitem__(self, deployment: str) -> Hosted:
        return self._deployments[deployment]

    def __iter__(self) -> Iterator[str]:
        return iter(self._deployments)

    def __len__(self) -> int:
        return len(self._deployments)

    def add(self, hosted: Hosted) -> None:
        """Hold one more deployment."""
        self._deployments[hosted.name] = hosted
        self.refresh()

    def take(self, deployment: str) -> Hosted | None:
        """Hold a deployment no longer, and give it; the caller closes it."""
        hosted = self._deployments.pop(deployment, None)
        self.refresh()
        return hosted

    def switch(self, deployment: str, loaded: LoadedRoute) -> None:
        """Let a deployment answer by `loaded` from the next request on."""
        self._deployments[deployment].predictor.switch(loaded)
        self.refresh()

    def refresh(self) -> None:
        """Find out anew which names there are: a deployment's own name stands before a model's."""
        self.revision += 1
        names: dict[str, Hosted] = {}
        for hosted in self._deployments.values():
            for name in hosted.loaded.targets if hosted.loaded else ():
                names.setdefault(name, hosted)
        self._names = names | self._deployments

    def find(self, name: str) -> Hosted | None:
        """Give who answers for the name of a deployment or of a model in a route."""
        return self._names.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """What `find` finds."""
        return tuple(self._names)

    def close(self, each: Callable[[Hosted], None] = Hosted.close) -> None:
        """Let go of everything."""
        for hosted in list(self._deployments.values()):
            each(hosted)
        self._deployments, self._names = {}, {}
