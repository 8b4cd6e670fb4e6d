"""Doubt that ends: the same payment sent again, a refusal that no time can turn any more, another payment's receipt."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import UTR, build_signed_key_list, build_terms
from client_world import PAYMENT_ID, World
from scripted_gateway import keys, proven, unproven

from paygate.client.core import POLL_MS, Core
from paygate.client.effects import StartSession
from paygate.client.payment import BANK_TAKES_MS_MAX, Outcome, Payment, PaymentState
from paygate.client.payment_file import payment_from_json, payment_to_json
from paygate.client.pending import PendingStore
from paygate.client.states import State
from paygate.client.verdict import AGAIN_IS_SAFE, IN_FLIGHT_MS_MAX, settled_by
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import PaymentStatus, Reason
from paygate.codec.messages import EncryptedCredentials, StatusAck, StatusQuery


class Again(World):
    """A client that was started after a crash and goes on with a payment."""

    def __init__(self, payment: Payment, *, later_ms: int = 0) -> None:
        super().__init__(question=payment)
        self.core = Core.again(payment, serial_min=0, randomness=self.core._randomness)
        self.pass_time(later_ms)

    def ask(self) -> "Again":
        self.connect().reply(keys(build_signed_key_list()))
        return self


def crashed() -> tuple[Payment, EncryptedCredentials]:
    """What a client that died behind its credentials left on disk, and what had left."""
    world = World().send()
    return payment_from_json(payment_to_json(world.saved[-1])), world.gateway.request(EncryptedCredentials)


def unknown(world: World) -> World:
    return world.reply(unproven(world.payment, PaymentStatus.UNKNOWN, cls=StatusAck))


# -- sending again -----------------------------------------------------------------------------------------


@pytest.mark.pg("PG-CLI-2", "PG-ENV-6")
def test_credentials_that_got_lost_with_their_link_are_sent_again_byte_for_byte() -> None:
    world = World().send()
    first = world.gateway.request(EncryptedCredentials)
    world.lose_link().connect().reply(keys(build_signed_key_list()))
    assert world.gateway.request(StatusQuery).payment_id == PAYMENT_ID  # it asks before it sends
    unknown(world).expect_state(State.SENT)
    assert world.gateway.request(EncryptedCredentials) == first
    world.reply(proven(world.payment)).expect(Outcome.PAID, UTR)
    assert [p.state for p in world.saved] == [PaymentState.PENDING, PaymentState.PAID]


@pytest.mark.pg("PG-CLI-2")
def test_a_link_that_breaks_again_and_again_sends_again_as_often_and_time_ends_it() -> None:
    world = World().send()
    for _ in range(3):
        world.lose_link().connect().reply(keys(build_signed_key_list()))
        unknown(world).expect_state(State.SENT)
    world.time_up().expect(Outcome.UNKNOWN, AGAIN_IS_SAFE)
    assert world.saved[-1].state is PaymentState.PENDING


def test_a_payment_that_the_gateway_has_is_not_sent_again() -> None:
    world = World().send().lose_link().connect().reply(keys(build_signed_key_list()))
    world.reply(unproven(world.payment, PaymentStatus.PENDING, cls=StatusAck)).expect_state(State.ASKING_STATUS)
    assert not [e for e in world.gateway.asked if isinstance(e.message, EncryptedCredentials)]


@pytest.mark.pg("PG-STA-1", "PG-CLI-2")
def test_after_a_crash_status_only_asks_and_retry_sends_the_same_bytes() -> None:
    payment, first = crashed()
    status = World(question=payment).connect().reply(keys(build_signed_key_list()))
    unknown(status).expect(Outcome.UNKNOWN, "may still be on its way", AGAIN_IS_SAFE)
    assert not status.gateway.asked

    again = Again(payment).ask()
    assert StartSession(limits.SESSION_MS) in again.effects
    unknown(again).expect_state(State.SENT)
    assert again.gateway.request(EncryptedCredentials) == first
    again.reply(proven(again.payment)).expect(Outcome.PAID, UTR)
    assert [p.state for p in again.saved] == [PaymentState.PAID]


def test_retry_waits_for_the_outcome_of_a_payment_that_is_under_way() -> None:
    again = Again(crashed()[0]).ask()
    for _ in range(3):
        again.reply(unproven(again.payment, PaymentStatus.PENDING, cls=StatusAck))
        again.pass_time(POLL_MS)
    again.reply(proven(again.payment, StatusAck)).expect(Outcome.PAID, UTR)


def test_retry_tells_when_no_final_answer_came() -> None:
    again = Again(crashed()[0]).ask().time_up()
    again.expect(Outcome.UNKNOWN, "did not give a final answer within 30 seconds", AGAIN_IS_SAFE)


@pytest.mark.pg("PG-SES-2")
def test_nothing_is_sent_again_once_its_session_is_over() -> None:
    payment, _ = crashed()
    assert payment.credentials(payment.session_end_ms - 1) is not None
    assert payment.credentials(payment.session_end_ms) is None
    again = Again(payment, later_ms=limits.SESSION_MS).ask()
    unknown(again).expect_state(State.ASKING_STATUS)  # it may be on its way for some seconds more
    assert not again.gateway.asked
    again.pass_time(IN_FLIGHT_MS_MAX)
    unknown(again).expect(Outcome.REFUSED, "it does not know the payment")


@pytest.mark.pg("PG-STA-1", "PG-CLI-2")
def test_a_payment_that_a_wrong_clock_put_into_the_future_is_not_waited_for() -> None:
    payment, _ = crashed()
    status = World(question=payment)
    again = Again(payment)
    for world in (status, again):
        world.now = Now(world.now.mono_ms, payment.terms.authorised_at_ms - 1)
        world.connect().reply(keys(build_signed_key_list()))
        unknown(world)
    status.expect(Outcome.REFUSED, "it does not know the payment", "Ask again with", AGAIN_IS_SAFE)
    again.expect_state(State.SENT)  # Its session may still last, so the same bytes may be sent again.


# -- how long the envelope is kept (R4) --------------------------------------------------------------------


def test_the_envelope_goes_with_the_doubt_or_with_its_session(tmp_path: Path) -> None:
    payment, _ = crashed()
    refused, paid = World().send(), World().send()
    refused.reply(unproven(payment, PaymentStatus.REFUSED, Reason.SESSION))
    paid.reply(proven(paid.payment))
    for ended in (refused, paid):
        assert ended.saved[0].envelope
        assert not ended.saved[-1].envelope
        assert ended.saved[-1].key_id == bytes(limits.KEY_ID_SIZE)
    store = PendingStore(tmp_path / "client")
    store.create()
    store.save(payment)
    other = replace(payment.without_envelope(), terms=build_terms(payment_id=b"another payment.", transaction_id="T"))
    store.save(other)
    assert store.load_of_token("T") == [other]
    assert store.load_of_token("TX-100") == []
    store.forget_envelopes(payment.session_end_ms - 1)
    assert store.load(payment.payment_id) == payment
    store.forget_envelopes(payment.session_end_ms)
    assert store.load(payment.payment_id) == payment.without_envelope()


def test_an_envelope_that_was_changed_or_is_out_of_place_is_refused(tmp_path: Path) -> None:
    payment, _ = crashed()
    for bad in (
        replace(payment, envelope=payment.envelope[:-1]),
        replace(payment, state=PaymentState.REFUSED),
    ):
        with pytest.raises(ValueError, match="envelope: expected the one whose hash the record has"):
            payment_from_json(payment_to_json(bad))


def test_a_record_of_the_format_before_is_read_and_has_nothing_to_send_again() -> None:
    payment, _ = crashed()
    fields = json.loads(payment_to_json(payment))
    del fields["key_id"], fields["envelope"]
    fields["format"] = "paygate payment 1"
    assert payment_from_json(json.dumps(fields).encode()) == payment.without_envelope()


# -- when a refusal is as good as final (PG-CLI-5) ---------------------------------------------------------


@pytest.mark.pg("PG-CLI-5")
@pytest.mark.parametrize("state", [PaymentState.PENDING, PaymentState.REFUSED])
def test_a_payment_that_the_gateway_does_not_know_is_told_as_not_paid_once_the_bank_takes_it_no_more(
    state: PaymentState,
) -> None:
    payment = replace(crashed()[0].without_envelope(), state=state)
    until = "2026-01-02T00:10:00.000Z"
    early, late = (World(question=payment) for _ in range(2))
    early.pass_time(BANK_TAKES_MS_MAX - 1)
    late.pass_time(BANK_TAKES_MS_MAX)
    for world in (early, late):
        unknown(world.connect().reply(keys(build_signed_key_list()))).expect(
            Outcome.REFUSED, "That is its word, without the bank's proof", AGAIN_IS_SAFE
        )
        assert world.result.money_may_have_moved  # T8: a word is never a proof
    assert f"The bank takes it until {until} at the latest. Ask again with" in early.result.text
    assert f"Since {until} the bank takes it no more, so by that word it is not paid and will not be." in (
        late.result.text
    )


def test_who_must_not_pay_again_is_not_told_to() -> None:
    world = World().send()
    world.reply(unproven(world.payment, PaymentStatus.REFUSED, Reason.TOKEN_PAID, utr=UTR))
    world.expect(Outcome.REFUSED, "do not pay again")
    assert AGAIN_IS_SAFE not in world.result.text


# -- another payment of the token (T5) ---------------------------------------------------------------------


def paid_by_another(**terms: object) -> Payment:
    """Another payment of the token, with the bank's receipt."""
    world = World().send()
    payment = replace(world.payment, terms=build_terms(**{"payment_id": b"another payment.", **terms}))
    world.core.payment = payment
    world.reply(proven(payment)).expect(Outcome.PAID)
    return world.saved[-1]


def test_a_receipt_for_another_payment_of_the_token_settles_an_open_one() -> None:
    payment, _ = crashed()
    other = paid_by_another()
    result = settled_by(payment, [payment, other])
    assert result is not None
    assert result.outcome is Outcome.NOT_POSTED
    assert not result.money_may_have_moved
    after = payment.after(result, 1)
    assert (after.state, after.is_settled, after.envelope) == (PaymentState.NOT_POSTED, True, b"")
    again = World(question=after)
    again.perform(again.core.start(again.now))
    again.expect(Outcome.NOT_POSTED, "another payment of this token is paid")


def test_nothing_less_settles_it() -> None:
    payment, _ = crashed()
    for others in (
        [payment],
        [paid_by_another(transaction_id="TX-OTHER")],
        [paid_by_another(gateway_id="GW2")],  # a bank tells tokens apart by gateway as well
        [replace(paid_by_another(), state=PaymentState.REFUSED, receipt=b"")],
        [replace(paid_by_another(), envelope_hash=bytes(32))],  # whose receipt does not hold
        [replace(paid_by_another(), root=replace(payment.root, public_key=b"o" * 32))],
    ):
        assert settled_by(payment, others) is None
