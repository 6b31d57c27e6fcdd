"""Why a model scores as it does: contributions of inputs, permutation importance, effects. Pure functions.

`noria.explain.explaining` explains a model over rows, `noria.explain.contributions` single rows; the records
are in `noria.explain.records`.
"""

__all__: list[str] = []
