"""Insight into the record: where a prediction came from, and why a model is where it is. Read-only.

The verbs are in `noria.audit.trace` and `noria.audit.why`; here are the values that they give.
"""

from noria.audit.records import Chain, DigestLine, Link, Trace

__all__ = ["Chain", "DigestLine", "Link", "Trace"]
