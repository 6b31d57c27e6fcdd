"""`noria dataset delete`, `forget`, `vacuum`."""

import getpass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["delete", "forget", "vacuum"]


def delete(
    name: Annotated[str, Parameter(name="NAME")],
    where: Annotated[str, Parameter(name="WHERE")],
    /,
    *,
    reason: str,
    options: Options = DEFAULT,
) -> None:
    """Delete rows: a new version without them. Older versions keep them; `noria dataset forget` does not.

    Parameters
    ----------
    name
        Of the dataset.
    where
        A condition over a row, in SQL: "country = 'FR' and eur < 0".
    reason
        Why, for the record.
    """
    from noria.cli import screen

    with options.open() as project:
        cause = _asked(project, name, "delete", reason)
        done = project.lake.delete(name, where, reason=reason, cause=cause)
    if options.json:
        screen.json(done)
        return
    if done.state == "nothing":
        screen.line(f"{name} has no such row; nothing was done.")
        return
    version = "" if done.version is None else f"; it is {done.version.ref} now"
    screen.line(f"{screen.count(done.removed, 'row')} of {name} deleted{version}.")


def forget(
    name: Annotated[str, Parameter(name="NAME")],
    column: Annotated[str, Parameter(name="COLUMN")],
    values: Annotated[list[str], Parameter(name="VALUE", negative="")],
    /,
    *,
    reason: str = "asked for",
    options: Options = DEFAULT,
) -> None:
    """Take a subject's rows out of a dataset, of its rejected rows and of every older version, for good.

    This cannot be undone. Models, predictions and other datasets that were made of these rows keep what they
    have: forget the subject there as well.

    Parameters
    ----------
    name
        Of the dataset.
    column
        The column that names the subject.
    values
        Whom to forget.
    reason
        Why, for the record; without the name of the subject.
    """
    from noria.cli import screen

    with options.open() as project:
        wanted = _typed(project, name, column, values)
        cause = _asked(project, name, "forget", reason)
        done = project.lake.forget(name, column, wanted, reason=reason, cause=cause)
    if options.json:
        screen.json(done)
        return
    screen.line(
        f"{screen.count(done.rows, 'row')} and {screen.count(done.rejected, 'rejected row')} of {name} are "
        f"forgotten; {screen.count(len(done.versions), 'version')} of it read otherwise now."
    )


def vacuum(
    names: Annotated[list[str] | None, Parameter(name="NAME", negative="")] = None,
    /,
    *,
    retention: str = "7d",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Remove files of tables that neither the newest state nor any version on record needs.

    Parameters
    ----------
    names
        Of tables; default: all.
    retention
        What went, or never landed, stays so long: others may be at work with it.
    dry_run
        Only tell.
    """
    from noria.cli import screen
    from noria.clock import parse_duration
    from noria.errors import ConfigError

    try:
        kept = parse_duration(retention)
    except ValueError as error:
        raise ConfigError(f"--retention: {error}") from error
    with options.open() as project:
        told = [
            project.lake.vacuum(name, retention=kept, dry_run=dry_run)
            for name in names or project.lake.names()
        ]
    if options.json:
        screen.json(told)
        return
    rows = [(each.name, f"{len(each.removed):,}", f"{each.size_bytes:,}") for each in told if each.removed]
    if not rows:
        screen.line(f"No table holds a file that is not needed and is older than {retention}.")
        return
    screen.table(
        ["table", "would go" if dry_run else "gone", "bytes"], rows, right=["would go", "gone", "bytes"]
    )


def _asked(project: "Project", name: str, verb: str, reason: str) -> str:
    """Put on record who asked for it."""
    event = project.ledger.append(
        "person.asked",
        actor=f"person:{getpass.getuser()}",
        subject=name,
        payload={"verb": verb, "reason": reason},
    )
    return event.id


def _typed(project: "Project", name: str, column: str, values: list[str]) -> list[Any]:
    """Read texts as values of the column. Raises `NotFound`, `ConfigError`."""
    import pyarrow as pa

    from noria.errors import ConfigError, NotFound

    schema = project.lake.schema(name)
    if column not in schema.names:
        raise NotFound("column", column, schema.names)
    kind = schema.field(column).type
    try:
        return [pa.scalar(each).cast(kind).as_py() for each in values]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(
            f"column {column!r} of {name!r} is {kind}, and {values!r} is no such value"
        ) from error
