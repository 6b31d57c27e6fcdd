"""What a step reads and gives, by digest: one value, a list of values, fields, or a recorded version."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from noria.errors import ConfigError
from noria.records import VersionId, sha256_hex

__all__ = [
    "INLINE_BYTES",
    "Absent",
    "Fields",
    "Keyed",
    "Listed",
    "Recorded",
    "Stored",
    "Tree",
    "digest_of_tree",
    "filled",
    "modules_in",
    "part",
    "parts_of",
    "recorded_in",
    "stored_in",
    "told_of",
    "without_data",
]

INLINE_BYTES = 16_384  # values up to this are kept in the database


class Stored(msgspec.Struct, frozen=True, tag="stored", omit_defaults=True):
    """A value as bytes, in the database or in the storage."""

    format: str  # of `noria.pipelines.values.codec.Format`
    sha256: str
    size_bytes: int
    told: str  # in a few words, for people
    data: bytes | None = None  # a small value travels with its record
    modules: tuple[str, ...] = ()  # of the project, whose classes it holds

    def with_data(self, data: bytes | None) -> "Stored":
        """Give it with, or without, its bytes."""
        return Stored(self.format, self.sha256, self.size_bytes, self.told, data, self.modules)

    @property
    def is_small(self) -> bool:
        """Whether it is kept in the database."""
        return self.format == "value" and self.size_bytes <= INLINE_BYTES


class Listed(msgspec.Struct, frozen=True, tag="list"):
    """Values in order, kept apart."""

    items: tuple["Tree", ...]
    is_tuple: bool = False


class Fields(msgspec.Struct, frozen=True, tag="fields"):
    """A value of several named parts, kept apart."""

    kind: str  # "tuple", "dict", or "module:name" of a NamedTuple or dataclass
    names: tuple[str, ...]
    items: tuple["Tree", ...]


class Keyed(msgspec.Struct, frozen=True, tag="dict"):
    """A dict whose values are kept apart; its keys are one value."""

    keys: Stored
    items: tuple["Tree", ...]


class Recorded(msgspec.Struct, frozen=True, tag="version"):
    """A version of the ledger that is no value of a step: a dataset, a model."""

    id: VersionId
    sha256: str


class Absent(msgspec.Struct, frozen=True, tag="absent"):
    """The result of a step that was not run: None to whoever reads it."""


Tree = Stored | Listed | Fields | Keyed | Recorded | Absent


def digest_of_tree(tree: Tree) -> str:
    """Give the sha256 of what a tree stands for.

    Examples
    --------
    >>> digest_of_tree(Stored("value", "ab", 1, "1"))
    'ab'
    """
    match tree:
        case Stored(sha256=sha256) | Recorded(sha256=sha256):
            return sha256
        case Absent():
            return sha256_hex(b"absent")
        case Listed(items=items, is_tuple=is_tuple):
            head = b"tuple" if is_tuple else b"list"
        case Fields(kind=kind, names=names, items=items):
            head = f"fields {kind} {' '.join(names)}".encode()
        case Keyed(keys=keys, items=items):
            head = f"dict {keys.sha256}".encode()
    return sha256_hex(b"\n".join([head, *(digest_of_tree(each).encode() for each in items)]))


def stored_in(tree: Tree) -> Iterator[Stored]:
    """Give every stored value of a tree."""
    match tree:
        case Stored():
            yield tree
        case Listed(items=items) | Fields(items=items):
            for each in items:
                yield from stored_in(each)
        case Keyed(keys=keys, items=items):
            yield keys
            for each in items:
                yield from stored_in(each)


def recorded_in(tree: Tree) -> Iterator[Recorded]:
    """Give every recorded version of a tree."""
    match tree:
        case Recorded():
            yield tree
        case Listed(items=items) | Fields(items=items) | Keyed(items=items):
            for each in items:
                yield from recorded_in(each)


def modules_in(tree: Tree) -> Iterator[str]:
    """Give the modules of the project whose classes a tree's values are, or hold."""
    match tree:
        case Stored(modules=modules):
            yield from modules
        case Fields(kind=kind, items=items):
            module, colon, _ = kind.partition(":")
            if colon and module.partition(".")[0] != "noria":
                yield module
            for each in items:
                yield from modules_in(each)
        case Listed(items=items):
            for each in items:
                yield from modules_in(each)
        case Keyed(keys=keys, items=items):
            for each in (keys, *items):
                yield from modules_in(each)


def part(tree: Tree, field: str) -> Tree:
    """Give one field of a tree. Raises `ConfigError` if it has none of that name."""
    match tree:
        case Absent():
            return tree
        case Fields(names=names, items=items) if field in names:
            return items[names.index(field)]
        case Listed(items=items) if field.isdecimal() and int(field) < len(items):
            return items[int(field)]
        case _:
            raise ConfigError(
                f"{field!r} is asked of {told_of(tree)}, which has no such part; let the step's annotation "
                "say what it gives: a NamedTuple, a dataclass or tuple[A, B]"
            )


def without_data(tree: Tree) -> Tree:
    """Give the tree without the bytes of small values, as it is recorded."""
    match tree:
        case Stored(data=bytes()):
            return tree.with_data(None)
        case Listed(items=items):
            return Listed(_bare(items), tree.is_tuple)
        case Fields(items=items):
            return Fields(tree.kind, tree.names, _bare(items))
        case Keyed(items=items):
            return Keyed(tree.keys.with_data(None), _bare(items))
        case _:
            return tree


def _bare(items: Sequence[Tree]) -> tuple[Tree, ...]:
    return tuple(without_data(each) for each in items)


def parts_of(output: Tree | None) -> list[tuple[str, Tree]]:
    """Give the parts of a result that are versions of their own: its fields, or the whole."""
    match output:
        case None | Absent():
            return []
        case Fields(names=names, items=items):
            return list(zip(names, items, strict=True))
        case Listed(items=items) if items and all(isinstance(each, Recorded) for each in items):
            return [(str(number), each) for number, each in enumerate(items)]
        case _:
            return [("", output)]


def filled(tree: Tree, data_of: Callable[[Stored], bytes | None]) -> Tree:
    """Give the tree with the bytes of its small values, as they travel to where a step runs."""
    match tree:
        case Stored():
            return tree.with_data(data_of(tree)) if tree.is_small and tree.data is None else tree
        case Recorded() | Absent():
            return tree
        case _:
            return msgspec.structs.replace(tree, items=tuple(filled(each, data_of) for each in tree.items))


def told_of(tree: Tree) -> str:
    """Tell in a few words what a tree is."""
    match tree:
        case Stored(told=told):
            return told
        case Recorded(id=id):
            return id.partition("/")[2]
        case Absent():
            return "not run"
        case Listed(items=items):
            return f"list of {len(items)}"
        case Keyed(items=items):
            return f"dict of {len(items)}"
        case Fields(names=names):
            return f"fields {', '.join(names)}"
