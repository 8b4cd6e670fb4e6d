"""A bank's state directory as `init` makes it, with a customer and a merchant, for tests of backups."""

import json
from pathlib import Path
from typing import Any, Final

from bank_books import ENVELOPE_HASH, VERIFIER, build_transfer, payment_id
from builders import GATEWAY_ID, MERCHANT_ID, NOW_MS, USER_ID

from paygate.audit.findings import Check
from paygate.bank.keys import add_gateway, load_key_list, make_keys
from paygate.bank.ledger import AccountOutcome, BankIdentity, OpenCustomer, OpenMerchant, Operation, PaymentOutcome
from paygate.bank.record_lines import TRANSACTIONS_LAYOUT
from paygate.bank.server import open_ledger
from paygate.clock import Now
from paygate.codec.sealed import KeyList

IDENTITY: Final = BankIdentity("BANK1", "PGBK", "INR")
LATER: Final = Now(5_000_000, NOW_MS + 1_000)
"""Some time after all payments but those of a restored bank."""


class BankFolder:
    """One state directory and its ledger; made if it is not there."""

    amount_minor: Final = 100

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = Now(1_000_000, NOW_MS)
        is_new = not directory.exists()
        if is_new:
            make_keys(directory, IDENTITY, NOW_MS)
            add_gateway(directory, GATEWAY_ID, directory.with_name(f"{directory.name}-link.key"))
        self.open()
        if is_new:
            opened: list[Operation] = [
                OpenCustomer("C-1", USER_ID, VERIFIER, 5_000_000),
                OpenMerchant(MERCHANT_ID, "Books", 0),
            ]
            assert self.ledger.apply(opened, self.now) == [AccountOutcome.OPENED] * 2

    def open(self) -> None:
        """Open the ledger, as a server does."""
        self.ledger = open_ledger(self.directory)

    def opened(self) -> "BankFolder":
        """Itself, open."""
        self.open()
        return self

    def close(self) -> None:
        """Let the directory be; harmless when it is closed."""
        self.ledger.close()

    def key_list(self) -> KeyList:
        """What clients trust."""
        return load_key_list(self.directory)

    def pay(self, number: int, **terms: Any) -> PaymentOutcome:
        """A transfer with payment ID and token of its own."""
        usual = {
            "payment_id": payment_id(number),
            "transaction_id": f"TX-{number}",
            "amount_minor": self.amount_minor,
            "authorised_at_ms": self.now.wall_ms,
        }
        transfer = build_transfer(sent_envelope_hash=ENVELOPE_HASH, **{**usual, **terms})
        outcome = self.ledger.apply([transfer], self.now)[0]
        assert isinstance(outcome, PaymentOutcome)
        return outcome

    def balance(self) -> int:
        """The customer's."""
        customer = self.ledger.find_customer("C-1")
        assert customer is not None
        return customer.balance_minor

    def audit(self) -> list[Check]:
        """Of the open ledger."""
        return self.ledger.audit(self.key_list())

    def write_transactions(self, utrs: list[str]) -> None:
        """A TransactionID.txt with these UTRs, all paid by the customer."""
        rows = [(utr, "C-1", MERCHANT_ID, "1.00", "INR", "TX", "2026-01-02T00:00:00.000Z") for utr in utrs]
        text = b"".join(line for _, line in TRANSACTIONS_LAYOUT.formatted(rows))
        (self.directory / TRANSACTIONS_LAYOUT.file_name).write_bytes(TRANSACTIONS_LAYOUT.header + text)

    def restored_at(self, ms: int) -> None:
        """Say that it was restored."""
        (self.directory / "restored.json").write_text(json.dumps({"restored_ms": ms}), encoding="ascii")
