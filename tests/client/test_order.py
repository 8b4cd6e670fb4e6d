"""What is paid is what was acknowledged: the order by itself, without a session."""

from dataclasses import replace

import pytest
from builders import (
    BANK_ID,
    NOW_MS,
    PASSCODE,
    PASSWORD,
    TRANSACTION_ID,
    USER_ID,
    build_key_list,
    build_signed_key_list,
    build_token_ack,
)
from client_world import PAYMENT_ID, ROOT
from scripted_gateway import keys

from paygate.client.order import BadInput, Order
from paygate.client.payment import Outcome
from paygate.client.verdict import TrustedKeys
from paygate.clock import Now
from paygate.codec.codes import KemId, KeysStatus
from paygate.codec.messages import BankKeys
from paygate.codec.seal import BadKeyList, envelope_hash

NOW = Now(1_000, NOW_MS)
TRUSTED = TrustedKeys(build_signed_key_list(), build_key_list())


def build_order(kem_id: KemId | None = None) -> Order:
    return Order(root=ROOT, gateway="127.0.0.1:15000", transaction_id=TRANSACTION_ID, passcode=PASSCODE, kem_id=kem_id)


@pytest.mark.pg("PG-PAY-1")
def test_the_payment_is_of_the_token_that_was_accepted_and_of_the_last_authorisation() -> None:
    order, token = build_order(), build_token_ack()
    assert order.maybe_refusal(token, keys(TRUSTED.signed)) is None
    order.accept(token, TRUSTED)
    order.authorise(USER_ID, PASSWORD, b"an earlier one..", Now(0, NOW_MS - 1))
    request = order.authorise(USER_ID, PASSWORD, PAYMENT_ID, NOW)
    payment = order.payment(b"envelope")
    assert payment.terms == request.terms
    assert (payment.payment_id, payment.terms.authorised_at_ms) == (PAYMENT_ID, NOW_MS)
    shown = (token.gateway_id, token.merchant_id, token.amount_minor, token.currency, token.session_id)
    terms = payment.terms
    assert (terms.gateway_id, terms.merchant_id, terms.amount_minor, terms.currency, terms.session_id) == shown
    assert (terms.bank_id, terms.transaction_id, payment.passcode) == (BANK_ID, TRANSACTION_ID, PASSCODE)
    assert payment.envelope_hash == envelope_hash(b"envelope")
    assert payment.key_id == request.suite_key.key_id
    assert payment.key_list() == TRUSTED.key_list


def test_bad_input_changes_nothing() -> None:
    order = build_order()
    order.accept(build_token_ack(), TRUSTED)
    order.authorise(USER_ID, PASSWORD, PAYMENT_ID, NOW)
    for user_id, password, word in (("", PASSWORD, "user ID: expected"), (USER_ID, "\x07", "password: expected")):
        with pytest.raises(BadInput, match=word) as error:
            order.authorise(user_id, password, b"another payment.", NOW)
        assert "\x07" not in str(error.value)
    assert order.payment(b"envelope").payment_id == PAYMENT_ID


def test_another_bank_and_missing_keys_are_refused() -> None:
    order, token = build_order(), build_token_ack()
    for refused, answer, outcome in (
        (replace(token, bank_id="BANK2"), keys(TRUSTED.signed), Outcome.UNTRUSTED),
        (token, BankKeys(KeysStatus.UNAVAILABLE, b""), Outcome.REFUSED),
    ):
        result = order.maybe_refusal(refused, answer)
        assert result is not None
        assert (result.outcome, result.money_may_have_moved) == (outcome, False)


def test_a_suite_that_was_asked_for_is_taken_or_nothing_is() -> None:
    order = build_order(KemId.X25519)
    order.accept(build_token_ack(), TRUSTED)
    assert order.authorise(USER_ID, PASSWORD, PAYMENT_ID, NOW).suite_key.kem_id is KemId.X25519
    others = tuple(key for key in TRUSTED.key_list.suite_keys if key.kem_id is not KemId.X25519)
    with pytest.raises(BadKeyList):
        build_order(KemId.X25519).accept(
            build_token_ack(), replace(TRUSTED, key_list=replace(TRUSTED.key_list, suite_keys=others))
        )
