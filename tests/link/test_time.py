"""What a link does when time passes, and whose turn it is (spec 5.5, R21)."""

from collections.abc import Callable

import pytest
from builders import GATEWAY_ID, example
from link_ends import (
    BANK_LINK,
    CLIENT_LINK,
    NOW_MS,
    TOKEN_QUERY,
    TRANSFER_REQUEST,
    Pairing,
    assert_failed,
    bank_end,
    client_end,
    each_pairing,
    gateway_end,
    gateway_end_to_bank,
    messages_in,
    transfer,
)

from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, EchoReply
from paygate.link import Link
from paygate.link_events import LinkEvent
from paygate.link_states import (
    ECHO_AFTER_MS,
    ECHO_TIMEOUT_MS,
    FRAME_TIMEOUT_MS,
    HELLO_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    TURN_FRAME_COUNT_MAX,
)

# -- time ------------------------------------------------------------------------------------------------


def fire(link: Link) -> tuple[int, list[LinkEvent]]:
    """Let the link's next deadline pass; gives when it was. A millisecond earlier nothing happens."""
    deadline_ms = link.next_deadline_ms()
    assert deadline_ms is not None
    before = link.data_to_send()
    assert before == b""
    assert link.receive_timer(deadline_ms - 1) == []
    assert link.data_to_send() == b""
    assert not link.is_closed
    return deadline_ms - NOW_MS, link.receive_timer(deadline_ms)


@pytest.mark.pg("PG-TIM-1")
@pytest.mark.parametrize("make_end", [client_end, gateway_end, gateway_end_to_bank, bank_end])
def test_hello_has_a_deadline_at_both_ends(make_end: Callable[[], Link]) -> None:
    link = make_end()
    link.data_to_send()
    after_ms, events = fire(link)
    assert after_ms == HELLO_TIMEOUT_MS == 5_000
    assert_failed(link, events, ErrorCode.HELLO_TIMEOUT)


@pytest.mark.pg("PG-TIM-1")
def test_a_dripping_hello_does_not_move_its_deadline() -> None:
    link = gateway_end()
    link.receive_data(b"P", NOW_MS + HELLO_TIMEOUT_MS - 1)
    assert link.next_deadline_ms() == NOW_MS + HELLO_TIMEOUT_MS


@pytest.mark.pg("PG-TIM-2")
@each_pairing
def test_a_frame_has_a_deadline_from_its_first_byte(pairing: Pairing) -> None:
    # T23: bytes that drip in do not move it.
    _, answerer = pairing.opened()
    frame = pairing.frame(pairing.request, 5)
    for i, byte in enumerate(frame[:8]):
        assert answerer.receive_data(bytes([byte]), NOW_MS + 1_000 * i) == []
        assert answerer.next_deadline_ms() == NOW_MS + FRAME_TIMEOUT_MS
    after_ms, events = fire(answerer)
    assert after_ms == FRAME_TIMEOUT_MS == 10_000
    assert_failed(answerer, events, ErrorCode.FRAME_TIMEOUT)


@each_pairing
def test_each_frame_has_a_deadline_of_its_own(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    frame = pairing.frame(Echo(b"12345678"), 5)
    answerer.receive_data(frame[:5], NOW_MS)
    later_ms = NOW_MS + FRAME_TIMEOUT_MS - 1
    answerer.receive_data(frame[5:] + frame[:5], later_ms)  # one ends, the next begins
    assert answerer.next_deadline_ms() == later_ms + FRAME_TIMEOUT_MS
    answerer.receive_data(frame[5:], later_ms)
    answerer.data_to_send()
    assert answerer.next_deadline_ms() == later_ms + IDLE_TIMEOUT_MS


@pytest.mark.pg("PG-TIM-3")
@each_pairing
def test_an_answering_end_closes_an_idle_link(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    after_ms, events = fire(answerer)
    assert after_ms == IDLE_TIMEOUT_MS == 60_000
    assert_failed(answerer, events, ErrorCode.IDLE_TIMEOUT)


def test_any_frame_puts_off_the_idle_deadline() -> None:
    _, answerer = CLIENT_LINK.opened()
    answerer.receive_data(CLIENT_LINK.frame(Echo(b"12345678"), 5), NOW_MS + 7_000)
    assert answerer.next_deadline_ms() == NOW_MS + 7_000 + IDLE_TIMEOUT_MS


@pytest.mark.pg("PG-TIM-3")
@each_pairing
def test_a_peer_that_waits_for_us_is_not_idle(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    assert answerer.next_deadline_ms() is None
    assert answerer.receive_timer(NOW_MS + 10 * IDLE_TIMEOUT_MS) == []
    answerer.send_reply(5, pairing.reply)
    assert answerer.next_deadline_ms() == NOW_MS + IDLE_TIMEOUT_MS


def test_a_clients_end_has_no_deadline_once_open() -> None:
    caller, _ = CLIENT_LINK.opened()
    assert caller.next_deadline_ms() is None  # the session's own alarm is its deadline (R10)


@pytest.mark.pg("PG-TIM-4")
def test_the_calling_end_tests_an_idle_bank_link() -> None:
    gateway, bank = BANK_LINK.opened()
    after_ms, events = fire(gateway)
    assert after_ms == ECHO_AFTER_MS == 15_000
    assert events == []
    # The bank answers by itself, neither core hears of it, and the answer counts as life on both ends.
    now_ms = NOW_MS + after_ms + 3
    assert transfer(gateway, bank, now_ms) == ([], [])
    assert gateway.next_deadline_ms() == now_ms + ECHO_AFTER_MS
    assert bank.next_deadline_ms() == now_ms + IDLE_TIMEOUT_MS
    assert (gateway.waiting_count, bank.waiting_count) == (0, 0)


@pytest.mark.pg("PG-TIM-4")
def test_an_unanswered_link_test_fails_the_link() -> None:
    gateway, _ = BANK_LINK.opened()
    fire(gateway)
    said = messages_in(gateway.data_to_send())
    assert said == [Echo((NOW_MS + ECHO_AFTER_MS).to_bytes(8))]
    after_ms, events = fire(gateway)
    assert after_ms == ECHO_AFTER_MS + ECHO_TIMEOUT_MS == 25_000
    assert_failed(gateway, events, ErrorCode.IDLE_TIMEOUT)


def test_any_frame_at_all_answers_for_the_link_test() -> None:
    gateway, _ = BANK_LINK.opened()
    correlation_id = gateway.send_request(TRANSFER_REQUEST)
    gateway.data_to_send()
    fire(gateway)
    gateway.data_to_send()
    now_ms = NOW_MS + ECHO_AFTER_MS + ECHO_TIMEOUT_MS - 1
    gateway.receive_data(BANK_LINK.frame(example(Kind.TRANSFER_RESULT), correlation_id), now_ms)
    assert gateway.receive_timer(now_ms + 1) == []
    assert gateway.next_deadline_ms() == now_ms + ECHO_AFTER_MS


@pytest.mark.pg("PG-LNK-16")
def test_an_echo_is_answered_with_its_own_bytes() -> None:
    for pairing in (CLIENT_LINK, BANK_LINK):
        for link in pairing.opened():
            assert link.receive_data(pairing.frame(Echo(b"abcdefgh"), 3), NOW_MS) == []
            assert link.data_to_send() == pairing.frame(EchoReply(b"abcdefgh"), 3)


@pytest.mark.pg("PG-LNK-16")
def test_the_answer_to_an_echo_is_not_answered() -> None:
    for pairing in (CLIENT_LINK, BANK_LINK):
        for link in pairing.opened():
            correlation_id = link.send_request(Echo(b"12345678"))
            link.data_to_send()
            assert link.receive_data(pairing.frame(EchoReply(b"12345678"), correlation_id), NOW_MS) == []
            assert (link.data_to_send(), link.is_open) == (b"", True)


# -- turns (R21) -----------------------------------------------------------------------------------------


def test_a_link_handles_so_many_frames_a_turn_and_loses_none() -> None:
    caller = client_end()
    answerer = Link(
        Role.GATEWAY, GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=NOW_MS, turn_frame_count_max=TURN_FRAME_COUNT_MAX
    )
    transfer(caller, answerer)
    for _ in range(2 * TURN_FRAME_COUNT_MAX + 3):
        caller.send_request(TOKEN_QUERY)
    counts = [len(answerer.receive_data(caller.data_to_send(), NOW_MS))]
    while answerer.is_backlogged:
        counts.append(len(answerer.receive_data(b"", NOW_MS)))
    assert counts == [TURN_FRAME_COUNT_MAX, TURN_FRAME_COUNT_MAX, 3]
    assert answerer.waiting_count == 2 * TURN_FRAME_COUNT_MAX + 3


def test_a_link_that_waits_for_its_turn_is_not_late_with_its_frame() -> None:
    caller = client_end()
    answerer = Link(Role.GATEWAY, GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=NOW_MS, turn_frame_count_max=1)
    transfer(caller, answerer)
    for _ in range(3):
        caller.send_request(TOKEN_QUERY)
    now_ms = NOW_MS
    answerer.receive_data(caller.data_to_send(), now_ms)
    while answerer.is_backlogged:
        now_ms += FRAME_TIMEOUT_MS - 1
        assert answerer.receive_timer(now_ms) == []
        assert len(answerer.receive_data(b"", now_ms)) == 1
    assert answerer.is_open
