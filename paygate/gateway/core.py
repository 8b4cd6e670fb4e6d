"""The gateway's mind: clients' questions, payments in flight, what the bank says of them; no socket, clock or file.

Strategy: every decision about a token is an operation of the store, committed before anything that depends on it
leaves. What is in memory only is what a crash may forget: sessions, who waits for an answer, timers. A payment in
flight is durable, so after a restart it is found and resolved.

In doubt (design: In doubt): the bank has until `resolve_at_ms`; then ResolveRequest is sent, again and again with
capped, jittered back-off until it is answered. The client hears PENDING at `pending_at_ms`, in time before its own
alarm (R10). Results are matched by payment ID, not by link or request, so a late one still counts.

Here is what the shell calls; `client_side` answers the clients, `bank_side` keeps the link to the bank.
"""

from collections.abc import Callable, Sequence
from typing import Any

from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.messages import ResolveResult, TransferResult
from paygate.effects import Effect, LinkEffect, LogLine
from paygate.gateway.bank_side import BankSide, GatewayIdentity
from paygate.gateway.client_side import ClientSide
from paygate.gateway.effects import ConnectionRecord
from paygate.gateway.flights import Flights
from paygate.gateway.sessions import Sessions
from paygate.gateway.tokens import Operation, Payment, StoreUnavailable
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, ReplyReceived, RequestReceived
from paygate.link_states import TURN_FRAME_COUNT_MAX
from paygate.links import LinkTable
from paygate.net.addresses import Address


class GatewayCore:
    """Everything the gateway decides. `random_bytes` and `jitter` (a float in [0, 1)) are its randomness."""

    def __init__(
        self,
        identity: GatewayIdentity,
        random_bytes: Callable[[int], bytes],
        jitter: Callable[[], float],
        *,
        session_ms: int = limits.SESSION_MS,
    ) -> None:
        self._gateway_id = identity.gateway_id
        self._links = LinkTable()
        self._client_addresses: dict[int, Address] = {}
        self._sessions = Sessions(random_bytes, session_ms)
        self._flights = Flights(jitter)
        self.bank = BankSide(identity, self._links, self._flights)
        """The link to the bank."""
        self._clients = ClientSide(identity, self._links, self._sessions, self._flights, self.bank)
        self._answering = self._clients.answering

    # -- what the shell calls --------------------------------------------------------------------------

    def resume(self, payments: Sequence[Payment], now: Now) -> list[Effect]:
        """At start: take up what was in flight when the last run ended; each is resolved once the bank is there."""
        for payment in payments:
            self._flights.resume(payment.terms, payment.envelope_hash, now.mono_ms)
        return [LogLine(f"{len(payments)} payments in flight from before will be resolved")] if payments else []

    def link_connected(self, link_id: int, address: Address, now: Now) -> list[Effect]:
        """A client connected."""
        link = Link(
            Role.GATEWAY,
            self._gateway_id,
            Role.CLIENT,
            is_caller=False,
            now_ms=now.mono_ms,
            turn_frame_count_max=TURN_FRAME_COUNT_MAX,
        )
        self._links.add(link_id, link)
        self._client_addresses[link_id] = address
        return [ConnectionRecord(now.wall_ms, "connected", link_id, address)]

    def link_refused(self, address: Address, reason: str, now: Now) -> list[Effect]:
        """A client was turned away."""
        return [ConnectionRecord(now.wall_ms, "refused", 0, address, reason)]

    def bank_connected(self, link_id: int, now: Now) -> list[Effect]:
        """Our connection to the bank is up; the link opens with the bank's HelloAck."""
        self.bank.connected(link_id, now.mono_ms)
        return []

    def receive_data(self, link_id: int, data: bytes, now: Now) -> list[Effect]:
        """Bytes came from a client or the bank."""
        effects: list[Effect] = []
        for event in self._links.receive_data(link_id, data, now.mono_ms):
            if isinstance(event, RequestReceived):  # from a client: the bank asks nothing
                message = event.message
                self._answering[type(message)]((link_id, event.correlation_id), message, now, effects)
            elif isinstance(event, ReplyReceived):  # from the bank: clients are asked nothing
                reply = event.message
                if isinstance(reply, (TransferResult, ResolveResult)):
                    self._clients.settle(reply, now, effects)
                else:
                    self.bank.replied(reply, effects)
            else:
                self._link_changed(link_id, event, now, effects)
        return effects

    def receive_eof(self, link_id: int, now: Now) -> list[Effect]:
        """A client's or the bank's stream has ended."""
        effects: list[Effect] = []
        for event in self._links.receive_eof(link_id):
            self._link_changed(link_id, event, now, effects)
        return effects

    def link_closed(self, link_id: int, reason: str, now: Now) -> list[Effect]:
        """A connection is gone. Payments that were asked for on it go on (R9)."""
        self._links.remove(link_id)
        if link_id == self.bank.link_id:
            return self.bank.closed(reason)
        address = self._client_addresses.pop(link_id)
        return [ConnectionRecord(now.wall_ms, "disconnected", link_id, address, reason)]

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` has work, on the monotonic clock."""
        earliest_ms = self.bank.next_deadline_ms()
        others = (self._links.next_deadline_ms(), self._flights.next_deadline_ms(), self._sessions.next_deadline_ms())
        for deadline_ms in others:
            if deadline_ms is not None and (earliest_ms is None or deadline_ms < earliest_ms):
                earliest_ms = deadline_ms
        return earliest_ms

    def receive_timer(self, now: Now) -> list[Effect]:
        """The time is now `now`."""
        effects: list[Effect] = []
        for link_id, event in self._links.receive_timer(now.mono_ms):
            self._link_changed(link_id, event, now, effects)
        self._clients.receive_timer(now.mono_ms)
        self.bank.receive_timer(now.mono_ms)
        return effects

    def committed(self, outcomes: Sequence[Any], now: Now) -> list[Effect]:
        """The store's outcomes, in the order of the commits."""
        return self._clients.committed(outcomes, now)

    def link_effects(self) -> list[LinkEffect]:
        """What the links want of the shell, once a tick."""
        return self._links.effects()

    def commit_failed(self, operations: Sequence[Operation], now: Now) -> list[Effect]:
        """The disk is full: everything that depended on these commits is refused (T30)."""
        return self._clients.committed([StoreUnavailable()] * len(operations), now)

    def drain(self, now: Now) -> list[Effect]:
        """R12: no new payments; those in flight end."""
        self._clients.is_draining = True
        return [LogLine("draining: no new payments are taken")]

    @property
    def is_drained(self) -> bool:
        """Whether no client waits for a payment's outcome. What is in doubt is durable and can wait."""
        return self._clients.is_draining and not self._flights.has_waiters

    @property
    def bank_is_wanted(self) -> bool:
        """Whether the shell should connect to the bank."""
        return not self.bank.link_id and not self.is_drained

    def _link_changed(self, link_id: int, event: LinkEvent, now: Now, effects: list[Effect]) -> None:
        """A link opened or ended."""
        if link_id == self.bank.link_id:
            self.bank.handle(event, now.mono_ms, effects)
        elif isinstance(event, LinkFailed):
            host, port = self._client_addresses[link_id]
            effects.append(LogLine(f"client {host}:{port} broke the protocol: {event.error.text}"))
