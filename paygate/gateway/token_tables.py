"""The gateway's tables, and how tokens and payments become rows of them and come back.

What is written of a token when it is issued, and of a payment when it has ended, is never changed; triggers refuse it,
and each row carries a hash over itself and the row before it (`token_chain.py`).

A payment in flight is a row of `in_flight`, which is small however many payments there were, and so cheap to write to
and to read at start. With its final outcome it goes to `payment` and is never changed again. Its row in `in_flight`
counts for nothing from then on: whether a payment is in flight is said by its number, which is not in `payment`. That
row is not deleted, which would write its page once more, but is the place of a later payment; what is left of such rows
goes at the next start.

That a token is in flight is said by `in_flight` and nowhere else, and that it is paid by `paid`, whose rows are a tenth
as long as a token's. What else becomes of one, wrong passcodes and a cancelled, expired or paid one that a merchant's
file brought, is a row of `token_state`; most have none.

Rows are keyed by an increasing number, so that new ones go to the end of their table; the payment IDs, which come in
any order, live in one index only.
"""

from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import Any, Final, NamedTuple

import apsw

from paygate.audit.exports import ExportedPayment
from paygate.audit.findings import RESTORE, Check
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import Terms
from paygate.files.database_copy import DatabaseCopy
from paygate.files.sqlite import StoreCorrupt, open_database, read_rows, reading, transaction
from paygate.gateway.audit import audit_tokens, gateway_payments
from paygate.gateway.token_chain import with_hashes, write_head
from paygate.gateway.token_check import TokenCheck
from paygate.gateway.token_schema import APPLICATION_ID, MIGRATIONS, SCHEMA
from paygate.gateway.tokens import Payment, Token, TokenState
from paygate.making import maker_of

_TOKEN_FIELDS: Final = ", ".join(
    (
        *("token.token_number", "token.transaction_id", "passcode", "merchant_id", "merchant_name", "amount_minor"),
        *("currency", "expires_ms", "state", "token_state.utr", "wrong_passcode_count", "locked_until_ms"),
        *("payment.payment_id", "payment.utr"),
    )
)
_BECAME: Final = (
    "LEFT JOIN token_state ON token_state.token_number = token.token_number "
    "LEFT JOIN paid ON paid.token_number = token.token_number "
    "LEFT JOIN payment ON payment.payment_number = paid.payment_number"
)
_PAYMENT_FIELDS: Final = "terms, envelope_hash, begun_ms, outcome, reason, utr, receipt, ended_ms"
_TOKENS_OF: Final = (
    f"SELECT {_TOKEN_FIELDS} FROM carray(?) "  # noqa: S608  # a constant
    f"CROSS JOIN token ON token.transaction_id = value {_BECAME}"
)
_PAYMENTS_OF: Final = f"SELECT {_PAYMENT_FIELDS} FROM carray(?) CROSS JOIN payment ON payment_id = value"  # noqa: S608  # a constant
_HAS_ENDED: Final = "EXISTS (SELECT 1 FROM payment WHERE payment.payment_number = in_flight.payment_number)"
_FLIGHTS: Final = "SELECT place, payment_number, terms, envelope_hash, begun_ms FROM in_flight ORDER BY payment_number"
_DELETE_ENDED: Final = f"DELETE FROM in_flight WHERE {_HAS_ENDED}"  # noqa: S608  # a constant
_TOKENS: Final = f"SELECT {_TOKEN_FIELDS} FROM token {_BECAME} ORDER BY token.token_number"  # noqa: S608  # a constant
_PAYMENTS: Final = (
    f"SELECT payment_number, {_PAYMENT_FIELDS} FROM payment "  # noqa: S608  # a constant
    "UNION ALL SELECT payment_number, terms, envelope_hash, begun_ms, NULL, 0, '', x'', NULL FROM in_flight "
    f"WHERE NOT {_HAS_ENDED} ORDER BY payment_number"
)
_LAST_NUMBERS: Final = (
    "SELECT ifnull((SELECT max(token_number) FROM token), 0), max("
    "ifnull((SELECT max(payment_number) FROM payment), 0), ifnull((SELECT max(payment_number) FROM in_flight), 0))"
)

Row = tuple[Any, ...]
FlightRow = tuple[int, int, bytes, bytes, int]
"""Place, number, terms, envelope hash and time of a payment: all but its outcome."""

TokenRow = tuple[int, Token, Row]
"""A token's number, the token, and what of its row may change (`token_changes`)."""

_make_token: Final = maker_of(Token)
_make_payment: Final = maker_of(Payment)
_STATE_OF: Final = {state.value: state for state in TokenState}
_UNPAID_TEXT: Final = TokenState.UNPAID.value
AS_ISSUED: Final[Row] = (_UNPAID_TEXT, "", 0, 0)
"""What `token_changes` says of a token that has no row in `token_state`."""
_TEXT_OF: Final = {state: state.value for state in TokenState}


class Changes(NamedTuple):
    """The rows that one transaction writes, but for their hashes; each list is empty at first."""

    issued: list[Row]
    """Rows of new tokens."""
    states: list[Row]
    """Numbers of tokens, each with what may change of it (`token_changes`)."""
    begun: list[FlightRow]
    """Payments that were not there before, and are in flight."""
    ended: list[Row]
    """Rows of payments with their final outcome, in the order in which they are chained."""
    paid: list[Row]
    """Numbers of tokens, each with that of the payment which paid it."""


class TokenTables:
    """The database; nothing is kept of it in memory but the ends of its chains."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """Open or make it, and check that every row is what was written (T32). Raises StoreError."""
        self._connection = open_database(
            path, application_id=APPLICATION_ID, schema=SCHEMA, migrations=MIGRATIONS, vfs=vfs
        )
        try:
            with transaction(self._connection):
                check = TokenCheck(self._connection)
                for damage in check.damages():
                    raise StoreCorrupt(f"{path} is damaged: {damage.where} {damage.problem}; {RESTORE}")
                self._head = check.head
                if not check.is_head_written:
                    write_head(self._connection, self._head)
                self._connection.execute(_DELETE_ENDED)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """All that was written is on disk already."""
        self._connection.close()

    def copy_to(self, target: Path) -> DatabaseCopy:
        """A copy of the database in the making, for a backup. Raises BackupFailed."""
        return DatabaseCopy(self._connection, target)

    def last_numbers(self) -> tuple[int, int]:
        """The highest number of a token and of a payment; 0 if there is none. Raises StoreError."""
        token_number, payment_number = next(read_rows(self._connection, _LAST_NUMBERS))
        return token_number, payment_number

    def flights(self) -> Iterator[FlightRow]:
        """Every payment in flight, oldest first; to be asked before anything is written. Raises StoreError."""
        return read_rows(self._connection, _FLIGHTS)

    def tokens_of(self, transaction_ids: list[str]) -> list[TokenRow]:
        """Those of these tokens, one at least, that are there; by one statement. Raises StoreError."""
        rows = read_rows(self._connection, _TOKENS_OF, (apsw.carray(tuple(transaction_ids)),))
        return [_token_of(row) for row in rows]

    def payments_of(self, payment_ids: list[bytes]) -> list[Payment]:
        """Those of these payments, one at least, that have their final outcome; by one statement. Raises StoreError."""
        rows = read_rows(self._connection, _PAYMENTS_OF, (apsw.carray(tuple(payment_ids)),))
        return [_payment_of(row) for row in rows]

    def tokens(self) -> Iterator[Token]:
        """Every token, in the order in which they were taken in; none is in flight. Raises StoreError."""
        return all_tokens(self._connection)

    def payments(self) -> Iterator[Payment]:
        """Every payment, also those in flight, oldest first. Raises StoreError."""
        return all_payments(self._connection)

    def audit(self) -> list[Check]:
        """Everything in the database checked, as it is on disk. Raises StoreError."""
        with reading(self._connection):
            return audit_tokens(self._connection)

    def exported_payments(self) -> list[ExportedPayment]:
        """All payments, for the bank's audit. Raises StoreError."""
        with reading(self._connection):
            return list(gateway_payments(self._connection))

    def write(self, changes: Changes) -> None:
        """One durable transaction. Raises StoreError."""
        rows, head = with_hashes(self._head, changes)
        with transaction(self._connection):
            for statement, of_statement in zip(_STATEMENTS, rows, strict=True):
                if len(of_statement) == 1:
                    self._connection.execute(statement, of_statement[0])
                elif of_statement:
                    self._connection.executemany(statement, of_statement)
            # With every payment it would be one more page; of those that have ended since, `in_flight` tells.
            if changes.issued:
                write_head(self._connection, head)
        self._head = head


_STATEMENTS: Final = (
    "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "INSERT OR REPLACE INTO token_state VALUES (?, ?, ?, ?, ?, ?)",
    "INSERT OR REPLACE INTO in_flight VALUES (?, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO paid VALUES (?, ?)",
)
"""In the order of `Changes`."""


def all_tokens(connection: apsw.Connection) -> Iterator[Token]:
    """Every token, in the order in which they were taken in; none is in flight. Raises StoreError."""
    return (_token_of(row)[1] for row in read_rows(connection, _TOKENS))


def all_payments(connection: apsw.Connection) -> Iterator[Payment]:
    """Every payment, also those in flight, oldest first. Raises StoreError."""
    return (_payment_of(row[1:]) for row in read_rows(connection, _PAYMENTS))


def token_row(number: int, token: Token) -> Row:
    """A new token's row."""
    return (
        number,
        token.transaction_id,
        token.passcode,
        token.merchant_id,
        token.merchant_name,
        token.amount_minor,
        token.currency,
        token.expires_ms,
    )


def token_changes(token: Token) -> Row:
    """What may change of a token, as `token_state` has it. One that a payment has or paid is the unpaid one it was."""
    if token.payment_id is None:
        return _TEXT_OF[token.state], token.utr, token.wrong_passcode_count, token.locked_until_ms
    return _UNPAID_TEXT, "", token.wrong_passcode_count, token.locked_until_ms


def flight_row(place: int, number: int, payment: Payment) -> FlightRow:
    """The row of a payment in flight."""
    return place, number, encode_record(payment.terms), payment.envelope_hash, payment.begun_ms


def ended_row(flight: FlightRow, payment: Payment) -> Row:
    """The row of a payment that was in flight, with its final outcome."""
    assert payment.outcome is not None
    _, number, encoded_terms, envelope_hash, begun_ms = flight
    terms = payment.terms
    return (
        number,
        terms.payment_id,
        terms.transaction_id,
        encoded_terms,
        envelope_hash,
        begun_ms,
        payment.outcome,
        payment.reason,
        payment.utr,
        payment.receipt,
        payment.ended_ms,
    )


def flight_of(row: FlightRow) -> Payment:
    """The payment of a row of those in flight."""
    _, _, terms, envelope_hash, begun_ms = row
    return Payment(decode_record(Terms, terms), envelope_hash, begun_ms)


def _token_of(row: Row) -> TokenRow:
    number, transaction_id, passcode, merchant_id, merchant_name, amount_minor, currency, expires_ms = row[:8]
    changes = row[8:12] if row[8] is not None else AS_ISSUED
    state_text, utr, wrong_passcode_count, locked_until_ms = changes
    payment_id, payment_utr = row[12:]
    if payment_id is None:
        state = _STATE_OF[state_text]
    else:
        state, utr = TokenState.PAID, payment_utr
    # Hundreds of thousands of tokens may be held with their sessions, and these texts are few.
    token = _make_token(
        transaction_id,
        passcode,
        intern(merchant_id),
        intern(merchant_name),
        amount_minor,
        intern(currency),
        expires_ms,
        state,
        payment_id,
        utr,
        wrong_passcode_count,
        locked_until_ms,
    )
    return number, token, changes


def _payment_of(row: Row) -> Payment:
    terms, envelope_hash, begun_ms, outcome, reason, utr, receipt, ended_ms = row
    return _make_payment(
        decode_record(Terms, terms),
        envelope_hash,
        begun_ms,
        None if outcome is None else TransferOutcome(outcome),
        Reason(reason),
        utr,
        receipt,
        ended_ms,
    )
