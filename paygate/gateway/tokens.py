"""What the gateway keeps, and what may be asked of whoever keeps it.

A store takes a batch of operations, decides each with the pure functions of `payment.py`, and gives the outcomes
of one durable transaction in order. Cores and shells know no more of it than this file says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from paygate.clock import Now
from paygate.codec.codes import Reason, TokenStatus, TransferOutcome
from paygate.codec.sealed import Terms


class TokenState(Enum):
    """Where a payment token is in its life; the value is what `PaymentTokensData.txt` says (R13)."""

    UNPAID = "unpaid"
    IN_FLIGHT = "in-flight"
    PAID = "paid"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    __hash__ = object.__hash__
    """Enum's own hashes the name in Python, and every payment looks states up a dozen times."""


@dataclass(frozen=True, slots=True)
class Token:
    """A payment token as a merchant issued it, and what became of it."""

    transaction_id: str
    passcode: str = field(repr=False)
    merchant_id: str
    merchant_name: str
    amount_minor: int
    currency: str
    expires_ms: int | None
    """Wall time from which on it can't be paid; None for never."""
    state: TokenState = TokenState.UNPAID
    payment_id: bytes | None = None
    """The payment that is in flight or that paid it."""
    utr: str = ""
    wrong_passcode_count: int = 0
    locked_until_ms: int = 0
    """Wall time; 0 when not locked (T16)."""

    def is_issued_as(self, other: "Token") -> bool:
        """Whether a merchant's two lines speak of the same order under the same conditions."""
        mine = (self.transaction_id, self.passcode, self.merchant_id, self.amount_minor, self.currency)
        theirs = (other.transaction_id, other.passcode, other.merchant_id, other.amount_minor, other.currency)
        return mine == theirs and self.expires_ms == other.expires_ms


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment that was sent to the bank, durable before it was (design: Outcomes and states).

    The envelope itself is never kept (R4), only its hash.
    """

    terms: Terms
    envelope_hash: bytes
    begun_ms: int
    outcome: TransferOutcome | None = None
    """None while it is in flight. MISMATCH means that the bank knows this payment ID with other terms."""
    reason: Reason = Reason.NONE
    utr: str = ""
    receipt: bytes = field(default=b"", repr=False)
    ended_ms: int | None = None

    @property
    def payment_id(self) -> bytes:
        """What the client named it."""
        return self.terms.payment_id


# -- operations ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IssueToken:
    """Take a merchant's new token in. Outcome: TokenTaken."""

    token: Token


@dataclass(frozen=True, slots=True)
class CancelToken:
    """Withdraw an unpaid token, given as it was issued: its ID alone is no right. Outcome: TokenTaken."""

    token: Token


@dataclass(frozen=True, slots=True)
class CheckToken:
    """R1, R2: is this token valid? Counts wrong passcodes (T16). Outcome: TokenChecked."""

    transaction_id: str
    passcode: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BeginPayment:
    """Reserve the token for this payment, before anything is sent. Outcome: PaymentBegun."""

    terms: Terms
    envelope_hash: bytes


@dataclass(frozen=True, slots=True)
class SettlePayment:
    """Record what the bank said of a payment. Outcome: PaymentSettled."""

    payment_id: bytes
    outcome: TransferOutcome
    reason: Reason
    utr: str
    receipt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FindPayment:
    """What became of a payment, for whoever knows the token's passcode. Outcome: PaymentFound."""

    payment_id: bytes
    transaction_id: str
    passcode: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecallPayment:
    """Is this the repeat of a payment that we know? Asked before one is refused. Outcome: PaymentFound."""

    payment_id: bytes
    session_id: bytes
    envelope_hash: bytes


@dataclass(frozen=True, slots=True)
class EnterPayment:
    """A final outcome that the bank has and a restored store may not: begun and settled in one.

    For a token that is known; the bank's word counts whatever state the backup has it in. Outcome: PaymentSettled.
    """

    terms: Terms
    envelope_hash: bytes
    outcome: TransferOutcome
    reason: Reason
    utr: str
    receipt: bytes = field(repr=False)


Operation = (
    IssueToken | CancelToken | CheckToken | BeginPayment | SettlePayment | FindPayment | RecallPayment | EnterPayment
)


# -- outcomes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenTaken:
    """The token as it now is (None if unknown), and whether the operation changed anything."""

    token: Token | None
    is_changed: bool


@dataclass(frozen=True, slots=True)
class TokenChecked:
    """R2's answer, with the token unless INVALID or LOCKED; `is_changed` if its record changed."""

    status: TokenStatus
    token: Token | None = None
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class PaymentBegun:
    """Begun now (`is_new`), known before with the same terms (a repeat), or refused with a reason."""

    payment: Payment | None
    token: Token | None
    is_new: bool = False
    refusal: Reason = Reason.NONE


@dataclass(frozen=True, slots=True)
class PaymentSettled:
    """The payment and its token after the bank's word; None if no such payment is known."""

    payment: Payment | None
    token: Token | None
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class PaymentFound:
    """The payment, None if there is none such, or a refusal: PASSCODE, TOKEN_LOCKED or PAYMENT_MISMATCH."""

    payment: Payment | None
    refusal: Reason = Reason.NONE


@dataclass(frozen=True, slots=True)
class StoreUnavailable:
    """Stands for every outcome of a batch that the store could not take (T30); nothing was changed."""


Outcome = TokenTaken | TokenChecked | PaymentBegun | PaymentSettled | PaymentFound


class TokenStore(Protocol):
    """The gateway's durable truth."""

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        """One durable transaction. Raises StoreFull having changed nothing; StoreError means: stop at once."""

    def payments_in_flight(self) -> list[Payment]:
        """Every payment without a final outcome; read once at start."""

    def tokens(self) -> Iterator[Token]:
        """Every token, in the order in which they were taken in; for the records."""

    def payments(self) -> Iterator[Payment]:
        """Every payment, oldest first; for the records."""
