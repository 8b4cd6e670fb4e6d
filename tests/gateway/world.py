"""The gateway's real core and real store, driven as `paygate/tick.py` drives them: virtual time, no socket, no sleep.

    client = world.connect_client()
    session = client.query_token().session_id
    question = client.pay(session)
    world.bank.post(world.bank.transfers[0])
    assert client.told(question).status is PaymentStatus.PAID

Bytes that a peer sends wait until `tick`, which gives all of them to the core and commits what they led to in one
transaction, as a server's tick does; `settle` ticks until nothing is on its way.
"""

import hashlib
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import (
    BANK_ID,
    FIXED_ENVELOPE,
    GATEWAY_ID,
    LINK_KEY,
    MERCHANT_ID,
    NOW_MS,
    PASSCODE,
    TRANSACTION_ID,
    UTR,
    build_receipt,
    build_signed_key_list,
    build_statement,
)
from failing_disk import VFS_NAME, FailingDisk

from paygate.clock import Now
from paygate.codec.codes import KeysStatus, Kind, Reason, Role, TransferOutcome
from paygate.codec.limits import KEY_ID_SIZE
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    Error,
    Message,
    PaymentAck,
    ResolveRequest,
    ResolveResult,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
    TransferRequest,
    TransferResult,
)
from paygate.codec.seal import envelope_hash
from paygate.effects import CloseLink, Commit, Continue, Effect, LogLine, Send
from paygate.files.sqlite import StoreFull
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.core import GatewayCore
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import IssueToken, Operation, Outcome, Token, TokenTaken
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, Opened, PeerClosed, ReplyReceived, RequestReceived

SESSION_MS = 30_000
JITTER = 0.5
ADDRESS = ("192.0.2.7", 40_001)


def build_token(**changes: Any) -> Token:
    """The token that `builders` speaks of, unpaid and without an end, with changes."""
    usual = Token(TRANSACTION_ID, PASSCODE, MERCHANT_ID, "Bücher & Töchter", 125_000, "INR", None)
    return replace(usual, **changes)


def payment_id(name: str) -> bytes:
    """A payment ID for each name."""
    return hashlib.sha256(name.encode()).digest()[:16]


class Peer:
    """The far end of one of the gateway's links."""

    def __init__(self, world: "World", link_id: int, link: Link) -> None:
        self.world = world
        self.link_id = link_id
        self.link = link
        self.replies: dict[int, Message] = {}
        self.faults: list[LinkEvent] = []
        self.close_reason: str | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the gateway hasn't closed the connection."""
        return self.close_reason is None

    def ask(self, message: Message) -> int:
        """Send a request; it is on its way until the next tick."""
        question = self.link.send_request(message)
        self.push()
        return question

    def push(self) -> None:
        """Put what the link has to send on its way."""
        data = self.link.data_to_send()
        if data:
            self.world.on_its_way.append((self.link_id, data))

    def receive(self, data: bytes) -> None:
        """The gateway sent this."""
        for event in self.link.receive_data(data, self.world.now.mono_ms):
            if isinstance(event, ReplyReceived):
                self.replies[event.correlation_id] = event.message
            elif isinstance(event, RequestReceived):
                self.requested(event.correlation_id, event.message)
            elif not isinstance(event, Opened):
                self.faults.append(event)
        self.push()

    def requested(self, correlation_id: int, message: Message) -> None:
        """The gateway asks."""
        raise AssertionError(f"a gateway asks its clients nothing: {message}")


class Client(Peer):
    """A shopper's program."""

    def told(self, question: int) -> Any:
        """The answer to a question; KeyError while there is none."""
        return self.replies[question]

    def query_token(self, transaction_id: str = TRANSACTION_ID, passcode: str = PASSCODE) -> TokenAck:
        """Ask about a token and wait for the answer."""
        question = self.ask(TokenQuery(transaction_id, passcode))
        self.world.settle()
        answer = self.told(question)
        assert isinstance(answer, TokenAck)
        return answer

    def query_status(self, of: bytes, transaction_id: str = TRANSACTION_ID, passcode: str = PASSCODE) -> StatusAck:
        """Ask about a payment and wait for the answer."""
        question = self.ask(StatusQuery(of, transaction_id, passcode))
        self.world.settle()
        answer = self.told(question)
        assert isinstance(answer, StatusAck)
        return answer

    def send_credentials(self, session_id: bytes, name: str = "first", **changes: Any) -> int:
        """Send a payment, without waiting for anything."""
        usual = EncryptedCredentials(session_id, payment_id(name), NOW_MS, b"k" * KEY_ID_SIZE, FIXED_ENVELOPE)
        return self.ask(replace(usual, **changes))

    def pay(self, session_id: bytes | None = None, name: str = "first", **changes: Any) -> int:
        """Send a payment, in a session of its own unless one is given, and settle."""
        question = self.send_credentials(session_id or self.query_token().session_id, name, **changes)
        self.world.settle()
        return question

    def told_payment(self, question: int) -> PaymentAck:
        """The answer to a payment."""
        answer = self.told(question)
        assert isinstance(answer, PaymentAck)
        return answer


class Bank(Peer):
    """A bank that answers when the test says so; its key list it gives at once."""

    def __init__(self, world: "World", link_id: int, link: Link) -> None:
        super().__init__(world, link_id, link)
        self.key_list = build_signed_key_list()
        self.transfers: list[TransferRequest] = []
        self.resolves: list[ResolveRequest] = []
        self.resolved_at_ms: list[int] = []
        self.keys_query_count = 0
        self._correlations: dict[int, int] = {}  # id() of a request to its correlation ID

    def requested(self, correlation_id: int, message: Message) -> None:
        self._correlations[id(message)] = correlation_id
        if isinstance(message, BankKeysQuery):
            self.keys_query_count += 1
            status = KeysStatus.AVAILABLE if self.key_list else KeysStatus.UNAVAILABLE
            self.link.send_reply(correlation_id, BankKeys(status, self.key_list))
        elif isinstance(message, TransferRequest):
            self.world.trace.append("transfer sent")
            self.transfers.append(message)
        else:
            assert isinstance(message, ResolveRequest)
            self.resolves.append(message)
            self.resolved_at_ms.append(self.world.now.mono_ms)

    def answer(
        self,
        request: TransferRequest | ResolveRequest,
        outcome: TransferOutcome,
        reason: Reason = Reason.NONE,
        *,
        of: bytes | None = None,
    ) -> bytes:
        """Answer a request and settle; gives the receipt. `of`: of another payment than the request's."""
        is_posted = outcome is TransferOutcome.POSTED
        receipt = b""
        if outcome.is_final:
            utr = UTR if is_posted else ""
            receipt = build_receipt(build_statement(outcome=outcome, reason=reason, terms=request.terms, utr=utr))
        kind = TransferResult if isinstance(request, TransferRequest) else ResolveResult
        result = kind(of or request.terms.payment_id, outcome, reason, UTR if is_posted else "", receipt)
        self.link.send_reply(self._correlations[id(request)], result)
        self.push()
        self.world.settle()
        return receipt

    def post(self, request: TransferRequest | ResolveRequest) -> bytes:
        """Money moved."""
        return self.answer(request, TransferOutcome.POSTED)

    def refuse(self, request: TransferRequest | ResolveRequest, error: Error) -> None:
        """Answer with an Error after which the link goes on."""
        self.link.refuse(self._correlations[id(request)], error.code, error.text)
        self.push()
        self.world.settle()


class World:
    """One gateway, its clients and its bank."""

    def __init__(self, directory: Path, disk: FailingDisk, *, session_ms: int = SESSION_MS) -> None:
        self.directory = directory
        self.disk = disk
        self.session_ms = session_ms
        self.now = Now(1_000_000, NOW_MS)
        self.on_its_way: deque[tuple[int, bytes]] = deque()
        self.effects: list[Effect] = []
        """The gateway's own effects, as the records and the operator would get them."""
        self.trace: list[str] = []
        """What became durable and what left, in order."""
        self.bank: Bank
        self._random_count = 0
        self._next_link_id = 1
        self._start()

    # -- the gateway's life ----------------------------------------------------------------------------

    def _start(self) -> None:
        self.peers: dict[int, Peer] = {}
        self.on_its_way.clear()
        self.store = SqliteTokens(self.directory / "tokens.sqlite", vfs=VFS_NAME)
        identity = GatewayIdentity(GATEWAY_ID, BANK_ID, LINK_KEY)
        self.core = GatewayCore(identity, self._random_bytes, lambda: JITTER, session_ms=self.session_ms)
        self._perform(self.core.resume(self.store.payments_in_flight(), self.now))

    def restart(self) -> None:
        """The gateway is killed and started again; only what was committed is left."""
        self.store.close()
        self._start()

    def issue(self, **changes: Any) -> Token:
        """Take a token in."""
        outcome = self.store.apply([IssueToken(build_token(**changes))], self.now)[0]
        assert isinstance(outcome, TokenTaken)
        assert outcome.token is not None
        return outcome.token

    def token(self, transaction_id: str = TRANSACTION_ID) -> Token:
        """As the store has it."""
        return next(t for t in self.store.tokens() if t.transaction_id == transaction_id)

    def payment_count(self) -> int:
        """How many payments the store has."""
        return len(list(self.store.payments()))

    def logged(self) -> list[str]:
        """What the operator was told."""
        return [e.text for e in self.effects if isinstance(e, LogLine)]

    def told(self, kind: type) -> list[Any]:
        """The gateway's own effects of one type."""
        return [e for e in self.effects if isinstance(e, kind)]

    # -- links -----------------------------------------------------------------------------------------

    def connect_client(self) -> Client:
        """A client connects and says hello."""
        link = Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=self.now.mono_ms)
        client = Client(self, self._new_link_id(), link)
        self.peers[client.link_id] = client
        self._perform(self.core.link_connected(client.link_id, ADDRESS, self.now))
        client.push()
        self.settle()
        return client

    def connect_bank(self, *, bank_id: str = BANK_ID, link_key: bytes = LINK_KEY) -> Bank:
        """The gateway's connection to the bank comes up."""
        assert self.core.bank_is_wanted
        link = Link(
            Role.BANK,
            bank_id,
            Role.GATEWAY,
            is_caller=False,
            now_ms=self.now.mono_ms,
            key_of={GATEWAY_ID: link_key}.get,
        )
        self.bank = Bank(self, self._new_link_id(), link)
        self.peers[self.bank.link_id] = self.bank
        self._perform(self.core.bank_connected(self.bank.link_id, self.now))
        self.settle()
        return self.bank

    def cut(self, peer: Peer) -> None:
        """A connection breaks; what was on its way in it is lost."""
        self.on_its_way = deque((i, data) for i, data in self.on_its_way if i != peer.link_id)
        self._close(peer, "reset by peer")

    def _close(self, peer: Peer, reason: str) -> None:
        del self.peers[peer.link_id]
        peer.close_reason = reason
        self._perform(self.core.link_closed(peer.link_id, reason, self.now))

    def _new_link_id(self) -> int:
        self._next_link_id += 1
        return self._next_link_id - 1

    def _random_bytes(self, size: int) -> bytes:
        self._random_count += 1
        return hashlib.shake_128(self._random_count.to_bytes(8)).digest(size)

    # -- time and ticks --------------------------------------------------------------------------------

    def settle(self) -> None:
        """Tick until nothing is on its way."""
        while self.on_its_way:
            self.tick()

    def tick(self) -> None:
        """All that is on its way reaches the core, and one transaction commits what it led to."""
        arrived, self.on_its_way = self.on_its_way, deque()
        effects: list[Effect] = []
        for link_id, data in arrived:
            effects += self.core.receive_data(link_id, data, self.now)
        self._perform(effects)

    def advance(self, duration_ms: int) -> None:
        """Time passes; the core is called at each of its deadlines, and the bank hears each in its time."""
        end_ms = self.now.mono_ms + duration_ms
        for _ in range(100_000):
            deadline_ms = self.core.next_deadline_ms()
            if deadline_ms is None or deadline_ms > end_ms:
                break
            self._set_mono(max(deadline_ms, self.now.mono_ms))
            self._perform(self.core.receive_timer(self.now))
            self.settle()
        else:
            raise AssertionError("the core's deadline does not move on")
        self._set_mono(end_ms)

    def _set_mono(self, mono_ms: int) -> None:
        self.now = Now(mono_ms, self.now.wall_ms + mono_ms - self.now.mono_ms)

    def set_wall(self, wall_ms: int) -> None:
        """Somebody sets the clock (T7)."""
        self.now = Now(self.now.mono_ms, wall_ms)

    def _perform(self, effects: list[Effect]) -> None:
        """As the shell does: commits first, then the role's own effects, then what is sent."""
        others: list[Effect] = []
        while effects:
            operations = [e.operation for e in effects if isinstance(e, Commit)]
            others += [e for e in effects if not isinstance(e, Commit)]
            effects = self._commit(operations) if operations else []
        self.effects += others
        for effect in self.core.link_effects():
            peer = self.peers.get(effect.link_id)
            if isinstance(effect, Continue):
                self.on_its_way.append((effect.link_id, b""))  # its next turn
            elif peer is not None and isinstance(effect, Send):
                peer.receive(effect.data)
            elif peer is not None and isinstance(effect, CloseLink):
                self._close(peer, effect.reason)

    def _commit(self, operations: list[Operation]) -> list[Effect]:
        try:
            outcomes: list[Outcome] = self.store.apply(operations, self.now)
        except StoreFull:
            if len(operations) > 1:
                return [effect for operation in operations for effect in self._commit([operation])]
            return self.core.commit_failed(operations, self.now)
        self.trace += [f"{type(operation).__name__} applied" for operation in operations]
        return self.core.committed(outcomes, self.now)


def hash_of(envelope: bytes = FIXED_ENVELOPE) -> bytes:
    """The hash of the envelope that every client here sends."""
    return envelope_hash(envelope)


__all__ = ["Bank", "Client", "Kind", "LinkFailed", "PeerClosed", "World", "build_token", "hash_of", "payment_id"]
