"""What a run measured, and what follows from it: medians, ratios, goals."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from paygate.bench.stages import StageProfile

PAYGATE: Final = "paygate"
"""Our own subject; its suite stands in the sample."""


SEARCH_ROUND: Final = 0
"""The number of samples that only search for the best client count, warm up, or are one point of a curve."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one thing."""

    subject: str
    """`paygate`, or the name of a peer."""
    variant: str
    """For paygate the HPKE suite and who seals; empty for a peer."""
    client_count: int
    round_number: int
    """Samples of one round were taken within the same minute or so; ratios are formed within a round."""
    rate: float
    """Payments (or the peer's transactions) a second."""
    latency_us: dict[str, float] = field(default_factory=dict)
    """By percentile, where the subject can tell."""
    offered_rate: float | None = None
    """With an open loop: how many a second were begun."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How something grows: `x` is the size, `y` what it costs."""

    name: str
    x_label: str
    y_label: str
    points: list[tuple[float, float]]


@dataclass(slots=True)
class Results:
    """All of a run."""

    machine: dict[str, str]
    options: dict[str, Any]
    is_comparison: bool = False
    """Whether the goals are judged."""
    samples: list[Sample] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    """What the machine can do at most, by name, per second."""
    missing: dict[str, str] = field(default_factory=dict)
    """Peers that are not here, and how to get them."""
    titles: dict[str, str] = field(default_factory=dict)
    """What each peer does, and what it does not."""
    memory_bytes: dict[str, float] = field(default_factory=dict)
    """Memory per idle connection, by server."""
    stages: dict[str, StageProfile] = field(default_factory=dict)
    growth: list[Growth] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain data, ratios and goals included."""
        stages = {name: profile.to_json() for name, profile in self.stages.items()}
        return {**asdict(self), "stages": stages, "goals": [asdict(judged) for judged in judge(self)]}


def of(
    samples: Iterable[Sample], subject: str, client_count: int | None = None, variant: str | None = None
) -> list[Sample]:
    """The closed-loop samples of a subject, in the order of their rounds."""
    return [
        s
        for s in samples
        if s.subject == subject
        and s.offered_rate is None
        and (client_count is None or s.client_count == client_count)
        and (variant is None or s.variant == variant)
    ]


def median_rate(samples: Sequence[Sample]) -> float:
    """The median of their rates."""
    return median(s.rate for s in samples)


def best_client_count(samples: Sequence[Sample], subject: str) -> int | None:
    """The client count with which a subject was fastest in the search; None without a sample.

    Of the search alone where there was one, so that the rounds after it all measure the same.
    """
    found = of(samples, subject)
    found = [s for s in found if s.round_number == SEARCH_ROUND] or found
    counts = {s.client_count for s in found}
    return max(counts, key=lambda count: median_rate(of(found, subject, count)), default=None)


# -- goals -----------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal beside what was measured."""

    text: str
    variant: str
    value: float | None
    """The median; None if it was not measured."""
    lowest: float | None
    highest: float | None
    bound: float
    is_floor: bool
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """None if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.is_floor else self.value <= self.bound


def judge(results: Results) -> list[Judged]:
    """Every goal, for each variant of paygate that was measured; none of what was no comparison."""
    judged: list[Judged] = []
    if not results.is_comparison:
        return judged
    for variant in sorted({s.variant for s in of(results.samples, PAYGATE)}):
        judged += [_judge(results, goal, variant) for goal in GOALS]
        tails = [
            s.latency_us["p99"] / s.latency_us["p50"]
            for s in results.samples
            if s.subject == PAYGATE
            and s.variant == variant
            and s.offered_rate is not None
            and s.round_number > SEARCH_ROUND
        ]
        if tails:
            judged.append(_of_ratios(TAIL_TEXT, variant, tails, TAIL_MAX, is_floor=False))
    for server, size in results.memory_bytes.items():
        judged.append(_of_ratios(MEMORY_TEXT.format(server), "bytes", [size], MEMORY_BYTES_MAX, is_floor=False))
    return judged


def _judge(results: Results, goal: Goal, variant: str) -> Judged:
    if goal.peer in results.missing:
        return Judged(goal.text, variant, None, None, None, goal.bound, goal.is_floor, results.missing[goal.peer])
    best = best_client_count(results.samples, goal.peer)
    ours = of(results.samples, PAYGATE, goal.client_count, variant)
    theirs = of(results.samples, goal.peer, goal.peer_client_count or best)
    by_round = {s.round_number: s for s in theirs if s.round_number > SEARCH_ROUND}
    pairs = [(s, by_round[s.round_number]) for s in ours if s.round_number in by_round]
    if not pairs:
        return Judged(goal.text, variant, None, None, None, goal.bound, goal.is_floor, "not measured in this run")
    if goal.percentile:
        ratios = [a.latency_us[goal.percentile] / b.latency_us[goal.percentile] for a, b in pairs]
    else:
        ratios = [a.rate / b.rate for a, b in pairs]
    note = "" if goal.peer_client_count else f"peer at {best} clients"
    return _of_ratios(goal.text, variant, ratios, goal.bound, is_floor=goal.is_floor, note=note)


def _of_ratios(
    text: str, variant: str, ratios: Sequence[float], bound: float, *, is_floor: bool, note: str = ""
) -> Judged:
    return Judged(text, variant, median(ratios), min(ratios), max(ratios), bound, is_floor, note)
