"""Ways in which a server could come to cost more; the tests put them into a running one and see them caught."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import apsw
from costs.wire import frame_size

from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.codec import limits
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.link import Link
from paygate.net.loop import Loop

connections: Final[list[apsw.Connection]] = []
"""Every connection to a database that this process opened."""


@contextlib.contextmanager
def _replaced(owner: Any, name: str, replacement: Callable[[Any], Any]) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, replacement(real))
    try:
        yield
    finally:
        setattr(owner, name, real)


@contextlib.contextmanager
def fsync_each_tick() -> Iterator[None]:
    """One more fsync in each tick."""
    with tempfile.TemporaryFile() as file:

        def replacement(real: Callable[[Loop], None]) -> Callable[[Loop], None]:
            def flush(loop: Loop) -> None:
                os.write(file.fileno(), b"x")
                os.fsync(file.fileno())
                real(loop)

            return flush

        with _replaced(Loop, "flush", replacement):
            yield


@contextlib.contextmanager
def select_each_operation() -> Iterator[None]:
    """One more SELECT for each operation of a store."""

    def replacement(real: Callable[..., Any]) -> Callable[..., Any]:
        def apply(store: Any, operations: Sequence[Any], *rest: Any) -> Any:
            for _ in operations:
                connections[-1].execute("SELECT 1").fetchall()
            return real(store, operations, *rest)

        return apply

    with _replaced(SqliteTokens, "apply", replacement), _replaced(SqliteLedger, "apply", replacement):
        yield


@contextlib.contextmanager
def copy_each_read() -> Iterator[None]:
    """One more copy of all that comes in on a link."""

    def replacement(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda link, data, *rest: real(link, bytearray(data), *rest)

    with _replaced(Link, "receive_data", replacement):
        yield


@contextlib.contextmanager
def send_each_frame() -> Iterator[None]:
    """A send for each frame instead of one for all of a tick's."""

    def replacement(real: Callable[..., int]) -> Callable[..., int]:
        def send(sock: socket.socket, data: bytes | bytearray | memoryview, *rest: Any) -> int:
            done = 0
            while done < len(data):
                end = done + frame_size(bytes(data[done : done + limits.HEADER_SIZE]))
                done += real(sock, data[done:end], *rest)
            return done

        return send

    with _replaced(socket.socket, "send", replacement):
        yield


NO_FAULT: Final = b"0"
Fault = Callable[[], contextlib.AbstractContextManager[None]]
FAULTS: Final[dict[bytes, Fault]] = {
    b"1": fsync_each_tick,
    b"2": select_each_operation,
    b"3": copy_each_read,
    b"4": send_each_frame,
}
"""By the command that puts one in, which takes the one before out."""
