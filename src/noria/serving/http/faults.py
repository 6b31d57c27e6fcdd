"""Faults of the program as logs tell them: where they came from, without what an error says of data."""

import traceback

__all__ = ["fault_of"]


def fault_of(error: BaseException | None) -> str:
    """Tell kinds and places of an error and of those that led to it; messages may quote a request."""
    told: list[str] = []
    while error is not None and len(told) < 8:
        frames = "".join(traceback.format_tb(error.__traceback__))
        told.append(f"{type(error).__module__}.{type(error).__qualname__}\n{frames}".rstrip())
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nwhich came of ".join(told) or "nothing was answered"
