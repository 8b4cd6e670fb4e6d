"""Connections over real TCP on the loopback, with a clock of the test's own."""

import random
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from paygate.net.conn import CloseReason, Connection
from paygate.net.limits import ConnectionLimits
from paygate.net.loop import Loop

TickUntil = Callable[[Loop, Callable[[], bool]], None]

SMALL = ConnectionLimits(
    output_size_high=40_000, output_size_low=10_000, output_size_max=1_000_000, output_stall_ms=15_000, linger_ms=3_000
)


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


class Recorder:
    """A handler that remembers; it answers nothing by itself."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.reads: list[int] = []
        self.eof_count = 0
        self.closed: list[tuple[CloseReason, str]] = []
        self.reply: Callable[[Connection, bytes], None] = lambda _conn, _data: None

    def data_received(self, conn: Connection, data: bytes) -> None:
        self.data += data
        self.reads.append(len(data))
        self.reply(conn, data)

    def eof_received(self, conn: Connection) -> None:
        self.eof_count += 1

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        self.closed.append((reason, detail))


class CountingSocket(socket.socket):
    """Counts the writes and hands each a part, as a full network would."""

    send_count = 0
    part_size = 1 << 30

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.send_count += 1
        return super().send(memoryview(data)[: self.part_size], flags)


class Pair:
    """Our connection and the peer's plain blocking socket."""

    def __init__(self, loop: Loop, stack: ExitStack, limits: ConnectionLimits) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        stack.callback(self.peer.close)
        self.peer.settimeout(10)
        # A small buffer fills soon, so that backpressure shows with little data.
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        self.sock = CountingSocket(fileno=accepted.detach())
        self.handler = Recorder()
        self.released_count = 0
        self.conn = Connection(loop, self.sock, self.handler, limits, on_released=self._released)
        stack.callback(self.conn.abort)

    def _released(self) -> None:
        self.released_count += 1

    def receive(self, size: int) -> bytes:
        """What the peer has now, at most `size`."""
        is_readable, _, _ = select.select([self.peer], [], [], 0)
        return self.peer.recv(size) if is_readable else b""

    def fill(self, loop: Loop, size: int) -> None:
        """Send more than the network takes while the peer doesn't read."""
        self.conn.send(bytes(size))
        self.drive(loop)
        assert self.conn.output_size > 0

    def drive(self, loop: Loop, tick_count: int = 5) -> None:
        for _ in range(tick_count):
            loop.run_once(0)
            loop.flush()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


@pytest.fixture
def pair(loop: Loop) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(loop, stack, SMALL)


def test_data_comes_in_and_goes_out(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.handler.reply = lambda conn, data: conn.send(data.upper())
    pair.peer.sendall(b"hello")
    tick_until(loop, lambda: pair.handler.data == b"hello")
    assert pair.peer.recv(100) == b"HELLO"
    assert pair.conn.peer_address == pair.peer.getsockname()


def test_nothing_leaves_before_the_flush(pair: Pair, loop: Loop) -> None:
    pair.conn.send(b"reply")
    loop.run_once(0)
    assert pair.sock.send_count == 0
    loop.flush()
    assert pair.peer.recv(100) == b"reply"


def test_a_tick_of_many_sends_is_one_write(pair: Pair, loop: Loop) -> None:
    for number in range(100):
        pair.conn.send(b"%03d " % number)
    pair.drive(loop)
    assert pair.sock.send_count == 1
    assert pair.peer.recv(1_000).split() == [b"%03d" % number for number in range(100)]


def test_one_read_a_tick_however_much_waits(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.peer.sendall(bytes(150_000))
    tick_until(loop, lambda: len(pair.handler.reads) == 1)
    loop.run_once(0)
    assert len(pair.handler.reads) == 2
    tick_until(loop, lambda: len(pair.handler.data) == 150_000)
    assert max(pair.handler.reads) <= 65_536


@pytest.mark.parametrize("read_size", [1_000, 4_000])
def test_a_read_takes_no_more_than_its_limit(loop: Loop, tick_until: TickUntil, read_size: int) -> None:
    with ExitStack() as stack:
        pair = Pair(loop, stack, ConnectionLimits(read_size=read_size))
        pair.peer.sendall(bytes(10_500))
        tick_until(loop, lambda: len(pair.handler.data) == 10_500)
        assert max(pair.handler.reads) == read_size


def test_partial_writes_keep_order_and_lose_nothing(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    message = rng.randbytes(200_000)
    received = bytearray()

    def maybe_receive() -> bool:
        pair.sock.part_size = rng.randrange(1, 5_000)
        received.extend(pair.receive(rng.randrange(1, 20_000)))
        return len(received) == len(message)

    for start in range(0, len(message), 999):
        pair.conn.send(message[start : start + 999])
    tick_until(loop, maybe_receive)
    assert received == message, f"seed {seed}"


def test_a_peer_that_does_not_read_is_not_read_until_it_does(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.fill(loop, 900_000)
    pair.peer.sendall(b"one more request")
    pair.drive(loop)
    assert pair.handler.data == b""
    received = 0

    def maybe_receive() -> bool:
        nonlocal received
        if received < 900_000:
            received += len(pair.receive(1 << 20))
        return pair.handler.data == b"one more request"

    tick_until(loop, maybe_receive)
    assert pair.conn.output_size < SMALL.output_size_low


def test_too_much_output_cuts_the_slow_reader(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.fill(loop, 900_000)
    while not pair.conn.is_closed:
        pair.conn.send(bytes(50_000))
    # Told from the loop and not from inside send.
    assert pair.handler.closed == []
    tick_until(loop, lambda: bool(pair.handler.closed))
    assert pair.handler.closed == [(CloseReason.SLOW_READER, "more than 1000000 bytes unsent")]


def test_output_without_progress_cuts_the_slow_reader(pair: Pair, loop: Loop, clock: Clock) -> None:
    pair.fill(loop, 900_000)
    clock.now_ms += SMALL.output_stall_ms - 1
    pair.drive(loop)
    assert not pair.conn.is_closed
    clock.now_ms += 1
    pair.drive(loop)
    assert pair.handler.closed == [(CloseReason.SLOW_READER, "took nothing for 15000 ms")]


def test_progress_gives_the_slow_reader_more_time(pair: Pair, loop: Loop, clock: Clock, tick_until: TickUntil) -> None:
    pair.fill(loop, 900_000)
    for _ in range(5):
        clock.now_ms += SMALL.output_stall_ms - 1
        before_size = pair.conn.output_size

        def progressed(before_size: int = before_size) -> bool:
            pair.receive(200_000)
            return pair.conn.output_size < before_size

        tick_until(loop, progressed)
    assert not pair.conn.is_closed
    clock.now_ms += SMALL.output_stall_ms
    pair.drive(loop)
    assert [reason for reason, _ in pair.handler.closed] == [CloseReason.SLOW_READER]


def test_after_its_eof_the_peer_still_gets_its_answers(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.peer.sendall(b"request")
    pair.peer.shutdown(socket.SHUT_WR)
    tick_until(loop, lambda: pair.handler.eof_count == 1)
    pair.conn.send(b"late ")
    pair.drive(loop)
    pair.conn.send(b"answer")
    pair.conn.close_after_flush()
    tick_until(loop, lambda: bool(pair.handler.closed))
    assert pair.peer.recv(100) == b"late answer"
    assert pair.handler.closed == [(CloseReason.PEER_CLOSED, "")]
    assert pair.handler.eof_count == 1


def test_eof_with_output_pending_still_sends_all_of_it(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.fill(loop, 800_000)
    pair.peer.shutdown(socket.SHUT_WR)
    received = 0

    def maybe_receive() -> bool:
        nonlocal received
        received += len(pair.receive(1 << 20))
        if pair.handler.eof_count:
            pair.conn.close_after_flush()
        return pair.conn.is_closed and received == 800_000

    tick_until(loop, maybe_receive)
    assert pair.peer.recv(1) == b""


@pytest.mark.pg("PG-LNK-14")
def test_graceful_close_sends_the_rest_and_does_not_reset_a_peer_that_is_still_sending(
    pair: Pair, loop: Loop, tick_until: TickUntil
) -> None:
    pair.conn.send(b"the last word")
    pair.conn.close_after_flush("unknown version")
    pair.conn.send(b"too late")
    pair.peer.sendall(b"noise that nobody reads")
    pair.drive(loop)
    assert pair.peer.recv(100) == b"the last word"
    assert pair.peer.recv(100) == b""
    assert pair.handler.closed == []
    pair.peer.close()
    tick_until(loop, lambda: bool(pair.handler.closed))
    assert pair.handler.closed == [(CloseReason.CLOSED, "unknown version")]
    assert pair.handler.data == b""


def test_graceful_close_does_not_wait_long_for_the_peer(pair: Pair, loop: Loop, clock: Clock) -> None:
    pair.conn.close_after_flush("drained")
    pair.conn.close_after_flush("again")
    pair.drive(loop)
    clock.now_ms += SMALL.linger_ms
    pair.drive(loop)
    assert pair.handler.closed == [(CloseReason.CLOSED, "drained")]


@pytest.mark.pg("PG-LNK-14")
def test_graceful_close_does_not_wait_long_for_a_slow_reader(pair: Pair, loop: Loop, clock: Clock) -> None:
    pair.fill(loop, 900_000)
    pair.conn.close_after_flush()
    pair.drive(loop)
    clock.now_ms += SMALL.linger_ms
    pair.drive(loop)
    (reason, detail), *others = pair.handler.closed
    assert reason is CloseReason.SLOW_READER
    assert detail.endswith("bytes unsent at close")
    assert others == []


def test_abort_closes_once_whoever_asks_again(pair: Pair, loop: Loop) -> None:
    pair.conn.send(b"lost")
    pair.conn.abort(detail="frame deadline")
    assert pair.conn.is_closed
    assert pair.released_count == 1
    pair.conn.abort(CloseReason.SLOW_READER)
    pair.conn.close_after_flush()
    pair.conn.send(b"lost too")
    pair.drive(loop)
    assert pair.handler.closed == [(CloseReason.ABORTED, "frame deadline")]
    assert pair.released_count == 1
    assert pair.peer.recv(1) == b""


def test_a_handler_may_abort_while_it_hears_data(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.handler.reply = lambda conn, _data: conn.abort(detail="garbage")
    pair.peer.sendall(b"garbage")
    tick_until(loop, lambda: bool(pair.handler.closed))
    assert pair.handler.closed == [(CloseReason.ABORTED, "garbage")]


def test_a_reset_is_told_from_an_orderly_close(pair: Pair, loop: Loop, tick_until: TickUntil) -> None:
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.peer.close()
    tick_until(loop, lambda: bool(pair.handler.closed))
    assert [reason for reason, _ in pair.handler.closed] == [CloseReason.PEER_RESET]
    assert pair.handler.eof_count == 0


def test_what_the_peer_said_before_it_went_is_read_though_writing_to_it_fails(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    handler = Recorder()
    conn = Connection(loop, ours, handler)
    theirs.send(b"the last result")
    theirs.close()
    # Written before the tick's read, so the write fails first.
    conn.send(b"one more request")
    loop.flush()
    assert not conn.is_open
    loop.run_once()
    assert handler.data == b"the last result"
    assert handler.closed == []
    loop.run_once()
    loop.run_once(0)
    assert [reason for reason, _ in handler.closed] == [CloseReason.PEER_RESET]


def test_a_half_open_peer_is_given_up_within_a_minute(pair: Pair) -> None:
    def option(level: int, name: int) -> int:
        return pair.sock.getsockopt(level, name)

    assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    idle_s = option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    interval_s = option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    probe_count = option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert idle_s + interval_s * (probe_count + 1) < 60
    assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) < 60_000
