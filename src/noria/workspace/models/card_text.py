"""A model card as Markdown, in which what people wrote can be edited and given back."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from noria.registry.card_text import SECTIONS, section_lines
from noria.workspace.models.card_parts import CardPart, Table

if TYPE_CHECKING:
    from noria.workspace.models.cards import ModelCard

__all__ = ["based_on_of", "model_of", "write_card"]

_HEAD = re.compile(r"^<!-- noria model card (\S+), written (\d+)\b", re.MULTILINE)
_WIDEST_BAR = 20


def based_on_of(text: str) -> int | None:
    """Tell of which number of what was written a text was printed; None if it does not say."""
    found = _HEAD.search(text)
    return None if found is None else int(found[2])


def model_of(text: str) -> str | None:
    """Tell of which version a text says it is the card; None if it does not say."""
    found = _HEAD.search(text)
    return None if found is None else found[1]


def write_card(card: "ModelCard") -> str:
    """Give the card as Markdown."""
    number = 0 if card.written is None else card.written.number
    lines = [
        f"# Model card: {_plain(card.called)}",
        "",
        f"<!-- noria model card {card.model}, written {number}. Edit the sections above the second remark, "
        f"or add others, and give this back: noria model card {_comment(card.called)} --edit FILE -->",
        "",
    ]
    lines += _written(card)
    lines += ["<!-- from the record: what follows is made anew each time, and is not read back -->", ""]
    for part in card.parts:
        lines += _part(part)
    return "\n".join(lines).rstrip() + "\n"


def _written(card: "ModelCard") -> list[str]:
    sections, lines, remark = card.sections, [], None
    if card.carried is not None:
        remark = (
            f"carried over from {card.carried.of}: look it over; it counts for this version once it is put"
        )
    elif card.written is not None:
        lines = [
            f"<!-- noria: written by {_comment(card.written.by)} on {card.written.recorded_at:%Y-%m-%d} -->",
            "",
        ]
    for name, text in sections.items():
        lines += section_lines(name, text, remark=remark)
    if not sections:
        lines += [f"<!-- noria: nobody has written of it; sections may be: {', '.join(SECTIONS)} -->", ""]
    return lines


def _part(part: CardPart) -> Iterator[str]:
    yield from (f"## {_plain(part.title)}", "")
    for text in part.texts:
        yield from (_plain(text), "")
    facts = {name: value for name, value in part.facts.items() if value is not None}
    if facts:
        yield from (*(f"- **{_plain(name)}**: {_plain(value)}" for name, value in facts.items()), "")
    if part.bars:
        yield from ("| input | share | | log loss, shuffled |", "| --- | ---: | --- | --- |")
        most = max(each.share for each in part.bars) or 1.0
        for each in part.bars:
            drawn = "█" * round(each.share / most * _WIDEST_BAR)
            yield f"| {_cell(each.name)} | {each.share:.1%} | {drawn} | {_cell(each.told) or '-'} |"
        yield ""
        for each in part.bars:
            told = ", ".join(f"{label}: {mean:+.3g}" for label, mean in each.effects)
            yield f"- {_plain(each.name)} adds {_plain(told)}"
        yield ""
    for table in part.tables:
        yield from _table(table)
    if part.code is not None:
        yield from ("```python", part.code, "```", "")


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(_cell, table.columns))} |"
    yield f"| {' | '.join('---:' if each in table.right else '---' for each in table.columns)} |"
    for row in table.rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _plain(text: str) -> str:
    """Give a text on one line that no reader of Markdown takes for HTML."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _comment(text: str) -> str:
    return " ".join(text.replace("--", "- -").replace(">", "").split())
