"""The default output: a session as lines, what is wrong below its frame, and nothing that a peer could steer."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import builders
import pytest
from dump.tape import BEGIN_NS, LinkTape, Tape, damaged, session
from hypothesis import given, settings
from hypothesis import strategies as st
from specgen.vector_session import PAID
from strategies import records

from paygate.codec.codes import KemId, KeysStatus, Kind, PaymentStatus, Reason, Role, TokenStatus
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Record, Sensitivity, fields_of
from paygate.codec.messages import MESSAGES, EncryptedCredentials, Error, TokenQuery
from paygate.dump.lines import Lines, finding_text, summary
from paygate.dump.links import Links
from paygate.dump.model import Endpoint, Finding, FlowKind, Item, SeenFrame, Side, StreamEvent
from paygate.dump.output import Colours, latency_text
from paygate.dump.summary import coloured_code, quoted

SESSION_AS_LINES: Final = """\
2026-01-02
00:00:00.001000   1 127.0.0.1:40001 -> 127.0.0.1:15000 connected
00:00:00.002000   1 gateway GW1 -> bank                Hello                #1   GATEWAY party=GW1 versions=1
00:00:00.003000   1 bank BANK1 -> gateway GW1          HelloAck             #1   BANK party=BANK1 version=1  answers Hello after 1.00 ms
00:00:00.004000   1 gateway GW1 -> bank BANK1          BankKeysQuery        #2   bank=BANK1
00:00:00.005000   1 bank BANK1 -> gateway GW1          BankKeys             #2   AVAILABLE signed_key_list=<195 bytes>  answers BankKeysQuery after 1.00 ms
00:00:00.006000   2 127.0.0.1:40002 -> 127.0.0.1:15000 connected
00:00:00.007000   2 client -> gateway                  Hello                #1   CLIENT party=client versions=1
00:00:00.008000   2 gateway GW1 -> client              HelloAck             #1   GATEWAY party=GW1 version=1  answers Hello after 1.00 ms
00:00:00.009000   2 client -> gateway GW1              BankKeysQuery        #2   bank=BANK1
00:00:00.010000   2 client -> gateway GW1              TokenQuery           #3   transaction=TX-1001 passcode=<secret>
00:00:00.011000   2 gateway GW1 -> client              BankKeys             #2   AVAILABLE signed_key_list=<195 bytes>  answers BankKeysQuery after 2.00 ms
00:00:00.012000   2 gateway GW1 -> client              TokenAck             #3   VALID session=003e98d8 session_left=30s merchant=M-100 1250.00 INR  answers TokenQuery after 2.00 ms
00:00:10.001000   2 client -> gateway GW1              EncryptedCredentials #4   session=003e98d8 payment=01ee9381 key=d8dca9c0 envelope=<304 bytes, X25519>
00:00:10.002000   1 gateway GW1 -> bank BANK1          TransferRequest      #3   merchant=M-100 transaction=TX-1001 payment=01ee9381 1250.00 INR time_left=15s key=d8dca9c0 envelope=<304 bytes, X25519>
00:00:10.041000   1 bank BANK1 -> gateway GW1          TransferResult       #3   payment=01ee9381 POSTED utr=PGBKP12026010200000001 receipt=<222 bytes>  answers TransferRequest after 39.0 ms
00:00:10.042000   2 gateway GW1 -> client              PaymentAck           #4   payment=01ee9381 PAID utr=PGBKP12026010200000001 receipt=<222 bytes>  answers EncryptedCredentials after 41.0 ms
00:00:10.043000   2 client -> gateway GW1              StatusQuery          #5   payment=01ee9381 transaction=TX-1001 passcode=<secret>
00:00:10.044000   2 gateway GW1 -> client              StatusAck            #5   payment=01ee9381 PAID utr=PGBKP12026010200000001 receipt=<222 bytes>  answers StatusQuery after 1.00 ms
"""  # noqa: E501
_ANSI: Final = re.compile(r"\x1b\[[0-9]*m")


def lines_of(items: Iterable[Item], *, is_coloured: bool = False, show_secrets: bool = False) -> str:
    """All that the default output writes."""
    parts: list[str] = []
    lines = Lines(parts.append, Colours(is_coloured), show_secrets=show_secrets)
    for item in items:
        lines.receive(item)
    lines.finish()
    return "".join(parts)


def live(items: Iterable[Item]) -> Iterable[Item]:
    """As the pipeline gives them: each is shown before the next one is known."""
    links = Links()
    for item in items:
        yield from links.receive(item)
    yield from links.finish()


def finding_at(seen: SeenFrame, **changes: object) -> Finding:
    usual = Finding("BAD_MAC", "the right MAC", "another", "4.4", seen.number, seen.time_ns, seen.flow, seen.side)
    return replace(usual, **changes)  # type: ignore[arg-type]  # whatever a test wants


def test_a_paid_session_reads_as_a_story() -> None:
    assert lines_of(live(session(PAID))) == SESSION_AS_LINES


def test_connections_that_the_capture_left_open_are_counted_in_one_line() -> None:
    tape = Tape()
    notes = [tape.note(tape.flow(), StreamEvent.CAPTURE_ENDED) for _ in range(3)]
    assert lines_of(notes) == "the capture ended with 3 connections open\n"
    assert lines_of(notes[:1]) == "the capture ended with 1 connection open\n"


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_legal_message_is_one_printable_line(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(records(MESSAGES[kind]))
    for show_secrets in (False, True):
        tape = Tape()
        seen = tape.frame(tape.flow(), Side.CALLER, message, data.draw(st.integers(0, 2**64 - 1)))
        text = lines_of([seen], show_secrets=show_secrets)
        assert text.count("\n") == 2  # the day's, and its own
        assert text.replace("\n", "").isprintable()
        assert summary(seen, show_secrets=show_secrets) in text
        assert _ANSI.sub("", lines_of([seen], is_coloured=True, show_secrets=show_secrets)) == text


def secret_texts(cls: type[Record]) -> list[str]:
    return [f.name for f in fields_of(cls) if f.sensitivity is Sensitivity.SECRET]


@pytest.mark.parametrize("kind", [kind for kind in Kind if secret_texts(MESSAGES[kind])], ids=lambda kind: kind.name)
def test_secrets_are_masked_unless_they_are_asked_for(kind: Kind) -> None:
    canary = "canary7hunter2"
    usual = builders.example(kind)
    for name in secret_texts(type(usual)):
        value = canary if isinstance(getattr(usual, name), str) else canary.encode().ljust(32, b"x")
        tape = Tape()
        seen = tape.frame(tape.flow(), Side.CALLER, builders.with_changes(usual, **{name: value}), 1)
        masked, shown = lines_of([seen]), lines_of([seen], show_secrets=True)
        assert canary not in masked
        assert canary.encode().hex()[:8] not in masked
        assert "<secret>" in masked
        assert canary in shown or canary.encode().hex()[:8] in shown


def test_an_envelope_shows_its_size_its_key_and_the_suite_that_its_size_tells() -> None:
    for kem_id, size in ((KemId.X25519, 304), (KemId.MLKEM768_X25519, 1_392)):
        message = builders.with_changes(
            builders.example(Kind.ENCRYPTED_CREDENTIALS), envelope=builders.build_envelope(kem_id)
        )
        assert isinstance(message, EncryptedCredentials)
        link = LinkTape(Tape())
        text = summary(link.ask(message, 2), show_secrets=True)
        assert f"key={message.key_id.hex()[:8]} envelope=<{size} bytes, {kem_id.name}>" in text
    odd = builders.with_changes(builders.example(Kind.ENCRYPTED_CREDENTIALS), envelope=b"x" * 7)
    assert "envelope=<7 bytes, no known suite>" in summary(LinkTape(Tape()).ask(odd, 2), show_secrets=False)


def test_zero_and_empty_fields_are_left_out() -> None:
    link = LinkTape(Tape())
    ack = builders.build_token_ack(
        status=TokenStatus.LOCKED,
        session_id=bytes(16),
        session_left_ms=0,
        merchant_id="",
        merchant_name="",
        amount_minor=0,
        currency="",
    )
    assert summary(link.answer(ack, 2), show_secrets=False) == "LOCKED"


def test_a_day_is_told_when_it_is_first_known_and_when_it_changes() -> None:
    tape = Tape()
    flow = tape.flow()
    day_ns = 86_400 * 10**9
    times = [0, 999, day_ns - 1, day_ns, -1, None, 10**30, BEGIN_NS]
    frames = [replace(tape.frame(flow, Side.CALLER, builders.example(Kind.ECHO), 1), time_ns=time) for time in times]
    starts = [line[:15].rstrip() for line in lines_of(frames).splitlines()]
    assert starts == [
        *("1970-01-01", "00:00:00.000000", "00:00:00.000000", "23:59:59.999999"),
        *("1970-01-02", "00:00:00.000000", "1969-12-31", "23:59:59.999999", "-"),
        *("day 11574074074", f"{10**21 % 86_400 // 3_600:02}:46:40.000000", "2026-01-02", starts[-1]),
    ]


@pytest.mark.parametrize(
    ("latency_ns", "text"),
    [
        (0, "0 ns"),
        (412_300, "412 µs"),
        (12_400_000, "12.4 ms"),
        (999_600_000, "1.00 s"),
        (1_203_000_000, "1.20 s"),
        (1_203_000_000_000, "1203 s"),
        (-5_000, "-5.00 µs"),
        (None, ""),
    ],
)
def test_a_latency_has_the_unit_that_suits_it(latency_ns: int | None, text: str) -> None:
    assert latency_text(latency_ns) == text


def test_what_is_wrong_with_a_frame_stands_below_it() -> None:
    seen = LinkTape(Tape()).ask(builders.example(Kind.TOKEN_QUERY), 2)
    seen.findings = (finding_at(seen, offset=77, path="mac"), finding_at(seen, name="OTHER", expected="", section=""))
    line, first, second = lines_of([seen]).splitlines()[1:]
    assert "TokenQuery" in line
    assert first.strip() == "! BAD_MAC at offset 77, mac: expected the right MAC, got another (spec 4.4)"
    assert second.strip() == "! OTHER: got another"


def test_a_finding_by_itself_has_its_time_and_its_flow() -> None:
    seen = LinkTape(Tape()).ask(builders.example(Kind.TOKEN_QUERY), 2)
    alone = lines_of([finding_at(seen, flow=None)]).splitlines()[1]
    assert alone == "00:00:00.004000 ! BAD_MAC: expected the right MAC, got another (spec 4.4)"
    of_flow = lines_of([finding_at(seen)]).splitlines()[1]
    assert re.fullmatch(r"\S+   1 127\.0\.0\.1:40001 -> 127\.0\.0\.1:15000 ! BAD_MAC: .*", of_flow)


def test_a_body_that_breaks_its_declaration_shows_nothing_of_itself() -> None:
    seen = damaged(LinkTape(Tape()).ask(builders.example(Kind.TOKEN_QUERY), 2))
    assert lines_of([seen]).splitlines()[1].endswith("TokenQuery           #2   a broken body")
    assert summary(seen, show_secrets=True) == ""


def test_without_sides_the_kind_says_who_sends() -> None:
    tape = Tape()
    flow = tape.flow(FlowKind.BYTES, knows_sides=False)
    shown = {
        kind: lines_of([tape.frame(flow, Side.CALLER, builders.example(kind), 1)]).splitlines()[1]
        for kind in (Kind.TOKEN_QUERY, Kind.TRANSFER_RESULT, Kind.ECHO)
    }
    assert "client -> gateway " in shown[Kind.TOKEN_QUERY]
    assert "bank -> gateway " in shown[Kind.TRANSFER_RESULT]
    assert "? -> ? " in shown[Kind.ECHO]


def test_nothing_from_a_peer_or_a_file_steers_the_terminal() -> None:
    evil = "a\x1b[2J\nb\u202ec\u00a0"
    tape = Tape()
    flow = tape.flow()
    flow.caller = Endpoint(evil, 0)
    flow.roles[1], flow.party_ids[1] = Role.GATEWAY, evil
    seen = tape.frame(flow, Side.CALLER, builders.example(Kind.TOKEN_QUERY), 1)
    finding = finding_at(seen, name=evil, path=evil, expected=evil, got=evil, section=evil)
    seen.findings = (finding,)
    note = tape.note(flow, StreamEvent.OPENED)
    text = lines_of([seen, finding, note])
    assert len(text.splitlines()) == 5
    assert text.replace("\n", "").isprintable()


def test_a_text_with_blanks_can_not_pass_for_another_field() -> None:
    link = LinkTape(Tape())
    error = Error(ErrorCode.INTERNAL, closes=True, text='x" PAID utr="\\')
    assert summary(link.answer(error, 2), show_secrets=False) == r'INTERNAL closes=yes text="x\" PAID utr=\"\\"'
    assert quoted("\u00a0") == r'"\xa0"'


def test_codes_of_two_registries_are_never_taken_for_one_another() -> None:
    colours = Colours(is_on=True)
    for good in (TokenStatus.VALID, PaymentStatus.PAID):
        assert coloured_code(good, colours) == colours.good(good.name)
    for bad in (TokenStatus.INVALID, PaymentStatus.DECLINED, Reason.LATE, ErrorCode.BAD_MAGIC, PaymentStatus.REFUSED):
        assert coloured_code(bad, colours) == colours.bad(bad.name)
    for doubt in (TokenStatus.PAID, PaymentStatus.PENDING, ErrorCode.SHUTTING_DOWN):
        assert coloured_code(doubt, colours) == colours.doubt(doubt.name)
    assert coloured_code(KeysStatus.AVAILABLE, colours) == "AVAILABLE"


def test_lines_stay_aligned_as_parties_become_longer() -> None:
    tape = Tape()
    short, long = tape.flow(), tape.flow()
    long.roles[:], long.party_ids[:] = [Role.CLIENT, Role.GATEWAY], ["c" * 20, "g" * 20]
    query = TokenQuery("TX-1", "1234")
    order = [tape.frame(flow, Side.CALLER, query, 1) for flow in (short, long, short)]
    places = [line.index("TokenQuery") for line in lines_of(order).splitlines()[1:]]
    assert places[0] < places[1] == places[2]


def test_a_finding_without_anything_is_its_name() -> None:
    assert finding_text(Finding("X", "", "", "", 1, None)) == "X"
