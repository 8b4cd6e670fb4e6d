"""What follows from measurements: medians of ratios within a round, goals, and what stays unmeasured."""

import pytest

from paygate.bench.goals import GOALS, MEMORY_BYTES_MAX, TAIL_TEXT, Judged, judge
from paygate.bench.ratios import ratios_of
from paygate.bench.report import as_json
from paygate.bench.results import PAYGATE, Results, Sample, best_client_count, fastest_client_counts, measured

VARIANT = "X25519, sealed in advance"


def ours(client_count: int, number: int, rate: float, p50: float = 1000.0) -> Sample:
    return Sample(PAYGATE, VARIANT, client_count, number, rate, {"p50": p50, "p99": 3 * p50})


def pgbench(client_count: int, number: int, rate: float, p50: float = 500.0) -> Sample:
    return Sample("pgbench TPC-B", "", client_count, number, rate, {"p50": p50})


def comparison(*samples: Sample) -> Results:
    return Results({}, {}, is_comparison=True, samples=list(samples))


def judged(results: Results, number: int) -> Judged:
    return next(one for one in judge(results) if one.text == GOALS[number].text)


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    # The machine was half as fast in round 2, for both: the ratio of the medians would be 2.5.
    results = comparison(
        *(ours(64, number, rate) for number, rate in enumerate((8000, 5000, 9000, 8000, 10_000), 1)),
        *(pgbench(8, number, rate) for number, rate in enumerate((4000, 2000, 3600, 4000, 4000), 1)),
    )
    found = judged(results, 0)
    assert (found.value, found.lowest, found.highest, found.round_count) == (2.5, 2.0, 2.5, 5)
    assert found.is_met
    assert found.note == "peer at 8 clients"


def test_the_peer_is_taken_at_the_client_count_with_which_it_is_fastest() -> None:
    results = comparison(ours(64, 1, 8000), pgbench(1, 0, 2000), pgbench(8, 0, 4000), pgbench(64, 0, 3000))
    results.samples += [pgbench(1, 1, 2100), pgbench(8, 1, 4100)]
    assert best_client_count(results.samples, "pgbench TPC-B") == 8
    assert judged(results, 0).value == 8000 / 4100


def test_the_best_client_count_stays_what_the_search_found() -> None:
    results = comparison(ours(64, 1, 8000), ours(64, 2, 8000), pgbench(8, 0, 4000), pgbench(16, 0, 3900))
    results.samples += [pgbench(8, 1, 3000), pgbench(8, 2, 3000)]
    assert best_client_count(results.samples, "pgbench TPC-B") == 8
    assert judged(results, 0).value == 8000 / 3000


def test_the_better_of_the_two_that_the_search_found_counts() -> None:
    results = comparison(ours(64, 1, 8000), pgbench(4, 0, 3000), pgbench(8, 0, 4000), pgbench(16, 0, 3900))
    results.samples += [pgbench(8, 1, 3000), pgbench(16, 1, 3600), pgbench(4, 1, 9000)]
    assert fastest_client_counts(results.samples, "pgbench TPC-B") == [8, 16]
    assert best_client_count(results.samples, "pgbench TPC-B") == 16
    assert judged(results, 0).value == 8000 / 3600


def test_latencies_are_compared_with_one_client_each() -> None:
    results = comparison(ours(1, 1, 900, p50=1100.0), pgbench(1, 1, 2000, p50=500.0), pgbench(8, 1, 4000, p50=9000.0))
    found = judged(results, 4)
    assert found.value == 2.2


def test_a_goal_whose_peer_is_missing_is_not_measured_and_says_why() -> None:
    results = comparison(ours(64, 1, 8000))
    results.missing["pgbench TPC-B"] = "no pgbench; install it with: apt-get install postgresql"
    found = judged(results, 0)
    assert found.value is None
    assert found.is_met is None
    assert "apt-get install" in found.note


def test_samples_of_different_rounds_make_no_ratio() -> None:
    assert judged(comparison(ours(64, 1, 8000), pgbench(8, 2, 4000)), 0).value is None


def test_the_search_for_the_best_client_count_makes_no_ratio() -> None:
    results = comparison(ours(64, 0, 1000), pgbench(8, 0, 4000), ours(64, 1, 8000), pgbench(8, 1, 4000))
    assert judged(results, 0).lowest == 2.0


@pytest.mark.parametrize(("round_count", "is_met"), [(4, None), (5, True)])
def test_fewer_than_five_rounds_give_no_verdict(round_count: int, is_met: bool | None) -> None:
    rounds = range(1, round_count + 1)
    found = judged(comparison(*(ours(64, n, 8000) for n in rounds), *(pgbench(8, n, 4000) for n in rounds)), 0)
    assert (found.value, found.round_count, found.is_met) == (2.0, round_count, is_met)


def open_loop(number: int, p99: float, rate: float = 7000.0) -> Sample:
    return Sample(PAYGATE, VARIANT, 256, number, rate, {"p50": 10.0, "p99": p99}, offered_rate=7000.0)


def tail(*samples: Sample) -> Judged:
    # Without a closed-loop sample there is no variant to judge.
    return next(one for one in judge(comparison(ours(256, 1, 9000), *samples)) if one.text == TAIL_TEXT)


def test_the_tail_is_judged_by_the_numbered_open_loop_rounds_alone() -> None:
    found = tail(open_loop(0, 90.0), *(open_loop(n, p99) for n, p99 in enumerate((30, 35, 39, 34, 36), 1)))
    assert (found.value, found.lowest, found.highest) == (3.5, 3.0, 3.9)
    assert found.is_met


def test_a_tail_under_overload_is_missed_however_short_it_looks() -> None:
    found = tail(*(open_loop(n, 13.0, rate=6649.0) for n in range(1, 6)))
    assert (found.value, found.round_count, found.is_met) == (None, 0, False)
    assert found.note == "fell behind in 5 of 5 rounds: paid 6,649/s of 7,000/s"
    found = tail(*(open_loop(n, 20.0, rate=6651.0) for n in range(1, 6)), open_loop(6, 13.0, rate=100.0))
    assert (found.value, found.round_count, found.is_met) == (2.0, 5, False)


def test_memory_above_its_bound_is_missed() -> None:
    results = comparison()
    results.memory_bytes = {"bank": [MEMORY_BYTES_MAX + 1.0] * 5, "gateway": [float(MEMORY_BYTES_MAX)] * 5}
    assert [(one.text, one.is_met) for one in judge(results)] == [
        ("memory per idle connection, bank", False),
        ("memory per idle connection, gateway", True),
    ]


def test_what_was_no_comparison_is_not_judged() -> None:
    assert judge(Results({}, {}, samples=[ours(64, 1, 8000)])) == []


def test_ratios_are_formed_to_every_limit_and_every_peer() -> None:
    results = comparison(ours(64, 0, 1000), ours(64, 1, 8000), ours(64, 2, 6000), pgbench(8, 1, 4000))
    results.limits = {
        "fdatasync": 2000.0,
        "open HPKE envelopes, X25519, one process": 16_000.0,
        "open HPKE envelopes, hybrid, one process": 8_000.0,
    }
    found = {one.against: (one.client_count, one.value, one.round_count) for one in ratios_of(results)}
    assert found == {
        "fdatasync": (64, 3.5, 2),
        "open HPKE envelopes, X25519, one process": (64, 7000 / 16_000, 2),
        "pgbench TPC-B, 8 clients": (64, 2.0, 1),
    }


def test_the_search_counts_only_where_nothing_else_was_measured() -> None:
    searched, numbered = pgbench(8, 0, 100), pgbench(8, 1, 4000)
    assert measured([searched, numbered]) == [numbered]
    assert measured([searched]) == [searched]


def test_json_has_ratios_and_verdicts_beside_the_samples() -> None:
    results = comparison(*(ours(64, n, 8000) for n in range(1, 6)), *(pgbench(8, n, 4000) for n in range(1, 6)))
    told = as_json(results)
    assert (told["goals"][0]["value"], told["goals"][0]["is_met"], told["goals"][0]["round_count"]) == (2.0, True, 5)
    assert told["ratios"][0]["against"] == "pgbench TPC-B, 8 clients"
    assert told["samples"][0]["subject"] == PAYGATE
    assert told["error"] == ""
