"""The gateway's mind as its shell calls it: sessions, connections, the end."""

from dataclasses import replace

import pytest
from builders import FIXED_ENVELOPE, PASSCODE, TRANSACTION_ID, build_terms
from gateway.troubles import gateway_drains
from gateway.world import ADDRESS, World, hash_of, payment_id

from paygate.codec.codes import PaymentStatus, Reason, TokenStatus
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Error, TokenQuery, TransferRequest
from paygate.gateway.effects import ConnectionRecord
from paygate.gateway.tokens import TokenState
from paygate.link_states import TURN_FRAME_COUNT_MAX

# -- sessions and connections ------------------------------------------------------------------------------


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
