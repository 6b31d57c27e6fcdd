"""What people write of a model, as sections of a text: read from Markdown, and written as it."""

import re
from collections.abc import Mapping

from noria.errors import ConfigError

__all__ = [
    "MAX_CARD_CHARS",
    "SECTIONS",
    "checked_section_name",
    "checked_sections",
    "in_order",
    "read_sections",
    "section_key",
    "section_lines",
]

SECTIONS = ("Owner", "Contacts", "Intended use", "Limitations", "Ethical considerations", "Notes")
MAX_CARD_CHARS = 200_000
_MAX_SECTIONS, _MAX_NAME_CHARS = 40, 100
_NOTES = "Notes"
# A line that would begin something else when it is read back, or that was kept from doing so.
_SPECIAL = re.compile(r"\\*(?:#{1,2}\s|#{1,2}$|<!-- (?:noria|from the record|carried over))")
_HEADING = re.compile(r"##\s+(.*?)\s*#*\s*")
_END = re.compile(r"<!-- from the record\b.*")
_COMMENT = re.compile(r"<!-- (?:noria|carried over)\b.*")


def section_key(name: str) -> str:
    """Give by what a section is found: its name, whatever its case and spaces.

    Examples
    --------
    >>> section_key(" Intended  Use")
    'intended use'
    """
    return " ".join(name.casefold().split())


def checked_section_name(name: str) -> str:
    """Give a section's name as it is shown. Raises `ConfigError` if it can be none."""
    found = " ".join(name.split())
    known = {section_key(each): each for each in SECTIONS}
    if section_key(found) in known:
        return known[section_key(found)]
    if not found or len(found) > _MAX_NAME_CHARS or not found.isprintable() or found.endswith("#"):
        raise ConfigError(
            f"{found[:_MAX_NAME_CHARS]!r} cannot name a section of a model card; give up to "
            f"{_MAX_NAME_CHARS} printable characters, such as {SECTIONS[2]!r}"
        )
    return found


def checked_sections(sections: Mapping[str, str]) -> dict[str, str]:
    """Give sections by their shown names, the usual ones first; empty ones are left out.

    Raises
    ------
    ConfigError
        If a name or a text cannot be kept, a section comes twice, or all of it is too much.
    """
    found: dict[str, str] = {}
    keys: set[str] = set()
    for given, text in sections.items():
        name = checked_section_name(given)
        if section_key(name) in keys:
            raise ConfigError(f"section {name!r} of the model card comes twice; write it once")
        keys.add(section_key(name))
        if "\0" in text:
            raise ConfigError(f"section {name!r} of the model card has a NUL; leave that out")
        try:
            text.encode()
        except UnicodeEncodeError as err:
            raise ConfigError(f"section {name!r} of the model card is no text: {err.reason}") from err
        kept = "\n".join(text.splitlines()).strip("\n").rstrip()
        if kept.strip():
            found[name] = kept
    if len(found) > _MAX_SECTIONS:
        raise ConfigError(f"a model card has {len(found)} sections, of at most {_MAX_SECTIONS}")
    size = sum(map(len, found.values()))
    if size > MAX_CARD_CHARS:
        raise ConfigError(
            f"a model card has {size:,} characters, of at most {MAX_CARD_CHARS:,}; log what is longer as a "
            "file of a run, and name that"
        )
    return in_order(found)


def in_order(sections: Mapping[str, str]) -> dict[str, str]:
    """Give sections in the order in which they are shown: the usual ones first, others as they come.

    Examples
    --------
    >>> [*in_order({"Limits": "", "Notes": "", "Owner": ""})]
    ['Owner', 'Notes', 'Limits']
    """
    order = {name: place for place, name in enumerate(SECTIONS)}
    return dict(sorted(sections.items(), key=lambda each: order.get(each[0], len(order))))


def read_sections(text: str) -> dict[str, str]:
    r"""Read what people wrote from Markdown: `## NAME` begins a section; text before the first are notes.

    Of a whole card, as `noria model card` prints it, what is from the record is left out.

    Raises
    ------
    ConfigError
        If it cannot be kept; see `checked_sections`.

    Examples
    --------
    >>> read_sections("## limitations\nNone at sea.\n")
    {'Limitations': 'None at sea.'}
    """
    found: dict[str, list[str]] = {}
    lines = found.setdefault(_NOTES, [])
    for line in text.removeprefix("\ufeff").splitlines():
        if _END.fullmatch(line):
            break
        if _COMMENT.fullmatch(line):
            continue
        heading = _HEADING.fullmatch(line)
        if heading is not None:
            name = checked_section_name(heading[1])
            if name in found and (name != _NOTES or any(map(str.strip, found[name]))):
                raise ConfigError(f"section {name!r} of the model card comes twice; write it once")
            lines = found.setdefault(name, [])
        elif line.startswith("# ") and lines is found[_NOTES] and not any(map(str.strip, lines)):
            continue  # the title
        else:
            lines.append(line[1:] if line.startswith("\\") and _SPECIAL.match(line) else line)
    return checked_sections({name: "\n".join(each) for name, each in found.items()})


def section_lines(name: str, text: str, *, remark: str | None = None) -> list[str]:
    """Give the lines of a section, so that `read_sections` gives it back."""
    told = [f"\\{line}" if _SPECIAL.match(line) else line for line in text.splitlines()]
    return [f"## {name}", "", *([] if remark is None else [f"<!-- {remark} -->", ""]), *told, ""]
