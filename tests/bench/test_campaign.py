"""A comparison, end to end and as small as it can be: what is printed, what is kept, and that all ends."""

import json
from pathlib import Path

import pytest

from paygate.bench import campaign, footprint, measure
from paygate.bench.campaign import ROUND_COUNT_MIN, Campaign, CampaignOptions, open_round_size
from paygate.bench.measure import READ_TEXT, ROUND_COUNT_MAX, SESSION_NS_MAX
from paygate.bench.report import report
from paygate.bench.results import PAYGATE, SEARCH_ROUND, Results
from paygate.codec.codes import KemId


class _Progress:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.dropped_count = 0

    def step(self, text: str) -> None:
        self.steps.append(text)

    def drop(self, count: int) -> None:
        self.dropped_count += count


def test_a_round_of_the_curve_has_payments_enough_and_ends_within_a_session() -> None:
    assert open_round_size(5_000, 3) == 15_000
    assert open_round_size(300, 0.1) == ROUND_COUNT_MIN
    assert open_round_size(100_000, 60) == ROUND_COUNT_MAX
    for rate in (2, 8, 24, 300):
        assert 0 < open_round_size(rate, 0.1) / rate < SESSION_NS_MAX / 1e9


def test_a_small_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "IDLE_COUNT", 32)
    monkeypatch.setattr(campaign, "CURVE_SHARES", (0.5,))
    monkeypatch.setattr(campaign, "CUSTOMER_COUNT", 100)
    monkeypatch.setattr(campaign, "ROUND_COUNT_MIN", 100)
    monkeypatch.setattr(campaign, "WARM_COUNT_MAX", 100)
    monkeypatch.setattr(campaign, "measure_limits", lambda *_: {"fsync": 1_000.0})
    monkeypatch.setattr(campaign, "race", list)
    monkeypatch.setattr(footprint, "SETTLE_S", 0.1)
    monkeypatch.setattr(measure, "HELD_TOKEN_COUNT_MAX", 100)
    options = CampaignOptions((1, 4), (KemId.X25519,), round_count=1, second=0.2, peers=())
    results, progress = Results({}, {}), _Progress()
    run = Campaign(tmp_path, options, results)
    run.run(progress)
    assert len(progress.steps) + progress.dropped_count == run.step_count

    closed = [(s.client_count, s.round_number) for s in results.samples if s.offered_rate is None]
    assert closed == [(1, SEARCH_ROUND), (4, SEARCH_ROUND), (1, 1), (4, 1)]
    opened = [s for s in results.samples if s.offered_rate is not None]
    assert [s.round_number for s in opened] == [SEARCH_ROUND, 1]
    assert all(s.subject == PAYGATE and s.rate > 0 for s in results.samples)
    (profile,) = results.stages.values()
    assert set(profile.programs) == {"gateway", "bank", "decoder"}
    assert all(program.total_us > 0 for program in profile.programs.values())
    assert profile.programs["decoder"].calls["HPKE"] == 1.0  # a payment
    assert set(results.memory_bytes) == {"gateway", "bank"}
    assert results.options["token queries"] == READ_TEXT

    told = report(results)
    for part in ("Closed loop", "Open loop", "Where the time of a payment goes", "Goals", "X25519, 4 connections"):
        assert part in told
    assert json.loads(json.dumps(results.options))
