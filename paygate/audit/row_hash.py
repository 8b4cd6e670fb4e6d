"""Hashes over a table's rows: in a chain, so that no row can change or go, or of a row alone (T32).

A row is hashed as the text that SQLite's own quote() makes of its values, behind the hash that it hangs on. So the
check reads one value for a row instead of all of them, for half the time, and a value that is damaged beyond reading
is hashed like any other.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

CHAIN_START: Final = bytes(32)
"""Stands for the row before the first."""


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
