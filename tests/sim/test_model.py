"""Each invariant, broken on purpose: a model that lets one of these histories pass would let a bug pass."""

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from bank_books import IDENTITY
from builders import (
    BANK_ID,
    FIXED_ENVELOPE,
    GATEWAY_ID,
    MERCHANT_ID,
    NOW_MS,
    PASSCODE,
    RECEIPT_KEY,
    build_receipt,
    build_statement,
    build_terms,
)
from memory_disk import MemoryDisk
from sim.invariants import Invariant, Violation
from sim.model import Model
from sim.model_quiet import check_bank_core, check_disk, check_gateway_core, check_opens_again, refuse_findings

from paygate.audit.findings import Finding
from paygate.bank.core import BankCore
from paygate.bank.ledger import OpenCustomer, PaymentOutcome
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.client.payment import Outcome
from paygate.clock import Now
from paygate.codec.codes import PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.frame import encode_frame
from paygate.codec.messages import PaymentAck, StatusAck, TokenAck, TransferResult
from paygate.codec.record_codec import encode_record
from paygate.codec.seal import envelope_hash
from paygate.codec.sealed import ReceiptStatement, Terms
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.core import GatewayCore
from paygate.gateway.tokens import (
    CheckToken,
    Payment,
    PaymentBegun,
    PaymentSettled,
    Token,
    TokenChecked,
    TokenState,
)

NOW = Now(1_000_000, NOW_MS)
OPENED_MINOR = 1_000_000


def utr_of(number: int) -> str:
    return f"PGBKP120260102{number:08d}"


class LooseLedger:
    """Tables as the ledger's, without a single rule: it holds whatever history is written into it."""

    def __init__(self) -> None:
        self._connection = apsw.Connection(":memory:")
        self._connection.execute(
            "CREATE TABLE payment (payment_number INTEGER PRIMARY KEY, gateway_id, payment_id, transaction_id, terms, "
            "envelope_hash, outcome, reason, utr, receipt);"
            "CREATE TABLE posting (posting_number INTEGER PRIMARY KEY, payment_number, account_id, amount_minor);"
            "CREATE TABLE customer (account_id INTEGER PRIMARY KEY, customer_id, failure_count, locked_until_ms);"
            "CREATE TABLE merchant (account_id INTEGER PRIMARY KEY, merchant_id);"
            "CREATE TABLE bank (lock_time_ms);"
            "INSERT INTO customer VALUES (2, 'C-1', 0, 0), (3, 'C-2', 0, 0);"
            f"INSERT INTO merchant VALUES (4, '{MERCHANT_ID}');"
            f"INSERT INTO bank VALUES ({NOW_MS})"
        )
        self.balances = {"C-1": OPENED_MINOR, "C-2": OPENED_MINOR, MERCHANT_ID: 0}

    def customers(self) -> list[Any]:
        return [SimpleNamespace(customer_id=c, balance_minor=self.balances[c]) for c in ("C-1", "C-2")]

    def merchants(self) -> list[Any]:
        return [SimpleNamespace(merchant_id=MERCHANT_ID, balance_minor=self.balances[MERCHANT_ID])]

    def put(self, statement: ReceiptStatement, *, of_row: bytes = b"", debited: int = 2) -> PaymentOutcome:
        """A row, its postings and balances. `of_row`: an envelope hash that the receipt does not state."""
        terms, receipt = statement.terms, build_receipt(statement)
        self._connection.execute(
            "INSERT INTO payment VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(terms.gateway_id, terms.payment_id, terms.transaction_id, encode_record(terms)),
                *(of_row or statement.envelope_hash, int(statement.outcome), int(statement.reason)),
                *(statement.utr or None, receipt),
            ),
        )
        if statement.outcome is TransferOutcome.POSTED:
            self.post(self._connection.last_insert_rowid(), terms.amount_minor, debited)
        return PaymentOutcome(statement.outcome, statement.reason, statement.utr, receipt)

    def post(self, payment_number: int, amount_minor: int, debited: int = 2) -> None:
        """Money from an account to the merchant's."""
        for account_id, minor in ((debited, -amount_minor), (4, amount_minor)):
            row = (payment_number, account_id, minor)
            self._connection.execute("INSERT INTO posting VALUES (NULL, ?, ?, ?)", row)
        self.balances["C-1" if debited == 2 else "C-2"] -= amount_minor
        self.balances[MERCHANT_ID] += amount_minor

    def count_failures(self, count: int) -> None:
        """Wrong passwords of the first customer."""
        self._connection.execute("UPDATE customer SET failure_count = ? WHERE account_id = 2", (count,))

    def without_payments(self) -> "LooseLedger":
        """What a recovery finds that has lost them all."""
        return LooseLedger()


class LooseStore:
    """A gateway's store that holds what it is told."""

    def __init__(self, *tokens: Token) -> None:
        self.all_tokens = {token.transaction_id: token for token in tokens}
        self.all_payments: list[Payment] = []

    def tokens(self) -> list[Token]:
        return list(self.all_tokens.values())

    def payments(self) -> list[Payment]:
        return self.all_payments

    def payments_in_flight(self) -> list[Payment]:
        return [payment for payment in self.all_payments if payment.outcome is None]


class Story:
    """A bank of two customers and one merchant, one gateway with two tokens, and the model that watches."""

    def __init__(self) -> None:
        self.model = Model()
        self.ledger = LooseLedger()
        for customer_id, user_id in (("C-1", "asha"), ("C-2", "ravi")):
            self.model.account_opened(customer_id, user_id, OPENED_MINOR)
        self.model.merchant_opened(MERCHANT_ID, 0)
        tokens = [Token(f"TX-{n}", PASSCODE, MERCHANT_ID, "Books", 125_000, "INR", None) for n in (1, 2)]
        self.store = LooseStore(*tokens)
        self.gateway()
        for token in tokens:
            self.model.token_issued(GATEWAY_ID, token)

    def terms(self, number: int, **changes: Any) -> Terms:
        """Those of a payment of its own; its token is `TX-1` unless it is changed."""
        payment_id = hashlib.sha256(b"%d" % number).digest()[:16]
        return build_terms(**{"payment_id": payment_id, "transaction_id": "TX-1", **changes})

    def authorise(self, terms: Terms, *, user_id: str = "asha", password_is_right: bool = True) -> bytes:
        """The customer says yes."""
        sent_hash = envelope_hash(FIXED_ENVELOPE + terms.payment_id + user_id.encode())
        self.model.authorised("client", terms, user_id, password_is_right, sent_hash)
        return sent_hash

    def statement(self, number: int, sent_hash: bytes, terms: Terms, **changes: Any) -> ReceiptStatement:
        """POSTED, with a UTR for each number."""
        return build_statement(**{"terms": terms, "envelope_hash": sent_hash, "utr": utr_of(number), **changes})

    def pay(self, number: int, *, debited: int = 2, utr: str = "", **changes: Any) -> PaymentOutcome:
        """Authorise and post, and tell the model."""
        terms = self.terms(number, **changes)
        statement = self.statement(number, self.authorise(terms), terms, utr=utr or utr_of(number))
        return self.apply(self.ledger.put(statement, debited=debited))

    def decline(self, number: int, reason: Reason, *, password_is_right: bool = True) -> PaymentOutcome:
        """Authorise and decline, and tell the model."""
        terms = self.terms(number)
        sent_hash = self.authorise(terms, password_is_right=password_is_right)
        changes = {"outcome": TransferOutcome.DECLINED, "reason": reason, "utr": ""}
        return self.apply(self.ledger.put(self.statement(number, sent_hash, terms, **changes)))

    def apply(self, *outcomes: PaymentOutcome) -> PaymentOutcome:
        """The bank's commit returned these."""
        self.model.bank_applied(self.ledger, outcomes, NOW)
        return outcomes[0]

    def begin(self, number: int, **changes: Any) -> Payment:
        """The gateway reserves the token."""
        terms = self.terms(number, **changes)
        payment = Payment(terms, self.authorise(terms), NOW_MS)
        self.gateway(PaymentBegun(payment, None, is_new=True))
        self.store.all_payments.append(payment)
        return payment

    def settle(self, payment: Payment, outcome: PaymentOutcome, ended_ms: int = NOW_MS) -> None:
        """The gateway records what the bank said."""
        assert outcome.outcome is not None
        settled = Payment(
            *(payment.terms, payment.envelope_hash, NOW_MS, outcome.outcome, outcome.reason, outcome.utr),
            *(outcome.receipt, ended_ms),
        )
        self.store.all_payments = [settled if p is payment else p for p in self.store.all_payments]
        self.gateway(PaymentSettled(settled, None, is_changed=True))

    def check(self, passcode: str, status: TokenStatus, *, later_ms: int = 0) -> None:
        """The gateway is asked about the first token."""
        self.model.gateway_applying(GATEWAY_ID, [CheckToken("TX-1", passcode)])
        outcome = TokenChecked(status)
        now = Now(NOW.mono_ms + later_ms, NOW.wall_ms + later_ms)
        self.model.gateway_applied(GATEWAY_ID, self.store, [outcome], now)

    def gateway(self, *outcomes: Any) -> None:
        """The gateway's commit returned these."""
        self.model.gateway_applying(GATEWAY_ID, outcomes)
        self.model.gateway_applied(GATEWAY_ID, self.store, outcomes, NOW)

    def tell(self, number: int, outcome: Outcome, told: PaymentOutcome | None = None, text: str = "") -> None:
        """A client's program ended."""
        receipt, utr = (told.receipt, told.utr) if told else (b"", "")
        self.model.told("client", self.terms(number).payment_id, outcome, receipt, utr, text)

    def finish_clients(self, *, is_faultless: bool = False) -> None:
        """The end, for customers."""
        self.model.clients.finish({(GATEWAY_ID, "TX-1")}, is_faultless=is_faultless)

    def finish_gateway(self) -> None:
        """The end, for the gateway."""
        self.model.gateways[GATEWAY_ID].finish(self.store, NOW_MS)


@pytest.fixture
def story() -> Story:
    return Story()


def breaks(invariant: Invariant, text: str = "") -> Any:
    """What is done within breaks this one, and no other."""
    return pytest.raises(Violation, match=f"^{invariant}: .*{text}")


# -- an honest history, whole ----------------------------------------------------------------------------


def test_an_honest_history_breaks_nothing(story: Story) -> None:
    payment = story.begin(1)
    paid = story.apply(story.ledger.put(story.statement(1, payment.envelope_hash, payment.terms)))
    story.settle(payment, paid)
    story.store.all_tokens["TX-1"] = _paid(story.store.all_tokens["TX-1"], payment.payment_id, paid.utr)
    told = PaymentAck(payment.payment_id, PaymentStatus.PAID, Reason.NONE, *_proof(paid))
    story.model.gateway_told(GATEWAY_ID, told, "TX-1")
    story.tell(1, Outcome.PAID, paid)
    story.model.restarted(Role.BANK, BANK_ID, story.ledger)
    story.model.restarted(Role.GATEWAY, GATEWAY_ID, story.store)
    story.finish_clients(is_faultless=True)
    story.finish_gateway()
    story.model.ledger.check_balances(story.ledger)


def _paid(token: Token, payment_id: bytes, utr: str) -> Token:
    return Token(
        *(token.transaction_id, token.passcode, token.merchant_id, token.merchant_name, token.amount_minor),
        *(token.currency, None, TokenState.PAID, payment_id, utr),
    )


def _proof(outcome: PaymentOutcome) -> tuple[str, bytes]:
    return outcome.utr, outcome.receipt


# -- one history for each invariant, and more ------------------------------------------------------------


def test_i1_money_that_comes_from_nowhere(story: Story) -> None:
    story.ledger.balances[MERCHANT_ID] += 1
    with breaks(Invariant.I1, "was paid in"):
        story.model.ledger.check_balances(story.ledger)


def test_i1_money_that_went_to_another_account(story: Story) -> None:
    story.ledger.balances["C-1"] -= 1
    story.ledger.balances["C-2"] += 1
    with breaks(Invariant.I1, "C-1 should have"):
        story.model.ledger.check_balances(story.ledger)


def test_i1_a_negative_balance(story: Story) -> None:
    story.ledger.balances["C-1"] = -1
    with breaks(Invariant.I1, "a balance of -1"):
        story.model.ledger.check_balances(story.ledger)


def test_i1_a_debit_of_more_than_there_is(story: Story) -> None:
    with breaks(Invariant.I1, "more than there is"):
        story.pay(1, amount_minor=OPENED_MINOR + 1)


def test_i1_a_posting_of_no_payment(story: Story) -> None:
    story.ledger.post(payment_number=7, amount_minor=5)
    with breaks(Invariant.I1, "no posted payment"):
        story.pay(1)


def test_i2_one_payment_twice_in_the_ledger(story: Story) -> None:
    story.pay(1)
    terms = story.terms(1)
    with breaks(Invariant.I2, "twice"):
        story.apply(story.ledger.put(story.statement(2, story.authorise(terms), terms)))


def test_i2_one_payment_with_two_debits(story: Story) -> None:
    story.ledger.post(payment_number=1, amount_minor=125_000)
    with breaks(Invariant.I2, "is debited by postings"):
        story.pay(1)


def test_i2_one_token_debited_by_two_payments(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I2, "token TX-1"):
        story.pay(2)


def test_i2_a_payment_begun_twice(story: Story) -> None:
    story.begin(1)
    with breaks(Invariant.I2, "begun twice"):
        story.begin(1)


def test_i3_a_payment_that_a_recovery_lost(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I3, "it is gone"):
        story.model.restarted(Role.BANK, BANK_ID, story.ledger.without_payments())


def test_i3_a_payment_that_a_recovery_changed(story: Story) -> None:
    story.pay(1)
    other = story.ledger.without_payments()
    other.put(story.statement(2, story.authorise(story.terms(2)), story.terms(2)))
    with breaks(Invariant.I3, "another stands there"):
        story.model.restarted(Role.BANK, BANK_ID, other)


def test_i3_a_result_that_leaves_the_bank_before_it_is_in_the_ledger(story: Story) -> None:
    terms = story.terms(1)
    receipt = build_receipt(story.statement(1, story.authorise(terms), terms))
    result = TransferResult(terms.payment_id, TransferOutcome.POSTED, Reason.NONE, utr_of(1), receipt)
    data = encode_frame(result, 1)
    story.model.frame("GW1>BANK1#1", BANK_ID, data[:50])
    with breaks(Invariant.I3, "the bank tells a final outcome"):
        story.model.frame("GW1>BANK1#1", BANK_ID, data[50:])


def test_i3_a_wrong_password_that_is_answered_and_not_counted(story: Story) -> None:
    with breaks(Invariant.I3, "1 wrong passwords of C-1 were answered, and 0"):
        story.decline(1, Reason.CREDENTIALS, password_is_right=False)


def test_i3_a_wrong_password_that_a_recovery_forgot(story: Story) -> None:
    story.ledger.count_failures(1)
    story.decline(1, Reason.CREDENTIALS, password_is_right=False)
    story.ledger.count_failures(0)
    with breaks(Invariant.I3, "and 0 are counted"):
        story.model.restarted(Role.BANK, BANK_ID, story.ledger)


def test_i3_a_payment_in_flight_that_a_recovery_lost(story: Story) -> None:
    story.begin(1)
    story.store.all_payments.clear()
    with breaks(Invariant.I3, "was begun, and after the recovery it is gone"):
        story.model.restarted(Role.GATEWAY, GATEWAY_ID, story.store)


def test_i3_a_wrong_passcode_that_is_answered_and_not_counted(story: Story) -> None:
    with breaks(Invariant.I3, "1 wrong passcodes of token TX-1 were answered, and 0"):
        story.check("wrong", TokenStatus.INVALID)


def test_i3_a_wrong_passcode_that_a_recovery_forgot(story: Story) -> None:
    token = story.store.all_tokens["TX-1"]
    story.store.all_tokens["TX-1"] = replace(token, wrong_passcode_count=1)
    story.check("wrong", TokenStatus.INVALID)
    story.store.all_tokens["TX-1"] = token
    with breaks(Invariant.I3, "1 wrong passcodes of token TX-1"):
        story.model.restarted(Role.GATEWAY, GATEWAY_ID, story.store)


def test_i3_a_right_passcode_in_a_batch_that_died_may_have_set_the_count_back(story: Story) -> None:
    story.store.all_tokens["TX-1"] = replace(story.store.all_tokens["TX-1"], wrong_passcode_count=1)
    story.check("wrong", TokenStatus.INVALID)
    story.model.gateway_applying(GATEWAY_ID, [CheckToken("TX-1", PASSCODE)])
    story.store.all_tokens["TX-1"] = replace(story.store.all_tokens["TX-1"], wrong_passcode_count=0)
    story.model.restarted(Role.GATEWAY, GATEWAY_ID, story.store)


def test_i3_an_expired_token_that_is_valid_again(story: Story) -> None:
    story.check(PASSCODE, TokenStatus.EXPIRED)
    with breaks(Invariant.I3, "valid again"):
        story.check(PASSCODE, TokenStatus.VALID)


def test_i3_a_client_that_is_told_two_things(story: Story) -> None:
    paid = story.pay(1)
    story.tell(1, Outcome.PAID, paid)
    with breaks(Invariant.I3, "was told paid .* and now unknown"):
        story.tell(1, Outcome.UNKNOWN)


def test_i3_a_gateway_that_forgets_a_payment(story: Story) -> None:
    payment = story.begin(1)
    with breaks(Invariant.I3, "does not know a payment"):
        told = StatusAck(payment.payment_id, PaymentStatus.UNKNOWN, Reason.NONE, "", b"")
        story.model.gateway_told(GATEWAY_ID, told, "TX-1")


def test_i4_a_token_that_is_free_after_its_debit(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I4, "acknowledged as valid"):
        story.check(PASSCODE, TokenStatus.VALID)
    with breaks(Invariant.I4, "reserved for another payment"):
        story.begin(2)


def test_i4_a_token_that_is_unpaid_at_the_end(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I4, "TX-1 of GW1 is unpaid, and the ledger holds a debit"):
        story.finish_gateway()


def test_i4_a_token_that_is_paid_without_a_debit(story: Story) -> None:
    story.store.all_tokens["TX-1"] = _paid(story.store.all_tokens["TX-1"], b"p" * 16, utr_of(1))
    with breaks(Invariant.I4, "no debit"):
        story.finish_gateway()


def test_i4_a_payment_settled_with_the_outcome_of_another(story: Story) -> None:
    first, second = story.begin(1), story.begin(2, transaction_id="TX-2")
    paid = story.apply(story.ledger.put(story.statement(1, first.envelope_hash, first.terms)))
    story.apply(story.ledger.put(story.statement(2, second.envelope_hash, second.terms)))
    with breaks(Invariant.I4, "the outcome of another payment"):
        story.settle(second, paid)


def test_i4_a_gateway_that_says_not_forwarded_of_what_is_posted(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I4, "was not forwarded, and it is posted"):
        told = PaymentAck(story.terms(1).payment_id, PaymentStatus.REFUSED, Reason.SESSION, "", b"")
        story.model.gateway_told(GATEWAY_ID, told, "TX-1")


def test_i4_a_token_called_paid_under_a_utr_of_nobody(story: Story) -> None:
    told = TokenAck(
        *(TokenStatus.PAID, bytes(16), 0, MERCHANT_ID, "Books", 125_000, "INR", GATEWAY_ID, BANK_ID, utr_of(9)),
    )
    with breaks(Invariant.I4, "calls token TX-1 paid"):
        story.model.gateway_told(GATEWAY_ID, told, "TX-1")


def test_i4_a_token_called_paid_under_the_utr_of_another(story: Story) -> None:
    paid = story.pay(1)
    token = (TokenStatus.PAID, bytes(16), 0, MERCHANT_ID, "Books", 125_000, "INR", GATEWAY_ID, BANK_ID, paid.utr)
    story.model.gateway_told(GATEWAY_ID, TokenAck(*token), "TX-1")
    with breaks(Invariant.I4, "calls token TX-2 paid"):
        story.model.gateway_told(GATEWAY_ID, TokenAck(*token), "TX-2")


def test_i5_a_utr_given_out_twice(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I5, "given out again"):
        story.pay(2, transaction_id="TX-2", utr=utr_of(1))


def test_i6_a_receipt_that_is_no_row(story: Story) -> None:
    terms = story.terms(1)
    statement = story.statement(1, story.authorise(terms), terms)
    forged = PaymentOutcome(TransferOutcome.POSTED, Reason.NONE, utr_of(1), build_receipt(statement))
    with breaks(Invariant.I6, "no row of the ledger"):
        story.tell(1, Outcome.PAID, forged)


def test_i6_a_receipt_of_another_payment(story: Story) -> None:
    paid = story.pay(1)
    story.authorise(story.terms(2))
    with breaks(Invariant.I6, "another payment's receipt"):
        story.tell(2, Outcome.PAID, paid)


def test_i6_a_receipt_of_somebody_elses_envelope_under_a_copied_payment_id(story: Story) -> None:
    terms = story.terms(1)
    attackers_hash = story.authorise(terms, user_id="ravi")
    story.authorise(terms)
    paid = story.apply(story.ledger.put(story.statement(1, attackers_hash, terms), debited=3))
    with breaks(Invariant.I6, "another payment's receipt"):
        story.tell(1, Outcome.PAID, paid)


def test_i6_a_receipt_that_states_another_envelope_than_its_row(story: Story) -> None:
    terms = story.terms(1)
    statement = story.statement(1, bytes(32), terms)
    with breaks(Invariant.I6, "states something else"):
        story.apply(story.ledger.put(statement, of_row=story.authorise(terms)))


def test_i6_no_money_has_moved_and_it_has(story: Story) -> None:
    story.pay(1)
    with breaks(Invariant.I6, "told that none has moved"):
        story.tell(1, Outcome.TIMED_OUT, text="Session ended. Nothing was sent to the bank; no money has moved.")


def test_i6_nothing_was_saved_and_money_moved(story: Story) -> None:
    terms = story.terms(1)
    sent_hash = story.authorise(terms)
    story.model.never_sent(terms.payment_id)
    story.apply(story.ledger.put(story.statement(1, sent_hash, terms)))
    with breaks(Invariant.I6, "its record was never saved"):
        story.finish_clients()


def test_i7_a_password_on_the_wire_though_cut_in_two(story: Story) -> None:
    story.model.secret("asha's password", b"correct horse")
    story.model.frame("client>GW1#1", "client", b"..correct ho")
    with breaks(Invariant.I7, "asha's password stands on the link client>GW1#1"):
        story.model.frame("client>GW1#1", "client", b"rse..")


def test_i8_a_store_with_a_changed_byte_does_not_open_again() -> None:
    disk = MemoryDisk("i8")
    ledger = SqliteLedger(Path("ledger"), IDENTITY, RECEIPT_KEY, vfs=disk.name)
    ledger.apply([OpenCustomer("C-1", "asha", bytes(32), 5_000)], NOW)
    check_opens_again("bank", disk.files, ledger)
    ledger._connection.wal_checkpoint()
    damaged = disk.files["ledger"].replace((5_000).to_bytes(2), (5_001).to_bytes(2))
    with breaks(Invariant.I8, "does not open again: ledger is damaged: posting 2"):
        check_opens_again("bank", {"ledger": damaged}, ledger)
    ledger.close()
    disk.close()


def test_i8_an_audit_that_finds_something() -> None:
    refuse_findings("BANK1", [])
    finding = Finding("ledger.sqlite", "posting", "7", "is not what was written", "what was written")
    with breaks(Invariant.I8, "the audit of BANK1 has 1 findings; the first: ledger.sqlite: posting 7"):
        refuse_findings("BANK1", [finding])


def test_i9_a_payment_without_a_definite_answer(story: Story) -> None:
    story.authorise(story.terms(1))
    story.tell(1, Outcome.UNKNOWN, text="Money may have moved.")
    with breaks(Invariant.I9, "no definite answer"):
        story.finish_clients()


def test_i9_a_payment_that_stays_in_flight(story: Story) -> None:
    story.begin(1)
    with breaks(Invariant.I9, "still in flight"):
        story.finish_gateway()


def test_i9_a_payment_that_is_final_too_late(story: Story) -> None:
    payment = story.begin(1)
    sent_hash, terms = payment.envelope_hash, payment.terms
    changes = {"outcome": TransferOutcome.FENCED, "reason": Reason.FENCED, "utr": ""}
    fenced = story.apply(story.ledger.put(story.statement(1, sent_hash, terms, **changes)))
    story.settle(payment, fenced, NOW_MS + 90_000)
    story.finish_gateway()
    story.store.all_payments = [replace(story.store.all_payments[0], ended_ms=NOW_MS + 90_001)]
    with breaks(Invariant.I9, "was final 1 ms too late"):
        story.finish_gateway()


def test_i10_what_a_core_still_holds() -> None:
    bank = BankCore(BANK_ID, b"keys", lambda gateway_id: None)
    check_bank_core(bank, 0)
    bank._under_way[(GATEWAY_ID, b"p")] = 1
    with breaks(Invariant.I10, "the bank still holds 1 of _under_way"):
        check_bank_core(bank, 0)
    gateway = GatewayCore(GatewayIdentity(GATEWAY_ID, BANK_ID, b"k" * 32), bytes, lambda: 0.5)
    check_gateway_core(GATEWAY_ID, gateway, 0)
    gateway.link_connected(1, ("127.0.0.1", 1), NOW)
    check_gateway_core(GATEWAY_ID, gateway, 1)
    with breaks(Invariant.I10, "and has 0 connections"):
        check_gateway_core(GATEWAY_ID, gateway, 0)


def test_i10_files_that_stay_open() -> None:
    with breaks(Invariant.I10, "3 files open"):
        check_disk("bank", SimpleNamespace(_handles={1, 2, 3}))  # type: ignore[arg-type]


def test_authority_a_debit_that_nobody_authorised(story: Story) -> None:
    statement = story.statement(1, envelope_hash(b"a stranger's"), story.terms(1))
    with breaks(Invariant.AUTHORITY, "nobody authorised"):
        story.apply(story.ledger.put(statement))


def test_authority_a_debit_under_altered_terms(story: Story) -> None:
    sent_hash = story.authorise(story.terms(1))
    altered = story.statement(1, sent_hash, story.terms(1, amount_minor=1))
    with breaks(Invariant.AUTHORITY, "nobody authorised"):
        story.apply(story.ledger.put(altered))


@pytest.mark.parametrize("apart_ms", [-300_001, 300_001])
def test_authority_a_debit_long_after_the_yes(story: Story, apart_ms: int) -> None:
    with breaks(Invariant.AUTHORITY, "300001 ms from the bank's time"):
        story.pay(1, authorised_at_ms=NOW_MS + apart_ms)


def test_authority_a_token_that_was_withdrawn(story: Story) -> None:
    story.model.token_cancelled(GATEWAY_ID, "TX-1")
    with breaks(Invariant.AUTHORITY, "was begun, and its token was withdrawn"):
        story.begin(1)


def test_authority_a_token_that_was_called_over(story: Story) -> None:
    story.check(PASSCODE, TokenStatus.EXPIRED)
    with breaks(Invariant.AUTHORITY, "was begun, and its token is over"):
        story.begin(1)


def test_authority_a_token_whose_time_is_over(story: Story) -> None:
    story.model.token_issued(GATEWAY_ID, replace(story.store.all_tokens["TX-1"], expires_ms=NOW_MS))
    with breaks(Invariant.AUTHORITY, "was begun, and its token is over"):
        story.begin(1)


def test_authority_a_locked_token_whose_passcode_is_looked_at(story: Story) -> None:
    for count in range(1, 6):
        story.store.all_tokens["TX-1"] = replace(story.store.all_tokens["TX-1"], wrong_passcode_count=count)
        story.check("wrong", TokenStatus.INVALID)
    story.check(PASSCODE, TokenStatus.LOCKED, later_ms=1)
    with breaks(Invariant.AUTHORITY, "token TX-1 is locked"):
        story.check(PASSCODE, TokenStatus.VALID, later_ms=899_999)
    story.store.all_tokens["TX-1"] = replace(story.store.all_tokens["TX-1"], wrong_passcode_count=0)
    story.check(PASSCODE, TokenStatus.VALID, later_ms=900_000)


def test_authority_a_token_that_is_shown_under_another_name(story: Story) -> None:
    token = story.store.all_tokens["TX-1"]
    told = TokenAck(
        *(TokenStatus.VALID, b"s" * 16, 30_000, token.merchant_id, "Another", token.amount_minor, token.currency),
        *(GATEWAY_ID, BANK_ID, ""),
    )
    story.model.gateway_told(GATEWAY_ID, replace(told, merchant_name=token.merchant_name), "TX-1")
    with breaks(Invariant.AUTHORITY, "not how it was issued"):
        story.model.gateway_told(GATEWAY_ID, told, "TX-1")


def test_authority_a_debit_with_a_wrong_password(story: Story) -> None:
    sent_hash = story.authorise(story.terms(1), password_is_right=False)
    with breaks(Invariant.AUTHORITY, "wrong password"):
        story.apply(story.ledger.put(story.statement(1, sent_hash, story.terms(1))))


def test_authority_a_debit_of_somebody_else(story: Story) -> None:
    with breaks(Invariant.AUTHORITY, "somebody else"):
        story.pay(1, debited=3)


def test_authority_a_locked_account_pays(story: Story) -> None:
    for number in (1, 2, 3):
        story.ledger.count_failures(number)
        story.decline(number, Reason.CREDENTIALS, password_is_right=False)
    story.ledger.count_failures(0)
    with breaks(Invariant.AUTHORITY, "a locked account"):
        story.pay(4)


def test_cause_a_decline_without_one(story: Story) -> None:
    for reason in (Reason.FUNDS, Reason.TOKEN_ALREADY_PAID, Reason.TERMS, Reason.CREDENTIALS):
        with breaks(Invariant.CAUSE):
            Story().decline(1, reason)


def test_liveness_a_payment_that_just_does_not_happen(story: Story) -> None:
    story.authorise(story.terms(1))
    story.tell(1, Outcome.REFUSED)
    story.finish_clients()
    with breaks(Invariant.LIVENESS, "ended as refused"):
        story.finish_clients(is_faultless=True)
