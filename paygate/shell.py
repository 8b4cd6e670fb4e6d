"""The shell of a server: sockets, time and the store around a pure core; bank and gateway share it (R21).

One tick: read all that is readable; feed the core; commit all that the tick decided in one transaction; note what is
for the text records, which nobody waits for; and only then send. No reply leaves before what it says is safe. If the
commit fails because the disk is full, each of its operations is tried alone, since what writes nothing needs no room,
and the core refuses what depended on the others (T30); any other failure of the store ends the process at once, before
anything is sent (T31).

Callbacks of the loop only note what came in; all handling happens in `_handle`, with signals blocked (R12).
"""

import gc
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from paygate.arguments import refuse_remote
from paygate.cli import ExitCode, PaygateExit, log
from paygate.clock import Now, system_now
from paygate.effects import CloseLink, Commit, Continue, Effect, LinkEffect, Send
from paygate.files.sqlite import StoreFull
from paygate.net.addresses import Address
from paygate.net.capture import CaptureFile
from paygate.net.conn import CloseReason, Connection
from paygate.net.limits import LINK_LIMITS, LISTEN_LIMITS, PEER_LIMITS, ConnectionLimits
from paygate.net.listen import Listener, ListenError, RefuseReason
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals

DRAIN_MS_MAX: Final = 35_000
"""A drain waits for payments in flight, which all end with their 30-second session; then it waits no longer."""
FULL_TOLD_EVERY_MS: Final = 60_000
"""How often the operator is told that the disk is full, which every tick may find again."""


TURNS_MS_MAX: Final = 20
"""How long of a tick goes to links that sent much at once, after everybody else's frames were handled."""


_NEW_OBJECT_COUNT_MAX: Final = 10_000
"""So many objects more than before have the collector look for cycles: above what the requests of a tick hold until
they are answered, and looked through in some 2 ms."""


_LOOPBACK_LIMITS: Final = replace(LISTEN_LIMITS, connection_count_per_address_max=LISTEN_LIMITS.connection_count_max)
"""On loopback everybody has the same address, so a share for each address would be a share for all (T25)."""


class Core(Protocol):
    """A role without sockets, files, clock or randomness: bytes and time in, effects out."""

    def link_connected(self, link_id: int, address: Address, now: Now) -> list[Effect]:
        """A peer connected to us."""

    def link_refused(self, address: Address, reason: str, now: Now) -> list[Effect]:
        """A peer was turned away at once: too many connections."""

    def receive_data(self, link_id: int, data: bytes, now: Now) -> list[Effect]:
        """Bytes came on a link."""

    def receive_eof(self, link_id: int, now: Now) -> list[Effect]:
        """A link's stream has ended."""

    def link_closed(self, link_id: int, reason: str, now: Now) -> list[Effect]:
        """A link's connection is gone, whoever closed it."""

    def receive_timer(self, now: Now) -> list[Effect]:
        """The time is now `now`; called when `next_deadline_ms` has come, and harmless earlier."""

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` has work, on the monotonic clock; None for never."""

    def committed(self, outcomes: Sequence[Any], now: Now) -> list[Effect]:
        """The store's outcomes of the tick's commits, in their order. May want further commits."""

    def commit_failed(self, operations: Sequence[Any], now: Now) -> list[Effect]:
        """The store was full and changed nothing: refuse what depended on these operations (one at a time)."""

    def link_effects(self) -> list[LinkEffect]:
        """What all of the tick came to on links: what to send, which have more, which are closed.

        Asked once a tick, when no commit is left, so that a link has one `Send` at most.
        """

    def drain(self, now: Now) -> list[Effect]:
        """Take nothing new on, end what is under way (R12)."""

    @property
    def is_drained(self) -> bool:
        """Whether nothing is under way that somebody waits for."""


class Store(Protocol):
    """What holds a server's durable truth."""

    def apply(self, operations: Sequence[Any], now: Now) -> list[Any]:
        """Apply a batch in one durable transaction and give its outcomes in order.

        Raises StoreFull having changed nothing; any other StoreError means: stop at once.
        """


_Handle = Callable[[Now], list[Effect]]
_NO_LINK: Final = 0


class Server:
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
        self.program = program
        self._loop = loop
        self._core = core
        self._store = store
        self._perform = perform
        self._clock = clock
        # In order of coming: bytes of a link, or with _NO_LINK whatever else is to be handled.
        self._inbox: list[tuple[int, bytes | _Handle]] = []
        self._backlog: dict[int, None] = {}  # links that wait for another turn, in order
        self._connections: dict[int, Connection] = {}
        self._link_ids: dict[Connection, int] = {}
        self._close_reasons: dict[int, str] = {}
        self._next_link_id = _NO_LINK + 1
        self._listener: Listener | None = None
        self._drain_deadline_ms: int | None = None
        self._full_told_ms: int | None = None

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

    def defer(self, handle: _Handle) -> None:
        """Have something handled in this tick, with all the rest: its effects are committed and performed."""
        self._inbox.append((_NO_LINK, handle))

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
        if self._drain_deadline_ms is None:
            self._drain_deadline_ms = self._clock().mono_ms + DRAIN_MS_MAX
            if self._listener is not None:
                self._listener.close()
            self.defer(self._core.drain)

    def close(self) -> None:
        """Cut what is still connected and tell the core, so that the records balance (T22)."""
        for conn in list(self._link_ids):
            conn.abort()
        self._loop.run_once(0)
        self._handle()

    # -- the tick --------------------------------------------------------------------------------------

    def _handle(self) -> None:
        now = self._clock()
        effects: list[Effect] = []
        inbox, self._inbox = self._inbox, []
        receive_data = self._core.receive_data
        for link_id, received in inbox:
            effects += receive_data(link_id, received, now) if isinstance(received, bytes) else received(now)
        turns = self._take_turns(effects, now) if self._backlog else []
        deadline_ms = self._core.next_deadline_ms()
        if deadline_ms is not None and now.mono_ms >= deadline_ms:
            effects += self._core.receive_timer(now)
        self._perform(self._commit(effects, now))
        connections = self._connections
        for effect in self._core.link_effects():
            conn = connections.get(effect.link_id)
            if conn is None:
                continue  # It may have broken since; the core hears that in its own time.
            if type(effect) is Send:
                conn.send(effect.data)
            else:
                self._continue_or_close(effect, conn)
        for link_id in turns:
            if link_id not in self._backlog and link_id in self._connections:
                self._connections[link_id].resume_reading()

    def _take_turns(self, effects: list[Effect], now: Now) -> list[int]:
        """Further turns of links that sent much at once, while the tick has time; gives who had one.

        What others sent in this tick was handled before: whoever asks one thing at a time never waits behind
        those who ask a thousand (R21).
        """
        turns: list[int] = []
        for link_id in list(self._backlog):
            if turns and self._clock().mono_ms >= now.mono_ms + TURNS_MS_MAX:
                break
            del self._backlog[link_id]
            turns.append(link_id)
            effects += self._core.receive_data(link_id, b"", now)
        return turns

    def _commit(self, effects: list[Effect], now: Now) -> list[Effect]:
        """Commit until no commit is left; gives the role's other effects, in order."""
        of_role: list[Effect] = []
        while effects:
            operations = [effect.operation for effect in effects if type(effect) is Commit]
            if len(operations) < len(effects):
                of_role += [effect for effect in effects if type(effect) is not Commit]
            effects = self._apply(operations, now) if operations else []
        return of_role

    def _apply(self, operations: list[Any], now: Now) -> list[Effect]:
        try:
            outcomes = self._store.apply(operations, now)
        except StoreFull as full:
            if len(operations) > 1:
                return [effect for operation in operations for effect in self._apply([operation], now)]
            if self._full_told_ms is None or now.mono_ms >= self._full_told_ms + FULL_TOLD_EVERY_MS:
                self._full_told_ms = now.mono_ms
                log(self.program, f"{full}; until then new payments are refused, and no restart is needed")
            return self._core.commit_failed(operations, now)
        return self._core.committed(outcomes, now)

    def _wait_ms(self) -> int | None:
        if self._inbox or self._backlog:
            return 0
        now_ms = self._clock().mono_ms
        deadlines = [] if (deadline_ms := self._core.next_deadline_ms()) is None else [deadline_ms]
        # A drain's deadline that is over has nothing more to wake us for: the connections are closing.
        if self._drain_deadline_ms is not None and self._drain_deadline_ms > now_ms:
            deadlines.append(self._drain_deadline_ms)
        return max(0, min(deadlines) - now_ms) if deadlines else None

    def _has_ended(self) -> bool:
        if self._drain_deadline_ms is None or self._inbox:
            return False
        if not self._core.is_drained and self._clock().mono_ms < self._drain_deadline_ms:
            return False
        for conn in self._link_ids:
            conn.close_after_flush(f"{self.program} is shutting down")
        # Each connection lingers for a bounded time, so this ends.
        return not self._link_ids

    # -- connections -----------------------------------------------------------------------------------

    def data_received(self, conn: Connection, data: bytes) -> None:
        """ConnectionHandler: noted, handled in this tick."""
        self._inbox.append((self._link_ids[conn], data))

    def eof_received(self, conn: Connection) -> None:
        """ConnectionHandler: noted, handled in this tick."""
        self.defer(partial(self._core.receive_eof, self._link_ids[conn]))

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        """ConnectionHandler: the one place where a link ends."""
        link_id = self._link_ids.pop(conn)
        del self._connections[link_id]
        self._backlog.pop(link_id, None)
        text = f"{reason.value}: {detail}" if detail else reason.value
        text = self._close_reasons.pop(link_id, text)
        self.defer(partial(self._core.link_closed, link_id, text))

    def _accepted(self, conn: Connection) -> None:
        link_id = self._add(conn)
        self.defer(partial(self._core.link_connected, link_id, conn.peer_address))

    def _refused(self, address: Address, reason: RefuseReason) -> None:
        self.defer(partial(self._core.link_refused, address, reason.value))

    def _add(self, conn: Connection) -> int:
        conn.handler = self
        link_id = self._next_link_id
        self._next_link_id += 1
        self._connections[link_id] = conn
        self._link_ids[conn] = link_id
        return link_id

    def _continue_or_close(self, effect: LinkEffect, conn: Connection) -> None:
        if type(effect) is Continue:
            conn.pause_reading()
            self._backlog[effect.link_id] = None
        elif type(effect) is CloseLink:
            self._close_reasons.setdefault(effect.link_id, effect.reason)
            conn.close_after_flush()


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
