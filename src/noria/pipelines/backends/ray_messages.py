"""What an executor and its driver of Ray tell each other."""

from collections.abc import Sequence

import msgspec

from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Lost, Place, Progressed, Started, Work

__all__ = [
    "TELL_EVERY_S",
    "Answer",
    "Away",
    "Cluster",
    "NodeSize",
    "Order",
    "Setup",
    "Stop",
    "tell_needs",
    "tell_sizes",
]

TELL_EVERY_S = 10.0  # how often the driver says at least that it lives


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver is told first."""

    place: Place
    name: str  # of this executor, among all that use the cluster
    address: str | None  # of the cluster; None: start one
    cpus: int  # of one that is started
    folder: str  # for the files of one that is started
    patience_s: float  # for a node to come up that could hold a step
    settle_s: float  # after a step was killed, before its node is asked whether it goes on
    marks: tuple[str, ...]  # files that a node sees which shares the project's folders


class Order(msgspec.Struct, frozen=True, kw_only=True, tag="order"):
    """To the driver: run this."""

    work: Work
    resources: Resources


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """To the driver: end an attempt."""

    run: str
    reason: str


class NodeSize(msgspec.Struct, frozen=True):
    """What a node has in all."""

    cpus: float
    gpus: float
    memory_bytes: float

    def holds(self, needs: Resources) -> bool:
        """Tell whether a step would ever fit."""
        memory = needs.memory_bytes or 0
        return needs.cpus <= self.cpus and needs.gpus <= self.gpus and memory <= self.memory_bytes


class Cluster(msgspec.Struct, frozen=True, kw_only=True, tag="cluster"):
    """From the driver: it is connected to a cluster of these nodes."""

    nodes: tuple[NodeSize, ...]


class Away(msgspec.Struct, frozen=True, kw_only=True, tag="away"):
    """From the driver: the cluster is gone."""

    reason: str


Answer = Cluster | Away | Done | Lost | Progressed | Started


def tell_needs(needs: Resources) -> str:
    """Write what a step wants.

    Examples
    --------
    >>> tell_needs(Resources(cpus=2, memory_bytes=2**30))
    '2 CPUs, 1,024 MiB'
    """
    return _told(NodeSize(needs.cpus, needs.gpus, needs.memory_bytes or 0), needs)


def tell_sizes(nodes: Sequence[NodeSize], needs: Resources) -> str:
    """Write what nodes have of what a step wants.

    Examples
    --------
    >>> tell_sizes([NodeSize(2, 0, 2**30), NodeSize(2, 0, 2**31), NodeSize(4, 0, 0)], Resources(gpus=1))
    '2 nodes of 2 CPUs, 0 GPUs; 1 node of 4 CPUs, 0 GPUs'
    """
    counts: dict[str, int] = {}
    for each in nodes:
        told = _told(each, needs)
        counts[told] = counts.get(told, 0) + 1
    if not counts:
        return "there is no node"
    return "; ".join(f"{many} node{'s' if many > 1 else ''} of {told}" for told, many in counts.items())


def _told(size: NodeSize, needs: Resources) -> str:
    parts = [f"{size.cpus:g} CPUs"]
    if needs.gpus:
        parts.append(f"{size.gpus:g} GPUs")
    if needs.memory_bytes:
        parts.append(f"{size.memory_bytes / 2**20:,.0f} MiB")
    return ", ".join(parts)
