"""Connecting without blocking, and how long to wait before trying again."""

import errno
import os
import random
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from paygate.net.addresses import format_host_port
from paygate.net.capture import CaptureFile
from paygate.net.loop import EVENT_WRITE, Loop, Timer


def connect(
    loop: Loop,
    host: str,
    port: int,
    *,
    timeout_ms: int,
    on_connected: Callable[[socket.socket], None],
    on_failed: Callable[[str], None],
    capture: CaptureFile | None = None,
) -> "Connecting":
    """Connect to the first of the host's addresses that answers, within `timeout_ms` for all of them.

    Exactly one of the two callbacks is called, from the loop and never from inside this call, unless cancelled
    first. `on_connected` owns the socket and makes a Connection of it. `on_failed` gets one readable line.

    A name is resolved before this returns and may take the resolver's time; an address doesn't. `capture` takes the
    connection down, once there is one.
    """
    return Connecting(
        loop,
        host,
        port,
        timeout_ms=timeout_ms,
        on_connected=on_connected,
        on_failed=on_failed,
        capture=capture,
    )


class Connecting:
    """One attempt in progress. Made by `connect`."""

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        *,
        timeout_ms: int,
        on_connected: Callable[[socket.socket], None],
        on_failed: Callable[[str], None],
        capture: CaptureFile | None,
    ) -> None:
        self._loop = loop
        self._name = format_host_port(host, port)
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._capture = capture
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._failures: list[str] = []
        self._candidates: deque[tuple[int, Any]] = deque()
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._failures.append((error.strerror or str(error)).lower())
        else:
            self._candidates.extend((family, address) for family, _, _, _, address in resolved)
        # Each address has an equal share of the time, so that a silent first one leaves some for the second.
        self._share_ms = timeout_ms // max(1, len(self._candidates))
        self._soon: Timer | None = loop.call_soon(self._try_next)

    def cancel(self) -> None:
        """Give up; neither callback is called any more. Harmless when the attempt is over."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        sock = self._leave_socket()
        if sock is not None:
            sock.close()
        self._candidates.clear()

    def _try_next(self) -> None:
        self._soon = None
        while self._candidates:
            family, address = self._candidates.popleft()
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._failed(address, error.errno or 0)
                continue
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code not in (0, errno.EINPROGRESS):
                sock.close()
                self._failed(address, code)
                continue
            # Writable means decided, also when it was decided at once.
            self._sock = sock
            self._timer = self._loop.call_later(self._share_ms, partial(self._timed_out, address))
            self._loop.watch(sock.fileno(), EVENT_WRITE, partial(self._decided, address))
            return
        reasons = "; ".join(dict.fromkeys(self._failures)) or "no address"
        self._on_failed(f"cannot connect to {self._name}: {reasons}")

    def _decided(self, address: Any, _events: int) -> None:
        sock = self._leave_socket()
        assert sock is not None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and _is_self_connected(sock):
            code = errno.ECONNREFUSED
        if code == 0:
            self._candidates.clear()
            if self._capture is not None:
                sock = self._capture.connected(sock, address)
            self._on_connected(sock)
        else:
            sock.close()
            self._failed(address, code)
            self._try_next()

    def _timed_out(self, address: Any) -> None:
        sock = self._leave_socket()
        assert sock is not None
        sock.close()
        self._failed(address, errno.ETIMEDOUT)
        self._try_next()

    def _failed(self, address: Any, code: int) -> None:
        text = os.strerror(code).lower()
        where = format_host_port(address[0], address[1])
        # The address is worth saying only when it isn't what was asked for.
        self._failures.append(text if where == self._name else f"{where}: {text}")

    def _leave_socket(self) -> socket.socket | None:
        """Stop watching and timing the socket; whoever gets it owns it."""
        sock, self._sock = self._sock, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if sock is not None:
            self._loop.unwatch(sock.fileno())
        return sock


def _is_self_connected(sock: socket.socket) -> bool:
    """Whether TCP joined the socket to itself: on one host, with nobody listening, both ports may be the same."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # the peer is gone already; the first read will say so


class Backoff:
    """Delays before the next attempt: exponential, capped, with full jitter.

    Full jitter (any delay from 0 to the bound) spreads peers that lost the same server at the same instant.
    `randomness` is an argument, so that a simulation can replay it.
    """

    def __init__(self, base_ms: int, cap_ms: int, randomness: random.Random) -> None:
        assert 0 < base_ms <= cap_ms
        self._base_ms = base_ms
        self._cap_ms = cap_ms
        self._randomness = randomness
        self._bound_ms = base_ms

    def next_delay_ms(self) -> int:
        """How long to wait now; the bound of the next one doubles, up to `cap_ms`."""
        bound_ms = self._bound_ms
        self._bound_ms = min(bound_ms * 2, self._cap_ms)
        return self._randomness.randint(0, bound_ms)

    def reset(self) -> None:
        """Start again from `base_ms`: the peer was reached."""
        self._bound_ms = self._base_ms
