"""One line being typed: bytes of a terminal in, a text out. Pure; `terminal.py` reads and draws."""

import codecs
from typing import Final

CHARACTER_COUNT_MAX: Final = 255
"""No field takes more; what is typed beyond it is dropped."""

_ENTER: Final = "\r\n"
_ERASE: Final = "\x7f\b"
_ERASE_WORD: Final = "\x17"
_ERASE_LINE: Final = "\x15"
_END_OF_INPUT: Final = "\x04"
_ESCAPE: Final = "\x1b"


class LineEditor:
    """Collects a line. Cursor keys and other escape sequences are dropped: none may end up in a password."""

    def __init__(self) -> None:
        self.text = ""
        self.is_done = False
        """Enter was typed, or the input ended."""
        self.is_cancelled = False
        """Ctrl-D on an empty line, or the input ended."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""

    def receive(self, data: bytes) -> bytes:
        """Take bytes in; gives back those behind the line's end, which belong to the next line."""
        for index in range(len(data)):
            for char in self._decoder.decode(data[index : index + 1]):
                self._type(char)
            if self.is_done:
                return data[index + 1 :]
        return b""

    def receive_eof(self) -> None:
        """The terminal is gone."""
        self.is_done = self.is_cancelled = True

    def _type(self, char: str) -> None:
        if self._escape:
            self._continue_escape(char)
        elif char == _ESCAPE:
            self._escape = char
        elif char in _ENTER:
            self.is_done = True
        elif char == _END_OF_INPUT:
            self.is_done = self.is_cancelled = not self.text
        elif char in _ERASE:
            self.text = self.text[:-1]
        elif char == _ERASE_WORD:
            self.text = self.text.rstrip().rpartition(" ")[0]
        elif char == _ERASE_LINE:
            self.text = ""
        elif char.isprintable() and len(self.text) < CHARACTER_COUNT_MAX:
            self.text += char

    def _continue_escape(self, char: str) -> None:
        # ECMA-48: CSI goes on to a letter or the like; SS3 has one character; all else is a pair.
        begins_longer = len(self._escape) == 1 and char in "[O"
        is_in_csi = self._escape.startswith("\x1b[") and not "@" <= char <= "~"
        self._escape = self._escape + char if begins_longer or is_in_csi else ""
