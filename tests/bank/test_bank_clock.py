"""The bank's notions of time, under clocks that are set back and forward (T7)."""

import pytest
from builders import NOW_MS

from paygate.bank.bank_clock import CLOCK_STEP_MS_MAX, ClockWatch, LockClock, bank_time
from paygate.clock import Now
from paygate.codec import limits

START = Now(5_000, NOW_MS)
HOUR_MS = 3_600_000


def test_bank_time_never_goes_back() -> None:
    assert bank_time(NOW_MS, NOW_MS - 1) == NOW_MS
    assert bank_time(NOW_MS - 10**9, NOW_MS) == NOW_MS
    assert bank_time(limits.TIME_MS_MAX + 1, 0) == limits.TIME_MS_MAX


@pytest.mark.parametrize("step_ms", [-HOUR_MS, 0, HOUR_MS])
def test_lock_time_runs_with_the_monotonic_clock(step_ms: int) -> None:
    clock = LockClock(0)
    assert clock.read(START) == NOW_MS
    assert clock.read(Now(START.mono_ms + 7, NOW_MS + step_ms)) == NOW_MS + 7


def test_lock_time_begins_where_an_earlier_run_ended_or_later() -> None:
    assert LockClock(NOW_MS - HOUR_MS).read(START) == NOW_MS
    clock = LockClock(NOW_MS + HOUR_MS)
    assert clock.read(START) == NOW_MS + HOUR_MS
    assert clock.read(Now(START.mono_ms + 7, NOW_MS)) == NOW_MS + HOUR_MS + 7


@pytest.mark.parametrize(
    ("behind_ms", "is_told"),
    [(-HOUR_MS, False), (limits.AUTHORISED_AT_SKEW_MS_MAX, False), (limits.AUTHORISED_AT_SKEW_MS_MAX + 1, True)],
)
def test_a_clock_behind_an_earlier_run_is_told_at_start(behind_ms: int, is_told: bool) -> None:
    text = ClockWatch(START, NOW_MS + behind_ms).at_start()
    assert (text is not None) is is_told
    assert text is None or "the clock says 2026-01-02T00:00:00.000Z, but was at 2026-01-02T00:05" in text


def test_a_clock_that_was_set_is_told_once() -> None:
    watch = ClockWatch(START, 0)
    assert watch.look(Now(START.mono_ms + 1_000, NOW_MS + 1_000 + CLOCK_STEP_MS_MAX)) is None
    text = watch.look(Now(START.mono_ms + 2_000, NOW_MS + HOUR_MS + 2_000 + CLOCK_STEP_MS_MAX))
    assert text is not None
    assert "leapt 3600 s forward to 2026-01-02T01:00" in text
    assert watch.look(Now(START.mono_ms + 3_000, NOW_MS + HOUR_MS + 3_000 + CLOCK_STEP_MS_MAX)) is None
    text = watch.look(Now(START.mono_ms + 4_000, NOW_MS))
    assert text is not None
    assert "s back to 2026-01-02T00:00:00.000Z" in text
