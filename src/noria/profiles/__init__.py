"""What a table's columns looked like, small enough to keep, and whether they look so still.

`noria.profiles.build` makes and merges, `noria.profiles.compare` judges.
"""

from noria.profiles.records import Calibration, ColumnCounts, ColumnProfile, Profile

__all__ = ["Calibration", "ColumnCounts", "ColumnProfile", "Profile"]
