"""What stands for results while a pipeline is drawn: they can be handed on, and nothing else."""

from collections.abc import Callable, Iterator
from typing import NoReturn

from noria.errors import ConfigError
from noria.pipelines.graph import Result

__all__ = ["Handle"]


class Handle:
    """What stands for the result of a step while a pipeline is drawn.

    It may be handed to other steps and returned; a NamedTuple's, dataclass's or `tuple[A, B]`'s parts may be
    taken by name or position.
    """

    __slots__ = ("_noria_fields", "_noria_result")
    _noria_fields: tuple[str, ...] | None
    _noria_result: Result

    def __init__(self, result: Result, fields: tuple[str, ...] | None) -> None:
        object.__setattr__(self, "_noria_result", result)
        object.__setattr__(self, "_noria_fields", fields)

    def __getattr__(self, name: str) -> "Handle":
        """Take a field."""
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if self._noria_fields is None or name not in self._noria_fields or name.isdecimal():
            _refuse(self, f"{name!r} is asked of it, {_told_parts(self)}; let a step take it out")
        return Handle(Result(self._noria_result.node, name), None)

    def __getitem__(self, key: object) -> "Handle":
        """Take a field by its position."""
        fields = self._noria_fields
        if type(key) is int and fields is not None and -len(fields) <= key < len(fields):
            return Handle(Result(self._noria_result.node, fields[key]), None)
        return _refuse(self, f"[{key!r}] is asked of it, {_told_parts(self)}; let a step take it out")

    def __iter__(self) -> Iterator["Handle"]:
        """Take all fields in order: `train, test = split(rows)`."""
        if self._noria_fields is None:
            _refuse(self, "it is looped over; fan out with STEP.map(...), or let a step loop")
        return iter([self[number] for number in range(len(self._noria_fields))])

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a result is not changed."""
        _refuse(self, f"its {name!r} is set; let a step give it as it should be")

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """Name the result."""
        return f"<result of {self._noria_result}>"


def _refuse(handle: Handle, what: str) -> NoReturn:
    raise ConfigError(
        f"the result of {handle._noria_result} is not known while the pipeline is drawn, and {what}"
    )


def _told_parts(handle: Handle) -> str:
    fields = handle._noria_fields
    return f"its parts are {', '.join(fields)}" if fields else "it has no parts with names"


_RECKONING = """
    neg pos abs invert add radd iadd sub rsub isub mul rmul imul matmul rmatmul imatmul truediv rtruediv
    itruediv floordiv rfloordiv ifloordiv mod rmod imod divmod rdivmod pow rpow ipow lshift rlshift ilshift
    rshift rrshift irshift and rand iand xor rxor ixor or ror ior
"""
# What Python would do with a value, by the special methods that it calls for it; none can be done yet.
_REFUSED = {
    "bool": "it is asked whether it is true; use STEP.when(RESULT)(...), or let a step decide",
    "eq ne lt gt le ge": "it is compared; let a step compare",
    "contains": "something is looked for in it; let a step look",
    "len length_hint": "its length is asked; let a step tell",
    "str format bytes fspath": "it is written as text; let a step write it",
    "int float complex index round trunc floor ceil": "it is made a number; let a step do that",
    "call": "it is called; call steps by their names",
    "setitem delitem delattr": "it is changed; let a step give it as it should be",
    "await aiter enter exit aenter aexit": "it is waited for; steps that take it wait by themselves",
    "next reversed": "it is stepped through; let a step do that",
    "copy deepcopy reduce_ex reduce": "it is copied; hand it on as it is",
    _RECKONING: "it is reckoned with; let a step reckon",
}


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(self: Handle, *_: object, **__: object) -> NoReturn:
        _refuse(self, what)

    return refuse


for _names, _what in _REFUSED.items():
    for _name in _names.split():
        setattr(Handle, f"__{_name}__", _refusal(_what))
