"""The bank's durable truth in SQLite: the decisions of `ledger.py` around rows, in double entry.

A batch reads rows as it needs them, decides in memory, and at its end signs the statements of all new outcomes
with one signature and writes everything in one transaction. Later operations of a batch see what earlier ones
decided, so a payment that comes twice in one batch is decided once.

Payments and postings are never changed; triggers refuse it, and each row carries a hash over itself and the row
before it, checked when the ledger opens and when a payment is replayed (T32). Rows are keyed by an increasing
number, so that new ones go to the end of their table; payment IDs, which are random, live in one index only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Final

import apsw
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.bank.bank_clock import LockClock, bank_time
from paygate.bank.ledger import (
    ABSENT,
    BALANCE_MINOR_MAX,
    MISMATCH,
    AccountOutcome,
    BankIdentity,
    Customer,
    FindPayment,
    Merchant,
    OpenCustomer,
    Opened,
    OpenMerchant,
    Operation,
    Outcome,
    Payment,
    PaymentOperation,
    PaymentOutcome,
    Posted,
    Posting,
    Resolve,
    Situation,
    Transfer,
    decide,
    replay,
    utr_of,
)
from paygate.bank.ledger_chain import CHAIN_START, PAYMENT_FIELDS, Head, chained, check_chain, verify
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.frame import decode_record, encode_record
from paygate.codec.seal import key_id_of, sign_receipts
from paygate.codec.sealed import ReceiptStatement, Terms
from paygate.files.sqlite import StoreError, open_database, read_rows, transaction

_APPLICATION_ID: Final = 0x50474C47  # "PGLG"
_EQUITY_ID: Final = 1
_NOBODY_ID: Final = 0
_SIGNED_COUNT_MAX: Final = 1 << limits.RECEIPT_PATH_COUNT_MAX  # what a receipt's path can reach
_SCHEMA: Final = (
    """
    CREATE TABLE bank (
        row_number INTEGER PRIMARY KEY CHECK (row_number = 1),
        bank_id TEXT NOT NULL,
        bank_code TEXT NOT NULL,
        currency TEXT NOT NULL,
        bank_time_ms INTEGER NOT NULL,
        utr_sequence INTEGER NOT NULL,
        account_count INTEGER NOT NULL,
        payment_count INTEGER NOT NULL,
        payment_chain BLOB NOT NULL,
        posting_count INTEGER NOT NULL,
        posting_chain BLOB NOT NULL
    ) STRICT;
    CREATE TABLE account (
        account_id INTEGER PRIMARY KEY,
        balance_minor INTEGER NOT NULL,
        CHECK (account_id = 1 OR balance_minor >= 0)
    ) STRICT;
    INSERT INTO account VALUES (1, 0);
    CREATE TABLE customer (
        account_id INTEGER PRIMARY KEY REFERENCES account,
        customer_id TEXT NOT NULL UNIQUE,
        user_id TEXT NOT NULL UNIQUE,
        verifier BLOB NOT NULL CHECK (length(verifier) = 32),
        failure_count INTEGER NOT NULL,
        locked_until_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE merchant (
        account_id INTEGER PRIMARY KEY REFERENCES account,
        merchant_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL
    ) STRICT;
    CREATE TABLE payment (
        payment_number INTEGER PRIMARY KEY,
        gateway_id TEXT NOT NULL,
        payment_id BLOB NOT NULL,
        transaction_id TEXT NOT NULL,
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        outcome INTEGER NOT NULL CHECK (outcome IN (1, 2, 3)),
        reason INTEGER NOT NULL,
        utr TEXT UNIQUE CHECK ((outcome = 1) = (utr IS NOT NULL)),
        bank_time_ms INTEGER NOT NULL,
        receipt BLOB NOT NULL,
        chain BLOB NOT NULL,
        UNIQUE (gateway_id, payment_id)
    ) STRICT;
    CREATE UNIQUE INDEX posted_token ON payment (gateway_id, transaction_id) WHERE outcome = 1;
    CREATE TABLE posting (
        posting_number INTEGER PRIMARY KEY,
        payment_number INTEGER REFERENCES payment,
        account_id INTEGER NOT NULL REFERENCES account,
        amount_minor INTEGER NOT NULL,
        chain BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER payment_stays BEFORE UPDATE ON payment BEGIN SELECT RAISE(ABORT, 'payments never change'); END;
    CREATE TRIGGER payment_remains BEFORE DELETE ON payment BEGIN SELECT RAISE(ABORT, 'payments never go'); END;
    CREATE TRIGGER posting_stays BEFORE UPDATE ON posting BEGIN SELECT RAISE(ABORT, 'postings never change'); END;
    CREATE TRIGGER posting_remains BEFORE DELETE ON posting BEGIN SELECT RAISE(ABORT, 'postings never go'); END;
    """,
    """
    ALTER TABLE bank ADD COLUMN lock_time_ms INTEGER NOT NULL DEFAULT 0;
    UPDATE bank SET lock_time_ms = bank_time_ms; -- what locks were measured by until then
    """,
)
_CUSTOMER_QUERY: Final = (
    "SELECT account_id, customer_id, user_id, verifier, balance_minor, failure_count, locked_until_ms "
    "FROM customer JOIN account USING (account_id) "
)
_MERCHANT_QUERY: Final = (
    "SELECT account_id, merchant_id, name, balance_minor FROM merchant JOIN account USING (account_id) "
)


class SqliteLedger:
    """A `Ledger` in one SQLite file."""

    def __init__(
        self, path: Path, identity: BankIdentity, receipt_key: Ed25519PrivateKey, *, vfs: str | None = None
    ) -> None:
        """Open or make the database, and check every hash and balance in it. Raises StoreError."""
        self._path = path
        self._identity = identity
        self._receipt_key = receipt_key
        self._receipt_key_id = key_id_of(receipt_key.public_key().public_bytes_raw())
        self._connection = open_database(path, application_id=_APPLICATION_ID, schema=_SCHEMA, vfs=vfs)
        try:
            with transaction(self._connection):
                self._head = self._read_head()
                verify(path, self._connection, self._head)
            self._lock_clock = LockClock(self._head.lock_time_ms)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the database; all that was applied is on disk already."""
        self._connection.close()

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        """One transaction for the batch; the outcomes in order. Raises StoreError."""
        with transaction(self._connection):
            lock_time_ms = self._lock_clock.read(now)
            batch = _Batch(self, self._connection, self._identity, self._head, now, lock_time_ms)
            answers = [batch.take(operation) for operation in operations]
            batch.sign(self._receipt_key, self._receipt_key_id)
            batch.write()
        # Only what is on disk counts: a batch that failed leaves the counters as they were.
        self._head = batch.head
        return [_outcome_of(answer) for answer in answers]

    def find_customer(self, customer_id: str) -> Customer | None:
        """The customer of this ID."""
        row = self._connection.execute(f"{_CUSTOMER_QUERY} WHERE customer_id = ?", (customer_id,)).fetchone()
        return Customer(*row) if row else None

    def find_merchant(self, merchant_id: str) -> Merchant | None:
        """The merchant of this ID."""
        row = self._connection.execute(f"{_MERCHANT_QUERY} WHERE merchant_id = ?", (merchant_id,)).fetchone()
        return Merchant(*row) if row else None

    def customers(self) -> Iterator[Customer]:
        """Every customer, in the order in which they were taken in."""
        return (Customer(*row) for row in read_rows(self._connection, f"{_CUSTOMER_QUERY} ORDER BY account_id"))

    def merchants(self) -> Iterator[Merchant]:
        """Every merchant, in the order in which they were taken in."""
        return (Merchant(*row) for row in read_rows(self._connection, f"{_MERCHANT_QUERY} ORDER BY account_id"))

    def postings(self) -> Iterator[Posting]:
        """Every payment that moved money, in the order of the UTRs."""
        rows = read_rows(
            self._connection,
            "SELECT payment.utr, customer.customer_id, payment.terms, payment.bank_time_ms "
            "FROM payment JOIN posting USING (payment_number) JOIN customer USING (account_id) "
            "WHERE posting.amount_minor < 0 ORDER BY payment_number",
        )
        for utr, customer_id, terms, bank_time_ms in rows:
            yield _posting_of(utr, customer_id, decode_record(Terms, terms), bank_time_ms)

    def skip_utrs(self, sequence: int) -> None:
        """Never give out a UTR of this sequence number or a lower one. Raises StoreError."""
        if sequence > self._head.utr_sequence:
            with transaction(self._connection):
                self._connection.execute("UPDATE bank SET utr_sequence = ?", (sequence,))
            self._head = replace(self._head, utr_sequence=sequence)

    @property
    def utr_sequence(self) -> int:
        """The sequence number of the last UTR given out; its last eight digits stand in the UTR."""
        return self._head.utr_sequence

    @property
    def bank_time_ms(self) -> int:
        """The latest bank time that was used; 0 in a new ledger."""
        return self._head.bank_time_ms

    def payment(self, gateway_id: str, payment_id: bytes) -> Payment | None:
        """A payment that is on disk. Raises StoreCorrupt if it is not what was written (T32)."""
        row = self._connection.execute(
            f"SELECT {PAYMENT_FIELDS}, "  # noqa: S608  # a constant
            "(SELECT before.chain FROM payment AS before WHERE before.payment_number = payment.payment_number - 1) "
            "FROM payment WHERE gateway_id = ? AND payment_id = ?",
            (gateway_id, payment_id),
        ).fetchone()
        if row is None:
            return None
        *values, chain, chain_before = row
        check_chain(self._path, values, chain, chain_before or CHAIN_START, "payment")
        _, _, _, _, terms, envelope_hash, outcome, reason, utr, _, receipt = values
        return Payment(
            decode_record(Terms, terms), envelope_hash, TransferOutcome(outcome), Reason(reason), utr or "", receipt
        )

    # -- at start --------------------------------------------------------------------------------------

    def _read_head(self) -> Head:
        row = self._connection.execute("SELECT * FROM bank").fetchone()
        if row is None:
            head = Head(0, 0, 1, 0, CHAIN_START, 0, CHAIN_START, 0)
            self._connection.execute(
                "INSERT INTO bank VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(self._identity) + astuple(head)
            )
            return head
        found, head = BankIdentity(*row[1:4]), Head(*row[4:])
        if found != self._identity:
            raise StoreError(f"{self._path} is the ledger of {found}, not of {self._identity}")
        return head


@dataclass(slots=True)
class _New:
    """A payment decided in this batch; its receipt comes when the batch is signed."""

    payment: Payment
    bank_time_ms: int
    posted: Posted | None


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A payment of this very batch came again: it moves nothing itself, and gets the same receipt once signed."""

    of: _New


_Answer = Outcome | _New | _Repeat


class _Batch:
    """One transaction in the making."""

    def __init__(
        self,
        ledger: SqliteLedger,
        connection: apsw.Connection,
        identity: BankIdentity,
        head: Head,
        now: Now,
        lock_time_ms: int,
    ) -> None:
        self.head = head
        self._ledger = ledger
        self._connection = connection
        self._identity = identity
        self._now = now
        self._lock_time_ms = lock_time_ms
        self._bank_time_ms = bank_time(now.wall_ms, head.bank_time_ms)
        self._utr_sequence = head.utr_sequence
        # What this batch has read or decided; None stands for a row that is not there.
        self._payments: dict[tuple[str, bytes], _New] = {}
        self._paid_tokens: set[tuple[str, str]] = set()
        self._customers: dict[str, Customer | None] = {}  # by user ID
        self._merchants: dict[str, Merchant | None] = {}
        # What is to be written.
        self._balances: dict[int, int] = {}
        self._attempts: list[tuple[int, int, int]] = []
        self._postings: list[tuple[int | None, int, int]] = []
        self._opened: list[Customer | Merchant] = []

    # -- deciding --------------------------------------------------------------------------------------

    def take(self, operation: Operation) -> _Answer:
        """Decide one operation."""
        match operation:
            case OpenCustomer():
                return self._open_customer(operation)
            case OpenMerchant():
                return self._open_merchant(operation)
            case FindPayment():
                return self._known(operation) or ABSENT
            case Transfer():
                return self._known(operation) or self._transfer(operation)
            case Resolve():
                return self._known(operation) or self._add(operation, TransferOutcome.FENCED, Reason.FENCED)

    def _known(self, operation: PaymentOperation) -> PaymentOutcome | _Repeat | None:
        terms = operation.terms
        new = self._payments.get((terms.gateway_id, terms.payment_id))
        if new is None:
            return replay(self._ledger.payment(terms.gateway_id, terms.payment_id), operation)
        answer = replay(new.payment, operation)
        return MISMATCH if answer is MISMATCH else _Repeat(new)

    def _transfer(self, operation: Transfer) -> _New:
        terms = operation.terms
        customer = self._customer(operation.opened.user_id) if isinstance(operation.opened, Opened) else None
        merchant = self._merchant(terms.merchant_id)
        situation = Situation(
            wall_time_ms=self._now.wall_ms,
            lock_time_ms=self._lock_time_ms,
            currency=self._identity.currency,
            token_is_paid=self._token_is_paid(terms),
            merchant=merchant,
            customer=customer,
        )
        decision = decide(operation, situation, self._now.mono_ms)
        if decision.reason in (Reason.NONE, Reason.CREDENTIALS, Reason.FUNDS):
            self._keep_attempt(decision.customer)
        if decision.reason is not Reason.NONE:
            return self._add(operation, TransferOutcome.DECLINED, decision.reason)
        assert decision.customer is not None
        assert merchant is not None
        return self._post(operation, decision.customer, merchant)

    def _post(self, operation: Transfer, customer: Customer, merchant: Merchant) -> _New:
        """R6: both postings, the UTR and the outcome, or none of them."""
        terms = operation.terms
        customer = replace(customer, balance_minor=customer.balance_minor - terms.amount_minor)
        merchant = replace(merchant, balance_minor=merchant.balance_minor + terms.amount_minor)
        # All accounts together hold what was paid in, and that is below the limit (T34).
        assert merchant.balance_minor <= BALANCE_MINOR_MAX
        self._customers[customer.user_id] = customer
        self._merchants[merchant.merchant_id] = merchant
        self._balances[customer.account_id] = customer.balance_minor
        self._balances[merchant.account_id] = merchant.balance_minor
        self._paid_tokens.add((terms.gateway_id, terms.transaction_id))
        self._utr_sequence += 1
        utr = utr_of(self._identity.bank_code, self._bank_time_ms, self._utr_sequence)
        new = self._add(operation, TransferOutcome.POSTED, Reason.NONE, utr)
        payment_number = self.head.payment_count + len(self._payments)
        self._postings.append((payment_number, customer.account_id, -terms.amount_minor))
        self._postings.append((payment_number, merchant.account_id, terms.amount_minor))
        posting = _posting_of(utr, customer.customer_id, terms, self._bank_time_ms)
        new.posted = Posted(posting, customer.balance_minor, merchant.balance_minor)
        return new

    def _add(self, operation: Transfer | Resolve, outcome: TransferOutcome, reason: Reason, utr: str = "") -> _New:
        terms = operation.terms
        new = _New(Payment(terms, operation.envelope_hash, outcome, reason, utr, b""), self._bank_time_ms, None)
        self._payments[(terms.gateway_id, terms.payment_id)] = new
        return new

    def _keep_attempt(self, customer: Customer | None) -> None:
        if customer is None:
            # An unknown user costs the same statement, for a row that is not there (T17).
            self._attempts.append((1, self._lock_time_ms, _NOBODY_ID))
        else:
            self._customers[customer.user_id] = customer
            self._attempts.append((customer.failure_count, customer.locked_until_ms, customer.account_id))

    def _open_customer(self, operation: OpenCustomer) -> AccountOutcome:
        opened = [c.customer_id for c in self._opened if isinstance(c, Customer)]
        if operation.customer_id in opened or self._ledger.find_customer(operation.customer_id):
            return AccountOutcome.KNOWN
        if self._customer(operation.user_id):
            return AccountOutcome.USER_ID_TAKEN
        account_id = self._open_account(operation.amount_minor)
        if account_id is None:
            return AccountOutcome.TOO_MUCH
        customer = Customer(
            account_id, operation.customer_id, operation.user_id, operation.verifier, operation.amount_minor
        )
        self._customers[customer.user_id] = customer
        self._opened.append(customer)
        return AccountOutcome.OPENED

    def _open_merchant(self, operation: OpenMerchant) -> AccountOutcome:
        if self._merchant(operation.merchant_id):
            return AccountOutcome.KNOWN
        account_id = self._open_account(operation.amount_minor)
        if account_id is None:
            return AccountOutcome.TOO_MUCH
        merchant = Merchant(account_id, operation.merchant_id, operation.name, operation.amount_minor)
        self._merchants[merchant.merchant_id] = merchant
        self._opened.append(merchant)
        return AccountOutcome.OPENED

    def _open_account(self, amount_minor: int) -> int | None:
        """Open balances are postings too: from equity, which so says what was ever paid in."""
        equity_minor = self._balance(_EQUITY_ID) - amount_minor
        if equity_minor < -BALANCE_MINOR_MAX:
            return None
        account_id = self.head.account_count + len(self._opened) + 1
        self._balances[_EQUITY_ID] = equity_minor
        self._balances[account_id] = amount_minor
        self._postings.append((None, _EQUITY_ID, -amount_minor))
        self._postings.append((None, account_id, amount_minor))
        return account_id

    # -- reading ---------------------------------------------------------------------------------------

    def _customer(self, user_id: str) -> Customer | None:
        if user_id not in self._customers:
            row = self._connection.execute(f"{_CUSTOMER_QUERY} WHERE user_id = ?", (user_id,)).fetchone()
            self._customers[user_id] = Customer(*row) if row else None
        return self._customers[user_id]

    def _merchant(self, merchant_id: str) -> Merchant | None:
        if merchant_id not in self._merchants:
            self._merchants[merchant_id] = self._ledger.find_merchant(merchant_id)
        return self._merchants[merchant_id]

    def _token_is_paid(self, terms: Terms) -> bool:
        token = (terms.gateway_id, terms.transaction_id)
        if token in self._paid_tokens:
            return True
        query = "SELECT 1 FROM payment WHERE gateway_id = ? AND transaction_id = ? AND outcome = 1"
        return self._connection.execute(query, token).fetchone() is not None

    def _balance(self, account_id: int) -> int:
        if account_id not in self._balances:
            query = "SELECT balance_minor FROM account WHERE account_id = ?"
            return int(self._connection.execute(query, (account_id,)).get)
        return self._balances[account_id]

    # -- signing and writing ---------------------------------------------------------------------------

    def sign(self, receipt_key: Ed25519PrivateKey, receipt_key_id: bytes) -> None:
        """One signature for all new outcomes of the batch."""
        statements = [
            ReceiptStatement(
                receipt_key_id=receipt_key_id,
                outcome=new.payment.outcome,
                reason=new.payment.reason,
                terms=new.payment.terms,
                utr=new.payment.utr,
                bank_time_ms=new.bank_time_ms,
                envelope_hash=new.payment.envelope_hash,
            )
            for new in self._payments.values()
        ]
        receipts: list[bytes] = []
        for start in range(0, len(statements), _SIGNED_COUNT_MAX):
            receipts += sign_receipts(receipt_key, statements[start : start + _SIGNED_COUNT_MAX])
        for new, receipt in zip(self._payments.values(), receipts, strict=True):
            new.payment = replace(new.payment, receipt=receipt)

    def write(self) -> None:
        """Write what was decided, in the transaction that is open; a batch that changed nothing writes nothing."""
        if not (self._payments or self._opened):
            return
        execute_many = self._connection.executemany
        head = self.head
        execute_many(
            "INSERT INTO account VALUES (?, ?)", [(opened.account_id, opened.balance_minor) for opened in self._opened]
        )
        execute_many(
            "INSERT INTO customer VALUES (?, ?, ?, ?, 0, 0)",
            [(c.account_id, c.customer_id, c.user_id, c.verifier) for c in self._opened if isinstance(c, Customer)],
        )
        execute_many(
            "INSERT INTO merchant VALUES (?, ?, ?)",
            [(m.account_id, m.merchant_id, m.name) for m in self._opened if isinstance(m, Merchant)],
        )
        payment_rows, payment_chain = chained(self._payment_rows(), head.payment_chain)
        execute_many("INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", payment_rows)
        numbered = [(head.posting_count + n, *posting) for n, posting in enumerate(self._postings, 1)]
        posting_rows, posting_chain = chained(numbered, head.posting_chain)
        execute_many("INSERT INTO posting VALUES (?, ?, ?, ?, ?)", posting_rows)
        execute_many(
            "UPDATE account SET balance_minor = ? WHERE account_id = ?",
            [(balance_minor, account_id) for account_id, balance_minor in self._balances.items()],
        )
        execute_many("UPDATE customer SET failure_count = ?, locked_until_ms = ? WHERE account_id = ?", self._attempts)
        self.head = Head(
            self._bank_time_ms,
            self._utr_sequence,
            head.account_count + len(self._opened),
            head.payment_count + len(payment_rows),
            payment_chain,
            head.posting_count + len(posting_rows),
            posting_chain,
            self._lock_time_ms,
        )
        self._connection.execute(
            "UPDATE bank SET bank_time_ms = ?, utr_sequence = ?, account_count = ?, payment_count = ?, "
            "payment_chain = ?, posting_count = ?, posting_chain = ?, lock_time_ms = ?",
            astuple(self.head),
        )

    def _payment_rows(self) -> list[tuple[Any, ...]]:
        return [
            (
                self.head.payment_count + n,
                new.payment.terms.gateway_id,
                new.payment.terms.payment_id,
                new.payment.terms.transaction_id,
                encode_record(new.payment.terms),
                new.payment.envelope_hash,
                int(new.payment.outcome),
                int(new.payment.reason),
                new.payment.utr or None,
                new.bank_time_ms,
                new.payment.receipt,
            )
            for n, new in enumerate(self._payments.values(), 1)
        ]


def _outcome_of(answer: _Answer) -> Outcome:
    if isinstance(answer, _New | _Repeat):
        payment = answer.payment if isinstance(answer, _New) else answer.of.payment
        posted = answer.posted if isinstance(answer, _New) else None
        return PaymentOutcome(payment.outcome, payment.reason, payment.utr, payment.receipt, posted)
    return answer


def _posting_of(utr: str, customer_id: str, terms: Terms, bank_time_ms: int) -> Posting:
    return Posting(
        utr, customer_id, terms.merchant_id, terms.amount_minor, terms.currency, terms.transaction_id, bank_time_ms
    )
