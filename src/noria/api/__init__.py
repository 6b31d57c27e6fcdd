"""The control plane: what `noria up` answers over HTTP.

The application is in `noria.api.application`, its server in `noria.api.server`.
"""

__all__: list[str] = []
