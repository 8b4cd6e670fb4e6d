"""What a link must not do is a finding, and what it may do is none (spec 4.4, 5.1 to 5.6)."""

from collections.abc import Callable
from typing import Final

import builders
import pytest
from dump.tape import LinkTape, Tape, error_of, finding_names, findings_in, through

from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, Hello, HelloAck
from paygate.dump.links import Links
from paygate.dump.model import SeenFrame, Side, StreamEvent

TERMS: Final = builders.build_terms()
example = builders.example


def judge(send: Callable[[LinkTape], object], *, is_bank_link: bool = False) -> tuple[str, str, str]:
    """What is found of an open link on which `send` sends one wrong frame: name, path, section."""
    tape = Tape()
    link = LinkTape(tape, is_bank_link=is_bank_link)
    send(link)
    wrong = tape.items[-1]
    assert isinstance(wrong, SeenFrame)
    (finding,) = findings_in(through(Links(), tape.items)[: len(tape.items)])
    assert wrong.findings == (finding,)
    assert finding.frame_offset == wrong.offset
    assert finding.offset is not None
    assert wrong.offset < finding.offset < wrong.offset + len(wrong.data)
    assert finding.expected
    assert finding.got
    return finding.name, finding.path, finding.section


def test_a_reply_under_a_number_that_waits_for_nothing_is_found() -> None:
    found = judge(lambda link: link.answer(example(Kind.TOKEN_ACK), 44))
    assert found == ("UNKNOWN_CORRELATION", "correlation_id", "5.2")


def test_an_error_that_answers_nothing_is_found() -> None:
    found = judge(lambda link: link.answer(error_of(ErrorCode.TOO_MANY_REQUESTS), 44))
    assert found == ("UNKNOWN_CORRELATION", "correlation_id", "5.2")


def test_a_second_reply_is_found() -> None:
    def answer_twice(link: LinkTape) -> None:
        link.ask(example(Kind.TOKEN_QUERY), 5)
        link.answer(example(Kind.TOKEN_ACK), 5)
        link.answer(example(Kind.TOKEN_ACK), 5)

    assert judge(answer_twice) == ("UNKNOWN_CORRELATION", "correlation_id", "5.2")


def test_a_reply_of_another_kind_is_found_and_answers_nothing() -> None:
    def answer_wrongly(link: LinkTape) -> None:
        link.ask(example(Kind.TOKEN_QUERY), 5)
        assert link.answer(example(Kind.STATUS_ACK), 5).answers is None

    assert judge(answer_wrongly) == ("UNEXPECTED_MESSAGE", "kind", "5.2")


def test_a_request_that_is_repeated_while_its_number_waits_is_found() -> None:
    def ask_twice(link: LinkTape) -> None:
        link.ask(example(Kind.TOKEN_QUERY), 5)
        link.ask(example(Kind.STATUS_QUERY), 5)

    assert judge(ask_twice) == ("DUPLICATE_CORRELATION", "correlation_id", "5.2")


@pytest.mark.parametrize("kind", [Kind.TOKEN_QUERY, Kind.BANK_KEYS_QUERY])
def test_a_gateway_that_asks_its_client_is_found(kind: Kind) -> None:
    assert judge(lambda link: link.answer(example(kind), 5)) == ("UNEXPECTED_MESSAGE", "kind", "4.2")


def test_a_token_query_on_a_bank_link_is_found() -> None:
    found = judge(lambda link: link.ask(example(Kind.TOKEN_QUERY), 5), is_bank_link=True)
    assert found == ("UNEXPECTED_MESSAGE", "kind", "4.2")


def test_an_answer_to_a_request_that_nobody_may_ask_is_not_found_once_more() -> None:
    tape = Tape()
    link = LinkTape(tape)
    asked = link.answer(example(Kind.TOKEN_QUERY), 5)
    answered = link.ask(example(Kind.TOKEN_ACK), 5)
    through(Links(), tape.items)
    assert (len(asked.findings), answered.findings, answered.answers) == (1, (), asked)


def test_a_kind_of_the_pipes_on_a_socket_is_found() -> None:
    found = judge(lambda link: link.ask(example(Kind.OPEN_ENVELOPE), 5))
    assert found == ("UNEXPECTED_MESSAGE", "kind", "4.2")


def test_a_second_hello_and_a_second_hello_ack_are_found() -> None:
    assert judge(lambda link: link.ask(example(Kind.HELLO), 5), is_bank_link=True)[0] == "UNEXPECTED_MESSAGE"
    assert judge(lambda link: link.answer(example(Kind.HELLO_ACK), 5), is_bank_link=True)[0] == "UNEXPECTED_MESSAGE"


def test_a_frame_behind_an_error_that_closes_is_found() -> None:
    def go_on(link: LinkTape) -> None:
        link.ask(error_of(ErrorCode.BAD_VALUE), 0)
        link.ask(example(Kind.TOKEN_QUERY), 5)

    assert judge(go_on) == ("UNEXPECTED_MESSAGE", "kind", "5.6")


def test_what_the_other_end_had_sent_before_it_got_an_error_that_closes_is_legal() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.answer(error_of(ErrorCode.IDLE_TIMEOUT), 0)
    link.ask(Echo(bytes(8)), 5)
    assert finding_names(through(Links(), tape.items)[: len(tape.items)]) == []


def test_frames_before_hello_are_found_once_a_flow() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.note(flow, StreamEvent.OPENED)
    for number in (1, 2, 3):
        tape.frame(flow, Side.CALLER, example(Kind.TOKEN_QUERY), number)
    (finding,) = findings_in(through(Links(), tape.items)[:4])
    assert (finding.name, finding.section) == ("UNEXPECTED_MESSAGE", "5.1")


def test_a_frame_between_hello_and_hello_ack_is_found() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.note(flow, StreamEvent.OPENED)
    tape.frame(flow, Side.CALLER, Hello(Role.CLIENT, "eager", (1,)), 1)
    tape.frame(flow, Side.CALLER, example(Kind.TOKEN_QUERY), 2)
    (finding,) = findings_in(through(Links(), tape.items)[:3])
    assert (finding.name, finding.section) == ("UNEXPECTED_MESSAGE", "5.1")


def test_a_hello_from_the_end_that_was_called_is_found() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.note(flow, StreamEvent.OPENED)
    tape.frame(flow, Side.ANSWERER, Hello(Role.CLIENT, "odd", (1,)), 1)
    assert finding_names(through(Links(), tape.items)[:2]) == ["UNEXPECTED_MESSAGE"]


@pytest.mark.parametrize(
    ("caller", "answerer", "at_fault"),
    [(Role.BANK, Role.BANK, Side.CALLER), (Role.CLIENT, Role.CLIENT, Side.ANSWERER)],
)
def test_a_role_that_does_not_stand_at_that_end_is_found(caller: Role, answerer: Role, at_fault: Side) -> None:
    tape = Tape()
    flow = tape.flow()
    tape.note(flow, StreamEvent.OPENED)
    link_key = builders.LINK_KEY if caller is Role.BANK else None
    tape.frame(flow, Side.CALLER, Hello(caller, "one", (1,)), 1, link_key=link_key)
    tape.frame(flow, Side.ANSWERER, HelloAck(answerer, "two", 1, 65_571), 1, link_key=link_key)
    (finding,) = findings_in(through(Links(), tape.items))
    assert (finding.name, finding.path, finding.section, finding.side) == ("BAD_VALUE", "role", "5.1", at_fault)


def test_macs_on_a_client_link_are_found_once() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for number in (5, 6):
        tape.frame(link.flow, Side.CALLER, Echo(bytes(8)), number, link_key=builders.LINK_KEY)
    found = findings_in(through(Links(), tape.items)[: len(tape.items)])
    assert [(f.name, f.path, f.section) for f in found] == [("UNEXPECTED_MAC", "flags", "4.4")]


def test_frames_without_a_mac_on_a_bank_link_are_found_once() -> None:
    tape = Tape()
    link = LinkTape(tape, is_bank_link=True)
    for number in (5, 6):
        tape.frame(link.flow, Side.CALLER, Echo(bytes(8)), number)
    found = findings_in(through(Links(), tape.items)[: len(tape.items)])
    assert [(f.name, f.path, f.section) for f in found] == [("NOT_AUTHENTICATED", "flags", "4.4")]


def test_an_error_without_a_mac_is_found_once_the_bank_link_is_open() -> None:
    tape = Tape()
    link = LinkTape(tape, is_bank_link=True)
    tape.frame(link.flow, Side.ANSWERER, error_of(ErrorCode.IDLE_TIMEOUT), 0)
    assert finding_names(through(Links(), tape.items)) == ["NOT_AUTHENTICATED"]


@pytest.mark.parametrize(
    ("role", "link_key", "name"),
    [(Role.GATEWAY, None, "NOT_AUTHENTICATED"), (Role.CLIENT, builders.LINK_KEY, "UNEXPECTED_MAC")],
)
def test_a_hello_with_a_mac_where_none_belongs_or_without_one_is_found(
    role: Role, link_key: bytes | None, name: str
) -> None:
    tape = Tape()
    tape.frame(tape.flow(), Side.CALLER, Hello(role, "one", (1,)), 1, link_key=link_key)
    assert finding_names(through(Links(), tape.items)[:1]) == [name]


def test_an_error_with_a_mac_on_a_client_link_is_found_before_hello_ack_too() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.frame(flow, Side.CALLER, Hello(Role.CLIENT, "one", (1,)), 1)
    tape.frame(flow, Side.ANSWERER, error_of(ErrorCode.INTERNAL), 0, link_key=builders.LINK_KEY)
    assert finding_names(through(Links(), tape.items)) == ["UNEXPECTED_MAC"]


def test_a_bank_refuses_a_stranger_without_a_mac_and_that_is_legal() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.note(flow, StreamEvent.OPENED)
    tape.frame(flow, Side.CALLER, Hello(Role.GATEWAY, "GW9", (1,)), 1, link_key=builders.LINK_KEY)
    tape.frame(flow, Side.ANSWERER, error_of(ErrorCode.UNKNOWN_PARTY), 0)
    tape.note(flow, StreamEvent.CLOSED)
    assert finding_names(through(Links(), tape.items)) == []


def test_a_full_server_says_so_before_hello_and_that_is_legal() -> None:
    tape = Tape()
    flow = tape.flow()
    tape.note(flow, StreamEvent.OPENED)
    tape.frame(flow, Side.ANSWERER, error_of(ErrorCode.TOO_MANY_CONNECTIONS), 0)
    tape.note(flow, StreamEvent.CLOSED)
    assert finding_names(through(Links(), tape.items)) == []


def test_an_error_that_does_not_close_answers_its_request_and_is_about_its_payment() -> None:
    tape = Tape()
    link = LinkTape(tape)
    query = link.ask(example(Kind.STATUS_QUERY), 5)
    refusal = link.answer(error_of(ErrorCode.TOO_MANY_REQUESTS), 5)
    link.note(StreamEvent.CLOSED)
    assert finding_names(through(Links(), tape.items)) == []
    assert refusal.answers is query
    assert refusal.payment_id == TERMS.payment_id
