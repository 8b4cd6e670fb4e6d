"""The gateway's durable truth in SQLite: the decisions of `payment.py` around the rows of `token_tables.py`.

Strategy: a batch first reads all rows that it needs and that are not held in memory, by one statement for each table;
then it decides in memory, where later operations see what earlier ones decided; and at its end it writes each token
and payment that has changed once, in one transaction. A batch that changes nothing writes nothing, and costs no fsync.

Held in memory are the payments in flight with their tokens, all of them, since each will be asked for again; and of
other tokens those that were read lately, which are about to be paid. The database is open for this process alone, so
what is held is what is on disk: it is changed after the commit, and a transaction that fails leaves it as it was.

A token's tries at unknown transaction IDs are counted in memory, so that a stranger can't tell an unknown transaction
from a known one by its lock (T16, T17).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from paygate.audit.exports import ExportedPayment
from paygate.audit.findings import Check
from paygate.clock import Now
from paygate.codec.codes import Reason, TokenStatus
from paygate.files.database_copy import DatabaseCopy
from paygate.gateway.payment import (
    TokenEvent,
    check_passcode,
    decide_begin,
    decide_check,
    decide_enter,
    decide_recall,
    decide_settle,
    next_token_state,
    with_state,
)
from paygate.gateway.token_tables import (
    AS_ISSUED,
    Changes,
    FlightRow,
    TokenRow,
    TokenTables,
    ended_row,
    flight_of,
    flight_row,
    token_changes,
    token_row,
)
from paygate.gateway.tokens import (
    BeginPayment,
    CancelToken,
    CheckToken,
    EnterPayment,
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

UNKNOWN_TRIED_COUNT_MAX: Final = 10_000
"""Unknown transaction IDs whose tries are remembered, the latest first; each costs some 300 bytes."""
HELD_TOKEN_COUNT_MAX: Final = 10_000
"""Tokens not in flight that are held in memory, the latest read; each costs some 600 bytes."""
_NO_PLACE: Final = 0
"""The place of a payment that has ended in the batch that began it."""
# A member is looked up through its class each time.
_IN_FLIGHT: Final = TokenState.IN_FLIGHT
_UNPAID: Final = TokenState.UNPAID
_PAID: Final = TokenState.PAID


class SqliteTokens:
    """A `TokenStore` in one SQLite file."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """Open or make the database. Raises StoreError."""
        self._tables = TokenTables(path, vfs=vfs)
        self._unknown_tried: OrderedDict[str, Token] = OrderedDict()
        # By payment ID and transaction ID.
        self._flights: dict[bytes, tuple[FlightRow, Payment]] = {}
        self._tokens_in_flight: dict[str, TokenRow] = {}
        self._tokens: dict[str, TokenRow] = {}
        self._free_places: list[int] = []  # those of `in_flight` whose payments have ended; the last is used first
        self._last_place = 0
        try:
            self._last_token_number, self._last_payment_number = self._tables.last_numbers()
            self._hold_flights()
        except BaseException:
            self._tables.close()
            raise

    def close(self) -> None:
        """Close the database; all that was applied is on disk already."""
        self._tables.close()

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        """One transaction for the batch; the outcomes in order. Raises StoreError."""
        batch = _Batch(self, self._read(operations), now.wall_ms)
        outcomes: list[Outcome] = [_TAKES[operation.__class__](batch, operation) for operation in operations]
        if batch.tokens or batch.payments:
            self._write(batch)
        if len(self._tokens) > HELD_TOKEN_COUNT_MAX:
            # All with one look, since that goes past every one that is gone.
            for transaction_id in list(islice(self._tokens, len(self._tokens) - HELD_TOKEN_COUNT_MAX)):
                del self._tokens[transaction_id]
        return outcomes

    def copy_to(self, target: Path) -> DatabaseCopy:
        """A copy of the store in the making, for a backup. Raises BackupFailed."""
        return self._tables.copy_to(target)

    def payments_in_flight(self) -> list[Payment]:
        """Every payment without a final outcome, oldest first."""
        return [payment for _, payment in self._flights.values()]

    def tokens(self) -> Iterator[Token]:
        """Every token, in the order in which they were taken in. Raises StoreError."""
        for token in self._tables.tokens():
            in_flight = self._tokens_in_flight.get(token.transaction_id)
            yield in_flight[1] if in_flight else token

    def payments(self) -> Iterator[Payment]:
        """Every payment, oldest first. Raises StoreError."""
        return self._tables.payments()

    def audit(self) -> list[Check]:
        """Everything in the database checked, as it is on disk. Raises StoreError."""
        return self._tables.audit()

    def exported_payments(self) -> list[ExportedPayment]:
        """All payments, for the bank's audit. Raises StoreError."""
        return self._tables.exported_payments()

    # -- what is held ----------------------------------------------------------------------------------

    def held(self) -> tuple[dict[str, TokenRow], dict[str, TokenRow], dict[bytes, tuple[FlightRow, Payment]]]:
        """What is on disk, of all that the batch named: tokens in flight, other tokens, payments in flight."""
        return self._tokens_in_flight, self._tokens, self._flights

    def _hold_flights(self) -> None:
        for row in self._tables.flights():
            payment = flight_of(row)
            self._flights[payment.payment_id] = row, payment
            self._last_place = max(self._last_place, row[0])
        payment_id_of = {payment.terms.transaction_id: payment_id for payment_id, (_, payment) in self._flights.items()}
        for number, token, changes in self._tables.tokens_of(list(payment_id_of)) if payment_id_of else ():
            payment_id = payment_id_of[token.transaction_id]
            in_flight = with_state(token, TokenState.IN_FLIGHT, payment_id, token.utr)
            self._tokens_in_flight[token.transaction_id] = number, in_flight, changes

    def _read(self, operations: Sequence[Operation]) -> dict[bytes, Payment]:
        """Hold all tokens that the operations name; gives the payments that they name and that have ended."""
        flights, in_flight, tokens = self._flights, self._tokens_in_flight, self._tokens
        transaction_ids: list[str] = []
        payment_ids: list[bytes] = []
        operation: Any
        for operation in operations:
            # The three of every payment are named here, the others by a function each.
            kind = operation.__class__
            transaction_id: str | None
            payment_id: bytes | None
            if kind is CheckToken:
                transaction_id, payment_id = operation.transaction_id, None
            elif kind is BeginPayment:
                transaction_id, payment_id = operation.terms.transaction_id, operation.terms.payment_id
            elif kind is SettlePayment:
                transaction_id, payment_id = None, operation.payment_id
            else:
                transaction_id, payment_id = _NAMES[kind](operation)
            if payment_id is not None and payment_id not in flights:
                payment_ids.append(payment_id)
            if transaction_id is not None and transaction_id not in in_flight and transaction_id not in tokens:
                transaction_ids.append(transaction_id)
        ended = {p.terms.payment_id: p for p in self._tables.payments_of(payment_ids)} if payment_ids else {}
        for payment in ended.values():
            transaction_id = payment.terms.transaction_id
            if transaction_id not in in_flight and transaction_id not in tokens:
                transaction_ids.append(transaction_id)
        if transaction_ids:
            for held in self._tables.tokens_of(transaction_ids):
                tokens[held[1].transaction_id] = held
        return ended

    def _write(self, batch: "_Batch") -> None:
        changes = Changes([], [], [], [], [])
        token_number, payment_number, last_place = self._last_token_number, self._last_payment_number, self._last_place
        in_flight, held_tokens, held_flights = self._tokens_in_flight, self._tokens, self._flights
        free_places = self._free_places
        free_count = len(free_places)
        flights: list[tuple[FlightRow, Payment]] = []
        ended_number: dict[bytes | None, int] = {}  # of payments
        for payment_id, payment in batch.payments.items():
            flight = held_flights.get(payment_id)
            if flight is not None:
                row = flight[0]
            else:
                payment_number += 1
                if payment.outcome is not None:
                    place = _NO_PLACE
                elif free_count:
                    free_count -= 1
                    place = free_places[free_count]
                else:
                    place = last_place = last_place + 1
                row = flight_row(place, payment_number, payment)
            if payment.outcome is None:
                changes.begun.append(row)
            else:
                changes.ended.append(ended_row(row, payment))
                ended_number[payment_id] = row[1]
            flights.append((row, payment))
        tokens: list[TokenRow] = []
        for transaction_id, token in batch.tokens.items():
            before = in_flight.get(transaction_id) or held_tokens.get(transaction_id)
            changed = token_changes(token)
            if before is None:
                number = token_number = token_number + 1
                changes.issued.append(token_row(number, token))
            else:
                number = before[0]
            if changed != (AS_ISSUED if before is None else before[2]):
                changes.states.append((number, *changed))
            if token.state is _PAID and token.payment_id in ended_number:
                changes.paid.append((number, ended_number[token.payment_id]))
            tokens.append((number, token, changed))

        if any(changes):
            self._tables.write(changes)

        self._last_token_number, self._last_payment_number, self._last_place = token_number, payment_number, last_place
        del free_places[free_count:]
        for held in tokens:
            token = held[1]
            transaction_id = token.transaction_id
            if token.state is _IN_FLIGHT:
                held_tokens.pop(transaction_id, None)
                in_flight[transaction_id] = held
                continue
            if in_flight.pop(transaction_id, None) is None:
                held_tokens.pop(transaction_id, None)
            if token.state is _UNPAID:  # It may be tried again; in the others a token is at rest.
                held_tokens[transaction_id] = held
        for flight in flights:
            payment = flight[1]
            if payment.outcome is None:
                held_flights[payment.terms.payment_id] = flight
            elif held_flights.pop(payment.terms.payment_id, None) is not None:
                free_places.append(flight[0][0])

    # -- tries at unknown transaction IDs --------------------------------------------------------------

    def deny_unknown(self, transaction_id: str, passcode: str, now_wall_ms: int) -> TokenStatus:
        """INVALID or LOCKED, as a known token would say."""
        tried = self._unknown_tried.pop(transaction_id, None) or _nobodys_token(transaction_id)
        denied, counted = check_passcode(tried, passcode, now_wall_ms)
        self._unknown_tried[transaction_id] = counted
        if len(self._unknown_tried) > UNKNOWN_TRIED_COUNT_MAX:
            self._unknown_tried.popitem(last=False)
        assert denied is not None, "an empty passcode is refused by the codec"
        return denied

    def forget_tries(self, transaction_id: str) -> None:
        """It is known from now on, and counts its tries itself."""
        self._unknown_tried.pop(transaction_id, None)


def _nobodys_token(transaction_id: str) -> Token:
    # No passcode on the wire is empty, so nothing matches it.
    return Token(transaction_id, "", "", "", 1, "", None)


class _Batch:
    """What a batch has decided: nothing of it is on disk or held yet."""

    def __init__(self, store: SqliteTokens, ended: dict[bytes, Payment], now_wall_ms: int) -> None:
        """`ended`: the payments that the operations name and that have their final outcome."""
        self.tokens: dict[str, Token] = {}
        """Those that are new or were decided on, as they are now."""
        self.payments: dict[bytes, Payment] = {}
        """Those that were begun or have ended, as they are now."""
        self._store = store
        self._tokens_in_flight, self._held_tokens, self._flights = store.held()
        self._ended = ended
        self._now_wall_ms = now_wall_ms

    # -- operations ------------------------------------------------------------------------------------

    def check(self, operation: CheckToken) -> TokenChecked:
        """R1, R2."""
        token = self._token(operation.transaction_id)
        if token is None:
            return TokenChecked(self._deny_unknown(operation))
        outcome, kept = decide_check(token, operation, self._now_wall_ms)
        if kept is not token:
            self.tokens[kept.transaction_id] = kept
        return outcome

    def begin(self, operation: BeginPayment) -> PaymentBegun:
        """Reserve the token."""
        terms = operation.terms
        token = self._token(terms.transaction_id)
        outcome, kept = decide_begin(token, self._payment(terms.payment_id), operation, self._now_wall_ms)
        if kept is not None and kept is not token:
            self.tokens[terms.transaction_id] = kept
        if outcome.is_new and outcome.payment is not None:
            self.payments[terms.payment_id] = outcome.payment
        return outcome

    def settle(self, operation: SettlePayment) -> PaymentSettled:
        """The bank's word."""
        payment = self._payment(operation.payment_id)
        token = self._token(payment.terms.transaction_id) if payment else None
        outcome = decide_settle(token, payment, operation, self._now_wall_ms)
        if outcome.is_changed and outcome.payment is not None:
            self.payments[operation.payment_id] = outcome.payment
            kept = outcome.token
            if kept is not None and kept is not token:
                self.tokens[kept.transaction_id] = kept
        return outcome

    def enter(self, operation: EnterPayment) -> PaymentSettled:
        """The bank's word on a payment that the store may never have had."""
        terms = operation.terms
        token = self._token(terms.transaction_id)
        outcome = decide_enter(token, self._payment(terms.payment_id), operation, self._now_wall_ms)
        if outcome.is_changed and outcome.payment is not None:
            self.payments[terms.payment_id] = outcome.payment
            if outcome.token is not None and outcome.token is not token:
                self.tokens[terms.transaction_id] = outcome.token
        return outcome

    def find(self, operation: FindPayment) -> PaymentFound:
        """For whoever knows the passcode."""
        token = self._token(operation.transaction_id)
        if token is None:
            denied: TokenStatus | None = self._deny_unknown(operation)
        else:
            denied, counted = check_passcode(token, operation.passcode, self._now_wall_ms)
            self._keep(token, counted)
        if denied is not None:
            return PaymentFound(None, Reason.TOKEN_LOCKED if denied is TokenStatus.LOCKED else Reason.PASSCODE)
        payment = self._payment(operation.payment_id)
        if payment is not None and payment.terms.transaction_id != operation.transaction_id:
            payment = None  # another token's payment is none of this asker's business
        return PaymentFound(payment)

    def recall(self, operation: RecallPayment) -> PaymentFound:
        """For whoever knows the session."""
        return decide_recall(self._payment(operation.payment_id), operation)

    def issue(self, operation: IssueToken) -> TokenTaken:
        """R13."""
        token = operation.token
        known = self._token(token.transaction_id)
        if known is not None:
            return TokenTaken(known, False)
        assert token.state is not TokenState.IN_FLIGHT, "only a payment puts a token in flight"
        self.tokens[token.transaction_id] = token
        self._store.forget_tries(token.transaction_id)
        return TokenTaken(token, True)

    def cancel(self, operation: CancelToken) -> TokenTaken:
        """The merchant withdraws it."""
        token = operation.token
        known = self._token(token.transaction_id)
        state = next_token_state(known.state, TokenEvent.CANCEL) if known else None
        if known is None or state is None or not known.is_issued_as(token):
            return TokenTaken(known, False)
        cancelled = replace(known, state=state)
        self._keep(known, cancelled)
        return TokenTaken(cancelled, True)

    # -- tokens and payments as they are now -----------------------------------------------------------

    def _token(self, transaction_id: str) -> Token | None:
        if transaction_id in self.tokens:
            return self.tokens[transaction_id]
        held = self._held_tokens.get(transaction_id) or self._tokens_in_flight.get(transaction_id)
        return held[1] if held else None

    def _payment(self, payment_id: bytes) -> Payment | None:
        if payment_id in self.payments:
            return self.payments[payment_id]
        if payment_id in self._flights:
            return self._flights[payment_id][1]
        return self._ended.get(payment_id)

    def _keep(self, token: Token, kept: Token) -> None:
        if kept is not token:
            self.tokens[kept.transaction_id] = kept

    def _deny_unknown(self, operation: CheckToken | FindPayment) -> TokenStatus:
        return self._store.deny_unknown(operation.transaction_id, operation.passcode, self._now_wall_ms)


_TAKES: Final[dict[type[Operation], Callable[[_Batch, Any], Outcome]]] = {
    CheckToken: _Batch.check,
    BeginPayment: _Batch.begin,
    SettlePayment: _Batch.settle,
    EnterPayment: _Batch.enter,
    FindPayment: _Batch.find,
    RecallPayment: _Batch.recall,
    IssueToken: _Batch.issue,
    CancelToken: _Batch.cancel,
}
_NAMES: Final[dict[type[Operation], Callable[[Any], tuple[str | None, bytes | None]]]] = {
    CheckToken: lambda operation: (operation.transaction_id, None),
    BeginPayment: lambda operation: (operation.terms.transaction_id, operation.terms.payment_id),
    SettlePayment: lambda operation: (None, operation.payment_id),
    EnterPayment: lambda operation: (operation.terms.transaction_id, operation.terms.payment_id),
    FindPayment: lambda operation: (operation.transaction_id, operation.payment_id),
    RecallPayment: lambda operation: (None, operation.payment_id),
    IssueToken: lambda operation: (operation.token.transaction_id, None),
    CancelToken: lambda operation: (operation.token.transaction_id, None),
}
"""The token and the payment that an operation is about. That of a payment in flight is held; see `_read`."""
