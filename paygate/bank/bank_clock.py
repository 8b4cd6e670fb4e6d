"""The bank's notions of time, and what a clock that is set back or forward can do to each (T7).

    wall time   the machine's clock as it is now. By it alone an authorisation is recent or not, so a wrong clock
                declines payments only while it is wrong.
    bank time   the wall time, but never before one that was used; in UTRs and receipts. After a clock was wrong by
                years it stands still for years, and nothing but those dates depends on it.
    lock time   what locks of accounts are measured by: it runs with the monotonic clock, so setting the wall clock
                neither ends a lock early nor makes one longer. While the bank is down it runs with the wall clock,
                but never back; so a wrong clock at a restart can end locks early.

What was decided is final whatever a clock says. What no rule here can tell apart is a clock that was wrong and is
mended, and one that was right and is set back: in both cases authorisations of the time that it shows now are taken.
"""

from typing import Final

from paygate.clock import Now, utc_text
from paygate.codec import limits

CLOCK_STEP_MS_MAX: Final = 10_000
"""A wall clock that leaves the monotonic one by more between two looks was set, or the machine slept; it is told."""


def bank_time(now_wall_ms: int, last_bank_time_ms: int) -> int:
    """Bank time: the clock's, but never before one that was used (T7)."""
    return min(max(now_wall_ms, last_bank_time_ms), limits.TIME_MS_MAX)


class LockClock:
    """Lock time in one run of the bank (T7, T15)."""

    def __init__(self, last_ms: int) -> None:
        """`last_ms` is the last lock time that is on disk."""
        self._last_ms = last_ms
        self._ahead_ms: int | None = None  # of the monotonic clock; known when the run's first time is

    def read(self, now: Now) -> int:
        """The lock time, in milliseconds."""
        if self._ahead_ms is None:
            self._ahead_ms = max(now.wall_ms, self._last_ms) - now.mono_ms
        return now.mono_ms + self._ahead_ms


class ClockWatch:
    """Notices that the clock was set, for the operator's log: authorisations are judged by it as it is."""

    def __init__(self, now: Now, last_bank_time_ms: int) -> None:
        self._ahead_ms = now.wall_ms - now.mono_ms
        self._last_bank_time_ms = last_bank_time_ms
        self._start_ms = now.wall_ms

    def at_start(self) -> str | None:
        """What to tell of a clock that is far behind times that were used in an earlier run."""
        if self._last_bank_time_ms - self._start_ms <= limits.AUTHORISED_AT_SKEW_MS_MAX:
            return None
        return (
            f"the clock says {utc_text(self._start_ms)}, but was at {utc_text(self._last_bank_time_ms)} before: it was "
            "wrong then, or is now; payments authorised about the time that it says now are taken, so set it right"
        )

    def look(self, now: Now) -> str | None:
        """What to tell of a clock that was set since the last look."""
        ahead_ms = now.wall_ms - now.mono_ms
        step_ms = ahead_ms - self._ahead_ms
        self._ahead_ms = ahead_ms
        if abs(step_ms) <= CLOCK_STEP_MS_MAX:
            return None
        direction = "forward" if step_ms > 0 else "back"
        return (
            f"the clock leapt {abs(step_ms) // 1000} s {direction} to {utc_text(now.wall_ms)}; payments authorised "
            "about the time that it says now are taken, and no others, so set it right if it is wrong"
        )
