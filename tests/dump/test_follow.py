"""The story of one payment over all links."""

from dataclasses import replace
from typing import Final

import builders
import pytest
from dump.tape import LinkTape, Tape, error_of, session, through
from hypothesis import given, settings
from hypothesis import strategies as st
from specgen.vector_fixtures import UTR
from specgen.vector_session import DECLINED, FENCED, PAID, Payment

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import Kind, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    EncryptedCredentials,
    PaymentAck,
    StatusAck,
    StatusQuery,
    TokenQuery,
    TransferRequest,
    TransferResult,
)
from paygate.dump import follow, story
from paygate.dump.follow import Follow
from paygate.dump.links import Links
from paygate.dump.model import Finding, Item, SeenFrame, StreamEvent, StreamNote

PAID_ID: Final = PAID.terms.payment_id.hex()
PAID_STORY: Final = [
    Kind.HELLO, Kind.HELLO_ACK, Kind.BANK_KEYS_QUERY, Kind.TOKEN_QUERY, Kind.BANK_KEYS, Kind.TOKEN_ACK,
    Kind.ENCRYPTED_CREDENTIALS, Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT, Kind.PAYMENT_ACK, Kind.STATUS_QUERY,
    Kind.STATUS_ACK,
]  # fmt: skip


def sessions(*payments: Payment) -> list[Item]:
    """Whole sessions on connections of their own, mixed: one item of each in turn."""
    links = Links()
    tracks = [list(session(payment)) for payment in payments]
    mixed = [track[n] for n in range(max(map(len, tracks))) for track in tracks if n < len(track)]
    for index, item in enumerate((item for item in mixed if isinstance(item, SeenFrame)), start=1):
        item.index = index
    return through(links, mixed)


def told(wanted: str, items: list[Item]) -> tuple[list[Item], Follow]:
    """What is shown of the items, and who chose it; the input was read to its end without an error."""
    chosen = Follow(wanted)
    out = [item for given in items for item in chosen.receive(given)]
    chosen.finish()
    return out, chosen


def kinds_of(items: list[Item]) -> list[Kind]:
    """The kinds of the frames among them."""
    return [item.kind for item in items if isinstance(item, SeenFrame)]


def events_of(items: list[Item]) -> list[StreamEvent]:
    """What happened to connections."""
    return [item.event for item in items if isinstance(item, StreamNote)]


def places_in(items: list[Item], out: list[Item]) -> list[int]:
    """Where each item that is shown stands in the input."""
    places = {id(item): n for n, item in enumerate(items)}
    return [places[id(item)] for item in out]


# -- one payment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [PAID_ID, PAID_ID[:4], PAID_ID.upper(), PAID.transaction_id, UTR])
def test_a_payment_is_told_from_connect_to_last_answer_in_order_by_whatever_names_it(wanted: str) -> None:
    items = sessions(PAID, DECLINED, FENCED)
    out, _ = told(wanted, items)
    assert kinds_of(out) == PAID_STORY
    assert places_in(items, out) == sorted(places_in(items, out))
    # Of the client's connection, not of the bank link, which many payments share.
    assert events_of(out) == [StreamEvent.OPENED, StreamEvent.CLOSED]


def test_a_payment_in_doubt_is_told_on_both_of_its_bank_links() -> None:
    items = sessions(PAID, FENCED)
    out, _ = told(FENCED.transaction_id, items)
    assert kinds_of(out)[6:] == [
        Kind.ENCRYPTED_CREDENTIALS, Kind.RESOLVE_REQUEST, Kind.RESOLVE_RESULT, Kind.PAYMENT_ACK,
    ]  # fmt: skip


def test_a_bank_link_that_breaks_under_the_request_is_part_of_the_story() -> None:
    items = through(Links(), session(FENCED, with_lost=True))
    out, _ = told(FENCED.terms.payment_id.hex(), items)
    at = kinds_of(out).index(Kind.TRANSFER_REQUEST)
    assert kinds_of(out)[at:] == [
        Kind.TRANSFER_REQUEST, Kind.RESOLVE_REQUEST, Kind.RESOLVE_RESULT, Kind.PAYMENT_ACK,
    ]  # fmt: skip
    behind = out[out.index(next(i for i in out if isinstance(i, SeenFrame) and i.kind is Kind.TRANSFER_REQUEST)) + 1 :]
    assert isinstance(behind[0], StreamNote)
    assert behind[0].event is StreamEvent.CLOSED
    assert isinstance(behind[1], Finding)
    assert behind[1].name == "UNANSWERED"


def test_it_is_told_as_it_comes() -> None:
    items = sessions(PAID)
    chosen = Follow(PAID_ID)
    shown_at = {
        item.kind: n for n, given in enumerate(items) for item in chosen.receive(given) if isinstance(item, SeenFrame)
    }
    at = {item.kind: n for n, item in enumerate(items) if isinstance(item, SeenFrame) and item.flow.number == 2}
    assert shown_at[Kind.HELLO] == at[Kind.ENCRYPTED_CREDENTIALS]
    assert shown_at[Kind.PAYMENT_ACK] == at[Kind.PAYMENT_ACK]


def test_a_question_on_another_connection_belongs_to_it_with_what_opened_that_connection() -> None:
    tape = Tape()
    first = LinkTape(tape)
    first.ask(builders.example(Kind.TOKEN_QUERY), 2)
    first.answer(builders.example(Kind.TOKEN_ACK), 2)
    first.ask(builders.example(Kind.ENCRYPTED_CREDENTIALS), 3)
    first.note(StreamEvent.CLOSED)
    again = LinkTape(tape)
    other = LinkTape(tape)
    other.ask(TokenQuery("TX-77", "1"), 2)
    tape.finding(other.flow)
    again.ask(builders.example(Kind.STATUS_QUERY), 2)
    again.answer(builders.example(Kind.STATUS_ACK), 2)
    mine = tape.finding(again.flow)
    again.answer(error_of(ErrorCode.IDLE_TIMEOUT), 0)
    again.note(StreamEvent.CLOSED)
    out, _ = told(builders.build_terms().payment_id.hex(), through(Links(), tape.items))
    assert kinds_of(out) == [
        Kind.HELLO, Kind.HELLO_ACK, Kind.TOKEN_QUERY, Kind.TOKEN_ACK, Kind.ENCRYPTED_CREDENTIALS,
        Kind.HELLO, Kind.HELLO_ACK, Kind.STATUS_QUERY, Kind.STATUS_ACK, Kind.ERROR,
    ]  # fmt: skip
    assert {item.flow for item in out if item.flow is not None} == {first.flow, again.flow}
    assert mine in out


def test_what_else_is_said_on_its_connection_is_not_of_the_story() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(builders.example(Kind.STATUS_QUERY), 2)
    link.ask(TokenQuery("TX-77", "1"), 3)
    link.answer(error_of(ErrorCode.TOO_MANY_REQUESTS), 3)
    link.answer(builders.example(Kind.STATUS_ACK), 2)
    out, _ = told(builders.build_terms().payment_id.hex(), through(Links(), tape.items))
    assert kinds_of(out) == [Kind.HELLO, Kind.HELLO_ACK, Kind.STATUS_QUERY, Kind.STATUS_ACK]


def test_a_token_that_is_tried_twice_is_told_with_both_payments_by_its_transaction() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for n, status in enumerate((PaymentStatus.DECLINED, PaymentStatus.PAID)):
        terms = builders.build_terms(payment_id=bytes([n + 1]) * 16, session_id=bytes([n + 9]) * 16)
        link.ask(builders.example(Kind.TOKEN_QUERY), 10 * n + 2)
        link.answer(builders.build_token_ack(session_id=terms.session_id), 10 * n + 2)
        credentials = EncryptedCredentials(terms.session_id, terms.payment_id, builders.NOW_MS, b"k" * 8, b"e")
        link.ask(credentials, 10 * n + 3)
        reason = Reason.FUNDS if status is PaymentStatus.DECLINED else Reason.NONE
        utr = builders.UTR if status is PaymentStatus.PAID else ""
        link.answer(PaymentAck(terms.payment_id, status, reason, utr, b"receipt"), 10 * n + 3)
    items = through(Links(), tape.items)
    out, chosen = told(builders.TRANSACTION_ID, items)
    assert kinds_of(out) == kinds_of(items)
    assert [each.told for each in chosen.stories] == [PaymentStatus.DECLINED, PaymentStatus.PAID]
    by_id, _ = told("02" * 16, items)
    assert kinds_of(by_id) == [
        Kind.HELLO, Kind.HELLO_ACK, Kind.TOKEN_QUERY, Kind.TOKEN_ACK, Kind.ENCRYPTED_CREDENTIALS, Kind.PAYMENT_ACK,
    ]  # fmt: skip


@pytest.mark.parametrize("wanted", [builders.UTR, builders.TRANSACTION_ID])
def test_a_token_that_turns_out_to_be_paid_is_told_with_its_question_once(wanted: str) -> None:
    tape = Tape()
    first = LinkTape(tape)
    first.ask(builders.example(Kind.ENCRYPTED_CREDENTIALS), 3)
    first.answer(builders.example(Kind.PAYMENT_ACK), 3)
    again = LinkTape(tape)
    again.ask(builders.example(Kind.TOKEN_QUERY), 2)
    paid = replace(
        builders.build_token_ack(), status=TokenStatus.PAID, session_id=bytes(16), session_left_ms=0, utr=builders.UTR
    )
    again.answer(paid, 2)
    items = through(Links(), tape.items)
    out, _ = told(wanted, items)
    of_token = [item for item in out if item.flow is again.flow]
    assert kinds_of(of_token) == [Kind.HELLO, Kind.HELLO_ACK, Kind.TOKEN_QUERY, Kind.TOKEN_ACK]
    assert places_in(items, of_token) == sorted(places_in(items, of_token))


def test_a_token_that_was_never_paid_is_told_by_its_transaction() -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(builders.example(Kind.TOKEN_QUERY), 2)
    out, chosen = told(builders.TRANSACTION_ID, through(Links(), tape.items))
    assert kinds_of(out) == [Kind.HELLO, Kind.HELLO_ACK, Kind.TOKEN_QUERY]
    assert chosen.story_summary() == ["TX-1001: no payment was seen, only its token"]


# -- what cannot be followed -----------------------------------------------------------------------------


def error_from(wanted: str, items: list[Item]) -> str:
    """What is said at the end."""
    chosen = Follow(wanted)
    for item in items:
        chosen.receive(item)
    with pytest.raises(PaygateExit) as caught:
        chosen.finish()
    assert caught.value.code is ExitCode.USAGE
    return str(caught.value)


def test_an_unknown_payment_is_an_error_that_says_which_there_are() -> None:
    error = error_from("deadbeef", sessions(PAID, DECLINED))
    assert "no such payment" in error
    for payment in (PAID, DECLINED):
        assert f"{payment.terms.payment_id.hex()} ({payment.transaction_id})" in error


def test_an_input_without_any_payment_says_so() -> None:
    assert "shows no payment at all" in error_from("TX-404", [])


def test_many_payments_are_listed_up_to_a_bound() -> None:
    error = error_from("deadbeef", status_queries(40))
    assert error.count("TX-1001") == follow.LISTED_COUNT_MAX
    assert error.endswith(" and more")


def status_queries(count: int) -> list[Item]:
    """Questions about `count` payments whose IDs all begin with 0000."""
    tape = Tape()
    link = LinkTape(tape)
    for n in range(1, count + 1):
        link.ask(StatusQuery(n.to_bytes(16), builders.TRANSACTION_ID, "1"), n + 1)
    return through(Links(), tape.items[: count + 3])


def test_a_beginning_that_names_several_shows_the_first_and_lists_the_others() -> None:
    items = status_queries(3)
    chosen = Follow("0000")
    out = [item for given in items for item in chosen.receive(given)]
    assert [item.payment_id for item in out if isinstance(item, SeenFrame) and item.payment_id] == [bytes(15) + b"\1"]
    error = error_from("0000", items)
    assert [n for n in range(1, 5) if n.to_bytes(16).hex() in error] == [1, 2, 3]
    assert "give more digits" in error


@pytest.mark.parametrize("wanted", ["", "a b", "-x", "ab" * 17])
def test_what_names_nothing_is_refused_at_once(wanted: str) -> None:
    with pytest.raises(PaygateExit) as caught:
        Follow(wanted)
    assert caught.value.code is ExitCode.USAGE


# -- the summary -----------------------------------------------------------------------------------------


def test_the_summary_tells_what_became_of_it_and_how_long_each_hop_took() -> None:
    _, chosen = told(PAID_ID, sessions(PAID))
    (found,) = chosen.stories
    assert (found.told, found.outcome, found.utr) == (PaymentStatus.PAID, TransferOutcome.POSTED, UTR)
    queried = session(PAID)
    times = {item.kind: item.time_ns for item in queried if isinstance(item, SeenFrame)}
    asked_ns, answered_ns = times[Kind.TOKEN_QUERY], times[Kind.PAYMENT_ACK]
    assert asked_ns is not None
    assert answered_ns is not None
    assert found.duration_ns == answered_ns - asked_ns
    assert [(hop.request, hop.outcome) for hop in found.hops] == [
        (Kind.TOKEN_QUERY, "VALID"),
        (Kind.TRANSFER_REQUEST, "POSTED"),
        (Kind.ENCRYPTED_CREDENTIALS, "PAID"),
        (Kind.STATUS_QUERY, "PAID"),
    ]
    lines = chosen.story_summary()
    assert lines[0] == f"payment {PAID_ID} of TX-1001"
    assert lines[1] == f"  the client was told PAID, the bank said POSTED, UTR {UTR}"
    assert lines[3].startswith("  TokenQuery -> TokenAck VALID after 2")
    assert lines[3].endswith("(flow 2)")


def test_the_summary_of_a_decline_says_why() -> None:
    _, chosen = told(DECLINED.transaction_id, sessions(DECLINED))
    assert chosen.story_summary()[1] == (
        "  the client was told DECLINED, the bank said DECLINED (CREDENTIALS: user ID or password not accepted; after "
        "several failures the bank waits longer each time)"
    )


def test_the_time_of_a_payment_counts_from_its_token_query_also_if_that_was_told_before_the_payment() -> None:
    by_transaction = told(PAID.transaction_id, sessions(PAID))[1].stories[0]
    by_id = told(PAID_ID, sessions(PAID))[1].stories[0]
    assert by_transaction.duration_ns == by_id.duration_ns
    assert by_transaction.hops == by_id.hops


def test_a_capture_of_the_bank_link_alone_tells_when_the_bank_decided_and_keeps_the_utr() -> None:
    tape = Tape()
    bank, client = LinkTape(tape, is_bank_link=True), LinkTape(tape, is_whole=False)
    asked = bank.ask(builders.example(Kind.TRANSFER_REQUEST), 2)
    decided = bank.answer(builders.example(Kind.TRANSFER_RESULT), 2)
    client.answer(
        PaymentAck(asked_id := builders.build_terms().payment_id, PaymentStatus.PENDING, Reason.NONE, "", b""), 9
    )
    _, chosen = told(asked_id.hex(), through(Links(), tape.items))
    (found,) = chosen.stories
    assert found.duration_ns == decided.latency_ns
    assert (found.first_ns, found.final_ns) == (asked.time_ns, decided.time_ns)
    assert chosen.story_summary()[1] == f"  the client was told PENDING, the bank said POSTED, UTR {builders.UTR}"


def test_requests_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "HOP_COUNT_MAX", 2)
    lines = told(PAID_ID, sessions(PAID))[1].story_summary()
    assert len(lines) == 6
    assert lines[-1] == "  and 2 more requests"


def test_a_payment_that_the_gateway_refuses_is_told_as_that() -> None:
    tape = Tape()
    link = LinkTape(tape)
    payment_id = builders.build_terms().payment_id
    link.ask(builders.example(Kind.ENCRYPTED_CREDENTIALS), 3)
    link.answer(PaymentAck(payment_id, PaymentStatus.REFUSED, Reason.SESSION, "", b""), 3)
    (found,) = told(payment_id.hex(), through(Links(), tape.items))[1].stories
    assert (found.told, found.reason) == (PaymentStatus.REFUSED, Reason.SESSION)


def test_the_first_final_answer_of_the_bank_is_when_it_decided_and_unavailable_is_none() -> None:
    tape = Tape()
    bank = LinkTape(tape, is_bank_link=True)
    payment_id = builders.build_terms().payment_id
    bank.ask(builders.example(Kind.TRANSFER_REQUEST), 2)
    bank.answer(TransferResult(payment_id, TransferOutcome.UNAVAILABLE, Reason.NONE, "", b""), 2)
    decided = None
    for number in (3, 4):
        bank.ask(builders.example(Kind.RESOLVE_REQUEST), number)
        answer = bank.answer(builders.example(Kind.RESOLVE_RESULT), number)
        decided = decided or answer
    (found,) = told(payment_id.hex(), through(Links(), tape.items))[1].stories
    assert found.outcome is TransferOutcome.FENCED
    assert decided is not None
    assert found.final_ns == decided.time_ns


def test_without_times_there_is_a_story_without_durations() -> None:
    items = sessions(PAID)
    for item in items:
        if isinstance(item, SeenFrame):
            item.time_ns = item.latency_ns = None
    _, chosen = told(PAID_ID, items)
    assert chosen.stories[0].duration_ns is None
    assert chosen.story_summary()[2] == "  TokenQuery -> TokenAck VALID (flow 2)"


def test_a_question_that_is_refused_takes_no_answer_back() -> None:
    tape = Tape()
    link = LinkTape(tape)
    payment_id = builders.build_terms().payment_id
    link.ask(builders.example(Kind.STATUS_QUERY), 2)
    link.answer(StatusAck(payment_id, PaymentStatus.PENDING, Reason.NONE, "", b""), 2)
    link.ask(builders.example(Kind.STATUS_QUERY), 3)
    link.answer(StatusAck(payment_id, PaymentStatus.REFUSED, Reason.PASSCODE, "", b""), 3)
    _, chosen = told(payment_id.hex(), through(Links(), tape.items))
    assert chosen.stories[0].told is PaymentStatus.PENDING
    assert chosen.stories[0].duration_ns is None


# -- bounds ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test reaches."""
    monkeypatch.setattr(follow, "FLOW_COUNT_MAX", 4)
    monkeypatch.setattr(follow, "SESSION_COUNT_MAX", 4)
    monkeypatch.setattr(follow, "HELD_FRAME_COUNT_MAX", 10)
    monkeypatch.setattr(follow, "STORY_COUNT_MAX", 3)


@pytest.mark.usefixtures("small_tables")
def test_what_was_forgotten_is_missing_and_the_rest_is_told() -> None:
    tape = Tape()
    for n in range(1, 30):
        link = LinkTape(tape)
        terms = builders.build_terms(payment_id=bytes([n]) * 16, session_id=bytes([n]) * 16)
        link.ask(TokenQuery(f"TX-{n}", "1"), 2)
        link.answer(builders.build_token_ack(session_id=terms.session_id), 2)
    bank = LinkTape(tape, is_bank_link=True)
    for n in range(1, 30):
        terms = builders.build_terms(payment_id=bytes([n]) * 16, session_id=bytes([n]) * 16, transaction_id=f"TX-{n}")
        bank.ask(TransferRequest(terms, 1, b"k" * 8, b"e"), n + 2)
    for n in (1, 29):
        utr = f"PGBKP1202601020000{n:04}"
        bank.answer(TransferResult(bytes([n]) * 16, TransferOutcome.POSTED, Reason.NONE, utr, b"receipt"), n + 2)
    items = through(Links(), tape.items)
    first, chosen = told("PGBKP12026010200000001", items)
    assert kinds_of(first) == [Kind.TRANSFER_RESULT]
    assert chosen.held_count <= 10
    last, _ = told("PGBKP12026010200000029", items)
    assert kinds_of(last) == [
        Kind.HELLO, Kind.HELLO_ACK, Kind.TOKEN_QUERY, Kind.TOKEN_ACK, Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT,
    ]  # fmt: skip


@pytest.mark.usefixtures("small_tables")
def test_connections_that_have_ended_do_not_push_out_what_opened_one_that_goes_on() -> None:
    tape = Tape()
    lasting = LinkTape(tape)
    for _ in range(20):
        LinkTape(tape).note(StreamEvent.CLOSED)
    lasting.ask(builders.example(Kind.STATUS_QUERY), 2)
    out, _ = told(builders.build_terms().payment_id.hex(), through(Links(), tape.items))
    assert kinds_of(out) == [Kind.HELLO, Kind.HELLO_ACK, Kind.STATUS_QUERY]


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from([PAID, DECLINED, FENCED]), min_size=1, max_size=3, unique=True),
    st.sampled_from([PAID_ID, PAID_ID[:5], "TX-1001", "TX-1002", UTR, "0000"]),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_of_any_part_of_a_capture_every_item_is_told_once_at_most(
    payments: list[Payment], wanted: str, start: int, size: int
) -> None:
    items = sessions(*payments)[start : start + size]
    chosen = Follow(wanted)
    out = [item for given in items for item in chosen.receive(given)]
    shown = {id(item) for item in out}
    assert len(shown) == len(out)
    mine = [i for i in items if isinstance(i, SeenFrame) and wanted.startswith("TX") and i.transaction_id == wanted]
    assert {id(item) for item in mine} <= shown
