"""The hash chains over a ledger's payments and postings, and the check that every row is what was written (T32).

Each row carries a hash over itself and the row before it, so a row that was changed, put in or taken out is found, and
the counters of the table `bank` tell when rows are missing at the end.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from paygate.codec.codes import TransferOutcome
from paygate.files.sqlite import StoreCorrupt
from paygate.making import compiled_function

_SIZE_COUNT: Final = 2_048  # larger than nearly all values
CHAIN_START: Final = bytes(32)
"""Stands for the row before the first."""
EQUITY_ID: Final = 1
"""The bank's own account, which is in every ledger: what was paid in is owed from it, so it alone is below zero."""
PAYMENT_FIELDS: Final = (
    "payment_number, gateway_id, payment_id, transaction_id, terms, envelope_hash, outcome, reason, utr, "
    "bank_time_ms, receipt, chain"
)
"""A payment's columns in the order in which they are hashed; the hash is the last."""

NextChain = Callable[[bytes, Sequence[Any]], bytes]
"""A row's hash: SHA-256 over the hash of the row before and this row's values, each behind its size.

A blob is hashed as it is, everything else as its text.
"""


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
    balanced_count: int
    """The postings that the balances in the table `account` count in. Later ones are added to them at a start."""


class _Sizes(dict[int, bytes]):
    """Sizes as they are hashed, looked up where they would be made for each value."""

    def __missing__(self, size: int) -> bytes:
        return size.to_bytes(4)


def _next_chain_of(table: str, columns: Sequence[str], blobs: Set[str]) -> NextChain:
    """The hash of a table's rows, written out for its columns: in a loop over them it takes a third longer."""
    lines = ["def next_chain(chain_before, values):", f"    {', '.join(columns)} = values"]
    pieces = ["chain_before"]
    for column in columns:
        # A blob's class is looked at all the same: a damaged row may hold anything.
        condition = f"if {column}.__class__ is not bytes: " if column in blobs else ""
        lines.append(f"    {condition}{column} = str({column}).encode()")
        pieces += [f"_sizes[len({column})]", column]
    lines.append(f"    return _sha256(_join(({', '.join(pieces)}))).digest()")
    objects = {"_sizes": _Sizes((n, n.to_bytes(4)) for n in range(_SIZE_COUNT)), "_sha256": hashlib.sha256}
    return compiled_function("next_chain", "\n".join(lines) + "\n", {**objects, "_join": b"".join}, table)


next_payment_chain: Final = _next_chain_of(
    "payment", PAYMENT_FIELDS.split(", ")[:-1], {"payment_id", "terms", "envelope_hash", "receipt"}
)
next_posting_chain: Final = _next_chain_of(
    "posting", ("posting_number", "payment_number", "account_id", "amount_minor"), frozenset()
)


def chained(
    rows: Sequence[tuple[Any, ...]], chain: bytes, next_chain: NextChain
) -> tuple[list[tuple[Any, ...]], bytes]:
    """The rows, each with its hash, and the last hash."""
    with_hashes = []
    for row in rows:
        chain = next_chain(chain, row)
        with_hashes.append((*row, chain))
    return with_hashes, chain


def corrupt(path: Path, text: str) -> StoreCorrupt:
    """The error that ends a server whose ledger is not what was written."""
    return StoreCorrupt(f"{path} is damaged: {text}; restore it from a backup")


def changed(path: Path, what: str, number: Any) -> StoreCorrupt:
    """The error for a row that does not have its hash."""
    return corrupt(path, f"{what} {number} is not what was written")


def verify(path: Path, connection: apsw.Connection, head: Head) -> dict[int, int]:
    """T32: every row is what was written, and every balance is the sum of its postings. Raises StoreCorrupt.

    Gives the balances that are not what the table `account` says, since later postings changed them.
    """
    posted_count = _verify_payments(path, connection, head)
    balances: Counter[int] = Counter()
    written: dict[int, int] = {}
    transferred_count, sum_minor = 0, 0
    chain, number = CHAIN_START, 0
    for *values, row_chain in connection.execute("SELECT * FROM posting ORDER BY posting_number"):
        number, payment_number, account_id, amount_minor = values
        chain = next_posting_chain(chain, values)
        if chain != row_chain:
            raise changed(path, "posting", number)
        balances[account_id] += amount_minor
        transferred_count += payment_number is not None
        sum_minor += amount_minor
        if number == head.balanced_count:
            written = dict(balances)
        if number % 2 == 0 and sum_minor:  # The halves of a transfer stand side by side.
            raise corrupt(path, f"posting {number} and the one before it do not balance")
    if (number, chain) != (head.posting_count, head.posting_chain) or number % 2:
        raise corrupt(path, "postings are missing at the end")
    if transferred_count != 2 * posted_count:
        raise corrupt(path, "payments and postings do not agree")
    accounts: list[Any] = connection.execute("SELECT account_id, balance_minor FROM account").fetchall()
    holders = "SELECT (SELECT count(*) FROM customer) + (SELECT count(*) FROM merchant)"
    if not len(accounts) == head.account_count == connection.execute(holders).get + 1:  # The first is the bank's own.
        raise corrupt(path, "accounts are missing")
    if head.utr_sequence < posted_count:
        raise corrupt(path, "UTRs would be given out again")
    for account_id, balance_minor in accounts:
        if written.get(account_id, 0) != balance_minor:
            raise corrupt(path, f"the balance of account {account_id} is not the sum of its postings")
        if account_id != EQUITY_ID and balances[account_id] < 0:
            raise corrupt(path, f"account {account_id} was overdrawn")
    return {account: minor for account, minor in balances.items() if written.get(account, 0) != minor}


def _verify_payments(path: Path, connection: apsw.Connection, head: Head) -> int:
    chain, number, posted_count = CHAIN_START, 0, 0
    query = f"SELECT {PAYMENT_FIELDS} FROM payment ORDER BY payment_number"  # noqa: S608  # a constant
    for *values, row_chain in connection.execute(query):
        number = values[0]
        chain = next_payment_chain(chain, values)
        if chain != row_chain:
            raise changed(path, "payment", number)
        posted_count += values[6] == TransferOutcome.POSTED
    if (number, chain) != (head.payment_count, head.payment_chain):
        raise corrupt(path, "payments are missing at the end")
    return posted_count
