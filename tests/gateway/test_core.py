"""The gateway's mind with its real store: tokens, payments that end well or badly, and whom it tells what."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from builders import (
    BANK_ID,
    FIXED_ENVELOPE,
    GATEWAY_ID,
    MERCHANT_ID,
    NOW_MS,
    PASSCODE,
    TRANSACTION_ID,
    UTR,
    build_signed_key_list,
    build_terms,
)
from gateway.failing_disk import FailingDisk
from gateway.world import ADDRESS, Client, World, hash_of, payment_id

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Error,
    PaymentAck,
    StatusAck,
    StatusQuery,
    TokenQuery,
    TransferRequest,
)
from paygate.files.sqlite import StoreFsyncFailed
from paygate.gateway.bank_side import KEY_LIST_REFRESH_MS
from paygate.gateway.effects import ConnectionRecord, RefusalRecord
from paygate.gateway.tokens import Payment, Token, TokenState
from paygate.link_states import TURN_FRAME_COUNT_MAX

NO_SESSION = bytes(limits.SESSION_ID_SIZE)


def refused(payment: str, reason: Reason, utr: str = "") -> PaymentAck:
    return PaymentAck(payment_id(payment), PaymentStatus.REFUSED, reason, utr, b"")


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


def bank_is_away(world: World) -> None:
    world.cut(world.bank)


def gateway_drains(world: World) -> None:
    world.effects += world.core.drain(world.now)


def session_is_over(world: World) -> None:
    world.advance(28_000)


def gateway_restarts(world: World) -> None:
    world.restart()


def disk_is_full(world: World) -> None:
    world.disk.is_full = True


TROUBLES = [bank_is_away, gateway_drains, session_is_over, gateway_restarts, disk_is_full]


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


# -- refused before anything is durable ------------------------------------------------------------------


@pytest.mark.pg("PG-PAY-7", "PG-SES-2")
@pytest.mark.parametrize(
    ("trouble", "reason", "is_recorded"),
    [
        (bank_is_away, Reason.BANK_UNREACHABLE, True),
        (gateway_drains, Reason.DRAINING, True),
        (session_is_over, Reason.SESSION, True),
        (gateway_restarts, Reason.SESSION, False),  # without its session nobody knows whose payment it is
        (disk_is_full, Reason.STORE_UNAVAILABLE, True),
    ],
)
def test_a_new_payment_is_refused(world: World, trouble: Any, reason: Reason, is_recorded: bool) -> None:
    session = world.connect_client().query_token().session_id
    bank = world.bank
    trouble(world)
    world.disk.sync_count = 0
    client = world.connect_client()
    question = client.pay(session)
    assert client.told_payment(question) == refused("first", reason)
    assert [r.reason for r in world.told(RefusalRecord)] == [reason] * is_recorded
    assert (world.payment_count(), world.disk.sync_count) == (0, 0)
    assert bank.transfers == []
    assert world.token().state is TokenState.UNPAID


REASONS = {
    gateway_drains: Reason.DRAINING,
    session_is_over: Reason.SESSION,
    bank_is_away: Reason.BANK_UNREACHABLE,
    disk_is_full: Reason.STORE_UNAVAILABLE,
}
"""In the order in which they are told, if several are true (spec 6.3)."""


@pytest.mark.pg("PG-PAY-7")
@pytest.mark.parametrize(("first", "second"), list(combinations(REASONS, 2)))
def test_of_two_troubles_the_first_is_told(world: World, first: Any, second: Any) -> None:
    session = world.connect_client().query_token().session_id
    second(world)
    first(world)
    client = world.connect_client()
    assert client.told_payment(client.pay(session)) == refused("first", REASONS[first])


@pytest.mark.pg("PG-PAY-7")
def test_a_gateway_that_drains_says_so_of_a_session_that_it_has_forgotten_too(world: World) -> None:
    session = world.connect_client().query_token().session_id
    world.advance(31_000)
    gateway_drains(world)
    client = world.connect_client()
    assert client.told_payment(client.pay(session)) == refused("first", Reason.DRAINING)


@pytest.mark.pg("PG-SES-2")
def test_the_last_moment_of_a_session(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    world.advance(27_999)
    question = client.pay(session)
    assert world.bank.transfers[0].time_left_ms == 1
    world.advance(1)
    assert client.told_payment(question).status is PaymentStatus.PENDING


@pytest.mark.pg("PG-SES-3")
@pytest.mark.parametrize(
    ("waited_ms", "time_left_ms"), [(0, 20_000), (5_000, 20_000), (10_000, 15_000), (24_000, 2_000), (27_000, 500)]
)
def test_the_bank_has_what_the_session_leaves(world: World, waited_ms: int, time_left_ms: int) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    world.advance(waited_ms)
    client.pay(session)
    assert world.bank.transfers[0].time_left_ms == time_left_ms
    world.advance(time_left_ms - 1)
    assert world.bank.resolves == []
    world.advance(1)
    assert len(world.bank.resolves) == 1


@pytest.mark.pg("PG-SES-3")
def test_even_the_shortest_session_leaves_the_bank_some_time(tmp_path: Path, disk: FailingDisk) -> None:
    world = World(tmp_path, disk, session_ms=3_000)
    world.issue()
    world.connect_bank()
    client = world.connect_client()
    assert client.query_token().session_left_ms == 3_000
    client.pay()
    assert world.bank.transfers[0].time_left_ms == 500
    world.store.close()


# -- a full disk (T30) -----------------------------------------------------------------------------------


@pytest.mark.pg("PG-TOK-5")
def test_a_full_disk_refuses_new_work_and_answers_the_rest(world: World) -> None:
    world.issue(transaction_id="TX-2")
    client = world.connect_client()
    paid = client.pay()
    world.bank.post(world.bank.transfers[0])
    session = client.query_token("TX-2").session_id
    world.disk.is_full = True
    # All of it in one tick, and so in one batch.
    new = client.send_credentials(session, "second")
    status = client.ask(StatusQuery(payment_id("first"), TRANSACTION_ID, PASSCODE))
    good = client.ask(TokenQuery("TX-2", PASSCODE))
    guess = client.ask(TokenQuery("TX-2", "wrong"))
    world.settle()
    assert client.told_payment(new) == refused("second", Reason.STORE_UNAVAILABLE)
    assert client.told(status) == StatusAck(
        payment_id("first"), PaymentStatus.PAID, Reason.NONE, UTR, client.told_payment(paid).receipt
    )
    assert client.told(good).status is TokenStatus.VALID
    # A guess that can't be counted is not answered (T16).
    assert client.told(guess).code is ErrorCode.TOO_MANY_REQUESTS

    world.disk.is_full = False
    client.pay(session, "second")
    world.bank.post(world.bank.transfers[1])
    assert world.token("TX-2").state is TokenState.PAID


@pytest.mark.pg("PG-PAY-9")
def test_an_outcome_that_finds_the_disk_full_comes_again(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.disk.is_full = True
    world.bank.post(world.bank.transfers[0])
    assert question not in client.replies
    world.disk.is_full = False
    world.advance(20_000)
    world.bank.post(world.bank.resolves[0])
    assert client.told_payment(question).status is PaymentStatus.PAID


# -- status ----------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-STA-3")
def test_status_of_each_kind_of_payment(world: World) -> None:
    client = world.connect_client()
    first = payment_id("first")
    assert client.query_status(first) == StatusAck(first, PaymentStatus.UNKNOWN, Reason.NONE, "", b"")
    client.pay()
    assert client.query_status(first) == StatusAck(first, PaymentStatus.PENDING, Reason.NONE, "", b"")
    declined = world.bank.answer(world.bank.transfers[0], TransferOutcome.DECLINED, Reason.FUNDS)
    assert client.query_status(first) == StatusAck(first, PaymentStatus.DECLINED, Reason.FUNDS, "", declined)
    client.pay(name="second")
    receipt = world.bank.post(world.bank.transfers[1])
    second = payment_id("second")
    assert client.query_status(second) == StatusAck(second, PaymentStatus.PAID, Reason.NONE, UTR, receipt)
    assert client.query_status(first).status is PaymentStatus.DECLINED
    wrong = client.query_status(second, passcode="wrong")
    assert wrong == StatusAck(second, PaymentStatus.REFUSED, Reason.PASSCODE, "", b"")
    for _ in range(4):
        client.query_status(second, passcode="wrong")
    assert client.query_status(second).reason is Reason.TOKEN_LOCKED
    assert len(world.bank.transfers) == 2  # to ask never moves money


def test_status_of_a_mismatch(world: World) -> None:
    client = world.connect_client()
    client.pay()
    world.bank.answer(world.bank.transfers[0], TransferOutcome.MISMATCH)
    answer = client.query_status(payment_id("first"))
    assert (answer.status, answer.reason) == (PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)


@pytest.mark.pg("PG-STA-1")
def test_to_ask_for_a_status_changes_nothing_and_asks_nobody(world: World) -> None:
    client = world.connect_client()
    world.issue(transaction_id="TX-2")
    first, second = payment_id("first"), payment_id("second")

    def ask_all() -> None:
        before = (list(world.store.tokens()), list(world.store.payments()))
        asked = (len(world.bank.transfers), len(world.bank.resolves))
        for of in (first, second, payment_id("none")):
            for transaction_id in (TRANSACTION_ID, "TX-2"):
                client.query_status(of, transaction_id)
        assert (list(world.store.tokens()), list(world.store.payments())) == before
        assert (len(world.bank.transfers), len(world.bank.resolves)) == asked

    ask_all()
    client.pay()
    ask_all()
    world.bank.answer(world.bank.transfers[0], TransferOutcome.DECLINED, Reason.FUNDS)
    ask_all()
    client.pay(name="second")
    ask_all()
    world.bank.post(world.bank.transfers[1])
    ask_all()


@pytest.mark.pg("PG-STA-3")
def test_the_payment_of_another_token_is_not_known(world: World) -> None:
    world.issue(transaction_id="TX-2")
    client = world.connect_client()
    client.pay()
    world.bank.post(world.bank.transfers[0])
    first = payment_id("first")
    assert client.query_status(first, "TX-2") == StatusAck(first, PaymentStatus.UNKNOWN, Reason.NONE, "", b"")


# -- keys, sessions, connections -------------------------------------------------------------------------


def ask_keys(client: Client, bank_id: str = BANK_ID) -> BankKeys:
    question = client.ask(BankKeysQuery(bank_id))
    client.world.settle()
    answer = client.told(question)
    assert isinstance(answer, BankKeys)
    return answer


@pytest.mark.pg("PG-KEY-1", "PG-KEY-2")
def test_the_key_list_is_relayed_byte_for_byte_and_kept_while_the_bank_is_away(world: World) -> None:
    client = world.connect_client()
    expected = BankKeys(KeysStatus.AVAILABLE, build_signed_key_list())
    assert ask_keys(client) == expected
    world.cut(world.bank)
    assert ask_keys(client) == expected
    assert ask_keys(client, "OTHER") == BankKeys(KeysStatus.UNKNOWN_BANK, b"")


def test_there_is_no_key_list_before_the_bank_gave_one(world: World) -> None:
    world.restart()
    assert ask_keys(world.connect_client()) == BankKeys(KeysStatus.UNAVAILABLE, b"")


@pytest.mark.pg("PG-KEY-1")
def test_the_key_list_is_asked_for_again(world: World) -> None:
    assert world.bank.keys_query_count == 1
    world.bank.key_list = build_signed_key_list(serial=8)
    assert KEY_LIST_REFRESH_MS == 60_000
    world.advance(KEY_LIST_REFRESH_MS)
    assert world.bank.keys_query_count == 2
    assert ask_keys(world.connect_client()).signed_key_list == build_signed_key_list(serial=8)
    # A bank that has none to give takes nothing away.
    world.bank.key_list = b""
    world.advance(KEY_LIST_REFRESH_MS)
    assert ask_keys(world.connect_client()).signed_key_list == build_signed_key_list(serial=8)


def test_sessions_end_and_leave_nothing(world: World) -> None:
    world.connect_client().query_token()
    assert len(world.core._sessions) == 1
    world.advance(30_000)
    assert len(world.core._sessions) == 0


def test_of_too_many_sessions_the_oldest_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paygate.gateway.sessions.SESSION_COUNT_MAX", 2)
    client = world.connect_client()
    sessions = [client.query_token().session_id for _ in range(3)]
    assert client.told_payment(client.pay(sessions[0])).reason is Reason.SESSION
    client.pay(sessions[2])
    assert len(world.bank.transfers) == 1


def test_every_connection_is_recorded(world: World) -> None:
    client = world.connect_client()
    world.cut(client)
    world.effects += world.core.link_refused(ADDRESS, "too many connections", world.now)
    at = world.now.wall_ms
    assert world.told(ConnectionRecord) == [
        ConnectionRecord(at, "connected", client.link_id, ADDRESS),
        ConnectionRecord(at, "disconnected", client.link_id, ADDRESS, "reset by peer"),
        ConnectionRecord(at, "refused", 0, ADDRESS, "too many connections"),
    ]


@pytest.mark.pg("PG-LNK-15")
def test_a_client_that_breaks_the_protocol_is_closed_and_the_others_never_notice(world: World) -> None:
    good, bad = world.connect_client(), world.connect_client()
    world.on_its_way.append((bad.link_id, b"GET / HTTP/1.1\r\n\r\n  "))
    question = good.ask(TokenQuery(TRANSACTION_ID, PASSCODE))
    world.settle()
    assert bad.close_reason == "protocol: bad magic at magic: expected the letters PG"
    assert good.told(question).status is TokenStatus.VALID
    assert any("broke the protocol" in line for line in world.logged())


def test_a_client_that_asks_what_only_gateways_ask_is_closed(world: World) -> None:
    client = world.connect_client()
    client.link._kinds_asked = frozenset({TransferRequest.kind})  # a client that is not ours
    client.ask(TransferRequest(build_terms(), 1_000, bytes(8), FIXED_ENVELOPE))
    world.settle()
    assert client.close_reason is not None
    assert "unexpected message" in client.close_reason


@pytest.mark.pg("PG-LNK-11", "PG-SES-5")
def test_the_answer_to_a_client_that_is_gone_is_lost_and_the_payment_is_not(world: World) -> None:
    client = world.connect_client()
    client.pay()
    world.cut(client)
    world.bank.post(world.bank.transfers[0])
    assert world.token().state is TokenState.PAID
    assert world.connect_client().query_status(payment_id("first")).status is PaymentStatus.PAID


@pytest.mark.pg("PG-LNK-11")
def test_what_was_received_whole_before_a_link_ended_is_served(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    client.send_credentials(session)
    # The request, garbage that closes the link, and the end of the stream: all in one tick.
    link_id, data = world.on_its_way.popleft()
    effects = world.core.receive_data(link_id, data + b"\0" * 20, world.now)
    effects += world.core.receive_eof(link_id, world.now)
    world._perform(effects)
    assert client.close_reason == "protocol: bad magic at magic: expected the letters PG"
    world.bank.post(world.bank.transfers[0])
    assert world.token().state is TokenState.PAID


# -- draining (R12) --------------------------------------------------------------------------------------


@pytest.mark.pg("PG-TOK-5")
def test_a_drain_takes_nothing_new_and_waits_for_whoever_waits(world: World) -> None:
    world.issue(transaction_id="TX-2")
    client = world.connect_client()
    question = client.pay()
    other_session = client.query_token("TX-2").session_id
    assert not world.core.is_drained
    gateway_drains(world)
    assert not world.core.is_drained
    query = client.ask(TokenQuery(TRANSACTION_ID, PASSCODE))
    world.settle()
    refusal = client.told(query)
    assert isinstance(refusal, Error)
    assert (refusal.code, client.is_connected) == (ErrorCode.SHUTTING_DOWN, True)
    assert client.told_payment(client.pay(other_session, "second")).reason is Reason.DRAINING
    assert client.query_status(payment_id("first")).status is PaymentStatus.PENDING
    world.bank.post(world.bank.transfers[0])
    assert client.told_payment(question).status is PaymentStatus.PAID
    assert world.core.is_drained


def test_a_drain_does_not_wait_for_a_payment_that_nobody_waits_for(world: World) -> None:
    client = world.connect_client()
    client.pay()
    gateway_drains(world)
    world.advance(28_000)
    assert world.core.is_drained  # the client was told PENDING; the next start resolves the payment
    world.cut(world.bank)
    assert not world.core.bank_is_wanted


@pytest.mark.pg("PG-TOK-3")
def test_requests_that_stand_in_one_segment_are_all_answered(world: World) -> None:
    client = world.connect_client()
    questions = [client.link.send_request(TokenQuery(TRANSACTION_ID, PASSCODE)) for _ in range(50)]
    client.push()
    world.tick()
    assert len(client.replies) == TURN_FRAME_COUNT_MAX  # R21: then others have their turn
    world.settle()
    assert len({client.told(q).session_id for q in questions}) == 50


@pytest.mark.pg("PG-PAY-2", "PG-TRM-1")
def test_the_terms_come_from_the_gateways_own_record(world: World) -> None:
    client = world.connect_client()
    client.pay()
    terms = replace(world.bank.transfers[0].terms, session_id=build_terms().session_id)
    assert terms == build_terms(payment_id=payment_id("first"))
    begun = next(iter(world.store.payments()))
    assert begun.envelope_hash == hash_of()


@pytest.mark.pg("PG-PAY-4")
def test_the_envelope_is_in_no_file(world: World) -> None:
    # R4: it is passed on and forgotten, before and after the bank's answer; only its hash is kept.
    client = world.connect_client()
    client.pay()
    for settle in (lambda: None, lambda: world.bank.post(world.bank.transfers[0]), world.store.close):
        settle()
        kept = b"".join(path.read_bytes() for path in world.directory.rglob("*") if path.is_file())
        assert hash_of() in kept
        for part in (FIXED_ENVELOPE, FIXED_ENVELOPE[:32], FIXED_ENVELOPE[-32:]):
            assert part not in kept
            assert part.hex().encode() not in kept
