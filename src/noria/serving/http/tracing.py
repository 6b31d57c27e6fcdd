"""Which trace a request belongs to, as the W3C's Trace Context names it."""

import re

__all__ = ["read_trace"]

# Version, trace, the caller's span, flags. A later version may have more behind them.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


def read_trace(traceparent: str) -> str | None:
    """Give the id of the trace in a `traceparent` header: 32 hex digits; None if it is malformed.

    Examples
    --------
    >>> read_trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    '4bf92f3577b34da6a3ce929d0e0e4736'
    >>> read_trace("00-00000000000000000000000000000000-00f067aa0ba902b7-01") is None
    True

    References
    ----------
    W3C, "Trace Context", recommendation of 23 November 2021, section 3.2.2: a malformed header is ignored.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return None
    version, trace, span, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return trace
