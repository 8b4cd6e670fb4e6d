"""What follows from measurements: medians of ratios within a round, goals, and what stays unmeasured."""

from paygate.bench.results import (
    GOALS,
    MEMORY_BYTES_MAX,
    PAYGATE,
    TAIL_TEXT,
    Judged,
    Results,
    Sample,
    best_client_count,
    judge,
)

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
        *(ours(64, number, rate) for number, rate in ((1, 8000), (2, 5000), (3, 9000))),
        *(pgbench(8, number, rate) for number, rate in ((1, 4000), (2, 2000), (3, 3600))),
    )
    found = judged(results, 0)
    assert (found.value, found.lowest, found.highest) == (2.5, 2.0, 2.5)
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


def test_latencies_are_compared_with_one_client_each() -> None:
    results = comparison(ours(1, 1, 900, p50=1100.0), pgbench(1, 1, 2000, p50=500.0), pgbench(8, 1, 4000, p50=9000.0))
    found = judged(results, 4)
    assert found.value == 2.2
    assert found.is_met is False


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


def test_the_tail_is_judged_by_the_numbered_open_loop_rounds_alone() -> None:
    open_loop = [
        Sample(PAYGATE, VARIANT, 256, number, 7000.0, {"p50": 10.0, "p99": p99}, offered_rate=7000.0)
        for number, p99 in ((0, 90.0), (1, 30.0), (2, 35.0), (3, 39.0))
    ]
    # Without a closed-loop sample there is no variant to judge.
    found = next(one for one in judge(comparison(ours(256, 1, 9000), *open_loop)) if one.text == TAIL_TEXT)
    assert (found.value, found.lowest, found.highest) == (3.5, 3.0, 3.9)
    assert found.is_met


def test_memory_above_its_bound_is_missed() -> None:
    results = comparison()
    results.memory_bytes = {"bank": MEMORY_BYTES_MAX + 1.0, "gateway": float(MEMORY_BYTES_MAX)}
    assert [(one.text, one.is_met) for one in judge(results)] == [
        ("memory per idle connection, bank", False),
        ("memory per idle connection, gateway", True),
    ]


def test_what_was_no_comparison_is_not_judged() -> None:
    assert judge(Results({}, {}, samples=[ours(64, 1, 8000)])) == []


def test_json_has_the_goals_beside_the_samples() -> None:
    told = comparison(ours(64, 1, 8000), pgbench(8, 1, 4000)).as_json()
    assert told["goals"][0]["value"] == 2.0
    assert told["samples"][0]["subject"] == PAYGATE
