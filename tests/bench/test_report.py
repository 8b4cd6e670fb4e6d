"""Reports: what was measured beside what was asked for, and pictures of it."""

from pathlib import Path
from typing import Any

import pytest
from bench.test_results import VARIANT, comparison, ours, pgbench

from paygate.bench import plots
from paygate.bench.plots import draw
from paygate.bench.report import report, table
from paygate.bench.results import PAYGATE, Growth, Results, Sample
from paygate.bench.stages import MEANINGS, ProgramProfile, StageProfile


def test_numbers_stand_under_each_other() -> None:
    assert table(("", "rate"), [("a", "1"), ("long name", "1,000")]) == (
        "            rate\na              1\nlong name  1,000"
    )


def test_a_report_shows_medians_goals_and_verdicts() -> None:
    results = comparison(
        *(ours(64, number, rate) for number, rate in enumerate((8000, 9000, 8500, 8500, 8500), 1)),
        *(pgbench(8, number, 4000) for number in range(6)),
    )
    results.versions["pgbench TPC-B"], results.settings["pgbench TPC-B"] = "PostgreSQL 15", {"fsync": "on"}
    results.titles["pgbench TPC-B"] = "three balances"
    text = report(results)
    assert "paygate (X25519, sealed in advance)       64   8,500  8,000 to 9,000       5    1.00    3.00" in text
    assert "pgbench TPC-B (PostgreSQL 15): three balances; fsync on" in text
    ratios = text[text.index("Ratios") :].splitlines()
    assert ratios[2].split("  ")[0] == "paygate (X25519, sealed in advance), by connections; rounds: 5"
    assert ratios[3].split() == ["pgbench", "TPC-B,", "8", "clients", "2.12"]
    goals = text[text.index("Goals") :].splitlines()
    assert goals[3].split("  ")[-1].strip() == "met (peer at 8 clients)"
    assert "  2.12  2.00 to 2.25       5  " in goals[3]
    assert goals[4].endswith("not measured")


def test_a_report_of_few_rounds_gives_no_verdict() -> None:
    text = report(comparison(ours(64, 1, 8000), pgbench(8, 1, 4000)))
    goals = text[text.index("Goals") :].splitlines()
    assert goals[3].endswith("no verdict: too few rounds (peer at 8 clients)")


def test_a_report_of_a_run_that_ended_early_says_so() -> None:
    results = comparison(ours(64, 1, 8000))
    results.error = "the gateway ended with 24"
    assert "ENDED EARLY, so this is not all: the gateway ended with 24" in report(results)


def test_a_report_tells_how_to_get_a_peer_that_is_missing() -> None:
    results = comparison(ours(64, 1, 8000))
    results.missing["iso8583sim"] = "no iso8583sim; install it with: pip install iso8583sim"
    assert "iso8583sim was not measured: no iso8583sim; install it with: pip install iso8583sim" in report(results)


def test_round_0_counts_only_where_nothing_else_was_measured() -> None:
    text = report(comparison(pgbench(1, 0, 2000), pgbench(8, 0, 100), pgbench(8, 1, 4000)))
    lines = [line.split() for line in text.splitlines() if line.startswith("pgbench")]
    assert [line[2:4] for line in lines] == [["1", "2,000"], ["8", "4,000"]]


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    results = comparison(ours(64, 1, 8000), pgbench(8, 1, 4000))
    latencies = dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 1000.0)
    results.samples.append(Sample(PAYGATE, VARIANT, 64, 0, 4000.0, latencies, offered_rate=4000.0))
    results.growth.append(Growth("Tokens", "tokens", "us a payment", [(1000, 100.0), (10_000, 101.0)]))
    names = {path.name for path in draw(results, tmp_path / "plots")}
    assert names == {"rates.svg", "throughput-latency.svg", "percentiles.svg", "growth-tokens.svg"}
    assert all((tmp_path / "plots" / name).read_bytes().startswith(b"<?xml") for name in names)


def open_loop(number: int, offered_rate: float, rate: float, variant: str = VARIANT) -> Sample:
    latencies = dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), offered_rate / 10)
    return Sample(PAYGATE, variant, 64, number, rate, latencies, offered_rate=offered_rate)


def axes_of(monkeypatch: pytest.MonkeyPatch, results: Results, directory: Path, name: str) -> Any:
    """The axes of the picture of this name: what was drawn, by what it is."""
    axes: dict[str, Any] = {}
    save = plots._save
    monkeypatch.setattr(
        plots, "_save", lambda figure, path: axes.update({path.name: figure.axes[0]}) or save(figure, path)
    )
    draw(results, directory)
    return axes[name]


def test_rates_are_drawn_as_the_table_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = comparison(ours(64, 0, 100), ours(64, 1, 8000), pgbench(8, 0, 50_000), pgbench(8, 1, 4000))
    bars = axes_of(monkeypatch, results, tmp_path, "rates.svg").patches
    assert [bar.get_width() for bar in bars] == [4000, 8000]


def test_a_curve_goes_by_what_was_offered_and_leaves_repeated_rounds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = comparison(open_loop(0, 900, 400), open_loop(0, 500, 499), open_loop(1, 700, 700))
    axes = axes_of(monkeypatch, results, tmp_path, "throughput-latency.svg")
    assert list(axes.lines[0].get_xdata()) == [500, 900]
    assert "fell behind what was offered" in axes.get_legend_handles_labels()[1]


def test_a_load_alone_has_its_curve_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = axes_of(monkeypatch, Results({}, {}, samples=[open_loop(1, 500, 499)]), tmp_path, "percentiles.svg")
    assert len(axes.lines) == 1


def test_every_stage_has_a_colour_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages_us = dict.fromkeys(MEANINGS, 5.0)
    program = ProgramProfile(stages_us, {}, 0, 0, 0, 1, 1, 0)
    results = Results({}, {}, stages={"X25519": StageProfile(1, {"gateway": program, "bank": program})})
    axes = axes_of(monkeypatch, results, tmp_path, "stages.svg")
    assert len(MEANINGS) == len({bar.get_facecolor() for bar in axes.patches})


def test_how_a_cost_grows_is_told_below_it() -> None:
    results = Results({}, {})
    results.growth.append(Growth("Cost", "MB of text records", "us", [(0.25, 100.0), (1_000, 101.0)], "flat: +1 us"))
    text = report(results)
    assert "0.25" in text
    assert text.endswith(" 101\nflat: +1 us\n")


def test_nothing_measured_draws_nothing(tmp_path: Path) -> None:
    assert draw(Results({}, {}), tmp_path) == []
