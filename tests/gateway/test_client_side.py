"""What clients ask, with the real store: tokens, payments that end well or badly, repeats."""

from typing import Any

import pytest
from builders import BANK_ID, FIXED_ENVELOPE, GATEWAY_ID, MERCHANT_ID, NOW_MS, TRANSACTION_ID, UTR, build_terms
from gateway.troubles import TROUBLES, refused
from gateway.world import World, payment_id

from paygate.codec import limits
from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import PaymentAck
from paygate.files.sqlite import StoreFsyncFailed
from paygate.gateway.effects import RefusalRecord
from paygate.gateway.tokens import Payment, Token, TokenState

NO_SESSION = bytes(limits.SESSION_ID_SIZE)


# -- tokens (R1, R2, R3) ---------------------------------------------------------------------------------


@pytest.mark.pg("PG-SES-1")
def test_a_valid_token_opens_a_session(world: World) -> None:
    ack = world.connect_client().query_token()
    assert ack.status is TokenStatus.VALID
    assert ack.session_id != NO_SESSION
    assert ack.session_left_ms == 30_000
    assert (ack.merchant_id, ack.merchant_name) == (MERCHANT_ID, "Bücher & Töchter")
    assert (ack.amount_minor, ack.currency) == (125_000, "INR")
    assert (ack.gateway_id, ack.bank_id, ack.utr) == (GATEWAY_ID, BANK_ID, "")


@pytest.mark.parametrize(
    ("token", "status"),
    [
        ({"state": TokenState.PAID, "utr": UTR}, TokenStatus.PAID),
        ({"state": TokenState.CANCELLED}, TokenStatus.EXPIRED),
        ({"state": TokenState.EXPIRED}, TokenStatus.EXPIRED),
        ({"expires_ms": NOW_MS}, TokenStatus.EXPIRED),
    ],
)
def test_a_token_that_can_not_be_paid_opens_none(world: World, token: dict[str, Any], status: TokenStatus) -> None:
    world.issue(transaction_id="TX-2", **token)
    ack = world.connect_client().query_token("TX-2")
    assert (ack.status, ack.session_id, ack.session_left_ms) == (status, NO_SESSION, 0)
    assert (ack.merchant_id, ack.utr) == (MERCHANT_ID, token.get("utr", ""))


def test_a_token_in_flight_opens_none(world: World) -> None:
    client = world.connect_client()
    client.pay()
    assert world.token().state is TokenState.IN_FLIGHT
    ack = client.query_token()
    assert (ack.status, ack.session_id, ack.session_left_ms) == (TokenStatus.IN_FLIGHT, NO_SESSION, 0)
    assert (ack.merchant_id, ack.utr) == (MERCHANT_ID, "")


@pytest.mark.parametrize("transaction_id", [TRANSACTION_ID, "TX-unknown"])
def test_a_guesser_learns_nothing_of_the_token(world: World, transaction_id: str) -> None:
    client = world.connect_client()
    acks = [client.query_token(transaction_id, "wrong") for _ in range(6)]
    assert [ack.status for ack in acks] == [TokenStatus.INVALID] * 5 + [TokenStatus.LOCKED]
    for ack in acks:
        assert (ack.session_id, ack.merchant_id, ack.merchant_name, ack.amount_minor) == (NO_SESSION, "", "", 0)


@pytest.mark.pg("PG-TOK-1")
def test_an_unknown_transaction_and_a_wrong_passcode_are_answered_with_the_same_bytes(world: World) -> None:
    client = world.connect_client()
    frames: list[bytes] = []
    receive = client.receive

    def noted(data: bytes) -> None:
        frames.append(data)
        receive(data)

    client.receive = noted  # type: ignore[method-assign]  # what comes is looked at on its way
    client.query_token(passcode="wrong")
    client.query_token("TX-unknown")
    wrong, unknown = frames
    assert (wrong[:8], wrong[20:]) == (unknown[:8], unknown[20:])  # all but correlation ID and checksum


@pytest.mark.pg("PG-STA-2", "PG-TOK-2")
@pytest.mark.parametrize("transaction_id", [TRANSACTION_ID, "TX-unknown"])
def test_queries_of_token_and_status_count_wrong_passcodes_together(world: World, transaction_id: str) -> None:
    client = world.connect_client()
    for _ in range(2):
        assert client.query_token(transaction_id, "wrong").status is TokenStatus.INVALID
        assert client.query_status(payment_id("first"), transaction_id, "wrong").reason is Reason.PASSCODE
    assert client.query_token(transaction_id, "wrong").status is TokenStatus.INVALID
    assert client.query_token(transaction_id).status is TokenStatus.LOCKED
    assert client.query_status(payment_id("first"), transaction_id).reason is Reason.TOKEN_LOCKED
    world.advance(15 * 60_000 - 1)
    assert world.connect_client().query_token(transaction_id).status is TokenStatus.LOCKED
    world.advance(1)
    unlocked = TokenStatus.VALID if transaction_id == TRANSACTION_ID else TokenStatus.INVALID
    assert world.connect_client().query_token(transaction_id).status is unlocked


@pytest.mark.pg("PG-ENC-8")
def test_a_transaction_id_is_compared_byte_by_byte(world: World) -> None:
    assert world.connect_client().query_token(TRANSACTION_ID.lower()).status is TokenStatus.INVALID


def test_a_token_seen_to_be_expired_is_recorded(world: World) -> None:
    world.issue(transaction_id="TX-2", expires_ms=NOW_MS)
    world.connect_client().query_token("TX-2")
    assert [token.state for token in world.told(Token)] == [TokenState.EXPIRED]


# -- payments (R5 to R9) ---------------------------------------------------------------------------------


def test_a_payment_that_is_posted(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    question = client.pay(session)

    transfer = world.bank.transfers[0]
    assert transfer.terms == build_terms(payment_id=payment_id("first"), session_id=session)
    assert (transfer.envelope, transfer.time_left_ms) == (FIXED_ENVELOPE, 20_000)
    assert client.query_token().status is TokenStatus.IN_FLIGHT

    receipt = world.bank.post(transfer)
    assert client.told_payment(question) == PaymentAck(
        payment_id("first"), PaymentStatus.PAID, Reason.NONE, UTR, receipt
    )
    assert (world.token().state, world.token().utr) == (TokenState.PAID, UTR)
    ack = client.query_token()
    assert (ack.status, ack.utr) == (TokenStatus.PAID, UTR)
    assert [payment.outcome for payment in world.told(Payment)] == [None, TransferOutcome.POSTED]
    assert [token.state for token in world.told(Token)] == [TokenState.IN_FLIGHT, TokenState.PAID]


@pytest.mark.pg("PG-ERR-1")
@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        *((TransferOutcome.DECLINED, reason) for reason in Reason if reason.is_banks and reason is not Reason.FENCED),
        (TransferOutcome.FENCED, Reason.FENCED),
    ],
)
def test_a_payment_that_is_declined(world: World, outcome: TransferOutcome, reason: Reason) -> None:
    client = world.connect_client()
    question = client.pay()
    receipt = world.bank.answer(world.bank.transfers[0], outcome, reason)
    assert client.told_payment(question) == PaymentAck(payment_id("first"), PaymentStatus.DECLINED, reason, "", receipt)
    assert world.token().state is TokenState.UNPAID
    # The customer may try again at once, with a new payment.
    client.pay(name="second")
    world.bank.post(world.bank.transfers[1])
    assert world.token().state is TokenState.PAID


def test_the_banks_mismatch_is_told_as_a_refusal_and_to_the_operator(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.bank.answer(world.bank.transfers[0], TransferOutcome.MISMATCH)
    assert client.told_payment(question) == refused("first", Reason.PAYMENT_MISMATCH)
    assert world.token().state is TokenState.UNPAID
    assert any("other terms" in line for line in world.logged())


@pytest.mark.pg("PG-PAY-3")
def test_nothing_is_sent_for_a_payment_before_it_is_durable(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    world.trace.clear()
    client.pay(session)
    assert world.trace == ["BeginPayment applied", "transfer sent"]


@pytest.mark.pg("PG-PAY-3")
def test_a_payment_that_may_not_be_durable_goes_nowhere(world: World) -> None:
    client = world.connect_client()
    question = client.send_credentials(client.query_token().session_id)
    world.disk.fsync_fails = True
    with pytest.raises(StoreFsyncFailed):  # T31: the process stops here
        world.settle()
    assert (world.bank.transfers, question in client.replies) == ([], False)


@pytest.mark.pg("PG-PAY-9")
def test_a_result_is_not_told_before_it_is_durable(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.disk.fsync_fails = True
    with pytest.raises(StoreFsyncFailed):
        world.bank.post(world.bank.transfers[0])
    assert question not in client.replies


@pytest.mark.pg("PG-TOK-3")
def test_two_clients_race_for_one_token(world: World) -> None:
    clients = [world.connect_client(), world.connect_client()]
    sessions = [client.query_token().session_id for client in clients]
    # Both arrive in the same tick, and so in the same transaction.
    questions = [c.send_credentials(s, n) for c, s, n in zip(clients, sessions, ("first", "second"), strict=True)]
    world.settle()
    assert len(world.bank.transfers) == 1
    assert clients[1].told_payment(questions[1]) == refused("second", Reason.TOKEN_IN_FLIGHT)
    assert [(r.terms.payment_id, r.reason) for r in world.told(RefusalRecord)] == [
        (payment_id("second"), Reason.TOKEN_IN_FLIGHT)
    ]
    world.bank.post(world.bank.transfers[0])
    late = clients[1].pay(sessions[1], "second")
    assert clients[1].told_payment(late) == refused("second", Reason.TOKEN_PAID, UTR)
    assert len(world.bank.transfers) == 1


def test_a_token_that_expires_during_the_session_is_not_paid_and_its_record_says_so(world: World) -> None:
    world.issue(transaction_id="TX-2", expires_ms=NOW_MS + 5_000)
    client = world.connect_client()
    session = client.query_token("TX-2").session_id
    world.advance(5_000)
    question = client.pay(session)
    assert client.told_payment(question) == refused("first", Reason.TOKEN_WITHDRAWN)
    assert [token.state for token in world.told(Token)] == [TokenState.EXPIRED]


# -- repeats ---------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-PAY-5")
def test_a_repeat_waits_with_the_first(world: World) -> None:
    client, another = world.connect_client(), world.connect_client()
    session = client.query_token().session_id
    first, second = client.pay(session), client.pay(session)
    third = another.pay(session)
    assert len(world.bank.transfers) == 1
    world.bank.post(world.bank.transfers[0])
    assert client.told(first) == client.told(second) == another.told(third)
    assert client.told_payment(first).status is PaymentStatus.PAID
    assert len(world.told(Payment)) == 2


@pytest.mark.pg("PG-PAY-5")
def test_a_repeat_of_a_finished_payment_gets_the_same_bytes(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    first = client.pay(session)
    world.bank.post(world.bank.transfers[0])
    again = client.pay(session)
    assert client.told(first) == client.told(again)
    assert len(world.bank.transfers) == 1


@pytest.mark.pg("PG-PAY-6")
def test_a_payment_id_with_another_envelope_is_a_mismatch(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    first = client.pay(session)
    other = client.pay(session, envelope=b"other")
    assert client.told_payment(other) == refused("first", Reason.PAYMENT_MISMATCH)
    assert client.told_payment(client.pay(session, authorised_at_ms=NOW_MS + 1)) == client.told_payment(other)
    assert first not in client.replies
    assert len(world.bank.transfers) == 1
    world.bank.post(world.bank.transfers[0])
    assert client.told_payment(first).status is PaymentStatus.PAID


# Every refusal says that no money can have moved, so none of them may meet the repeat of a payment that was begun.


@pytest.mark.pg("PG-PAY-8")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_repeat_of_a_payment_in_flight_is_never_refused(world: World, trouble: Any) -> None:
    session = world.connect_client().query_token().session_id
    world.connect_client().pay(session)
    trouble(world)
    client = world.connect_client()
    question = client.pay(session)
    if question in client.replies:
        assert client.told_payment(question).status is PaymentStatus.PENDING


@pytest.mark.pg("PG-PAY-8")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_repeat_of_a_paid_payment_is_answered_as_paid(world: World, trouble: Any) -> None:
    first = world.connect_client()
    session = first.query_token().session_id
    question = first.pay(session)
    world.bank.post(world.bank.transfers[0])
    trouble(world)
    client = world.connect_client()
    assert client.told(client.pay(session)) == first.told(question)


@pytest.mark.pg("PG-PAY-6")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_payment_id_of_another_session_is_a_mismatch_in_any_trouble(world: World, trouble: Any) -> None:
    client = world.connect_client()
    sessions = [client.query_token().session_id for _ in range(2)]
    client.pay(sessions[0])
    trouble(world)
    client = world.connect_client()
    assert client.told_payment(client.pay(sessions[1])).reason is Reason.PAYMENT_MISMATCH
