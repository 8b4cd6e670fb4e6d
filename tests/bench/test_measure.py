"""Schedules, and what is counted of a round."""

from array import array
from itertools import pairwise

import pytest

from paygate.bench.latency import Latencies
from paygate.bench.load import Drive, LoadFailed
from paygate.bench.measure import poisson_schedule_ns, round_of

S = 1_000_000_000
MS = 1_000_000


def drive(intended_ns: list[int], done_ns: list[int], last_start_ns: int) -> Drive:
    return Drive(array("q", intended_ns), array("q", done_ns), [b""] * len(done_ns), last_start_ns)


def test_the_rate_is_what_was_done_while_the_load_was_whole() -> None:
    # One payment every 10 ms, each 5 ms long; the last begins at 990 ms.
    intended = [n * 10 * MS for n in range(100)]
    found = round_of(drive(intended, [ns + 5 * MS for ns in intended], intended[-1]), 1, is_open=False)
    # The first tenth is the ramp: from the end of the 11th (105 ms) to 990 ms are 89 ends and 88.5 distances.
    assert found.rate == pytest.approx(88 / 0.885)
    assert found.payment_count == 100
    assert found.latencies.percentile_us(50) == pytest.approx(5000, rel=0.001)


def test_what_waits_for_a_stalled_server_counts_from_when_it_should_have_begun() -> None:
    # 1,000 payments a second; the server stands still from 0.5 s to 0.7 s, and is done with each in 1 ms otherwise.
    intended = [n * MS for n in range(1000)]
    done = [700 * MS + MS if 500 * MS <= ns < 700 * MS else ns + MS for ns in intended]
    latencies = round_of(drive(intended, done, intended[-1]), 1, is_open=True).latencies
    assert latencies.percentile_us(50) == pytest.approx(1000, rel=0.001)
    assert latencies.percentile_us(99) > 180_000
    # Who begins only after an answer, and measures from then, would have seen the stall once in 800.


def test_shoppers_come_at_random_with_the_asked_mean_and_the_same_for_a_seed() -> None:
    schedule = poisson_schedule_ns(2000, 20_000, seed=7)
    assert schedule == poisson_schedule_ns(2000, 20_000, seed=7)
    assert schedule != poisson_schedule_ns(2000, 20_000, seed=8)
    assert schedule == sorted(schedule)
    assert schedule[-1] / S == pytest.approx(10, rel=0.05)
    gaps = [b - a for a, b in pairwise(schedule)]
    # Of exponential gaps, the share 1/e is longer than the mean.
    assert sum(gap > S / 2000 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_an_open_loop_is_counted_by_its_schedule() -> None:
    # 67 a second are asked for and paid, the last ones together: that they end late makes no other rate.
    intended = [n * 15 * MS for n in range(33)]
    done = [max(ns + MS, 300 * MS) for ns in intended]
    found = round_of(drive(intended, done, intended[-1]), 8, is_open=True)
    assert found.offered_rate == pytest.approx(1000 / 15)
    assert found.rate == pytest.approx(1000 / 15, rel=0.15)


def test_servers_that_fall_behind_are_paid_less_than_they_are_offered() -> None:
    intended = [n * MS for n in range(1000)]
    found = round_of(drive(intended, [2 * ns for ns in intended], intended[-1]), 8, is_open=True)
    assert found.offered_rate == pytest.approx(1000)
    assert found.rate == pytest.approx(500, rel=0.2)


def test_a_round_that_is_over_before_its_load_is_whole_has_no_rate() -> None:
    # All begin at once, on as many links.
    with pytest.raises(LoadFailed, match="100 payments on 4096 connections"):
        round_of(drive([0] * 100, [(n + 1) * MS for n in range(100)], 0), 4096, is_open=False)


def test_percentiles_have_three_digits() -> None:
    latencies = Latencies(range(1, 1001))
    assert latencies.summary_us() == {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
    assert Latencies([100_000_000]).percentile_us(100) == pytest.approx(100_000_000, rel=0.001)
