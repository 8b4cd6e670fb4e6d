"""The ledger's tables in SQLite, and how a row of theirs is found.

Payments and postings are never changed; triggers refuse it. They and the accounts carry, in each row, a hash over
itself and the row before it (`ledger_chain.py`). Rows are keyed by an increasing number, so that new ones go to the
end of their table; payment IDs, which come in any order, live in one index only.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import apsw

from paygate.audit.row_hash import CHAIN_START
from paygate.bank.ledger import Customer, Merchant, Payment, Posting
from paygate.bank.ledger_chain import PAYMENT_FIELDS, chain_accounts, changed, next_payment_chain
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import Terms
from paygate.making import maker_of

APPLICATION_ID: Final = 0x50474C47  # "PGLG"
SCHEMA: Final = (
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
    # The outcome's check was IN (1, 2, 3), for which SQLite makes a table of its own for every row that is put in: two
    # thirds of the bytes that a payment allocated. Dropping the table drops its index and triggers.
    """
    CREATE TABLE payment_anew (
        payment_number INTEGER PRIMARY KEY,
        gateway_id TEXT NOT NULL,
        payment_id BLOB NOT NULL,
        transaction_id TEXT NOT NULL,
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        outcome INTEGER NOT NULL CHECK (outcome BETWEEN 1 AND 3),
        reason INTEGER NOT NULL,
        utr TEXT UNIQUE CHECK ((outcome = 1) = (utr IS NOT NULL)),
        bank_time_ms INTEGER NOT NULL,
        receipt BLOB NOT NULL,
        chain BLOB NOT NULL,
        UNIQUE (gateway_id, payment_id)
    ) STRICT;
    INSERT INTO payment_anew SELECT * FROM payment ORDER BY payment_number;
    DROP TABLE payment;
    ALTER TABLE payment_anew RENAME TO payment;
    CREATE UNIQUE INDEX posted_token ON payment (gateway_id, transaction_id) WHERE outcome = 1;
    CREATE TRIGGER payment_stays BEFORE UPDATE ON payment BEGIN SELECT RAISE(ABORT, 'payments never change'); END;
    CREATE TRIGGER payment_remains BEFORE DELETE ON payment BEGIN SELECT RAISE(ABORT, 'payments never go'); END;
    """,
    """
    ALTER TABLE bank ADD COLUMN balanced_count INTEGER NOT NULL DEFAULT 0;
    UPDATE bank SET balanced_count = posting_count; -- until then each balance was written with its posting
    """,
    """
    ALTER TABLE customer ADD COLUMN chain BLOB NOT NULL DEFAULT x'';
    ALTER TABLE customer ADD COLUMN attempts_hash BLOB NOT NULL DEFAULT x'';
    ALTER TABLE merchant ADD COLUMN chain BLOB NOT NULL DEFAULT x'';
    ALTER TABLE bank ADD COLUMN account_chain BLOB NOT NULL DEFAULT x'';
    ALTER TABLE bank ADD COLUMN made_hash BLOB NOT NULL DEFAULT x'';
    ALTER TABLE bank ADD COLUMN row_hash BLOB NOT NULL DEFAULT x'';
    """,
)
"""The n-th script leads to version n."""
MIGRATIONS: Final = {5: chain_accounts}
"""What a version needs besides its script, once that has run."""
MADE_AS: Final = {"application_id": APPLICATION_ID, "version": len(SCHEMA)}
"""By what `open_to_read` knows a ledger that this paygate can read."""

# The balances by a query of their own each: a join takes three times as long for one row.
CUSTOMER_QUERY: Final = (
    "SELECT account_id, customer_id, user_id, verifier, "
    "(SELECT balance_minor FROM account WHERE account.account_id = customer.account_id), "
    "failure_count, locked_until_ms FROM customer "
)
"""The fields of a Customer, for `customer_of`."""
MERCHANT_QUERY: Final = (
    "SELECT account_id, merchant_id, name, "
    "(SELECT balance_minor FROM account WHERE account.account_id = merchant.account_id) FROM merchant "
)
"""The fields of a Merchant, for `merchant_of`."""

POSTING_QUERY: Final = (
    "SELECT payment.utr, customer.customer_id, payment.terms, payment.bank_time_ms "
    "FROM payment JOIN posting USING (payment_number) JOIN customer USING (account_id) "
    "WHERE posting.amount_minor < 0 ORDER BY payment_number"
)
"""What a Posting is made of, for `posting_of_row`: every payment that moved money, in the order of the UTRs."""

_CUSTOMER_OF_ID: Final = f"{CUSTOMER_QUERY} WHERE customer_id = ?"
_CUSTOMER_OF_USER: Final = f"{CUSTOMER_QUERY} WHERE user_id = ?"
_MERCHANT_OF_ID: Final = f"{MERCHANT_QUERY} WHERE merchant_id = ?"
_PAYMENT_OF_ID: Final = (
    f"SELECT {PAYMENT_FIELDS}, "  # noqa: S608  # a constant
    "(SELECT before.chain FROM payment AS before WHERE before.payment_number = payment.payment_number - 1) "
    "FROM payment WHERE gateway_id = ? AND payment_id = ?"
)
# Many at once, for a third of the time that one query for each takes.
_CUSTOMERS_OF_USERS: Final = f"{CUSTOMER_QUERY} WHERE user_id IN carray(?)"
_PAYMENTS_OF_IDS: Final = "SELECT payment_id FROM payment WHERE gateway_id = ? AND payment_id IN carray(?)"
_POSTED_OF_IDS: Final = (
    "SELECT transaction_id FROM payment WHERE gateway_id = ? AND transaction_id IN carray(?) AND outcome = 1"
)
_POSTED_PAYMENT: Final = "SELECT 1 FROM payment WHERE gateway_id = ? AND transaction_id = ? AND outcome = 1"

_make_customer: Final = maker_of(Customer)
_make_merchant: Final = maker_of(Merchant)
_make_posting: Final = maker_of(Posting)


Balances = Mapping[int, int]
"""By account ID: balances that the table `account` does not say yet, in minor units."""


def find_user(connection: apsw.Connection, user_id: str, balances: Balances) -> Customer | None:
    """The customer of this user ID."""
    row = connection.execute(_CUSTOMER_OF_USER, (user_id,)).fetchone()
    return customer_of(row, balances) if row else None


def find_customer(connection: apsw.Connection, customer_id: str, balances: Balances) -> Customer | None:
    """The customer of this customer ID."""
    row = connection.execute(_CUSTOMER_OF_ID, (customer_id,)).fetchone()
    return customer_of(row, balances) if row else None


def find_users(
    connection: apsw.Connection, user_ids: Collection[str], balances: Balances
) -> dict[str, Customer | None]:
    """The customers of these user IDs, None for one that nobody has."""
    found: dict[str, Customer | None] = dict.fromkeys(user_ids)
    for row in connection.execute(_CUSTOMERS_OF_USERS, (apsw.carray(tuple(user_ids)),)).fetchall():
        customer = customer_of(row, balances)
        found[customer.user_id] = customer
    return found


def customer_of(row: tuple[Any, ...], balances: Balances) -> Customer:
    """The customer in a row of CUSTOMER_QUERY."""
    account_id, customer_id, user_id, verifier, balance_minor, failure_count, locked_until_ms = row
    balance_minor = balances.get(account_id, balance_minor)
    return _make_customer(account_id, customer_id, user_id, verifier, balance_minor, failure_count, locked_until_ms)


def find_merchant(connection: apsw.Connection, merchant_id: str, balances: Balances) -> Merchant | None:
    """The merchant of this ID."""
    row = connection.execute(_MERCHANT_OF_ID, (merchant_id,)).fetchone()
    return merchant_of(row, balances) if row else None


def merchant_of(row: tuple[Any, ...], balances: Balances) -> Merchant:
    """The merchant in a row of MERCHANT_QUERY."""
    account_id, merchant_id, name, balance_minor = row
    return _make_merchant(account_id, merchant_id, name, balances.get(account_id, balance_minor))


def posting_of(utr: str, customer_id: str, terms: Terms, bank_time_ms: int) -> Posting:
    """What `TransactionID.txt` says of a payment that moved money."""
    return _make_posting(
        utr, customer_id, terms.merchant_id, terms.amount_minor, terms.currency, terms.transaction_id, bank_time_ms
    )


def posting_of_row(row: tuple[Any, ...]) -> Posting:
    """The Posting of a row of POSTING_QUERY."""
    utr, customer_id, terms, bank_time_ms = row
    return posting_of(utr, customer_id, decode_record(Terms, terms), bank_time_ms)


def find_payment(path: Path, connection: apsw.Connection, key: tuple[str, bytes]) -> Payment | None:
    """The payment of this gateway and payment ID. Raises StoreCorrupt if it is not what was written (T32)."""
    row: tuple[Any, ...] | None = connection.execute(_PAYMENT_OF_ID, key).fetchone()
    if row is None:
        return None
    *values, chain, chain_before = row
    if chain != next_payment_chain(chain_before or CHAIN_START, values):
        raise changed(path, "payment", values[0])
    _, _, _, _, terms, envelope_hash, outcome, reason, utr, _, receipt = values
    return Payment(
        decode_record(Terms, terms), envelope_hash, TransferOutcome(outcome), Reason(reason), utr or "", receipt
    )


def is_token_posted(connection: apsw.Connection, token: tuple[str, str]) -> bool:
    """Whether a payment of this gateway and transaction ID is POSTED (R9)."""
    return connection.execute(_POSTED_PAYMENT, token).fetchone() is not None


def known_payments(connection: apsw.Connection, gateway_id: str, payment_ids: Collection[bytes]) -> set[bytes]:
    """Which of these payment IDs of a gateway are known."""
    return {row[0] for row in connection.execute(_PAYMENTS_OF_IDS, (gateway_id, apsw.carray(tuple(payment_ids))))}


def posted_tokens(connection: apsw.Connection, gateway_id: str, transaction_ids: Collection[str]) -> set[str]:
    """Of which of these transaction IDs of a gateway a payment is POSTED (R9)."""
    return {row[0] for row in connection.execute(_POSTED_OF_IDS, (gateway_id, apsw.carray(tuple(transaction_ids))))}
