"""Exclusive times of named functions in one process: every moment belongs to exactly one of them.

Strategy. The stopwatch knows whose time it is. A timed function takes the time over when it is entered and gives it
back to its caller when it ends, so what it calls is its own time only where that isn't timed itself. What no timed
function takes is the rest's. So all the times together are the wall time of the run, and nothing is counted twice.

Functions that give the processor away, since they wait or wake another process, have their processor time measured
too; for all others that would cost more than they do.

What the timing itself costs is taken off, both where it falls: in the function and at its caller's. It is measured by
functions that do nothing, again and again during the run, since a processor whose sibling is busy takes nearly twice as
long for the same work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from statistics import median
from typing import Any, Final

_CALIBRATION_CALL_COUNT: Final = 8
"""So few, since a server's calls find less in the caches than the last of many do. Held against servers without
stopwatches: with twenty, a tenth too much was left in a gateway's stages, with five 6 % too little."""

Clock = Callable[[], int]
"""Gives nanoseconds."""
Function = Callable[..., Any]


class Spent:
    """What one function has taken so far, the cost of timing included.

    `ns` is wall time, `cpu_ns` the processor time of one that yields. `inner` and `inner_yielding` count the timed and
    the yielding functions that it called.
    """

    __slots__ = ("calls", "cpu_ns", "inner", "inner_yielding", "ns", "yields")

    def __init__(self, *, yields: bool = False) -> None:
        self.yields = yields
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self.ns = self.cpu_ns = self.calls = self.inner = self.inner_yielding = 0


@dataclass(frozen=True, slots=True)
class TimerCost:
    """What timing costs a call, in nanoseconds: counted as the function's, and as its caller's."""

    inside_ns: int = 0
    outside_ns: int = 0
    inside_cpu_ns: int = 0
    """Of the processor time that a yielding function is said to take."""


class Stopwatch:
    """Whose time it is. For one thread."""

    def __init__(self, clock: Clock = time.perf_counter_ns, cpu_clock: Clock = time.thread_time_ns) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self.rest = Spent()
        """What runs outside of every timed function."""
        self.spent: dict[str, Spent] = {}
        """By the names given to `timed` and `yielding`."""
        self.cost = TimerCost()
        self.yielding_cost = TimerCost()
        self.wall_ns = 0
        """From the beginning of the run to its end, calibration left out."""
        self.cpu_ns = 0
        self._current = self.rest
        self._since_ns = self._began_ns = self._began_cpu_ns = 0
        self._calibrating_ns = self._calibrating_cpu_ns = 0
        self._calibration: _Calibration | None = None

    # -- functions ---------------------------------------------------------------------------------------

    def timed(self, name: str, function: Function) -> Function:
        """The function, with its time taken under this name."""
        spent = self.spent[name] = Spent()
        clock, watch = self._clock, self

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            caller = watch._current
            now_ns = clock()
            caller.ns += now_ns - watch._since_ns
            caller.inner += 1
            spent.calls += 1
            watch._current = spent
            watch._since_ns = now_ns
            try:
                return function(*args, **kwargs)
            finally:
                now_ns = clock()
                spent.ns += now_ns - watch._since_ns
                watch._current = caller
                watch._since_ns = now_ns

        return call

    def yielding(self, name: str, function: Function) -> Function:
        """As `timed`, for a function that may give the processor away: its processor time is measured besides.

        It must call no timed function, whose processor time would be its own as well.
        """
        spent = self.spent[name] = Spent(yields=True)
        clock, cpu_clock, watch = self._clock, self._cpu_clock, self

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            caller = watch._current
            now_ns = clock()
            caller.ns += now_ns - watch._since_ns
            caller.inner_yielding += 1
            spent.calls += 1
            watch._current = spent
            watch._since_ns = now_ns
            # Within the function's wall time, since asking the system is another occasion to lose the processor.
            began_cpu_ns = cpu_clock()
            try:
                return function(*args, **kwargs)
            finally:
                spent.cpu_ns += cpu_clock() - began_cpu_ns
                now_ns = clock()
                spent.ns += now_ns - watch._since_ns
                watch._current = caller
                watch._since_ns = now_ns

        return call

    # -- the run -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The run begins now; what was counted before is forgotten. May be called from within a timed function."""
        self.rest.clear()
        for spent in self.spent.values():
            spent.clear()
        self._calibrating_ns = self._calibrating_cpu_ns = 0
        self._began_cpu_ns = self._cpu_clock()
        self._began_ns = self._since_ns = self._clock()

    def calibrate(self) -> None:
        """Measure now what timing costs: for some ten microseconds, which are in nobody's time."""
        if self._calibration is None:
            self._calibration = _Calibration(self._clock, self._cpu_clock)
        began_cpu_ns, began_ns = self._cpu_clock(), self._clock()
        self._current.ns += began_ns - self._since_ns
        self._calibration.measure()
        self._since_ns = self._clock()
        self._calibrating_ns += self._since_ns - began_ns
        self._calibrating_cpu_ns += self._cpu_clock() - began_cpu_ns

    def end(self) -> None:
        """The run ends now."""
        now_ns = self._clock()
        self._current.ns += now_ns - self._since_ns
        self._since_ns = now_ns
        self.wall_ns = now_ns - self._began_ns - self._calibrating_ns
        self.cpu_ns = self._cpu_clock() - self._began_cpu_ns - self._calibrating_cpu_ns
        if self._calibration is not None:
            self.cost, self.yielding_cost = self._calibration.costs()

    # -- what came of it ---------------------------------------------------------------------------------

    def net_ns(self, spent: Spent) -> int:
        """Wall time without the timing's."""
        own_cost = self.yielding_cost if spent.yields else self.cost
        inside_ns = spent.calls * own_cost.inside_ns
        outside_ns = spent.inner * self.cost.outside_ns + spent.inner_yielding * self.yielding_cost.outside_ns
        return spent.ns - inside_ns - outside_ns

    def net_cpu_ns(self, spent: Spent) -> int:
        """Processor time of a function that yields, without the timing's."""
        return spent.cpu_ns - spent.calls * self.yielding_cost.inside_cpu_ns

    @property
    def timer_ns(self) -> int:
        """What the timing cost in this run: what was taken off."""
        return sum(spent.ns - self.net_ns(spent) for spent in (self.rest, *self.spent.values()))


class _Calibration:
    """Rounds of calls of a function that does nothing: as it is, timed, and yielding."""

    def __init__(self, clock: Clock, cpu_clock: Clock) -> None:
        self._clock = clock
        self._timed, self._yielding = Stopwatch(clock, cpu_clock), Stopwatch(clock, cpu_clock)
        self._call_timed = self._timed.timed("nothing", _nothing)
        self._call_yielding = self._yielding.yielding("nothing", _nothing)
        self._loops_ns: list[int] = []
        self._calls_ns: list[int] = []
        self._timed_rounds: list[tuple[int, int, int]] = []  # inside, outside, inside on the processor
        self._yielding_rounds: list[tuple[int, int, int]] = []

    def measure(self) -> None:
        """One round."""
        self._loops_ns.append(_loop_ns(self._clock))
        self._calls_ns.append(_calls_ns(_nothing, self._clock))
        self._timed_rounds.append(self._round(self._timed, self._call_timed))
        self._yielding_rounds.append(self._round(self._yielding, self._call_yielding))

    def costs(self) -> tuple[TimerCost, TimerCost]:
        """What a timed and a yielding call cost."""
        return self._cost_of(self._timed_rounds), self._cost_of(self._yielding_rounds)

    def _round(self, watch: Stopwatch, function: Function) -> tuple[int, int, int]:
        watch.begin()
        _calls_ns(function, self._clock)
        watch.end()
        spent = watch.spent["nothing"]
        return spent.ns, watch.rest.ns, spent.cpu_ns

    def _cost_of(self, rounds: list[tuple[int, int, int]]) -> TimerCost:
        # Medians, since a round may have been interrupted.
        loop_ns = median(self._loops_ns)
        call_ns = median(self._calls_ns) - loop_ns
        inside_ns, outside_ns, cpu_ns = (median(column) for column in zip(*rounds, strict=True))
        costs_ns = (inside_ns - call_ns, outside_ns - loop_ns, cpu_ns - call_ns)
        return TimerCost(*(max(0, round(ns / _CALIBRATION_CALL_COUNT)) for ns in costs_ns))


def _nothing(_self: object, _argument: object) -> None:
    """As cheap as a method can be."""


def _loop_ns(clock: Clock) -> int:
    began_ns = clock()
    for _ in range(_CALIBRATION_CALL_COUNT):
        pass
    return clock() - began_ns


def _calls_ns(function: Function, clock: Clock) -> int:
    began_ns = clock()
    for _ in range(_CALIBRATION_CALL_COUNT):
        function(None, None)
    return clock() - began_ns
