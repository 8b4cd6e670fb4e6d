"""The bank's payments and a gateway's against each other: what one side says and the other does not.

A finding says which side has proof: a receipt that verifies under the bank's key list. Whoever holds one can show it to
anybody, so where the two differ the other side's record is the one to be mended.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from paygate.audit.exports import IN_FLIGHT, ExportedPayment
from paygate.audit.findings import Finding
from paygate.codec.codes import TransferOutcome
from paygate.codec.seal import BadReceipt, verify_receipt
from paygate.codec.sealed import KeyList

_COMPARED: Final = ("transaction_id", "merchant_id", "amount_minor", "currency", "utr", "envelope_hash", "receipt")
_MISMATCH: Final = TransferOutcome.MISMATCH.name
_FILES: Final = {"bank": "the bank's payments", "gateway": "the gateway's payments"}


class Reconciliation:
    """One comparison; `findings` first, then the counts and remarks hold."""

    def __init__(
        self, at_bank: Iterable[ExportedPayment], at_gateway: Iterable[ExportedPayment], key_list: KeyList | None
    ) -> None:
        """Without a key list no side is said to have proof."""
        self.remarks: list[str] = []
        """What will be resolved by itself."""
        self.count = 0
        self._at_bank = at_bank
        self._at_gateway = at_gateway
        self._key_list = key_list

    def findings(self) -> Iterator[Finding]:
        """All that the two sides do not agree on."""
        at_bank: dict[bytes, ExportedPayment] = {}
        at_gateway: dict[bytes, ExportedPayment] = {}
        yield from self._collect("bank", self._at_bank, at_bank)
        yield from self._collect("gateway", self._at_gateway, at_gateway)
        self.count = len(at_bank.keys() | at_gateway.keys())
        for payment_id, theirs in at_gateway.items():
            yield from self._compare(at_bank.pop(payment_id, None), theirs)
        for ours in at_bank.values():
            yield from self._compare(ours, None)

    def _collect(
        self, side: str, payments: Iterable[ExportedPayment], found: dict[bytes, ExportedPayment]
    ) -> Iterator[Finding]:
        """Into `found`, by payment ID; what one side says twice is a finding."""
        utrs: dict[str, bytes] = {}
        tokens: dict[str, bytes] = {}
        for payment in payments:
            if payment.payment_id in found:
                yield _finding(side, payment, "stands there twice", "each payment ID once")
            found[payment.payment_id] = payment
            if not payment.is_posted:
                continue
            for what, known, key in (("UTR", utrs, payment.utr), ("token", tokens, payment.transaction_id)):
                if known.setdefault(key, payment.payment_id) != payment.payment_id:
                    problem = f"has the {what} {key} of payment {known[key].hex()}, which is paid too"
                    yield _finding(side, payment, problem, f"one paid payment for each {what}")

    def _compare(self, ours: ExportedPayment | None, theirs: ExportedPayment | None) -> Iterator[Finding]:
        """One payment as the bank and as the gateway knows it."""
        if theirs is not None and theirs.outcome == IN_FLIGHT:
            known = f"is {ours.outcome} at the bank" if ours else "is not known to the bank, which will fence it"
            text = "will be resolved once the gateway runs and reaches the bank"
            self.remarks.append(f"payment {theirs.payment_id.hex()} is in flight at the gateway and {known}: {text}")
        elif theirs is None:
            assert ours is not None
            expected = "every payment that the bank decided, since a gateway keeps each before it sends it"
            yield self._differ("gateway", ours, f"is missing, and {ours.outcome} at the bank", expected, ours, None)
        elif theirs.outcome == _MISMATCH:
            if ours is None:
                yield _finding("bank", theirs, "is missing, and was a MISMATCH for the gateway", "the payment it met")
        elif ours is None:
            expected = "every payment whose outcome the gateway knows: restore what the bank lost"
            problem = f"is missing, and {theirs.outcome} at the gateway"
            yield self._differ("bank", theirs, problem, expected, None, theirs)
        elif ours.outcome != theirs.outcome:
            problem = f"is {ours.outcome} at the bank and {theirs.outcome} at the gateway"
            yield self._differ("gateway", ours, problem, "the same final outcome on both sides", ours, theirs)
        else:
            for name in _COMPARED:
                if getattr(ours, name) != getattr(theirs, name):
                    problem = f"has another {name} at the gateway than at the bank"
                    yield self._differ("gateway", ours, problem, "the same on both sides", ours, theirs)
                    return

    def _differ(
        self,
        side: str,
        payment: ExportedPayment,
        problem: str,
        expected: str,
        ours: ExportedPayment | None,
        theirs: ExportedPayment | None,
    ) -> Finding:
        proofs = [name for name, told in (("bank", ours), ("gateway", theirs)) if told and self._proves(told)]
        if self._key_list is None:
            proof = "no key list to tell who has proof"
        elif len(proofs) == 2:
            proof = "both sides have a receipt that verifies"
        elif proofs:
            proof = f"the {proofs[0]} has proof, a receipt that verifies; mend the other side by it"
        else:
            proof = "neither side has proof"
        return _finding(side, payment, problem, expected, proof)

    def _proves(self, payment: ExportedPayment) -> bool:
        """Whether the receipt states what this side says."""
        if self._key_list is None:
            return False
        try:
            statement = verify_receipt(payment.receipt, self._key_list)
        except BadReceipt:
            return False
        terms = statement.terms
        told = (payment.payment_id, payment.transaction_id, payment.merchant_id, payment.amount_minor, payment.currency)
        stated = (terms.payment_id, terms.transaction_id, terms.merchant_id, terms.amount_minor, terms.currency)
        return (*told, payment.outcome, payment.utr, payment.envelope_hash) == (
            *stated,
            statement.outcome.name,
            statement.utr,
            statement.envelope_hash,
        )


def _finding(
    side: str, payment: ExportedPayment, problem: str, expected: str, remedy: str = "ask which side is right"
) -> Finding:
    return Finding(_FILES[side], "payment", payment.payment_id.hex(), problem, expected, remedy)
