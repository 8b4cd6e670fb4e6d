"""The bank's audit (T32): its ledger is what was written, the books balance, each receipt says what the ledger does.

Works on an open ledger and changes nothing, so a simulator asks it at the end of a run as an operator does of a
stopped bank.
"""

from collections.abc import Iterator
from typing import Any, Final

import apsw

from paygate.audit.exports import ExportedPayment
from paygate.audit.findings import Check, Damage, Finding, check_of, damages_of, findings_of, readable
from paygate.audit.pages import page_damages
from paygate.bank.ledger import UTR_SEQUENCE_MODULUS, BankIdentity, utr_start
from paygate.bank.ledger_chain import PAYMENT_FIELDS
from paygate.bank.ledger_check import LedgerCheck, head_damages, read_head
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import BadReceipt, match_receipt, verify_receipt
from paygate.codec.sealed import KeyList, Terms

LEDGER_NAME: Final = "ledger.sqlite"
_PAYMENTS: Final = f"SELECT {PAYMENT_FIELDS} FROM payment ORDER BY payment_number"  # noqa: S608  # a constant
_PAYMENTS_OF: Final = (
    "SELECT outcome, utr, terms, envelope_hash, receipt FROM payment WHERE gateway_id = ? ORDER BY payment_number"
)
_TRANSFERS: Final = (
    "SELECT posting.posting_number, posting.payment_number, amount_minor, payment.outcome, payment.terms, "
    "EXISTS (SELECT 1 FROM customer WHERE customer.account_id = posting.account_id), "
    "(SELECT merchant_id FROM merchant WHERE merchant.account_id = posting.account_id) "
    "FROM posting LEFT JOIN payment ON payment.payment_number = posting.payment_number "
    "WHERE posting.payment_number IS NOT NULL ORDER BY posting_number"
)


def audit_ledger(connection: apsw.Connection, identity: BankIdentity, key_list: KeyList) -> list[Check]:
    """All checks of a ledger. Its text files are looked at by `record_audit.py`."""
    check = check_of(
        "pages", "whole", _findings(page_damages(connection)), lambda: int(connection.pragma("page_count"))
    )
    head = check_of("counters", "as written", _findings(head_damages(connection)), lambda: 1)
    if head.findings:  # All else is compared with them.
        return [check, head]
    return [check, head, *_Audit(connection, identity, key_list).checks()]


def ledger_payments(connection: apsw.Connection, gateway_id: str) -> Iterator[ExportedPayment]:
    """A gateway's payments as the bank has them."""
    rows: Any = connection.execute(_PAYMENTS_OF, (gateway_id,))
    for outcome, utr, encoded_terms, envelope_hash, receipt in rows:
        terms = decode_record(Terms, encoded_terms)
        yield ExportedPayment(
            terms.payment_id,
            terms.transaction_id,
            terms.merchant_id,
            terms.amount_minor,
            terms.currency,
            TransferOutcome(outcome).name,
            utr or "",
            envelope_hash,
            receipt,
        )


def _findings(damages: Iterator[Damage]) -> Iterator[Finding]:
    return findings_of(LEDGER_NAME, damages)


class _Audit:
    """The checks of one ledger whose counters are what was written."""

    def __init__(self, connection: apsw.Connection, identity: BankIdentity, key_list: KeyList) -> None:
        self._connection = connection
        self._identity = identity
        self._key_list = key_list
        self._head = read_head(connection)
        self._utr_count = self._receipt_count = self._transfer_count = 0

    def checks(self) -> Iterator[Check]:
        check = LedgerCheck(self._connection, self._head)
        are_rows_whole = True
        for name, result, step, count in (
            ("payments", "chain whole", check.payments, lambda: check.payment_count),
            ("postings", "chain whole, each transfer balances", check.postings, lambda: check.posting_count),
            ("accounts", "chain whole, password attempts as written", check.accounts, lambda: check.account_count),
            ("balances", "each the sum of its postings", check.balances, lambda: check.account_count),
        ):
            done = check_of(name, result, _findings(damages_of(step)), count)
            are_rows_whole = are_rows_whole and not done.findings
            yield done
        for name, result, step, count in (
            ("UTRs", "each given out once, in order", self._utrs, lambda: self._utr_count),
            ("transfers", "each as its payment says", self._transfers, lambda: self._transfer_count),
            ("receipts", "each verifies and says what its payment does", self._receipts, lambda: self._receipt_count),
        ):
            if are_rows_whole:
                yield check_of(name, result, _findings(damages_of(step)), count)
            else:  # A row that is not what was written may hold anything.
                yield Check(name, 0, "not looked at, since rows are damaged")

    def _payments(self) -> Iterator[Any]:
        return readable("payment", self._connection.execute(_PAYMENTS))

    def _utrs(self) -> Iterator[Damage]:
        """R7: bank code, channel, day and a sequence number that grows and was not given out before."""
        sequence = used_count = 0
        for number, *_, outcome, _, utr, bank_time_ms, _, _ in self._payments():
            if outcome != TransferOutcome.POSTED:
                continue
            self._utr_count += 1
            start = utr_start(self._identity.bank_code, bank_time_ms)
            digits = utr.removeprefix(start)
            if len(digits) != 8 or not digits.isdecimal():
                yield Damage("payment", str(number), f"has the UTR {utr}", f"{start} and eight digits")
                continue
            # The eight digits come round; a number that is the same again would be a whole round on.
            step = (int(digits) - sequence) % UTR_SEQUENCE_MODULUS or UTR_SEQUENCE_MODULUS
            sequence, used_count = int(digits), used_count + step
            if used_count > self._head.utr_sequence:
                expected = f"at most {self._head.utr_sequence} UTRs given out, each with a higher sequence number"
                yield Damage("payment", str(number), f"has the UTR {utr} out of its order", expected)
                used_count = self._head.utr_sequence

    def _transfers(self) -> Iterator[Damage]:
        """R6: a payment that moved money has two postings, from a customer and to its merchant; no other has any."""
        last_payment_number = 0
        rows = readable("posting", self._connection.execute(_TRANSFERS))
        for payer, payee in zip(rows, rows, strict=False):
            self._transfer_count += 1
            number, payment_number, paid_minor, outcome, encoded_terms, is_customer, _ = payer
            is_next = payment_number > last_payment_number and payee[1] == payment_number
            last_payment_number = payment_number
            if outcome != TransferOutcome.POSTED or not is_next:
                yield Damage("posting", str(number), "is of no payment that moved money", "a POSTED payment, once")
                continue
            terms = decode_record(Terms, encoded_terms)
            if not is_customer or paid_minor != -terms.amount_minor:
                expected = f"{-terms.amount_minor} minor units from a customer, as payment {payment_number} says"
                yield Damage("posting", str(number), "is not what was paid", expected)
            if payee[-1] != terms.merchant_id or payee[2] != terms.amount_minor:
                expected = f"{terms.amount_minor} minor units to merchant {terms.merchant_id}"
                yield Damage("posting", str(payee[0]), "is not what was paid", expected)

    def _receipts(self) -> Iterator[Damage]:
        """R7: what the bank signed is what it wrote down."""
        for number, _, _, _, encoded_terms, envelope_hash, *result, receipt, _ in self._payments():
            self._receipt_count += 1
            try:
                statement = verify_receipt(receipt, self._key_list)
                match_receipt(statement, decode_record(Terms, encoded_terms), envelope_hash)
            except BadReceipt as bad:
                yield Damage("payment", str(number), f"has a receipt that is none ({bad})", "one under our key list")
                continue
            stated = [statement.outcome, statement.reason, statement.utr or None, statement.bank_time_ms]
            if stated != result:
                outcome, reason, utr, _ = result
                expected = f"{TransferOutcome(outcome).name}, {Reason(reason).name}, {utr or 'no UTR'}"
                yield Damage("payment", str(number), "has a receipt that says otherwise", expected)
