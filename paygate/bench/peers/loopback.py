"""Requests and answers over loopback: the epoll server that peers run, and the closed loop that loads every server.

Both are as bare as Python allows, on purpose: they are limits to compare with, so nothing of paygate's loop,
connections or limits is in them. A message is two bytes of size and a body of that size, as ISO 8583 travels on TCP.
"""

import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from paygate.bench.peers.peer import PeerFailed, PeerRun, run_of

HOST: Final = "127.0.0.1"
READY: Final = rb"listening on 127\.0\.0\.1:(\d+)"
"""What a server of `serve` prints once it listens; the group is its port."""
SIZE_SIZE: Final = 2
WARM_UP_S: Final = 0.3
"""Not counted: until then not every connection is at work."""
SILENCE_S_MAX: Final = 10
_READ_SIZE: Final = 16 * 1024
_BACKLOG_COUNT: Final = 1024
_STDIN: Final = 0


def framed(body: bytes) -> bytes:
    """The message with this body."""
    return len(body).to_bytes(SIZE_SIZE) + body


def serve(answer: Callable[[bytes], tuple[bytes, bytes]]) -> None:
    """Serve on a port that the system picks, until stdin ends: whoever started us is gone then.

    `answer(data)` is given what a connection sent and is not yet answered, and returns what to send back and what
    to keep until more has come.
    """
    listener = socket.create_server((HOST, 0), backlog=_BACKLOG_COUNT)
    connections: dict[int, socket.socket] = {}
    kept: dict[int, bytes] = {}
    with listener, select.epoll() as epoll:
        epoll.register(listener.fileno(), select.EPOLLIN)
        epoll.register(_STDIN, select.EPOLLIN)
        sys.stdout.write(f"listening on {HOST}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            for fd, _ in epoll.poll():
                connection = connections.get(fd)
                if connection is None:
                    if fd == _STDIN:
                        return
                    accepted, _ = listener.accept()
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connections[accepted.fileno()] = accepted
                    epoll.register(accepted.fileno(), select.EPOLLIN)
                    continue
                try:
                    data = connection.recv(_READ_SIZE)
                    if data:
                        reply, rest = answer(kept.pop(fd, b"") + data)
                        if rest:
                            kept[fd] = rest
                        connection.sendall(reply)
                except ConnectionError:
                    data = b""  # the client left without waiting
                if not data:
                    del connections[fd]
                    kept.pop(fd, None)
                    connection.close()  # which takes it out of the epoll, too


class _Caller:
    """One connection of the closed loop, and its request under way."""

    __slots__ = ("rest", "sent_ns", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.sent_ns = 0


class ClosedLoop:
    """Connections of which each sends its next request when it has the answer to the last."""

    def __init__(self, port: int, requests: Sequence[bytes], answer_start: bytes) -> None:
        """`requests` are whole messages, taken in turn; the body of each answer must begin with `answer_start`."""
        self._port = port
        self._requests = requests
        self._answer_start = answer_start
        self._next = 0

    def measure(self, connection_count: int, seconds: float) -> PeerRun:
        """Load the server. Raises PeerFailed if it can't be reached, falls silent, hangs up, or answers wrongly."""
        callers: dict[int, _Caller] = {}
        try:
            with select.epoll() as epoll:
                for _ in range(connection_count):
                    sock = socket.create_connection((HOST, self._port), timeout=SILENCE_S_MAX)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    callers[sock.fileno()] = _Caller(sock)
                    epoll.register(sock.fileno(), select.EPOLLIN)
                for caller in callers.values():
                    self._send(caller)
                self._drive(epoll, callers, WARM_UP_S)
                began_ns = time.perf_counter_ns()
                latencies_ns = self._drive(epoll, callers, seconds)
                second = (time.perf_counter_ns() - began_ns) / 1e9
        except OSError as error:
            raise PeerFailed(f"a connection to the peer broke: {error}") from None
        finally:
            for caller in callers.values():
                caller.sock.close()
        return run_of(connection_count, second, latencies_ns, unit_us=1e-3)

    def _drive(self, epoll: select.epoll, callers: dict[int, _Caller], seconds: float) -> list[int]:
        """Go on for so long; gives the latency of each answer, in nanoseconds."""
        latencies_ns: list[int] = []
        poll, now = epoll.poll, time.perf_counter_ns
        end_ns = now() + int(seconds * 1e9)
        while now() < end_ns:
            events = poll(SILENCE_S_MAX)
            if not events:
                raise PeerFailed(f"the peer gave no answer for {SILENCE_S_MAX} s")
            for fd, _ in events:
                caller = callers[fd]
                data = caller.sock.recv(_READ_SIZE)
                if not data:
                    raise PeerFailed("the peer hung up")
                if caller.rest:
                    data = caller.rest + data
                if len(data) < SIZE_SIZE or len(data) < SIZE_SIZE + (data[0] << 8 | data[1]):
                    caller.rest = data
                    continue
                caller.rest = b""
                latencies_ns.append(now() - caller.sent_ns)
                if not data.startswith(self._answer_start, SIZE_SIZE):
                    raise PeerFailed(f"the peer answered {data[:64]!r}")
                self._send(caller)
        return latencies_ns

    def _send(self, caller: _Caller) -> None:
        requests = self._requests
        self._next = index = (self._next + 1) % len(requests)
        caller.sent_ns = time.perf_counter_ns()
        # Whole: a request is far smaller than an empty send buffer.
        caller.sock.send(requests[index])
