"""Lines that check a text: by tables where its charset allows, for being plain text, or by its expression."""

import re
from functools import cache
from typing import Final, NamedTuple

from paygate.codec.fields import Text, is_plain_text
from paygate.codec.lines import Function

# A charset of this form is checked by `bytes.translate`, in less than half the time of the expression.
_CLASS: Final = r"\[([^\]\[\\^]+)\]"
_CLASSES: Final = rf"(?:{_CLASS})?{_CLASS}(\*|\+|\{{(\d+)\}})"


class Charset(NamedTuple):
    """A charset of the form [first][later]{count}: sets of ASCII characters, and what lengths it has."""

    first: bytes
    later: bytes
    size_min: int
    size_max: int | None


@cache
def charset_of(charset: str | None) -> Charset | None:
    """The charset's parts, or None for a charset of another form."""
    found = re.fullmatch(_CLASSES, charset) if charset is not None and charset.isascii() else None
    if found is None:
        return None
    first, later, count, exact = found.groups()
    # What a class holds is asked of `re` itself.
    allowed_first, allowed_later = (
        bytes(code for code in range(128) if re.fullmatch(f"[{one}]", chr(code))) for one in (first or later, later)
    )
    if not set(allowed_first) <= set(allowed_later):
        return None
    before = 1 if first else 0
    if exact is not None:
        return Charset(allowed_first, allowed_later, before + int(exact), before + int(exact))
    return Charset(allowed_first, allowed_later, before + (1 if count == "+" else 0), None)


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


def check_ascii(function: Function, charset: Charset, field: Text, variable: str, size: str) -> None:
    """Check `bytes` against a charset of classes; their number is within the field's range already."""
    # The table changes every byte that is not allowed, and so does the translation differ from the text.
    table = bytes(byte if byte in charset.later else (byte + 1) % 256 for byte in range(256))
    conditions = [f"{variable}.translate({function.object('allowed', table)}) != {variable}"]
    if charset.first != charset.later:
        conditions = [f"{variable}[0] not in {function.object('allowed_first', charset.first)}", *conditions]
    if charset.size_min > field.minimum:
        conditions = [f"{size} < {charset.size_min}", *conditions]
    if charset.size_max is not None and charset.size_max < field.maximum:
        conditions = [f"{size} > {charset.size_max}", *conditions]
    wrong = " or ".join(conditions)
    # An empty text that may be empty is legal whatever the charset says.
    function.refuse_if(f"{variable} and ({wrong})" if field.minimum == 0 else wrong)
