"""The shell of a server: sockets and signals around a tick; bank and gateway share it (R21).

Read all that is readable, run the tick (`tick.py`), and only then let anything leave. Callbacks of the loop only note
what came in; all handling happens in the tick, with signals blocked (R12).
"""

import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from paygate.arguments import refuse_remote
from paygate.cli import ExitCode, PaygateExit
from paygate.clock import Now, system_now
from paygate.effects import Effect
from paygate.net.addresses import Address
from paygate.net.capture import CaptureFile
from paygate.net.conn import CloseReason, Connection
from paygate.net.limits import LINK_LIMITS, LISTEN_LIMITS, PEER_LIMITS, ConnectionLimits
from paygate.net.listen import Listener, ListenError, RefuseReason
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals
from paygate.tick import Core, Store, Tick

_NEW_OBJECT_COUNT_MAX: Final = 10_000
"""So many objects more than before have the collector look for cycles: above what the requests of a tick hold until
they are answered, and looked through in some 2 ms."""

_LOOPBACK_LIMITS: Final = replace(LISTEN_LIMITS, connection_count_per_address_max=LISTEN_LIMITS.connection_count_max)
"""On loopback everybody has the same address, so a share for each address would be a share for all (T25)."""


class Server(Tick[Connection]):
    """One server process's sockets and tick."""

    def __init__(
        self,
        program: str,
        loop: Loop,
        core: Core,
        store: Store,
        perform: Callable[[list[Effect]], None],
        *,
        clock: Callable[[], Now] = system_now,
    ) -> None:
        """`perform` gets the role's own effects of a tick after its commits and before its sends."""
        super().__init__(program, core, store, perform, clock)
        self._loop = loop
        self._listener: Listener | None = None

    # -- what the role's server does -------------------------------------------------------------------

    def listen(
        self, host: str, port: int, limits: ConnectionLimits = PEER_LIMITS, *, capture: CaptureFile | None = None
    ) -> Address:
        """Listen, and give the address really bound. Raises PaygateExit if that can't be."""
        refuse_remote(host, "listen on")
        try:
            self._listener = Listener(
                self._loop,
                host,
                port,
                self,
                on_accept=self._accepted,
                on_refused=self._refused,
                limits=_LOOPBACK_LIMITS,
                connection_limits=limits,
                capture=capture,
            )
        except ListenError as error:
            hint = "; choose another with --port, or end the program that holds it"
            raise PaygateExit(f"{error}{hint}", ExitCode.PORT_IN_USE) from None
        return self._listener.host, self._listener.port

    def attach(self, sock: socket.socket, address: Address, limits: ConnectionLimits = LINK_LIMITS) -> int:
        """Take over a socket that we connected to `address`; gives its link ID. The core is told by the caller."""
        # The address is not asked of the socket, which fails if the peer is gone again.
        return self._add(Connection(self._loop, sock, self, limits, peer_address=address))

    def run(self, signals: ServerSignals) -> None:
        """Tick until a drain has ended. Raises what the store or our own bugs raise; nothing is sent then."""
        with _collecting_seldom():
            while not self._has_ended():
                self._loop.run_once(self._wait_ms())
                with signals.blocked():
                    self._handle()
                    self._loop.flush()

    def begin_drain(self) -> None:
        """R12: no new connections; payments in flight end; then `run` returns."""
        if self._drain_deadline_ms is None and self._listener is not None:
            self._listener.close()
        super().begin_drain()

    def close(self) -> None:
        """Cut what is still connected and tell the core, so that the records balance (T22)."""
        for conn in list(self._link_ids):
            conn.abort()
        self._loop.run_once(0)
        self._handle()

    # -- connections -----------------------------------------------------------------------------------

    def data_received(self, conn: Connection, data: bytes) -> None:
        """ConnectionHandler: noted, handled in this tick."""
        self._inbox.append((self._link_ids[conn], data))

    def eof_received(self, conn: Connection) -> None:
        """ConnectionHandler: noted, handled in this tick."""
        self.defer(partial(self._core.receive_eof, self._link_ids[conn]))

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        """ConnectionHandler."""
        self._remove(conn, f"{reason.value}: {detail}" if detail else reason.value)

    def _accepted(self, conn: Connection) -> None:
        link_id = self._add(conn)
        self.defer(partial(self._core.link_connected, link_id, conn.peer_address))

    def _refused(self, address: Address, reason: RefuseReason) -> None:
        self.defer(partial(self._core.link_refused, address, reason.value))

    def _add(self, conn: Connection) -> int:
        conn.handler = self
        return super()._add(conn)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Keep the cycle collector from what it finds nothing in, which took 8 % of a server's time, and 30 ms at once.

    All that a server made before it runs stays for its life, so it is not looked through again. What a payment made
    goes by its reference counts; what does make cycles, such as an error with its traceback, still is found in time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECT_COUNT_MAX, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
