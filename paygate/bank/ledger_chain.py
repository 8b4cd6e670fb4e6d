"""The hash chains over a ledger's payments, postings and accounts (T32).

Each row carries a hash over itself and the row before it, so a row that was changed, put in or taken out is found, and
the counters of the table `bank` tell when rows are missing at the end. `ledger_check.py` looks at all of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from paygate.audit.findings import RESTORE
from paygate.audit.pages import schema_hash
from paygate.audit.row_hash import CHAIN_START, next_chain_of, row_hash, row_text, text_expression
from paygate.files.sqlite import StoreCorrupt

EQUITY_ID: Final = 1
"""The bank's own account, which is in every ledger: what was paid in is owed from it, so it alone is below zero."""
PAYMENT_FIELDS: Final = (
    "payment_number, gateway_id, payment_id, transaction_id, terms, envelope_hash, outcome, reason, utr, "
    "bank_time_ms, receipt, chain"
)
"""A payment's columns in the order in which they are hashed; the hash is the last."""


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
    account_chain: bytes
    made_hash: bytes
    """Of the tables as they were made, and of whose bank it is; never changes but with the version."""


IDENTITY_FIELDS: Final = ("bank_id", "bank_code", "currency")
HEAD_FIELDS: Final = ", ".join(Head._fields)
CUSTOMER_FIELDS: Final = ("account_id", "customer_id", "user_id", "verifier")
"""What never changes of a customer, and is chained with the account."""
MERCHANT_FIELDS: Final = ("account_id", "merchant_id", "name")
"""All of a merchant's, chained as a customer's."""
ATTEMPT_FIELDS: Final = ("account_id", "failure_count", "locked_until_ms")
"""What changes of a customer, with a hash of its own; one without failures has none."""
NO_ATTEMPTS: Final = b""
"""The hash of a customer without failures: few have any, and so the others cost no room."""


next_payment_chain: Final = next_chain_of(
    "payment", PAYMENT_FIELDS.split(", ")[:-1], {"payment_id", "terms", "envelope_hash", "receipt"}
)
next_posting_chain: Final = next_chain_of(
    "posting", ("posting_number", "payment_number", "account_id", "amount_minor"), frozenset()
)


def next_account_chain(chain_before: bytes, values: Sequence[Any]) -> bytes:
    """The hash of a customer (CUSTOMER_FIELDS) or merchant (MERCHANT_FIELDS), behind the account opened before."""
    return row_hash(chain_before, row_text(values))


def attempts_hash(failure_count: int, locked_until_ms: int, account_id: int) -> bytes:
    """What is kept beside a customer's attempts (T15), so that no flipped byte unlocks an account."""
    hashed = row_hash(CHAIN_START, row_text((account_id, failure_count, locked_until_ms)))
    return hashed if failure_count or locked_until_ms else NO_ATTEMPTS


def head_hash(head: Head) -> bytes:
    """What is kept beside the counters."""
    return row_hash(CHAIN_START, row_text(head))


def made_hash(connection: apsw.Connection, identity_text: bytes) -> bytes:
    """What `Head.made_hash` says, given the text of IDENTITY_FIELDS."""
    return row_hash(schema_hash(connection), identity_text)


def chain_accounts(connection: apsw.Connection) -> None:
    """Leads to version 5: the accounts of an older ledger are chained as they are, and the counters hashed."""
    chain = CHAIN_START
    query = (
        f"SELECT account_id, 1, {text_expression(CUSTOMER_FIELDS)} FROM customer "  # noqa: S608  # constants
        f"UNION ALL SELECT account_id, 0, {text_expression(MERCHANT_FIELDS)} FROM merchant ORDER BY account_id"
    )
    for account_id, is_customer, text in connection.execute(query):
        chain = row_hash(chain, text)
        table = "customer" if is_customer else "merchant"
        connection.execute(f"UPDATE {table} SET chain = ? WHERE account_id = ?", (chain, account_id))  # noqa: S608
    tried = "SELECT failure_count, locked_until_ms, account_id FROM customer WHERE failure_count OR locked_until_ms"
    attempts: list[Any] = connection.execute(tried).fetchall()
    statement = "UPDATE customer SET attempts_hash = ? WHERE account_id = ?"
    connection.executemany(statement, [(attempts_hash(*row), row[2]) for row in attempts])
    connection.execute("UPDATE bank SET account_chain = ?", (chain,))
    identities: list[Any] = connection.execute(f"SELECT {', '.join(IDENTITY_FIELDS)} FROM bank").fetchall()  # noqa: S608
    for identity in identities:  # A ledger that is new has none yet.
        connection.execute("UPDATE bank SET made_hash = ?", (made_hash(connection, row_text(identity)),))
    heads: list[Any] = connection.execute(f"SELECT {HEAD_FIELDS} FROM bank").fetchall()  # noqa: S608  # a constant
    for row in heads:
        connection.execute("UPDATE bank SET row_hash = ?", (head_hash(Head(*row)),))


def corrupt(path: Path, text: str) -> StoreCorrupt:
    """The error that ends a server whose ledger is not what was written."""
    return StoreCorrupt(f"{path} is damaged: {text}; {RESTORE}")


def changed(path: Path, what: str, number: Any) -> StoreCorrupt:
    """The error for a row that does not have its hash."""
    return corrupt(path, f"{what} {number} is not what was written")
