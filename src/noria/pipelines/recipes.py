"""What the record of a step's run holds so that it can be made again: what was called with what."""

from typing import Any

import msgspec

from noria.errors import NotFound
from noria.pipelines.executor import Work
from noria.pipelines.trees import Tree, digest_of_tree, parts_of, without_data
from noria.records import Run
from noria.storage.contract import Storage

__all__ = ["Recipe", "keep_recipe", "read_recipe"]

_INLINE_BYTES = 4_096


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a step, by digests."""

    target: str
    code: str  # digest of the step's code
    arguments: dict[str, Tree]
    split: tuple[str, ...]  # parts whose items are kept apart
    seed: int
    acts: str | None = None  # why it may not run again just to compare: it does something
    outputs: dict[str, str] = {}  # digests of what it gave, by part; "" is the whole


def keep_recipe(
    work: Work, code: str, storage: Storage, *, acts: str | None, output: Tree | None
) -> dict[str, Any]:
    """Give the parameters of a step's run that hold its recipe; a long one goes into the storage."""
    recipe = Recipe(
        target=work.target,
        code=code,
        arguments={name: without_data(tree) for name, tree in work.arguments.items()},
        split=work.split,
        seed=work.seed,
        acts=acts,
        outputs={name: digest_of_tree(tree) for name, tree in parts_of(output)},
    )
    body = msgspec.json.encode(recipe)
    if len(body) <= _INLINE_BYTES:
        return {"recipe": msgspec.json.decode(body)}
    return {"recipe_sha256": storage.put(body)}


def read_recipe(run: Run, storage: Storage) -> Recipe:
    """Give the recipe of a step's run. Raises `NotFound` if its record holds none."""
    if "recipe" in run.params:
        return msgspec.convert(run.params["recipe"], Recipe)
    if "recipe_sha256" in run.params:
        return msgspec.json.decode(storage.get(run.params["recipe_sha256"]), type=Recipe)
    raise NotFound("recipe", f"of run {run.id} ({run.kind} {run.name})")
