"""What a batch of the ledger came to, as rows: each chained to the one before, all written within its transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import apsw

from paygate.bank.ledger import Customer, Merchant
from paygate.bank.ledger_chain import Head, chained, next_payment_chain, next_posting_chain
from paygate.codec.record_codec import encode_record
from paygate.codec.sealed import ReceiptStatement

BALANCE_COUNT_MAX: Final = 4_096
"""Changed balances that are kept in memory before all are written: a payment of its own would write the pages of two
accounts, which were half of its pages. They are the sums of postings, which are written at once, so none is lost."""


@dataclass(slots=True)
class Changes:
    """All that a batch decided and is to be written, besides its payments."""

    balances: dict[int, int] = field(default_factory=dict)
    """Final balances by account ID, in minor units."""
    attempts: list[tuple[int, int, int]] = field(default_factory=list)
    """Failure count, end of the lock and account ID of customers whose password attempts were counted (T15)."""
    postings: list[tuple[int, int | None, int, int]] = field(default_factory=list)
    """Numbered. Payment number (None for an opening balance), account ID and minor units: without their hash."""
    opened: list[Customer | Merchant] = field(default_factory=list)


def write(
    connection: apsw.Connection,
    head: Head,
    counters: tuple[int, int, int],
    statements: Sequence[ReceiptStatement],
    receipts: Sequence[bytes],
    changes: Changes,
    balances: Mapping[int, int],
) -> Head:
    """Write a batch; gives the counters that then hold.

    `counters` are its bank time, last UTR sequence and lock time; each of its payments has a statement and a receipt.
    `balances` are those that earlier batches left to be written. With those of this one they are written if they are
    many or if it opens accounts; then `balanced_count` is `posting_count`.
    """
    _write_opened(connection, changes.opened)
    payment_rows, payment_chain = chained(
        [
            _payment_row(number, statement, receipt)
            for number, (statement, receipt) in enumerate(
                zip(statements, receipts, strict=True), head.payment_count + 1
            )
        ],
        head.payment_chain,
        next_payment_chain,
    )
    _write(connection, "INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", payment_rows)
    posting_rows, posting_chain = chained(changes.postings, head.posting_chain, next_posting_chain)
    _write(connection, "INSERT INTO posting VALUES (?, ?, ?, ?, ?)", posting_rows)
    posting_count = head.posting_count + len(posting_rows)
    is_due = changes.opened or len(balances) >= BALANCE_COUNT_MAX
    if is_due:
        # In the order of the table, since so neighbours are found on the page that is at hand.
        due = sorted({**balances, **changes.balances}.items())
        _write(connection, "UPDATE account SET balance_minor = ?2 WHERE account_id = ?1", due)
    attempts = "UPDATE customer SET failure_count = ?, locked_until_ms = ? WHERE account_id = ?"
    _write(connection, attempts, changes.attempts)
    bank_time_ms, utr_sequence, lock_time_ms = counters
    written = Head(
        bank_time_ms,
        utr_sequence,
        head.account_count + len(changes.opened),
        head.payment_count + len(payment_rows),
        payment_chain,
        posting_count,
        posting_chain,
        lock_time_ms,
        posting_count if is_due else head.balanced_count,
    )
    connection.execute(
        "UPDATE bank SET bank_time_ms = ?, utr_sequence = ?, account_count = ?, payment_count = ?, "
        "payment_chain = ?, posting_count = ?, posting_chain = ?, lock_time_ms = ?, balanced_count = ?",
        written,
    )
    return written


def _write_opened(connection: apsw.Connection, opened: Sequence[Customer | Merchant]) -> None:
    if not opened:
        return
    customers = [c for c in opened if isinstance(c, Customer)]
    merchants = [m for m in opened if isinstance(m, Merchant)]
    _write(connection, "INSERT INTO account VALUES (?, ?)", [(o.account_id, o.balance_minor) for o in opened])
    _write(
        connection,
        "INSERT INTO customer VALUES (?, ?, ?, ?, 0, 0)",
        [(c.account_id, c.customer_id, c.user_id, c.verifier) for c in customers],
    )
    _write(
        connection,
        "INSERT INTO merchant VALUES (?, ?, ?)",
        [(m.account_id, m.merchant_id, m.name) for m in merchants],
    )


def _write(connection: apsw.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        connection.executemany(statement, rows)


def _payment_row(number: int, statement: ReceiptStatement, receipt: bytes) -> tuple[Any, ...]:
    terms = statement.terms
    return (
        number,
        terms.gateway_id,
        terms.payment_id,
        terms.transaction_id,
        encode_record(terms),
        statement.envelope_hash,
        int(statement.outcome),
        int(statement.reason),
        statement.utr or None,
        statement.bank_time_ms,
        receipt,
    )
