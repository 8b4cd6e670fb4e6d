"""Who answers what, whose payment it is, and what waits at the end."""

import random
from typing import Final

import builders
import pytest
from dump.tape import STEP_NS, LinkTape, Tape, damaged, error_of, finding_names, findings_in, session, through
from hypothesis import given, settings
from hypothesis import strategies as st
from specgen.vector_session import FENCED, PAID, SESSIONS, Payment

from paygate.codec.codes import Kind, PaymentStatus, Reason, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Hello, HelloAck, StatusAck, StatusQuery
from paygate.dump import links
from paygate.dump.links import Links
from paygate.dump.model import FlowKind, Item, SeenFrame, Side, StreamEvent, StreamNote

each_session = pytest.mark.parametrize("payment", SESSIONS, ids=lambda payment: payment.name)
TERMS: Final = builders.build_terms()
example = builders.example


def seen(items: list[Item], kind: Kind) -> SeenFrame:
    """The first frame of a kind."""
    return next(item for item in items if isinstance(item, SeenFrame) and item.kind is kind)


# -- whole sessions --------------------------------------------------------------------------------------


@each_session
def test_a_legal_session_gives_no_finding(payment: Payment) -> None:
    assert findings_in(through(Links(), session(payment))) == []


@each_session
def test_every_reply_of_a_session_answers_its_request_after_a_time(payment: Payment) -> None:
    frames = [item for item in through(Links(), session(payment)) if isinstance(item, SeenFrame)]
    replies = [frame for frame in frames if frame.kind.is_reply]
    assert len(replies) >= 7
    for reply in replies:
        request = reply.answers
        assert request is not None
        assert request.kind.reply is reply.kind
        assert (request.flow, request.side.other) == (reply.flow, reply.side)
        assert request.time_ns is not None
        assert reply.time_ns is not None
        assert reply.latency_ns == reply.time_ns - request.time_ns > 0


def test_a_request_holds_no_other_frame_so_that_nothing_keeps_a_capture_in_memory() -> None:
    for item in through(Links(), session(PAID)):
        if isinstance(item, SeenFrame) and not item.kind.is_reply:
            assert item.answers is None


@each_session
def test_all_frames_of_a_payment_are_known_as_its_own_on_both_links(payment: Payment) -> None:
    frames = [item for item in through(Links(), session(payment)) if isinstance(item, SeenFrame)]
    of_payment = [f for f in frames if f.payment_id == payment.terms.payment_id]
    assert {f.kind for f in frames} - {f.kind for f in of_payment} == {
        Kind.HELLO, Kind.HELLO_ACK, Kind.BANK_KEYS_QUERY, Kind.BANK_KEYS, Kind.TOKEN_QUERY, Kind.TOKEN_ACK,
    }  # fmt: skip
    assert {f.transaction_id for f in of_payment} == {payment.transaction_id}
    assert {f.session_id for f in of_payment} == {payment.terms.session_id}
    assert seen(list(frames), Kind.TOKEN_QUERY).transaction_id == payment.transaction_id
    ack = seen(list(frames), Kind.TOKEN_ACK)
    assert (ack.transaction_id, ack.session_id) == (payment.transaction_id, payment.terms.session_id)


def test_roles_and_names_come_from_hello_and_hello_ack() -> None:
    flows = {item.flow.number: item.flow for item in through(Links(), session(PAID)) if isinstance(item, SeenFrame)}
    assert [(flow.roles, flow.party_ids) for flow in flows.values()] == [
        ([Role.GATEWAY, Role.BANK], ["GW1", "BANK1"]),
        ([Role.CLIENT, Role.GATEWAY], ["client", "GW1"]),
    ]


def test_a_transfer_that_is_lost_with_its_connection_is_unanswered() -> None:
    (finding,) = findings_in(through(Links(), session(FENCED, with_lost=True)))
    assert finding.name == "UNANSWERED"
    assert finding.got == "none to TransferRequest 3"
    assert finding.section == "5.2"


# -- where the capture began later -----------------------------------------------------------------------


def test_roles_come_from_what_is_sent_where_hello_was_not_seen() -> None:
    tape = Tape()
    late = LinkTape(tape, is_whole=False)
    late.ask(example(Kind.TOKEN_QUERY), 9)
    through(Links(), tape.items)
    assert late.flow.roles == [Role.CLIENT, Role.GATEWAY]


def test_a_reply_alone_tells_the_roles_too_even_if_the_sides_were_guessed_wrong() -> None:
    tape = Tape()
    late = LinkTape(tape, is_whole=False, is_bank_link=True)
    late.ask(example(Kind.TRANSFER_RESULT), 9)
    assert finding_names(through(Links(), tape.items)) == []
    assert late.flow.roles == [Role.BANK, Role.GATEWAY]


def test_a_reply_without_a_request_is_no_finding_where_the_request_may_not_have_been_seen() -> None:
    tape = Tape()
    late = LinkTape(tape, is_whole=False)
    late.answer(example(Kind.TOKEN_ACK), 9)
    with_gap = LinkTape(tape)
    tape.finding(with_gap.flow)
    with_gap.answer(example(Kind.TOKEN_ACK), 9)
    with_gap.answer(error_of(ErrorCode.TOO_MANY_REQUESTS), 10)
    assert finding_names(through(Links(), tape.items)) == ["BYTES_MISSING"]


def test_a_number_that_is_used_again_is_no_finding_where_its_reply_may_not_have_been_seen() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(example(Kind.TOKEN_QUERY), 5)
    tape.finding(link.flow)
    again = link.ask(example(Kind.TOKEN_QUERY), 5)
    reply = link.answer(example(Kind.TOKEN_ACK), 5)
    assert finding_names(through(Links(), tape.items)) == ["BYTES_MISSING"]
    assert reply.answers is again


def test_a_second_hello_is_no_finding_where_the_flow_is_not_known_as_a_whole() -> None:
    tape = Tape()
    link = LinkTape(tape, is_bank_link=True)
    tape.finding(link.flow)
    link.ask(example(Kind.HELLO), 1)
    link.answer(example(Kind.HELLO_ACK), 1)
    link.answer(example(Kind.HELLO_ACK), 2)
    assert finding_names(through(Links(), tape.items)) == ["BYTES_MISSING"]


def test_a_hello_from_the_end_that_was_guessed_to_be_called_is_legal_and_begins_the_link() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.frame(flow, Side.ANSWERER, Hello(Role.CLIENT, "late", (1,)), 1)
    tape.frame(flow, Side.CALLER, HelloAck(Role.GATEWAY, "GW1", 1, 65_571), 1)
    wrong = tape.frame(flow, Side.CALLER, example(Kind.TOKEN_ACK), 9)
    assert finding_names(through(Links(), tape.items)) == ["UNKNOWN_CORRELATION"]
    assert wrong.findings != ()
    assert (flow.roles, flow.party_ids) == ([Role.GATEWAY, Role.CLIENT], ["GW1", "late"])


def test_a_broken_reply_that_answers_nothing_has_its_own_finding_and_no_other() -> None:
    tape = Tape()
    link = LinkTape(tape)
    tape.items.append(damaged(link.answer(example(Kind.TOKEN_ACK), 9)))
    del tape.items[-2]
    assert finding_names(through(Links(), tape.items)) == []


def test_frames_without_a_time_are_matched_and_have_no_latency() -> None:
    for untimed in (0, 1):
        tape = Tape()
        link = LinkTape(tape)
        pair = (link.ask(example(Kind.TOKEN_QUERY), 5), link.answer(example(Kind.TOKEN_ACK), 5))
        pair[untimed].time_ns = None
        through(Links(), tape.items)
        assert (pair[1].answers, pair[1].latency_ns) == (pair[0], None)


def test_a_frame_whose_body_is_broken_still_answers() -> None:
    tape = Tape()
    link = LinkTape(tape)
    query = link.ask(example(Kind.TOKEN_QUERY), 5)
    reply = damaged(link.answer(example(Kind.TOKEN_ACK), 5))
    tape.items[-1] = reply
    assert finding_names(through(Links(), tape.items)) == []
    assert reply.answers is query
    assert reply.transaction_id == builders.TRANSACTION_ID


def test_a_payment_is_traced_to_its_token_by_its_terms_on_the_bank_link() -> None:
    tape = Tape()
    bank, client = LinkTape(tape, is_bank_link=True, is_whole=False), LinkTape(tape, is_whole=False)
    bank.ask(example(Kind.TRANSFER_REQUEST), 7)
    ack = client.answer(example(Kind.PAYMENT_ACK), 3)
    through(Links(), tape.items)
    assert (ack.transaction_id, ack.session_id) == (TERMS.transaction_id, TERMS.session_id)


def test_what_a_frame_says_itself_counts_before_what_is_known_from_elsewhere() -> None:
    tape = Tape()
    client = LinkTape(tape, is_whole=False)
    other_id = b"\x77" * 16
    client.ask(StatusQuery(TERMS.payment_id, TERMS.transaction_id, "1"), 3)
    reply = client.answer(StatusAck(other_id, PaymentStatus.PENDING, Reason.NONE, "", b""), 3)
    wrong_token = client.ask(StatusQuery(TERMS.payment_id, "TX-OTHER", "1"), 4)
    through(Links(), tape.items)
    assert reply.payment_id == other_id
    assert wrong_token.transaction_id == "TX-OTHER"


def test_a_payment_without_a_session_gets_it_from_a_later_frame() -> None:
    tape = Tape()
    client, bank = LinkTape(tape, is_whole=False), LinkTape(tape, is_bank_link=True, is_whole=False)
    asked = client.ask(example(Kind.STATUS_QUERY), 3)
    bank.ask(example(Kind.TRANSFER_REQUEST), 7)
    again = client.ask(example(Kind.STATUS_QUERY), 4)
    through(Links(), tape.items)
    assert (asked.session_id, again.session_id) == (b"", TERMS.session_id)


# -- the end ---------------------------------------------------------------------------------------------


def test_requests_without_a_reply_are_told_when_the_connection_ends_at_most_four_by_name() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for number in range(2, 9):
        link.ask(example(Kind.TOKEN_QUERY), number)
    note = link.note(StreamEvent.CLOSED)
    out = through(Links(), tape.items)
    (finding,) = findings_in(out)
    assert out[-2:] == [note, finding]
    assert finding.got == "none to TokenQuery 2, TokenQuery 3, TokenQuery 4, TokenQuery 5, 3 more"
    assert finding.expected == "a reply before the connection ended"


@pytest.mark.parametrize("has_note", [True, False])
def test_what_still_waits_when_the_capture_ends_is_told_mildly(has_note: bool) -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(example(Kind.TOKEN_QUERY), 5)
    if has_note:
        link.note(StreamEvent.CAPTURE_ENDED)
    out = through(Links(), tape.items)
    (finding,) = findings_in(out)
    assert out == [*tape.items, finding]
    assert (finding.name, finding.expected) == ("UNANSWERED", "a reply, perhaps after the capture's end")
    assert (finding.time_ns is not None) is has_note


def test_a_request_whose_reply_the_capture_may_lack_is_not_accused_but_a_later_one_is() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(example(Kind.TOKEN_QUERY), 5)
    tape.finding(link.flow, side=Side.ANSWERER)
    link.ask(example(Kind.TOKEN_QUERY), 6)
    link.note(StreamEvent.CLOSED)
    _, finding = findings_in(through(Links(), tape.items))
    assert (finding.name, finding.got) == ("UNANSWERED", "none to TokenQuery 6")


def test_bytes_that_are_missing_of_the_asking_end_excuse_no_missing_reply() -> None:
    tape = Tape()
    late = LinkTape(tape, is_whole=False)
    late.ask(example(Kind.TOKEN_QUERY), 5)
    tape.finding(late.flow, side=Side.CALLER)
    late.note(StreamEvent.CLOSED)
    assert finding_names(through(Links(), tape.items)) == ["BYTES_MISSING", "UNANSWERED"]


def test_bytes_that_were_left_out_may_have_been_a_reply() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(example(Kind.TOKEN_QUERY), 5)
    tape.note(link.flow, StreamEvent.IMPLAUSIBLE, Side.ANSWERER)
    link.note(StreamEvent.CLOSED)
    assert finding_names(through(Links(), tape.items)) == []


def test_where_nobody_knows_the_sides_what_is_missing_may_have_been_a_reply() -> None:
    tape = Tape()
    flow = tape.flow(FlowKind.USER0, knows_sides=False)
    tape.frame(flow, Side.CALLER, example(Kind.TOKEN_QUERY), 5)
    tape.finding(flow)
    tape.frame(flow, Side.CALLER, example(Kind.TOKEN_QUERY), 6)
    (_, finding) = findings_in(through(Links(), tape.items))
    assert finding.got == "none to TokenQuery 6"


def test_a_flow_that_was_forgotten_is_not_accused() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(example(Kind.TOKEN_QUERY), 5)
    link.note(StreamEvent.DROPPED)
    assert finding_names(through(Links(), tape.items)) == []


# -- pasted bytes ----------------------------------------------------------------------------------------


def test_pasted_frames_of_two_links_are_matched_but_not_judged() -> None:
    tape = Tape()
    flow = tape.flow(FlowKind.BYTES, knows_sides=False)
    pasted = []
    for item in session(PAID):
        if isinstance(item, SeenFrame):
            side = Side.ANSWERER if item.kind.is_reply else Side.CALLER
            pasted.append(tape.data(flow, side, item.data))
    assert finding_names(through(Links(), tape.items)) == []
    assert all(frame.answers is not None for frame in pasted if frame.kind.is_reply)
    # What was pasted last was a client's; names stay only with the ends that they belong to.
    assert (flow.roles, flow.party_ids) == ([Role.CLIENT, Role.GATEWAY], ["", ""])


def test_a_single_pasted_reply_and_a_single_pasted_request_are_no_findings() -> None:
    for kind in (Kind.TOKEN_ACK, Kind.TOKEN_QUERY, Kind.VERIFIER, Kind.OPEN_ENVELOPE):
        tape = Tape()
        side = Side.ANSWERER if kind.is_reply else Side.CALLER
        tape.frame(tape.flow(FlowKind.BYTES, knows_sides=False), side, example(kind), 1)
        assert finding_names(through(Links(), tape.items)) == []


def test_a_pasted_error_answers_the_request_of_its_number() -> None:
    tape = Tape()
    flow = tape.flow(FlowKind.BYTES, knows_sides=False)
    query = tape.frame(flow, Side.CALLER, example(Kind.STATUS_QUERY), 7)
    error = tape.frame(flow, Side.ANSWERER, error_of(ErrorCode.SHUTTING_DOWN), 7)
    through(Links(), tape.items)
    assert error.answers is query


# -- any traffic -----------------------------------------------------------------------------------------

CLIENT_ASKS: Final = (Kind.TOKEN_QUERY, Kind.STATUS_QUERY, Kind.ENCRYPTED_CREDENTIALS, Kind.BANK_KEYS_QUERY, Kind.ECHO)
BANK_ASKS: Final = (Kind.TRANSFER_REQUEST, Kind.RESOLVE_REQUEST, Kind.BANK_KEYS_QUERY, Kind.ECHO)


@given(seed=st.integers(0, 2**32), is_bank_link=st.booleans())
def test_any_legal_conversation_gives_no_finding_and_every_reply_its_request(seed: int, is_bank_link: bool) -> None:
    chance = random.Random(seed)
    tape = Tape()
    link = LinkTape(tape, is_bank_link=is_bank_link)
    waiting: list[tuple[bool, int, SeenFrame]] = []
    expected: list[tuple[SeenFrame, SeenFrame]] = []
    numbers = {True: 2, False: 2}
    for _ in range(30):
        if waiting and chance.random() < 0.5:
            is_callers, number, request = waiting.pop(chance.randrange(len(waiting)))
            refuses = chance.random() < 0.1
            answer = error_of(ErrorCode.TOO_MANY_REQUESTS) if refuses else example(request.kind.reply)
            reply = (link.answer if is_callers else link.ask)(answer, number)
            expected.append((reply, request))
        else:
            is_callers = chance.random() < 0.8
            kind = chance.choice(BANK_ASKS if is_bank_link else CLIENT_ASKS) if is_callers else Kind.ECHO
            # A number is free again as soon as its reply was received.
            in_use = {number for of_caller, number, _ in waiting if of_caller is is_callers}
            number = next(n for n in range(2, 99) if n not in in_use) if chance.random() < 0.3 else numbers[is_callers]
            while number in in_use:
                number += 1
            numbers[is_callers] = max(numbers[is_callers], number + 1)
            waiting.append((is_callers, number, (link.ask if is_callers else link.answer)(example(kind), number)))
    for is_callers, number, request in waiting:
        expected.append(((link.answer if is_callers else link.ask)(example(request.kind.reply), number), request))
    link.note(StreamEvent.CLOSED)
    assert finding_names(through(Links(), tape.items)) == []
    assert all(reply.answers is request for reply, request in expected)


ANY_FRAME: Final = st.tuples(
    st.integers(0, 2), st.sampled_from(Side), st.sampled_from(Kind), st.integers(0, 3), st.booleans(), st.booleans()
)
ANY_STEP: Final = ANY_FRAME | st.tuples(st.integers(0, 2), st.sampled_from(StreamEvent))


@settings(max_examples=200)
@given(st.lists(ANY_STEP, max_size=40))
def test_whatever_comes_every_item_goes_on_and_only_replies_hold_a_request(steps: list[tuple[object, ...]]) -> None:
    tape = Tape()
    flows = [tape.flow(), tape.flow(FlowKind.USER0), tape.flow(FlowKind.BYTES, knows_sides=False)]
    for step in steps:
        flow = flows[step[0]]  # type: ignore[call-overload]
        if isinstance(step[1], StreamEvent):
            tape.note(flow, step[1])
            continue
        _, side, kind, number, has_mac, is_broken = step
        assert isinstance(side, Side)
        assert isinstance(kind, Kind)
        assert isinstance(number, int)
        frame = tape.frame(flow, side, example(kind), number, link_key=builders.LINK_KEY if has_mac else None)
        if is_broken:
            tape.items[-1] = damaged(frame)
    out = through(Links(), tape.items)
    assert [item for item in out if item in tape.items] == tape.items
    for item in out:
        if isinstance(item, SeenFrame) and item.answers is not None:
            assert item.answers.answers is None
            assert item.kind is Kind.ERROR or item.answers.kind.reply is item.kind
            assert len(item.findings) <= 2


# -- bounds ----------------------------------------------------------------------------------------------


def test_a_flood_of_requests_takes_a_bounded_memory_and_accuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "FLOW_WAITING_COUNT_MAX", 8)
    monkeypatch.setattr(links, "WAITING_COUNT_MAX", 20)
    monkeypatch.setattr(links, "FLOW_COUNT_MAX", 10)
    tape = Tape()
    ends = [LinkTape(tape) for _ in range(30)]
    for number in range(2, 22):
        for link in ends:
            link.ask(example(Kind.TOKEN_QUERY), number)
    late = ends[0].answer(example(Kind.TOKEN_ACK), 2)
    judged = Links()
    for item in tape.items:
        assert list(judged.receive(item)) == [item]
    assert judged.waiting_count <= 20
    assert finding_names(tape.items) == []
    assert late.answers is None
    assert len(list(judged.finish())) <= 10


def test_a_reply_that_seems_to_come_before_its_request_has_no_latency() -> None:
    tape = Tape()
    link = LinkTape(tape)
    query = link.ask(example(Kind.TOKEN_QUERY), 5)
    assert query.time_ns is not None
    reply = tape.data(link.flow, Side.ANSWERER, link.answer(example(Kind.TOKEN_ACK), 5).data, query.time_ns - STEP_NS)
    del tape.items[-2]
    through(Links(), tape.items)
    assert reply.answers is query
    assert reply.latency_ns is None


def test_notes_and_findings_pass_through_in_their_place() -> None:
    tape = Tape()
    link = LinkTape(tape)
    finding = tape.finding(None)
    assert through(Links(), tape.items)[-1] is finding
    assert sum(isinstance(item, StreamNote) for item in tape.items) == 1
    assert link.flow.roles == [Role.CLIENT, Role.GATEWAY]
