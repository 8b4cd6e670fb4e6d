r"""Makes any text safe to print on one line: `\n` becomes `\x0a`, a right-to-left mark `\u200f` (T21).

What needs an escape is what `str.isprintable` refuses: controls (C0, DEL, C1), format characters (bidi
marks, zero-width characters), line and paragraph separators, lone surrogates, unassigned characters, and
every space but the ordinary one, which would pass for it.
"""

import re

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")


def escape_line(text: str) -> str:
    """`text` as one printable line. For people only: a backslash stays, so it can't be turned back."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _code(char) for char in text)


def escape_field(text: str) -> str:
    """`text` as one field of a text record: `unescape_field` gives it back, lone surrogates excepted."""
    # Letters and digits alone are the most frequent; they are printable.
    if text.isalnum() or (text.isprintable() and "|" not in text and "\\" not in text and text == text.strip(" ")):
        return text
    middle = text.strip(" ")
    if not middle:
        return r"\x20" * len(text)
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - len(text.rstrip(" "))
    # A reader drops the spaces around a field, so those that belong to it are written as escapes.
    body = "".join(char if char.isprintable() and char not in "|\\" else _code(char) for char in middle)
    return r"\x20" * before + body + r"\x20" * after


def unescape_field(text: str) -> str:
    """Undoes `escape_field`; a backslash that begins no known escape stays, so people may type one."""
    return _ESCAPE.sub(_char, text) if "\\" in text else text


def _code(char: str) -> str:
    point = ord(char)
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def _char(match: re.Match[str]) -> str:
    point = int(match[1] or match[2] or match[3], 16)
    # A surrogate alone can't be stored as UTF-8 by whoever takes the field over.
    return match[0] if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF else chr(point)
