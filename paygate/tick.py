"""A server's tick without its sockets: the store around a pure core, and what happens in which order.

One tick: take all that came in; feed the core; commit all that the tick decided in one transaction; note what is
for the text records, which nobody waits for; and only then send. No reply leaves before what it says is safe. If the
commit fails because the disk is full, each of its operations is tried alone, since what writes nothing needs no room,
and the core refuses what depended on the others (T30); any other failure of the store ends the process at once, before
anything is sent (T31).

The shell of bank and gateway is a tick over sockets; the simulator runs the same tick over links in memory.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from paygate.cli import log
from paygate.clock import Now
from paygate.effects import CloseLink, Commit, Continue, Effect, LinkEffect, Send
from paygate.files.sqlite import StoreFull
from paygate.net.addresses import Address

DRAIN_MS_MAX: Final = 35_000
"""A drain waits for payments in flight, which all end with their 30-second session; then it waits no longer."""
FULL_TOLD_EVERY_MS: Final = 60_000
"""How often the operator is told that the disk is full, which every tick may find again."""
TURNS_MS_MAX: Final = 20
"""How long of a tick goes to links that sent much at once, after everybody else's frames were handled."""


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


class Connection(Protocol):
    """What a tick does to a connection, over whatever it runs."""

    def send(self, data: bytes) -> None:
        """Queue bytes, which leave after the tick."""

    def pause_reading(self) -> None:
        """Take nothing more from the peer until `resume_reading`."""

    def resume_reading(self) -> None:
        """Go on; harmless when not paused."""

    def close_after_flush(self, detail: str = "") -> None:
        """Send what is queued, then close. Harmless when repeated."""


Conn = TypeVar("Conn", bound=Connection)
Handle = Callable[[Now], list[Effect]]
_NO_LINK: Final = 0


class Tick(Generic[Conn]):
    """One server's inbox, core and store. Whoever runs it fills the inbox and says when a tick is."""

    def __init__(
        self,
        program: str,
        core: Core,
        store: Store,
        perform: Callable[[list[Effect]], None],
        clock: Callable[[], Now],
    ) -> None:
        """`perform` gets the role's own effects of a tick after its commits and before its sends."""
        self.program = program
        self._core = core
        self._store = store
        self._perform = perform
        self._clock = clock
        # In order of coming: bytes of a link, or with _NO_LINK whatever else is to be handled.
        self._inbox: list[tuple[int, bytes | Handle]] = []
        self._backlog: dict[int, None] = {}  # links that wait for another turn, in order
        self._connections: dict[int, Conn] = {}
        self._link_ids: dict[Conn, int] = {}
        self._close_reasons: dict[int, str] = {}
        self._next_link_id = _NO_LINK + 1
        self._drain_deadline_ms: int | None = None
        self._full_told_ms: int | None = None

    def defer(self, handle: Handle) -> None:
        """Have something handled in this tick, with all the rest: its effects are committed and performed."""
        self._inbox.append((_NO_LINK, handle))

    def begin_drain(self) -> None:
        """R12: payments in flight end, and nothing new is taken on; twice is harmless."""
        if self._drain_deadline_ms is None:
            self._drain_deadline_ms = self._clock().mono_ms + DRAIN_MS_MAX
            self.defer(self._core.drain)

    def tell(self, text: str) -> None:
        """Tell the operator."""
        log(self.program, text)

    def _handle(self) -> None:
        """One tick: nothing of it is on any connection yet when it returns, or raises."""
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
                self.tell(f"{full}; until then new payments are refused, and no restart is needed")
            return self._core.commit_failed(operations, now)
        return self._core.committed(outcomes, now)

    def _continue_or_close(self, effect: LinkEffect, conn: Connection) -> None:
        if type(effect) is Continue:
            conn.pause_reading()
            self._backlog[effect.link_id] = None
        elif type(effect) is CloseLink:
            self._close_reasons.setdefault(effect.link_id, effect.reason)
            conn.close_after_flush()

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

    def _add(self, conn: Conn) -> int:
        link_id = self._next_link_id
        self._next_link_id += 1
        self._connections[link_id] = conn
        self._link_ids[conn] = link_id
        return link_id

    def _remove(self, conn: Conn, text: str) -> None:
        """The one place where a link ends: its connection is gone, and the core hears of it."""
        link_id = self._link_ids.pop(conn)
        del self._connections[link_id]
        self._backlog.pop(link_id, None)
        text = self._close_reasons.pop(link_id, text)
        self.defer(partial(self._core.link_closed, link_id, text))
