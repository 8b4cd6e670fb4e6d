"""A payment in doubt: no answer, a lost link, a restart. It is asked about until the bank says what it became."""

from itertools import pairwise

import pytest
from builders import UTR, build_terms
from gateway.world import World, hash_of, payment_id

from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Error, ResolveRequest
from paygate.gateway.flights import RESOLVE_BACKOFF_BASE_MS, RESOLVE_BACKOFF_MS_MAX, Flights
from paygate.gateway.tokens import TokenState

FIRST = payment_id("first")


@pytest.mark.pg("PG-RES-4", "PG-RES-6")
def test_no_answer_for_20_seconds_is_asked_about(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.advance(19_999)
    assert world.bank.resolves == []
    world.advance(1)
    assert world.bank.resolves == [ResolveRequest(world.bank.transfers[0].terms, hash_of())]
    receipt = world.bank.answer(world.bank.resolves[0], TransferOutcome.FENCED, Reason.FENCED)
    answer = client.told_payment(question)
    assert (answer.status, answer.reason, answer.receipt) == (PaymentStatus.DECLINED, Reason.FENCED, receipt)
    assert world.token().state is TokenState.UNPAID
    world.advance(120_000)
    assert len(world.bank.resolves) == 1


def test_a_resolve_that_finds_the_money_moved(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.advance(20_000)
    world.bank.post(world.bank.resolves[0])
    assert client.told_payment(question).status is PaymentStatus.PAID
    # The transfer's own answer, later still, is the same news.
    world.bank.post(world.bank.transfers[0])
    assert world.token().state is TokenState.PAID


@pytest.mark.pg("PG-TOK-8", "PG-TRF-10")
def test_unavailable_is_doubt_and_is_asked_about_soon(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.bank.answer(world.bank.transfers[0], TransferOutcome.UNAVAILABLE)
    assert question not in client.replies
    assert world.token().state is TokenState.IN_FLIGHT
    world.advance(RESOLVE_BACKOFF_BASE_MS)
    assert len(world.bank.resolves) == 1
    world.bank.answer(world.bank.resolves[0], TransferOutcome.UNAVAILABLE)
    world.advance(2 * RESOLVE_BACKOFF_BASE_MS)
    assert len(world.bank.resolves) == 2
    world.bank.post(world.bank.resolves[1])
    assert client.told_payment(question).status is PaymentStatus.PAID


@pytest.mark.pg("PG-TOK-8")
def test_a_request_that_the_bank_refuses_with_an_error_is_in_doubt(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    busy = Error(code=ErrorCode.TOO_MANY_REQUESTS, closes=False, text="busy")
    world.bank.refuse(world.bank.transfers[0], busy)
    assert world.token().state is TokenState.IN_FLIGHT
    world.advance(20_000)
    world.bank.answer(world.bank.resolves[0], TransferOutcome.FENCED, Reason.FENCED)
    assert client.told_payment(question).reason is Reason.FENCED


@pytest.mark.pg("PG-RES-5", "PG-SES-4")
def test_pending_at_28_seconds_and_resolved_in_the_background(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.advance(27_999)
    assert question not in client.replies
    world.advance(1)
    answer = client.told_payment(question)
    assert (answer.status, answer.reason, answer.receipt) == (PaymentStatus.PENDING, Reason.NONE, b"")
    assert client.query_token().status is TokenStatus.IN_FLIGHT

    # Back-off: half of it fixed, half jitter, which is 0.5 here; never above the cap.
    world.advance(300_000)
    asked_ms = world.bank.resolved_at_ms
    waits_ms = [later - earlier for earlier, later in pairwise(asked_ms)]
    assert waits_ms[:5] == [750, 1_500, 3_000, 6_000, 12_000]
    assert set(waits_ms[5:]) == {RESOLVE_BACKOFF_MS_MAX * 3 // 4} == {22_500}
    assert len(waits_ms) > 12

    world.bank.post(world.bank.resolves[-1])
    assert world.token().state is TokenState.PAID
    assert world.connect_client().query_status(FIRST).status is PaymentStatus.PAID


@pytest.mark.pg("PG-RES-5")
@pytest.mark.parametrize("jitter", [0.0, 0.999_999])
def test_each_wait_is_spread_over_the_upper_half_of_its_bound(jitter: float) -> None:
    flights = Flights(lambda: jitter)
    flights.resume(build_terms(), hash_of(), now_ms=0)
    flights.resolve_all(now_ms=0)
    waits_ms = []
    for _ in range(8):
        now_ms = flights.next_deadline_ms()
        assert now_ms is not None
        assert [is_to_resolve for _, _, is_to_resolve in flights.take_due(now_ms)] == [True]
        again_ms = flights.next_deadline_ms()
        assert again_ms is not None
        waits_ms.append(again_ms - now_ms)
    bounds_ms = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
    ends_ms = [bound // 2 if jitter == 0 else bound - 1 for bound in bounds_ms]
    assert waits_ms == ends_ms


@pytest.mark.pg("PG-RES-4")
def test_a_lost_link_leaves_the_payment_in_doubt_until_it_is_back(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.cut(world.bank)
    assert world.core.bank_is_wanted
    world.advance(5_000)
    world.connect_bank()
    world.advance(0)
    assert [r.terms.payment_id for r in world.bank.resolves] == [FIRST]
    receipt = world.bank.post(world.bank.resolves[0])
    assert client.told_payment(question).receipt == receipt


@pytest.mark.pg("PG-TOK-8")
def test_a_bank_that_stays_away_leaves_it_pending(world: World) -> None:
    client = world.connect_client()
    question = client.pay()
    world.cut(world.bank)
    world.advance(28_000)
    assert client.told_payment(question).status is PaymentStatus.PENDING
    world.advance(3_600_000)
    assert world.token().state is TokenState.IN_FLIGHT
    world.connect_bank()
    world.advance(0)
    world.bank.answer(world.bank.resolves[0], TransferOutcome.DECLINED, Reason.FUNDS)
    assert world.token().state is TokenState.UNPAID


@pytest.mark.pg("PG-TRF-9")
def test_a_result_is_matched_by_payment_not_by_link_or_request(world: World) -> None:
    world.issue(transaction_id="TX-2")
    client = world.connect_client()
    first = client.pay()
    second = client.pay(client.query_token("TX-2").session_id, "second")
    # Replies overtake each other.
    world.bank.post(world.bank.transfers[1])
    assert client.told_payment(second).status is PaymentStatus.PAID
    assert first not in client.replies
    # The answer to one payment's resolving speaks of another one.
    world.cut(world.bank)
    world.connect_bank()
    world.advance(0)
    world.bank.answer(world.bank.resolves[0], TransferOutcome.DECLINED, Reason.FUNDS, of=FIRST)
    assert client.told_payment(first).reason is Reason.FUNDS


@pytest.mark.pg("PG-SES-5")
def test_a_payment_goes_on_when_its_client_link_and_session_are_gone(world: World) -> None:
    client = world.connect_client()
    client.pay()
    world.cut(client)
    world.advance(20_000)
    assert len(world.bank.resolves) == 1
    world.advance(60_000)
    assert len(world.core._sessions) == 0
    assert len(world.bank.resolves) > 1
    world.bank.post(world.bank.resolves[-1])
    assert world.token().state is TokenState.PAID


@pytest.mark.pg("PG-SES-5", "PG-TRF-9")
def test_a_late_result_still_counts(world: World) -> None:
    client = world.connect_client()
    client.pay()
    world.advance(28_000)
    world.bank.post(world.bank.transfers[0])
    assert world.token().state is TokenState.PAID
    assert client.query_status(FIRST).status is PaymentStatus.PAID


def test_a_result_of_a_payment_that_nobody_began_is_told_to_the_operator(world: World) -> None:
    client = world.connect_client()
    client.pay()
    world.bank.answer(world.bank.transfers[0], TransferOutcome.DECLINED, Reason.FUNDS, of=payment_id("nobody's"))
    assert any("does not know" in line for line in world.logged())
    assert world.token().state is TokenState.IN_FLIGHT


@pytest.mark.pg("PG-RES-4", "PG-RES-6")
def test_a_restart_resolves_what_was_in_flight(world: World) -> None:
    client = world.connect_client()
    client.pay()
    terms = world.bank.transfers[0].terms
    world.advance(1_000)
    world.restart()
    assert any("1 payments in flight" in line for line in world.logged())
    world.advance(60_000)  # the bank is not there yet
    world.connect_bank()
    world.advance(0)
    assert world.bank.resolves == [ResolveRequest(terms, hash_of())]
    world.bank.post(world.bank.resolves[0])
    assert (world.token().state, world.token().utr) == (TokenState.PAID, UTR)
    world.restart()
    world.connect_bank()
    world.advance(60_000)
    assert world.bank.resolves == []


def test_a_bank_link_that_comes_and_goes_costs_no_more_than_one_question_each_time(world: World) -> None:
    world.connect_client().pay()
    for _ in range(50):
        world.cut(world.bank)
        world.connect_bank()
        world.advance(0)
        assert len(world.bank.resolves) == 1
    world.advance(120_000)
    # One deadline that counts, however often the payment was put on the list.
    assert len(world.core._flights._due) == 1


def test_a_transfer_that_found_the_link_gone_is_resolved(world: World) -> None:
    client = world.connect_client()
    session = client.query_token().session_id
    old_bank = world.bank
    # The link breaks in the very tick in which the payment is committed.
    client.send_credentials(session)
    arrived = world.on_its_way.popleft()
    effects = world.core.receive_data(*arrived, world.now)
    effects += world.core.link_closed(old_bank.link_id, "reset by peer", world.now)
    world._perform(effects)
    assert (old_bank.transfers, world.token().state) == ([], TokenState.IN_FLIGHT)
    world.connect_bank()
    world.advance(0)
    world.bank.answer(world.bank.resolves[0], TransferOutcome.FENCED, Reason.FENCED)
    assert world.token().state is TokenState.UNPAID
