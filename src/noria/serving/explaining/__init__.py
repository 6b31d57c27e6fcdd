"""Why a model scored rows as it did: what each input adds, as a worker tells it. Loaded when first asked.

`noria.serving.explaining.explanations` explains for a deployment, `noria.serving.explaining.explainers` gives
what explains by one model; the records are in `noria.serving.explaining.records`.
"""

__all__: list[str] = []
