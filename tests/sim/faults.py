"""What goes wrong in a run: drawn before it begins, each fault with its number, time and parameters.

Which kinds there are and how many of each is drawn for each seed ("swarm testing"): some runs have none, some are
extreme, and most have a few kinds only, since a fault that kills everything hides what the others would show. As all
of it is drawn in advance, a run with some faults left out has the others at the same times, which is what makes a
schedule small (`shrink.py`).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sim.network import FAIR, Weather

CALM_SHARE: Final = 0.1
"""Of the seeds: nothing fails, so every payment with enough money must be paid."""
EXTREME_SHARE: Final = 0.1
"""Of the seeds: every kind of fault, and many of each."""


class FaultKind(Enum):
    """What can go wrong. The value is what a summary calls it."""

    CUT_LIVE = "connections cut"
    CUT_NEXT = "connections cut after so many bytes from their start"
    STALL = "one-way stalls"
    UNREACHABLE = "addresses unreachable for a time"
    KILL = "servers killed"
    POWER_CUT = "power cuts"
    LONG_OUTAGE = "long outages"
    DISK_FULL = "full disks"
    FSYNC_ERROR = "fsync errors"
    CLOCK_JUMP = "clock jumps"
    DECODER_CRASH = "decoder crashes"
    DRAIN = "drains"
    CLIENT_KILL = "clients killed"
    ROTATE_KEYS = "key rotations"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. What the numbers mean depends on its kind; those that it has no use for are drawn all the same."""

    index: int
    kind: FaultKind
    at_ms: int
    """After the start, true time."""
    target: str
    """A server's name, or a customer's for CLIENT_KILL."""
    steps: int
    """Steps of the target until it happens: operations of its disk, sends, ticks. Bytes for a cut."""
    duration_ms: int
    """How long it lasts, or until a server that went down starts again."""
    share: float
    """In [0, 1): which of several, or which way."""

    def __str__(self) -> str:
        return (
            f"#{self.index} {self.at_ms / 1000:.3f} s {self.kind.name} {self.target} "
            f"steps={self.steps} duration={self.duration_ms} ms share={self.share:.3f}"
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a whole run is."""

    faults: tuple[Fault, ...]
    weather: Callable[[random.Random], Weather]
    """How a new connection will be."""
    tick_us_max: int
    """How long a server's tick takes at most; what comes meanwhile waits for the next."""

    @property
    def is_calm(self) -> bool:
        """Whether nothing at all fails, and links are fair."""
        return not self.faults and self.weather is fair


def fair(source: random.Random) -> Weather:
    """A local network."""
    return FAIR


def mixed(source: random.Random) -> Weather:
    """Some near, some far, some dripping."""
    delay_us = source.choice((200, 5_000, 60_000, 400_000))
    return Weather(delay_us, source.choice((100, delay_us, 4 * delay_us)), source.choice((0.0, 0.3, 1.0)))


def slow(source: random.Random) -> Weather:
    """So slow that sessions run out now and then."""
    return Weather(source.randrange(100_000, 1_500_000), 1_000_000, 0.5)


def draw_conditions(source: random.Random, servers: list[str], customers: list[str], active_ms: int) -> Conditions:
    """What goes wrong in a run whose customers begin their payments within `active_ms`."""
    kind_of_run = source.random()
    is_calm = kind_of_run < CALM_SHARE
    is_extreme = kind_of_run > 1 - EXTREME_SHARE
    drawn: list[tuple[int, FaultKind]] = []
    for kind in FaultKind:
        is_in, rate = source.random() < 0.4, source.choice((1, 2, 4, 8))
        for _ in range(source.randint(1, rate * (3 if is_extreme else 1))):
            at_ms = source.randrange(active_ms)
            if not is_calm and (is_in or is_extreme):
                drawn.append((at_ms, kind))
    drawn.sort(key=lambda one: one[0])
    faults = tuple(_draw(source, index, *one, servers, customers) for index, one in enumerate(drawn))
    weather = fair if is_calm else source.choice((fair, fair, mixed, mixed, slow))
    return Conditions(faults, weather, source.choice((200, 2_000, 20_000)))


def _draw(
    source: random.Random, index: int, at_ms: int, kind: FaultKind, servers: list[str], customers: list[str]
) -> Fault:
    target = source.choice(customers if kind is FaultKind.CLIENT_KILL else servers)
    # Small numbers are likely and large ones possible: the first bytes and steps are where most is decided.
    steps = int(2 ** source.uniform(0, 11 if kind in (FaultKind.CUT_LIVE, FaultKind.CUT_NEXT) else 6)) - 1
    duration_ms = int(2 ** source.uniform(6, 17 if kind is FaultKind.LONG_OUTAGE else 14))
    return Fault(index, kind, at_ms, target, steps, duration_ms, source.random())
