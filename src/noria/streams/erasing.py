"""Events that go for good from the middle of a stream, where it can be written anew."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from noria.streams.contract import StreamEvent

__all__ = ["ErasableStream", "IsGone"]

IsGone = Callable[[Sequence[StreamEvent]], Sequence[bool]]


@runtime_checkable
class ErasableStream(Protocol):
    """A stream that is files of this machine. A broker keeps its log as it is until its own rules end it."""

    def erase(self, is_gone: IsGone, *, dry_run: bool = False) -> int:
        """Take events out of all partitions, and give how many; the others keep their offsets.

        Whoever reads is given what is left: erased offsets are left out. Killed in between, the same call
        completes it. Others may append and read meanwhile; what they append is looked at as well, as far as
        it came before the last file was.

        Parameters
        ----------
        is_gone
            Says of events whether they go.
        dry_run
            Only count.

        Raises
        ------
        StoreError
            If the log is damaged or cannot be written.
        """
        ...
