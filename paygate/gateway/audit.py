"""The gateway's audit (T32): its store is what was written, and tokens, payments and receipts agree.

Works on an open store and changes nothing, so a simulator asks it at the end of a run as an operator does of a stopped
gateway.
"""

from collections.abc import Iterator
from typing import Any, Final

import apsw

from paygate.audit.exports import IN_FLIGHT, ExportedPayment
from paygate.audit.findings import Check, Damage, Finding, check_of, damages_of, findings_of, readable
from paygate.audit.pages import page_damages
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import BadReceipt, match_receipt
from paygate.codec.sealed import Receipt, Terms
from paygate.gateway.settings import STORE_NAME
from paygate.gateway.token_check import TokenCheck

_POSTED: Final = int(TransferOutcome.POSTED)
_PAYMENTS: Final = (
    "SELECT payment_number, payment_id, payment.transaction_id, terms, envelope_hash, outcome, reason, utr, receipt, "
    "merchant_id, amount_minor, currency FROM payment LEFT JOIN token USING (transaction_id) ORDER BY payment_number"
)
_FLIGHTS: Final = (
    "SELECT place, terms, envelope_hash FROM in_flight "
    "WHERE NOT EXISTS (SELECT 1 FROM payment WHERE payment.payment_number = in_flight.payment_number) "
    "ORDER BY payment_number"
)
_PAID_TWICE: Final = (
    f"SELECT min(payment_number), max(payment_number) FROM payment WHERE outcome = {_POSTED} "  # noqa: S608
    "GROUP BY {column} HAVING count(*) > 1"
)
_EXPORTED: Final = "SELECT outcome, utr, terms, envelope_hash, receipt FROM payment ORDER BY payment_number"


def audit_tokens(connection: apsw.Connection) -> list[Check]:
    """All checks of a store. Its text files are looked at by `record_audit.py`."""
    return list(_Audit(connection).checks())


def gateway_payments(connection: apsw.Connection) -> Iterator[ExportedPayment]:
    """All payments as the gateway has them, those in flight last."""
    rows: Any = connection.execute(_EXPORTED)
    for outcome, utr, encoded_terms, envelope_hash, receipt in rows:
        yield _exported(encoded_terms, envelope_hash, TransferOutcome(outcome).name, utr, receipt)
    flights: Any = connection.execute(_FLIGHTS)
    for _, encoded_terms, envelope_hash in flights:
        yield _exported(encoded_terms, envelope_hash, IN_FLIGHT, "", b"")


def tokens_in_flight(connection: apsw.Connection) -> set[str]:
    """The transaction IDs of payments without a final outcome."""
    flights: Any = connection.execute(_FLIGHTS)
    return {decode_record(Terms, encoded_terms).transaction_id for _, encoded_terms, _ in flights}


def _exported(encoded_terms: bytes, envelope_hash: bytes, outcome: str, utr: str, receipt: bytes) -> ExportedPayment:
    terms = decode_record(Terms, encoded_terms)
    return ExportedPayment(
        terms.payment_id,
        terms.transaction_id,
        terms.merchant_id,
        terms.amount_minor,
        terms.currency,
        outcome,
        utr,
        envelope_hash,
        receipt,
    )


def _findings(damages: Iterator[Damage]) -> Iterator[Finding]:
    return findings_of(STORE_NAME, damages)


class _Audit:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._outcome_count = self._flight_count = self._posted_count = 0

    def checks(self) -> Iterator[Check]:
        yield check_of(
            "pages",
            "whole",
            _findings(page_damages(self._connection)),
            lambda: int(self._connection.pragma("page_count")),
        )
        check = TokenCheck(self._connection)
        are_rows_whole = True
        for name, result, step, count in (
            ("ends of chains", "as written", check.ends, lambda: 2),
            ("payments", "chain whole", check.payments, lambda: check.payment_count),
            ("places of payments in flight", "each as written", check.flights, lambda: check.flight_count),
            ("tokens", "chain whole", check.tokens, lambda: check.token_count),
            ("paid tokens", "each by a payment that says so", check.paid, lambda: check.paid_count),
            ("changed tokens", "each as written", check.states, lambda: check.state_count),
        ):
            done = check_of(name, result, _findings(damages_of(step)), count)
            are_rows_whole = are_rows_whole and not done.findings
            yield done
            if name == "ends of chains" and done.findings:
                return  # All else is compared with them.
        for name, result, step, count in (
            ("outcomes", "each as its token, terms and receipt say", self._outcomes, lambda: self._outcome_count),
            ("payments in flight", "each of a known token", self._flights, lambda: self._flight_count),
            ("paid payments", "each token and UTR once", self._paid, lambda: self._posted_count),
        ):
            if are_rows_whole:
                yield check_of(name, result, _findings(damages_of(step)), count)
            else:  # A row that is not what was written may hold anything.
                yield Check(name, 0, "not looked at, since rows are damaged")

    def _outcomes(self) -> Iterator[Damage]:
        """A payment is of the token that its terms name, and its receipt says what became of it."""
        for row in readable("payment", self._connection.execute(_PAYMENTS)):
            number, payment_id, transaction_id, encoded_terms, envelope_hash, outcome, reason, utr, receipt = row[:9]
            self._outcome_count += 1
            self._posted_count += outcome == _POSTED
            terms = decode_record(Terms, encoded_terms)
            if (terms.payment_id, terms.transaction_id) != (payment_id, transaction_id):
                yield Damage("payment", str(number), "is not what its terms name", "the terms' payment ID and token")
            if (terms.merchant_id, terms.amount_minor, terms.currency) != row[9:]:
                expected = "the token's merchant, amount and currency"
                yield Damage("payment", str(number), "has other terms than its token", expected)
            if outcome == TransferOutcome.MISMATCH:  # The one without a receipt.
                continue
            try:
                statement = decode_record(Receipt, receipt).statement
                match_receipt(statement, terms, envelope_hash)
            except (RemoteProtocolError, BadReceipt) as bad:
                yield Damage("payment", str(number), f"has a receipt that is none of it ({bad})", "the bank's receipt")
                continue
            if (statement.outcome, statement.reason, statement.utr) != (outcome, reason, utr):
                expected = f"{TransferOutcome(outcome).name}, {Reason(reason).name}, {utr or 'no UTR'}"
                yield Damage("payment", str(number), "has a receipt that says otherwise", expected)

    def _flights(self) -> Iterator[Damage]:
        rows = readable("in_flight", self._connection.execute(_FLIGHTS))
        for place, encoded_terms, _ in rows:
            self._flight_count += 1
            transaction_id = decode_record(Terms, encoded_terms).transaction_id
            known = "SELECT count(*) FROM token WHERE transaction_id = ?"
            if not self._connection.execute(known, (transaction_id,)).get:
                yield Damage("in_flight", str(place), f"is of no token ({transaction_id})", "a token that was issued")

    def _paid(self) -> Iterator[Damage]:
        """At most one POSTED payment for a token, and for a UTR (R7, R9)."""
        for column, what in (("transaction_id", "token"), ("utr", "UTR")):
            rows: Any = self._connection.execute(_PAID_TWICE.format(column=column))
            for first, last in rows:
                expected = f"at most one paid payment for each {what}"
                yield Damage("payment", str(last), f"has the {what} of payment {first}, which is paid too", expected)
