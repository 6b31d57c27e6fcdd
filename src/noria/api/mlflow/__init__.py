"""MLflow's protocol, translated: its clients track into this project. No rule of noria lives here."""

__all__: list[str] = []
