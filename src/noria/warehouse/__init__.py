"""SQL over everything, with nothing to start: one SELECT, or models that build tables from tables."""

__all__: list[str] = []
