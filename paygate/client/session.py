"""Performs one session's effects: connection, encoder child, alarm and disk around the pure core (R22, R23)."""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from paygate.children import child_argv, child_env
from paygate.cli import ExitCode, PaygateExit
from paygate.client.core import Core
from paygate.client.effects import Connect, Disconnect, Effect, KeepSerial, Save, Seal, Send, StartSession
from paygate.client.pending import PendingStore
from paygate.client.states import State
from paygate.clock import Now
from paygate.codec.buffer import FrameBuffer
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import encode_frame
from paygate.codec.messages import SealCredentials, SealedCredentials
from paygate.files.state_dir import StateError
from paygate.net.addresses import Address, is_loopback
from paygate.net.capture import CaptureFile
from paygate.net.child import Child
from paygate.net.conn import CloseReason, Connection
from paygate.net.connect import Connecting, connect
from paygate.net.loop import Loop, Timer

CONNECT_MS: Final = 5_000
"""A gateway on the same machine answers at once; one that doesn't is down."""
CHILD_GRACE_MS: Final = 1_000
"""An encoder ends when its stdin does; one that has not by then is ended."""


class SessionAlarm(Protocol):
    """What ends a session in time (R10): `paygate.net.signals.Alarm` by SIGALRM, or `LoopAlarm`."""

    def start(self, seconds: float) -> None:
        """Ring once, `seconds` from now; a ring that was set before is replaced."""

    def cancel(self) -> None:
        """Don't ring."""

    def close(self) -> None:
        """Cancel, and free what it holds, before the loop closes."""


class LoopAlarm:
    """A session's clock for programs whose signals are their own: a timer of the loop."""

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: Timer | None = None

    def start(self, seconds: float) -> None:
        """Ring once, `seconds` from now; a ring that was set before is replaced."""
        self.cancel()
        self._timer = self._loop.call_later(round(seconds * 1_000), self._callback)

    def cancel(self) -> None:
        """Don't ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Cancel."""
        self.cancel()


class Encoder:
    """The encoder child. Started early, since an interpreter's start would otherwise be waited for."""

    def __init__(
        self, loop: Loop, on_sealed: Callable[[bytes], None], on_failed: Callable[[str], None], argv: Sequence[str]
    ) -> None:
        """One of the callbacks hears what became of the request given to `seal`. Raises OSError."""
        self._loop = loop
        self._on_sealed = on_sealed
        self._on_failed = on_failed
        self._buffer = FrameBuffer()
        self._child = Child(loop, argv, on_data=self._data, on_exit=self._exited, env=child_env())

    def seal(self, request: SealCredentials) -> None:
        """Ask for the envelope."""
        if not self._child.is_running:
            self._exited(self._child.returncode or 0)
            return
        self._child.send(encode_frame(request, 1))

    def close(self) -> None:
        """End the child and wait for it, a bounded time."""
        self._on_sealed, self._on_failed = _ignore_bytes, _ignore_text
        self._child.close_stdin()
        is_late: list[bool] = []
        timer = self._loop.call_later(CHILD_GRACE_MS, partial(is_late.append, True))
        while self._child.is_running and not is_late:
            self._loop.flush()
            self._loop.run_once()
        timer.cancel()
        if self._child.is_running:
            self._child.terminate(grace_ms=0)
            while self._child.is_running:
                self._loop.run_once()

    def _data(self, data: bytes) -> None:
        self._buffer.receive_data(data)
        try:
            frame = self._buffer.next_frame()
            message = frame.message() if frame else None
        except RemoteProtocolError as error:
            self._on_failed(f"the encoder gave no envelope ({error.text})")
            return
        if isinstance(message, SealedCredentials):
            self._on_sealed(message.envelope)

    def _exited(self, returncode: int) -> None:
        self._on_failed(f"The encoder ended with status {returncode}")


def _ignore_bytes(_data: bytes) -> None:
    """Nobody waits for the envelope any more."""


def _ignore_text(_text: str) -> None:
    """Nobody waits for the envelope any more."""


ENCODER_ARGV: Final = child_argv("paygate.client.encoder")


class Session:
    """One core at work. Everything runs inside `run_once`."""

    def __init__(
        self,
        loop: Loop,
        core: Core,
        store: PendingStore,
        address: Address,
        alarm: SessionAlarm,
        clock: Callable[[], Now],
        *,
        encoder_argv: Sequence[str] | None = None,
        capture: CaptureFile | None = None,
    ) -> None:
        """`encoder_argv`: how to start an encoder, for sessions that will pay. Raises PaygateExit."""
        if not is_loopback(address[0]):
            raise PaygateExit(
                f"will not connect to {address[0]}: links are not encrypted by TLS yet, so only "
                "loopback addresses such as 127.0.0.1 are allowed",
                ExitCode.USAGE,
            )
        self.core = core
        self.session_end_ms: int | None = None
        """On the monotonic clock; None before there is a session."""
        self.on_sending: Callable[[], None] | None = None
        """Called just before a payment is written down for the first time (R11)."""
        self._loop = loop
        self._store = store
        self._address = address
        self._alarm = alarm
        self._clock = clock
        self._capture = capture
        self._connecting: Connecting | None = None
        self._conn: Connection | None = None
        self._conns: set[Connection] = set()  # with those that are closing
        self._encoder: Encoder | None = None
        if encoder_argv is not None:
            try:
                self._encoder = Encoder(loop, self._sealed, self._seal_failed, encoder_argv)
            except OSError as error:
                raise PaygateExit(f"could not start the encoder: {error.strerror}") from None
        self.feed(core.start(clock()))

    @property
    def is_over(self) -> bool:
        """Whether the core has a result."""
        return self.core.state is State.ENDED

    def run_once(self, timeout_ms: int | None = None) -> None:
        """One tick: at most `timeout_ms`, or until something happens."""
        now = self._clock()
        deadline_ms = self.core.next_deadline_ms()
        if deadline_ms is not None:
            due_in_ms = max(0, deadline_ms - now.mono_ms)
            timeout_ms = due_in_ms if timeout_ms is None else min(timeout_ms, due_in_ms)
        self._loop.flush()
        self._loop.run_once(timeout_ms)
        self.feed(self.core.receive_timer(self._clock()))
        self._loop.flush()

    def time_up(self) -> None:
        """The alarm has rung."""
        if not self.is_over:
            self.feed(self.core.time_up(self._clock()))

    def close(self) -> None:
        """Let go of everything; a payment that was sent stays on disk."""
        self._alarm.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._conn = None
        self._loop.flush()
        for conn in self._conns:
            conn.abort()
        if self._encoder is not None:
            self._encoder.close()

    def feed(self, effects: Sequence[Effect]) -> None:
        """Perform effects in order, and those that come of them."""
        queue = deque(effects)
        while queue:
            queue.extend(self._perform(queue.popleft()))
        if self.is_over:
            self._alarm.cancel()

    # -- effects ---------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Connect):
            host, port = self._address
            self._connecting = connect(
                self._loop,
                host,
                port,
                timeout_ms=CONNECT_MS,
                on_connected=self._connected,
                on_failed=self._connect_failed,
                capture=self._capture,
            )
        elif isinstance(effect, Send):
            if self._conn is not None:
                self._conn.send(effect.data)
        elif isinstance(effect, Disconnect):
            if self._conn is not None:
                self._conn.close_after_flush()
                self._conn = None
        elif isinstance(effect, StartSession):
            self.session_end_ms = self._clock().mono_ms + effect.left_ms
            self._alarm.start(effect.left_ms / 1_000)
        elif isinstance(effect, Seal):
            assert self._encoder is not None
            self._encoder.seal(effect.request)
        elif isinstance(effect, KeepSerial):
            self._store.keep_serial(effect.root, effect.serial)
        else:
            return self._save(effect)
        return []

    def _save(self, effect: Save) -> list[Effect]:
        if self.core.state is State.SAVING and self.on_sending is not None:
            self.on_sending()
        try:
            self._store.save(effect.payment)
        except StateError as error:
            return self.core.save_failed(str(error), self._clock())
        return self.core.saved(self._clock())

    # -- what the loop tells ---------------------------------------------------------------------------

    def data_received(self, conn: Connection, data: bytes) -> None:
        """ConnectionHandler."""
        if conn is self._conn:
            self.feed(self.core.receive_data(data, self._clock()))

    def eof_received(self, conn: Connection) -> None:
        """ConnectionHandler. The core has lost its link by it."""
        if conn is self._conn:
            self.feed(self.core.receive_eof(self._clock()))
        conn.close_after_flush()

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        """ConnectionHandler."""
        self._conns.discard(conn)
        if conn is self._conn:
            self._conn = None
            text = f"{reason.value} ({detail})" if detail else reason.value
            self.feed(self.core.connection_lost(f"the connection to the gateway ended: {text}", self._clock()))

    def _connected(self, sock: socket.socket) -> None:
        self._connecting = None
        self._conn = Connection(self._loop, sock, self)
        self._conns.add(self._conn)
        self.feed(self.core.connected(self._clock()))

    def _connect_failed(self, text: str) -> None:
        self._connecting = None
        self.feed(self.core.connection_lost(text, self._clock()))

    def _sealed(self, envelope: bytes) -> None:
        if self.core.state in (State.SEALING, State.ENDED):
            self.feed(self.core.sealed(envelope, self._clock()))

    def _seal_failed(self, text: str) -> None:
        # An encoder that ends early is told when an envelope is asked of it.
        if self.core.state is State.SEALING:
            self.feed(self.core.seal_failed(text, self._clock()))
