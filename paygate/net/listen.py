"""Listening sockets: accepting within limits, and never spinning when there is nothing left to accept with (T25)."""

import enum
import errno
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

from paygate.net.addresses import Address, address_group, format_host_port
from paygate.net.capture import CaptureFile
from paygate.net.conn import Connection, ConnectionHandler
from paygate.net.limits import LISTEN_LIMITS, PEER_LIMITS, ConnectionLimits, ListenLimits
from paygate.net.loop import EVENT_READ, Loop, Timer


class ListenError(Exception):
    """A listening socket could not be opened. Its text says where and why, for a person."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        self.host = host
        self.port = port
        self.errno = error.errno
        meaning = (error.strerror or str(error)).lower()
        super().__init__(f"cannot listen on {format_host_port(host, port)}: {meaning}")


class RefuseReason(enum.Enum):
    """Why a connection was closed at once after it was accepted; the value is the text for a log."""

    TOO_MANY = "too many connections"
    TOO_MANY_FROM_ADDRESS = "too many connections from this address"
    NO_DESCRIPTORS = "out of file descriptors"


# accept() reports these for a connection that died while it waited, or that the network lost (accept(2)); the
# next one may be well.
_TRY_NEXT_ERRNOS = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
    }
)

# accept() reports these when we or the system have nothing left; the connection stays in the queue.
_EXHAUSTED_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """A listening socket whose accepted connections speak to `handler`.

    `on_accept(conn)` hears each new connection before its first byte is read, and may give it another handler or
    abort it. `on_refused(address, reason)` hears each that was turned away. With port 0 the system picks one;
    `port` tells which. `capture` takes the accepted connections down. Raises ListenError.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        handler: ConnectionHandler,
        *,
        on_accept: Callable[[Connection], None],
        on_refused: Callable[[Address, RefuseReason], None],
        limits: ListenLimits = LISTEN_LIMITS,
        connection_limits: ConnectionLimits = PEER_LIMITS,
        capture: CaptureFile | None = None,
    ) -> None:
        self._loop = loop
        self._handler = handler
        self._on_accept = on_accept
        self._on_refused = on_refused
        self._limits = limits
        self._connection_limits = connection_limits
        self._capture = capture
        self._count_by_group: Counter[str] = Counter()
        self._connection_count = 0
        self._pause_timer: Timer | None = None
        self._is_paused = False
        self._is_closed = False
        try:
            self._sock = _open_socket(host, port, limits.backlog_count)
        except OSError as error:
            raise ListenError(host, port, error) from error
        self._spare_fd: int | None = None
        self._keep_spare()
        address = self._sock.getsockname()
        self.host: str = address[0]
        self.port: int = address[1]
        loop.watch(self._sock.fileno(), EVENT_READ, self._ready)

    @property
    def connection_count(self) -> int:
        """Accepted connections that are not yet closed."""
        return self._connection_count

    def pause(self) -> None:
        """Leave new connections in the kernel's queue until `resume`."""
        self._is_paused = True
        self._update_events()

    def resume(self) -> None:
        """Accept again."""
        self._is_paused = False
        self._update_events()

    def close(self) -> None:
        """Stop listening and free the port; accepted connections live on (R12: a drain). Harmless when repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._give_up_spare()

    def _ready(self, _events: int) -> None:
        for _ in range(self._limits.accept_count_per_tick):
            # A callback may have closed or paused us in the middle of the queue.
            if self._is_closed or self._is_paused:
                return
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _TRY_NEXT_ERRNOS:
                    continue
                if error.errno in _EXHAUSTED_ERRNOS:
                    self._exhausted()
                    return
                raise
            self._accepted(sock, (address[0], address[1]))

    def _accepted(self, sock: socket.socket, address: Address) -> None:
        group = address_group(address[0])
        reason = self._refusal(group)
        if reason is not None:
            sock.close()
            self._on_refused(address, reason)
            return
        if self._capture is not None:
            sock = self._capture.accepted(sock, address)
        conn = Connection(
            self._loop,
            sock,
            self._handler,
            self._connection_limits,
            peer_address=address,
            on_released=partial(self._released, group),
        )
        self._connection_count += 1
        self._count_by_group[group] += 1
        self._on_accept(conn)

    def _refusal(self, group: str) -> RefuseReason | None:
        if self._connection_count >= self._limits.connection_count_max:
            return RefuseReason.TOO_MANY
        if self._count_by_group[group] >= self._limits.connection_count_per_address_max:
            return RefuseReason.TOO_MANY_FROM_ADDRESS
        return None

    def _released(self, group: str) -> None:
        self._connection_count -= 1
        self._count_by_group[group] -= 1
        if not self._count_by_group[group]:
            del self._count_by_group[group]

    # Out of descriptors

    def _exhausted(self) -> None:
        # The queue can't be emptied without a descriptor, and a listener with a queue is always ready: it would
        # spin. The spare lets one peer be told (by closing) instead of left waiting; then we pause.
        self._give_up_spare()
        try:
            sock, address = self._sock.accept()
        except OSError:
            pass  # somebody else took the descriptor, or the peer left; pausing is all that is left
        else:
            sock.close()
            self._on_refused((address[0], address[1]), RefuseReason.NO_DESCRIPTORS)
        self._keep_spare()
        if not self._is_closed and self._pause_timer is None:
            self._pause_timer = self._loop.call_later(self._limits.pause_ms, self._pause_over)
            self._update_events()

    def _pause_over(self) -> None:
        self._pause_timer = None
        self._keep_spare()
        self._update_events()

    def _keep_spare(self) -> None:
        if self._spare_fd is None and not self._is_closed:
            try:
                self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._spare_fd = None  # tried again after the pause

    def _give_up_spare(self) -> None:
        if self._spare_fd is not None:
            os.close(self._spare_fd)
            self._spare_fd = None

    def _update_events(self) -> None:
        if not self._is_closed:
            waits = self._is_paused or self._pause_timer is not None
            self._loop.rewatch(self._sock.fileno(), 0 if waits else EVENT_READ)


def raise_descriptor_limit(count: int) -> int:
    """Ask for `count` descriptors for this process, as far as the hard limit lets us; returns what we have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return soft
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _open_socket(host: str, port: int, backlog_count: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        # A restart must not wait for the last run's connections to leave TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One family a socket, so that an address in the log is what it looks like.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog_count)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
