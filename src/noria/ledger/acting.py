"""On whose behalf a request acts: its events name that user, whatever else is said of whom they are of."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["acting_as", "acting_user"]

# A request passes through many stores before it becomes an event, on another thread than it came by. What is
# bound here goes with it: a context is copied into each task and each thread that works for it.
_USER: ContextVar[str | None] = ContextVar("acting_user", default=None)


@contextmanager
def acting_as(actor: str | None) -> Iterator[None]:
    """Let every event that is recorded within the block, in this context, be that actor's.

    None: nobody's but those whom it is of anyway, such as what is found out by the way.

    Examples
    --------
    >>> with acting_as("person:ada"):
    ...     acting_user()
    'person:ada'
    """
    before = _USER.set(actor)
    try:
        yield
    finally:
        _USER.reset(before)


def acting_user() -> str | None:
    """Give who acts in this context; None where nobody was named."""
    return _USER.get()
