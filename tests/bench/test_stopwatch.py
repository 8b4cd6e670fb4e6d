"""The stopwatch on a clock of the test's own, and its calibration on the real one."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from paygate.bench.stopwatch import Spent, Stopwatch, TimerCost


class World:
    """A wall clock and a processor clock that go only when somebody works or waits."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000
        self.cpu_ns = 5_000
        self.watch = Stopwatch(lambda: self.now_ns, lambda: self.cpu_ns)

    def work(self, ns: int) -> None:
        self.now_ns += ns
        self.cpu_ns += ns

    def wait(self, ns: int) -> None:
        self.now_ns += ns

    def ns(self) -> dict[str, int]:
        return {name: spent.ns for name, spent in self.watch.spent.items()}

    def net_ns(self) -> dict[str, int]:
        return {name: self.watch.net_ns(spent) for name, spent in self.watch.spent.items()}


@pytest.fixture
def world() -> World:
    return World()


def test_what_a_timed_function_calls_is_its_time_unless_that_is_timed_itself(world: World) -> None:
    inner = world.watch.timed("inner", lambda: world.work(7))

    def body() -> None:
        world.work(100)
        inner()
        world.work(20)
        inner()

    outer = world.watch.timed("outer", body)
    world.watch.begin()
    world.work(1)
    outer()
    world.work(2)
    world.watch.end()
    assert world.ns() == {"inner": 14, "outer": 120}
    assert {name: spent.calls for name, spent in world.watch.spent.items()} == {"inner": 2, "outer": 1}
    assert world.watch.rest.ns == 3
    assert world.watch.wall_ns == world.watch.cpu_ns == 137


def test_a_function_that_calls_itself_counts_its_time_once(world: World) -> None:
    def body(depth: int) -> None:
        world.work(10)
        if depth:
            timed(depth - 1)

    timed = world.watch.timed("nested", body)
    world.watch.begin()
    timed(2)
    world.watch.end()
    assert world.ns() == {"nested": 30}
    assert world.watch.spent["nested"].calls == 3
    assert world.watch.rest.ns == 0


def test_values_errors_names_and_methods_pass_through(world: World) -> None:
    class Thing:
        def double(self, number: int, *, times: int = 2) -> int:
            """Say it again."""
            return number * times

        def fail(self) -> None:
            world.work(5)
            raise ValueError("as it was")

    for name in ("double", "fail"):
        setattr(Thing, name, world.watch.timed(name, getattr(Thing, name)))
    world.watch.begin()
    assert Thing().double(4) == 8
    assert Thing().double(4, times=3) == 12
    assert Thing.double.__doc__ == "Say it again."
    with pytest.raises(ValueError, match="as it was"):
        Thing().fail()
    world.work(3)  # the rest's again, after the error
    world.watch.end()
    assert world.ns() == {"double": 0, "fail": 5}
    assert world.watch.rest.ns == 3


def test_a_function_that_yields_has_its_processor_time_told_apart(world: World) -> None:
    def body() -> None:
        world.work(4)
        world.wait(1_000)

    read = world.watch.yielding("read", body)
    world.watch.begin()
    world.work(10)
    read()
    world.watch.end()
    spent = world.watch.spent["read"]
    assert (spent.ns, spent.cpu_ns, spent.calls) == (1_004, 4, 1)
    assert world.watch.rest.ns == 10
    assert (world.watch.wall_ns, world.watch.cpu_ns) == (1_014, 14)


def test_what_timing_costs_is_taken_off_the_function_and_its_caller(world: World) -> None:
    world.watch.cost = TimerCost(inside_ns=3, outside_ns=2)
    world.watch.yielding_cost = TimerCost(inside_ns=30, outside_ns=20, inside_cpu_ns=25)
    plain = world.watch.timed("plain", lambda: world.work(10))
    read = world.watch.yielding("read", lambda: world.work(100))
    world.watch.begin()
    world.work(1_000)
    plain()
    plain()
    read()
    world.watch.end()
    assert world.net_ns() == {"plain": 14, "read": 70}
    assert world.watch.net_cpu_ns(world.watch.spent["read"]) == 75
    assert world.watch.net_ns(world.watch.rest) == 1_000 - 2 * 2 - 20
    assert world.watch.timer_ns == 2 * 5 + 50


def test_a_run_may_begin_again_within_a_timed_function(world: World) -> None:
    # As a signal does that comes while the server waits.
    def body() -> None:
        world.work(400)
        world.watch.begin()
        world.work(6)

    timed = world.watch.timed("timed", body)
    world.watch.begin()
    world.work(50)
    timed()
    world.work(8)
    world.watch.end()
    assert world.ns() == {"timed": 6}
    assert world.watch.rest.ns == 8
    assert world.watch.wall_ns == world.watch.cpu_ns == 14


def test_all_times_together_are_the_runs_wall_time(world: World) -> None:
    names = [f"level {n}" for n in range(5)]
    function: Callable[..., Any] = lambda: world.work(1)  # noqa: E731
    for name in names:

        def body(inner: Callable[..., Any] = function) -> None:
            world.work(11)
            inner()
            world.wait(13)

        function = world.watch.yielding(name, body) if name == "level 2" else world.watch.timed(name, body)
    world.watch.begin()
    for _ in range(3):
        function()
        world.work(17)
    world.watch.end()
    spent = [world.watch.rest, *world.watch.spent.values()]
    assert sum(one.ns for one in spent) == world.watch.wall_ns == 3 * (5 * 24 + 1 + 17)


def test_calibration_is_in_nobodys_time() -> None:
    # Each look at a clock takes a nanosecond of both, so that calibration takes some.
    world = World()

    def tick(clock: Callable[[], int]) -> Callable[[], int]:
        def look() -> int:
            world.work(1)
            return clock()

        return look

    watch = Stopwatch(tick(lambda: world.now_ns), tick(lambda: world.cpu_ns))

    def body() -> None:
        world.work(1_000)
        watch.calibrate()
        world.work(2_000)

    timed = watch.timed("timed", body)
    watch.begin()
    began_ns = world.now_ns
    timed()
    watch.end()
    assert watch.spent["timed"].ns == pytest.approx(3_000, abs=10)
    assert watch.wall_ns == pytest.approx(3_000, abs=20)
    assert watch.cpu_ns == pytest.approx(3_000, abs=20)
    assert world.now_ns - began_ns > 3_040  # sixteen calls of nothing, each between two looks or more
    # In such a world a timed call costs its two looks, one half outside; a yielding one two more, inside.
    assert watch.cost == TimerCost(inside_ns=1, outside_ns=1, inside_cpu_ns=0)
    assert watch.yielding_cost == TimerCost(inside_ns=3, outside_ns=1, inside_cpu_ns=1)


def test_timing_costs_what_was_measured() -> None:
    # On the real clocks. Bounds, since others may use this machine: a call costs more than nothing and less than 50 us.
    watch = Stopwatch()

    def busy() -> None:
        until_ns = time.perf_counter_ns() + 2_000_000
        while time.perf_counter_ns() < until_ns:
            pass

    timed, asleep = watch.timed("busy", busy), watch.yielding("asleep", lambda: time.sleep(0.002))
    watch.begin()
    for _ in range(5):
        watch.calibrate()
        timed()
        asleep()
    watch.end()
    for cost in (watch.cost, watch.yielding_cost):
        assert 0 < cost.inside_ns + cost.outside_ns < 50_000
    assert watch.yielding_cost.inside_ns > watch.cost.inside_ns  # two more clocks are read
    assert watch.net_ns(watch.spent["busy"]) > 9_900_000
    slept: Spent = watch.spent["asleep"]
    assert watch.net_cpu_ns(slept) < watch.net_ns(slept) / 2
    assert watch.net_ns(slept) > 9_900_000
