"""Acting on what happened: run, wait, refuse or alert, each decision on record.

Declarations are here; the verb is `noria.triggers.reconcile.reconcile`.
"""

from noria.triggers.declarations import Budget, Trigger, decay, every, schedule

__all__ = ["Budget", "Trigger", "decay", "every", "schedule"]
