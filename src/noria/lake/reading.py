"""How texts, workbooks and databases are read. Importing this loads no engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from noria.errors import ConfigError

__all__ = ["Reading"]

_TYPES = ("bool", "date32", "double", "instant", "int64", "number", "string")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a source is read; what a format does not know is left alone by it.

    Attributes
    ----------
    delimiter
        Between the fields of a line. None: a tab for `.tsv`, else what the first lines tell.
    encoding
        Of a text file. None: UTF-8, or what its byte order mark says.
    header
        Whether the first line names the columns.
    names
        The columns' names: of a file without a header, or instead of its header.
    nulls
        Texts that stand for no value, beside the empty one.
    time_zone
        Where clocks showed the instants that name no offset: `Europe/Vienna`. Without it they stay local.
    sheet
        Of a workbook; None: the only one that holds anything.
    types
        Column -> `string`, `int64`, `double`, `bool`, `date32`, `number` (whole or not, as the values are) or
        `instant`: of columns that no table and no schema decides about. What does not fit is no row.
    only_wanted
        Whether columns that are not wanted are passed over, where it is said which are; else they are rows'
        columns as well, and in JSON lines a fault.
    """

    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True
    names: Sequence[str] | None = None
    nulls: Sequence[str] = ()
    time_zone: str | None = None
    sheet: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    only_wanted: bool = False

    def __post_init__(self) -> None:
        if self.delimiter is not None and (
            len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n' or not self.delimiter
        ):
            raise ConfigError(
                f"the delimiter is {self.delimiter!r}; it has to be one ASCII character that is neither a "
                'quote nor the end of a line: "," ";" "|" or a tab'
            )
        if not self.header and self.names is not None and not self.names:
            raise ConfigError("names is empty; name the columns, or leave it out")
        for column, kind in self.types.items():
            if kind not in _TYPES:
                raise ConfigError(f"reading: {column!r} is to be {kind!r}; there are {', '.join(_TYPES)}")
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ZoneInfoNotFoundError, ValueError) as err:
                raise ConfigError(
                    f"{self.time_zone!r} is no time zone; write one such as Europe/Vienna, or UTC"
                ) from err

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Make it of what a declaration says. Raises `ConfigError` if there is no such option."""
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ConfigError(
                f"reading has {', '.join(map(repr, unknown))}, which is no way to read; "
                f"there are {', '.join(known)}"
            )
        return cls(**options)
