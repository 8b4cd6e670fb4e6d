"""A bank's ledger with a few accounts, for tests of the bank: `books.pay(amount_minor=1)` is one whole story."""

import hashlib
from pathlib import Path
from typing import Any, Final

import apsw
from builders import (
    BANK_ID,
    FIXED_ENVELOPE,
    MERCHANT_ID,
    NOW_MS,
    RECEIPT_KEY,
    USER_ID,
    build_key_list,
    build_terms,
)

from paygate.bank.ledger import (
    AccountOutcome,
    BankIdentity,
    OpenCustomer,
    Opened,
    OpenMerchant,
    Operation,
    PaymentOutcome,
    Resolve,
    Transfer,
)
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now
from paygate.codec.codes import Reason
from paygate.codec.seal import envelope_hash, match_receipt, verify_receipt
from paygate.codec.sealed import ReceiptStatement, Terms

IDENTITY: Final = BankIdentity(BANK_ID, "PGBK", "INR")
VERIFIER: Final = hashlib.sha256(b"the right password").digest()
WRONG_VERIFIER: Final = hashlib.sha256(b"a wrong password").digest()
ASHA_MINOR: Final = 5_000_000
RAVI_MINOR: Final = 90_000
ENVELOPE_HASH: Final = envelope_hash(FIXED_ENVELOPE)
LATER_MONO_MS: Final = 10**12


def build_transfer(
    *,
    user_id: str = USER_ID,
    verifier: bytes = VERIFIER,
    opened: Opened | Reason | None = None,
    sent_envelope_hash: bytes = ENVELOPE_HASH,
    deadline_mono_ms: int = LATER_MONO_MS,
    **terms: Any,
) -> Transfer:
    """The usual transfer, by Asha with the right password, with changes to it or to its terms."""
    found = Opened(user_id, verifier) if opened is None else opened
    return Transfer(build_terms(**terms), sent_envelope_hash, found, deadline_mono_ms)


def payment_id(number: int) -> bytes:
    """A payment ID of its own for each number."""
    return hashlib.sha256(b"payment %d" % number).digest()[:16]


def statement_of(outcome: PaymentOutcome, terms: Terms, sent_envelope_hash: bytes = ENVELOPE_HASH) -> ReceiptStatement:
    """What the outcome's receipt states, verified as a client does."""
    statement = verify_receipt(outcome.receipt, build_key_list())
    match_receipt(statement, terms, sent_envelope_hash)
    assert (statement.outcome, statement.reason, statement.utr) == (outcome.outcome, outcome.reason, outcome.utr)
    return statement


class Books:
    """A ledger of Asha (50,000.00), Ravi (900.00) and two merchants; `now` is for the test to set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = Now(1_000_000, NOW_MS)
        self.ledger = SqliteLedger(path, IDENTITY, RECEIPT_KEY)
        assert (
            self.apply(
                OpenCustomer("C-1", USER_ID, VERIFIER, ASHA_MINOR),
                OpenCustomer("C-2", "ravi", VERIFIER, RAVI_MINOR),
                OpenMerchant(MERCHANT_ID, "Books", 0),
                OpenMerchant("M-200", "Tea", 150_000),
            )
            == [AccountOutcome.OPENED] * 4
        )

    def reopen(self) -> None:
        """As after a restart, or a kill: closing writes nothing."""
        self.ledger.close()
        self.ledger = SqliteLedger(self.path, IDENTITY, RECEIPT_KEY)

    def advance(self, ms: int) -> None:
        """Let time pass, on both clocks."""
        self.now = Now(self.now.mono_ms + ms, self.now.wall_ms + ms)

    def apply(self, *operations: Operation) -> list[Any]:
        """One batch."""
        return self.ledger.apply(operations, self.now)

    def pay(self, number: int = 0, **changes: Any) -> PaymentOutcome:
        """One transfer in a batch of its own, authorised now; `number` makes payment and token its own."""
        usual = {
            "payment_id": payment_id(number),
            "transaction_id": f"TX-{number}",
            "authorised_at_ms": self.now.wall_ms,
        }
        outcome = self.apply(build_transfer(**{**usual, **changes}))[0]
        assert isinstance(outcome, PaymentOutcome)
        return outcome

    def resolve(self, terms: Terms, sent_envelope_hash: bytes = ENVELOPE_HASH) -> PaymentOutcome:
        """One ResolveRequest."""
        outcome = self.apply(Resolve(terms, sent_envelope_hash))[0]
        assert isinstance(outcome, PaymentOutcome)
        return outcome

    def balance(self, customer_id: str) -> int:
        """A customer's balance in minor units."""
        customer = self.ledger.find_customer(customer_id)
        assert customer is not None
        return customer.balance_minor

    def failure_count(self, customer_id: str = "C-1") -> int:
        """How many wrong passwords are counted for a customer."""
        customer = self.ledger.find_customer(customer_id)
        assert customer is not None
        return customer.failure_count

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Look into the database with the ledger closed meanwhile, as an auditor would."""
        self.ledger.close()
        try:
            connection = apsw.Connection(str(self.path))
            try:
                return list(connection.execute(sql))
            finally:
                connection.close()
        finally:
            self.ledger = SqliteLedger(self.path, IDENTITY, RECEIPT_KEY)
