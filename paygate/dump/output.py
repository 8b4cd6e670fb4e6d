"""What every output of `paygate-dump` is, and the colours they share."""

from dataclasses import dataclass
from typing import Final, Protocol

from paygate.dump.model import Item

_RESET: Final = "\x1b[0m"


class Output(Protocol):
    """Takes what was seen, in order, and writes it; a live capture is shown as it comes."""

    def receive(self, item: Item) -> None:
        """Something was seen. A SeenFrame is complete: nothing of it changes any more."""

    def finish(self) -> None:
        """The input has ended."""


@dataclass(frozen=True, slots=True)
class Colours:
    """ANSI colours by what is meant; `is_on` False gives every text back as it is (no terminal, or NO_COLOR)."""

    is_on: bool = False

    def kind(self, text: str) -> str:
        """The name of a message."""
        return self._in("1", text)

    def good(self, text: str) -> str:
        """Paid, posted, valid."""
        return self._in("32", text)

    def bad(self, text: str) -> str:
        """Declined, refused, a finding."""
        return self._in("31", text)

    def doubt(self, text: str) -> str:
        """Pending, unknown, masked."""
        return self._in("33", text)

    def party(self, text: str) -> str:
        """Who speaks."""
        return self._in("36", text)

    def faint(self, text: str) -> str:
        """Times, offsets, hex."""
        return self._in("2", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}{_RESET}" if self.is_on and text else text
