"""Connecting: answered, refused, silent, given up; and the back-off."""

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from paygate.net import connect as connect_module
from paygate.net.connect import Backoff, connect
from paygate.net.loop import Loop

TickUntil = Callable[[Loop, Callable[[], bool]], None]


class Outcome:
    def __init__(self) -> None:
        self.socks: list[socket.socket] = []
        self.failures: list[str] = []

    @property
    def is_known(self) -> bool:
        return bool(self.socks or self.failures)


@pytest.fixture
def outcome() -> Outcome:
    return Outcome()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(loop: Loop, outcome: Outcome, host: str, port: int, timeout_ms: int = 5_000) -> connect_module.Connecting:
    return connect(
        loop,
        host,
        port,
        timeout_ms=timeout_ms,
        on_connected=outcome.socks.append,
        on_failed=outcome.failures.append,
    )


def test_a_listening_server_is_reached(loop: Loop, outcome: Outcome, tick_until: TickUntil) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        start(loop, outcome, "127.0.0.1", server.getsockname()[1])
        assert not outcome.is_known
        tick_until(loop, lambda: outcome.is_known)
        assert outcome.failures == []
        with outcome.socks[0] as sock, server.accept()[0] as accepted:
            assert sock.getpeername() == server.getsockname()
            assert accepted.getpeername() == sock.getsockname()


def test_a_refusal_is_said_in_words(loop: Loop, outcome: Outcome, tick_until: TickUntil) -> None:
    port = free_port()
    start(loop, outcome, "127.0.0.1", port)
    tick_until(loop, lambda: outcome.is_known)
    assert outcome.failures == [f"cannot connect to 127.0.0.1:{port}: connection refused"]
    assert loop._watches == {}


@contextmanager
def full_server() -> Iterator[tuple[str, int]]:
    """The address of a server whose queue is full: the kernel drops what else comes, as a dead host would."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield server.getsockname()


def test_silence_ends_at_the_timeout(loop: Loop, outcome: Outcome, tick_until: TickUntil) -> None:
    with full_server() as (host, port):
        start(loop, outcome, host, port, timeout_ms=50)
        tick_until(loop, lambda: outcome.is_known)
    assert outcome.failures == [f"cannot connect to 127.0.0.1:{port}: connection timed out"]


def test_each_address_is_tried_and_has_its_share_of_the_time(
    loop: Loop, outcome: Outcome, tick_until: TickUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_server() as silent, socket.create_server(("127.0.0.1", 0)) as server:
        addresses = [("127.0.0.1", free_port()), silent, server.getsockname()]
        resolved = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: resolved)
        # The share of the last one is long enough for a machine that is busy elsewhere.
        start(loop, outcome, "bank.example", 15001, timeout_ms=6_000)
        tick_until(loop, lambda: outcome.is_known)
        assert outcome.failures == []
        with outcome.socks[0] as sock:
            assert sock.getpeername() == server.getsockname()


def test_when_all_addresses_fail_each_is_named(
    loop: Loop, outcome: Outcome, tick_until: TickUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [free_port(), free_port()]
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: resolved)
    start(loop, outcome, "bank.example", 15001)
    tick_until(loop, lambda: outcome.is_known)
    reasons = "; ".join(dict.fromkeys(f"127.0.0.1:{port}: connection refused" for port in ports))
    assert outcome.failures == [f"cannot connect to bank.example:15001: {reasons}"]


def test_an_unknown_name_fails_through_the_loop(
    loop: Loop, outcome: Outcome, tick_until: TickUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    start(loop, outcome, "nowhere.invalid", 15001)
    assert not outcome.is_known
    tick_until(loop, lambda: outcome.is_known)
    assert outcome.failures == ["cannot connect to nowhere.invalid:15001: name or service not known"]


@pytest.mark.parametrize("tick_count", [0, 1])
def test_a_cancelled_attempt_says_nothing_and_leaves_nothing(loop: Loop, outcome: Outcome, tick_count: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connecting = start(loop, outcome, "127.0.0.1", server.getsockname()[1])
        for _ in range(tick_count):
            loop.run_once(0)
        connecting.cancel()
        connecting.cancel()
        for _ in range(3):
            loop.run_once(0)
    assert not outcome.is_known
    assert loop._watches == {}


def test_backoff_doubles_up_to_its_cap_and_starts_again() -> None:
    class Highest(random.Random):
        def randint(self, a: int, b: int) -> int:
            assert a == 0
            return b

    backoff = Backoff(100, 1_500, Highest())
    assert [backoff.next_delay_ms() for _ in range(6)] == [100, 200, 400, 800, 1_500, 1_500]
    backoff.reset()
    assert backoff.next_delay_ms() == 100


def test_backoff_is_spread_over_its_whole_range_and_replays_from_its_seed() -> None:
    first, second = (Backoff(1_000, 1_000, random.Random(7)) for _ in range(2))
    delays = [first.next_delay_ms() for _ in range(500)]
    assert delays == [second.next_delay_ms() for _ in range(500)]
    assert min(delays) < 100
    assert max(delays) > 900
