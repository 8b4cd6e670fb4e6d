"""Time as an argument: roles get a `Now` and never ask a clock themselves, so a test sets the time."""

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC_TEXT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d{3}))?Z)?", re.ASCII
)  # one exact form, since fromisoformat also takes week dates, offsets and missing zones


class Now(NamedTuple):
    """One instant on two clocks, both in milliseconds."""

    mono_ms: int
    """Monotonic: for deadlines. Means nothing in another process or after a restart."""
    wall_ms: int
    """Since 1970-01-01T00:00:00Z: for records. May be set back or forward at any time (T7)."""


def system_now() -> Now:
    """The time by this machine's clocks. For shells only; cores are given it."""
    return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


@lru_cache(maxsize=64)  # since all that a tick records has the tick's time
def utc_text(wall_ms: int) -> str:
    """`2026-11-22T21:03:44.123Z`; for a time outside of the years 1 to 9999, the number: `@-1ms`.

    A peer's u64 may hold any number, so showing it never fails.
    """
    second, millisecond = divmod(wall_ms, 1000)
    text = _second_text(second)
    return f"{text}.{millisecond:03}Z" if text else f"@{wall_ms}ms"


@lru_cache(maxsize=16)
def _second_text(second: int) -> str:
    """`2026-11-22T21:03:44`, or nothing; kept, since records are written of thousands of payments a second."""
    try:
        return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat()
    except OverflowError:
        return ""


def parse_utc(text: str) -> int:
    """The wall time in milliseconds of `2026-12-31T23:59:59Z`, the same with `.123`, or `2026-12-31`.

    A date alone means its first instant, 00:00:00Z. Raises ValueError that says what is expected.
    """
    match = _UTC_TEXT.fullmatch(text)
    expected = "a UTC time such as 2026-12-31T23:59:59Z, or a date such as 2026-12-31"
    if match is None:
        raise ValueError(f"expected {expected}")
    year, month, day, hour, minute, second, millisecond = (int(part or 0) for part in match.groups())
    try:
        moment = datetime(year, month, day, hour, minute, second, millisecond * 1000, tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"expected {expected} ({error})") from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)
