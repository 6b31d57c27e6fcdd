"""`noria key add`, `list`, `revoke`."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.clock import parse_duration
from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.workspace.key_desk import KeyDesk
    from noria.workspace.project import Project

__all__ = ["add_key", "list_keys", "revoke_key"]


def add_key(
    caller: Annotated[str, Parameter(name="NAME@ENVIRONMENT")],
    /,
    *,
    deployment: Annotated[list[str] | None, Parameter(negative="")] = None,
    lasts: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Make a key by which somebody may ask for predictions. It is printed once, and kept nowhere.

    Parameters
    ----------
    caller
        Who asks, and where, such as shop@production: predictions are logged with that name.
    deployment
        Where the key counts; may be said several times. Default: at all deployments of the environment.
    lasts
        For how long, such as 90d. Default: until it is revoked.
    """
    from noria.cli import screen

    with options.open() as project:
        name, desk = _desk(project, caller)
        made = desk.add(name, deployments=deployment or (), lasts=None if lasts is None else _duration(lasts))
    if options.json:
        screen.json(made)
        return
    screen.line(made.key)


def list_keys(
    environment: Annotated[str, Parameter(name="ENVIRONMENT")] = "production",
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """List who may ask the server of an environment, with their keys by id.

    Parameters
    ----------
    environment
        Its name. Default: production.
    """
    from noria.cli import screen
    from noria.workspace.key_desk import KeyDesk

    with options.open() as project:
        project.environment(environment)
        keys = KeyDesk(project, environment).list()
    if options.json:
        screen.json(
            [
                {
                    "name": each.name,
                    "id": each.id,
                    "deployments": each.deployments,
                    "made_at": each.made_at,
                    "ends_at": each.ends_at,
                }
                for each in keys
            ]
        )
        return
    if not keys:
        screen.line(f"There are none yet: `noria key add NAME@{environment}`.")
        return
    rows = [
        (
            each.name,
            each.id,
            ", ".join(each.deployments) or "all",
            screen.instant(each.made_at),
            "" if each.ends_at is None else screen.instant(each.ends_at),
        )
        for each in keys
    ]
    screen.table(["caller", "key", "deployments", "made", "ends"], rows, wrap="deployments")


def revoke_key(
    caller: Annotated[str, Parameter(name="NAME@ENVIRONMENT")],
    /,
    *,
    key: str | None = None,
    deployment: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Let keys of a caller count no more; a server at work follows within a second.

    Parameters
    ----------
    caller
        Such as shop@production.
    key
        Its id, as `noria key list` shows it. Default: all of the caller's.
    deployment
        Only keys of this deployment alone.
    """
    from noria.cli import screen

    with options.open() as project:
        name, desk = _desk(project, caller)
        gone = desk.revoke(name, id=key, deployment=deployment)
    if options.json:
        screen.json({"name": name, "keys": [each.id for each in gone]})
        return
    screen.line(f"{', '.join(each.id for each in gone)} of {name}: no key any more.")


def _desk(project: "Project", caller: str) -> tuple[str, "KeyDesk"]:
    from noria.workspace.key_desk import KeyDesk

    name, at, environment = caller.partition("@")
    if not at or not name or not environment:
        raise ConfigError(
            f"{caller[:80]!r} names no caller and environment; say NAME@ENVIRONMENT, such as shop@production"
        )
    project.environment(environment)
    return name, KeyDesk(project, environment)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as err:
        raise ConfigError(f"--lasts: {err}") from err
