"""The hash chains over a ledger's payments and postings, and the check that every row is what was written (T32).

Each row carries a hash over itself and the row before it, so a row that was changed, put in or taken out is found, and
the counters of the table `bank` tell when rows are missing at the end.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from paygate.codec.codes import TransferOutcome
from paygate.files.sqlite import StoreCorrupt

CHAIN_START: Final = bytes(32)
"""Stands for the row before the first."""
PAYMENT_FIELDS: Final = (
    "payment_number, gateway_id, payment_id, transaction_id, terms, envelope_hash, outcome, reason, utr, "
    "bank_time_ms, receipt, chain"
)
"""A payment's columns in the order in which they are hashed; the hash is the last."""

_SIZE_SIZE: Final = 4
_SIZE_COUNT: Final = 1_024  # larger than nearly all values
_SIZES: Final = tuple(size.to_bytes(_SIZE_SIZE) for size in range(_SIZE_COUNT))  # looked up, not made for each value
_sha256: Final = hashlib.sha256


class Head(NamedTuple):
    """The ledger's counters and the ends of its chains; one row of the table `bank`."""

    bank_time_ms: int
    utr_sequence: int
    account_count: int
    payment_count: int
    payment_chain: bytes
    posting_count: int
    posting_chain: bytes
    lock_time_ms: int


def chained(rows: Sequence[tuple[Any, ...]], chain: bytes) -> tuple[list[tuple[Any, ...]], bytes]:
    """The rows, each with its hash, and the last hash."""
    with_hashes = []
    for row in rows:
        chain = _next_chain(chain, row)
        with_hashes.append((*row, chain))
    return with_hashes, chain


def _next_chain(chain_before: bytes, values: Sequence[Any]) -> bytes:
    """SHA-256 over the hash of the row before and this row's values, each behind its size."""
    pieces = [chain_before]
    for value in values:
        data = value if value.__class__ is bytes else str(value).encode()
        size = len(data)
        pieces += (_SIZES[size] if size < _SIZE_COUNT else size.to_bytes(_SIZE_SIZE), data)
    return _sha256(b"".join(pieces)).digest()


def corrupt(path: Path, text: str) -> StoreCorrupt:
    """The error that ends a server whose ledger is not what was written."""
    return StoreCorrupt(f"{path} is damaged: {text}; restore it from a backup")


def check_chain(path: Path, values: Sequence[Any], chain: bytes, chain_before: bytes, what: str) -> None:
    """Check one row against its hash. Raises StoreCorrupt."""
    if chain != _next_chain(chain_before, values):
        raise corrupt(path, f"{what} {values[0]} is not what was written")


def verify(path: Path, connection: apsw.Connection, head: Head) -> None:
    """T32: every row is what was written, and every balance is the sum of its postings. Raises StoreCorrupt."""
    posted_count = _verify_payments(path, connection, head)
    balances: Counter[int] = Counter()
    transferred_count, sum_minor = 0, 0
    chain, number = CHAIN_START, 0
    for *values, row_chain in connection.execute("SELECT * FROM posting ORDER BY posting_number"):
        number, payment_number, account_id, amount_minor = values
        check_chain(path, values, row_chain, chain, "posting")
        chain = row_chain
        balances[account_id] += amount_minor
        transferred_count += payment_number is not None
        sum_minor += amount_minor
        if number % 2 == 0 and sum_minor:  # The halves of a transfer stand side by side.
            raise corrupt(path, f"posting {number} and the one before it do not balance")
    if (number, chain) != (head.posting_count, head.posting_chain) or number % 2:
        raise corrupt(path, "postings are missing at the end")
    if transferred_count != 2 * posted_count:
        raise corrupt(path, "payments and postings do not agree")
    accounts: list[Any] = connection.execute("SELECT account_id, balance_minor FROM account").fetchall()
    if len(accounts) != head.account_count:
        raise corrupt(path, "accounts are missing")
    for account_id, balance_minor in accounts:
        if balances[account_id] != balance_minor:
            raise corrupt(path, f"the balance of account {account_id} is not the sum of its postings")


def _verify_payments(path: Path, connection: apsw.Connection, head: Head) -> int:
    chain, number, posted_count = CHAIN_START, 0, 0
    query = f"SELECT {PAYMENT_FIELDS} FROM payment ORDER BY payment_number"  # noqa: S608  # a constant
    for *values, row_chain in connection.execute(query):
        check_chain(path, values, row_chain, chain, "payment")
        chain, number = row_chain, values[0]
        posted_count += values[6] == TransferOutcome.POSTED
    if (number, chain) != (head.payment_count, head.payment_chain):
        raise corrupt(path, "payments are missing at the end")
    return posted_count
