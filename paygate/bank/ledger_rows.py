"""What a batch of the ledger came to, as rows: each chained to the one before, all written within its transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import apsw

from paygate.audit.row_hash import chained
from paygate.bank.ledger import Customer, Merchant
from paygate.bank.ledger_chain import (
    HEAD_FIELDS,
    NO_ATTEMPTS,
    Head,
    attempts_hash,
    head_hash,
    next_account_chain,
    next_payment_chain,
    next_posting_chain,
)
from paygate.codec.record_codec import encode_record
from paygate.codec.sealed import ReceiptStatement

BALANCE_COUNT_MAX: Final = 4_096
"""Changed balances that are kept in memory before all are written: a payment of its own would write the pages of two
accounts, which were half of its pages. They are the sums of postings, which are written at once, so none is lost."""
_UPDATE_HEAD: Final = f"UPDATE bank SET ({HEAD_FIELDS}, row_hash) = ({', '.join('?' * (len(Head._fields) + 1))})"  # noqa: S608


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
    account_chain = _write_opened(connection, changes.opened, head.account_chain)
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
    attempts = "UPDATE customer SET failure_count = ?1, locked_until_ms = ?2, attempts_hash = ?4 WHERE account_id = ?3"
    _write(connection, attempts, [(*attempt, attempts_hash(*attempt)) for attempt in changes.attempts])
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
        account_chain,
        head.made_hash,
    )
    write_head(connection, written)
    return written


def write_head(connection: apsw.Connection, head: Head) -> None:
    """Keep the counters, with their hash; within a transaction."""
    connection.execute(_UPDATE_HEAD, (*head, head_hash(head)))


def _write_opened(connection: apsw.Connection, opened: Sequence[Customer | Merchant], chain: bytes) -> bytes:
    """Write new accounts, each chained to the one before; gives the last hash."""
    if not opened:
        return chain
    rows, chain = chained([_account_row(account) for account in opened], chain, next_account_chain)
    customers = [row for row, account in zip(rows, opened, strict=True) if isinstance(account, Customer)]
    merchants = [row for row, account in zip(rows, opened, strict=True) if isinstance(account, Merchant)]
    _write(connection, "INSERT INTO account VALUES (?, ?)", [(o.account_id, o.balance_minor) for o in opened])
    insert_customer = "INSERT INTO customer VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6)"
    _write(connection, insert_customer, [(*row, NO_ATTEMPTS) for row in customers])
    _write(connection, "INSERT INTO merchant VALUES (?, ?, ?, ?)", merchants)
    return chain


def _account_row(account: Customer | Merchant) -> tuple[Any, ...]:
    if isinstance(account, Customer):
        return account.account_id, account.customer_id, account.user_id, account.verifier
    return account.account_id, account.merchant_id, account.name


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
