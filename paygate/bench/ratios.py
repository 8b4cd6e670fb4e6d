"""Paygate's rates as parts or multiples of what the machine can do at most, and of what each peer does on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from paygate.bench.goals import pairs_of
from paygate.bench.orders import suite_name
from paygate.bench.results import PAYGATE, SEARCH_ROUND, Results, Sample, best_client_count, of
from paygate.codec.codes import KemId


@dataclass(frozen=True, slots=True)
class Ratio:
    """Paygate's payments a second against something else that is done a second."""

    variant: str
    client_count: int
    """Paygate's connections."""
    against: str
    """A limit of the machine, or a peer at its best client count."""
    value: float
    """The median of the rounds' ratios."""
    lowest: float
    highest: float
    round_count: int


def ratios_of(results: Results) -> list[Ratio]:
    """Every way in which paygate was measured in numbered rounds, against every limit and every peer.

    A limit was measured once in the run; a peer in the same rounds.
    """
    kinds = dict.fromkeys((s.variant, s.client_count) for s in of(results.samples, PAYGATE))
    return [ratio for variant, count in kinds for ratio in _of_kind(results, variant, count)]


def _of_kind(results: Results, variant: str, client_count: int) -> Iterator[Ratio]:
    ours = [s for s in of(results.samples, PAYGATE, client_count, variant) if s.round_number > SEARCH_ROUND]
    against: dict[str, list[float]] = {}
    for name, rate in results.limits.items():
        if not _is_of_another_suite(name, variant):
            against[name] = [s.rate / rate for s in ours]
    for peer in dict.fromkeys(s.subject for s in results.samples if s.subject != PAYGATE):
        best = best_client_count(results.samples, peer)
        pairs: list[tuple[Sample, Sample]] = pairs_of(ours, of(results.samples, peer, best))
        against[f"{peer}, {best} clients"] = [a.rate / b.rate for a, b in pairs]
    for name, ratios in against.items():
        if ratios:
            yield Ratio(variant, client_count, name, median(ratios), min(ratios), max(ratios), len(ratios))


def _is_of_another_suite(limit: str, variant: str) -> bool:
    """A limit that names a suite (`open HPKE envelopes, hybrid, one process`) limits payments with this one alone."""
    return any(f", {suite_name(suite)}," in limit and not variant.startswith(suite_name(suite)) for suite in KemId)
