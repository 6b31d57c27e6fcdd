"""JSON lines: one object a line; a key that is not there is null."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from noria.errors import SourceError
from noria.lake.reading import Reading
from noria.lake.rows import Broken
from noria.lake.sources.contract import Piece, broken
from noria.lake.sources.delimited import checked_names
from noria.lake.sources.files import SourceFile, as_utf8
from noria.lake.sources.standing import Numbers, Standing
from noria.lake.sources.texts import apart
from noria.lake.sources.values import infer_values, read_values

__all__ = ["JsonRows", "read_objects"]

MAX_LINE_BYTES = 16 << 20
MAX_ARRAY_BYTES = 64 << 20
_DECODER = msgspec.json.Decoder()
_EXACT_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_NO_JSON = (b"NaN", b"Infinity")  # what Python's own json writes all the same


class JsonRows:
    """Rows of a file of JSON lines; see `noria.lake.sources.contract.Source`."""

    def __init__(self, file: SourceFile, reading: Reading) -> None:
        self._file, self._reading = file, reading
        self.name = file.name
        self.size_bytes: int | None = file.size_bytes
        self._standing = Standing("line")

    def where(self, place: int) -> str | None:
        """Say on which line of the file, or as which object of its array, something stands that was given."""
        return self._standing.find(place)

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read."""
        return self._file.bytes_read

    @property
    def digest(self) -> str | None:
        """The sha256 of the file."""
        return self._file.digest

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows of each block of lines, then what was none in it."""
        chunks = as_utf8(self._file.chunks(), encoding=self._reading.encoding, called=self._file.called)
        blocks = _lines(chunks, self.name, self._standing)
        yield from read_objects(
            blocks, wanted, source=self.name, reading=self._reading, standing=self._standing
        )


def read_objects(
    blocks: Iterator[tuple[list[bytes], Numbers]],
    wanted: pa.Schema | None,
    *,
    source: str,
    reading: Reading,
    standing: Standing,
) -> Iterator[Piece]:
    """Read blocks of lines, each an object of JSON, as rows.

    Parameters
    ----------
    blocks
        Lines, and the number of each of them.
    standing
        Is told the numbers of what is given.

    Raises
    ------
    SourceError
        If all rows have a key that is not wanted.
    """
    schema, begin = wanted, 0
    first = True
    exact = wanted is not None and any(_holds_decimals(each.type) for each in wanted)
    decoder = _EXACT_DECODER if exact else _DECODER
    for lines, numbers in blocks:
        objects, wrong = _decoded(lines, decoder)
        if first and objects:
            if wanted is None:
                schema = _schema_of(objects, source, reading)
            elif not reading.only_wanted:
                _refuse_foreign(objects, wanted, source)
            first = False
        if schema is not None and objects:
            foreign: list[tuple[int, str]] = []
            if not reading.only_wanted:
                objects, foreign = _without_foreign(objects, set(schema.names))
            columns = [
                read_values(
                    [row.get(field.name) for _, row in objects], field.type, time_zone=reading.time_zone
                )
                for field in schema
            ]
            places = np.array([place for place, _ in objects], np.int64)
            batch, misfits = apart(schema.names, columns, places)
            wrong = sorted([*wrong, *foreign, *misfits])
            standing.give_parted(numbers, [place for place, _ in wrong])
            if batch.num_rows:
                yield batch
        else:
            standing.give(numbers[[place for place, _ in wrong]])
        if wrong:
            yield _kept(lines, wrong, begin)
        begin += len(lines)


def _without_foreign(
    objects: Sequence[tuple[int, dict[str, Any]]], known: set[str]
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    """Part the objects that have a key which is no column from the others."""
    foreign = [
        (place, f"has {', '.join(sorted(map(repr, row.keys() - known)))}, which the table does not have")
        for place, row in objects
        if not row.keys() <= known
    ]
    gone = {place for place, _ in foreign}
    return [each for each in objects if each[0] not in gone], foreign


def _kept(lines: Sequence[bytes], wrong: Sequence[tuple[int, str]], begin: int) -> list[Broken]:
    return [broken(reason, lines[place], begin + place) for place, reason in wrong]


def _holds_decimals(kind: pa.DataType) -> bool:
    inner = (kind.field(place).type for place in range(kind.num_fields))
    return bool(pa.types.is_decimal(kind)) or any(map(_holds_decimals, inner))


def _decoded(
    lines: Sequence[bytes], decoder: msgspec.json.Decoder[Any]
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    objects: list[tuple[int, dict[str, Any]]] = []
    wrong: list[tuple[int, str]] = []
    for place, line in enumerate(lines):
        try:
            value = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            odd = next((each.decode() for each in _NO_JSON if each in line), None)
            wrong.append((place, f"cannot be read as JSON{f', which has no {odd}' if odd else ''}"))
            continue
        if isinstance(value, dict):
            objects.append((place, value))
        else:
            wrong.append((place, "is no JSON object"))
    return objects, wrong


def _schema_of(objects: Sequence[tuple[int, dict[str, Any]]], source: str, reading: Reading) -> pa.Schema:
    names = list(dict.fromkeys(key for _, row in objects for key in row))
    checked_names(names, source)
    kinds = [
        infer_values(
            [row.get(name) for _, row in objects],
            time_zone=reading.time_zone,
            expected=reading.types.get(name),
        )
        for name in names
    ]
    return pa.schema(list(zip(names, kinds, strict=True)))


def _refuse_foreign(objects: Sequence[tuple[int, dict[str, Any]]], wanted: pa.Schema, source: str) -> None:
    everywhere = set.intersection(*(set(row) for _, row in objects)) - set(wanted.names)
    if everywhere:
        raise SourceError(
            f"{source} has {', '.join(sorted(map(repr, everywhere)))}, which the table does not have; "
            f"declare it in the dataset's schema to add it, or drop it. "
            f"The table has {', '.join(wanted.names)}"
        )


def _lines(chunks: Iterator[bytes], source: str, standing: Standing) -> Iterator[tuple[list[bytes], Numbers]]:
    """Cut at line feeds, which JSON never holds within an object; blank lines are left out."""
    first = next(chunks, b"")
    if first.lstrip()[:1] == b"[":
        standing.unit = "row"
        elements = _elements(chain([first], chunks), source)
        yield elements, np.arange(1, len(elements) + 1)
        return
    rest, number = b"", 1
    for chunk in chain([first], chunks, [b"\n"]):
        rest += chunk
        cut = rest.rfind(b"\n") + 1
        if not cut and len(rest) < MAX_LINE_BYTES:
            continue
        whole, rest = (rest[:cut], rest[cut:]) if cut else (rest, b"")
        every = whole.split(b"\n")
        lines = [each.rstrip(b"\r") for each in every if each.strip()]
        if lines:
            said = (place for place, each in enumerate(every, number) if each.strip())
            yield (
                lines,
                (
                    np.arange(number, number + len(lines))
                    if len(lines) == len(every) - 1 and not every[-1]
                    else np.fromiter(said, np.int64)
                ),
            )
        number += len(every) - 1


def _elements(chunks: Iterator[bytes], source: str) -> list[bytes]:
    """Take one array of JSON apart; it has to be whole in memory for that."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_ARRAY_BYTES:
            raise SourceError(
                f"{source} is one array of JSON of more than {MAX_ARRAY_BYTES >> 20} MiB; write JSON lines, "
                "an object a line, which can be of any length"
            )
    try:
        return [bytes(each) for each in msgspec.json.decode(bytes(data), type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise SourceError(f"{source} begins as an array of JSON, but is none: {err}; correct it") from err
