"""What a worker knows of each of its deployments, beside what it holds."""

import asyncio
from typing import Literal

from noria.errors import NoriaError
from noria.serving.models import LoadedRoute, RouteRefusedError
from noria.serving.records import DeploymentState, ModelState, Route

__all__ = ["Seat", "is_native"]


class Seat:
    """What a worker knows of one of its deployments, beside what it holds."""

    def __init__(self) -> None:
        self.loading = asyncio.Lock()
        self.seen: tuple[int, int, int] | None = None  # the route file as last read
        self.wanted = 0
        self.error: str | None = None
        self.refusal: str | None = None
        self.held_by: str | None = None
        self.refused: tuple[ModelState, ...] = ()
        self.waking: asyncio.Task[None] | None = None  # its models are being loaded again
        self.wake_error: str | None = None  # why they could not be

    def take(self, route: Route, before: LoadedRoute | None) -> None:
        """Note that `route` answers."""
        self.error = self.wake_error = None
        if before is None or before.route != route:  # else a refused route was taken back
            self.refusal, self.refused = None, ()

    def refuse(self, error: NoriaError) -> None:
        """Note that the wanted route does not."""
        self.error, self.refusal = str(error), f"route {self.wanted}: {error}"
        models = error.models if isinstance(error, RouteRefusedError) else ()
        self.refused = tuple(model for model in models if not model.ready)

    def state(self, loaded: LoadedRoute | None) -> DeploymentState:
        """Tell of it."""
        error = self.wake_error or self.error
        state: Literal["starting", "ready", "refused"] = "refused" if error else "starting"
        return DeploymentState(
            state="ready" if loaded and not self.wake_error else state,
            route=loaded.route.number if loaded else 0,
            wanted=self.wanted,
            error=error,
            refusal=self.refusal,
            held_by=self.held_by,
            is_resting=bool(loaded and loaded.is_resting),
            models=(*(_states(loaded) if loaded else ()), *self.refused),
        )


def is_native(loaded: LoadedRoute) -> bool:
    """Whether no code of a user is in a route: the last reference frees all of it."""
    return all(each.scorer.is_native and each.on_demand is None for each in loaded.models.values())


def _states(loaded: LoadedRoute) -> tuple[ModelState, ...]:
    served = [model.served for model in loaded.models.values()]
    return tuple(
        ModelState(release=each.release, model=each.model, version=each.version, ready=True)
        for each in served
    )
