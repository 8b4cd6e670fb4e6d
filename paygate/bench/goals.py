"""The goals, and whether a run has reached them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from paygate.bench.codec_race import TEXTS, CodecTimes, mean_of_kinds, slowest_of
from paygate.bench.results import PAYGATE, SEARCH_ROUND, Results, Sample, best_client_count, of

ROUND_COUNT_MIN: Final = 5
"""A median of fewer rounds is no verdict: the machine's speed drifts."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio that paygate is to reach (`is_floor`) or to stay below."""

    text: str
    client_count: int
    peer: str
    bound: float
    is_floor: bool = True
    percentile: str = ""
    """Of the latency; rates are compared when empty."""
    peer_client_count: int | None = None
    """None for the peer's best."""


GOALS: Final = (
    Goal("payments/s, 64 connections, against pgbench TPC-B at its best", 64, "pgbench TPC-B", 2.0),
    Goal("payments/s, 256 connections, against the same", 256, "pgbench TPC-B", 2.7),
    Goal("payments/s, 256 connections, against one-call debit-credit at its best", 256, "PostgreSQL one call", 0.9),
    Goal("payments/s, 64 connections, against iso8583sim serve", 64, "iso8583sim", 1.6),
    Goal("p50, 1 connection, against pgbench TPC-B p50 at 1 client", 1, "pgbench TPC-B", 2.0, False, "p50", 1),
)
TAIL_TEXT: Final = "p99/p50 at 70 % of the highest rate, open loop"
TAIL_MAX: Final = 4.0
MEMORY_TEXT: Final = "memory per idle connection, {}"
MEMORY_BYTES_MAX: Final = 8192
CODEC_TEXT: Final = "codec, encode + decode, against hand-written struct"
CODEC_MIN: Final = 0.8
CODEC_KIND_MIN: Final = 0.6
CONSTRUCT_TEXT: Final = "codec, encode + decode, against interpreted construct"
CONSTRUCT_MIN: Final = 25.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal beside what was measured."""

    text: str
    variant: str
    bound: float
    is_floor: bool
    value: float | None
    """The median of the rounds that count; None if there is none."""
    lowest: float | None
    highest: float | None
    round_count: int
    """How many rounds that median is of."""
    is_met: bool | None
    """None if it was not measured, or not often enough for a verdict."""
    note: str = ""


def judge(results: Results) -> list[Judged]:
    """Every goal, for each variant of paygate that was measured; none of what was no comparison."""
    judged: list[Judged] = []
    if not results.is_comparison:
        return judged
    for variant in sorted({s.variant for s in of(results.samples, PAYGATE)}):
        judged += [_judge(results, goal, variant) for goal in GOALS]
        tails = [
            s
            for s in results.samples
            if s.subject == PAYGATE
            and s.variant == variant
            and s.offered_rate is not None
            and s.round_number > SEARCH_ROUND
        ]
        if tails:
            judged.append(_judge_tails(variant, tails))
    for server, sizes in results.memory_bytes.items():
        judged.append(_judged(MEMORY_TEXT.format(server), "bytes", sizes, MEMORY_BYTES_MAX, is_floor=False))
    return judged + judge_codec(results.codec)


def judge_codec(times: Sequence[CodecTimes]) -> list[Judged]:
    """The codec's goals, with each sort of texts; none if it was not measured."""
    judged = []
    for texts in TEXTS:
        to_hand = [one.to_hand for one in times if one.texts == texts and one.to_hand]
        to_construct = [one.to_construct for one in times if one.texts == texts]
        for text, ratios, bound in (
            (f"{CODEC_TEXT}, mean of kinds", to_hand and mean_of_kinds(to_hand), CODEC_MIN),
            (f"{CODEC_TEXT}, the slowest kind", to_hand and slowest_of(to_hand), CODEC_KIND_MIN),
            (f"{CONSTRUCT_TEXT}, mean of kinds", to_construct and mean_of_kinds(to_construct), CONSTRUCT_MIN),
        ):
            if ratios:
                judged.append(_judged(text, f"{texts} texts", ratios, bound, is_floor=True))
    return judged


def _judge(results: Results, goal: Goal, variant: str) -> Judged:
    if goal.peer in results.missing:
        return _judged(goal.text, variant, [], goal.bound, is_floor=goal.is_floor, note=results.missing[goal.peer])
    best = best_client_count(results.samples, goal.peer)
    ours = of(results.samples, PAYGATE, goal.client_count, variant)
    theirs = of(results.samples, goal.peer, goal.peer_client_count or best)
    pairs = pairs_of(ours, theirs)
    if goal.percentile:
        ratios = [a.latency_us[goal.percentile] / b.latency_us[goal.percentile] for a, b in pairs]
    else:
        ratios = [a.rate / b.rate for a, b in pairs]
    note = "" if goal.peer_client_count or not pairs else f"peer at {best} clients"
    return _judged(goal.text, variant, ratios, goal.bound, is_floor=goal.is_floor, note=note)


def pairs_of(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Samples of the same numbered round, side by side."""
    by_round = {s.round_number: s for s in theirs if s.round_number > SEARCH_ROUND}
    return [(s, by_round[s.round_number]) for s in ours if s.round_number in by_round]


def _judge_tails(variant: str, tails: Sequence[Sample]) -> Judged:
    """One round in which the servers fell behind misses the goal: a tail under overload is as long as the round."""
    ratios = [s.latency_us["p99"] / s.latency_us["p50"] for s in tails if not s.fell_behind]
    behind = [s for s in tails if s.fell_behind]
    if not behind:
        return _judged(TAIL_TEXT, variant, ratios, TAIL_MAX, is_floor=False)
    worst = min(behind, key=lambda s: s.rate)
    note = (
        f"fell behind in {len(behind)} of {len(tails)} rounds: paid {worst.rate:,.0f}/s of {worst.offered_rate:,.0f}/s"
    )
    return _judged(TAIL_TEXT, variant, ratios, TAIL_MAX, is_floor=False, note=note, is_missed=True)


def _judged(
    text: str,
    variant: str,
    ratios: Sequence[float],
    bound: float,
    *,
    is_floor: bool,
    note: str = "",
    is_missed: bool = False,
) -> Judged:
    """`is_missed`: whatever the ratios are."""
    value = median(ratios) if ratios else None
    is_met: bool | None = None
    if is_missed:
        is_met = False
    elif value is not None and len(ratios) >= ROUND_COUNT_MIN:
        is_met = value >= bound if is_floor else value <= bound
    lowest, highest = (min(ratios), max(ratios)) if ratios else (None, None)
    return Judged(text, variant, bound, is_floor, value, lowest, highest, len(ratios), is_met, note)
