"""SQL over everything, with nothing to start. `noria.warehouse.query` holds the engine."""

__all__: list[str] = []
