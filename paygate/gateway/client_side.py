"""What clients ask, and what they are told: tokens, sessions, payments; a part of the gateway's core.

Every decision is an operation of the store, and what follows its outcome is in a method of its own. Each adds its
effects to the list that it is given: most add one, for every payment.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeysQuery,
    EncryptedCredentials,
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
from paygate.effects import Commit, Effect, LogLine
from paygate.gateway.bank_side import BankSide, GatewayIdentity
from paygate.gateway.effects import RefusalRecord
from paygate.gateway.flights import PENDING_BEFORE_END_MS, Asker, Flights
from paygate.gateway.sessions import Sessions
from paygate.gateway.tokens import (
    BeginPayment,
    CheckToken,
    FindPayment,
    Payment,
    PaymentBegun,
    PaymentFound,
    PaymentSettled,
    RecallPayment,
    SettlePayment,
    StoreUnavailable,
    TokenChecked,
)
from paygate.links import LinkTable
from paygate.making import maker_of

_NO_SESSION_ID: Final = bytes(limits.SESSION_ID_SIZE)

# What every payment makes, some of it more than once.
_make_ack: Final = maker_of(TokenAck)
_make_begin: Final = maker_of(BeginPayment)
_make_check: Final = maker_of(CheckToken)
_make_commit: Final = maker_of(Commit)
_make_payment_ack: Final = maker_of(PaymentAck)
_make_settle: Final = maker_of(SettlePayment)
_make_terms: Final = maker_of(Terms)
_make_transfer: Final = maker_of(TransferRequest)

# An enum's member is looked up through its class each time, and these are asked for with every payment.
_VALID: Final = TokenStatus.VALID
_POSTED: Final = TransferOutcome.POSTED
_MISMATCH: Final = TransferOutcome.MISMATCH
_UNAVAILABLE: Final = TransferOutcome.UNAVAILABLE
_PAID: Final = PaymentStatus.PAID
_NO_REASON: Final = Reason.NONE
_TOKEN_ALREADY_PAID: Final = Reason.TOKEN_ALREADY_PAID

_Answering = Callable[[Asker, Any, Now, list[Effect]], None]
"""Handles one kind of request: who asks, the message, the time, and where to put the effects."""
_Then = Callable[[Any, Any, Now, list[Effect]], None]
"""Follows a commit: what was kept for it, its outcome, the time, and where to put the effects."""
_Begun = tuple[Asker, BeginPayment, EncryptedCredentials, int]
"""Kept for a BeginPayment: who asks, the operation, the message, and when he would hear PENDING."""
_Recalled = tuple[Asker, bytes, Reason, Terms | None]
"""Kept for a RecallPayment: who asks, the payment ID, and why it is refused if unknown, under which terms."""
_Found = tuple[Asker, bytes]
"""Kept for a FindPayment: who asks, and the payment ID."""


class ClientSide:
    """All clients: what they ask, who of them waits, and the commits that their answers wait for."""

    def __init__(
        self, identity: GatewayIdentity, links: LinkTable, sessions: Sessions, flights: Flights, bank: BankSide
    ) -> None:
        """`links`: where the clients' links are. `bank`: where payments are sent."""
        self._gateway_id = identity.gateway_id
        self._bank_id = identity.bank_id
        self._links = links
        self._sessions = sessions
        self._flights = flights
        self._bank = bank
        self.is_draining = False
        """Whether nothing new is taken on (R12)."""
        self.answering: Final[dict[type, _Answering]] = {
            TokenQuery: self._query_token,
            EncryptedCredentials: self._begin_payment,
            StatusQuery: self._query_status,
            BankKeysQuery: self._query_bank_keys,
        }
        """What handles each kind of request."""
        self._awaited: deque[tuple[_Then, Any]] = deque()  # what follows each commit that was asked for, in order

    def committed(self, outcomes: Sequence[Any], now: Now) -> list[Effect]:
        """The store's outcomes, in the order of the commits."""
        effects: list[Effect] = []
        awaited = self._awaited
        for outcome in outcomes:
            then, kept = awaited.popleft()
            then(kept, outcome, now, effects)
        return effects

    def receive_timer(self, now_ms: int) -> None:
        """The time is now `now_ms`: sessions end, who waits hears PENDING, and the bank is asked what is in doubt.

        To be called when either has work; harmless earlier.
        """
        self._sessions.end_due(now_ms)
        for flight, told, is_to_resolve in self._flights.take_due(now_ms):
            for asker in told:
                payment_id = flight.terms.payment_id
                self._reply(asker, PaymentAck(payment_id, PaymentStatus.PENDING, Reason.NONE, "", b""))
            if is_to_resolve:
                self._bank.ask(ResolveRequest(flight.terms, flight.envelope_hash))

    def settle(self, message: TransferResult | ResolveResult, now: Now, effects: list[Effect]) -> None:
        """The bank told what became of a payment, or that it can't say now."""
        if message.outcome is not _UNAVAILABLE:
            settle = _make_settle(message.payment_id, message.outcome, message.reason, message.utr, message.receipt)
            self._awaited.append((self._payment_settled, None))
            effects.append(_make_commit(settle))
        elif isinstance(message, TransferResult):
            # An earlier copy of it may still count, so this is doubt, not refusal.
            self._flights.resolve_later(message.payment_id, now.mono_ms)

    def _query_bank_keys(self, asker: Asker, message: BankKeysQuery, now: Now, effects: list[Effect]) -> None:
        self._reply(asker, self._bank.keys_of(message.bank_id))

    # -- tokens ----------------------------------------------------------------------------------------

    def _query_token(self, asker: Asker, message: TokenQuery, now: Now, effects: list[Effect]) -> None:
        if self.is_draining:
            self._refuse(asker, ErrorCode.SHUTTING_DOWN, "the gateway is shutting down")
            return
        self._awaited.append((self._token_checked, asker))
        effects.append(_make_commit(_make_check(message.transaction_id, message.passcode)))

    def _token_checked(
        self, asker: Asker, outcome: TokenChecked | StoreUnavailable, now: Now, effects: list[Effect]
    ) -> None:
        if isinstance(outcome, StoreUnavailable):
            # Not even a wrong passcode could be counted, so nothing is said of the token.
            self._refuse(asker, ErrorCode.TOO_MANY_REQUESTS, "the gateway can't record anything now; try later")
            return
        status, token = outcome.status, outcome.token
        gateway_id, bank_id = self._gateway_id, self._bank_id
        if token is None:
            self._reply(asker, _make_ack(status, _NO_SESSION_ID, 0, "", "", 0, "", gateway_id, bank_id, ""))
            return
        session_id, session_left_ms = _NO_SESSION_ID, 0
        if status is _VALID:
            session_id, session_left_ms = self._sessions.open(token, now.mono_ms), self._sessions.session_ms
        ack = _make_ack(
            status,
            session_id,
            session_left_ms,
            token.merchant_id,
            token.merchant_name,
            token.amount_minor,
            token.currency,
            gateway_id,
            bank_id,
            token.utr,
        )
        self._reply(asker, ack)
        if outcome.is_changed:
            effects.append(token)

    # -- payments --------------------------------------------------------------------------------------

    def _begin_payment(self, asker: Asker, message: EncryptedCredentials, now: Now, effects: list[Effect]) -> None:
        session = self._sessions.find(message.session_id)
        if session is None:
            refusal = Reason.DRAINING if self.is_draining else Reason.SESSION
            self._refuse_unless_known(asker, message, refusal, None, effects)
            return
        transaction_id, merchant_id, amount_minor, currency, ends_ms = session
        terms = _make_terms(
            self._bank_id,
            self._gateway_id,
            merchant_id,
            transaction_id,
            message.payment_id,
            message.session_id,
            amount_minor,
            currency,
            message.authorised_at_ms,
        )
        pending_at_ms = ends_ms - PENDING_BEFORE_END_MS
        if self.is_draining:
            self._refuse_unless_known(asker, message, Reason.DRAINING, terms, effects)
        elif now.mono_ms >= pending_at_ms:
            self._refuse_unless_known(asker, message, Reason.SESSION, terms, effects)
        elif not self._bank.is_open:
            self._refuse_unless_known(asker, message, Reason.BANK_UNREACHABLE, terms, effects)
        else:
            begin = _make_begin(terms, envelope_hash(message.envelope))
            self._awaited.append((self._payment_begun, (asker, begin, message, pending_at_ms)))
            effects.append(_make_commit(begin))

    def _payment_begun(
        self, kept: _Begun, outcome: PaymentBegun | StoreUnavailable, now: Now, effects: list[Effect]
    ) -> None:
        asker, begin, message, pending_at_ms = kept
        terms = begin.terms
        if isinstance(outcome, StoreUnavailable):
            self._refuse_payment(asker, message.payment_id, Reason.STORE_UNAVAILABLE, terms, now, effects)
            return
        payment, token = outcome.payment, outcome.token
        if payment is None:
            utr = token.utr if token and outcome.refusal is Reason.TOKEN_PAID else ""
            self._refuse_payment(asker, message.payment_id, outcome.refusal, terms, now, effects, utr)
            if token:  # It may just have been seen to be expired.
                effects.append(token)
            return
        if payment.outcome is not None:  # A repeat of a payment that has its final outcome: the same bytes again.
            self._reply(asker, PaymentAck(payment.payment_id, *_answer(payment)))
            return
        flight = self._flights.wait(asker, terms, begin.envelope_hash, pending_at_ms, now.mono_ms)
        if not outcome.is_new:
            return
        time_left_ms = min(flight.resolve_at_ms - now.mono_ms, limits.SESSION_MS)
        self._bank.ask(_make_transfer(terms, time_left_ms, message.key_id, message.envelope))
        effects.append(payment)
        if token is not None:
            effects.append(token)

    def _payment_settled(
        self, kept: None, outcome: PaymentSettled | StoreUnavailable, now: Now, effects: list[Effect]
    ) -> None:
        if isinstance(outcome, StoreUnavailable):
            return  # The bank has it for ever; the next ResolveRequest brings it again.
        payment = outcome.payment
        if payment is None:
            effects.append(LogLine("the bank told the outcome of a payment that this gateway does not know"))
            return
        payment_id = payment.terms.payment_id
        askers = self._flights.end(payment_id)
        if askers:
            ack = _make_payment_ack(payment_id, *_answer(payment))
            for asker in askers:
                self._reply(asker, ack)
        if not outcome.is_changed:
            return
        effects.append(payment)
        if outcome.token is not None:
            effects.append(outcome.token)
        if payment.reason is _TOKEN_ALREADY_PAID:
            # By a payment that is not in the store, or it would have been refused before it was sent.
            text = f"the bank says that transaction {payment.terms.transaction_id} is paid, by a payment not known here"
            effects.append(LogLine(f"{text}: was an older copy of the store restored? 'reconcile' brings it back"))
        if payment.outcome is _MISMATCH:
            effects.append(LogLine(f"payment {payment_id.hex()}: the bank knows it with other terms"))

    def _query_status(self, asker: Asker, message: StatusQuery, now: Now, effects: list[Effect]) -> None:
        self._awaited.append((self._payment_found, (asker, message.payment_id)))
        effects.append(Commit(FindPayment(message.payment_id, message.transaction_id, message.passcode)))

    def _payment_found(
        self, kept: _Found, outcome: PaymentFound | StoreUnavailable, now: Now, effects: list[Effect]
    ) -> None:
        asker, payment_id = kept
        refusal = Reason.STORE_UNAVAILABLE if isinstance(outcome, StoreUnavailable) else outcome.refusal
        if refusal is not Reason.NONE:
            self._reply(asker, StatusAck(payment_id, PaymentStatus.REFUSED, refusal, "", b""))
        elif isinstance(outcome, PaymentFound) and outcome.payment is not None:
            self._reply(asker, StatusAck(payment_id, *_answer(outcome.payment)))
        else:
            self._reply(asker, StatusAck(payment_id, PaymentStatus.UNKNOWN, Reason.NONE, "", b""))

    # -- refusals --------------------------------------------------------------------------------------

    def _refuse_unless_known(
        self, asker: Asker, message: EncryptedCredentials, refusal: Reason, terms: Terms | None, effects: list[Effect]
    ) -> None:
        # REFUSED says that no money can have moved, which may not be said of the repeat of an earlier payment.
        self._awaited.append((self._payment_recalled, (asker, message.payment_id, refusal, terms)))
        recall = RecallPayment(message.payment_id, message.session_id, envelope_hash(message.envelope))
        effects.append(Commit(recall))

    def _payment_recalled(
        self, kept: _Recalled, outcome: PaymentFound | StoreUnavailable, now: Now, effects: list[Effect]
    ) -> None:
        asker, payment_id, refusal, terms = kept
        if isinstance(outcome, StoreUnavailable):
            self._refuse(asker, ErrorCode.TOO_MANY_REQUESTS, "the gateway can't look the payment up now; try later")
        elif outcome.payment is not None:
            self._reply(asker, PaymentAck(payment_id, *_answer(outcome.payment)))
        else:
            self._refuse_payment(asker, payment_id, outcome.refusal or refusal, terms, now, effects)

    def _refuse_payment(
        self,
        asker: Asker,
        payment_id: bytes,
        refusal: Reason,
        terms: Terms | None,
        now: Now,
        effects: list[Effect],
        utr: str = "",
    ) -> None:
        self._reply(asker, PaymentAck(payment_id, PaymentStatus.REFUSED, refusal, utr, b""))
        if terms:  # Without a session there are none, and so no attempt that a record could tell of.
            effects.append(RefusalRecord(now.wall_ms, terms, refusal))

    # -- sending ---------------------------------------------------------------------------------------

    def _reply(self, asker: Asker, message: Message) -> None:
        link_id, correlation_id = asker
        # The client may have gone; what it asked for is recorded all the same.
        self._links.send_reply(link_id, correlation_id, message)

    def _refuse(self, asker: Asker, code: ErrorCode, text: str) -> None:
        link = self._links.get(asker[0])
        if link is not None and not link.is_closed:
            link.refuse(asker[1], code, text)


def _answer(payment: Payment) -> tuple[PaymentStatus, Reason, str, bytes]:
    """Status, reason, UTR and receipt of a payment, as PaymentAck and StatusAck carry them."""
    outcome = payment.outcome
    if outcome is _POSTED:
        return _PAID, _NO_REASON, payment.utr, payment.receipt
    if outcome is None:
        return PaymentStatus.PENDING, Reason.NONE, "", b""
    if outcome is _MISMATCH:
        return PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH, "", b""
    return PaymentStatus.DECLINED, payment.reason, "", payment.receipt
