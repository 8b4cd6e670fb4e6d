"""What a run measured: samples of paygate and its peers, limits, memory, stages, growth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from paygate.bench.codec_race import CodecTimes
from paygate.bench.stages import StageProfile

PAYGATE: Final = "paygate"
"""Our own subject; its suite stands in the sample."""
SEARCH_ROUND: Final = 0
"""The number of samples that only search for the best client count, warm up, or are one point of a curve."""
KEPT_UP_SHARE: Final = 0.95
"""What an open loop is paid at least of what it is offered, or the servers fell behind."""


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
    histogram: str = ""
    """All latencies in the HDR log format, where the subject keeps them."""

    @property
    def fell_behind(self) -> bool:
        """Whether an open loop was paid so much more slowly than it was begun that its latencies say nothing.

        They only grow with the length of the round then, all of them alike.
        """
        return self.offered_rate is not None and self.rate < KEPT_UP_SHARE * self.offered_rate


@dataclass(frozen=True, slots=True)
class Growth:
    """How something grows: `x` is the size, `y` what it costs."""

    name: str
    x_label: str
    y_label: str
    points: list[tuple[float, float]]
    trend: str = ""
    """Flat, logarithmic or worse, by the rule of `trend.py`; empty where none is judged."""


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
    """Peers that could not be measured: why, and what to do about it."""
    titles: dict[str, str] = field(default_factory=dict)
    """What each peer does, and what it does not."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of each peer's program or package."""
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    """What each peer says that it is set to, where that decides what it does for a payment."""
    memory_bytes: dict[str, list[float]] = field(default_factory=dict)
    """Memory per idle connection, by server; one value a round, each on servers of their own."""
    stages: dict[str, StageProfile] = field(default_factory=dict)
    growth: list[Growth] = field(default_factory=list)
    codec: list[CodecTimes] = field(default_factory=list)
    error: str = ""
    """Why the run ended before its end; empty if it did not."""


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


def measured(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of numbered rounds; those of the search and the warming up only where nothing else was measured."""
    return [s for s in samples if s.round_number > SEARCH_ROUND] or list(samples)


def median_rate(samples: Sequence[Sample]) -> float:
    """The median of their rates."""
    return median(s.rate for s in samples)


def fastest_client_counts(samples: Sequence[Sample], subject: str) -> list[int]:
    """The two client counts with which a subject was fastest, the best first; of the search alone where there was one.

    Two, since the search has one measurement of each: by chance it may put the second before the best.
    """
    found = of(samples, subject)
    return _by_rate([s for s in found if s.round_number == SEARCH_ROUND] or found)[:2]


def best_client_count(samples: Sequence[Sample], subject: str) -> int | None:
    """The client count of the search's fastest two with the better median in the rounds; None without a sample."""
    fastest = fastest_client_counts(samples, subject)
    rounds = [s for s in of(samples, subject) if s.round_number > SEARCH_ROUND and s.client_count in fastest]
    return next(iter(_by_rate(rounds) or fastest), None)


def _by_rate(samples: Sequence[Sample]) -> list[int]:
    """Client counts, the one with the highest median rate first."""
    rates: dict[int, list[float]] = {}
    for sample in samples:
        rates.setdefault(sample.client_count, []).append(sample.rate)
    return sorted(rates, key=lambda client_count: median(rates[client_count]), reverse=True)
