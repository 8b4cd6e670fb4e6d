"""Campaigns: many seeds, judged, counted and summed up, in one process or several."""

import gc
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sim.agenda import SECOND
from sim.evil import make_evil
from sim.faults import FaultKind
from sim.model import Model
from sim.shrink import Failure, Shrunk, failure_of, shrink
from sim.world import World

CHUNK_SIZE: Final = 4
"""Seeds that a worker takes at once."""
_COLLECT_EVERY: Final = 10
"""Runs between two looks for cycles: a run is one big cycle, and nothing in it is worth looking for earlier."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed came to."""

    seed: int
    digest: str
    simulated_us: int
    sent_count: int
    counts: Counter[str]
    failure: str = ""
    """How it failed; empty if all held."""


@dataclass(slots=True)
class Totals:
    """What all seeds of a campaign came to."""

    seed_count: int = 0
    simulated_us: int = 0
    sent_count: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Report] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """One seed more."""
        self.seed_count += 1
        self.simulated_us += report.simulated_us
        self.sent_count += report.sent_count
        self.counts.update(report.counts)
        if report.failure:
            self.failures.append(report)

    def lines(self, elapsed_s: float) -> Iterator[str]:
        """The summary, for people."""
        counts = self.counts
        hours = self.simulated_us / SECOND / 3600
        rate = self.seed_count / elapsed_s if elapsed_s else 0.0
        yield f"{self.seed_count:,} seeds, {hours:,.1f} simulated hours, {rate:.1f} seeds a second"
        yield f"payments: {counts['payments authorised']:,} authorised"
        yield f"  {counts['payments posted']:,} posted, {counts['payments declined']:,} declined by the bank"
        yield f"  {counts['payments fenced']:,} fenced, {counts['payments never sent']:,} never sent"
        yield f"  {counts['doubts']:,} in doubt at first, {counts['doubts ended']:,} of these with a definite answer"
        yield f"  {counts['retries']:,} times gone on with instead of asked for"
        yield f"sends: {self.sent_count:,}; server restarts: {counts['restarts']:,}"
        yield f"faults: {sum(counts[kind.value] for kind in FaultKind):,}"
        for kind in FaultKind:
            yield f"  {counts[kind.value]:>9,} {kind.value}"
        for name in ("kept", "lost", "torn"):
            yield f"  {counts[f'writes {name}']:>9,} writes {name} at power cuts"
        yield f"violations: {len(self.failures)}"


def new_world(seed: int, disabled: frozenset[int] = frozenset()) -> World:
    """The world of a seed with its judge and its liars."""
    return World(seed, Model(), disabled=disabled, make_evil=make_evil)


def run_seed(seed: int, disabled: frozenset[int] = frozenset()) -> Report:
    """One seed, judged."""
    with _collecting_seldom(seed):
        world = new_world(seed, disabled)
        failure = failure_of(world)
        return Report(
            seed, world.digest(), world.agenda.now_us, len(world.sent), world.counts, str(failure) if failure else ""
        )


def run_seeds(seeds: Iterable[int], jobs: int, on_report: Callable[[Report], bool]) -> None:
    """All of them, by so many processes; `on_report` says whether to go on. KeyboardInterrupt ends it too."""
    if jobs == 1:
        for seed in seeds:
            if not on_report(run_seed(seed)):
                return
        return
    with multiprocessing.Pool(jobs, initializer=_leave_interrupts_to_parent) as pool:
        for report in pool.imap_unordered(run_seed, seeds, chunksize=CHUNK_SIZE):
            if not on_report(report):
                return


def make_small(seed: int) -> Shrunk:
    """A seed that fails, with as few faults as it needs. Raises LookupError if it does not fail."""

    def attempt(disabled: frozenset[int]) -> Failure | None:
        return failure_of(new_world(seed, disabled))

    failure = attempt(frozenset())
    if failure is None:
        raise LookupError(f"seed {seed} does not fail")
    return shrink(seed, failure, attempt)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _collecting_seldom(seed: int) -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        if seed % _COLLECT_EVERY == 0:
            gc.collect()
