"""Users of a project's control plane: each change is on record as an event, without a word of any secret."""

import getpass
from datetime import timedelta

from noria.workspace.opened import Opened
from noria.workspace.users import MadeToken, Role, User, user_file

__all__ = ["UserDesk"]


class UserDesk:
    """Changes who may ask the control plane of a project. A server at work follows at once.

    Raises
    ------
    ConfigError
        If the project's settings name no file of users, as `[server] users`.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened, self._file = opened, user_file(opened)

    def list(self) -> list[User]:
        """Give the users by name."""
        return list(self._file.read().all)

    def add(self, name: str, role: Role, *, password: str | None = None, replace: bool = False) -> User:
        """Add a user; see `noria.workspace.users.UserFile.add`."""
        made = self._file.add(name, role, password=password, replace=replace)
        self._record("user.added", name, role=role.value, has_password=bool(made.password))
        return made

    def remove(self, name: str, *, token: str | None = None) -> None:
        """Remove a user, or the token of that id alone. Raises `NotFound`."""
        if token is None:
            self._file.remove(name)
            self._record("user.removed", name)
        else:
            self._file.remove_token(name, token)
            self._record("user.token_removed", name, token=token)

    def make_token(self, name: str, *, lasts: timedelta | None = None) -> MadeToken:
        """Make a token of a user, which is shown this once. Raises `NotFound`."""
        made = self._file.add_token(name, lasts=lasts)
        ends = None if made.ends_at is None else made.ends_at.isoformat()
        self._record("user.token_made", name, token=made.id, ends_at=ends)
        return made

    def _record(self, verb: str, name: str, **payload: object) -> None:
        self._opened.ledger.append(
            verb, subject=f"user/{name}", payload=payload, actor=f"person:{getpass.getuser()}"
        )
