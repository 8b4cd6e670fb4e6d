"""Whether every row of the gateway's database is what was written (T32): at each start, and in an audit."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import apsw

from paygate.audit.findings import Damage, damages_of, readable
from paygate.audit.pages import quick_damages, schema_damages
from paygate.audit.row_hash import CHAIN_START, formatted_expression, row_hash, text_expression
from paygate.codec.codes import TransferOutcome
from paygate.gateway.token_chain import (
    FLIGHT_FIELDS,
    PAYMENT_FIELDS,
    STATE_FIELDS,
    TOKEN_FIELDS,
    Head,
    Row,
    flight_hash,
    next_payment_chain,
)

WAITING_COUNT_MAX: Final = 400_000
"""Payments that ended before one that was begun earlier: fewer than may be in flight at once. Of more, one is lost."""

_POSTED: Final = int(TransferOutcome.POSTED)
_HEAD: Final = f"SELECT *, {text_expression(Head._fields)} FROM gateway"  # noqa: S608  # a constant
_PAYMENTS: Final = f"SELECT {', '.join(PAYMENT_FIELDS)}, chain FROM payment ORDER BY payment_number"  # noqa: S608
_CHAIN_NUMBER: Final = PAYMENT_FIELDS.index("chain_number")
_OUTCOME: Final = PAYMENT_FIELDS.index("outcome")
_TOKEN_MARKS: Final = dict.fromkeys(TOKEN_FIELDS, "%Q") | {
    "token_number": "%d",
    "amount_minor": "%d",
    "expires_ms": "%s",
}
_TOKENS: Final = f"SELECT token_number, {formatted_expression(_TOKEN_MARKS)}, chain FROM token ORDER BY token_number"  # noqa: S608
_PAID: Final = (
    f"SELECT paid.token_number, paid.payment_number, payment.outcome = {_POSTED} "  # noqa: S608  # constants
    "AND payment.transaction_id = token.transaction_id FROM paid "
    "LEFT JOIN token ON token.token_number = paid.token_number "
    "LEFT JOIN payment ON payment.payment_number = paid.payment_number"
)
_FLIGHTS: Final = f"SELECT {', '.join(FLIGHT_FIELDS)}, row_hash FROM in_flight"  # noqa: S608  # constants
_STATES: Final = (
    f"SELECT token_number, {text_expression(STATE_FIELDS)}, row_hash, "  # noqa: S608  # constants
    "EXISTS (SELECT 1 FROM token WHERE token.token_number = token_state.token_number) FROM token_state"
)
# Of a token that a merchant's file brought as paid, or that another payment paid, a POSTED one changes nothing.
_UNPAID_POSTED: Final = (
    f"SELECT payment_number FROM payment JOIN token USING (transaction_id) WHERE outcome = {_POSTED} "  # noqa: S608
    "AND NOT EXISTS (SELECT 1 FROM paid WHERE paid.token_number = token.token_number) "
    "AND NOT EXISTS (SELECT 1 FROM token_state AS s WHERE s.token_number = token.token_number AND s.state = 'paid')"
)
_CHANGED: Final = "is not what was written"


class TokenCheck:
    """One look at a whole database, table after table: what is found in one is compared with those before it."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.token_count = 0
        self.payment_count = 0
        self.flight_count = 0
        self.paid_count = 0
        self.state_count = 0
        self.is_head_written = False
        """Whether the table `gateway` says all of `head`; after `payments`."""
        self._connection = connection
        self._head = Head(0, CHAIN_START, 0, CHAIN_START, b"")
        """What the table `gateway` says."""
        self._chain = CHAIN_START
        """The last hash of the payments."""
        self._posted_count = 0
        self._ends: dict[int, bytes | None] = {}
        """Lengths that the chain of payments had, with the hash that was its last."""

    @property
    def head(self) -> Head:
        """The ends of the chains as the rows say; once all was looked at."""
        return self._head._replace(payment_count=self.payment_count, payment_chain=self._chain)

    def damages(self) -> Iterator[Damage]:
        """All that is wrong."""
        return damages_of(self.ends, self.payments, self.flights, self.tokens, self.paid, self.states)

    def ends(self) -> Iterator[Damage]:
        """The ends of the chains; and all pages, since nothing else tells how many rows a table without one has."""
        yield from quick_damages(self._connection)
        rows = list(self._read("gateway", _HEAD))
        if len(rows) != 1:
            yield Damage("gateway", "", "has not one row", "one row")
            return
        _, *head, hashed, text = rows[0]
        if row_hash(CHAIN_START, text) != hashed:
            yield Damage("gateway", "1", _CHANGED)
            return
        self._head = Head(*head)
        yield from schema_damages(self._connection, self._head.schema_hash)

    def payments(self) -> Iterator[Damage]:
        """The chain of payments with their final outcome; after `ends`."""
        self._ends = {row[-2]: None for row in self._flight_rows()}
        self._ends[self._head.payment_count] = None
        self._ends[0] = self._chain
        waiting: dict[int, Row] = {}
        for row in self._read("payment", _PAYMENTS):
            chain_number = row[_CHAIN_NUMBER]
            self._posted_count += row[_OUTCOME] == _POSTED
            is_place = chain_number.__class__ is int and chain_number > self.payment_count
            if not is_place or chain_number in waiting:
                yield Damage("payment", str(row[0]), _CHANGED, "a place in the chain of its own")
                continue
            waiting[chain_number] = row
            while (ready := waiting.pop(self.payment_count + 1, None)) is not None:
                yield from self._add(ready)
            if len(waiting) > WAITING_COUNT_MAX:
                break
        for place in sorted(waiting):
            row = waiting[place]
            if place != self.payment_count + 1:
                places = f"{self.payment_count + 1} to {place - 1}".removesuffix(f" to {self.payment_count + 1}")
                problem = f"with place {places} in the chain is missing, before {row[0]}"
                yield Damage("payment", "", problem, "a chain without a gap")
                self.payment_count = place - 1
            yield from self._add(row)
        for count, chain in self._ends.items():
            if chain is None:
                yield Damage("payment", "", "rows are missing at the end", f"{count} of them at least")
        if self._ends[self._head.payment_count] not in (None, self._head.payment_chain):
            yield Damage("payment", "", "rows are not those that were chained", "the chain that `gateway` knows")
        self.is_head_written = self._head.payment_count == self.payment_count

    def _add(self, row: Row) -> Iterator[Damage]:
        """The next payment of the chain."""
        *values, chain = row
        if next_payment_chain(self._chain, values) != chain:
            yield Damage("payment", str(row[0]), _CHANGED)
        self._chain = chain  # so that each damaged row is named, and none behind it
        self.payment_count += 1
        if self.payment_count in self._ends:
            self._ends[self.payment_count] = chain

    def flights(self) -> Iterator[Damage]:
        """Payments in flight, and what is left of those that have ended; after `payments`."""
        for *values, hashed in self._flight_rows():
            self.flight_count += 1
            before = self._ends[values[-1]]
            if before is not None and flight_hash(before, values) != hashed:
                yield Damage("in_flight", str(values[0]), _CHANGED)

    def tokens(self) -> Iterator[Damage]:
        """The chain of tokens."""
        chain, count, sha256 = CHAIN_START, 0, hashlib.sha256
        for number, text, row_chain in self._read("token", _TOKENS):
            # `row_hash`, without a call for each of what may be millions.
            if sha256(chain + text).digest() != row_chain:
                yield Damage("token", str(number), _CHANGED)
            chain = row_chain
            count += 1
        self.token_count = count
        if (count, chain) != (self._head.token_count, self._head.token_chain):
            yield Damage("token", "", "rows are missing at the end", f"{self._head.token_count} tokens")

    def paid(self) -> Iterator[Damage]:
        """Which payments paid which tokens; after `payments`."""
        paid_count = 0
        for number, payment_number, is_right in self._read("paid", _PAID):
            paid_count += 1
            if not is_right:
                yield Damage("paid", str(number), f"names payment {payment_number}", "a payment that paid it")
        if paid_count != self._posted_count:
            for (payment_number,) in self._connection.execute(_UNPAID_POSTED):
                yield Damage("paid", "", f"has no row of payment {payment_number}", "the token that it paid")
        self.paid_count = paid_count

    def states(self) -> Iterator[Damage]:
        """What became of tokens."""
        for number, text, hashed, is_known in self._read("token_state", _STATES):
            self.state_count += 1
            if row_hash(CHAIN_START, text) != hashed:
                yield Damage("token_state", str(number), _CHANGED)
            elif not is_known:
                yield Damage("token_state", str(number), "is of no token", "a token's number")

    def _flight_rows(self) -> Iterator[Any]:
        return self._read("in_flight", _FLIGHTS)

    def _read(self, table: str, query: str) -> Iterator[Any]:
        return readable(table, self._connection.execute(query))
