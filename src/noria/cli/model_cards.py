"""`noria model card`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.registry.cards import WrittenCard

__all__ = ["show_card"]

_MOST_BYTES = 2_000_000  # of a card that is given back, with all that is not read of it


def show_card(
    reference: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    edit: Annotated[Path | None, Parameter(name="--edit")] = None,
    html: Annotated[Path | None, Parameter(name="--html")] = None,
    history: Annotated[bool, Parameter(name="--history", negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Print the card of a model version as Markdown; what people wrote can be edited in it and given back.

    Parameters
    ----------
    reference
        NAME (its newest version), NAME:3, or NAME@production.
    edit
        A file that holds such a card, or sections of one (`## Limitations`): what it says counts from now on.
    html
        Write the card into this file, as a page that works offline.
    history
        List what was written of it, and by whom.
    """
    from noria.cli import screen

    with options.open() as project:
        if edit is not None:
            written = project.models.put_card(reference, _read(edit))
            ref = project.models.get(reference).ref
        elif history:
            listed = project.models.card_history(reference)
        else:
            card = project.models.card(reference)
            text, page = card.markdown, card.page() if html is not None else b""
    if edit is not None:
        _show_written(ref, written, as_json=options.json)
    elif history:
        _show_history(reference, listed, as_json=options.json)
    elif html is not None:
        _write(html, page)
        if options.json:
            screen.json({"model": card.model, "page": str(html), "bytes": len(page)})
        else:
            screen.line(f"The card of {card.model} is in {html}.")
    elif options.json:
        screen.json({"card": card, "markdown": text})
    else:
        screen.as_written(text)


def _read(path: Path) -> str:
    from noria.errors import ConfigError

    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"{path} has {size:,} bytes; a model card has at most {_MOST_BYTES:,}")
        return path.read_bytes().decode()
    except UnicodeDecodeError as err:
        raise ConfigError(
            f"{path} is not UTF-8: byte {err.start:,} is 0x{err.object[err.start]:02x}; save it as UTF-8"
        ) from err
    except OSError as err:
        raise ConfigError(f"{path} cannot be read: {err.strerror}") from err


def _write(path: Path, page: bytes) -> None:
    from noria.errors import ConfigError

    try:
        path.write_bytes(page)
    except OSError as err:
        raise ConfigError(f"{path} cannot be written: {err.strerror}") from err


def _show_written(ref: str, written: "WrittenCard", *, as_json: bool) -> None:
    from noria.cli import screen

    if as_json:
        screen.json(written)
        return
    told = ", ".join(written.sections) or "no section"
    screen.line(f"The card of {ref} says, as written {written.number}: {told}.")


def _show_history(reference: str, listed: "list[WrittenCard]", *, as_json: bool) -> None:
    from noria.cli import screen

    if as_json:
        screen.json(listed)
        return
    if not listed:
        screen.line(f"Nobody has written of {reference} yet.")
        return
    rows = [
        (str(each.number), screen.instant(each.recorded_at), each.by, ", ".join(each.sections) or "nothing")
        for each in listed
    ]
    screen.table(["written", "on", "by", "sections"], rows, right=["written"], wrap="sections")
