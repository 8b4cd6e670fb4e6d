"""The loop: timers on a clock of the test's own, and readiness on real descriptors."""

import os
import random
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from paygate.net.loop import EVENT_READ, EVENT_WRITE, Loop


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(3)]
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_timers_fire_in_order_of_time_and_then_of_making(loop: Loop, clock: Clock) -> None:
    fired: list[str] = []
    loop.call_at(1_020, partial(fired.append, "later"))
    loop.call_at(1_010, partial(fired.append, "first"))
    loop.call_at(1_010, partial(fired.append, "second"))
    loop.run_once(0)
    assert fired == []
    clock.now_ms = 1_010
    loop.run_once(0)
    assert fired == ["first", "second"]
    clock.now_ms = 5_000
    loop.run_once(0)
    assert fired == ["first", "second", "later"]
    assert loop.now_ms() == 5_000


def test_now_stands_still_within_a_tick(loop: Loop, clock: Clock) -> None:
    clock.now_ms = 2_000
    assert loop.now_ms() == 1_000
    loop.run_once(0)
    assert loop.now_ms() == 2_000


def test_call_later_counts_from_the_clock_and_not_from_the_last_tick(loop: Loop, clock: Clock) -> None:
    clock.now_ms = 9_000
    timer = loop.call_later(100, lambda: None)
    assert timer.when_ms == 9_100


def test_a_cancelled_timer_never_fires_even_within_the_tick_in_which_it_was_due(loop: Loop, clock: Clock) -> None:
    fired: list[str] = []
    second = loop.call_at(1_000, partial(fired.append, "second"))
    second.cancel()
    third = loop.call_at(1_002, partial(fired.append, "third"))
    loop.call_at(1_001, third.cancel)
    clock.now_ms = 1_002
    loop.run_once(0)
    assert fired == []
    assert not third.is_pending
    third.cancel()


def test_a_callback_that_sets_itself_again_does_not_hold_the_tick(loop: Loop) -> None:
    fired: list[str] = []

    def again() -> None:
        fired.append("timer")
        loop.call_at(loop.now_ms(), again)
        loop.call_soon(partial(fired.append, "soon"))

    loop.call_soon(again)
    loop.run_once()
    assert fired == ["timer"]
    loop.run_once()
    assert fired == ["timer", "soon", "timer"]


def test_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    kept = loop.call_at(10_000_000, lambda: None)
    for when_ms in range(100_000):
        loop.call_at(2_000_000 + when_ms, lambda: None).cancel()
    assert len(loop._heap) < 200
    assert kept.is_pending


def test_random_timers_behave_like_a_sorted_list(loop: Loop, clock: Clock) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    fired: list[int] = []
    expected: list[tuple[int, int]] = []
    timers = {}
    for number in range(2_000):
        when_ms = 1_001 + rng.randrange(500)
        timers[number] = (when_ms, loop.call_at(when_ms, partial(fired.append, number)))
    for number in rng.sample(range(2_000), 1_500):
        timers.pop(number)[1].cancel()
    expected = sorted((when_ms, number) for number, (when_ms, _) in timers.items())
    while clock.now_ms < 1_600:
        clock.now_ms += rng.randrange(1, 30)
        loop.run_once(0)
    assert fired == [number for _, number in expected], f"seed {seed}"


def test_an_exception_leaves_the_tick_and_loses_nothing(loop: Loop) -> None:
    fired: list[str] = []

    def fail() -> None:
        raise ValueError("a bug")

    loop.call_soon(fail)
    loop.call_soon(partial(fired.append, "after"))
    with pytest.raises(ValueError, match="a bug"):
        loop.run_once()
    loop.run_once()
    assert fired == ["after"]


def test_all_that_is_ready_is_handled_in_one_tick(loop: Loop, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    heard: list[tuple[int, int]] = []

    def hear(number: int, events: int) -> None:
        heard.append((number, events))

    for number, (ours, theirs) in enumerate(pairs):
        loop.watch(ours.fileno(), EVENT_READ, partial(hear, number))
        theirs.send(b"x")
    loop.run_once()
    assert sorted(heard) == [(0, EVENT_READ), (1, EVENT_READ), (2, EVENT_READ)]


def test_a_callback_may_close_another_descriptor_that_is_ready(
    loop: Loop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    heard: list[int] = []

    def close_all(number: int, _events: int) -> None:
        heard.append(number)
        for ours, _ in pairs:
            loop.unwatch(ours.fileno())
            ours.close()

    for number, (ours, theirs) in enumerate(pairs):
        loop.watch(ours.fileno(), EVENT_READ, partial(close_all, number))
        theirs.send(b"x")
    loop.run_once()
    assert len(heard) == 1


def test_a_descriptor_number_that_is_used_again_within_the_tick_hears_nothing_of_the_old_one(loop: Loop) -> None:
    heard: list[str] = []
    (first, first_peer), (second, second_peer) = socket.socketpair(), socket.socketpair()
    fresh: list[int] = []

    def replace(other: socket.socket, _events: int) -> None:
        heard.append("old")
        number = other.fileno()
        loop.unwatch(number)
        other.close()
        read_fd, write_fd = os.pipe()
        fresh.extend({read_fd, write_fd})
        assert number in fresh
        loop.watch(number, EVENT_READ | EVENT_WRITE, lambda _events: heard.append("new"))

    loop.watch(first.fileno(), EVENT_READ, partial(replace, second))
    loop.watch(second.fileno(), EVENT_READ, partial(replace, first))
    first_peer.send(b"x")
    second_peer.send(b"x")
    loop.run_once()
    assert heard == ["old"]
    for fd in fresh:
        loop.unwatch(fd)
        os.close(fd)
    for sock in (first, second, first_peer, second_peer):
        if sock.fileno() >= 0:
            loop.unwatch(sock.fileno())
        sock.close()


def test_no_events_means_not_now_even_when_the_peer_hangs_up(
    loop: Loop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    heard: list[int] = []
    ours, theirs = pairs[0]
    loop.watch(ours.fileno(), EVENT_READ, heard.append)
    loop.rewatch(ours.fileno(), 0)
    theirs.close()
    loop.run_once(0)
    assert heard == []
    loop.rewatch(ours.fileno(), EVENT_READ)
    loop.run_once()
    assert heard == [EVENT_READ]


def test_events_dropped_within_the_tick_are_not_delivered(
    loop: Loop, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    heard: list[int] = []

    def stop_both(number: int, _events: int) -> None:
        heard.append(number)
        for ours, _ in pairs[:2]:
            loop.rewatch(ours.fileno(), 0)

    for number, (ours, theirs) in enumerate(pairs[:2]):
        loop.watch(ours.fileno(), EVENT_READ, partial(stop_both, number))
        theirs.send(b"x")
    loop.run_once()
    assert len(heard) == 1


def test_flush_gives_each_dirty_output_one_write_in_order(loop: Loop) -> None:
    written: list[str] = []

    class Output:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush_output(self) -> None:
            written.append(self.name)
            if len(written) < 10:
                loop.mark_dirty(self)

    first, second = Output("first"), Output("second")
    for output in (first, second, first):
        loop.mark_dirty(output)
    loop.flush()
    assert written == ["first", "second"]
    loop.flush()
    assert written == ["first", "second"] * 2
