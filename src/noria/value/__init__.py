"""What a decision is worth: payoffs turn outcomes into money.

`Objective` is the declaration; the sums are in `noria.value.money`.
"""

from noria.value.declarations import Objective

__all__ = ["Objective"]
