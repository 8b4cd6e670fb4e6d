"""A bank's ledger and a gateway's store that speak of the same payments, for tests of audits: no links between them."""

from pathlib import Path
from typing import Any, Final

from bank_books import ENVELOPE_HASH, Books, build_transfer
from builders import GATEWAY_ID, PASSCODE, build_key_list, build_terms
from gateway.world import build_token

from paygate.audit.findings import Finding, all_findings
from paygate.audit.reconcile import Reconciliation
from paygate.bank.ledger import PaymentOutcome, Resolve
from paygate.codec.sealed import Terms
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import BeginPayment, CheckToken, IssueToken, SettlePayment

KEY_LIST: Final = build_key_list()


class Pair:
    """Both stores; `pay(1)` is a whole payment of the first token."""

    def __init__(self, directory: Path) -> None:
        self.books = Books(directory / "ledger.sqlite")
        self.path = directory / "tokens.sqlite"
        self.store = SqliteTokens(self.path)

    def close(self) -> None:
        self.books.ledger.close()
        self.store.close()

    def issue(self, *numbers: int) -> None:
        """Tokens that nobody paid yet."""
        self.store.apply([IssueToken(build_token(transaction_id=f"TX-{number}")) for number in numbers], self.books.now)

    def try_passcode(self, number: int, passcode: str = PASSCODE) -> None:
        """A shopper types it."""
        self.store.apply([CheckToken(f"TX-{number}", passcode)], self.books.now)

    def begin(self, number: int) -> Terms:
        """The gateway keeps the payment; the bank has not heard of it."""
        self.issue(number)
        terms = build_terms(
            transaction_id=f"TX-{number}",
            payment_id=number.to_bytes(16),
            authorised_at_ms=self.books.now.wall_ms,
        )
        self.store.apply([BeginPayment(terms, ENVELOPE_HASH)], self.books.now)
        return terms

    def decide(self, terms: Terms, **changes: Any) -> PaymentOutcome:
        """The bank's word, which the gateway has not heard."""
        named: dict[str, Any] = {"transaction_id": terms.transaction_id, "payment_id": terms.payment_id}
        transfer = build_transfer(authorised_at_ms=terms.authorised_at_ms, **named, **changes)
        (outcome,) = self.books.apply(transfer)
        assert isinstance(outcome, PaymentOutcome)
        return outcome

    def fence(self, terms: Terms) -> PaymentOutcome:
        """The bank's word on a payment that it was asked about before it came."""
        (outcome,) = self.books.apply(Resolve(terms, ENVELOPE_HASH))
        assert isinstance(outcome, PaymentOutcome)
        return outcome

    def settle(self, terms: Terms, outcome: PaymentOutcome) -> None:
        """The gateway hears it."""
        assert outcome.outcome is not None
        settled = SettlePayment(terms.payment_id, outcome.outcome, outcome.reason, outcome.utr, outcome.receipt)
        self.store.apply([settled], self.books.now)

    def pay(self, number: int, **changes: Any) -> PaymentOutcome:
        """All of it."""
        terms = self.begin(number)
        outcome = self.decide(terms, **changes)
        self.settle(terms, outcome)
        return outcome

    def findings(self) -> list[Finding]:
        """What the audits of both sides find."""
        return all_findings([*self.books.ledger.audit(KEY_LIST), *self.store.audit()])

    def reconcile(self) -> Reconciliation:
        """Both sides against each other."""
        at_bank = self.books.ledger.exported_payments(GATEWAY_ID)
        return Reconciliation(at_bank, self.store.exported_payments(), KEY_LIST)
