"""Audits of whole stores, and of the two sides against each other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audit.pair import KEY_LIST, Pair
from bank_books import WRONG_VERIFIER
from builders import GATEWAY_ID

from paygate.audit.exports import ExportedPayment
from paygate.audit.findings import Check, Finding
from paygate.audit.reconcile import Reconciliation
from paygate.codec.codes import TransferOutcome


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


def counts(checks: list[Check]) -> dict[str, int]:
    return {check.name: check.count for check in checks}


def used(pair: Pair) -> None:
    """Four payments paid, one declined, one fenced, one in flight; wrong passcodes and passwords."""
    for number in (1, 2, 3):
        pair.pay(number)
    early = pair.begin(4)
    pair.pay(5, opened=None, verifier=WRONG_VERIFIER)
    fenced = pair.begin(6)
    pair.settle(fenced, pair.fence(fenced))
    pair.settle(early, pair.decide(early))
    pair.begin(7)
    pair.issue(8)
    pair.try_passcode(8, "wrong")


def test_stores_that_are_whole_have_no_findings_and_are_counted(pair: Pair) -> None:
    used(pair)
    assert pair.findings() == []
    bank, gateway = counts(pair.books.ledger.audit(KEY_LIST)), counts(pair.store.audit())
    assert (bank["payments"], bank["postings"], bank["accounts"]) == (6, 16, 5)
    assert (bank["UTRs"], bank["transfers"], bank["receipts"]) == (4, 4, 6)
    assert (gateway["payments"], gateway["tokens"], gateway["changed tokens"]) == (6, 8, 1)
    assert (gateway["outcomes"], gateway["payments in flight"], gateway["paid payments"]) == (6, 1, 4)
    reconciled = pair.reconcile()
    assert list(reconciled.findings()) == []
    assert reconciled.count == 7
    assert len(reconciled.remarks) == 1
    assert "is not known to the bank, which will fence it" in reconciled.remarks[0]


def reconciled(pair: Pair, at_bank: list[ExportedPayment], at_gateway: list[ExportedPayment]) -> list[Finding]:
    return list(Reconciliation(at_bank, at_gateway, KEY_LIST).findings())


def exports(pair: Pair) -> tuple[list[ExportedPayment], list[ExportedPayment]]:
    return pair.books.ledger.exported_payments(GATEWAY_ID), pair.store.exported_payments()


def test_what_was_posted_and_is_in_flight_at_the_gateway_will_be_resolved(pair: Pair) -> None:
    pair.decide(pair.begin(1))
    reconciliation = pair.reconcile()
    assert list(reconciliation.findings()) == []
    assert "is POSTED at the bank: will be resolved" in reconciliation.remarks[0].replace("and is", "is")


@pytest.mark.parametrize(("lost_at", "holder"), [("gateway", "bank"), ("bank", "gateway")])
def test_a_payment_that_one_side_lost_is_found_and_the_other_has_proof(pair: Pair, lost_at: str, holder: str) -> None:
    used(pair)
    at_bank, at_gateway = exports(pair)
    lost = at_bank[1] if lost_at == "gateway" else at_gateway[1]
    {"bank": at_bank, "gateway": at_gateway}[lost_at].remove(lost)
    (finding,) = reconciled(pair, at_bank, at_gateway)
    assert finding.row == lost.payment_id.hex()
    assert finding.file == f"the {lost_at}'s payments"
    assert f"is missing, and POSTED at the {holder}" in finding.problem
    assert finding.remedy.startswith(f"the {holder} has proof")


@pytest.mark.parametrize(
    ("changes", "problem", "has_proof"),
    [
        ({"outcome": "DECLINED", "utr": ""}, "is POSTED at the bank and DECLINED at the gateway", "bank"),
        ({"outcome": "MISMATCH", "utr": "", "receipt": b""}, None, None),
        ({"amount_minor": 1}, "has another amount_minor", "bank"),
        ({"utr": "PGBKP12026010299999999"}, "has another utr", "bank"),
        ({"merchant_id": "M-200"}, "has another merchant_id", "bank"),
        ({"envelope_hash": bytes(32)}, "has another envelope_hash", "bank"),
        ({"receipt": b"receipt"}, "has another receipt", "bank"),
    ],
    ids=["outcome", "mismatch", "amount", "utr", "merchant", "envelope", "receipt"],
)
def test_whatever_differs_is_found(
    pair: Pair, changes: dict[str, object], problem: str | None, has_proof: str | None
) -> None:
    used(pair)
    at_bank, at_gateway = exports(pair)
    at_gateway[2] = replace(at_gateway[2], **changes)  # type: ignore[arg-type]
    found = reconciled(pair, at_bank, at_gateway)
    if problem is None:  # The bank knows the payment ID, as the gateway says.
        assert found == []
        return
    (finding,) = found
    assert problem in finding.problem
    assert finding.remedy.startswith(f"the {has_proof} has proof")


def test_without_a_key_list_nobody_is_said_to_have_proof(pair: Pair) -> None:
    pair.pay(1)
    at_bank, _ = exports(pair)
    (finding,) = Reconciliation(at_bank, [], None).findings()
    assert finding.remedy == "no key list to tell who has proof"


def test_what_one_side_says_twice_is_found(pair: Pair) -> None:
    used(pair)
    at_bank, at_gateway = exports(pair)
    other = replace(at_bank[0], payment_id=b"q" * 16)
    found = reconciled(pair, [*at_bank, other, at_bank[1]], [*at_gateway, other])
    assert [f.problem for f in found] == [
        f"has the UTR {other.utr} of payment {at_bank[0].payment_id.hex()}, which is paid too",
        f"has the token TX-1 of payment {at_bank[0].payment_id.hex()}, which is paid too",
        "stands there twice",
        f"has the UTR {other.utr} of payment {at_bank[0].payment_id.hex()}, which is paid too",
        f"has the token TX-1 of payment {at_bank[0].payment_id.hex()}, which is paid too",
    ]
    assert {p.outcome for p in at_bank} == {o.name for o in TransferOutcome if o.is_final}
