"""What the bank knows of this gateway's payments and a restored store does not (R9).

Every outcome of the bank that the store does not have is entered with its receipt, so that a client that asks hears it;
a posted one makes its token paid. Each receipt is checked under the key list that the export brings.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from paygate.audit.exports import ExportedPayment
from paygate.clock import Now
from paygate.codec.codes import TransferOutcome
from paygate.codec.seal import BadReceipt, verify_receipt
from paygate.codec.sealed import KeyList
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import EnterPayment, PaymentSettled, TokenState

BATCH_COUNT: Final = 256
"""Payments of one transaction, so that many don't cost an fsync each."""


class Reconciler:
    """One run over the bank's export; `lines` does the work and tells of it."""

    def __init__(self, store: SqliteTokens, key_list: KeyList, gateway_id: str) -> None:
        self._store = store
        self._key_list = key_list
        self._gateway_id = gateway_id
        self.known_count = 0
        """Payments whose outcome the store has already."""
        self.entered_count = 0
        self.left_count = 0
        """What people have to look at."""

    def lines(self, payments: Iterable[ExportedPayment], now: Now) -> Iterator[str]:
        """Enter what is missing, in the bank's order; one line for each payment that was not known as it is."""
        proven: list[tuple[ExportedPayment, EnterPayment]] = []
        for payment in payments:
            enter = self._proven(payment)
            if isinstance(enter, str):
                yield self._left(payment, enter)
            else:
                proven.append((payment, enter))
        for start in range(0, len(proven), BATCH_COUNT):
            batch = proven[start : start + BATCH_COUNT]
            outcomes = self._store.apply([enter for _, enter in batch], now)
            for (payment, enter), settled in zip(batch, outcomes, strict=True):
                assert isinstance(settled, PaymentSettled)
                line = self._told(payment, enter, settled)
                if line:
                    yield line

    def _proven(self, payment: ExportedPayment) -> EnterPayment | str:
        """What the receipt states; or why it proves nothing."""
        try:
            statement = verify_receipt(payment.receipt, self._key_list)
        except BadReceipt as bad:
            return f"its receipt proves nothing ({bad})"
        terms = statement.terms
        if (terms.gateway_id, terms.payment_id) != (self._gateway_id, payment.payment_id):
            return "its receipt is another payment's"
        outcome, reason, utr = statement.outcome, statement.reason, statement.utr
        return EnterPayment(terms, statement.envelope_hash, outcome, reason, utr, payment.receipt)

    def _told(self, payment: ExportedPayment, enter: EnterPayment, settled: PaymentSettled) -> str:
        known, token = settled.payment, settled.token
        if token is None:
            why = "the token was issued after the backup: add its line to PaymentTokensData.txt, and reconcile again"
            return self._left(payment, why)
        if known is not None and (known.outcome, known.receipt) != (enter.outcome, enter.receipt):
            return self._left(payment, "the store has it with another outcome or other terms")
        is_posted = enter.outcome is TransferOutcome.POSTED
        if is_posted and (token.state, token.utr) != (TokenState.PAID, enter.utr):
            return self._left(payment, f"its token is {token.state.value} here, by UTR {token.utr or 'none'}")
        if not settled.is_changed:
            self.known_count += 1
            return ""
        self.entered_count += 1
        return f"entered: {_text(payment)}"

    def _left(self, payment: ExportedPayment, why: str) -> str:
        self.left_count += 1
        return f"left to people: {_text(payment)}: {why}"


def _text(payment: ExportedPayment) -> str:
    utr = f", UTR {payment.utr}" if payment.utr else ""
    return f"payment {payment.payment_id.hex()} of {payment.transaction_id}, {payment.outcome}{utr}"
