"""Lines that check a text: by tables where its charset allows, for being plain text, or by its expression."""

import re
from functools import cache
from itertools import product
from math import prod
from typing import Final, NamedTuple

from paygate.codec.fields import Text, is_plain_text
from paygate.codec.lines import Function

# Charsets of these two forms are checked by `bytes.translate`, in less than half the time of the expression.
_CLASS: Final = r"\[([^\]\[\\^]+)\]"
_CLASSES: Final = rf"(?:{_CLASS})?{_CLASS}([*+])"
_PART: Final = r"(\[[^\]\[\\^]+\]|[A-Za-z0-9])(?:\{(\d+)\})?"

_SHAPE_COUNT_MAX: Final = 64
"""Shapes are found in a set, however many; this is no more than one wants to make at the start."""


class Charset(NamedTuple):
    """A charset of the form [first][later]*: sets of ASCII characters, and the smallest size."""

    first: bytes
    later: bytes
    size_min: int


class Shapes(NamedTuple):
    """A charset of a fixed size, such as [A-Z]{3}x: translated by the table, a text is one of these, or it is wrong."""

    table: bytes
    shapes: frozenset[bytes]


@cache
def charset_of(charset: str | None) -> Charset | None:
    """The charset's parts, or None for a charset of another form."""
    found = re.fullmatch(_CLASSES, charset) if charset is not None and charset.isascii() else None
    if found is None:
        return None
    first, later, count = found.groups()
    allowed_first, allowed_later = _allowed(f"[{first or later}]"), _allowed(f"[{later}]")
    if not set(allowed_first) <= set(allowed_later):
        return None
    return Charset(allowed_first, allowed_later, (1 if first else 0) + (1 if count == "+" else 0))


def _allowed(part: str) -> bytes:
    # What a class holds is asked of `re` itself.
    return bytes(code for code in range(128) if re.fullmatch(part, chr(code)))


@cache
def shapes_of(field: Text) -> Shapes | None:
    """The shapes that a text of this field may have, or None if its charset is of another form, or has too many."""
    charset = field.charset
    if charset is None or not charset.isascii() or not re.fullmatch(f"(?:{_PART})+", charset):
        return None
    allowed = [part for one, count in re.findall(_PART, charset) for part in [_allowed(one)] * int(count or 1)]
    # Characters that are allowed at the same places are alike: the first of them stands for all, 255 for the others.
    places = [tuple(byte in part for part in allowed) for byte in range(256)]
    table = bytes(places.index(at) if any(at) else 255 for at in places)
    choices = [sorted({table[byte] for byte in part}) for part in allowed]
    if prod(map(len, choices)) > _SHAPE_COUNT_MAX:
        return None
    shapes = {bytes(shape) for shape in product(*choices)} if field.minimum <= len(allowed) <= field.maximum else set()
    return Shapes(table, frozenset(shapes | {b""} if field.minimum == 0 else shapes))


def check_text(function: Function, field: Text, variable: str) -> None:
    """Check a `str` against a charset of any form, or for being plain text."""
    if field.matches is not None:
        matches = function.object("matches", field.matches)
        wrong = f"{matches}({variable}) is None"
        function.refuse_if(f"{variable} and {wrong}" if field.minimum == 0 else wrong)
        return
    # Among ASCII, printable is what is no control character, and all of it is in normal form C; most texts are ASCII.
    plain = function.object("is_plain_text", is_plain_text)
    function.refuse_if(
        f"not ({variable}.isascii() and {variable}.isprintable()) and not {plain}({variable})",
    )


def check_shape(function: Function, shapes: Shapes, variable: str) -> None:
    """Check `bytes` against the shapes of a field, their number too."""
    table, among = function.object("alike", shapes.table), function.object("shapes", shapes.shapes)
    function.refuse_if(f"{variable}.translate({table}) not in {among}")


def check_ascii(function: Function, charset: Charset, field: Text, variable: str, size: str) -> None:
    """Check `bytes` against a charset of classes; their number is within the field's range already."""
    # The table changes every byte that is not allowed, and so does the translation differ from the text.
    table = bytes(byte if byte in charset.later else (byte + 1) % 256 for byte in range(256))
    conditions = [f"{variable}.translate({function.object('allowed', table)}) != {variable}"]
    if charset.first != charset.later:
        conditions = [f"{variable}[0] not in {function.object('allowed_first', charset.first)}", *conditions]
    if charset.size_min > field.minimum:
        conditions = [f"{size} < {charset.size_min}", *conditions]
    wrong = " or ".join(conditions)
    # An empty text that may be empty is legal whatever the charset says.
    function.refuse_if(f"{variable} and ({wrong})" if field.minimum == 0 else wrong)
