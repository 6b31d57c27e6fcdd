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
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Take a subject's rows out of a dataset and of all that was made from them, for good.

    Of the dataset and its rejected rows, of tables that carry the subject on, feature rows, predictions and
    outcomes, all with every older version; of samples of models, kept results, local streams, answers and
    online features. This cannot be undone. What models have learned stays: they are named.

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
    dry_run
        Only tell what is held where.
    """
    from noria.cli import screen

    with options.open() as project:
        wanted = _typed(project, name, column, values)
        cause = None if dry_run else _asked(project, name, "forget", reason)
        done = project.forget(name, column, wanted, reason=reason, dry_run=dry_run, cause=cause)
    if options.json:
        screen.json(done)
        return
    rejected = sum(each.held for each in done.of("dataset") if each.name == f"{name}__rejected")
    would = "would be forgotten" if dry_run else "are forgotten"
    screen.line(
        f"{screen.count(done.rows, 'row')} and {screen.count(rejected, 'rejected row')} of {name} {would}."
    )
    told = [each for each in done.holdings if each.state != "nothing"]
    screen.table(
        ["what", "of", "", "found", "how"],
        [(each.kind, each.name, each.state, screen.number(each.held), each.told) for each in told],
        right=["found"],
        wrap="how",
    )
    if done.models:
        screen.line(
            f"Trained on versions that held such rows, and not changed: {', '.join(done.models)}. Train them "
            "again and deploy what comes of it, to be rid of what they have learned."
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

    Of folders of files (`noria.Files`), kept bytes that no row names go too.

    Parameters
    ----------
    names
        Of tables and folders of files; default: all.
    retention
        What went, or never landed, stays so long: others may be at work with it.
    dry_run
        Only tell, file by file.
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
            project.vacuum(name, retention=kept, dry_run=dry_run)
            for name in names or sorted({*project.lake.names(), *project.declarations.files})
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
    if dry_run:
        files = [
            (each.name, one.path, f"{one.size_bytes:,}", one.since) for each in told for one in each.removed
        ]
        screen.table(
            ["table", "file", "bytes", "since"],
            [(name, path, size, screen.instant(since)) for name, path, size, since in files],
            right=["bytes"],
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
