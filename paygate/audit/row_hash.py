"""Hashes over a table's rows: in a chain, so that no row can change or go, or of a row alone (T32).

There are two forms. A payment's row is hashed value by value, which is the faster to write. Rows that are written
seldom are hashed as the text that SQLite's own quote() makes of their values: a check then reads one value for a row
instead of all of them, for half the time.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final

from paygate.making import compiled_function

_SIZE_COUNT: Final = 2_048  # larger than nearly all values
CHAIN_START: Final = bytes(32)
"""Stands for the row before the first."""

NextChain = Callable[[bytes, Sequence[Any]], bytes]
"""A row's hash: SHA-256 over the hash of the row before and this row's values, each behind its size.

A blob is hashed as it is, everything else as its text.
"""


class _Sizes(dict[int, bytes]):
    """Sizes as they are hashed, looked up where they would be made for each value."""

    def __missing__(self, size: int) -> bytes:
        return size.to_bytes(4)


def next_chain_of(table: str, columns: Sequence[str], blobs: Set[str]) -> NextChain:
    """The hash of a table's rows, written out for its columns: in a loop over them it takes a third longer."""
    lines = ["def next_chain(chain_before, values):", f"    {', '.join(columns)} = values"]
    pieces = ["chain_before"]
    for column in columns:
        # A blob's class is looked at all the same: a damaged row may hold anything.
        condition = f"if {column}.__class__ is not bytes: " if column in blobs else ""
        lines.append(f"    {condition}{column} = str({column}).encode()")
        pieces += [f"_sizes[len({column})]", column]
    lines.append(f"    return _sha256(_join(({', '.join(pieces)}))).digest()")
    objects = {"_sizes": _Sizes((n, n.to_bytes(4)) for n in range(_SIZE_COUNT)), "_sha256": hashlib.sha256}
    return compiled_function("next_chain", "\n".join(lines) + "\n", {**objects, "_join": b"".join}, table)


def chained(
    rows: Sequence[tuple[Any, ...]], chain: bytes, next_chain: NextChain
) -> tuple[list[tuple[Any, ...]], bytes]:
    """The rows, each with its hash, and the last hash."""
    with_hashes = []
    for row in rows:
        chain = next_chain(chain, row)
        with_hashes.append((*row, chain))
    return with_hashes, chain


def row_hash(before: bytes, text: bytes) -> bytes:
    """SHA-256 over the hash that the row hangs on, in a chain that of the row before, and the row's text."""
    return hashlib.sha256(before + text).digest()


def row_text(values: Sequence[Any]) -> bytes:
    """What `text_expression` of these columns gives, once they are in a table."""
    return ",".join([_QUOTES[value.__class__](value) for value in values]).encode()


def text_expression(columns: Sequence[str]) -> str:
    """The SQL expression of a row's text. A blob, since text might be damaged beyond decoding."""
    quoted = " || ',' || ".join(f"quote({column})" for column in columns)
    return f"CAST({quoted} AS BLOB)"


def formatted_expression(columns: Mapping[str, str]) -> str:
    """What `text_expression` gives of rows of which each value is of its column's type, in two thirds of the time.

    By column: `%d` for a number, `%Q` for text, `%s` for one that `text_expression` quotes. Whoever uses it looks for
    values of another type by themselves; `quick_check` of STRICT tables does.
    """
    values = [f"quote({column})" if mark == "%s" else column for column, mark in columns.items()]
    return f"CAST(format('{','.join(columns.values())}', {', '.join(values)}) AS BLOB)"


def _quote_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _quote_number(value: int) -> str:
    return str(int(value))  # an IntEnum is stored as its number


class _Quotes(dict[type, Callable[[Any], str]]):
    """By class; one that derives from int is quoted as a number."""

    def __missing__(self, cls: type) -> Callable[[Any], str]:
        assert issubclass(cls, int), f"no value of a table: {cls}"
        return _quote_number


_QUOTES: Final = _Quotes(
    {
        str: _quote_text,
        int: str,
        bytes: lambda value: f"X'{value.hex().upper()}'",
        type(None): lambda _: "NULL",
    }
)
