"""The servers' shell: what happens in which order in a tick, and what when the store or a peer fails."""

import contextlib
import gc
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from paygate.arguments import refuse_remote
from paygate.cli import ExitCode, PaygateExit
from paygate.clock import Now
from paygate.effects import CloseLink, Commit, Continue, Effect, LinkEffect, Send
from paygate.files.sqlite import StoreFsyncFailed, StoreFull
from paygate.net.addresses import Address
from paygate.net.limits import ConnectionLimits
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals
from paygate.shell import Server
from paygate.tick import DRAIN_MS_MAX, FULL_TOLD_EVERY_MS

WAIT_S = 20.0
LINGER_MS = 200


class Echo:
    """A core that commits each line that it gets and then sends it back; `!` closes the link."""

    def __init__(self, trace: list[str]) -> None:
        self.trace = trace
        self.asked: list[tuple[int, bytes]] = []
        self.deadline_ms: int | None = None
        self.is_drained = False
        self.turns_left: dict[int, int] = {}
        self.of_links: list[LinkEffect] = []

    def take_turn(self, link_id: int, more: int) -> list[Effect]:
        """`...` is a request that takes a whole turn."""
        left = self.turns_left[link_id] = self.turns_left.get(link_id, 0) + more - 1
        self.trace.append(f"turn of {link_id}")
        if left:
            self.of_links.append(Continue(link_id))
        else:
            del self.turns_left[link_id]
        return []

    def link_connected(self, link_id: int, address: Address, now: Now) -> list[Effect]:
        self.trace.append(f"connected {link_id}")
        return []

    def link_refused(self, address: Address, reason: str, now: Now) -> list[Effect]:
        self.trace.append(f"refused: {reason}")
        return []

    def receive_data(self, link_id: int, data: bytes, now: Now) -> list[Effect]:
        if data == b"!":
            self.of_links.append(CloseLink(link_id, "had enough"))
            return []
        if b"..." in data or link_id in self.turns_left:
            return self.take_turn(link_id, data.count(b"..."))
        effects: list[Effect] = []
        for word in data.split():
            self.asked.append((link_id, word))
            effects.append(Commit(word))
        return effects

    def receive_eof(self, link_id: int, now: Now) -> list[Effect]:
        self.of_links.append(CloseLink(link_id, "end of stream"))
        return []

    def link_closed(self, link_id: int, reason: str, now: Now) -> list[Effect]:
        self.trace.append(f"closed {link_id}: {reason}")
        return []

    def receive_timer(self, now: Now) -> list[Effect]:
        self.deadline_ms = None
        return ["timer"]

    def next_deadline_ms(self) -> int | None:
        return self.deadline_ms

    def committed(self, outcomes: Sequence[Any], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for outcome in outcomes:
            link_id, _ = self.asked.pop(0)
            if outcome == b"twice":
                self.asked.append((link_id, b"again"))
                effects.append(Commit(b"again"))
            effects.append(f"record {outcome.decode()}")
            self.of_links.append(Send(link_id, outcome + b"\n"))
        return effects

    def commit_failed(self, operations: Sequence[Any], now: Now) -> list[Effect]:
        assert [word for _, word in self.asked[: len(operations)]] == list(operations)
        return self.committed([b"no-room"] * len(operations), now)

    def link_effects(self) -> list[LinkEffect]:
        of_links, self.of_links = self.of_links, []
        return of_links

    def drain(self, now: Now) -> list[Effect]:
        self.trace.append("draining")
        return []


class Disk:
    """A store of words. On a full disk only those that begin with `read` go through."""

    def __init__(self, trace: list[str]) -> None:
        self.trace = trace
        self.is_full = False
        self.fsync_fails = False

    def apply(self, operations: Sequence[Any], now: Now) -> list[Any]:
        if self.fsync_fails:
            raise StoreFsyncFailed("the disk failed")
        if self.is_full and not all(word.startswith(b"read") for word in operations):
            raise StoreFull("no room on the disk")
        self.trace.append(f"commit {b' '.join(operations).decode()}")
        return list(operations)


class House:
    """A server on a free port, its clock, and what happened in it, in order."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.core = Echo(self.trace)
        self.store = Disk(self.trace)
        self.loop = Loop()
        self.now_ms = 1_000
        self.now_ms_step = 0
        self.tick_count = 0
        self.server = Server("test", self.loop, self.core, self.store, self._perform, clock=self._clock)
        self.address = self.server.listen("127.0.0.1", 0, ConnectionLimits(linger_ms=LINGER_MS))
        self.sockets: list[socket.socket] = []

    def _clock(self) -> Now:
        self.now_ms += self.now_ms_step
        return Now(self.now_ms, 0)

    def _perform(self, effects: list[Effect]) -> None:
        self.trace.extend(map(str, effects))

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=WAIT_S)
        self.sockets.append(sock)
        self.tick_until(lambda: f"connected {len(self.sockets)}" in self.trace)
        return sock

    def tick(self, timeout_ms: int = 20) -> None:
        wait_ms = self.server._wait_ms()
        self.loop.run_once(timeout_ms if wait_ms is None else min(wait_ms, timeout_ms))
        self.server._handle()
        self.loop.flush()

    def tick_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, self.trace
            self.tick()

    def ask(self, sock: socket.socket, words: bytes, answers: int) -> bytes:
        """Send words and tick until so many answers came."""
        sock.sendall(words)
        sock.setblocking(False)
        got = b""
        deadline = time.monotonic() + WAIT_S
        while got.count(b"\n") < answers:
            assert time.monotonic() < deadline, self.trace
            self.tick()
            with contextlib.suppress(BlockingIOError):
                got += sock.recv(4096)
        return got

    def run(self) -> None:
        """As a program does, counting ticks."""

        class Signals:
            @contextlib.contextmanager
            def blocked(inner) -> Iterator[None]:  # `self` is the house
                self.tick_count += 1
                yield

        self.server.run(cast(ServerSignals, Signals()))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        if self.server._listener is not None:
            self.server._listener.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.close()


# -- turns (R21) -----------------------------------------------------------------------------------------


def test_who_asks_one_thing_never_waits_behind_who_asks_a_thousand(house: House) -> None:
    greedy, modest = house.connect(), house.connect()
    greedy.sendall(b"..." * 1_000)
    house.tick_until(lambda: "turn of 1" in house.trace)
    answered_after = len(house.trace)
    assert house.ask(modest, b"hello", 1)
    # At the most a turn of the other in the tick before it was read, in its own, and in the one that sent the answer.
    assert house.trace[answered_after:].count("turn of 1") <= 3
    house.tick_until(lambda: house.trace.count("turn of 1") == 1_000)


def test_a_link_that_waits_for_its_turn_is_not_read(house: House) -> None:
    greedy = house.connect()
    house.now_ms_step = 1_000  # each look at the clock uses the tick up, so a link has one turn a tick
    greedy.sendall(b"..." * 3)
    house.tick_until(lambda: "turn of 1" in house.trace)
    (conn,) = house.server._link_ids
    assert conn._paused
    greedy.sendall(b"later")
    house.tick_until(lambda: house.trace.count("turn of 1") == 3)
    assert house.ask(greedy, b"", 1)  # what came meanwhile was neither read too early nor lost
    assert not conn._paused


# -- the tick --------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-PAY-3", "PG-PAY-9", "PG-TRF-2")
def test_all_of_a_tick_is_one_commit_then_the_records_then_the_sends(house: House) -> None:
    first, second = house.connect(), house.connect()
    first.sendall(b"a b")
    second.sendall(b"c")
    # Both are there when the loop looks.
    for sock in (first, second):
        sock.setblocking(False)
    deadline = time.monotonic() + WAIT_S
    while len(house.server._inbox) < 2:
        assert time.monotonic() < deadline
        house.loop.run_once(20)
    del house.trace[:]
    house.server._handle()
    assert house.trace == ["commit a b c", "record a", "record b", "record c"]
    with pytest.raises(BlockingIOError):
        first.recv(10)  # nothing leaves before the flush
    house.loop.flush()
    assert house.ask(first, b"", 2) == b"a\nb\n"


def test_a_commit_may_lead_to_another_in_the_same_tick(house: House) -> None:
    assert house.ask(house.connect(), b"twice", 2) == b"twice\nagain\n"
    assert house.trace[1:] == ["commit twice", "commit again", "record twice", "record again"]


def test_a_timer_is_called_at_its_time_and_not_before(house: House) -> None:
    house.core.deadline_ms = 2_000
    house.tick(0)
    assert house.trace == []
    house.now_ms = 2_000
    house.tick(0)
    assert house.trace == ["timer"]


# -- the store -------------------------------------------------------------------------------------------


def test_on_a_full_disk_each_operation_is_tried_alone(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    sock = house.connect()
    house.store.is_full = True
    assert house.ask(sock, b"write read1 write read2", 4) == b"no-room\nread1\nno-room\nread2\n"
    assert house.ask(sock, b"write", 1) == b"no-room\n"
    err = capfd.readouterr().err
    assert err.count("no room on the disk; until then new payments are refused") == 1
    house.now_ms += FULL_TOLD_EVERY_MS
    house.ask(sock, b"write", 1)
    assert "no room" in capfd.readouterr().err
    house.store.is_full = False
    assert house.ask(sock, b"write", 1) == b"write\n"


@pytest.mark.pg("PG-PAY-9", "PG-TRF-2")
def test_a_failed_fsync_ends_it_before_anything_is_told(house: House) -> None:
    sock = house.connect()
    house.store.fsync_fails = True
    sock.sendall(b"a")
    with pytest.raises(StoreFsyncFailed) as caught:
        house.tick_until(lambda: False)
    assert caught.value.code is ExitCode.STORE_FAILED
    house.loop.flush()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(10)
    assert house.trace == ["connected 1"]


# -- connections -----------------------------------------------------------------------------------------


def test_a_link_that_we_close_is_told_with_our_reason(house: House) -> None:
    sock = house.connect()
    sock.sendall(b"!")
    house.tick_until(lambda: house.server._close_reasons == {1: "had enough"})
    assert sock.recv(10) == b""
    sock.close()
    house.tick_until(lambda: "closed 1: had enough" in house.trace)


def test_a_peer_that_ends_or_breaks_its_link_is_told_once(house: House) -> None:
    first, second = house.connect(), house.connect()
    first.close()
    house.tick_until(lambda: "closed 1: end of stream" in house.trace)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    second.close()
    house.tick_until(lambda: any(t.startswith("closed 2: reset by peer") for t in house.trace))
    house.tick(0)
    assert len([t for t in house.trace if t.startswith("closed")]) == 2


def test_a_socket_whose_peer_is_gone_again_is_attached_and_closed(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        link_id = house.server.attach(sock, listener.getsockname())
    house.tick_until(lambda: any(t.startswith(f"closed {link_id}") for t in house.trace))


def test_closing_tells_the_core_of_every_link(house: House) -> None:
    house.connect()
    house.connect()
    house.server.close()
    assert house.trace[2:] == ["closed 1: cut by us", "closed 2: cut by us"]


def test_listening_where_one_can_not() -> None:
    house = House()
    with pytest.raises(PaygateExit, match="--port") as caught:
        house.server.listen(*house.address)
    assert caught.value.code is ExitCode.PORT_IN_USE
    house.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_only_loopback(host: str) -> None:
    with pytest.raises(PaygateExit, match="only loopback addresses") as caught:
        refuse_remote(host, "listen on")
    assert caught.value.code is ExitCode.USAGE


# -- the drain (R12) -------------------------------------------------------------------------------------


def test_a_drain_ends_when_nobody_waits(house: House) -> None:
    house.core.is_drained = True
    sock = house.connect()
    sock.close()
    house.server.begin_drain()
    house.server.begin_drain()
    house.run()
    assert house.trace.count("draining") == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(house.address)


def test_a_drain_that_waits_gives_up_at_its_deadline_and_does_not_spin(house: House) -> None:
    sock = house.connect()  # it lingers: its peer does not close
    house.server.begin_drain()
    house.tick()
    assert not house.server._has_ended()
    house.now_ms += DRAIN_MS_MAX
    assert not house.server._has_ended()
    ticks_before = house.tick_count
    house.run()
    assert "closed 1: closed by us: test is shutting down" in house.trace
    assert house.tick_count - ticks_before < 20
    assert sock.recv(1) == b""


def test_a_drain_wakes_at_its_deadline(house: House) -> None:
    house.server.begin_drain()
    house.tick(0)
    assert house.server._wait_ms() == DRAIN_MS_MAX
    house.core.deadline_ms = house.now_ms + 10
    assert house.server._wait_ms() == 10
    house.core.deadline_ms = house.now_ms - 10
    assert house.server._wait_ms() == 0


def test_the_collector_is_kept_from_a_running_server_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    handle = house.server._handle

    def look() -> None:
        seen.append((gc.get_threshold()[0], gc.get_freeze_count() > 0))
        handle()

    monkeypatch.setattr(house.server, "_handle", look)
    before = gc.get_threshold(), gc.get_freeze_count()
    house.core.is_drained = True
    house.server.begin_drain()
    house.run()
    assert set(seen) == {(10_000, True)}
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_nothing_is_left_open(house: House) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count is all that is wanted
    for _ in range(5):
        sock = house.connect()
        sock.close()
    house.tick_until(lambda: len([t for t in house.trace if t.startswith("closed")]) == 5)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # the same
