"""One connection to the implementation under test: any bytes out, whole frames in, everything recorded.

What is received is held against the spec at once: header, checksum, MAC, body. A frame that is not as it should be
fails the case that reads it, whatever the case is about. An Echo of the other end is answered by itself, since either
end may test a link at any time (spec 5.4); set `answers_echo` to see it.
"""

import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.describe import describe
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import FLAG_AUTHENTICATED, Frame, Header, decode_frame, decode_head
from paygate.codec.messages import Echo, EchoReply, Error, Message
from paygate.codec.record_codec import decode_record
from paygate.conform.cases import Failed, require
from paygate.conform.craft import MAGIC_NUMBER, Draft, draft
from paygate.conform.tasks import Signal
from paygate.net.conn import CloseReason, Connection
from paygate.net.limits import LINK_LIMITS
from paygate.net.loop import Loop

ENTRY_COUNT_MAX: Final = 60
"""Sends and receipts that a report shows of one connection; of a longer one the middle is left out."""

ENTRY_SIZE_MAX: Final = 4_096
"""Bytes that a report shows of one entry: three whole frames and more (PG-FRM-4)."""
WAITING_SIZE_MAX: Final = 5 * 1024 * 1024
"""Bytes that may wait on a wire to be read by the case. As many as a peer may have to send at once: 4,096 requests may
wait (PG-LNK-6), and a reply has up to 1,087 bytes (PG-FRM-4)."""
WAITING_COUNT_MAX: Final = 8_192
"""Frames that may wait so: twice as many as there may be replies, for whatever else is due."""
_GARBAGE_SIZE_MAX: Final = 256
"""Bytes that are kept of a stream that holds no frames; enough to tell what it is."""

_SHUT_WR: Final = 1  # of shutdown(2); the module that names it is for paygate/net alone (R22)

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that passed, or happened, on a connection."""

    at_ms: int
    """Since the run began."""
    what: str
    """`sent`, `received`, or what happened, in words."""
    data: bytes = b""
    """The first ENTRY_SIZE_MAX bytes."""
    left_out_size: int = 0
    """How many more there were."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole frame that came, decoded."""

    message: Message
    correlation_id: int
    raw: bytes
    at_ms: int

    def __str__(self) -> str:
        return f"{describe(self.message)} (correlation {self.correlation_id})"


class Wire:
    """One connection, as a case sees it. Made by `Trial.connect` and `Door.accept`."""

    def __init__(self, loop: Loop, name: str, began_ms: int, patience_ms: int, link_key: bytes | None) -> None:
        self.name = name
        self.link_key = link_key
        """The key of every MAC, or None on a link without them; may be changed at any time."""
        self.answers_echo = True
        self.is_open = False
        """Whether hello is over: until then an Error may come without a MAC (spec 4.4)."""
        self.closed: str | None = None
        """How the connection ended, once it has."""
        self.flood: Failed | None = None
        """More came than a case can have asked for, so the connection was cut and the case fails."""
        self.entries: list[Entry] = []
        self.left_out_count = 0
        self._loop = loop
        self._began_ms = began_ms
        self._patience_ms = patience_ms
        self._data = bytearray()
        self._frames: deque[tuple[int, bytes]] = deque()
        self._waiting_size = 0
        self._changed = Signal(loop)
        self._next_correlation_id = 1
        self._conn: Connection | None = None
        self._sock: socket.socket | None = None

    def attach_socket(self, sock: socket.socket) -> None:
        """The socket that was connected; owned from here on."""
        self._sock = sock
        self.attach(Connection(self._loop, sock, self, LINK_LIMITS))

    def attach(self, conn: Connection) -> None:
        """The connection that was accepted; owned from here on."""
        conn.handler = self
        self._conn = conn
        self.note("connected")

    # -- sending ---------------------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        """Send any bytes; they leave at the end of this tick, so what is sent without waiting is one segment."""
        assert self._conn is not None
        self.note("sent", data)
        self._conn.send(data)

    def send(self, message: Message, correlation_id: int | None = None) -> int:
        """Send a valid frame, and give its correlation ID: the next free one if none is given."""
        if correlation_id is None:
            correlation_id = self.new_correlation_id()
        self.send_bytes(draft(message, self.link_key, correlation_id).encode())
        return correlation_id

    def send_draft(self, frame: Draft) -> None:
        """Send a frame as it was drafted."""
        self.send_bytes(frame.encode())

    def new_correlation_id(self) -> int:
        """One that this link has not used."""
        self._next_correlation_id += 1
        return self._next_correlation_id - 1

    def end_output(self) -> None:
        """Send no more, and go on reading. What was sent must have left: wait for something first."""
        assert self._sock is not None, "only on a connection that we made"
        self.note("we sent the end of the stream")
        self._sock.shutdown(_SHUT_WR)

    def close(self) -> None:
        """Send the rest, then close."""
        if self._conn is not None and self.closed is None:
            self._conn.close_after_flush()

    def abort(self) -> None:
        """Close at once; what waits to be received is forgotten."""
        self._forget()
        if self._conn is not None:
            self.closed = self.closed or "cut by us"  # and nothing more is written down
            self._conn.abort()

    # -- receiving -------------------------------------------------------------------------------------

    async def receive(self, within_ms: int | None = None) -> Reply:
        """The next whole frame. Fails the case if none comes in time, or it is not as the spec says."""
        patience_ms = self._patience_ms if within_ms is None else within_ms
        deadline_ms = self._loop.now_ms() + patience_ms
        while not self._frames:
            if self.closed is not None:
                raise Failed("a frame", f"the connection ended: {self.closed}")
            if not await self._changed.wait_until(deadline_ms) and not self._frames:
                raise Failed(f"a frame within {patience_ms} ms", "nothing")
        return self._next_reply()

    async def expect(self, cls: type[M], correlation_id: int | None = None, within_ms: int | None = None) -> M:
        """The next frame, which must be of this kind and, if given, carry this correlation ID."""
        reply = await self.receive(within_ms)
        message = reply.message
        if not isinstance(message, cls):
            raise Failed(f"a {cls.kind.name}", reply)
        if correlation_id is not None and reply.correlation_id != correlation_id:
            raise Failed(f"a {cls.kind.name} with correlation {correlation_id}", reply)
        return message

    async def ask(self, message: Message, reply: type[M]) -> M:
        """Send a request, and give its reply, which must be the next frame."""
        return await self.expect(reply, self.send(message))

    async def expect_error(
        self,
        codes: ErrorCode | Iterable[ErrorCode],
        *,
        within_ms: int | None = None,
        correlation_id: int | None = None,
    ) -> Error:
        """An Error of one of these codes, and what must follow from it: one that closes has correlation 0 and closes.

        `correlation_id`: of the request that an Error which does not close refuses.
        """
        wanted = {codes} if isinstance(codes, ErrorCode) else set(codes)
        names = " or ".join(sorted(code.name for code in wanted))
        reply = await self.receive(within_ms)
        error = reply.message
        if not isinstance(error, Error) or error.code not in wanted:
            raise Failed(f"an Error {names}", reply)
        closes = error.code.closes
        require(error.closes is closes, f"closes={int(closes)} with {error.code.name} (spec 9)", reply)
        if not closes:
            require(reply.correlation_id == correlation_id, f"the Error under correlation {correlation_id}", reply)
            return error
        require(reply.correlation_id == 0, "correlation 0 in an Error that closes (spec 5.2)", reply)
        await self.expect_closed()
        return error

    async def expect_closed(self, within_ms: int | None = None) -> None:
        """The connection ends, with no frame before it."""
        patience_ms = self._patience_ms if within_ms is None else within_ms
        deadline_ms = self._loop.now_ms() + patience_ms
        while self.closed is None and not self._frames and await self._changed.wait_until(deadline_ms):
            pass
        if self._frames:
            raise Failed("the end of the connection", self._next_reply())
        if self.closed is None:
            raise Failed(f"the end of the connection within {patience_ms} ms", "it is still open")
        require(not self._data, "the end of the connection after a whole frame", f"{len(self._data)} bytes before it")

    @property
    def has_frame(self) -> bool:
        """Whether a whole frame has come that nobody has received."""
        return bool(self._frames)

    async def next_or_closed(self, within_ms: int | None = None) -> bool:
        """Wait for the next frame (True) or the end of the connection (False); fails the case if neither comes."""
        patience_ms = self._patience_ms if within_ms is None else within_ms
        deadline_ms = self._loop.now_ms() + patience_ms
        while not self._frames and self.closed is None:
            if not await self._changed.wait_until(deadline_ms) and not self._frames and self.closed is None:
                raise Failed(f"a frame or the end of the connection within {patience_ms} ms", "nothing")
        return bool(self._frames)

    async def comes_within(self, for_ms: int) -> bool:
        """Whether a whole frame comes in this time."""
        deadline_ms = self._loop.now_ms() + for_ms
        while not self._frames and self.closed is None and await self._changed.wait_until(deadline_ms):
            pass
        return bool(self._frames)

    async def expect_silence(self, for_ms: int) -> None:
        """Nothing comes for so long, not even the end of the connection."""
        deadline_ms = self._loop.now_ms() + for_ms
        while self.closed is None and not self._frames and await self._changed.wait_until(deadline_ms):
            pass
        if self._frames:
            raise Failed(f"nothing for {for_ms} ms", self._next_reply())
        require(self.closed is None, f"nothing for {for_ms} ms", f"the connection ended: {self.closed}")

    def _next_reply(self) -> Reply:
        at_ms, raw = self._frames.popleft()
        self._waiting_size -= len(raw)
        return self._check(at_ms, raw)

    def _check(self, at_ms: int, raw: bytes) -> Reply:
        """What a frame holds. Fails the case if it is not one that the spec allows."""
        try:
            frame = decode_frame(decode_head(raw[: limits.HEADER_SIZE]), raw)
            self._check_mac(frame)
            message = frame.message()
        except RemoteProtocolError as error:
            raise Failed("a frame as spec 4 says", f"{error.text} in {raw[:ENTRY_SIZE_MAX].hex()}") from None
        return Reply(message, frame.correlation_id, raw, at_ms)

    def _check_mac(self, frame: Frame) -> None:
        if self.link_key is None:
            if frame.mac:
                raise RemoteProtocolError(ErrorCode.UNEXPECTED_MAC, "flags", "no MAC on this link")
        elif frame.mac:
            frame.check_mac(self.link_key)
        elif self.is_open or frame.kind is not Kind.ERROR:
            raise RemoteProtocolError(ErrorCode.NOT_AUTHENTICATED, "flags", "a MAC on every frame of this link")

    # -- ConnectionHandler -----------------------------------------------------------------------------

    def data_received(self, conn: Connection, data: bytes) -> None:
        """Bytes came."""
        self.note("received", data)
        self._data += data
        while (raw := self._next_frame()) is not None:
            if self.answers_echo and self._answer_echo(raw):
                continue
            self._frames.append((self._loop.now_ms() - self._began_ms, raw))
            self._waiting_size += len(raw)
        if self._waiting_size > WAITING_SIZE_MAX or len(self._frames) > WAITING_COUNT_MAX:
            self._cut_flood(conn)
        self._changed.notify()

    def _cut_flood(self, conn: Connection) -> None:
        is_size = self._waiting_size > WAITING_SIZE_MAX
        most = f"{WAITING_SIZE_MAX} bytes" if is_size else f"{WAITING_COUNT_MAX} frames"
        self.flood = Failed("only what was asked for", f"more than {most} that nobody asked for")
        self._forget()
        self._ended(f"cut by us: {self.flood.got}")
        conn.abort()

    def _forget(self) -> None:
        self._frames.clear()
        self._data.clear()
        self._waiting_size = 0

    def eof_received(self, conn: Connection) -> None:
        """The other end sends no more, so the link is over (spec 5.3)."""
        self._ended("closed by the other end")
        conn.close_after_flush()

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        """The connection is gone."""
        self._ended(f"{reason.value}{': ' if detail else ''}{detail}")

    def _ended(self, how: str) -> None:
        if self.closed is None:
            self.closed = how
            self.note(how)
            self._changed.notify()

    def _next_frame(self) -> bytes | None:
        if len(self._data) < limits.HEADER_SIZE:
            return None
        header = decode_record(Header, bytes(self._data[: limits.HEADER_SIZE]))
        size = limits.HEADER_SIZE + header.body_size
        size += limits.MAC_SIZE if header.flags & FLAG_AUTHENTICATED else 0
        if header.magic != MAGIC_NUMBER:  # A stream of something else has no frames: its beginning tells what it is.
            raw = bytes(self._data[:_GARBAGE_SIZE_MAX])
            self._data.clear()
            self._ended("cut by us: what came is no frame")
            assert self._conn is not None
            self._conn.abort()
            return raw
        if len(self._data) < size:
            return None
        raw = bytes(self._data[:size])
        del self._data[:size]
        return raw

    def _answer_echo(self, raw: bytes) -> bool:
        if raw[3] != Kind.ECHO:
            return False
        try:
            reply = self._check(0, raw)
        except Failed:
            return False  # The case that reads it says what is wrong.
        assert isinstance(reply.message, Echo)
        self.send(EchoReply(reply.message.echo_data), reply.correlation_id)
        return True

    def note(self, what: str, data: bytes = b"") -> None:
        """Write down what passed or happened, for the report."""
        left_out_size = max(len(data) - ENTRY_SIZE_MAX, 0)
        self.entries.append(Entry(self._loop.now_ms() - self._began_ms, what, data[:ENTRY_SIZE_MAX], left_out_size))
        if len(self.entries) > ENTRY_COUNT_MAX:
            del self.entries[ENTRY_COUNT_MAX // 2]
            self.left_out_count += 1
