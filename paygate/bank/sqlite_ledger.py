"""The bank's durable truth in SQLite: the decisions of `ledger.py` around rows, in double entry.

A batch (`ledger_batch.py`) reads rows as it needs them and decides in memory; at its end the statements of all new
outcomes are signed with one signature, and everything is written in one transaction. Balances alone are written once
for many batches (`ledger_rows.py`): they are the sums of postings. Every hash is checked when the ledger opens, and a
payment's when it is replayed (T32).
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.audit.exports import ExportedPayment
from paygate.audit.findings import Check
from paygate.audit.row_hash import CHAIN_START, row_text
from paygate.bank.audit import audit_ledger, ledger_payments
from paygate.bank.bank_clock import LockClock
from paygate.bank.ledger import (
    BankIdentity,
    Customer,
    FindPayment,
    Merchant,
    Operation,
    Outcome,
    Payment,
    Posting,
    ReenterOutcome,
)
from paygate.bank.ledger_batch import Batch
from paygate.bank.ledger_chain import Head, corrupt, head_hash, made_hash
from paygate.bank.ledger_check import LedgerCheck, head_damages, is_new
from paygate.bank.ledger_reentry import reenter
from paygate.bank.ledger_rows import write_head
from paygate.bank.ledger_tables import (
    APPLICATION_ID,
    CUSTOMER_QUERY,
    MERCHANT_QUERY,
    MIGRATIONS,
    POSTING_QUERY,
    SCHEMA,
    customer_of,
    find_customer,
    find_merchant,
    find_payment,
    merchant_of,
    posting_of_row,
)
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.seal import key_id_of, sign_receipts
from paygate.codec.sealed import KeyList, ReceiptStatement
from paygate.files.database_copy import DatabaseCopy
from paygate.files.sqlite import StoreError, open_database, read_rows, reading, transaction

ABSENT_COUNT_MAX: Final = 16_384
"""Payments known not to be there, of which each is forgotten once it is decided: more than may be under way."""

MERCHANT_COUNT_MAX: Final = 16_384
"""Merchants kept in memory, each of a few hundred bytes: those that are paid would be read for nearly every payment."""

_INSERT_HEAD: Final = f"INSERT INTO bank VALUES (1, {', '.join('?' * (3 + len(Head._fields) + 1))})"  # noqa: S608
_READING: Final = frozenset({FindPayment})
_SIGNED_COUNT_MAX: Final = 1 << limits.RECEIPT_PATH_COUNT_MAX  # what a receipt's path can reach


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
        # Nobody else has the database open, so what was not there stays so until a batch puts it there.
        self._absent: set[tuple[str, bytes]] = set()
        # For the same reason, these are as the last batch left them.
        self._merchants: dict[str, Merchant] = {}
        self._connection = open_database(
            path, application_id=APPLICATION_ID, schema=SCHEMA, migrations=MIGRATIONS, vfs=vfs
        )
        try:
            with transaction(self._connection):
                self._head = self._read_head()
                check = LedgerCheck(self._connection, self._head)
                for damage in check.damages():
                    raise corrupt(path, f"{damage.where} {damage.problem}")
                # By account ID, what the table `account` is to say: all postings are on disk, so it may say it later.
                self._balances = check.unwritten_balances()
            self._lock_clock = LockClock(self._head.lock_time_ms)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the database and write nothing: what was applied is on disk, and an error may be why (T31)."""
        self._connection.close()

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        """One transaction for the batch; the outcomes in order. Raises StoreError."""
        if len(self._absent) > ABSENT_COUNT_MAX:
            self._absent.clear()
        if len(self._merchants) > MERCHANT_COUNT_MAX:
            self._merchants.clear()
        is_reading = {operation.__class__ for operation in operations} <= _READING
        with reading(self._connection) if is_reading else transaction(self._connection):
            batch = Batch(
                self._path,
                self._connection,
                self._identity,
                self._receipt_key_id,
                self._head,
                now,
                self._lock_clock.read(now),
                self._absent,
                self._merchants,
                self._balances,
            )
            batch.take(operations)
            statements = batch.statements
            receipts: list[bytes] = []
            for start in range(0, len(statements), _SIGNED_COUNT_MAX):
                receipts += sign_receipts(self._receipt_key, statements[start : start + _SIGNED_COUNT_MAX])
            batch.write(receipts)
        # Only what is on disk counts: a batch that failed leaves all of these as they were.
        self._head = batch.head
        self._merchants.update(batch.changed_merchants)
        if self._head.balanced_count == self._head.posting_count:
            self._balances.clear()
        else:
            self._balances.update(batch.changes.balances)
        return batch.outcomes()

    def start_clock(self, now: Now) -> None:
        """Lock time runs with the monotonic clock from here on; otherwise from the first batch on (T7, T15)."""
        self._lock_clock.read(now)

    def find_customer(self, customer_id: str) -> Customer | None:
        """The customer of this ID. Raises StoreError."""
        with reading(self._connection):
            return find_customer(self._connection, customer_id, self._balances)

    def find_merchant(self, merchant_id: str) -> Merchant | None:
        """The merchant of this ID. Raises StoreError."""
        with reading(self._connection):
            return find_merchant(self._connection, merchant_id, self._balances)

    def customers(self) -> Iterator[Customer]:
        """Every customer, in the order in which they were taken in."""
        rows = read_rows(self._connection, f"{CUSTOMER_QUERY} ORDER BY account_id")
        return (customer_of(row, self._balances) for row in rows)

    def merchants(self) -> Iterator[Merchant]:
        """Every merchant, in the order in which they were taken in."""
        rows = read_rows(self._connection, f"{MERCHANT_QUERY} ORDER BY account_id")
        return (merchant_of(row, self._balances) for row in rows)

    def postings(self) -> Iterator[Posting]:
        """Every payment that moved money, in the order of the UTRs."""
        rows = read_rows(self._connection, POSTING_QUERY)
        return (posting_of_row(row) for row in rows)

    def skip_utrs(self, sequence: int) -> None:
        """Never give out a UTR of this sequence number or a lower one. Raises StoreError."""
        if sequence > self._head.utr_sequence:
            head = self._head._replace(utr_sequence=sequence)
            with transaction(self._connection):
                write_head(self._connection, head)
            self._head = head

    @property
    def utr_sequence(self) -> int:
        """The sequence number of the last UTR given out or skipped; its last eight digits stand in the UTR."""
        return self._head.utr_sequence

    @property
    def skipped_utr_count(self) -> int:
        """UTRs that were passed over: all that are not in a payment here."""
        # Each account was opened by two postings, and each payment that moved money has two.
        posted_count = self._head.posting_count // 2 - (self._head.account_count - 1)
        return self._head.utr_sequence - posted_count

    @property
    def bank_time_ms(self) -> int:
        """The latest bank time that was used; 0 in a new ledger."""
        return self._head.bank_time_ms

    def payment(self, gateway_id: str, payment_id: bytes) -> Payment | None:
        """A payment that is on disk. Raises StoreCorrupt if it is not what was written (T32)."""
        return find_payment(self._path, self._connection, (gateway_id, payment_id))

    def reenter(self, statement: ReceiptStatement, receipt: bytes, customer_id: str, now: Now) -> ReenterOutcome:
        """Enter a payment that a backup did not have, as it was: its receipt, which has been verified, says so.

        For a restored ledger that does not have the payment. Raises StoreError.
        """
        with transaction(self._connection):
            outcome, head, changes = reenter(
                self._connection,
                self._head,
                (statement, receipt),
                (self.find_customer(customer_id), self.find_merchant(statement.terms.merchant_id)),
                self._lock_clock.read(now),
                self._balances,
            )
        self._head = head
        self._balances.update(changes.balances)
        self._merchants.clear()
        return outcome

    def copy_to(self, target: Path) -> DatabaseCopy:
        """A copy of the ledger in the making, for a backup. Raises BackupFailed."""
        return DatabaseCopy(self._connection, target)

    def audit(self, key_list: KeyList) -> list[Check]:
        """Everything in the ledger checked, as it is on disk; `key_list` holds the key that receipts verify under."""
        with reading(self._connection):
            return audit_ledger(self._connection, self._identity, key_list)

    def exported_payments(self, gateway_id: str) -> list[ExportedPayment]:
        """A gateway's payments, for its audit."""
        with reading(self._connection):
            return list(ledger_payments(self._connection, gateway_id))

    def _read_head(self) -> Head:
        connection, identity = self._connection, self._identity
        if is_new(connection):
            made = made_hash(connection, row_text(astuple(identity)))
            head = Head(0, 0, 1, 0, CHAIN_START, 0, CHAIN_START, 0, 0, CHAIN_START, made)
            connection.execute(_INSERT_HEAD, (*astuple(identity), *head, head_hash(head)))
            return head
        for damage in head_damages(connection):
            raise corrupt(self._path, f"{damage.where} {damage.problem}")
        row: Any = connection.execute("SELECT * FROM bank").fetchone()
        found = BankIdentity(*row[1:4])
        if found != identity:
            raise StoreError(f"{self._path} is the ledger of {found}, not of {identity}")
        return Head(*row[4:-1])
