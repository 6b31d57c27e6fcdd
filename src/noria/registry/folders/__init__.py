"""Model folders as MLflow lays them out, written and loaded without MLflow.

`noria.registry.folders.writing` writes one, `noria.registry.folders.loading` loads one.
"""

__all__: list[str] = []
