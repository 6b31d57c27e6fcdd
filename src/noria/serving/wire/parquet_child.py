"""Read one Parquet file in a process of its own: bytes by its input, columns by its output.

A file that is made to do harm may end the process that reads it, or fill its memory: so that is not a
server. Ends with 0 and columns, or with 2 and what is wrong, in words that may be told.
"""

import re
import resource
import sys
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.serving.wire.parquet import REFUSED, TOO_MANY, Asked, ReadColumn

__all__ = ["main"]

_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the index of a frame
_MAX_MEMORY_BYTES = 3 * 2**30
_MAX_CPU_S = 30
_MAX_TEXT_BYTES = 256 * 2**20
_INTEGERS = frozenset(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"))
_FLOATS = frozenset(("halffloat", "float", "double"))


class _RefusedError(Exception):
    code = REFUSED


class _TooManyError(_RefusedError):
    code = TOO_MANY


def main() -> int:
    """Read what standard input asks for, and write the columns; give the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    try:
        columns = _read(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Asked))
        sys.stdout.buffer.write(msgspec.msgpack.encode(columns))
    except _RefusedError as err:
        sys.stdout.buffer.write(str(err).encode())
        return err.code
    return 0


def _read(asked: Asked) -> list[ReadColumn]:
    with pq.ParquetFile(pa.BufferReader(asked.body)) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        names = _names(schema, asked.names)
        if not rows:
            raise _RefusedError("there are no rows; at least one is needed")
        if rows > asked.max_rows:
            raise _TooManyError(str(rows))
        texts = [each for each in names if _is_text(schema.field(each).type)]
    with pq.ParquetFile(  # texts as a dictionary: one that is long is there once, however often it comes
        pa.BufferReader(asked.body), read_dictionary=texts, page_checksum_verification=True
    ) as file:
        table = file.read(columns=names, use_threads=False)
    table.validate(full=True)  # a broken file may be read as a table whose places lead nowhere
    return [_column(each, table.column(each)) for each in names]


def _names(schema: Any, known: tuple[str, ...]) -> list[str]:
    names = [each for each in schema.names if not _INDEX.fullmatch(each)]
    if len(set(names)) < len(names):
        raise _RefusedError("a column is there twice in the Parquet file")
    for each in names:
        shown = repr(each[:64])
        if each not in known:
            raise _RefusedError(f"there is no input {shown}; there is {', '.join(known)}")
        kind = schema.field(each).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if _is_list(kind):
            kind = kind.value_type
        elif _is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
            continue
        if str(kind) not in _INTEGERS | _FLOATS:
            raise _RefusedError(
                f"column {shown} is of the type {str(kind)[:64]}; numbers, booleans, texts and lists of "
                "numbers are taken"
            )
    return names


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _column(name: str, values: Any) -> ReadColumn:
    kind = values.type
    if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        lengths = [
            pc.sum(pc.take(pc.binary_length(each.dictionary), each.indices)).as_py() or 0
            for each in values.chunks
        ]
        if sum(lengths) > _MAX_TEXT_BYTES:  # a few bytes of the file may stand for very many
            raise _RefusedError(f"column {name[:64]!r} holds too much text; send several requests")
        return ReadColumn(name, "BYTES", values=values.to_pylist())
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if _is_list(kind) or pa.types.is_null(kind):
        return ReadColumn(name, "", values=values.to_pylist())
    datatype = "BOOL" if pa.types.is_boolean(kind) else "INT64" if str(kind) in _INTEGERS else "FP64"
    if datatype == "BOOL" or values.null_count:
        return ReadColumn(name, datatype, values=values.to_pylist())
    dtype = "<i8" if datatype == "INT64" else "<f8"
    return ReadColumn(name, datatype, array=values.to_numpy().astype(dtype).tobytes())


if __name__ == "__main__":
    sys.exit(main())
