"""Tables that only grow: batches of rows, checked, exactly once, each state a version.

The declaration is light; `noria.lake.store` keeps the tables.
"""

from noria.lake.declarations import ArrowFrame, Dataset

__all__ = ["ArrowFrame", "Dataset"]
