"""`noria model alias`, `noria model tag`, `noria model describe`."""

from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["alias", "describe", "tag"]

_REMOVE = Parameter(name="--remove", negative="")


def alias(
    reference: Annotated[str, Parameter(name="MODEL")],
    alias: Annotated[str, Parameter(name="ALIAS")],
    /,
    *,
    remove: Annotated[bool, _REMOVE] = False,
    options: Options = DEFAULT,
) -> None:
    """Let an alias name a model version. It is a label: what is deployed does not move.

    Parameters
    ----------
    reference
        NAME:3 (or NAME: its newest version); with --remove NAME.
    alias
        Such as champion; what it named before it names no more.
    remove
        Take it away.
    """
    from noria.cli import screen

    with options.open() as project:
        if remove:
            name = reference.partition(":")[0]
            project.models.remove_alias(name, alias)
            told = f"{name} has no alias {alias} any more."
            found = None
        else:
            found = project.models.put_alias(reference, alias)
            told = (
                f"{alias} names {found.model}:{found.number} (models:/{found.model}@{alias}); nothing moved."
            )
    if options.json:
        screen.json({"alias": alias, "version": found})
        return
    screen.line(told)


def tag(
    reference: Annotated[str, Parameter(name="MODEL")],
    name: Annotated[str, Parameter(name="NAME")],
    value: Annotated[str | None, Parameter(name="VALUE")] = None,
    /,
    *,
    remove: Annotated[bool, _REMOVE] = False,
    options: Options = DEFAULT,
) -> None:
    """Set a tag of a model version, or of a model.

    Parameters
    ----------
    reference
        NAME:3 for a version, NAME for the model.
    name
        Of the tag.
    value
        Its text.
    remove
        Take it away.
    """
    from noria.cli import screen
    from noria.errors import ConfigError

    if (value is None) is not remove:
        raise ConfigError("give a value for the tag, or --remove, and not both")
    with options.open() as project:
        if value is None:
            project.models.remove_tag(reference, name)
        else:
            project.models.put_tag(reference, name, value)
    if options.json:
        screen.json({"model": reference, "tag": name, "value": value})
        return
    screen.line(
        f"{reference} has no tag {name} any more." if value is None else f"{name} of {reference} is {value}."
    )


def describe(
    reference: Annotated[str, Parameter(name="MODEL")],
    text: Annotated[str, Parameter(name="TEXT")],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Say what a model version is, or what a model is for; an empty text takes it back.

    Parameters
    ----------
    reference
        NAME:3 for a version, NAME for the model.
    text
        One line; `noria model card` holds more.
    """
    from noria.cli import screen

    with options.open() as project:
        project.models.describe(reference, text or None)
    if options.json:
        screen.json({"model": reference, "description": text or None})
        return
    screen.line(f"{reference} is described." if text else f"{reference} has no description any more.")
