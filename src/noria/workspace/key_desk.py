"""Keys of an environment's server: each change is on record as an event, without a word of any key."""

import getpass
from collections.abc import Sequence
from datetime import timedelta

from noria.errors import ConfigError
from noria.serving.http.keys import Key, KeyFile, MadeKey
from noria.workspace.opened import Opened

__all__ = ["KeyDesk"]


class KeyDesk:
    """Changes who may ask the server of an environment. One at work follows within a second.

    Parameters
    ----------
    environment
        Whose keys they are.

    Raises
    ------
    ConfigError
        If the environment's settings name no file of keys, as `[environments.NAME] keys`.
    """

    def __init__(self, opened: Opened, environment: str) -> None:
        named = opened.settings.environments[environment].keys
        if not named:
            raise ConfigError(
                f"the server of {environment!r} asks nobody for a key; name a file of keys in noria.toml: "
                f'`[environments.{environment}] keys = ".noria/{environment}-keys.json"`'
            )
        self._opened, self._environment = opened, environment
        self._file = KeyFile(opened.root / named)

    def list(self) -> list[Key]:
        """Give the keys by the name of their caller."""
        return list(self._file.read())

    def add(self, name: str, *, deployments: Sequence[str] = (), lasts: timedelta | None = None) -> MadeKey:
        """Make a key of a caller, which is shown this once; see `noria.serving.http.keys.KeyFile.add`."""
        made = self._file.add(name, deployments=deployments, lasts=lasts)
        ends = None if made.ends_at is None else made.ends_at.isoformat()
        self._record("key.added", name, key=made.id, ends_at=ends, deployments=list(deployments))
        return made

    def revoke(self, name: str, *, id: str | None = None, deployment: str | None = None) -> Sequence[Key]:
        """Let keys of a caller be none any more. Raises `NotFound`."""
        gone = self._file.revoke(name, id=id, deployment=deployment)
        self._record("key.revoked", name, keys=[each.id for each in gone])
        return gone

    def _record(self, verb: str, name: str, **payload: object) -> None:
        self._opened.ledger.append(
            verb,
            subject=f"key/{self._environment}/{name}",
            payload=payload,
            actor=f"person:{getpass.getuser()}",
        )
