"""The gateway's mind: clients' questions, payments in flight, the bank's answers; no socket, clock or file.

Strategy: every decision about a token is an operation of the store, committed before anything that depends on it
leaves. What is in memory only is what a crash may forget: sessions, who waits for an answer, timers. A payment in
flight is durable, so after a restart it is found and resolved.

In doubt (design: In doubt): the bank has until `resolve_at_ms`; then ResolveRequest is sent, again and again with
capped, jittered back-off until it is answered. The client hears PENDING at `pending_at_ms`, in time before its own
alarm (R10). Results are matched by payment ID, not by link or request, so a late one still counts.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
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
from paygate.codec.sealed import Terms
from paygate.effects import Commit, Effect, LinkEffect, LogLine
from paygate.gateway.bank_trouble import another_bank_text, refusal_text
from paygate.gateway.effects import ConnectionRecord, PaymentRecord, RefusalRecord, TokenRecord
from paygate.gateway.flights import PENDING_BEFORE_END_MS, Asker, Flights
from paygate.gateway.sessions import Sessions
from paygate.gateway.tokens import (
    BeginPayment,
    CheckToken,
    FindPayment,
    Operation,
    Payment,
    PaymentBegun,
    PaymentFound,
    PaymentSettled,
    RecallPayment,
    SettlePayment,
    StoreUnavailable,
    TokenChecked,
)
from paygate.link import (
    TURN_FRAME_COUNT_MAX,
    Link,
    LinkEvent,
    LinkFailed,
    Opened,
    PeerClosed,
    ReplyReceived,
    RequestReceived,
)
from paygate.links import LinkTable
from paygate.making import maker_of
from paygate.net.addresses import Address

KEY_LIST_REFRESH_MS: Final = 60_000
"""How old the relayed key list may be; a rotation overlaps far longer (T12)."""
NO_ANSWER_YET: Final = "no answer yet"
_NO_SESSION_ID: Final = bytes(limits.SESSION_ID_SIZE)

# What every payment makes, some of it more than once.
_make_ack: Final = maker_of(TokenAck)
_make_begin: Final = maker_of(BeginPayment)
_make_check: Final = maker_of(CheckToken)
_make_commit: Final = maker_of(Commit)
_make_payment_ack: Final = maker_of(PaymentAck)
_make_payment_record: Final = maker_of(PaymentRecord)
_make_settle: Final = maker_of(SettlePayment)
_make_terms: Final = maker_of(Terms)
_make_token_record: Final = maker_of(TokenRecord)
_make_transfer: Final = maker_of(TransferRequest)


@dataclass(frozen=True, slots=True)
class GatewayIdentity:
    """Who this gateway is, and whose link key it holds."""

    gateway_id: str
    bank_id: str
    link_key: bytes = field(repr=False)


_Then = Callable[[Any, Now], list[Effect]]


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
        self._identity = identity
        self._links = LinkTable()
        self._client_addresses: dict[int, Address] = {}
        self._bank_link_id: int | None = None  # set while a link to the bank is up, open or not
        self._bank_is_open = False
        self.bank_was_open = False
        """Whether there ever was an open link to the bank in this run."""
        self.bank_trouble = NO_ANSWER_YET
        """Why there is no open link to the bank; empty while there is one."""
        self.told_trouble = ""
        """The trouble that the operator was told of last; empty again once the link is open."""
        self._signed_key_list = b""
        self._refresh_keys_ms: int | None = None
        self._sessions = Sessions(random_bytes, session_ms)
        self._flights = Flights(jitter)
        self._awaited: deque[_Then] = deque()  # what follows each commit that was asked for, in order
        self._is_draining = False

    # -- what the shell calls --------------------------------------------------------------------------

    def resume(self, payments: Sequence[Payment], now: Now) -> list[Effect]:
        """At start: take up what was in flight when the last run ended; each is resolved once the bank is there."""
        for payment in payments:
            self._flights.resume(payment.terms, payment.envelope_hash, now.mono_ms)
        return [LogLine(f"{len(payments)} payments in flight from before will be resolved")] if payments else []

    def link_connected(self, link_id: int, address: Address, now: Now) -> list[Effect]:
        """A client connected."""
        identity = self._identity
        link = Link(
            Role.GATEWAY,
            identity.gateway_id,
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
        identity = self._identity
        link = Link(
            Role.GATEWAY,
            identity.gateway_id,
            Role.BANK,
            is_caller=True,
            now_ms=now.mono_ms,
            link_key=identity.link_key,
        )
        self._bank_link_id = link_id
        self.bank_trouble = NO_ANSWER_YET
        self._links.add(link_id, link)
        return []

    def receive_data(self, link_id: int, data: bytes, now: Now) -> list[Effect]:
        """Bytes came from a client or the bank."""
        return self._handle(link_id, self._links.receive_data(link_id, data, now.mono_ms), now)

    def receive_eof(self, link_id: int, now: Now) -> list[Effect]:
        """A client's or the bank's stream has ended."""
        return self._handle(link_id, self._links.receive_eof(link_id), now)

    def link_closed(self, link_id: int, reason: str, now: Now) -> list[Effect]:
        """A connection is gone. Payments that were asked for on it go on (R9)."""
        self._links.remove(link_id)
        if link_id == self._bank_link_id:
            self._bank_link_id = None
            self._bank_is_open = False
            self._refresh_keys_ms = None
            if self.bank_trouble in ("", NO_ANSWER_YET):
                self.bank_trouble = reason
            if self.bank_trouble == self.told_trouble:  # Once, not at every attempt.
                return []
            self.told_trouble = self.bank_trouble
            return [LogLine(f"no link to bank {self._identity.bank_id}: {self.bank_trouble}")]
        address = self._client_addresses.pop(link_id)
        return [ConnectionRecord(now.wall_ms, "disconnected", link_id, address, reason)]

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` has work, on the monotonic clock."""
        deadlines = (
            self._links.next_deadline_ms(),
            self._flights.next_deadline_ms(),
            self._refresh_keys_ms,
            self._sessions.next_deadline_ms(),
        )
        return min((d for d in deadlines if d is not None), default=None)

    def receive_timer(self, now: Now) -> list[Effect]:
        """The time is now `now`."""
        effects: list[Effect] = []
        for link_id, event in self._links.receive_timer(now.mono_ms):
            effects += self._handle_event(link_id, event, now)
        self._sessions.end_due(now.mono_ms)
        for flight, told, is_to_resolve in self._flights.take_due(now.mono_ms):
            for asker in told:
                payment_id = flight.terms.payment_id
                self._reply(asker, PaymentAck(payment_id, PaymentStatus.PENDING, Reason.NONE, "", b""))
            if is_to_resolve:
                self._ask_bank(ResolveRequest(flight.terms, flight.envelope_hash))
        if self._refresh_keys_ms is not None and now.mono_ms >= self._refresh_keys_ms:
            self._ask_bank(BankKeysQuery(self._identity.bank_id))
            self._refresh_keys_ms = now.mono_ms + KEY_LIST_REFRESH_MS
        return effects

    def committed(self, outcomes: Sequence[Any], now: Now) -> list[Effect]:
        """The store's outcomes, in the order of the commits."""
        effects: list[Effect] = []
        for outcome in outcomes:
            effects += self._awaited.popleft()(outcome, now)
        return effects

    def link_effects(self) -> list[LinkEffect]:
        """What the links want of the shell, once a tick."""
        return self._links.effects()

    def commit_failed(self, operations: Sequence[Operation], now: Now) -> list[Effect]:
        """The disk is full: everything that depended on these commits is refused (T30)."""
        return self.committed([StoreUnavailable()] * len(operations), now)

    def drain(self, now: Now) -> list[Effect]:
        """R12: no new payments; those in flight end."""
        self._is_draining = True
        return [LogLine("draining: no new payments are taken")]

    @property
    def is_drained(self) -> bool:
        """Whether no client waits for a payment's outcome. What is in doubt is durable and can wait."""
        return self._is_draining and not self._flights.has_waiters

    @property
    def bank_is_wanted(self) -> bool:
        """Whether the shell should connect to the bank."""
        return self._bank_link_id is None and not self.is_drained

    @property
    def bank_is_open(self) -> bool:
        """Whether payments can be sent to the bank."""
        return self._bank_is_open

    # -- events ----------------------------------------------------------------------------------------

    def _handle(self, link_id: int, events: Sequence[LinkEvent], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for event in events:
            effects += self._handle_event(link_id, event, now)
        return effects

    def _handle_event(self, link_id: int, event: LinkEvent, now: Now) -> list[Effect]:
        if link_id == self._bank_link_id:
            return self._handle_bank(event, now)
        if isinstance(event, RequestReceived):
            return self._handle_request(link_id, event.correlation_id, event.message, now)
        if isinstance(event, LinkFailed):
            host, port = self._client_addresses[link_id]
            return [LogLine(f"client {host}:{port} broke the protocol: {event.error.text}")]
        return []

    def _handle_request(self, link_id: int, correlation_id: int, message: Message, now: Now) -> list[Effect]:
        asker = (link_id, correlation_id)
        if isinstance(message, TokenQuery):
            if self._is_draining:
                self._refuse(asker, ErrorCode.SHUTTING_DOWN, "the gateway is shutting down")
                return []
            operation = _make_check(message.transaction_id, message.passcode)
            return [self._commit(operation, partial(self._token_checked, asker))]
        if isinstance(message, EncryptedCredentials):
            return self._handle_credentials(asker, message, now)
        if isinstance(message, StatusQuery):
            find = FindPayment(message.payment_id, message.transaction_id, message.passcode)
            return [self._commit(find, partial(self._payment_found, asker, message.payment_id))]
        assert isinstance(message, BankKeysQuery), "the link lets no other request through"
        self._reply(asker, self._bank_keys(message.bank_id))
        return []

    def _bank_keys(self, bank_id: str) -> BankKeys:
        if bank_id != self._identity.bank_id:
            return BankKeys(KeysStatus.UNKNOWN_BANK, b"")
        if not self._signed_key_list:
            return BankKeys(KeysStatus.UNAVAILABLE, b"")
        return BankKeys(KeysStatus.AVAILABLE, self._signed_key_list)

    # -- tokens ----------------------------------------------------------------------------------------

    def _token_checked(self, asker: Asker, outcome: TokenChecked | StoreUnavailable, now: Now) -> list[Effect]:
        if isinstance(outcome, StoreUnavailable):
            # Not even a wrong passcode could be counted, so nothing is said of the token.
            self._refuse(asker, ErrorCode.TOO_MANY_REQUESTS, "the gateway can't record anything now; try later")
            return []
        status, token = outcome.status, outcome.token
        session_id, session_left_ms = _NO_SESSION_ID, 0
        if status is TokenStatus.VALID and token is not None:
            session_id, session_left_ms = self._sessions.open(token, now.mono_ms), self._sessions.session_ms
        self._reply(
            asker,
            _make_ack(
                status=status,
                session_id=session_id,
                session_left_ms=session_left_ms,
                merchant_id=token.merchant_id if token else "",
                merchant_name=token.merchant_name if token else "",
                amount_minor=token.amount_minor if token else 0,
                currency=token.currency if token else "",
                gateway_id=self._identity.gateway_id,
                bank_id=self._identity.bank_id,
                utr=token.utr if token else "",
            ),
        )
        return [_make_token_record(token)] if outcome.is_changed and token else []

    # -- payments --------------------------------------------------------------------------------------

    def _handle_credentials(self, asker: Asker, message: EncryptedCredentials, now: Now) -> list[Effect]:
        session = self._sessions.find(message.session_id)
        if session is None:
            refusal = Reason.DRAINING if self._is_draining else Reason.SESSION
            return self._refuse_unless_known(asker, message, refusal, None)
        token = session.token
        terms = _make_terms(
            bank_id=self._identity.bank_id,
            gateway_id=self._identity.gateway_id,
            merchant_id=token.merchant_id,
            transaction_id=token.transaction_id,
            payment_id=message.payment_id,
            session_id=message.session_id,
            amount_minor=token.amount_minor,
            currency=token.currency,
            authorised_at_ms=message.authorised_at_ms,
        )
        pending_at_ms = session.ends_ms - PENDING_BEFORE_END_MS
        if self._is_draining:
            return self._refuse_unless_known(asker, message, Reason.DRAINING, terms)
        if now.mono_ms >= pending_at_ms:
            return self._refuse_unless_known(asker, message, Reason.SESSION, terms)
        if not self._bank_is_open:
            return self._refuse_unless_known(asker, message, Reason.BANK_UNREACHABLE, terms)
        begin = _make_begin(terms, envelope_hash(message.envelope))
        return [self._commit(begin, partial(self._payment_begun, asker, begin, message, pending_at_ms))]

    def _refuse_unless_known(
        self, asker: Asker, message: EncryptedCredentials, refusal: Reason, terms: Terms | None
    ) -> list[Effect]:
        # REFUSED says that no money can have moved, which may not be said of the repeat of an earlier payment.
        recall = RecallPayment(message.payment_id, message.session_id, envelope_hash(message.envelope))
        return [self._commit(recall, partial(self._payment_recalled, asker, message.payment_id, refusal, terms))]

    def _payment_recalled(
        self,
        asker: Asker,
        payment_id: bytes,
        refusal: Reason,
        terms: Terms | None,
        outcome: PaymentFound | StoreUnavailable,
        now: Now,
    ) -> list[Effect]:
        if isinstance(outcome, StoreUnavailable):
            self._refuse(asker, ErrorCode.TOO_MANY_REQUESTS, "the gateway can't look the payment up now; try later")
            return []
        if outcome.payment is not None:
            self._reply(asker, PaymentAck(payment_id, *_answer(outcome.payment)))
            return []
        return self._refuse_payment(asker, payment_id, outcome.refusal or refusal, terms, now)

    def _payment_begun(
        self,
        asker: Asker,
        begin: BeginPayment,
        message: EncryptedCredentials,
        pending_at_ms: int,
        outcome: PaymentBegun | StoreUnavailable,
        now: Now,
    ) -> list[Effect]:
        if isinstance(outcome, StoreUnavailable):
            return self._refuse_payment(asker, message.payment_id, Reason.STORE_UNAVAILABLE, begin.terms, now)
        payment, token = outcome.payment, outcome.token
        if payment is None:
            utr = token.utr if token and outcome.refusal is Reason.TOKEN_PAID else ""
            effects = self._refuse_payment(asker, message.payment_id, outcome.refusal, begin.terms, now, utr)
            # It may just have been seen to be expired.
            return [*effects, TokenRecord(token)] if token else effects
        if payment.outcome is not None:  # A repeat of a payment that has its final outcome: the same bytes again.
            self._reply(asker, PaymentAck(payment.payment_id, *_answer(payment)))
            return []
        flight = self._flights.wait(asker, begin.terms, begin.envelope_hash, pending_at_ms, now.mono_ms)
        if not outcome.is_new:
            return []
        time_left_ms = min(flight.resolve_at_ms - now.mono_ms, limits.SESSION_MS)
        self._ask_bank(_make_transfer(begin.terms, time_left_ms, message.key_id, message.envelope))
        record = _make_payment_record(payment)
        return [record, _make_token_record(token)] if token else [record]

    def _payment_found(
        self,
        asker: Asker,
        payment_id: bytes,
        outcome: PaymentFound | StoreUnavailable,
        now: Now,
    ) -> list[Effect]:
        refusal = Reason.STORE_UNAVAILABLE if isinstance(outcome, StoreUnavailable) else outcome.refusal
        if refusal is not Reason.NONE:
            self._reply(asker, StatusAck(payment_id, PaymentStatus.REFUSED, refusal, "", b""))
        elif isinstance(outcome, PaymentFound) and outcome.payment is not None:
            self._reply(asker, StatusAck(payment_id, *_answer(outcome.payment)))
        else:
            self._reply(asker, StatusAck(payment_id, PaymentStatus.UNKNOWN, Reason.NONE, "", b""))
        return []

    def _payment_settled(self, outcome: PaymentSettled | StoreUnavailable, now: Now) -> list[Effect]:
        if isinstance(outcome, StoreUnavailable):
            return []  # The bank has it for ever; the next ResolveRequest brings it again.
        payment = outcome.payment
        if payment is None:
            return [LogLine("the bank told the outcome of a payment that this gateway does not know")]
        payment_id = payment.terms.payment_id
        for asker in self._flights.end(payment_id):
            self._reply(asker, _make_payment_ack(payment_id, *_answer(payment)))
        if not outcome.is_changed:
            return []
        records: list[Effect] = [_make_payment_record(payment)]
        if outcome.token is not None:
            records.append(_make_token_record(outcome.token))
        if payment.outcome is TransferOutcome.MISMATCH:
            records.append(LogLine(f"payment {payment.payment_id.hex()}: the bank knows it with other terms"))
        return records

    # -- the bank --------------------------------------------------------------------------------------

    def _handle_bank(self, event: LinkEvent, now: Now) -> list[Effect]:
        if isinstance(event, ReplyReceived):
            return self._bank_replied(event.message, now)
        if isinstance(event, Opened):
            return self._bank_opened(event, now)
        # What follows these two, the shell does: it closes the connection, and `link_closed` tells it.
        if isinstance(event, LinkFailed):
            self._bank_is_open = False
            self.bank_trouble = refusal_text(event.error.text, event.error.code)
        elif isinstance(event, PeerClosed):
            self._bank_is_open = False
            self.bank_trouble = refusal_text(event.text, event.code)
        return []

    def _bank_replied(self, message: Message, now: Now) -> list[Effect]:
        if isinstance(message, (TransferResult, ResolveResult)):
            return self._handle_result(message, now)
        if isinstance(message, BankKeys):
            if message.status is not KeysStatus.AVAILABLE:
                return []
            had_keys = bool(self._signed_key_list)
            self._signed_key_list = message.signed_key_list
            # From here on clients can pay: before it they get no key to seal for.
            return [] if had_keys else [LogLine(f"has the keys of bank {self._identity.bank_id}")]
        if isinstance(message, Error):  # It refused a request; the payment is resolved in its time.
            return [LogLine(f"bank {self._identity.bank_id} refused a request: {message.text}")]
        return []

    def _bank_opened(self, event: Opened, now: Now) -> list[Effect]:
        assert self._bank_link_id is not None
        if event.peer_id != self._identity.bank_id:
            self._links.close(self._bank_link_id, "another bank than configured")
            self.bank_trouble = another_bank_text(event.peer_id, self._identity.bank_id)
            return []
        self._bank_is_open = self.bank_was_open = True
        self.bank_trouble = self.told_trouble = ""
        self._ask_bank(BankKeysQuery(self._identity.bank_id))
        self._refresh_keys_ms = now.mono_ms + KEY_LIST_REFRESH_MS
        self._flights.resolve_all(now.mono_ms)
        return [LogLine(f"linked to bank {event.peer_id}, {len(self._flights)} payments to resolve")]

    def _handle_result(self, message: TransferResult | ResolveResult, now: Now) -> list[Effect]:
        if message.outcome is TransferOutcome.UNAVAILABLE:
            if message.kind is Kind.TRANSFER_RESULT:
                # An earlier copy of it may still count, so this is doubt, not refusal.
                self._flights.resolve_later(message.payment_id, now.mono_ms)
            return []
        settle = _make_settle(message.payment_id, message.outcome, message.reason, message.utr, message.receipt)
        return [self._commit(settle, self._payment_settled)]

    # -- sending ---------------------------------------------------------------------------------------

    def _commit(self, operation: Operation, then: _Then) -> Commit:
        self._awaited.append(then)
        return _make_commit(operation)

    def _ask_bank(self, message: Message) -> None:
        link = self._links.get(self._bank_link_id) if self._bank_link_id is not None else None
        if link is not None and link.is_open:
            link.send_request(message)

    def _reply(self, asker: Asker, message: Message) -> None:
        link_id, correlation_id = asker
        # The client may have gone; what it asked for is recorded all the same.
        self._links.send_reply(link_id, correlation_id, message)

    def _refuse(self, asker: Asker, code: ErrorCode, text: str) -> None:
        link = self._links.get(asker[0])
        if link is not None and not link.is_closed:
            link.refuse(asker[1], code, text)

    def _refuse_payment(
        self,
        asker: Asker,
        payment_id: bytes,
        refusal: Reason,
        terms: Terms | None,
        now: Now,
        utr: str = "",
    ) -> list[Effect]:
        self._reply(asker, PaymentAck(payment_id, PaymentStatus.REFUSED, refusal, utr, b""))
        # Without a session there are no terms, and so no attempt that a record could tell of.
        return [RefusalRecord(now.wall_ms, terms, refusal)] if terms else []


def _answer(payment: Payment) -> tuple[PaymentStatus, Reason, str, bytes]:
    """Status, reason, UTR and receipt of a payment, as PaymentAck and StatusAck carry them."""
    if payment.outcome is None:
        return PaymentStatus.PENDING, Reason.NONE, "", b""
    if payment.outcome is TransferOutcome.POSTED:
        return PaymentStatus.PAID, Reason.NONE, payment.utr, payment.receipt
    if payment.outcome is TransferOutcome.MISMATCH:
        return PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH, "", b""
    return PaymentStatus.DECLINED, payment.reason, "", payment.receipt
