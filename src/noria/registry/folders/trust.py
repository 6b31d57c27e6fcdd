"""Which models may be loaded that run code of whoever wrote them, and the note that tells of each."""

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from noria.errors import ConfigError

__all__ = ["PickleTrust"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PickleTrust:
    """What a project says in `[registry] trust_pickle`.

    Attributes
    ----------
    everything
        Any model of the project is trusted.
    models
        Names of registered models whose versions are.
    """

    everything: bool = False
    models: frozenset[str] = frozenset()

    @classmethod
    def of(cls, said: bool | Iterable[str]) -> "PickleTrust":
        """Read the setting."""
        return cls(everything=said) if isinstance(said, bool) else cls(models=frozenset(said))

    def covers(self, model: str | None) -> bool:
        """Tell whether versions of a registered model are trusted; None: what is registered nowhere."""
        return self.everything or (model is not None and model in self.models)

    def check(self, where: str, what: str, *, model: str | None) -> None:
        """Let a model be loaded that runs code as it is read, and tell of it each time.

        Raises
        ------
        ConfigError
            If the project does not trust it.
        """
        if not self.covers(model):
            one = f'["{model}"]' if model else "true"
            raise ConfigError(
                f"{where} is {what}, which runs code of its writer as it is loaded, so it is refused. "
                "Store it without pickle (skops, LightGBM, XGBoost, ONNX), or, if you know who wrote "
                f"it, set `trust_pickle = {one}` under [registry] in noria.toml"
            )
        note = f"WARNING: {where} is {what}: its code runs in this process, as [registry] trust_pickle says"
        _LOG.warning(note)
        if _LOG.hasHandlers():  # else the line above is printed already
            print(note, file=sys.stderr, flush=True)
