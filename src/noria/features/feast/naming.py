"""Names, texts and durations as Python and noria want them."""

import json
import keyword
import re
from collections.abc import Collection
from datetime import timedelta

__all__ = ["duration_text", "feature_name", "quoted", "unused_name"]

_OTHER = re.compile(r"[^A-Za-z0-9_]+")


def unused_name(wanted: str, taken: Collection[str]) -> str:
    """Give an identifier like `wanted` without double underscores that is not taken.

    Examples
    --------
    >>> unused_name("proj.data__set", {"proj_data_set"})
    'proj_data_set_2'
    """
    base = re.sub("_+", "_", _OTHER.sub("_", wanted)).strip("_") or "unnamed"
    if base[0].isdigit() or keyword.iskeyword(base):
        base = f"feast_{base}"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def feature_name(wanted: str) -> str:
    """Give a name of a view or a feature without double underscores."""
    return re.sub("_+", "_", wanted).strip("_") or "unnamed" if "__" in wanted else wanted


def quoted(text: str) -> str:
    """Give a text as Python code, in the quotes that a formatter would choose.

    Examples
    --------
    >>> quoted("daily")
    '"daily"'
    """
    if not text.isprintable():  # a line's end, or what would look like something else
        return ascii(text)
    made = json.dumps(text, ensure_ascii=False)
    if '"' in text and "'" not in text:
        inner = made[1:-1].replace('\\"', '"')
        return f"'{inner}'"
    return made


def duration_text(duration: timedelta) -> str | None:
    """Give a duration as noria writes it; None if it is not positive or not of whole seconds.

    Examples
    --------
    >>> duration_text(timedelta(days=1, minutes=30))
    '1d30m'
    """
    seconds = duration.total_seconds()
    if seconds <= 0 or seconds != int(seconds):
        return None
    left, text = int(seconds), ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text
