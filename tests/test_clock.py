"""Times as people read and write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.clock import parse_utc, system_now, utc_text

END_OF_9999_MS = 253_402_300_799_999


def test_a_time_looks_like_this() -> None:
    assert utc_text(1_795_381_424_123) == "2026-11-22T21:03:44.123Z"
    assert utc_text(0) == "1970-01-01T00:00:00.000Z"


@given(st.integers(-62_135_596_800_000, END_OF_9999_MS))
def test_a_shown_time_reads_back(wall_ms: int) -> None:
    assert parse_utc(utc_text(wall_ms)) == wall_ms


@given(st.integers())
def test_any_number_can_be_shown(wall_ms: int) -> None:
    assert utc_text(wall_ms).isprintable()


def test_a_number_out_of_range_is_shown_as_it_is() -> None:
    assert utc_text(END_OF_9999_MS + 1) == f"@{END_OF_9999_MS + 1}ms"
    assert utc_text(2**64 - 1) == f"@{2**64 - 1}ms"


def test_shorter_forms() -> None:
    assert parse_utc("2026-12-31T23:59:59Z") == parse_utc("2026-12-31T23:59:59.000Z")
    assert parse_utc("2026-12-31") == parse_utc("2026-12-31T00:00:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-12-31T23:59:59",
        "2026-12-31T23:59:59+01:00",
        "2026-12-31 23:59:59Z",
        "2026-12-31T23:59Z",
        "2026-12-31T23:59:60Z",
        "2026-02-29",
        "20261231",
        "2026-W01-1",
        "٢٠٢٦-12-31",
        "2026-12-31\n",
        "0000-01-01",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="2026-12-31T23:59:59Z"):
        parse_utc(text)


def test_the_system_clocks_go_on() -> None:
    first, second = system_now(), system_now()
    assert second.mono_ms >= first.mono_ms
    assert utc_text(first.wall_ms) > "2025"
