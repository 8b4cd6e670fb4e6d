"""Requests, replies and Errors on an open link, and its end (spec 5.2, 5.6)."""

import pytest
from builders import example, with_changes
from link_ends import (
    BANK_LINK,
    CLIENT_LINK,
    NOW_MS,
    Pairing,
    assert_failed,
    each_pairing,
    frames_in,
    messages_in,
    transfer,
)

from paygate.codec import limits
from paygate.codec.codes import Kind, Route
from paygate.codec.errors import ErrorCode, LocalProtocolError
from paygate.codec.messages import MESSAGES, Echo, Error
from paygate.link import Link
from paygate.link_events import LinkEvent, Opened, PeerClosed, ReplyReceived, RequestReceived
from paygate.link_states import IDLE_TIMEOUT_MS, REQUEST_COUNT_MAX

# -- requests and replies --------------------------------------------------------------------------------


@pytest.mark.pg("PG-LNK-7")
@each_pairing
def test_a_request_is_answered(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    assert correlation_id != 0
    assert transfer(caller, answerer)[1] == [RequestReceived(correlation_id, pairing.request)]
    assert answerer.waiting_count == 1
    answerer.send_reply(correlation_id, pairing.reply)
    assert transfer(caller, answerer)[0] == [ReplyReceived(correlation_id, pairing.reply)]
    assert answerer.waiting_count == 0


@pytest.mark.pg("PG-LNK-6", "PG-LNK-8")
@each_pairing
def test_replies_may_overtake_each_other(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    asked = [caller.send_request(pairing.request) for _ in range(5)]
    assert len(set(asked)) == 5
    transfer(caller, answerer)
    order = [asked[i] for i in (3, 0, 4, 2, 1)]
    for correlation_id in order:
        answerer.send_reply(correlation_id, pairing.reply)
    told = transfer(caller, answerer)[0]
    assert told == [ReplyReceived(correlation_id, pairing.reply) for correlation_id in order]


@pytest.mark.pg("PG-FRM-2")
@each_pairing
def test_a_session_is_the_same_byte_by_byte(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()

    def drip(sender: Link, receiver: Link) -> list[LinkEvent]:
        events: list[LinkEvent] = []
        for byte in sender.data_to_send():
            events += receiver.receive_data(bytes([byte]), NOW_MS)
        return events

    assert drip(caller, answerer) == [Opened(caller.role, caller.party_id)]
    assert drip(answerer, caller) == [Opened(answerer.role, answerer.party_id)]
    correlation_id = caller.send_request(pairing.request)
    assert drip(caller, answerer) == [RequestReceived(correlation_id, pairing.request)]
    answerer.send_reply(correlation_id, pairing.reply)
    assert drip(answerer, caller) == [ReplyReceived(correlation_id, pairing.reply)]


@each_pairing
def test_frames_glued_to_one_read_all_count(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()
    hello = caller.data_to_send()
    glued = hello + pairing.frame(pairing.request, 2) + pairing.frame(pairing.request, 3)
    assert [type(event) for event in answerer.receive_data(glued, NOW_MS)] == [Opened, RequestReceived, RequestReceived]


@pytest.mark.pg("PG-ERR-4", "PG-LNK-11")
@each_pairing
def test_good_frames_before_a_bad_one_still_count(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    events = answerer.receive_data(pairing.frame(pairing.request, 2) + b"x" * 20 + b"more", NOW_MS)
    assert events[0] == RequestReceived(2, pairing.request)
    assert_failed(answerer, events[1:], ErrorCode.BAD_MAGIC)


@pytest.mark.pg("PG-LNK-9")
@each_pairing
def test_a_reply_nobody_asked_for_is_refused(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    for link in (caller, answerer):
        assert_failed(link, link.receive_data(pairing.frame(pairing.reply, 77), NOW_MS), ErrorCode.UNKNOWN_CORRELATION)


@pytest.mark.pg("PG-LNK-9")
@each_pairing
def test_a_second_reply_is_refused(pairing: Pairing) -> None:
    caller, _ = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    caller.data_to_send()
    reply = pairing.frame(pairing.reply, correlation_id)
    assert caller.receive_data(reply, NOW_MS) == [ReplyReceived(correlation_id, pairing.reply)]
    assert_failed(caller, caller.receive_data(reply, NOW_MS), ErrorCode.UNKNOWN_CORRELATION)


@pytest.mark.pg("PG-LNK-9")
@each_pairing
def test_a_reply_of_another_kind_is_refused(pairing: Pairing) -> None:
    caller, _ = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    caller.data_to_send()
    events = caller.receive_data(pairing.frame(example(Kind.BANK_KEYS), correlation_id), NOW_MS)
    assert_failed(caller, events, ErrorCode.UNEXPECTED_MESSAGE)


@pytest.mark.pg("PG-LNK-7")
@each_pairing
def test_a_correlation_id_in_use_is_refused(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    request = pairing.frame(pairing.request, 5)
    assert answerer.receive_data(request, NOW_MS) == [RequestReceived(5, pairing.request)]
    assert_failed(answerer, answerer.receive_data(request, NOW_MS), ErrorCode.DUPLICATE_CORRELATION)


@each_pairing
def test_a_correlation_id_may_be_used_again_once_answered(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    for _ in range(3):
        assert answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS) == [RequestReceived(5, pairing.request)]
        answerer.send_reply(5, pairing.reply)


@pytest.mark.pg("PG-LNK-8")
@each_pairing
def test_the_two_directions_number_their_requests_apart(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    caller.send_request(pairing.request)
    answerer.send_request(Echo(b"12345678"))
    answerer.send_request(Echo(b"12345678"))  # the same correlation ID as the caller's request
    told = transfer(caller, answerer)
    assert [type(event) for event in told[1]] == [RequestReceived]
    assert told[0] == []
    assert caller.is_open
    assert answerer.is_open


@pytest.mark.pg("PG-LNK-10")
@pytest.mark.parametrize("kind", [k for k in Kind if not k.is_reply and k is not Kind.ERROR], ids=lambda k: k.name)
def test_requests_travel_their_route_only(kind: Kind) -> None:
    request = example(kind)
    route = MESSAGES[kind].route
    legal = {
        (CLIENT_LINK.name, "up"): route in (Route.ANY, Route.CALLER, Route.CLIENT_TO_GATEWAY),
        (CLIENT_LINK.name, "down"): route is Route.ANY,
        (BANK_LINK.name, "up"): route in (Route.ANY, Route.CALLER, Route.GATEWAY_TO_BANK),
        (BANK_LINK.name, "down"): route is Route.ANY,
    }
    for pairing in (CLIENT_LINK, BANK_LINK):
        for direction in ("up", "down"):
            caller, answerer = pairing.opened()
            sender, receiver = (caller, answerer) if direction == "up" else (answerer, caller)
            is_legal = legal[pairing.name, direction] and kind is not Kind.HELLO
            # What a peer without our checks might send.
            events = receiver.receive_data(pairing.frame(request, 9), NOW_MS)
            if not is_legal:
                assert_failed(receiver, events, ErrorCode.UNEXPECTED_MESSAGE)
                with pytest.raises(LocalProtocolError):
                    sender.send_request(request)
                assert sender.data_to_send() == b""
            else:
                assert events == ([] if kind is Kind.ECHO else [RequestReceived(9, request)])
                sender.send_request(request)


@pytest.mark.parametrize("kind", [k for k in Kind if k.is_reply or k is Kind.ERROR], ids=lambda k: k.name)
def test_what_is_no_request_is_not_sent_as_one(kind: Kind) -> None:
    for pairing in (CLIENT_LINK, BANK_LINK):
        for link in pairing.opened():
            with pytest.raises(LocalProtocolError):
                link.send_request(example(kind))
            assert link.data_to_send() == b""


@each_pairing
def test_only_what_waits_is_answered_and_only_with_its_kind(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    with pytest.raises(LocalProtocolError, match="answers nothing that waits under 5"):
        answerer.send_reply(5, example(Kind.BANK_KEYS))
    with pytest.raises(LocalProtocolError, match="answers nothing that waits under 6"):
        answerer.send_reply(6, pairing.reply)
    with pytest.raises(LocalProtocolError, match="answers nothing that waits under 6"):
        answerer.refuse(6, ErrorCode.SHUTTING_DOWN)  # at the peer it would be an unknown correlation
    assert answerer.data_to_send() == b""
    answerer.send_reply(5, pairing.reply)
    with pytest.raises(LocalProtocolError, match="answers nothing"):
        answerer.send_reply(5, pairing.reply)


@each_pairing
def test_a_reply_that_can_not_be_encoded_leaves_the_request_waiting(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    with pytest.raises(LocalProtocolError):
        answerer.send_reply(5, with_changes(pairing.reply, utr="no UTR"))
    assert answerer.waiting_count == 1
    answerer.send_reply(5, pairing.reply)


@each_pairing
def test_a_request_that_can_not_be_encoded_was_never_asked(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    with pytest.raises(LocalProtocolError):
        caller.send_request(with_changes(example(Kind.BANK_KEYS_QUERY), bank_id=""))
    assert caller.data_to_send() == b""
    correlation_id = caller.send_request(pairing.request)
    assert transfer(caller, answerer)[1] == [RequestReceived(correlation_id, pairing.request)]
    events = caller.receive_data(pairing.frame(example(Kind.BANK_KEYS), correlation_id + 1), NOW_MS)
    assert_failed(caller, events, ErrorCode.UNKNOWN_CORRELATION)


# -- passing Errors --------------------------------------------------------------------------------------


@pytest.mark.pg("PG-ERR-5")
@each_pairing
def test_a_refused_request_is_answered_with_an_error_and_the_link_goes_on(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    refused, answered = caller.send_request(pairing.request), caller.send_request(pairing.request)
    transfer(caller, answerer)
    answerer.refuse(refused, ErrorCode.SHUTTING_DOWN, "try again\nlater")
    answerer.send_reply(answered, pairing.reply)
    assert transfer(caller, answerer)[0] == [
        ReplyReceived(refused, Error(code=ErrorCode.SHUTTING_DOWN, closes=False, text="try again?later")),
        ReplyReceived(answered, pairing.reply),
    ]
    assert caller.is_open
    with pytest.raises(AssertionError):
        answerer.refuse(answered, ErrorCode.BAD_MAC)  # a code that closes is no answer


@pytest.mark.pg("PG-ERR-5")
@each_pairing
def test_an_error_that_answers_nothing_is_refused(pairing: Pairing) -> None:
    caller, _ = pairing.opened()
    events = caller.receive_data(pairing.frame(example(Kind.ERROR), 77), NOW_MS)
    assert_failed(caller, events, ErrorCode.UNKNOWN_CORRELATION)


@pytest.mark.pg("PG-ERR-3")
@each_pairing
def test_an_error_is_not_answered(pairing: Pairing) -> None:
    for code in (ErrorCode.SHUTTING_DOWN, ErrorCode.INTERNAL):
        caller, _ = pairing.opened()
        correlation_id = caller.send_request(pairing.request)
        caller.data_to_send()
        error = Error(code=code, closes=code.closes, text="")
        caller.receive_data(pairing.frame(error, 0 if code.closes else correlation_id), NOW_MS)
        assert (caller.data_to_send(), caller.is_closed) == (b"", code.closes)


@pytest.mark.pg("PG-ERR-4")
@each_pairing
@pytest.mark.parametrize("correlation_id", [0, 2, 77, limits.UINT64_MAX])
def test_the_correlation_id_of_an_error_that_closes_is_not_looked_at(pairing: Pairing, correlation_id: int) -> None:
    caller, _ = pairing.opened()
    caller.send_request(pairing.request)  # under 2
    caller.data_to_send()
    error = Error(code=ErrorCode.INTERNAL, closes=True, text="")
    events = caller.receive_data(pairing.frame(error, correlation_id), NOW_MS)
    assert events == [PeerClosed("peer says: internal: ", ErrorCode.INTERNAL)]
    assert caller.is_closed


@pytest.mark.pg("PG-ERR-4", "PG-ERR-6")
@each_pairing
@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_a_code_says_whether_the_link_closes(pairing: Pairing, code: ErrorCode) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    if code.closes:
        answerer.fail(code)
    else:
        answerer.refuse(5, code)
    (said,) = frames_in(answerer.data_to_send())
    assert said.message() == Error(code=code, closes=answerer.is_closed, text="")
    assert (said.correlation_id, answerer.is_closed) == ((0, True) if code.closes else (5, False))


@each_pairing
def test_a_refused_link_test_is_nobodys_business(pairing: Pairing) -> None:
    # The core never asked for it, so it must not be told of an answer.
    caller, answerer = pairing.opened()
    correlation_id = answerer.send_request(Echo(b"12345678"))
    answerer.data_to_send()
    assert answerer.receive_data(pairing.frame(example(Kind.ERROR), correlation_id), NOW_MS) == []
    assert answerer.is_open
    assert caller.is_open


@pytest.mark.pg("PG-LNK-6")
@each_pairing
def test_too_many_requests_are_refused_one_by_one(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    asked = [caller.send_request(pairing.request) for _ in range(REQUEST_COUNT_MAX + 2)]
    told = transfer(caller, answerer)
    assert len(told[1]) == answerer.waiting_count == REQUEST_COUNT_MAX >= 4_096
    refusal = Error(code=ErrorCode.TOO_MANY_REQUESTS, closes=False, text="wait for replies before asking more")
    assert told[0] == [ReplyReceived(correlation_id, refusal) for correlation_id in asked[REQUEST_COUNT_MAX:]]
    answerer.send_reply(asked[0], pairing.reply)
    asked.append(caller.send_request(pairing.request))
    assert transfer(caller, answerer)[1] == [RequestReceived(asked[-1], pairing.request)]


# -- closing ---------------------------------------------------------------------------------------------


@each_pairing
def test_a_closing_error_is_told_with_its_code(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    answerer.fail(ErrorCode.INTERNAL, "no room")
    assert transfer(caller, answerer)[0] == [PeerClosed("peer says: internal: no room", ErrorCode.INTERNAL)]
    assert caller.is_closed
    assert answerer.is_closed
    assert caller.data_to_send() == b""  # an Error is never answered with an Error
    answerer.fail(ErrorCode.INTERNAL)
    assert answerer.data_to_send() == b""


@pytest.mark.pg("PG-LNK-13")
@each_pairing
def test_the_end_of_the_stream_between_frames_is_a_close(pairing: Pairing) -> None:
    for link in pairing.opened():
        assert link.receive_eof() == [PeerClosed("end of stream")]
        assert link.is_closed
        assert link.receive_eof() == []


@each_pairing
def test_the_end_of_the_stream_within_a_frame_is_a_fault(pairing: Pairing) -> None:
    frame = pairing.frame(pairing.request, 5)
    for size in range(1, len(frame)):
        _, answerer = pairing.opened()
        assert answerer.receive_data(frame[:size], NOW_MS) == []
        assert_failed(answerer, answerer.receive_eof(), ErrorCode.TRUNCATED_FRAME)


@pytest.mark.pg("PG-LNK-12")
@each_pairing
def test_after_closing_nothing_is_looked_at_and_what_was_queued_may_leave(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    transfer(caller, answerer)
    answerer.send_reply(correlation_id, pairing.reply)
    answerer.close()
    answerer.close()
    assert answerer.receive_data(pairing.frame(pairing.request, 9), NOW_MS) == []
    assert answerer.receive_timer(NOW_MS + 10 * IDLE_TIMEOUT_MS) == []
    assert answerer.next_deadline_ms() is None
    answerer.send_reply(9, pairing.reply)  # a late answer finds nobody
    assert messages_in(answerer.data_to_send()) == [pairing.reply]
