"""One stream connection: bounded, fair, and closed exactly once.

Strategy. Reading happens in the tick, at most once for each connection. Writing happens only in `Loop.flush`,
once for each connection, after the tick's records are safe. `connection_closed` is always called from the loop
and never from inside `send`, `abort` or a flush, so a handler is never entered while it is at work.

Four phases, in this order; each may jump to the last:

    OPEN       reads and writes
    FLUSHING   we are closing: nothing more is taken in, the rest is sent
    LINGERING  all is sent and our side is shut; what the peer still sends is thrown away until it closes too.
               Closing with unread input would make TCP reset the link, and the peer could lose our last words.
    CLOSED     the descriptor is free, the handler hears it
"""

import enum
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from paygate.net import limits as net_limits
from paygate.net.addresses import Address
from paygate.net.limits import PEER_LIMITS, ConnectionLimits
from paygate.net.loop import EVENT_READ, EVENT_WRITE, Loop, Timer


class CloseReason(enum.Enum):
    """Why a connection ended; the value is the text that a log shows (R15)."""

    PEER_CLOSED = "closed by peer"
    PEER_RESET = "reset by peer"
    PEER_LOST = "peer no longer answers"  # T26
    SLOW_READER = "peer does not read"  # T27
    NETWORK_ERROR = "network error"
    CLOSED = "closed by us"
    ABORTED = "cut by us"


class ConnectionHandler(Protocol):
    """Who hears what a connection says. One handler may serve many connections."""

    def data_received(self, conn: "Connection", data: bytes) -> None:
        """Some bytes came, at least one; frames may be split and glued at any place."""

    def eof_received(self, conn: "Connection") -> None:
        """The peer will send no more, and may still read.

        The handler must close sooner or later: `close_after_flush` once the last answer is given.
        """

    def connection_closed(self, conn: "Connection", reason: CloseReason, detail: str) -> None:
        """The connection is gone. Called exactly once, and the last call for this connection.

        `detail` is readable text, may be empty, and holds nothing that the peer sent.
        """


class _Phase(enum.Enum):
    OPEN = enum.auto()
    FLUSHING = enum.auto()
    LINGERING = enum.auto()
    CLOSED = enum.auto()


_OPEN: Final = _Phase.OPEN  # asked for at each read and write, and an enum looks its members up each time


class Connection:
    """A connected, non-blocking stream socket, owned from here on.

    `handler` may be replaced at any time. `peer_address` is host and port; it is asked of the socket when not
    given. `on_released` is called at once when the descriptor is free; the listener counts by it.
    """

    __slots__ = (
        "_close_detail",
        "_close_reason",
        "_eof",
        "_events",
        "_fd",
        "_limits",
        "_linger_timer",
        "_loop",
        "_on_released",
        "_output",
        "_paused",
        "_phase",
        "_progress_ms",
        "_sock",
        "_stall_timer",
        "_throttled",
        "_write_error",
        "handler",
        "peer_address",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        handler: ConnectionHandler,
        limits: ConnectionLimits = PEER_LIMITS,
        *,
        peer_address: Address | None = None,
        on_released: Callable[[], None] | None = None,
    ) -> None:
        self.handler = handler
        self.peer_address = _peer_address(sock) if peer_address is None else peer_address
        self._loop = loop
        self._sock = sock
        self._limits = limits
        self._on_released = on_released
        self._phase = _Phase.OPEN
        self._eof = False
        # What one `send` gave, as it came, or a growing buffer: mostly a tick has one to send, and all of it leaves.
        self._output: bytes | bytearray = b""
        self._throttled = False
        self._paused = False
        self._progress_ms = 0
        self._stall_timer: Timer | None = None
        self._linger_timer: Timer | None = None
        self._write_error: OSError | None = None
        self._close_reason = CloseReason.CLOSED
        self._close_detail = ""
        sock.setblocking(False)
        _set_stream_options(sock)
        self._fd = sock.fileno()
        self._events = EVENT_READ
        loop.watch(self._fd, EVENT_READ, self._ready)

    @property
    def is_open(self) -> bool:
        """Whether `send` can still reach the peer."""
        return self._phase is _OPEN and self._write_error is None

    @property
    def is_closed(self) -> bool:
        """Whether the descriptor is free."""
        return self._phase is _Phase.CLOSED

    @property
    def output_size(self) -> int:
        """Bytes that were sent by us and not yet taken by the kernel."""
        return len(self._output)

    # What the owner does

    def send(self, data: bytes) -> None:
        """Queue bytes for the next `Loop.flush`. On a connection that is closing or closed they are dropped.

        T27: a peer with more than `output_size_max` waiting is cut off.
        """
        if self._phase is not _OPEN or self._write_error is not None or not data:
            return
        output = self._output
        if len(output) + len(data) > self._limits.output_size_max:
            detail = f"more than {self._limits.output_size_max} bytes unsent"
            self._finish(CloseReason.SLOW_READER, detail)
            return
        if not output:
            self._output = data
        elif isinstance(output, bytes):
            self._output = bytearray(output) + data
        else:
            output += data
        self._loop.mark_dirty(self)

    def pause_reading(self) -> None:
        """Leave what comes in the kernel until `resume_reading`: the owner has enough of it to handle (R21)."""
        self._paused = True
        if self._phase is _Phase.OPEN:
            self._update_events()

    def resume_reading(self) -> None:
        """Read again, within the limits. Harmless when not paused."""
        self._paused = False
        if self._phase is _Phase.OPEN:
            self._update_events()

    def close_after_flush(self, detail: str = "") -> None:
        """Take nothing more in, send the rest, then close; all within `linger_ms`. Harmless when repeated."""
        if self._phase is not _Phase.OPEN:
            return
        if self._write_error is not None:
            self._finish(*_blame(self._write_error))
            return
        self._phase = _Phase.FLUSHING
        self._close_reason = CloseReason.PEER_CLOSED if self._eof else CloseReason.CLOSED
        self._close_detail = detail
        self._linger_timer = self._loop.call_later(self._limits.linger_ms, self._linger_over)
        # The flush shuts our side down even when there is nothing to send.
        self._loop.mark_dirty(self)

    def abort(self, reason: CloseReason = CloseReason.ABORTED, detail: str = "") -> None:
        """Close at once; unsent output is lost. Harmless when closed."""
        self._finish(reason, detail)

    # What the loop does

    def flush_output(self) -> None:
        """One write, at the end of the tick. For `Loop.flush` only."""
        if self._phase is _Phase.CLOSED:
            return
        output = self._output
        if output:
            try:
                size = self._sock.send(output)
            except BlockingIOError:
                size = 0
            except OSError as error:
                self._output_broke(error)
                return
            if size == len(output):
                self._output = b""
                if self._stall_timer is None and self._phase is _OPEN:
                    return  # Nothing was waiting before it: nothing else has changed.
            elif size:
                self._keep_unsent(output, size)
        self._judge_output()

    def _keep_unsent(self, output: bytes | bytearray, size: int) -> None:
        """The kernel took the first `size` bytes."""
        if isinstance(output, bytes):
            output = self._output = bytearray(output)
        del output[:size]
        self._progress_ms = self._loop.now_ms()

    def _judge_output(self) -> None:
        """What the output that is left, or gone at last, means for reading, for the time limits and for a close."""
        if self._output:
            self._watch_for_stall()
        else:
            self._cancel_stall_timer()
            if self._phase is _Phase.FLUSHING:
                self._shut_our_side()
                return
        # Judged after the write, since one tick's burst to a peer that reads is no reason to stop.
        if len(self._output) > self._limits.output_size_high:
            self._throttled = True
        elif len(self._output) < self._limits.output_size_low:
            self._throttled = False
        self._update_events()

    def _ready(self, events: int) -> None:
        if events & EVENT_WRITE:
            # Not written here: nothing leaves outside the flush.
            self._loop.mark_dirty(self)
            if not events & EVENT_READ:
                return
        buffer = self._loop.read_buffer
        try:
            size = self._sock.recv_into(buffer, self._limits.read_size)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(*_blame(error))
            return
        if size == 0:
            self._end_of_input()
        elif self._phase is _OPEN:
            # A copy, since the buffer is every connection's and a handler may keep what it gets.
            self.handler.data_received(self, bytes(buffer[:size]))

    def _end_of_input(self) -> None:
        self._eof = True
        if self._write_error is not None:
            self._finish(*_blame(self._write_error))
        elif self._phase is _Phase.LINGERING:
            self._finish(self._close_reason, self._close_detail)
        else:
            self._update_events()
            if self._phase is _Phase.OPEN:
                self.handler.eof_received(self)

    def _output_broke(self, error: OSError) -> None:
        # The peer may have answered before it went away, and its answer is still in the kernel: it is read to
        # its end before the connection closes.
        self._write_error = error
        self._output = b""
        self._throttled = False
        self._cancel_stall_timer()
        if self._eof or self._phase is not _Phase.OPEN:
            self._finish(*_blame(error))
        else:
            self._update_events()

    def _shut_our_side(self) -> None:
        self._phase = _Phase.LINGERING
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._finish(*_blame(error))
            return
        if self._eof:
            self._finish(self._close_reason, self._close_detail)
        else:
            self._update_events()

    def _update_events(self) -> None:
        reads = (
            self._phase is _Phase.OPEN and not self._throttled and not self._paused
        ) or self._phase is _Phase.LINGERING
        events = EVENT_READ if reads and not self._eof else 0
        if self._output:
            events |= EVENT_WRITE
        if events != self._events:
            self._events = events
            self._loop.rewatch(self._fd, events)

    # Time limits

    def _watch_for_stall(self) -> None:
        if self._stall_timer is None:
            # The time of the last progress is kept, not a timer for each write: the timer finds it out.
            self._progress_ms = self._loop.now_ms()
            self._stall_timer = self._loop.call_later(self._limits.output_stall_ms, self._stall_due)

    def _stall_due(self) -> None:
        self._stall_timer = None
        deadline_ms = self._progress_ms + self._limits.output_stall_ms
        if self._loop.now_ms() >= deadline_ms:
            detail = f"took nothing for {self._limits.output_stall_ms} ms"
            self._finish(CloseReason.SLOW_READER, detail)
        else:
            self._stall_timer = self._loop.call_at(deadline_ms, self._stall_due)

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _linger_over(self) -> None:
        if self._output:
            self._finish(CloseReason.SLOW_READER, f"{len(self._output)} bytes unsent at close")
        else:
            self._finish(self._close_reason, self._close_detail)

    def _finish(self, reason: CloseReason, detail: str) -> None:
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._output = b""
        self._cancel_stall_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._loop.unwatch(self._fd)
        self._sock.close()
        if self._on_released is not None:
            self._on_released()
        self._loop.call_soon(partial(self.handler.connection_closed, self, reason, detail))


def _blame(error: OSError) -> tuple[CloseReason, str]:
    """The reason that an operating system's error stands for, and its text."""
    detail = (error.strerror or type(error).__name__).lower()
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return CloseReason.PEER_RESET, detail
    if isinstance(error, TimeoutError):
        return CloseReason.PEER_LOST, detail
    return CloseReason.NETWORK_ERROR, detail


def _peer_address(sock: socket.socket) -> Address:
    address = sock.getpeername()
    # A Unix socket pair, which tests use, has no host and port.
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else ("", 0)


# T26. Names, since not every system has each of them; what is missing falls back to the system's own timing.
_TCP_OPTIONS = (
    # A reply is one small write; waiting for more to fill a packet would only delay it.
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", net_limits.KEEPALIVE_IDLE_S),
    ("TCP_KEEPINTVL", net_limits.KEEPALIVE_INTERVAL_S),
    ("TCP_KEEPCNT", net_limits.KEEPALIVE_PROBE_COUNT),
    ("TCP_USER_TIMEOUT", net_limits.USER_TIMEOUT_MS),
)


def _set_stream_options(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
