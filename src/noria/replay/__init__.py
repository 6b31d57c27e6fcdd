"""A recorded stretch of time, lived through again: every part of the loop, in event order."""

from noria.replay.declarations import BadBatch, Replay, RollbackDrill, ShuffledLabels

__all__ = ["BadBatch", "Replay", "RollbackDrill", "ShuffledLabels"]
