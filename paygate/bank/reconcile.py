"""What a restored bank's gateways know and it does not: entered again where it is proven, named for people where not.

A receipt is the bank's own signature: payment, amount, merchant and UTR of one that verifies are true. Who paid stands
in no receipt, but in the old bank's TransactionID.txt under the UTR. With both, the payment is entered as it was: the
same UTR, bank time and receipt, byte for byte (PG-RES-9).
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from paygate.audit.exports import ExportedPayment
from paygate.bank.ledger import ReenterOutcome
from paygate.bank.record_lines import TRANSACTIONS_LAYOUT
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now
from paygate.codec.codes import TransferOutcome
from paygate.codec.fields import UTR_OR_EMPTY
from paygate.codec.money import format_amount
from paygate.codec.seal import BadReceipt, verify_receipt
from paygate.codec.sealed import KeyList, ReceiptStatement
from paygate.files.backup_folder import record_rows


def payers_of(path: Path, bank_code: str) -> dict[str, str]:
    """The customer ID of each UTR in a TransactionID.txt of this bank; lines that are none are passed over.

    Raises StateError for a file that can't be read or is none.
    """

    def is_ours(fields: tuple[str, ...]) -> bool:
        return fields[0].startswith(f"{bank_code}P") and UTR_OR_EMPTY.is_legal(fields[0])

    expected = f"{len(TRANSACTIONS_LAYOUT.columns)} columns with | between them, the first a UTR from {bank_code}P on"
    return {fields[0]: fields[1] for fields in record_rows(path, TRANSACTIONS_LAYOUT, is_ours, expected)}


class Reconciler:
    """One run over a gateway's export; `lines` does the work and tells of it."""

    def __init__(self, ledger: SqliteLedger, key_list: KeyList, gateway_id: str, payers: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._key_list = key_list
        self._gateway_id = gateway_id
        self._payers = payers
        self.known_count = 0
        """Paid payments that are in the ledger already."""
        self.entered_count = 0
        self.left_count = 0
        """What people have to look at."""

    def lines(self, payments: Iterable[ExportedPayment], now: Now) -> Iterator[str]:
        """Enter what is missing and proven, in the order of the UTRs; one line for each payment that is not known."""
        missing: list[tuple[ReceiptStatement, bytes]] = []
        for payment in payments:
            if not payment.is_posted:
                continue  # No money moved; a fence for it is made when somebody asks.
            known = self._ledger.payment(self._gateway_id, payment.payment_id)
            if known is not None and known.receipt == payment.receipt:
                self.known_count += 1
            elif known is not None:
                yield self._left(payment, f"the ledger has it as {known.outcome.name}, with another receipt")
            elif (statement := self._proof(payment)) is None:
                yield self._left(payment, "its receipt proves nothing, so the gateway has no proof")
            else:
                missing.append((statement, payment.receipt))
        for statement, receipt in sorted(missing, key=lambda pair: (pair[0].bank_time_ms, pair[0].utr)):
            yield self._enter(statement, receipt, now)

    def _proof(self, payment: ExportedPayment) -> ReceiptStatement | None:
        try:
            statement = verify_receipt(payment.receipt, self._key_list)
        except BadReceipt:
            return None
        terms = statement.terms
        stated = (statement.outcome, terms.gateway_id, terms.payment_id, statement.utr)
        told = (TransferOutcome.POSTED, self._gateway_id, payment.payment_id, payment.utr)
        return statement if stated == told else None

    def _enter(self, statement: ReceiptStatement, receipt: bytes, now: Now) -> str:
        customer_id = self._payers.get(statement.utr, "")
        if not customer_id:
            return self._left(statement, "proven, but who paid is not known: find the UTR in an old TransactionID.txt")
        outcome = self._ledger.reenter(statement, receipt, customer_id, now)
        if outcome is not ReenterOutcome.ENTERED:
            return self._left(statement, f"proven, but {outcome.value} (customer {customer_id})")
        self.entered_count += 1
        return f"entered again: {_text(statement)}, customer {customer_id}"

    def _left(self, payment: ExportedPayment | ReceiptStatement, why: str) -> str:
        self.left_count += 1
        return f"left to people: {_text(payment)}: {why}"


def _text(payment: ExportedPayment | ReceiptStatement) -> str:
    told = payment.terms if isinstance(payment, ReceiptStatement) else payment
    amount = f"{format_amount(told.amount_minor, told.currency)} {told.currency}"
    return (
        f"payment {told.payment_id.hex()}, UTR {payment.utr}, {amount} to merchant {told.merchant_id}, "
        f"order {told.transaction_id}"
    )
