"""The gateway's durable truth in SQLite: the decisions of `payment.py` around rows.

One transaction a batch. Rows are keyed by an increasing number, so that new ones go to the end of their table; the
payment IDs, which are random, live in one index only. A token's tries at unknown transaction IDs are counted in
memory, so that a stranger can't tell an unknown transaction from a known one by its lock (T16, T17).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from paygate.clock import Now
from paygate.codec.codes import Reason, TokenStatus, TransferOutcome
from paygate.codec.frame import decode_record, encode_record
from paygate.codec.sealed import Terms
from paygate.files.sqlite import open_database, read_rows, transaction
from paygate.gateway.payment import (
    TokenEvent,
    check_passcode,
    decide_begin,
    decide_check,
    decide_recall,
    decide_settle,
    next_token_state,
)
from paygate.gateway.tokens import (
    BeginPayment,
    CancelToken,
    CheckToken,
    FindPayment,
    IssueToken,
    Operation,
    Outcome,
    Payment,
    PaymentBegun,
    PaymentFound,
    PaymentSettled,
    RecallPayment,
    SettlePayment,
    Token,
    TokenChecked,
    TokenState,
    TokenTaken,
)

_APPLICATION_ID: Final = 0x50474757  # "PGGW"
_SCHEMA: Final = (
    """
    CREATE TABLE token (
        token_number INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL UNIQUE,
        passcode TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        merchant_name TEXT NOT NULL,
        amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
        currency TEXT NOT NULL,
        expires_ms INTEGER,
        state TEXT NOT NULL CHECK (state IN ('unpaid', 'in-flight', 'paid', 'cancelled', 'expired')),
        payment_id BLOB,
        utr TEXT NOT NULL,
        wrong_passcode_count INTEGER NOT NULL,
        locked_until_ms INTEGER NOT NULL,
        CHECK (state <> 'in-flight' OR payment_id IS NOT NULL),
        CHECK ((state = 'paid') = (utr <> ''))
    ) STRICT;
    CREATE TABLE payment (
        payment_number INTEGER PRIMARY KEY,
        payment_id BLOB NOT NULL UNIQUE,
        transaction_id TEXT NOT NULL REFERENCES token (transaction_id),
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        begun_ms INTEGER NOT NULL,
        outcome INTEGER,
        reason INTEGER NOT NULL,
        utr TEXT NOT NULL,
        receipt BLOB NOT NULL,
        ended_ms INTEGER,
        CHECK ((outcome IS NULL) = (ended_ms IS NULL))
    ) STRICT;
    CREATE INDEX payment_in_flight ON payment (payment_number) WHERE outcome IS NULL;
    """,
)
_TOKEN_FIELDS: Final = ", ".join(
    (
        *("transaction_id", "passcode", "merchant_id", "merchant_name", "amount_minor", "currency", "expires_ms"),
        *("state", "payment_id", "utr", "wrong_passcode_count", "locked_until_ms"),
    )
)
_PAYMENT_FIELDS: Final = "terms, envelope_hash, begun_ms, outcome, reason, utr, receipt, ended_ms"
_TOKEN_QUERY: Final = f"SELECT {_TOKEN_FIELDS} FROM token"  # noqa: S608  # of constants
_PAYMENT_QUERY: Final = f"SELECT {_PAYMENT_FIELDS} FROM payment"  # noqa: S608  # of constants
_PAYMENT_ORDER: Final = "ORDER BY payment_number"

UNKNOWN_TRIED_COUNT_MAX: Final = 10_000
"""Unknown transaction IDs whose tries are remembered, the latest first; each costs some 300 bytes."""


class SqliteTokens:
    """A `TokenStore` in one SQLite file."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """Open or make the database. Raises StoreError."""
        self._connection = open_database(path, application_id=_APPLICATION_ID, schema=_SCHEMA, vfs=vfs)
        self._unknown_tried: OrderedDict[str, Token] = OrderedDict()

    def close(self) -> None:
        """Close the database; all that was applied is on disk already."""
        self._connection.close()

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        """One transaction for the batch; the outcomes in order. Raises StoreError."""
        with transaction(self._connection):
            return [self._apply(operation, now.wall_ms) for operation in operations]

    def payments_in_flight(self) -> list[Payment]:
        """Every payment without a final outcome, oldest first. Raises StoreError."""
        return [_payment_of(row) for row in self._rows(f"{_PAYMENT_QUERY} WHERE outcome IS NULL {_PAYMENT_ORDER}")]

    def tokens(self) -> Iterator[Token]:
        """Every token, in the order in which they were taken in. Raises StoreError."""
        return (_token_of(row) for row in self._rows(f"{_TOKEN_QUERY} ORDER BY token_number"))

    def payments(self) -> Iterator[Payment]:
        """Every payment, oldest first. Raises StoreError."""
        return (_payment_of(row) for row in self._rows(f"{_PAYMENT_QUERY} {_PAYMENT_ORDER}"))

    def _rows(self, query: str) -> Iterator[Any]:
        return read_rows(self._connection, query)

    # -- operations ------------------------------------------------------------------------------------

    def _apply(self, operation: Operation, now_wall_ms: int) -> Outcome:
        match operation:
            case CheckToken():
                return self._check(operation, now_wall_ms)
            case BeginPayment():
                return self._begin(operation, now_wall_ms)
            case SettlePayment():
                return self._settle(operation, now_wall_ms)
            case FindPayment():
                return self._find(operation, now_wall_ms)
            case RecallPayment():
                return decide_recall(self._payment(operation.payment_id), operation)
            case IssueToken():
                return self._issue(operation.token)
            case CancelToken():
                return self._cancel(operation.token)

    def _check(self, operation: CheckToken, now_wall_ms: int) -> TokenChecked:
        token = self._token(operation.transaction_id)
        if token is None:
            return TokenChecked(self._deny_unknown(operation.transaction_id, operation.passcode, now_wall_ms))
        outcome, kept = decide_check(token, operation, now_wall_ms)
        self._keep(token, kept)
        return outcome

    def _begin(self, operation: BeginPayment, now_wall_ms: int) -> PaymentBegun:
        terms = operation.terms
        token = self._token(terms.transaction_id)
        outcome, kept = decide_begin(token, self._payment(terms.payment_id), operation, now_wall_ms)
        if token is not None and kept is not None:
            self._keep(token, kept)
        if outcome.is_new and outcome.payment is not None:
            self._connection.execute(
                "INSERT INTO payment "
                "(payment_id, transaction_id, terms, envelope_hash, begun_ms, reason, utr, receipt) "
                "VALUES (?, ?, ?, ?, ?, 0, '', x'')",
                (
                    terms.payment_id,
                    terms.transaction_id,
                    encode_record(terms),
                    operation.envelope_hash,
                    outcome.payment.begun_ms,
                ),
            )
        return outcome

    def _settle(self, operation: SettlePayment, now_wall_ms: int) -> PaymentSettled:
        payment = self._payment(operation.payment_id)
        token = self._token(payment.terms.transaction_id) if payment else None
        outcome = decide_settle(token, payment, operation, now_wall_ms)
        if outcome.is_changed and outcome.payment is not None and outcome.payment.outcome is not None:
            settled = outcome.payment
            self._connection.execute(
                "UPDATE payment SET outcome = ?, reason = ?, utr = ?, receipt = ?, ended_ms = ? WHERE payment_id = ?",
                (
                    int(operation.outcome),
                    int(settled.reason),
                    settled.utr,
                    settled.receipt,
                    settled.ended_ms,
                    settled.payment_id,
                ),
            )
            if token is not None and outcome.token is not None:
                self._keep(token, outcome.token)
        return outcome

    def _find(self, operation: FindPayment, now_wall_ms: int) -> PaymentFound:
        token = self._token(operation.transaction_id)
        if token is None:
            denied: TokenStatus | None = self._deny_unknown(operation.transaction_id, operation.passcode, now_wall_ms)
        else:
            denied, counted = check_passcode(token, operation.passcode, now_wall_ms)
            self._keep(token, counted)
        if denied is not None:
            return PaymentFound(None, Reason.TOKEN_LOCKED if denied is TokenStatus.LOCKED else Reason.PASSCODE)
        payment = self._payment(operation.payment_id)
        if payment is not None and payment.terms.transaction_id != operation.transaction_id:
            payment = None  # another token's payment is none of this asker's business
        return PaymentFound(payment)

    def _issue(self, token: Token) -> TokenTaken:
        known = self._token(token.transaction_id)
        if known is not None:
            return TokenTaken(known, False)
        self._connection.execute(
            f"INSERT INTO token ({_TOKEN_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # a constant
            (
                token.transaction_id,
                token.passcode,
                token.merchant_id,
                token.merchant_name,
                token.amount_minor,
                token.currency,
                token.expires_ms,
                token.state.value,
                token.payment_id,
                token.utr,
                token.wrong_passcode_count,
                token.locked_until_ms,
            ),
        )
        self._unknown_tried.pop(token.transaction_id, None)
        return TokenTaken(token, True)

    def _cancel(self, token: Token) -> TokenTaken:
        known = self._token(token.transaction_id)
        state = next_token_state(known.state, TokenEvent.CANCEL) if known else None
        if known is None or state is None or not known.is_issued_as(token):
            return TokenTaken(known, False)
        cancelled = replace(known, state=state)
        self._keep(known, cancelled)
        return TokenTaken(cancelled, True)

    # -- rows ------------------------------------------------------------------------------------------

    def _token(self, transaction_id: str) -> Token | None:
        row = self._connection.execute(
            f"{_TOKEN_QUERY} WHERE transaction_id = ?",
            (transaction_id,),
        ).fetchone()
        return _token_of(row) if row else None

    def _payment(self, payment_id: bytes) -> Payment | None:
        row = self._connection.execute(
            f"{_PAYMENT_QUERY} WHERE payment_id = ?",
            (payment_id,),
        ).fetchone()
        return _payment_of(row) if row else None

    def _keep(self, token: Token, kept: Token) -> None:
        if kept == token:  # A read that changes nothing costs no fsync.
            return
        self._connection.execute(
            "UPDATE token SET state = ?, payment_id = ?, utr = ?, wrong_passcode_count = ?, locked_until_ms = ? "
            "WHERE transaction_id = ?",
            (
                kept.state.value,
                kept.payment_id,
                kept.utr,
                kept.wrong_passcode_count,
                kept.locked_until_ms,
                kept.transaction_id,
            ),
        )

    def _deny_unknown(self, transaction_id: str, passcode: str, now_wall_ms: int) -> TokenStatus:
        tried = self._unknown_tried.pop(transaction_id, None) or _nobodys_token(transaction_id)
        denied, counted = check_passcode(tried, passcode, now_wall_ms)
        self._unknown_tried[transaction_id] = counted
        if len(self._unknown_tried) > UNKNOWN_TRIED_COUNT_MAX:
            self._unknown_tried.popitem(last=False)
        assert denied is not None, "an empty passcode is refused by the codec"
        return denied


def _nobodys_token(transaction_id: str) -> Token:
    # No passcode on the wire is empty, so nothing matches it.
    return Token(transaction_id, "", "", "", 1, "", None)


def _token_of(row: Sequence[Any]) -> Token:
    return Token(*row[:7], TokenState(row[7]), *row[8:])  # type: ignore[call-arg]  # 12 columns


def _payment_of(row: Any) -> Payment:
    terms, envelope_hash, begun_ms, outcome, reason, utr, receipt, ended_ms = row
    return Payment(
        terms=decode_record(Terms, terms),
        envelope_hash=envelope_hash,
        begun_ms=begun_ms,
        outcome=None if outcome is None else TransferOutcome(outcome),
        reason=Reason(reason),
        utr=utr,
        receipt=receipt,
        ended_ms=ended_ms,
    )
