"""What is refused before anything is durable, what a full disk refuses, and what a status query is told."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from builders import PASSCODE, TRANSACTION_ID, UTR
from failing_disk import FailingDisk
from gateway.troubles import bank_is_away, disk_is_full, gateway_drains, gateway_restarts, refused, session_is_over
from gateway.world import World, payment_id

from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import StatusAck, StatusQuery, TokenQuery
from paygate.gateway.effects import RefusalRecord
from paygate.gateway.tokens import TokenState

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
