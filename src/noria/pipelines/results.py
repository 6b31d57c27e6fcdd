"""What became of a run, as its record keeps it: outputs by task, and what its function returned."""

from typing import TYPE_CHECKING, Any

import msgspec

from noria.pipelines.loading import importing_from
from noria.pipelines.scratch import own_folder
from noria.pipelines.trees import Recorded, Tree, filled, stored_in, without_data
from noria.pipelines.values.codec import Format
from noria.pipelines.work import Bench
from noria.records import Run, RunId, Version
from noria.storage.contract import Storage

if TYPE_CHECKING:
    from noria.pipelines.deciding import SmallValues
    from noria.pipelines.engine import Engine

__all__ = ["Outcome", "find_outcome", "keep_outcome", "read_outcome", "value_of"]

_INLINE_BYTES = 4_096


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave, by digests."""

    outputs: dict[str, str]
    runs: dict[str, RunId]
    counts: dict[str, int]
    skipped: dict[str, str]
    value: Tree | None
    blocked: dict[str, str] = {}
    nodes: list[str] = []  # in the order of the graph


def keep_outcome(outcome: Outcome, engine: "Engine") -> dict[str, Any]:
    """Give the parameters of a run that hold its outcome; a long one goes into the storage."""
    value = None if outcome.value is None else without_data(outcome.value)
    body = msgspec.json.encode(msgspec.structs.replace(outcome, value=value))
    if len(body) <= _INLINE_BYTES:
        return {"outcome": msgspec.json.decode(body)}
    return {"outcome_sha256": engine.storage.put(body)}


def read_outcome(run: Run, engine: "Engine") -> Outcome:
    """Give what a finished run gave."""
    found = find_outcome(run, engine.storage)
    assert found is not None  # it finished
    return found


def find_outcome(run: Run, storage: Storage) -> Outcome | None:
    """Give what a run gave, as far as it came; None if it was left, or is at work."""
    if "outcome_sha256" in run.params:
        return msgspec.json.decode(storage.get(run.params["outcome_sha256"]), type=Outcome)
    return msgspec.convert(run.params["outcome"], Outcome) if "outcome" in run.params else None


def value_of(tree: Tree | None, engine: "Engine", values: "SmallValues") -> Any:
    """Give what a pipeline's function returned, with values in place of trees, and versions as versions."""
    if tree is None:
        return None
    if isinstance(tree, Recorded):
        return engine.ledger.get_version_by_id(tree.id)
    values.fill([tree])
    folder = engine.scratch
    if any(each.format == Format.FOLDER for each in stored_in(tree)):
        folder = own_folder(folder)  # it is the caller's, and is swept away once this process has ended
    # Classes in it may be in modules that only workers have loaded.
    with importing_from(engine.root):
        bench = Bench(engine.place)
        try:
            return bench.load(filled(tree, values.get), Version, folder)
        finally:
            bench.close()
