"""What the bench asks of a peer, and what it gives back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from paygate.cli import PaygateExit

SHARES: Final = {"p50": 0.50, "p99": 0.99}


class Missing(Exception):
    """A peer is not installed; the text says what is missing and the command that installs it."""

    def __init__(self, what: str, command: str) -> None:
        super().__init__(f"{what}; install it with: {command}")


class PeerFailed(PaygateExit):
    """A peer did not start, stopped answering, or answered otherwise than it should: there is no figure of it."""


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One measurement of a peer. Its window begins when every client is connected and at work."""

    client_count: int
    second: float
    """How long was measured."""
    done_count: int
    rate: float
    """What was done per second of it."""
    latency_us: dict[str, float]
    """`p50` and `p99`, exact, of all that was done in the window."""


class Peer(Protocol):
    """Something that the machine can do instead. Started once, measured as often as wanted, stopped."""

    name: str
    """What tables call it."""
    title: str
    """What it does for one payment, and what it does not: is it durable, does it encrypt?"""
    version: str
    """Of the program or package; empty until it was started."""
    client_counts: tuple[int, ...]
    """What is tried to find its best."""
    settings: dict[str, str]
    """What it says that it is set to, where that decides what it does for a payment; empty until it was started."""

    def start(self, directory: Path) -> None:
        """Install itself in `directory`, which exists and is its own. Raises Missing, PeerFailed."""

    def measure(self, client_count: int, seconds: float) -> PeerRun:
        """Load it with so many clients, each of which waits for its answer. Raises PeerFailed."""

    def stop(self) -> None:
        """End its processes. Harmless when repeated, and when it never started."""


def percentile(ordered: Sequence[int], share: float) -> float:
    """The smallest of the sorted values that `share` of them don't exceed (nearest rank).

    Raises ValueError when there are none.
    """
    if not ordered:
        raise ValueError("no values, no percentile")
    return float(ordered[max(1, math.ceil(share * len(ordered))) - 1])


def run_of(client_count: int, second: float, latencies: list[int], *, unit_us: float = 1.0) -> PeerRun:
    """The measurement that these latencies make, one of each thing done in `second`; sorts them.

    `unit_us`: how many microseconds they count in. Raises PeerFailed when nothing was done.
    """
    if not latencies:
        raise PeerFailed(f"nothing was done in {second:.1f} s with {client_count} clients")
    latencies.sort()
    latency_us = {name: percentile(latencies, share) * unit_us for name, share in SHARES.items()}
    return PeerRun(client_count, second, len(latencies), len(latencies) / second, latency_us)
