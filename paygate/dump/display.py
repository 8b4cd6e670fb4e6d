"""How wide a text stands on a terminal, and how to cut it there."""

import unicodedata

ELLIPSIS = "…"


def display_width(text: str) -> int:
    """Terminal columns of a printable text: East Asian wide characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def cut(text: str, width: int, ellipsis: str = ELLIPSIS) -> str:
    """`text` if it fits into `width` columns, else as much of its beginning as fits with an ellipsis behind it."""
    if display_width(text) <= width:
        return text
    room = width - len(ellipsis)
    if room < 0:
        return ellipsis[: max(width, 0)]
    kept = 0
    for char in text:
        room -= _width_of(char)
        if room < 0:
            break
        kept += 1
    return text[:kept].rstrip() + ellipsis


def pad(text: str, width: int) -> str:
    """`text` with blanks behind it, up to `width` columns."""
    return text + " " * (width - display_width(text))


def _width_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
