"""Exclusive times of named functions in one process: every moment belongs to exactly one of them.

Strategy. The stopwatch knows whose time it is. A timed function takes the time over when it is entered and gives it
back to its caller when it ends, so what it calls is its own time only where that isn't timed itself. What no timed
function takes is the rest's. So all the times together are the wall time of the run, and nothing is counted twice.

Functions that give the processor away, since they wait or wake another process, have their processor time measured
too; for all others that would cost more than they do. What the timing itself costs is measured at the start, by a
function that does nothing, and taken off each call, inside the function and at its caller's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

_CALIBRATION_CALL_COUNT: Final = 1_000
_CALIBRATION_ROUND_COUNT: Final = 30

Clock = Callable[[], int]
"""Gives nanoseconds."""
Function = Callable[..., Any]


class Spent:
    """What one function has taken so far. `ns` is wall time, `cpu_ns` processor time of one that yields."""

    __slots__ = ("calls", "cpu_ns", "ns", "yields")

    def __init__(self, *, yields: bool = False) -> None:
        self.yields = yields
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self.ns = self.cpu_ns = self.calls = 0


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
        """From the beginning of the run to its end."""
        self.cpu_ns = 0
        self._current = self.rest
        self._since_ns = self._began_ns = self._began_cpu_ns = 0

    # -- functions ---------------------------------------------------------------------------------------

    def timed(self, name: str, function: Function) -> Function:
        """The function, with its time taken under this name."""
        spent = self.spent[name] = Spent()
        clock, cost, watch = self._clock, self.cost, self

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            caller = watch._current
            now_ns = clock()
            caller.ns += now_ns - watch._since_ns - cost.outside_ns
            spent.calls += 1
            watch._current = spent
            watch._since_ns = now_ns
            try:
                return function(*args, **kwargs)
            finally:
                now_ns = clock()
                spent.ns += now_ns - watch._since_ns - cost.inside_ns
                watch._current = caller
                watch._since_ns = now_ns

        return call

    def yielding(self, name: str, function: Function) -> Function:
        """As `timed`, for a function that may give the processor away: its processor time is measured besides."""
        spent = self.spent[name] = Spent(yields=True)
        clock, cpu_clock, cost, watch = self._clock, self._cpu_clock, self.yielding_cost, self

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            caller = watch._current
            began_cpu_ns = cpu_clock()
            now_ns = clock()
            caller.ns += now_ns - watch._since_ns - cost.outside_ns
            spent.calls += 1
            watch._current = spent
            watch._since_ns = now_ns
            try:
                return function(*args, **kwargs)
            finally:
                now_ns = clock()
                spent.ns += now_ns - watch._since_ns - cost.inside_ns
                spent.cpu_ns += cpu_clock() - began_cpu_ns - cost.inside_cpu_ns
                watch._current = caller
                watch._since_ns = now_ns

        return call

    # -- the run -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The run begins now; what was counted before is forgotten. May be called from within a timed function."""
        self.rest.clear()
        for spent in self.spent.values():
            spent.clear()
        self._began_cpu_ns = self._cpu_clock()
        self._began_ns = self._since_ns = self._clock()

    def end(self) -> None:
        """The run ends now."""
        now_ns = self._clock()
        self._current.ns += now_ns - self._since_ns
        self._since_ns = now_ns
        self.wall_ns = now_ns - self._began_ns
        self.cpu_ns = self._cpu_clock() - self._began_cpu_ns

    @property
    def timer_ns(self) -> int:
        """What the timing cost in this run, by the calls and what one costs."""
        yielding = sum(spent.calls for spent in self.spent.values() if spent.yields)
        others = sum(spent.calls for spent in self.spent.values() if not spent.yields)
        yielding_ns = self.yielding_cost.inside_ns + self.yielding_cost.outside_ns
        return others * (self.cost.inside_ns + self.cost.outside_ns) + yielding * yielding_ns


def calibrated(clock: Clock = time.perf_counter_ns, cpu_clock: Clock = time.thread_time_ns) -> Stopwatch:
    """A stopwatch that knows what it costs a call on this machine now: the least of some rounds."""
    watch = Stopwatch(clock, cpu_clock)
    watch.cost = _cost_of(Stopwatch.timed, clock, cpu_clock)
    watch.yielding_cost = _cost_of(Stopwatch.yielding, clock, cpu_clock)
    return watch


def _cost_of(decorate: Callable[[Stopwatch, str, Function], Function], clock: Clock, cpu_clock: Clock) -> TimerCost:
    def nothing(_self: object, _argument: object) -> None:
        """As cheap as a method can be."""

    watch = Stopwatch(clock, cpu_clock)
    timed = decorate(watch, "nothing", nothing)
    spent = watch.spent["nothing"]
    rounds = []
    for _ in range(_CALIBRATION_ROUND_COUNT):
        loop_ns = _loop_ns(clock)
        direct_ns = _calls_ns(nothing, clock)
        watch.begin()
        _calls_ns(timed, clock)
        watch.end()
        rounds.append((loop_ns, direct_ns, spent.ns, watch.rest.ns, spent.cpu_ns))
    # Each least by itself, since a disturbance of one would otherwise make another's difference small.
    loop_ns, direct_ns, inside_ns, outside_ns, inside_cpu_ns = (min(column) for column in zip(*rounds, strict=True))
    call_ns = direct_ns - loop_ns
    costs_ns = (inside_ns - call_ns, outside_ns - loop_ns, inside_cpu_ns - call_ns)
    return TimerCost(*(max(0, cost_ns // _CALIBRATION_CALL_COUNT) for cost_ns in costs_ns))


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
