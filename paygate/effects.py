"""What a core wants done: plain data, performed by the shell in order, once a tick (architecture: effects).

A tick's commits go first, in one durable transaction; only then does anything leave (style 9). A role adds
effects of its own beside these.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Commit:
    """Have the store apply an operation; its outcome comes back through `committed`, in the same order."""

    operation: Any


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes on a link, after the tick's commits."""

    link_id: int
    data: bytes = field(repr=False)  # may hold a passcode


@dataclass(frozen=True, slots=True)
class Continue:
    """A link has had its turn and holds more whole frames: give it another turn, and read nothing from it before.

    R21: so nobody takes more of a tick than its share, however much it sends at once.
    """

    link_id: int


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Send what is queued, then close. `reason` is for people: logs and records (R15)."""

    link_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """Tell the operator."""

    text: str


LinkEffect = Send | Continue | CloseLink
"""What is done to connections: last in a tick, after everything else (style 9)."""
Effect = Any
"""Any other of these, or an effect of the role's own."""
