"""Local append-only logs: what was appended survives kill -9 and is read back in order."""

from noria.streams.spool import Position, Spool, drop_segments, read_spool

__all__ = ["Position", "Spool", "drop_segments", "read_spool"]
