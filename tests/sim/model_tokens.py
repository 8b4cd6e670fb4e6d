"""The model's own view of one honest gateway: what it acknowledged, held against the ledger's books and its store."""

from collections.abc import Sequence
from typing import Any

from sim.invariants import Invariant, Violation
from sim.model_ledger import LedgerModel, PaymentRow

from paygate.clock import Now
from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.limits import SESSION_MS
from paygate.codec.messages import Message, PaymentAck, StatusAck, TokenAck
from paygate.codec.record_codec import encode_record
from paygate.gateway.tokens import (
    CheckToken,
    FindPayment,
    Payment,
    PaymentBegun,
    PaymentSettled,
    Token,
    TokenChecked,
    TokenState,
)

LOCKING_COUNT = 5
"""T16: so many wrong passcodes lock a token for a time."""
LOCK_MS = 900_000
"""T16: this time, by the gateway's clock."""
HEALING_MS = 60_000
"""I9: so long after its session, or after the last fault, a payment is final at the latest."""
_QUESTION_REFUSED = frozenset({Reason.PASSCODE, Reason.TOKEN_LOCKED, Reason.STORE_UNAVAILABLE})
"""In a StatusAck these refuse the question and say nothing of the payment."""


class TokensModel:
    """One gateway, as it must be."""

    def __init__(self, gateway_id: str, ledger: LedgerModel) -> None:
        self.gateway_id = gateway_id
        self.tokens: dict[str, Token] = {}
        """By transaction ID, as they were issued."""
        self.payments: dict[bytes, Payment] = {}
        """By payment ID: every payment that was acknowledged as begun or ended."""
        self.meddled: set[bytes] = set()
        """Payment IDs that a liar used too: what is said of them may be of its own message or of another token."""
        self._ledger = ledger
        self._refused: set[bytes] = set()  # payments of which it said that no money can have moved
        self._cancelled: set[str] = set()
        self._ended_before: set[bytes] = set()  # payments that were final before the healing
        self._wrong_counts: dict[str, int] = {}  # by transaction ID, as they were answered
        self._locked_until_ms: dict[str, int] = {}  # by transaction ID, on the gateway's wall clock
        self._over: set[str] = set()  # tokens that were called expired or withdrawn
        self._applying: Sequence[Any] = ()  # a batch that is being applied: a crash leaves it open what it did

    def issue(self, token: Token) -> None:
        """A merchant's token was taken in."""
        self.tokens[token.transaction_id] = token

    def cancel(self, transaction_id: str) -> None:
        """A merchant's withdrawal of an unpaid token was taken in."""
        self._cancelled.add(transaction_id)

    # -- after a commit --------------------------------------------------------------------------------

    def applying(self, operations: Sequence[Any]) -> None:
        """A batch is about to be applied; if the gateway dies meanwhile, nobody hears what became of it."""
        self._applying = operations

    def applied(self, store: Any, outcomes: Sequence[Any], now: Now) -> None:
        """The batch was applied."""
        operations, self._applying = self._applying, ()
        must_look = False
        for operation, outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, PaymentBegun):
                if outcome.is_new and outcome.payment is not None:
                    self._begun(outcome.payment)
            elif isinstance(outcome, PaymentSettled):
                if outcome.is_changed and outcome.payment is not None:
                    self._settled(outcome.payment)
            elif isinstance(operation, CheckToken | FindPayment):
                must_look |= self._count_try(operation, outcome, now.wall_ms)
                if isinstance(outcome, TokenChecked):
                    self._checked(operation.transaction_id, outcome.status)
        if must_look:
            self._check_counts({token.transaction_id: token for token in store.tokens()})

    def _count_try(self, operation: CheckToken | FindPayment, outcome: Any, wall_ms: int) -> bool:
        """T16, by the rule in words; whether a count must have changed."""
        transaction_id = operation.transaction_id
        token = self.tokens.get(transaction_id)
        is_locked = Reason.TOKEN_LOCKED is getattr(outcome, "refusal", None) or (
            isinstance(outcome, TokenChecked) and outcome.status is TokenStatus.LOCKED
        )
        if token is None:
            return False
        until_ms = self._locked_until_ms.get(transaction_id, 0)
        if is_locked:
            # A clock that was wrong makes no lock longer (T7).
            self._locked_until_ms[transaction_id] = min(until_ms, wall_ms + LOCK_MS)
            return False
        if wall_ms < until_ms:
            raise Violation(Invariant.AUTHORITY, f"token {transaction_id} is locked, and a passcode was looked at")
        before = self._wrong_counts.get(transaction_id, 0)
        is_right = operation.passcode == token.passcode
        # A lock that is over begins anew.
        count = 0 if is_right else before % LOCKING_COUNT + 1
        self._wrong_counts[transaction_id] = count
        self._locked_until_ms[transaction_id] = wall_ms + LOCK_MS if count == LOCKING_COUNT else 0
        return count != before

    def _check_counts(self, there: dict[str, Token]) -> None:
        for transaction_id, count in self._wrong_counts.items():
            token = there.get(transaction_id)
            if token is not None and token.wrong_passcode_count != count:
                text = f"{count} wrong passcodes of token {transaction_id} were answered"
                raise Violation(Invariant.I3, f"{text}, and {token.wrong_passcode_count} are counted")

    def _checked(self, transaction_id: str, status: TokenStatus) -> None:
        if status is TokenStatus.EXPIRED:
            self._over.add(transaction_id)
        elif status is TokenStatus.VALID:
            self._check_free(transaction_id, "acknowledged as valid")
            if transaction_id in self._over:
                text = f"token {transaction_id} of {self.gateway_id} was told to be over"
                raise Violation(Invariant.I3, f"{text}, and is valid again")

    def _begun(self, payment: Payment) -> None:
        terms = payment.terms
        self._check_free(terms.transaction_id, "reserved for another payment")
        if payment.payment_id in self.payments:
            raise Violation(Invariant.I2, f"{self._name(payment)} was begun twice")
        token = self.tokens.get(terms.transaction_id)
        # A merchant's line may be taken in by a batch that nobody heard of.
        if token is not None and _price(token) != (terms.merchant_id, terms.amount_minor, terms.currency):
            raise Violation(Invariant.AUTHORITY, f"{self._name(payment)} was begun under other terms than its token's")
        self._check_not_over(payment, token)
        self.payments[payment.payment_id] = payment
        self._refused.discard(payment.payment_id)  # It had not been forwarded then, and was sent again.

    def _check_not_over(self, payment: Payment, token: Token | None) -> None:
        """What its merchant withdrew, or what is over by the gateway's clock or was called so (T7), is not paid."""
        transaction_id = payment.terms.transaction_id
        is_past = token is not None and token.expires_ms is not None and payment.begun_ms >= token.expires_ms
        if is_past or transaction_id in self._over or transaction_id in self._cancelled:
            why = "was withdrawn" if transaction_id in self._cancelled else "is over"
            raise Violation(Invariant.AUTHORITY, f"{self._name(payment)} was begun, and its token {why}")

    def _check_free(self, transaction_id: str, done: str) -> None:
        row = self._ledger.debits.get((self.gateway_id, transaction_id))
        if row is not None:
            text = f"token {transaction_id} of {self.gateway_id} was {done} after payment {row.payment_id.hex()}"
            raise Violation(Invariant.I4, f"{text} had debited it")

    def _settled(self, payment: Payment) -> None:
        row = self._ledger.rows.get((self.gateway_id, payment.payment_id))
        self._check_settled(payment, row)
        self.payments[payment.payment_id] = payment

    def _check_settled(self, payment: Payment, row: PaymentRow | None) -> None:
        if payment.outcome is TransferOutcome.MISMATCH:
            same = (encode_record(payment.terms), payment.envelope_hash)
            if row is not None and (row.terms, row.envelope_hash) == same:
                raise Violation(Invariant.I4, f"{self._name(payment)} was settled as a mismatch with itself")
            return
        if row is None:
            raise Violation(Invariant.I4, f"{self._name(payment)} was settled, and the ledger has no such payment")
        if (payment.outcome, payment.receipt, payment.utr) != (row.outcome, row.receipt, row.utr or ""):
            raise Violation(Invariant.I4, f"{self._name(payment)} was settled with the outcome of another payment")

    # -- after a recovery ------------------------------------------------------------------------------

    def recovered(self, store: Any) -> None:
        """The gateway died and its store was opened anew."""
        there = {payment.payment_id: payment for payment in store.payments()}
        for payment_id, payment in self.payments.items():
            found = there.get(payment_id)
            if found is None:
                raise Violation(Invariant.I3, f"{self._name(payment)} was begun, and after the recovery it is gone")
            if payment.outcome is not None and found != payment:
                raise Violation(Invariant.I3, f"{self._name(payment)} was settled, and the recovery changed it")
            if (found.terms, found.envelope_hash) != (payment.terms, payment.envelope_hash):
                raise Violation(Invariant.I3, f"{self._name(payment)} has other terms after the recovery")
        for payment_id, found in there.items():
            if found.outcome is not None:
                self._check_settled(found, self._ledger.rows.get((self.gateway_id, payment_id)))
        self.payments = there
        self._tokens_recovered({token.transaction_id: token for token in store.tokens()})
        in_flight = {payment.payment_id for payment in store.payments_in_flight()}
        open_ids = {payment.payment_id for payment in there.values() if payment.outcome is None}
        if in_flight != open_ids:
            raise Violation(Invariant.I3, f"{self.gateway_id}: the payments in flight were not all found")

    def _tokens_recovered(self, there: dict[str, Token]) -> None:
        for transaction_id in self.tokens:
            token = there.get(transaction_id)
            if token is None:
                raise Violation(Invariant.I3, f"token {transaction_id} of {self.gateway_id} is gone")
            if transaction_id in self._cancelled and token.state is not TokenState.CANCELLED:
                raise Violation(Invariant.I3, f"token {transaction_id} was cancelled, and is {token.state.value}")
        for operation in self._applying:
            # Nobody heard what became of this try: it is as the store has it.
            if isinstance(operation, CheckToken | FindPayment) and operation.transaction_id in there:
                token = there[operation.transaction_id]
                self._wrong_counts[operation.transaction_id] = token.wrong_passcode_count
                self._locked_until_ms[operation.transaction_id] = token.locked_until_ms
        self._applying = ()
        self._check_counts(there)

    # -- what it tells its clients ---------------------------------------------------------------------

    def told(self, message: Message, transaction_id: str) -> None:
        """It said this on a client's link; `transaction_id`: the token that a TokenAck is an answer for."""
        if isinstance(message, PaymentAck | StatusAck):
            self._told_payment(message)
        elif isinstance(message, TokenAck) and message.status is TokenStatus.PAID:
            row = self._ledger.debits.get((self.gateway_id, transaction_id))
            if row is None or row.utr != message.utr:
                text = f"{self.gateway_id} calls token {transaction_id} paid under UTR {message.utr}, and it is not"
                raise Violation(Invariant.I4, text)
        elif isinstance(message, TokenAck) and message.status is TokenStatus.VALID:
            token = self.tokens.get(transaction_id)
            shown = (message.merchant_id, message.merchant_name, message.amount_minor, message.currency)
            # A merchant's line may have been taken in by a batch that nobody heard of.
            if token is not None and shown != (token.merchant_id, token.merchant_name, *_price(token)[1:]):
                text = f"{self.gateway_id} shows token {transaction_id} as {shown}, which is not how it was issued"
                raise Violation(Invariant.AUTHORITY, text)

    def _told_payment(self, message: PaymentAck | StatusAck) -> None:
        key = (self.gateway_id, message.payment_id)
        if message.status in (PaymentStatus.PAID, PaymentStatus.DECLINED):
            row = self._ledger.check_final(message.receipt, f"gateway {self.gateway_id}")
            if row.key != key or row.is_posted is not (message.status is PaymentStatus.PAID):
                raise Violation(Invariant.I4, f"{self.gateway_id} answers with the outcome of another payment")
        elif message.payment_id in self.meddled:
            return
        elif message.status is PaymentStatus.REFUSED:
            is_of_payment = isinstance(message, PaymentAck) or message.reason not in _QUESTION_REFUSED
            if is_of_payment and message.reason is not Reason.PAYMENT_MISMATCH:
                self._refused.add(message.payment_id)
                self._check_not_debited(message.payment_id)
        elif message.status is PaymentStatus.UNKNOWN and message.payment_id in self.payments:
            raise Violation(Invariant.I3, f"{self.gateway_id} does not know a payment that it had begun")

    def _check_not_debited(self, payment_id: bytes) -> None:
        row = self._ledger.rows.get((self.gateway_id, payment_id))
        if row is not None and row.is_posted:
            text = f"{self.gateway_id} says that payment {payment_id.hex()} was not forwarded, and it is posted"
            raise Violation(Invariant.I4, text)

    # -- at the end ------------------------------------------------------------------------------------

    def healed(self) -> None:
        """From now on nothing fails, and its wall clock is right; what it wrote before may bear any time."""
        self._ended_before = {p.payment_id for p in self.payments.values() if p.outcome is not None}

    def finish(self, store: Any, healed_wall_ms: int) -> None:
        """All is healed and quiet: I4, and I9 at the gateway."""
        for payment_id in self._refused - self.meddled:
            self._check_not_debited(payment_id)
        in_flight = store.payments_in_flight()
        if in_flight:
            names = ", ".join(self._name(payment) for payment in in_flight)
            raise Violation(Invariant.I9, f"still in flight: {names}")
        for payment in store.payments():
            if payment.payment_id in self._ended_before:
                continue
            final_ms = max(payment.begun_ms + SESSION_MS, healed_wall_ms) + HEALING_MS
            if payment.ended_ms > final_ms:
                late_ms = payment.ended_ms - final_ms
                raise Violation(Invariant.I9, f"{self._name(payment)} was final {late_ms} ms too late")
        debits = self._ledger.debits
        for token in store.tokens():
            row = debits.get((self.gateway_id, token.transaction_id))
            is_paid = token.state is TokenState.PAID
            if is_paid is not (row is not None):
                held = "no debit" if row is None else "a debit"
                text = f"token {token.transaction_id} of {self.gateway_id} is {token.state.value}"
                raise Violation(Invariant.I4, f"{text}, and the ledger holds {held} for it")
            if row is not None and (token.payment_id, token.utr) != (row.payment_id, row.utr):
                raise Violation(Invariant.I4, f"token {token.transaction_id} is paid by another payment than its debit")

    def _name(self, payment: Payment) -> str:
        return f"payment {payment.payment_id.hex()} of {self.gateway_id}"


def _price(token: Token) -> tuple[str, int, str]:
    return token.merchant_id, token.amount_minor, token.currency
