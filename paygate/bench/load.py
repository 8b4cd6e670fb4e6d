"""The load generator: many links, two requests a payment, latency from the intended start.

Open loop: payments begin when the schedule says, whatever the servers do. If every link is busy then, the payment waits
for one, and the wait counts: who measures from the moment of sending lets a slow server choose the moments at which it
is measured. Closed loop: each link begins its next payment when it has the answer to the last.

It shares the machine with the servers that it measures, so while the clock runs it only moves bytes: frames are made
before, answers are kept, and decoded and checked after.
"""

import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from paygate.bench.orders import WrongAnswer, decode_answer
from paygate.cli import ExitCode, PaygateExit
from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.frame import decode_head, encode_frame
from paygate.codec.messages import BankKeys, BankKeysQuery, Hello, HelloAck, Message
from paygate.net.addresses import Address
from paygate.net.connect import connect
from paygate.net.loop import Loop

CONNECT_MS_MAX: Final = 10_000
SILENCE_S_MAX: Final = 40
"""A payment has its answer within a session; if nothing at all came for longer, the run is over."""
_READ_SIZE: Final = 4096
_HEADER_SIZE: Final = limits.HEADER_SIZE
_SHORTEST_WAIT_S: Final = 0.000_02

Next = Callable[[int, bytes], bytes | None]
"""What follows the first answer (its order's index and its frame): the second request, or None if that was all."""


Finished = Callable[[int, bytes], None]
"""Hears each last answer on the clock (its order's index and its frame)."""


class LoadFailed(PaygateExit):
    """The servers stopped answering, or a connection broke."""

    code = ExitCode.NO_CONNECTION


@dataclass(frozen=True, slots=True)
class Drive:
    """What became of each order, in their order. Times are of `time.monotonic_ns`."""

    intended_ns: "array[int]"
    """When it was to begin; in a closed loop, when it began."""
    done_ns: "array[int]"
    answers: list[bytes]
    """The last answer's frame."""
    last_start_ns: int
    """When the last order began: until then the load was whole."""


class _Link:
    __slots__ = ("fd", "index", "is_second", "recv", "rest", "send", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.send = sock.send
        self.recv = sock.recv
        self.index = -1
        self.is_second = False
        self.rest = b""


class Links:
    """Open links to one server. Needs Linux (epoll)."""

    def __init__(
        self,
        address: Address,
        count: int,
        *,
        role: Role = Role.CLIENT,
        party_id: str = "bench",
        link_key: bytes | None = None,
    ) -> None:
        """Connect and say hello on every link: a client to a gateway, or a gateway to a bank. Raises LoadFailed."""
        self._links = [_Link(sock) for sock in _connect_all(*address, count)]
        hello = encode_frame(Hello(role=role, party_id=party_id, versions=(limits.PROTOCOL_VERSION,)), 1, link_key)
        for link in self._links:
            link.sock.settimeout(SILENCE_S_MAX)
            link.send(hello)
        for link in self._links:
            if not isinstance(_read_message(link.sock), HelloAck):
                raise LoadFailed("a server did not answer Hello with HelloAck")

    def __len__(self) -> int:
        return len(self._links)

    def ask_keys(self, bank_id: str) -> bytes:
        """The bank's signed key list, by way of the gateway. Raises LoadFailed."""
        link = self._links[0]
        link.send(encode_frame(BankKeysQuery(bank_id), 2))
        message = _read_message(link.sock)
        if not isinstance(message, BankKeys) or not message.signed_key_list:
            raise LoadFailed(f"the gateway has no keys of bank {bank_id}")
        return message.signed_key_list

    def close(self) -> None:
        """Close every link."""
        for link in self._links:
            link.sock.close()

    def drive(
        self,
        firsts: Sequence[bytes],
        following: Next,
        schedule_ns: Sequence[int] | None = None,
        finished: Finished | None = None,
    ) -> Drive:
        """Send each first request, then what follows its answer, and wait for every last answer.

        `schedule_ns`: when each is to begin, in nanoseconds from now and in order; None for a closed loop.
        Raises LoadFailed.
        """
        for link in self._links:
            link.sock.setblocking(False)
        with select.epoll() as epoll:
            for link in self._links:
                epoll.register(link.fd, select.EPOLLIN)
            driving = _Driving(self._links, epoll, firsts, following, schedule_ns, finished)
            driving.run()
        for link in self._links:
            link.sock.settimeout(SILENCE_S_MAX)
        return driving.result()


class _Driving:
    """One call of `drive`."""

    def __init__(
        self,
        links: Sequence[_Link],
        epoll: select.epoll,
        firsts: Sequence[bytes],
        following: Next,
        schedule_ns: Sequence[int] | None,
        finished: Finished | None,
    ) -> None:
        self._by_fd = {link.fd: link for link in links}
        self._free = deque(links)
        self._epoll = epoll
        self._firsts = firsts
        self._following = following
        self._finished = finished
        count = len(firsts)
        begin_ns = time.monotonic_ns()
        self._due_ns = [begin_ns + ns for ns in schedule_ns] if schedule_ns is not None else None
        self._intended_ns = array("q", bytes(8 * count))
        self._done_ns = array("q", bytes(8 * count))
        self._answers = [b""] * count
        self._started_count = 0
        self._done_count = 0
        self._last_start_ns = begin_ns

    def run(self) -> None:
        count = len(self._firsts)
        poll = self._epoll.poll
        heard_s = time.monotonic()
        while self._done_count < count:
            wait_s = self._start_due()
            # epoll counts whole milliseconds, and rounds up: the last of them is waited for more exactly.
            if 0 < wait_s < 0.002:
                select.select([self._epoll.fileno()], (), (), wait_s)
                wait_s = 0.001
            events = poll(max(0.0, wait_s - 0.001))
            if events:
                heard_s = time.monotonic()
                for fd, _ in events:
                    self._read(self._by_fd[fd])
            elif time.monotonic() > heard_s + SILENCE_S_MAX:
                waiting = self._started_count - self._done_count
                raise LoadFailed(f"{waiting} payments have no answer, and nothing came for {SILENCE_S_MAX} s")

    def result(self) -> Drive:
        return Drive(self._intended_ns, self._done_ns, self._answers, self._last_start_ns)

    def _start_due(self) -> float:
        """Begin what is due on links that are free; gives how long nothing more is due, in s."""
        firsts, free, due_ns = self._firsts, self._free, self._due_ns
        index, count = self._started_count, len(firsts)
        wait_s: float = 1.0
        now_ns = time.monotonic_ns()
        while free and index < count:
            intended_ns = now_ns if due_ns is None else due_ns[index]
            if intended_ns > now_ns:
                wait_s = max((intended_ns - now_ns) / 1e9, _SHORTEST_WAIT_S)
                break
            link = free.popleft()
            link.index = index
            link.is_second = False
            self._intended_ns[index] = intended_ns
            self._send(link, firsts[index])
            index += 1
        if index != self._started_count:
            self._started_count = index
            self._last_start_ns = now_ns
        return wait_s

    def _read(self, link: _Link) -> None:
        try:
            data = link.recv(_READ_SIZE)
        except OSError as error:
            raise LoadFailed(f"a link broke: {error.strerror}") from None
        if not data:
            raise LoadFailed("the gateway closed a link; its log says why")
        if link.rest:
            data = link.rest + data
        size = len(data)
        if size < _HEADER_SIZE or size < _HEADER_SIZE + (data[6] << 8 | data[7]):
            link.rest = data
            return
        link.rest = b""
        if not link.is_second:
            second = self._following(link.index, data)
            if second is not None:
                link.is_second = True
                self._send(link, second)
                return
        index = link.index
        if self._finished is not None:
            self._finished(index, data)
        self._done_ns[index] = time.monotonic_ns()
        self._answers[index] = data
        self._done_count += 1
        self._free.append(link)

    def _send(self, link: _Link, frame: bytes) -> None:
        try:
            size = link.send(frame)
        except OSError as error:
            raise LoadFailed(f"a link broke: {error.strerror}") from None
        if size != len(frame):
            raise LoadFailed("the kernel took only part of a frame, on a link with nothing else to send")


def _connect_all(host: str, port: int, count: int) -> list[socket.socket]:
    socks: list[socket.socket] = []
    failures: list[str] = []
    loop = Loop()
    try:
        for _ in range(count):
            connect(loop, host, port, timeout_ms=CONNECT_MS_MAX, on_connected=socks.append, on_failed=failures.append)
            # One after another: a burst beyond the listener's backlog would wait for retransmissions.
            before = len(socks)
            while len(socks) == before and not failures:
                loop.run_once()
    finally:
        loop.close()
    if failures:
        raise LoadFailed(f"could not connect: {failures[0]}")
    return socks


def _read_message(sock: socket.socket) -> Message:
    data = b""
    while len(data) < _HEADER_SIZE or len(data) < decode_head(data).frame_size:
        try:
            piece = sock.recv(_READ_SIZE)
        except OSError as error:
            raise LoadFailed(f"a server gave no answer: {error}") from None
        if not piece:
            raise LoadFailed("a server closed a link; its log says why")
        data += piece
    try:
        return decode_answer(data)
    except WrongAnswer as error:
        raise LoadFailed(str(error)) from None
