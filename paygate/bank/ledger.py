"""What the bank keeps, what may be asked of whoever keeps it, and how it decides.

A ledger takes a batch of operations, decides each with the pure functions below, and gives the outcomes of one
durable transaction in order. Whether a payment is known comes before everything: a final outcome is replayed for
ever, byte for byte, and only a payment ID that was never seen is decided (T1). Cores and shells know no more of a
ledger than this file says.
"""

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Final, Protocol

from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.sealed import Terms

FREE_FAILURE_COUNT: Final = 2
"""T15: wrong passwords in a row that cost nothing; the next one locks the account for a time."""
LOCK_MS_MIN: Final = 30_000
"""T15: the first lock. It doubles with each further failure, so ten guesses take an hour and more."""
LOCK_MS_MAX: Final = 3_600_000
"""T15: the longest lock. Guesses are 32 on the first day and 24 on each further one, anew after each right password.

Who guesses at the end of each lock also keeps the customer from paying, for as long as they go on (spec 10): a bank
that looked at more passwords, to find the customer's among them, would look at more guesses.
"""
BALANCE_MINOR_MAX: Final = 2**63 - 1
"""All money that was ever paid in; what a store's integer holds. No single account can then overflow (T34)."""
UTR_SEQUENCE_MODULUS: Final = 10**8
"""A UTR's sequence has eight digits. They come round after so many UTRs, which no bank date sees twice."""
UTR_AHEAD_MAX: Final = UTR_SEQUENCE_MODULUS // 4
"""How far a UTR may lie behind the last one and be taken for a later one: digits that come round tell no more."""
UTR_CHANNEL: Final = 1
"""The channel digit of a UTR: payments that came through a gateway."""

_DUMMY_VERIFIER: Final = bytes(limits.VERIFIER_SIZE)  # what an unknown user's verifier is compared with (T17)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS: Final = 86_400_000


# -- what is kept ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BankIdentity:
    """Which bank it is; fixed when its state is made."""

    bank_id: str
    bank_code: str
    """Four capital letters: how its UTRs begin."""
    currency: str
    """The one currency of all its accounts."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer and their account (R16)."""

    account_id: int
    customer_id: str
    user_id: str = field(repr=False)
    verifier: bytes = field(repr=False)
    balance_minor: int
    failure_count: int = 0
    """Wrong passwords since the last right one (T15)."""
    locked_until_ms: int = 0
    """Lock time (`bank_clock`)."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant and its account (R17)."""

    account_id: int
    merchant_id: str
    name: str
    balance_minor: int


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment ID's final outcome."""

    terms: Terms
    envelope_hash: bytes
    outcome: TransferOutcome
    reason: Reason
    utr: str
    receipt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Posting:
    """What `TransactionID.txt` says of one UTR (R18)."""

    utr: str
    customer_id: str
    merchant_id: str
    amount_minor: int
    currency: str
    transaction_id: str
    bank_time_ms: int


# -- operations ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindPayment:
    """Is this payment known? Asked before anything is decrypted. Outcome: PaymentOutcome."""

    terms: Terms
    envelope_hash: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """What the decoder found in an envelope."""

    user_id: str = field(repr=False)
    verifier: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Move the money, or decline for ever (R6). Outcome: PaymentOutcome."""

    terms: Terms
    envelope_hash: bytes
    opened: Opened | Reason
    """What was in the envelope, or why it was not opened: KEY_RETIRED or TERMS."""
    deadline_mono_ms: int
    """From then on it is LATE, on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """The final outcome of this payment; one that was never seen is fenced (T6). Outcome: PaymentOutcome."""

    terms: Terms
    envelope_hash: bytes


@dataclass(frozen=True, slots=True)
class OpenCustomer:
    """Open a customer's account with this balance. Outcome: AccountOutcome."""

    customer_id: str
    user_id: str = field(repr=False)
    verifier: bytes = field(repr=False)
    amount_minor: int


@dataclass(frozen=True, slots=True)
class OpenMerchant:
    """Open a merchant's account with this balance. Outcome: AccountOutcome."""

    merchant_id: str
    name: str
    amount_minor: int


PaymentOperation = FindPayment | Transfer | Resolve
Operation = PaymentOperation | OpenCustomer | OpenMerchant


# -- outcomes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Posted:
    """Money moved just now: what the records need."""

    posting: Posting
    customer_balance_minor: int
    merchant_balance_minor: int


@dataclass(frozen=True, slots=True)
class PaymentOutcome:
    """What the bank says of a payment; `outcome` is None if FindPayment found none."""

    outcome: TransferOutcome | None
    reason: Reason = Reason.NONE
    utr: str = ""
    receipt: bytes = field(default=b"", repr=False)
    posted: Posted | None = None
    """Only with the operation that moved the money, never with a replay."""


class AccountOutcome(Enum):
    """What became of OpenCustomer and OpenMerchant."""

    OPENED = "opened"
    KNOWN = "the customer or merchant ID has an account already; nothing was changed"
    USER_ID_TAKEN = "another customer has this user ID; nothing was changed"
    TOO_MUCH = "with this amount the bank would hold more than its books can count; nothing was changed"


class ReenterOutcome(Enum):
    """What became of a payment that a restored bank was shown the receipt of."""

    ENTERED = "it is in the ledger now, as it was"
    NO_ACCOUNT = "the ledger has no such customer or merchant"
    TOKEN_PAID = "another payment of its token is in the ledger"  # noqa: S105  # not a password
    UTR_TAKEN = "its UTR is another payment's in the ledger"
    FUNDS = "the customer's balance does not cover it any more"


Outcome = PaymentOutcome | AccountOutcome

MISMATCH: Final = PaymentOutcome(TransferOutcome.MISMATCH)
"""T4: the payment ID is known with other terms or another envelope; nothing of it is revealed."""
ABSENT: Final = PaymentOutcome(None)


class Ledger(Protocol):
    """The bank's durable truth."""

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        """One durable transaction. Raises StoreFull having changed nothing; StoreError means: stop at once."""

    def start_clock(self, now: Now) -> None:
        """Lock time runs with the monotonic clock from here on; otherwise from the first batch on (T7, T15)."""

    def find_customer(self, customer_id: str) -> Customer | None:
        """The customer of this ID."""

    def find_merchant(self, merchant_id: str) -> Merchant | None:
        """The merchant of this ID."""

    def customers(self) -> Iterator[Customer]:
        """Every customer, in the order in which they were taken in."""

    def merchants(self) -> Iterator[Merchant]:
        """Every merchant, in the order in which they were taken in."""

    def postings(self) -> Iterator[Posting]:
        """Every payment that moved money, in the order of the UTRs."""

    def skip_utrs(self, sequence: int) -> None:
        """Never give out a UTR of this sequence number or a lower one: somebody has seen it (T7)."""

    @property
    def utr_sequence(self) -> int:
        """The sequence number of the last UTR given out or skipped; its last eight digits stand in the UTR."""

    @property
    def bank_time_ms(self) -> int:
        """The latest bank time that was used; 0 in a new ledger."""


# -- decisions -------------------------------------------------------------------------------------------


def replay(known: Payment | None, operation: PaymentOperation) -> PaymentOutcome | None:
    """What an operation on a known payment ID gives: the same for ever, or MISMATCH (T4). None if not known."""
    if known is None:
        return None
    if known.terms != operation.terms or known.envelope_hash != operation.envelope_hash:
        return MISMATCH
    return PaymentOutcome(known.outcome, known.reason, known.utr, known.receipt)


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a transfer depends on besides its own operation."""

    wall_time_ms: int
    """The clock as it is now: what a recent authorisation is judged by (T7)."""
    lock_time_ms: int
    """What locks of accounts are measured by (`bank_clock`)."""
    currency: str
    token_is_paid: bool
    """Whether another payment of this gateway's token was POSTED (R9)."""
    merchant: Merchant | None
    customer: Customer | None
    """The one of the user ID in the envelope, if it was opened and there is one."""


Decision = tuple[Reason, Customer | None]
"""NONE means that the money moves; any other reason declines. The customer is the one with the attempt counted, if the
password was looked at and the user ID is known (T15)."""


def decide(operation: Transfer, situation: Situation, now_mono_ms: int) -> Decision:
    """R5, R6: may this money move? The order of the checks is the order of the Reason codes."""
    terms, opened = operation.terms, operation.opened
    skew_ms = abs(terms.authorised_at_ms - situation.wall_time_ms)
    if skew_ms > limits.AUTHORISED_AT_SKEW_MS_MAX or now_mono_ms >= operation.deadline_mono_ms:
        return Reason.LATE, None
    if isinstance(opened, Reason):
        assert opened in (Reason.KEY_RETIRED, Reason.TERMS)
        return opened, None
    if situation.token_is_paid:
        return Reason.TOKEN_ALREADY_PAID, None
    if situation.merchant is None:
        return Reason.MERCHANT_UNKNOWN, None
    if terms.currency != situation.currency:
        return Reason.CURRENCY, None
    is_accepted, customer = check_password(situation.customer, opened.verifier, situation.lock_time_ms)
    if not is_accepted or customer is None:
        return Reason.CREDENTIALS, customer
    if customer.balance_minor < terms.amount_minor:
        return Reason.FUNDS, customer
    return Reason.NONE, customer


def check_password(customer: Customer | None, verifier: bytes, lock_time_ms: int) -> tuple[bool, Customer | None]:
    """Whether the password is accepted, and the customer with the attempt counted (T15): itself if nothing changed.

    An unknown user, a wrong password and a locked account make the same comparison and get the same answer
    (T17). While an account is locked not even the right password is accepted, and no attempt counts.
    """
    is_right = hmac.compare_digest(customer.verifier if customer else _DUMMY_VERIFIER, verifier)
    if customer is None or lock_time_ms < customer.locked_until_ms:
        return False, customer
    if is_right:
        has_failures = customer.failure_count or customer.locked_until_ms
        return True, replace(customer, failure_count=0, locked_until_ms=0) if has_failures else customer
    failure_count = customer.failure_count + 1
    return False, replace(
        customer, failure_count=failure_count, locked_until_ms=lock_time_ms + lock_ms_after(failure_count)
    )


def lock_ms_after(failure_count: int) -> int:
    """How long an account is locked after so many wrong passwords in a row (T15)."""
    if failure_count <= FREE_FAILURE_COUNT:
        return 0
    doubling_count = min(failure_count - FREE_FAILURE_COUNT - 1, 16)  # far beyond the cap, and still a small number
    return min(LOCK_MS_MIN << doubling_count, LOCK_MS_MAX)


def utr_start(bank_code: str, bank_time_ms: int) -> str:
    """What all UTRs of a day begin with (R7): bank code, `P`, channel digit, date by bank time (UTC)."""
    return f"{bank_code}P{UTR_CHANNEL}{_date_text(bank_time_ms // _DAY_MS)}"


def utr_of(start: str, sequence: int) -> str:
    """R7: what UTRs of this day begin with, and eight digits of the sequence number."""
    return f"{start}{sequence % UTR_SEQUENCE_MODULUS:08d}"


def utr_steps_ahead(utr: str, utr_sequence: int, bank_time_ms: int) -> int:
    """How many UTRs on from the last of a ledger this one is; 0 for one that was given out before, or never will be.

    `utr_sequence` and `bank_time_ms` are that ledger's. Later UTRs have no earlier date, since bank time never goes
    back; that keeps lines of long ago from looking later once the digits have come round.
    """
    if utr[-16:-8] < _date_text(bank_time_ms // _DAY_MS):
        return 0
    ahead_count = (int(utr[-8:]) - utr_sequence) % UTR_SEQUENCE_MODULUS
    return ahead_count if ahead_count <= UTR_AHEAD_MAX else 0


@lru_cache(maxsize=1)
def _date_text(day: int) -> str:
    return f"{_EPOCH + timedelta(days=day):%Y%m%d}"
