"""Which items are shown, and what the command line takes."""

import argparse
from typing import Any, Final

import builders
import pytest
from dump.tape import BEGIN_NS, STEP_NS, LinkTape, Tape, error_of, session, through
from specgen.vector_session import DECLINED, FENCED, PAID

from paygate.codec.codes import Kind, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import MESSAGES
from paygate.dump import filters
from paygate.dump.filters import OUTCOME_NAMES, Filter, outcomes_of
from paygate.dump.links import Links
from paygate.dump.model import Finding, Item, SeenFrame, StreamEvent, StreamNote

NS: Final = 1_000_000_000
MIDNIGHT_NS: Final = builders.NOW_MS * 1_000_000
"""2026-01-02T00:00:00Z."""


OPTIONS: Final[list[dict[str, Any]]] = [
    {"kinds": [Kind.TOKEN_ACK]},
    {"flows": [1]},
    {"payment": PAID.terms.payment_id.hex()},
    {"transaction": PAID.transaction_id},
    {"since": filters.time("+0")},
    {"until": filters.time("+9")},
    {"outcomes": ["PAID"]},
    {"findings_only": True},
]
"""Each option by itself."""


def chosen(items: list[Item], **options: Any) -> list[Item]:
    """What passes."""
    choice = Filter(**options)
    return [item for item in items if choice.passes(item)]


def kinds_of(items: list[Item]) -> list[Kind]:
    """The kinds of the frames among them."""
    return [item.kind for item in items if isinstance(item, SeenFrame)]


def seen(*payments: Any) -> list[Item]:
    """Whole sessions, one behind the other, with their IDs known."""
    links = Links()
    return [item for payment in payments for item in through(links, session(payment))]


# -- choosing --------------------------------------------------------------------------------------------


def test_without_options_everything_passes() -> None:
    items = seen(PAID)
    assert Filter().is_everything
    assert not any(Filter(**option).is_everything for option in OPTIONS)
    assert chosen(items) == items


def test_frames_are_chosen_by_any_of_several_kinds_and_notes_of_connections_are_left_out() -> None:
    items = chosen(seen(PAID), kinds=[Kind.TOKEN_QUERY, Kind.TOKEN_ACK])
    assert kinds_of(items) == [Kind.TOKEN_QUERY, Kind.TOKEN_ACK]
    assert len(items) == 2


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: next(iter(option)))
def test_notes_of_connections_are_chosen_by_flow_and_time_only(option: dict[str, Any]) -> None:
    notes = [item for item in chosen(seen(PAID), **option) if isinstance(item, StreamNote)]
    assert bool(notes) is (next(iter(option)) in ("flows", "since", "until"))


def test_a_flow_is_chosen_with_its_notes_and_findings() -> None:
    items = seen(FENCED)
    found = chosen(items, flows=[3])
    assert {item.flow.number for item in found if item.flow is not None} == {3}
    assert [item.event for item in found if isinstance(item, StreamNote)] == [StreamEvent.OPENED, StreamEvent.CLOSED]
    assert chosen(items, flows=[1, 2, 3]) == items


def test_a_payment_is_chosen_by_the_beginning_of_its_id_on_both_links() -> None:
    items = chosen(seen(PAID, DECLINED), payment=PAID.terms.payment_id.hex()[:6])
    assert kinds_of(items) == [
        Kind.ENCRYPTED_CREDENTIALS, Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT, Kind.PAYMENT_ACK, Kind.STATUS_QUERY,
        Kind.STATUS_ACK,
    ]  # fmt: skip


def test_a_transaction_is_chosen_from_its_token_query_on() -> None:
    items = chosen(seen(PAID, DECLINED), transaction=DECLINED.transaction_id)
    assert kinds_of(items) == [
        Kind.TOKEN_QUERY, Kind.TOKEN_ACK, Kind.ENCRYPTED_CREDENTIALS, Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT,
        Kind.PAYMENT_ACK,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "kinds"),
    [
        ("PAID", [Kind.PAYMENT_ACK, Kind.STATUS_ACK]),
        ("POSTED", [Kind.TRANSFER_RESULT]),
        ("FENCED", [Kind.RESOLVE_RESULT, Kind.PAYMENT_ACK]),
        ("CREDENTIALS", [Kind.TRANSFER_RESULT, Kind.PAYMENT_ACK]),
        ("VALID", [Kind.TOKEN_ACK] * 3),
    ],
)
def test_frames_are_chosen_by_what_they_say_became_of_something(outcome: str, kinds: list[Kind]) -> None:
    assert kinds_of(chosen(seen(PAID, DECLINED, FENCED), outcomes=[outcome])) == kinds


def test_an_error_code_chooses_error_frames_and_frames_with_that_finding() -> None:
    tape = Tape()
    link = LinkTape(tape)
    refused = link.answer(error_of(ErrorCode.UNKNOWN_CORRELATION), 0)
    wrong = link.ask(builders.example(Kind.ECHO_REPLY), 77)
    items = through(Links(), tape.items)
    assert chosen(items, outcomes=["UNKNOWN_CORRELATION"]) == [refused, wrong]


def test_options_must_all_agree() -> None:
    items = seen(PAID, DECLINED)
    assert kinds_of(chosen(items, kinds=[Kind.PAYMENT_ACK], outcomes=["DECLINED"])) == [Kind.PAYMENT_ACK]
    assert chosen(items, kinds=[Kind.PAYMENT_ACK], flows=[1]) == []


def test_only_what_is_wrong_leaves_findings_and_frames_that_have_some() -> None:
    tape = Tape()
    link = LinkTape(tape)
    alone = tape.finding(None, "CUT_SHORT")
    wrong = link.answer(builders.example(Kind.TOKEN_ACK), 77)
    assert chosen(through(Links(), tape.items), findings_only=True) == [alone, wrong]


def test_findings_that_stand_alone_are_chosen_by_flow_and_time_only() -> None:
    tape = Tape()
    first, second = LinkTape(tape), LinkTape(tape)
    one, two = tape.finding(first.flow), tape.finding(second.flow)
    of_input = tape.finding(None)
    assert chosen(tape.items, kinds=[Kind.ERROR]) == [one, two, of_input]
    assert chosen(tape.items, kinds=[Kind.ERROR], flows=[2]) == [two, of_input]
    assert chosen(tape.items, kinds=[Kind.ERROR], until=filters.time("+0")) == []


def test_time_is_chosen_from_and_to_with_both_ends() -> None:
    tape = Tape()
    link = LinkTape(tape)
    times = [item.time_ns for item in tape.items]
    assert times == [BEGIN_NS + STEP_NS * n for n in (1, 2, 3)]
    link.ask(builders.example(Kind.ECHO), 5)
    assert chosen(tape.items, since=filters.time("+0.001"), until=filters.time("+0.002")) == tape.items[1:3]
    assert chosen(tape.items, since=filters.time("2026-01-02T00:00:00.003Z")) == tape.items[2:]
    assert chosen(tape.items, until=filters.time("00:00:00.001")) == tape.items[:1]


def test_time_counts_from_the_first_packet_if_that_is_told() -> None:
    tape = Tape()
    LinkTape(tape)
    cases: list[tuple[dict[str, Any], list[Item]]] = [
        ({"since": filters.time("+0.003")}, tape.items[1:]),
        ({"until": filters.time("+0.003")}, tape.items[:2]),
        # The capture began on the day before its first frame.
        ({"since": filters.time("00:00:00.002")}, tape.items),
        ({"until": filters.time("23:59:59")}, []),
    ]
    for option, shown in cases:
        choice = Filter(**option)
        choice.begin(BEGIN_NS - STEP_NS)
        choice.begin(BEGIN_NS + NS)
        assert [item for item in tape.items if choice.passes(item)] == shown
    late = Filter(since=filters.time("+0.001"))
    assert [late.passes(item) for item in tape.items] == [False, True, True]
    late.begin(BEGIN_NS)
    assert not late.passes(tape.items[0])


def test_what_has_no_time_is_left_out_where_times_are_asked_for_but_findings_stay() -> None:
    items: list[Item] = [Finding("CUT_SHORT", "", "", "", 0, None)]
    tape = Tape()
    LinkTape(tape)
    untimed = tape.items[1]
    assert isinstance(untimed, SeenFrame)
    untimed.time_ns = None
    assert chosen([untimed, *items], since=filters.time("+0")) == items


# -- the command line ------------------------------------------------------------------------------------


def refusal_of(parse: Any, text: str) -> str:
    """What is said of an argument that is refused."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_is_taken_by_each_of_its_names(kind: Kind) -> None:
    name = MESSAGES[kind].__name__
    for text in (name, name.lower(), kind.name, kind.name.lower().replace("_", "-"), f"0x{kind:02X}"):
        assert filters.kind(text) is kind


def test_an_unknown_kind_is_refused_with_all_that_there_are() -> None:
    refusal = refusal_of(filters.kind, "Refund")
    assert all(message.__name__ in refusal for message in MESSAGES.values())


def test_a_payment_is_at_least_four_digits_of_hexadecimal() -> None:
    assert filters.payment("0aBc") == "0abc"
    assert filters.payment("ab" * 16) == "ab" * 16
    for text in ("abc", "xyzw", "ab" * 17, "", "abcd "):
        assert "4 to 32 hexadecimal digits" in refusal_of(filters.payment, text)


def test_a_flow_is_a_number_from_one() -> None:
    assert filters.flow("12") == 12
    for text in ("0", "-1", "1.5", "", "²"):
        assert "flow's number, from 1" in refusal_of(filters.flow, text)


def test_an_outcome_is_any_name_of_the_registries_in_any_case() -> None:
    for registry in (TokenStatus, PaymentStatus, TransferOutcome, Reason, ErrorCode):
        for code in registry:
            assert filters.outcome(code.name.lower()) == code.name
    assert "CLIENT" not in OUTCOME_NAMES
    assert "expected one of " in refusal_of(filters.outcome, "MAYBE")


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("2026-01-02T00:00:01Z", MIDNIGHT_NS + NS),
        ("2026-01-02T00:00:01.000000001Z", MIDNIGHT_NS + NS + 1),
        ("2026-01-02", MIDNIGHT_NS),
        ("23:59", MIDNIGHT_NS + 86_340 * NS),
        ("00:00:01.5", MIDNIGHT_NS + 1_500_000_000),
        ("00:00:01.5Z", MIDNIGHT_NS + 1_500_000_000),
        ("+0", MIDNIGHT_NS + 3_600 * NS),
        ("+1.25", MIDNIGHT_NS + 3_601 * NS + 250_000_000),
    ],
)
def test_a_time_means_a_moment_of_the_capture(text: str, time_ns: int) -> None:
    assert filters.time(text).time_ns(first_ns=MIDNIGHT_NS + 3_600 * NS) == time_ns


@pytest.mark.parametrize(
    "text", ["", "now", "24:00", "12:60", "2026-13-01", "2026-01-02T00:00:00", "2026-01-02.5", "+", "-1", "+1e3", "1.5"]
)
def test_what_is_no_time_is_refused_with_the_forms_that_there_are(text: str) -> None:
    assert filters.TIME_FORMS in refusal_of(filters.time, text)


def test_codes_are_found_by_the_declarations_but_roles_say_nothing_of_an_outcome() -> None:
    tape = Tape()
    link = LinkTape(tape)
    frame = link.answer(builders.example(Kind.STATUS_ACK), 5)
    assert outcomes_of(frame) == (PaymentStatus.DECLINED, Reason.FUNDS)
    hello = tape.items[1]
    assert isinstance(hello, SeenFrame)
    assert outcomes_of(hello) == ()
