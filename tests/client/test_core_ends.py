"""Time running out, broken links, questions afterwards, and every state with every event."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from builders import (
    GATEWAY_ID,
    PASSCODE,
    PASSWORD,
    RECEIPT_KEY,
    TRANSACTION_ID,
    USER_ID,
    UTR,
    build_key_list,
    build_signed_key_list,
    build_statement,
    build_terms,
)
from client_world import PAYMENT_ID, ROOT, World
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scripted_gateway import keys, proven, unproven

from paygate.client.core import ANSWER_MS, POLL_MS, QUESTION_MS, RECONNECT_DELAYS_MS
from paygate.client.effects import Connect, Disconnect, KeepSerial, Send, StartSession
from paygate.client.payment import REFUSAL_ASKED_MS, Outcome, Payment, PaymentResult, PaymentState
from paygate.client.states import TRANSITIONS, Event, State
from paygate.client.verdict import IN_FLIGHT_MS_MAX
from paygate.codec import limits
from paygate.codec.codes import PaymentStatus, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode, LocalProtocolError
from paygate.codec.messages import EncryptedCredentials, Error, StatusAck, StatusQuery
from paygate.codec.seal import key_id_of, sign_receipts
from paygate.codec.sealed import ReceiptKey

# -- the end of the session (R10) --------------------------------------------------------------------------


def _connecting(world: World) -> World:
    world.perform(world.core.start(world.now))
    return world


def _sealing(world: World) -> World:
    world.seals = False
    return world.acknowledge().authorise()


def _saving(world: World) -> World:
    world.saves = False
    return world.acknowledge().authorise()


def _opening(world: World) -> World:
    world.perform(world.core.start(world.now))
    world.core.connected(world.now)  # the gateway never gets the hello
    return world


REACHED: dict[State, Callable[[World], World]] = {
    State.CONNECTING: _connecting,
    State.OPENING: _opening,
    State.ASKING: World.connect,
    State.ACKNOWLEDGED: World.acknowledge,
    State.SEALING: _sealing,
    State.SAVING: _saving,
    State.SENT: World.send,
    State.RECONNECTING: lambda world: world.send().lose_link(),
    State.ASKING_STATUS: lambda world: world.send().lose_link().connect(),
    State.ENDED: lambda world: world.acknowledge().time_up(),
}
SENT_STATES = (State.SENT, State.RECONNECTING, State.ASKING_STATUS)
UNSENT_STATES = tuple(s for s in State if s not in (*SENT_STATES, State.ENDED))


@pytest.mark.pg("PG-CLI-1", "PG-SES-1")
@pytest.mark.parametrize("state", UNSENT_STATES)
def test_time_up_before_sending_says_that_no_money_has_moved(state: State) -> None:
    world = REACHED[state](World())
    world.expect_state(state)
    world.time_up().expect_unsent(Outcome.TIMED_OUT)
    if world.saved:
        assert world.saved[-1].state is PaymentState.NOT_FORWARDED


@pytest.mark.pg("PG-CLI-4", "PG-SES-1")
@pytest.mark.parametrize("state", SENT_STATES)
def test_time_up_after_sending_says_that_money_may_have_moved(state: State) -> None:
    world = REACHED[state](World())
    world.expect_state(state)
    world.time_up()
    world.expect(
        Outcome.UNKNOWN,
        "Session ended after 30 seconds; the payment was sent; its outcome is not known yet. Money may have moved. "
        f"Ask with: paygate-client status {PAYMENT_ID.hex()}",
    )
    assert world.result.money_may_have_moved
    assert world.saved[-1].state is PaymentState.PENDING


def test_what_comes_after_the_end_changes_nothing() -> None:
    world = World().send().time_up()
    result = world.result
    assert world.core.receive_data(b"anything", world.now) == []
    assert world.core.sealed(b"late", world.now) == []
    assert world.core.saved(world.now) == []
    assert world.core.time_up(world.now) == []
    assert world.core.cancel(world.now) == []
    assert world.core.connected(world.now) == [Disconnect()]
    assert world.result is result


def test_an_outcome_that_could_not_be_written_down_is_told_all_the_same() -> None:
    world = World().send()
    world.saves = False
    world.reply(proven(world.payment))
    world.core.save_failed("the disk is full", world.now)
    world.expect(Outcome.PAID, UTR, "the disk is full")


def test_cancelling_before_sending() -> None:
    world = World().acknowledge()
    world.perform(world.core.cancel(world.now))
    world.expect_unsent(Outcome.CANCELLED)
    assert world.effects[-1] == Disconnect()


# -- broken links ------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-CLI-1")
@pytest.mark.parametrize("state", UNSENT_STATES)
def test_a_link_lost_before_sending_ends_the_session(state: State) -> None:
    world = REACHED[state](World()).lose_link()
    world.expect_unsent(Outcome.NO_CONNECTION, "The connection to the gateway ended.")
    if world.saved:
        assert world.saved[-1].state is PaymentState.NOT_FORWARDED


@pytest.mark.pg("PG-TIM-5")
def test_a_gateway_that_does_not_answer_the_query_is_given_up() -> None:
    world = World().connect()
    world.pass_time(ANSWER_MS)
    world.expect_unsent(Outcome.NO_CONNECTION, "does not answer")


def test_a_gateway_that_refuses_the_query() -> None:
    world = World().connect()
    world.reply(Error(ErrorCode.SHUTTING_DOWN, closes=False, text="going down"))
    world.expect_unsent(Outcome.NO_CONNECTION, "going down")


def test_garbage_from_the_gateway_is_answered_with_an_error_and_ends_the_link() -> None:
    world = World().connect()
    world.perform(world.core.receive_data(b"HTTP/1.1 400 Bad Request\r\n\r\n", world.now))
    world.expect_unsent(Outcome.NO_CONNECTION, "bad magic")
    assert [type(e) for e in world.effects[-2:]] == [Send, Disconnect]


def test_a_stream_that_ends_is_a_lost_link() -> None:
    world = World().acknowledge()
    world.perform(world.core.receive_eof(world.now))
    world.expect_unsent(Outcome.NO_CONNECTION, "end of stream")


@pytest.mark.pg("PG-CLI-2")
def test_lost_after_sending_then_paid_by_status() -> None:
    world = World().send().lose_link()
    world.expect_state(State.RECONNECTING)
    connects = world.count(Connect)
    world.pass_time(RECONNECT_DELAYS_MS[0])
    assert world.count(Connect) == connects + 1
    world.connect()
    assert not [e for e in world.gateway.asked if isinstance(e.message, EncryptedCredentials)], "sent twice"
    world.reply(keys(build_signed_key_list()))
    assert world.gateway.request(StatusQuery) == StatusQuery(PAYMENT_ID, TRANSACTION_ID, PASSCODE)
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.PAID, UTR)


@pytest.mark.pg("PG-CLI-2")
def test_reconnecting_backs_off_and_goes_on_until_the_session_ends() -> None:
    bounds = [*RECONNECT_DELAYS_MS, *[RECONNECT_DELAYS_MS[-1]] * 4]
    told = []
    for seed in (1, 2):
        world = World(seed=seed).send().lose_link()
        waits = []
        for _ in bounds:
            deadline_ms = world.core.next_deadline_ms()
            assert deadline_ms is not None
            waits.append(deadline_ms - world.now.mono_ms)
            world.pass_time(waits[-1])
            world.lose_link()
        assert all(bound // 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
        world.time_up().expect(Outcome.UNKNOWN)
        told.append(waits)
    assert told[0] != told[1]  # two clients of one lost gateway don't come back at the same instants


def test_an_open_answer_is_asked_again_once_a_second_until_there_is_a_final_one() -> None:
    world = World().send().lose_link().connect().reply(keys(build_signed_key_list()))
    for _ in range(3):
        world.reply(unproven(world.payment, PaymentStatus.PENDING, cls=StatusAck))
        world.expect_state(State.ASKING_STATUS)
        world.pass_time(POLL_MS - 1)
        assert not world.gateway.asked
        world.pass_time(1)
        assert world.gateway.request(StatusQuery).payment_id == PAYMENT_ID
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.PAID)


def test_pending_is_asked_again_on_the_same_link_and_unknown_at_the_end() -> None:
    world = World().send()
    world.reply(unproven(world.payment, PaymentStatus.PENDING))
    world.expect_state(State.ASKING_STATUS)
    world.pass_time(POLL_MS)
    assert world.gateway.request(StatusQuery).payment_id == PAYMENT_ID
    world.time_up().expect(Outcome.UNKNOWN)
    assert world.saved[-1].state is PaymentState.PENDING


@pytest.mark.pg("PG-CLI-3", "PG-ERR-1", "PG-ERR-8")
def test_an_error_in_place_of_an_answer_says_nothing_of_the_payment() -> None:
    world = World().send()
    world.reply(Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text=""))
    world.expect_state(State.ASKING_STATUS)
    for code in (ErrorCode.SHUTTING_DOWN, ErrorCode.TOO_MANY_REQUESTS):  # nor does one in answer to a status query
        world.pass_time(POLL_MS)
        world.reply(Error(code, closes=False, text=""))
        world.expect_state(State.ASKING_STATUS)
    assert world.saved[-1].state is PaymentState.PENDING
    world.pass_time(POLL_MS)
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.PAID)


@pytest.mark.pg("PG-ERR-8")
@pytest.mark.parametrize("code", [ErrorCode.INTERNAL, ErrorCode.IDLE_TIMEOUT, ErrorCode.TOO_MANY_CONNECTIONS])
def test_an_error_that_closes_leaves_a_sent_payment_in_doubt_and_a_new_link_is_tried(code: ErrorCode) -> None:
    world = World().send()
    connects = world.count(Connect)
    world.gateway.link.fail(code)
    world.receive(world.gateway.link.data_to_send())
    world.expect_state(State.RECONNECTING)
    world.pass_time(RECONNECT_DELAYS_MS[0])
    assert world.count(Connect) == connects + 1
    world.connect().reply(keys(build_signed_key_list()))
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.PAID)


def test_a_status_query_without_an_answer_breaks_the_link() -> None:
    world = World().send().lose_link().connect().reply(keys(build_signed_key_list()))
    disconnects = world.count(Disconnect)
    world.pass_time(ANSWER_MS)
    world.expect_state(State.RECONNECTING)
    assert world.count(Disconnect) == disconnects + 1


# -- a question about an earlier payment -------------------------------------------------------------------


def asked(payment: Payment | None = None, *, later_ms: int = 0, signed_key_list: bytes | None = None) -> World:
    """A question, sent some time after its payment."""
    world = World(question=payment or World().send().payment)
    world.pass_time(later_ms)
    world.connect()
    return world.reply(keys(signed_key_list or build_signed_key_list()))


def test_a_question_brings_the_outcome_and_writes_it_down() -> None:
    world = asked(later_ms=3_600_000)
    assert StartSession(QUESTION_MS) in world.effects
    assert world.gateway.request(StatusQuery) == StatusQuery(PAYMENT_ID, TRANSACTION_ID, PASSCODE)
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.PAID, UTR)
    assert [p.state for p in world.saved] == [PaymentState.PAID]


def test_a_question_asks_once() -> None:
    world = asked()
    world.reply(unproven(world.payment, PaymentStatus.PENDING, cls=StatusAck))
    world.expect(Outcome.UNKNOWN, "has not answered the gateway yet")
    assert not world.saved


@pytest.mark.pg("PG-PAY-11")
def test_a_payment_that_the_gateway_does_not_know_is_refused_by_its_word_once_its_session_is_over() -> None:
    over_ms = limits.SESSION_MS + IN_FLIGHT_MS_MAX
    early = asked(later_ms=over_ms - 1)
    early.reply(unproven(early.payment, PaymentStatus.UNKNOWN, cls=StatusAck)).expect(Outcome.UNKNOWN, "on its way")
    late = asked(later_ms=over_ms)
    late.reply(unproven(late.payment, PaymentStatus.UNKNOWN, cls=StatusAck))
    late.expect(Outcome.REFUSED, "it does not know the payment", "without the bank's proof")
    assert late.result.money_may_have_moved
    assert late.saved[-1].state is PaymentState.REFUSED


def refused() -> Payment:
    """A payment that was sent, and refused by the gateway's word."""
    world = World().send()
    world.reply(unproven(world.payment, PaymentStatus.REFUSED, Reason.SESSION)).expect(Outcome.REFUSED)
    return world.saved[-1]


def paid() -> Payment:
    """A payment with its receipt."""
    world = World().send()
    world.reply(proven(world.payment)).expect(Outcome.PAID)
    return world.saved[-1]


def unsent() -> Payment:
    """A payment that was written down and never sent."""
    return _saving(World()).time_up().saved[-1]


@pytest.mark.pg("PG-CLI-4", "PG-PAY-11")
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, PaymentState.PAID),
        ({"outcome": TransferOutcome.DECLINED, "reason": Reason.FUNDS, "utr": ""}, PaymentState.DECLINED),
    ],
)
def test_a_receipt_that_comes_after_a_refusal_wins(changes: dict[str, object], state: PaymentState) -> None:
    world = asked(refused())
    world.reply(proven(world.payment, StatusAck, **changes))
    assert world.result.outcome.value == state.value
    assert world.result.receipt
    assert [p.state for p in world.saved] == [state]


def test_a_refusal_repeated_stays_unproven_and_is_no_news() -> None:
    # The gateway keeps no record of what it refused, so it does not know it; at once, not when the session is over.
    world = asked(refused())
    world.reply(unproven(world.payment, PaymentStatus.UNKNOWN, cls=StatusAck))
    world.expect(Outcome.REFUSED, "it does not know the payment")
    assert world.result.money_may_have_moved
    assert not world.saved
    assert world.payment.reason is Reason.SESSION


def test_a_refused_payment_is_open_for_a_day_a_pending_one_for_ever_and_a_settled_one_never() -> None:
    payment = refused()
    sent_ms = payment.terms.authorised_at_ms
    assert payment.is_open(sent_ms + REFUSAL_ASKED_MS - 1)
    assert not payment.is_open(sent_ms + REFUSAL_ASKED_MS)
    # T7: a clock set back only makes it ask longer.
    assert payment.is_open(sent_ms - REFUSAL_ASKED_MS)
    assert World().send().payment.is_open(sent_ms + 365 * REFUSAL_ASKED_MS)
    for settled in (paid(), unsent()):
        assert not settled.is_open(sent_ms)


def test_no_later_word_of_a_gateway_takes_a_receipt_away() -> None:
    payment = paid()
    world = World(question=payment)
    world.perform(world.core.start(world.now))
    world.expect(Outcome.PAID, UTR)
    assert world.result.receipt == payment.receipt
    assert world.count(Connect) == 0
    assert not world.saved
    claim = PaymentResult(Outcome.REFUSED, "the gateway's word")
    assert payment.after(claim, world.now.wall_ms) is payment


@pytest.mark.pg("PG-RCP-6")
@pytest.mark.parametrize("after_ms", [1, 3_600_000])  # the posting stands between the two
def test_a_receipt_under_a_list_newer_than_its_payment_is_shown_again_from_the_record(after_ms: int) -> None:
    payment = paid()
    new_list = build_signed_key_list(serial=8, valid_from_ms=payment.terms.authorised_at_ms + after_ms)
    world = World(question=replace(payment, signed_key_list=new_list))
    world.perform(world.core.start(world.now))
    world.expect(Outcome.PAID, UTR)


def test_a_settled_record_that_was_changed_proves_nothing() -> None:
    payment = paid()
    for changed in (
        replace(payment, terms=replace(payment.terms, amount_minor=1)),
        replace(payment, receipt=payment.receipt[:-1]),
        replace(payment, state=PaymentState.DECLINED, reason=Reason.FUNDS, utr=""),
        replace(payment, signed_key_list=build_signed_key_list(bank_id="BANK2")),
    ):
        world = World(question=changed)
        world.perform(world.core.start(world.now))
        world.expect(Outcome.UNTRUSTED, "record of this payment was changed", "Restore the record from a backup")
        assert "Ask with" not in world.result.text  # The answer would be the same for ever.
        assert world.result.money_may_have_moved


def test_a_payment_that_was_never_sent_is_final_without_asking_anybody() -> None:
    payment = unsent()
    assert payment.state is PaymentState.NOT_FORWARDED
    world = World(question=payment)
    world.perform(world.core.start(world.now))
    world.expect(Outcome.NOT_FORWARDED, "never sent; no money has moved")
    assert not world.result.money_may_have_moved
    assert not payment.money_may_have_moved
    assert world.count(Connect) == 0


@pytest.mark.pg("PG-STA-2")
@pytest.mark.parametrize("reason", [Reason.PASSCODE, Reason.TOKEN_LOCKED, Reason.STORE_UNAVAILABLE])
def test_a_refused_question_says_nothing_of_the_payment(reason: Reason) -> None:
    world = asked()
    world.reply(unproven(world.payment, PaymentStatus.REFUSED, reason, cls=StatusAck))
    world.expect(Outcome.UNKNOWN, "did not answer the question")
    assert world.result.money_may_have_moved
    assert not world.saved


@pytest.mark.pg("PG-RCP-6")
def test_a_receipt_signed_with_a_key_that_came_after_the_payment_is_checked_with_the_new_list() -> None:
    new_key = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
    public_key = new_key.public_key().public_bytes_raw()
    new_list = build_signed_key_list(serial=8, receipt_keys=(ReceiptKey(key_id_of(public_key), public_key),))
    world = asked(signed_key_list=new_list)
    assert KeepSerial(ROOT, 8) in world.effects
    statement = build_statement(
        receipt_key_id=key_id_of(public_key), terms=world.payment.terms, envelope_hash=world.payment.envelope_hash
    )
    receipt = sign_receipts(new_key, [statement])[0]
    world.reply(unproven(world.payment, PaymentStatus.PAID, utr=UTR, receipt=receipt, cls=StatusAck))
    world.expect(Outcome.PAID)
    assert world.saved[-1].signed_key_list == new_list


def test_a_question_without_a_gateway_leaves_the_payment_open() -> None:
    world = World(question=World().send().payment)
    world.perform(world.core.start(world.now))
    world.lose_link().expect(Outcome.NO_CONNECTION, "Money may have moved.")
    assert world.result.money_may_have_moved
    assert not world.saved


def test_a_question_ends_in_time() -> None:
    asked().time_up().expect(Outcome.UNKNOWN, "did not answer within 10 seconds")


def test_a_payment_record_with_other_keys_is_not_asked_for() -> None:
    payment = replace(World().send().payment, signed_key_list=build_signed_key_list(bank_id="BANK2"))
    world = World(question=payment)
    world.perform(world.core.start(world.now))
    world.expect(Outcome.UNTRUSTED, "record of this payment was changed", "Restore the record from a backup")
    assert "Ask with" not in world.result.text  # The answer would be the same for ever.
    assert world.count(Connect) == 0


def test_a_receipt_key_that_is_not_in_the_list_proves_nothing() -> None:
    assert key_id_of(RECEIPT_KEY.public_key().public_bytes_raw()) == build_statement().receipt_key_id
    other = replace(build_key_list(), receipt_keys=(ReceiptKey(bytes(8), bytes(32)),))
    payment = World().send().payment
    world = asked(
        replace(payment, signed_key_list=build_signed_key_list(receipt_keys=other.receipt_keys)),
        signed_key_list=build_signed_key_list(receipt_keys=other.receipt_keys),
    )
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.UNTRUSTED)


# -- the table ---------------------------------------------------------------------------------------------

PUBLIC_EVENTS: dict[Event, Callable[[World], object]] = {
    Event.CONNECTED: lambda w: w.core.connected(w.now),
    Event.LOST: lambda w: w.core.connection_lost("gone", w.now),
    Event.AUTHORISED: lambda w: w.core.authorise(USER_ID, PASSWORD, PAYMENT_ID, w.now),
    Event.CANCELLED: lambda w: w.core.cancel(w.now),
    Event.SEALED: lambda w: w.core.sealed(b"envelope", w.now),
    Event.SEAL_FAILED: lambda w: w.core.seal_failed("gone", w.now),
    Event.SAVED: lambda w: w.core.saved(w.now),
    Event.SAVE_FAILED: lambda w: w.core.save_failed("full", w.now),
    Event.TIME_UP: lambda w: w.core.time_up(w.now),
}


def test_every_state_is_in_the_table_and_every_event_leads_somewhere() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    assert build_terms().gateway_id == GATEWAY_ID


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_of_state_and_event(state: State, event: Event) -> None:
    world = REACHED[state](World())
    world.expect_state(state)
    expected = TRANSITIONS[state].get(event)
    # What comes by the link is walked through the table itself; all else as a shell would tell it.
    tell: Callable[[World], object] = PUBLIC_EVENTS.get(event, lambda w: w.core._step(event))
    if expected is None:
        with pytest.raises(LocalProtocolError):
            tell(world)
        world.expect_state(state)
    else:
        tell(world)
        world.expect_state(expected)
        if expected is State.ENDED and event in PUBLIC_EVENTS:
            assert world.result.text
