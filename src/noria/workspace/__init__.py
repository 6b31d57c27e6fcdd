"""A project opened: settings become stores, declarations are found, and the verbs are offered."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.workspace.project import Project, open

__all__ = ["Project", "open"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("noria.workspace.project"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
