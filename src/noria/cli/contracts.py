"""`noria dataset profile`, `rejected`, `repair`, `release`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["profile", "rejected", "release", "repair"]

_NAME = Parameter(name="NAME")
_EMPTY = Parameter(negative_iterable="")


def profile(
    name: Annotated[str, _NAME],
    files: Annotated[tuple[str, ...], Parameter(name="FILE")] = (),
    /,
    *,
    key: Annotated[tuple[str, ...], _EMPTY] = (),
    event_at: str | None = None,
    known_at: str | None = None,
    time_zone: str | None = None,
    output: Path | None = None,
    options: Options = DEFAULT,
) -> None:
    """Propose a contract: the declaration of a dataset that these rows keep, for a person to edit.

    Parameters
    ----------
    name
        Of the dataset. Without files, of its table.
    files
        CSV, JSON lines, Parquet, Arrow or Excel files, or patterns of them.
    key
        A column of the key; again for more.
    event_at
        The column with the instant at which it happened, where that is known.
    known_at
        The column with the instant from which it could be used, likewise.
    time_zone
        Where clocks showed the instants that name no offset.
    output
        Write it to this file, which must not be there yet.
    """
    from noria.cli import screen
    from noria.profiles.proposals import UNREAD

    with options.open() as project:
        text = project.propose_contract(
            name, files or None, key=key or None, event_at=event_at, known_at=known_at, time_zone=time_zone
        )
    if output is not None:
        _write_new(output, text)
    if options.json:
        screen.json({"dataset": name, "declaration": text})
    elif output is not None:
        screen.line(f"{output} holds the proposal; edit it, and list its module in noria.toml")
        for line in text.splitlines():
            if line.startswith(UNREAD):
                screen.line(line.removeprefix("# "))
    else:
        screen.verbatim(text.rstrip("\n"))


def rejected(
    name: Annotated[str, _NAME],
    /,
    *,
    batch: int | None = None,
    reason: str | None = None,
    rows: int = 20,
    all: Annotated[bool, Parameter(negative="")] = False,
    output: Path | None = None,
    options: Options = DEFAULT,
) -> None:
    """Show the rows of a dataset that were set aside: how many for which reason, then the rows.

    Parameters
    ----------
    batch
        Only those of this batch.
    reason
        Only those whose reason contains this text.
    rows
        Show at most so many; with --json all are given.
    all
        Those too that have landed since.
    output
        Write them to this file, which must not be there yet, as JSON lines whose payload may be edited.
    """
    from noria.cli import screen
    from noria.workspace.repairing import rejected_lines

    with options.open() as project:
        found = project.rejected(name, batch=batch, reason=reason, settled=all)
    if output is not None:
        _write_new(output, "".join(f"{line}\n" for line in rejected_lines(found)))
    if options.json:
        screen.json(found.to_pylist())
        return
    if not found.num_rows:
        screen.line(f"no row of {name} is {'set aside' if all else 'open'}")
        return
    counted = Counter(found["reason"].to_pylist())
    reasons = [(count, why) for why, count in counted.most_common()]
    screen.table(["rows", "reason"], reasons, right=["rows"], wrap="reason")
    shown = found.slice(0, max(rows, 0))
    if shown.num_rows:
        screen.line()
        columns = ["app", "batch", "row", "rejected_at", *(["settled_at"] if all else []), "payload"]
        screen.table(
            columns,
            [[row[each] for each in columns] for row in shown.to_pylist()],
            right=["batch", "row"],
            wrap="payload",
        )
    left = found.num_rows - shown.num_rows
    told = screen.count(found.num_rows, "row")
    screen.line(f"{told}; the last {left:,} are not shown (--rows N shows more)" if left else told)
    if output is not None:
        screen.line(f"edit {output}, then: noria dataset repair {name} --from {output}")


def repair(
    name: Annotated[str, _NAME],
    /,
    *,
    batch: int | None = None,
    reason: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative_iterable="")] = (),
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    options: Options = DEFAULT,
) -> int:
    """Take in those rejected rows that hold now, each once: the contract was changed, or the rows are.

    Ends with 1 if there are open rows and none of them lands.

    Parameters
    ----------
    batch
        Only rows of this batch.
    reason
        Only rows whose reason contains this text.
    set_
        `COLUMN=SQL`: what the column is to be, from the row's columns; again for more.
    from_
        A file that `noria dataset rejected --output` wrote, with payloads edited.
    """
    import getpass

    from noria.cli import screen

    values = dict(map(_assignment, set_))
    if from_ is not None:
        _want_readable(from_)
    with options.open() as project:
        project.declarations.dataset(name)
        cause = project.ledger.append(
            "person.asked",
            actor=f"person:{getpass.getuser()}",
            subject=name,
            payload={"verb": "repair", "columns": sorted(values)},
            at=project.clock.now(),
        )
        done = project.repair(name, batch=batch, reason=reason, values=values, edited=from_, cause=cause.id)
    if options.json:
        told = {"rows": done.rows, "landed": done.landed, "repeated": done.repeated, "open": done.open}
        version = None if done.version is None else done.version.ref
        screen.json({**told, "reasons": done.reasons, "version": version})
    elif not done.rows:
        screen.line(f"no row of {name} is open")
    else:
        landed = f"{done.landed:,} of {screen.count(done.rows, 'row')} landed"
        again = f", {done.repeated:,} were there already" if done.repeated else ""
        where = "" if done.version is None else f" in {done.version.ref}"
        screen.line(f"{landed}{where}{again}; {done.open:,} stay open")
        if done.reasons:
            counted = sorted(done.reasons.items(), key=lambda each: -each[1])
            screen.table(
                ["rows", "reason"], [(count, why) for why, count in counted], right=["rows"], wrap="reason"
            )
    return 1 if done.rows and not done.landed and not done.repeated else 0


def release(
    name: Annotated[str, _NAME],
    /,
    *,
    reason: str,
    options: Options = DEFAULT,
) -> None:
    """Go on without a batch that was blocked and will not come: what reads the dataset is built again.

    Parameters
    ----------
    name
        Of the dataset.
    reason
        Why, for the record.
    """
    import getpass

    from noria.cli import screen

    with options.open() as project:
        gone = project.release(name, reason=reason, actor=f"person:{getpass.getuser()}")
    if options.json:
        screen.json({"dataset": name, "released": None if gone is None else gone.batch})
    elif gone is None:
        screen.line(f"no batch of {name} is blocked")
    else:
        screen.line(f"{name} goes on without its batch {gone.batch} of {gone.source}")


def _assignment(text: str) -> tuple[str, str]:
    from noria.errors import ConfigError

    column, sign, sql = text.partition("=")
    if not sign or not column.strip() or not sql.strip():
        raise ConfigError(
            f"--set {text!r} sets nothing; write COLUMN=SQL, such as --set 'minutes=abs(minutes)'"
        )
    return column.strip(), sql.strip()


def _want_readable(path: Path) -> None:
    from noria.errors import ConfigError

    try:
        path.read_text(encoding="utf-8")
    except OSError as err:
        raise ConfigError(
            f"{path} cannot be read: {err.strerror}; name a file that `noria dataset rejected --output` wrote"
        ) from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from err


def _write_new(path: Path, text: str) -> None:
    from noria.errors import Conflict, StoreError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"{path} is there already, and is not overwritten; name another file") from None
    except OSError as err:
        raise StoreError(f"{path} cannot be written: {err.strerror}; name another file") from err
