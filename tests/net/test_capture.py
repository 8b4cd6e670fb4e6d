"""Captures: what is written of real connections on the loopback, read back by a reader of the test's own.

tshark and paygate-dump read captures of the real programs in tests/e2e/test_capture.py.
"""

import ast
import errno
import inspect
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net.capture_reader import FIN, INBOUND, OUTBOUND, RST, SYN, packets_of, story, words_sum

from paygate.net import capture as capture_module
from paygate.net import conn as conn_module
from paygate.net.capture import SEGMENT_SIZE_MAX, CapturedSocket, CaptureFile
from paygate.net.conn import CloseReason, Connection
from paygate.net.connect import connect
from paygate.net.listen import Listener
from paygate.net.loop import Loop

TickUntil = Callable[[Loop, Callable[[], bool]], None]

NOW_NS = 1_795_000_000_123_456_789


# -- a captured connection and its peer ------------------------------------------------------------------


class Handler:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.eof_count = 0
        self.closed: list[CloseReason] = []

    def data_received(self, conn: Connection, data: bytes) -> None:
        self.data += data

    def eof_received(self, conn: Connection) -> None:
        self.eof_count += 1

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        self.closed.append(reason)


class World:
    """A loop with a listener and a capture, and plain sockets that connect to it."""

    def __init__(self, loop: Loop, folder: Path, stack: ExitStack, tick_until: TickUntil, host: str) -> None:
        self.loop = loop
        self.path = folder / "capture.pcapng"
        self.failures: list[str] = []
        self.now_ns = NOW_NS
        self.capture = CaptureFile(self.path, "paygate-test", on_failed=self.failures.append, clock=lambda: self.now_ns)
        self.handler = Handler()
        self.conns: list[Connection] = []
        self.listener = Listener(
            loop,
            host,
            0,
            self.handler,
            on_accept=self.conns.append,
            on_refused=lambda *_: pytest.fail("refused"),
            capture=self.capture,
        )
        self._stack = stack
        self._tick_until = tick_until
        stack.callback(self.capture.close)
        stack.callback(self.listener.close)

    def until(self, holds: Callable[[], bool]) -> None:
        self._tick_until(self.loop, holds)

    def opened(self) -> tuple[Connection, socket.socket]:
        """A connection and the peer's end of it."""
        count = len(self.conns)
        peer = socket.create_connection((self.listener.host, self.listener.port), timeout=10)
        self._stack.callback(peer.close)
        self.until(lambda: len(self.conns) > count)
        self._stack.callback(self.conns[-1].abort)
        return self.conns[-1], peer

    def story(self) -> list[tuple[str, int, bytes]]:
        """What the capture tells after the opening of its one connection."""
        told = story(self.path)
        assert told[:3] == [(INBOUND, SYN, b""), (OUTBOUND, SYN, b""), (INBOUND, 0, b"")]
        return told[3:]


@pytest.fixture(params=["127.0.0.1", "::1"])
def world(loop: Loop, tmp_path: Path, tick_until: TickUntil, request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "::1" and not has_ipv6():
        pytest.skip("no IPv6 on the loopback here")
    with ExitStack() as stack:
        yield World(loop, tmp_path, stack, tick_until, request.param)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def reset(peer: socket.socket) -> None:
    """Close with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


# -- what is written -------------------------------------------------------------------------------------


def test_a_connection_is_written_from_its_first_packet_to_its_last(world: World) -> None:
    conn, peer = world.opened()
    peer.sendall(b"question")
    world.until(lambda: world.handler.data == b"question")
    world.now_ns += 1_500
    conn.send(b"odd")
    world.loop.flush()
    assert peer.recv(100) == b"odd"
    conn.close_after_flush()
    world.loop.flush()
    assert peer.recv(100) == b""
    peer.close()
    world.until(lambda: conn.is_closed)
    assert world.story() == [
        (INBOUND, 0, b"question"),
        (OUTBOUND, 0, b"odd"),
        (OUTBOUND, FIN, b""),
        (INBOUND, FIN, b""),
    ]


def test_addresses_and_times_are_the_real_ones(world: World) -> None:
    _, peer = world.opened()
    us, them = (world.listener.host, world.listener.port), tuple(peer.getsockname()[:2])
    world.now_ns = NOW_NS + 7
    peer.sendall(b"!")
    world.until(lambda: world.handler.data == b"!")
    packets = packets_of(world.path)
    assert [p.time_ns - NOW_NS for p in packets] == [0, 0, 0, 7]
    assert {(p.direction, p.source, p.target) for p in packets} == {(INBOUND, them, us), (OUTBOUND, us, them)}


def test_who_connected_sends_the_first_packet(world: World) -> None:
    with socket.create_server(
        (world.listener.host, 0), family=socket.getaddrinfo(world.listener.host, 0)[0][0]
    ) as server:
        socks: list[socket.socket] = []
        connect(
            world.loop,
            world.listener.host,
            server.getsockname()[1],
            timeout_ms=5_000,
            on_connected=socks.append,
            on_failed=pytest.fail,
            capture=world.capture,
        )
        world.until(lambda: bool(socks))
        address = server.getsockname()[:2]
        accepted = server.accept()[0]
        conn = Connection(world.loop, socks[0], world.handler)
        accepted.sendall(b"hello")
        accepted.close()
        world.until(lambda: world.handler.eof_count == 1)
        conn.abort()
    assert story(world.path) == [
        (OUTBOUND, SYN, b""),
        (INBOUND, SYN, b""),
        (OUTBOUND, 0, b""),
        (INBOUND, 0, b"hello"),
        (INBOUND, FIN, b""),
        (OUTBOUND, FIN, b""),
    ]
    assert packets_of(world.path)[0].target == address


def test_only_what_the_kernel_took_was_sent(world: World) -> None:
    conn, peer = world.opened()
    conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    data = os.urandom(1_000_000)
    conn.send(data)
    world.loop.flush()
    assert 0 < conn.output_size < len(data), "the kernel took all of it at once, so that nothing was shown"
    sent = b"".join(payload for _, _, payload in world.story())
    assert sent == data[: len(data) - conn.output_size]
    peer.setblocking(False)
    got = b""

    def has_got_all() -> bool:
        nonlocal got
        with suppress(BlockingIOError):
            got += peer.recv(1 << 20)
        return len(got) == len(data)

    world.until(has_got_all)
    assert b"".join(payload for _, _, payload in world.story()) == data == got


def test_a_read_larger_than_a_packet_is_two(world: World) -> None:
    _, peer = world.opened()
    sock = world.conns[0]._sock
    data = os.urandom(SEGMENT_SIZE_MAX + 5)
    peer.sendall(data)
    # Read past the connection, so that all of it has come.
    sock.setblocking(True)
    while len(sock.recv(len(data), socket.MSG_PEEK)) < len(data):
        pass
    buffer = bytearray(len(data))
    assert sock.recv_into(buffer) == len(data)
    assert [len(payload) for _, _, payload in world.story()] == [SEGMENT_SIZE_MAX, 5]
    assert b"".join(payload for _, _, payload in world.story()) == data


def test_each_connection_begins_at_a_sequence_number_of_its_own(world: World) -> None:
    """Else a reader would take the next one on the same ports for the same one."""
    for _ in range(2):
        world.opened()
        world.now_ns += 4_000
    first, second = (p.sequence for p in packets_of(world.path) if p.flags == SYN)
    assert second == first + 1


def test_sequence_numbers_wrap(world: World) -> None:
    world.now_ns = ((1 << 32) - 3) * 4_000
    conn, peer = world.opened()
    peer.sendall(b"12345")
    world.until(lambda: world.handler.data == b"12345")
    conn.send(b"1")
    conn.send(b"2")
    world.loop.flush()
    assert [payload for _, _, payload in world.story()] == [b"12345", b"12"]
    assert packets_of(world.path)[-1].acknowledged == 3


@given(st.binary(min_size=1, max_size=200).filter(any) | st.sampled_from([b"\xff" * 2, b"\xff\xff\0\0", b"\xff\xfe\1"]))
def test_the_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    """Of all data but zeros alone, which no header is."""
    assert capture_module._checksum(data) == (0xFFFF - words_sum(data))


# -- how connections end ---------------------------------------------------------------------------------


def test_a_reset_by_the_peer_is_told(world: World) -> None:
    conn, peer = world.opened()
    reset(peer)
    world.until(lambda: conn.is_closed)
    assert world.story() == [(INBOUND, RST, b"")]


def test_what_came_before_a_reset_stands_before_it(world: World) -> None:
    conn, peer = world.opened()
    conn.pause_reading()
    peer.sendall(b"last words")
    reset(peer)
    while not conn._write_error:
        conn.send(b"x")
        world.loop.flush()
    conn.resume_reading()
    world.until(lambda: conn.is_closed)
    # The failed write heard of the reset first, but what the peer sent before it was still read.
    assert world.story()[-2:] == [(INBOUND, 0, b"last words"), (INBOUND, RST, b"")]


def test_closing_with_unread_input_is_a_reset_as_the_kernel_sends_it(world: World) -> None:
    conn, peer = world.opened()
    conn.pause_reading()
    peer.sendall(b"unread")
    world.until(lambda: bool(conn._sock.recv(1, socket.MSG_PEEK)))
    conn.abort()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    assert world.story() == [(OUTBOUND, RST, b"")]


def test_closing_without_unread_input_is_an_end_as_the_kernel_sends_it(world: World) -> None:
    conn, peer = world.opened()
    conn.abort()
    assert peer.recv(1) == b""
    assert world.story() == [(OUTBOUND, FIN, b"")]


def test_a_peer_that_no_longer_answers_sent_nothing(world: World) -> None:
    conn, _ = world.opened()
    stream = conn._sock._stream  # type: ignore[attr-defined]
    # Nobody waits 40 s for the kernel to say so.
    stream.failed(TimeoutError(errno.ETIMEDOUT, "timed out"))
    conn.abort()
    assert world.story() == [(OUTBOUND, RST, b"")]


def test_a_peer_that_resets_before_it_is_accepted_harms_nothing(world: World) -> None:
    peer = socket.create_connection((world.listener.host, world.listener.port), timeout=10)
    reset(peer)
    world.until(lambda: world.handler.closed == [CloseReason.PEER_RESET])
    assert world.story() == [(INBOUND, RST, b"")]


# -- the file --------------------------------------------------------------------------------------------


def new_capture(path: Path, failures: list[str] | None = None) -> CaptureFile:
    return CaptureFile(path, "paygate-test", on_failed=pytest.fail if failures is None else failures.append)


def test_the_file_is_private_and_not_inherited(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        capture = new_capture(tmp_path / "c")
    finally:
        os.umask(before)
    assert capture._fd is not None
    assert (tmp_path / "c").stat().st_mode & 0o7777 == 0o600
    assert not os.get_inheritable(capture._fd)
    capture.close()
    capture.close()
    assert packets_of(tmp_path / "c") == []


@pytest.mark.parametrize("kind", ["file", "link to nothing", "pipe", "folder"])
def test_nothing_that_is_there_is_written_to(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c"
    if kind == "file":
        path.write_bytes(b"an earlier capture")
    elif kind == "link to nothing":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(FileExistsError):
        new_capture(path)
    if kind == "file":
        assert path.read_bytes() == b"an earlier capture"
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        new_capture(tmp_path / "nowhere" / "c")


def test_each_packet_can_be_read_at_once(world: World) -> None:
    _, peer = world.opened()
    for count in range(1, 20):
        peer.sendall(b"x")
        world.until(lambda count=count: len(world.handler.data) == count)  # type: ignore[misc]
        assert len(packets_of(world.path)) == 3 + count


# -- a file that can't be written to ---------------------------------------------------------------------


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """As a full disk: a write goes up to here and no farther. Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_ends_the_capture_whole_and_the_connection_goes_on(world: World) -> None:
    conn, peer = world.opened()
    size = world.path.stat().st_size
    peer.sendall(b"before")
    world.until(lambda: world.handler.data == b"before")
    whole = world.path.stat().st_size
    # Not all of the next packet has room.
    with files_end_at(whole + (whole - size) // 2):
        peer.sendall(b"during")
        world.until(lambda: world.handler.data == b"beforeduring")
    (failure,) = world.failures
    assert str(world.path) in failure
    assert "file too large" in failure
    conn.send(b"answer")
    world.loop.flush()
    assert peer.recv(100) == b"answer"
    conn.abort()
    assert world.story() == [(INBOUND, 0, b"before")]
    assert len(world.failures) == 1


def test_a_device_that_takes_nothing_and_can_not_be_cut_harms_nothing(world: World) -> None:
    conn, peer = world.opened()
    assert world.capture._fd is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, world.capture._fd)
    os.close(full)
    peer.sendall(b"during")
    world.until(lambda: world.handler.data == b"during")
    assert "no space left on device" in world.failures[0]
    conn.send(b"answer")
    world.loop.flush()
    assert peer.recv(100) == b"answer"
    assert len(world.failures) == 1


def test_a_file_that_is_full_from_the_start_is_told_too(tmp_path: Path) -> None:
    failures: list[str] = []
    with files_end_at(0):
        capture = new_capture(tmp_path / "c", failures)
    assert len(failures) == 1
    assert (tmp_path / "c").read_bytes() == b""
    capture.close()


# -- off -------------------------------------------------------------------------------------------------


def test_without_a_capture_sockets_are_plain_ones(loop: Loop, tick_until: TickUntil) -> None:
    """So that capturing costs nothing when it is off: not one instruction is between a Connection and its socket."""
    handler, conns, socks = Handler(), list[Connection](), list[socket.socket]()
    listener = Listener(
        loop, "127.0.0.1", 0, handler, on_accept=conns.append, on_refused=lambda *_: pytest.fail("refused")
    )
    connect(
        loop,
        "127.0.0.1",
        listener.port,
        timeout_ms=5_000,
        on_connected=socks.append,
        on_failed=pytest.fail,
    )
    tick_until(loop, lambda: bool(conns and socks))
    assert [type(conns[0]._sock), type(socks[0])] == [socket.socket, socket.socket]
    listener.close()
    conns[0].abort()
    socks[0].close()


def test_a_connection_makes_no_call_that_a_capture_does_not_see() -> None:
    """Another way to read or write, such as sendmsg, would pass by the captured socket."""
    called = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(conn_module)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "_sock"
    }
    assert called == {"recv_into", "send", "shutdown", "close"}
    assert called <= set(vars(CapturedSocket))
