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


def latency_text(latency_ns: int | None) -> str:
    """Three digits and a unit, such as `412 µs`, `12.3 ms`; empty for None. Below zero only if clocks differ."""
    if latency_ns is None:
        return ""
    for unit, size_ns in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        # What would round to 1000 of a unit is shown as 1.00 of the next.
        if abs(latency_ns) >= size_ns * 0.9995:
            value = latency_ns / size_ns
            digits = f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
            return f"{digits} {unit}"
    return f"{latency_ns} ns"
