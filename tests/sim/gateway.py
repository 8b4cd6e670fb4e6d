"""An honest gateway in a run: the real core and token store, and its connection to the bank."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sim.agenda import MS, SECOND
from sim.network import End
from sim.plan import BANK, GatewayPlan
from sim.server import Machine, Process

from paygate.clock import Now
from paygate.codec.codes import Role
from paygate.effects import Effect
from paygate.files.sqlite import StoreFull
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.core import GatewayCore
from paygate.gateway.server import RECONNECT_BASE_MS, RECONNECT_MS_MAX
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import CancelToken, IssueToken, Operation, Outcome, TokenState, TokenTaken
from paygate.net.connect import Backoff

if TYPE_CHECKING:
    from sim.world import World

STORE_PATH: Final = Path("tokens.sqlite")


class _WatchedTokens:
    """The token store, with the judge looking at what it gives."""

    def __init__(self, world: "World", gateway_id: str, store: SqliteTokens) -> None:
        self._world = world
        self._gateway_id = gateway_id
        self._store = store

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        self._world.judge.gateway_applying(self._gateway_id, operations)
        outcomes = self._store.apply(operations, now)
        self._world.judge.gateway_applied(self._gateway_id, self._store, outcomes, now)
        return outcomes

    def close(self) -> None:
        self._store.close()


class GatewayProcess(Process):
    """One life of a gateway. As `gateway/server.py`, it keeps one connection to the bank, with back-off."""

    core: GatewayCore
    machine: "GatewayMachine"

    def __init__(self, machine: "GatewayMachine", core: GatewayCore, store: _WatchedTokens) -> None:
        super().__init__(machine, core, store, lambda effects: None)
        self._watched_store = store
        self._bank_end: End | None = None
        self._is_waiting = False  # to connect
        self._backoff = Backoff(RECONNECT_BASE_MS, RECONNECT_MS_MAX, machine.source)
        self._connect()

    def _connect(self) -> None:
        self._is_waiting = False
        self._bank_end = self.machine.world.network.connect(self, BANK)

    def _connect_later(self) -> None:
        if self._bank_end is None and not self._is_waiting and self.core.bank_is_wanted:
            self._is_waiting = True
            delay_us = self._backoff.next_delay_ms() * MS
            self.machine.world.agenda.later(delay_us, lambda: self.machine.run(self, self._connect))

    def on_connected(self, end: End) -> None:
        if end is not self._bank_end:
            super().on_connected(end)
            return
        link_id = self._add(end)
        self.defer(lambda now: self.core.bank_connected(link_id, now))
        self.wake()

    def on_closed(self, end: End, reason: str) -> None:
        if end in self._link_ids:
            super().on_closed(end, reason)
        if end is self._bank_end:
            self._bank_end = None
            self._connect_later()  # or after the tick in which the core hears of it

    def look_at_lines(self) -> None:
        """Take in what merchants wrote."""
        if self.machine.lines:
            self.defer(self._take_lines_in)
            self.wake()

    def _take_lines_in(self, now: Now) -> list[Effect]:
        lines = self.machine.lines
        judge = self.machine.world.judge
        while lines:
            try:
                taken = self._watched_store.apply([lines[0]], now)[0]
            except StoreFull:
                self.machine.world.agenda.later(SECOND, lambda: self.machine.run(self, self.look_at_lines))
                break
            line = lines.pop(0)
            assert isinstance(taken, TokenTaken)
            if isinstance(line, IssueToken):
                judge.token_issued(self.name, line.token)
            elif taken.token is not None and taken.token.state is TokenState.CANCELLED:
                judge.token_cancelled(self.name, line.token.transaction_id)
        return []

    def after_tick(self) -> None:
        if self.core.bank.is_open:
            self._backoff.reset()
        self._connect_later()


class GatewayMachine(Machine):
    """A gateway's machine."""

    role = Role.GATEWAY
    process: GatewayProcess | None
    store: SqliteTokens | None

    def __init__(self, world: "World", plan: GatewayPlan, image: Any, wall_wrong_ms: int) -> None:
        super().__init__(world, plan.gateway_id, image, wall_wrong_ms)
        self.plan = plan
        self.lines: list[IssueToken | CancelToken] = []
        """What merchants wrote and the store has not taken in yet."""

    @staticmethod
    def open_empty(vfs: str) -> SqliteTokens:
        return SqliteTokens(STORE_PATH, vfs=vfs)

    def make_process(self) -> GatewayProcess:
        store = self.store
        assert store is not None
        identity = GatewayIdentity(self.plan.gateway_id, BANK, self.plan.link_key)
        core = GatewayCore(identity, self.source.randbytes, self.source.random)
        process = GatewayProcess(self, core, _WatchedTokens(self.world, self.name, store))
        process.defer(lambda now: core.resume(store.payments_in_flight(), now))
        process.look_at_lines()
        return process

    def add_line(self, operation: IssueToken | CancelToken) -> None:
        """A merchant adds a line to the records; the gateway takes it in when it can."""
        self.lines.append(operation)
        if self.process is not None:
            self.process.look_at_lines()
