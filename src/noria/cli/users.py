"""`noria user add`, `list`, `remove`, `token`."""

import getpass
import sys
from datetime import timedelta
from typing import Annotated, Literal

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.clock import parse_duration
from noria.errors import ConfigError

__all__ = ["add_user", "list_users", "make_token", "remove_user"]


def add_user(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    role: Literal["read", "write", "admin"] = "write",
    no_password: Annotated[bool, Parameter(negative="")] = False,
    replace: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Let somebody ask the control plane. The password is asked for, or read from standard input.

    Parameters
    ----------
    name
        By which the events are signed that the user causes.
    role
        read, write, or admin (deletes experiments and registered models too).
    no_password
        The user has tokens only: `noria user token NAME`. With --replace the password stays as it is.
    replace
        Give a user who is there this role, and another password.
    """
    from noria.cli import screen
    from noria.workspace.user_desk import UserDesk
    from noria.workspace.users import Role

    with options.open() as project:
        desk = UserDesk(project)
        password = None if no_password else _password()
        made = desk.add(name, Role(role), password=password, replace=replace)
    if options.json:
        screen.json({"name": made.name, "role": made.role, "has_password": bool(made.password)})
        return
    screen.line(f"{made.name} may {made.role.value}.")
    if not made.password and not made.tokens:
        screen.line(f"`noria user token {made.name}` makes a token to ask with.")


def list_users(*, options: Options = DEFAULT) -> None:
    """List who may ask the control plane, and their tokens by id."""
    from noria.cli import screen
    from noria.workspace.user_desk import UserDesk

    with options.open() as project:
        users = UserDesk(project).list()
    if options.json:
        screen.json(
            [
                {
                    "name": each.name,
                    "role": each.role,
                    "has_password": bool(each.password),
                    "made_at": each.made_at,
                    "tokens": [
                        {"id": token.id, "made_at": token.made_at, "ends_at": token.ends_at}
                        for token in each.tokens
                    ],
                }
                for each in users
            ]
        )
        return
    if not users:
        screen.line("There are none yet: `noria user add NAME`.")
        return
    rows = [
        (
            each.name,
            each.role.value,
            "yes" if each.password else "no",
            ", ".join(
                token.id if token.ends_at is None else f"{token.id} until {screen.instant(token.ends_at)}"
                for token in each.tokens
            ),
        )
        for each in users
    ]
    screen.table(["user", "may", "password", "tokens"], rows, wrap="tokens")


def remove_user(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    token: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Let a user ask no more, or take a token away.

    Parameters
    ----------
    name
        Of the user.
    token
        Its id, as `noria user list` shows it. Default: the user, with all tokens.
    """
    from noria.cli import screen
    from noria.workspace.user_desk import UserDesk

    with options.open() as project:
        UserDesk(project).remove(name, token=token)
    if options.json:
        screen.json({"name": name, "token": token})
        return
    screen.line(f"{name} may ask no more." if token is None else f"Token {token} of {name} is none any more.")


def make_token(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    lasts: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Make a token of a user. It is printed once, and kept nowhere.

    Parameters
    ----------
    name
        Of the user.
    lasts
        For how long, such as 90d. Default: until it is removed.
    """
    from noria.cli import screen
    from noria.workspace.user_desk import UserDesk

    with options.open() as project:
        made = UserDesk(project).make_token(name, lasts=None if lasts is None else _duration(lasts))
    if options.json:
        screen.json(made)
        return
    screen.line(made.token)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as err:
        raise ConfigError(f"--lasts: {err}") from err


def _password() -> str:
    """Ask for a password, twice; of a pipe its first line is taken."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline().rstrip("\r\n")
        if not line:
            raise ConfigError("no password came by standard input; send one as its first line")
        return line
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigError("the two are not the same; try again")
    return password
