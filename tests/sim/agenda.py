"""Virtual time: everything that will happen, in one heap, and what each machine's clocks make of it.

Whole microseconds, so that nothing depends on how a float is rounded. Of two things due at the same time the one that
was asked for first comes first.
"""

import heapq
from collections.abc import Callable
from typing import Final

from builders import NOW_MS

from paygate.clock import Now

MS: Final = 1_000
"""Microseconds in a millisecond."""
SECOND: Final = 1_000_000
"""Microseconds in a second."""
EVENT_COUNT_MAX: Final = 1_000_000
"""Of one run, which has some thousands: who asks for more wakes up again and again for nothing (T25)."""
START_WALL_MS: Final = NOW_MS
"""What a right clock says when a run begins; the key lists of `builders` are valid about it."""


class Event:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """It will not happen; harmless afterwards."""
        self.act = None


class Agenda:
    """What happens when. `now_us` is the true time since the run began."""

    def __init__(self) -> None:
        self.now_us = 0
        self._heap: list[tuple[int, int, Event]] = []
        self._count = 0

    def at(self, at_us: int, act: Callable[[], None]) -> Event:
        """Have something done at this time, or now if that is over."""
        event = Event(act)
        self._count += 1
        if self._count > EVENT_COUNT_MAX:
            raise RuntimeError(f"{self._count} events and no end: somebody spins, at {self.now_us / SECOND} s")
        heapq.heappush(self._heap, (max(at_us, self.now_us), self._count, event))
        return event

    def later(self, delay_us: int, act: Callable[[], None]) -> Event:
        """Have something done after so long."""
        return self.at(self.now_us + delay_us, act)

    def run_until(self, end_us: int) -> None:
        """Let time go by. What an act raises ends it there."""
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            at_us, _, event = heapq.heappop(heap)
            if event.act is not None:
                self.now_us = at_us
                event.act()
        self.now_us = end_us


class MachineClock:
    """One machine's clocks: the monotonic one begins somewhere, the wall clock may be wrong (T7)."""

    def __init__(self, agenda: Agenda, mono_start_ms: int, wall_wrong_ms: int = 0) -> None:
        self._agenda = agenda
        self._mono_start_ms = mono_start_ms
        self.wall_wrong_ms = wall_wrong_ms
        """By how much the wall clock is ahead; may be set at any time."""

    def __call__(self) -> Now:
        ms = self._agenda.now_us // MS
        return Now(self._mono_start_ms + ms, START_WALL_MS + ms + self.wall_wrong_ms)

    def reboot(self, mono_start_ms: int) -> None:
        """The machine starts anew, and its monotonic clock with it."""
        self._mono_start_ms = mono_start_ms - self._agenda.now_us // MS

    def true_us(self, mono_ms: int) -> int:
        """When the monotonic clock says so, in true time."""
        return (mono_ms - self._mono_start_ms) * MS
