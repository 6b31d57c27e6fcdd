"""Model versions: registered with everything needed to check and to serve them, verified at every load.

The records are here; `noria.registry.store` holds the verbs.
"""

from noria.registry.records import Input, ModelManifest, Signature

__all__ = ["Input", "ModelManifest", "Signature"]
