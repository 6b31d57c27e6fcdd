"""What a project declares, by kind and name; the kinds themselves are loaded by those who declare them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from noria.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from noria.deploy.bandit_declarations import Bandit
    from noria.deploy.declarations import ABTest, Gate
    from noria.features.declarations import FeatureView
    from noria.features.on_demand import OnDemand
    from noria.lake.declarations import Dataset
    from noria.lake.file_declarations import Files
    from noria.monitoring.declarations import Monitor
    from noria.pipelines.declarations import Pipeline, Step
    from noria.replay.declarations import Replay
    from noria.streams.declarations import Stream
    from noria.training.declarations import Training
    from noria.triggers.declarations import Trigger
    from noria.value.declarations import Objective
    from noria.warehouse.declarations import Model

__all__ = ["Declarations"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declarations:
    """What a project declares, by kind and name."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    on_demand: dict[str, OnDemand] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    ab_tests: dict[str, ABTest] = field(default_factory=dict)
    bandits: dict[str, Bandit] = field(default_factory=dict)
    monitors: dict[str, Monitor] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    replays: dict[str, Replay] = field(default_factory=dict)
    objectives: dict[str, Objective] = field(default_factory=dict)
    pipelines: dict[str, Pipeline[Any, Any]] = field(default_factory=dict)
    steps: dict[str, Step[Any, Any]] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)  # of the warehouse
    streams: dict[str, Stream] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    modules: dict[str, ModuleType] = field(default_factory=dict)  # that were looked into

    def training(self, name: str) -> Training:
        """Give a training. Raises `NotFound`, which says what exists."""
        return _get("training", self.trainings, name)

    def dataset(self, name: str) -> Dataset:
        """Give a dataset. Raises `NotFound`, which says what exists."""
        return _get("dataset", self.datasets, name)

    def stream(self, name: str) -> Stream:
        """Give a stream. Raises `NotFound`, which says what exists."""
        return _get("stream", self.streams, name)

    def test(self, name: str) -> ABTest | Bandit:
        """Give an A/B test or a bandit. Raises `NotFound`, which says what exists."""
        declared: dict[str, ABTest | Bandit] = {**self.ab_tests, **self.bandits}
        return _get("A/B test or bandit", declared, name)

    def gate(self, name: str) -> Gate:
        """Give a gate. Raises `NotFound`, which says what exists."""
        return _get("gate", self.gates, name)


def _get(kind: str, found: Mapping[str, T], name: str) -> T:
    if name not in found:
        raise NotFound(kind, name, found)
    return found[name]
