"""The ladder: the spec's session as a picture, within every width, with any bytes."""

import re
from collections.abc import Iterable
from typing import Final

import builders
import pytest
from dump.drawn import HOSTILE, LONG, examples, finding, hostile_flow, opened, seen_session
from dump.tape import LinkTape, Tape, damaged, through
from hypothesis import given
from hypothesis import strategies as st
from specgen.vector_fixtures import PASSCODE
from specgen.vector_session import FENCED, PAID, SESSIONS, Payment

from paygate.codec.codes import Kind
from paygate.dump.display import cut, display_width, pad
from paygate.dump.ladder import ASCII, BOX, Glyphs, Ladder, glyphs_for
from paygate.dump.links import Links
from paygate.dump.model import FlowKind, Item, Side, StreamEvent
from paygate.dump.output import Colours

SESSION_IN_80_COLUMNS: Final = """\
ms since 2026-01-02T00:00:00.001Z
                 client                      gateway                        bank
     0.000    #1 │ 127.0.0.1:40001 to 127.0.0.1…│· connected ·················▶│
     1.000    #1 │ GATEWAY party=GW1 versions=1 │─ Hello ─────────────────────▶│
     2.000    #1 │ BANK party=BANK1 version=1   │◀ HelloAck 1.00 ms ┄┄┄┄┄┄┄┄┄┄┄│
     3.000    #1 │ bank=BANK1                   │─ BankKeysQuery ─────────────▶│
     4.000    #1 │ AVAILABLE signed_key_list=<1…│◀ BankKeys 1.00 ms ┄┄┄┄┄┄┄┄┄┄┄│
     5.000    #2 │· connected ·················▶│ 127.0.0.1:40002 to 127.0.0.1…│
     6.000    #2 │─ Hello ─────────────────────▶│ CLIENT party=client versions…│
     7.000    #2 │◀ HelloAck 1.00 ms ┄┄┄┄┄┄┄┄┄┄┄│ GATEWAY party=GW1 version=1  │
     8.000    #2 │─ BankKeysQuery ─────────────▶│ bank=BANK1                   │
     9.000    #2 │─ TokenQuery ────────────────▶│ transaction=TX-1001 passcode…│
    10.000    #2 │◀ BankKeys 2.00 ms ┄┄┄┄┄┄┄┄┄┄┄│ AVAILABLE signed_key_list=<1…│
    11.000    #2 │◀ TokenAck VALID 1250.00 INR ┄│ 2.00 ms session=003e98d8 ses…│
 10000.000    #2 │─ EncryptedCredentials ──────▶│ session=003e98d8 payment=01e…│
 10001.000    #1 │ 1250.00 INR merchant=M-100 t…│─ TransferRequest ───────────▶│
 10040.000    #1 │ 39.0 ms payment=01ee9381 utr…│◀ TransferResult POSTED ┄┄┄┄┄┄│
 10041.000    #2 │◀ PaymentAck PAID 41.0 ms ┄┄┄┄│ payment=01ee9381 utr=PGBKP12…│
 10042.000    #2 │─ StatusQuery ───────────────▶│ payment=01ee9381 transaction…│
 10043.000    #2 │◀ StatusAck PAID 1.00 ms ┄┄┄┄┄│ payment=01ee9381 utr=PGBKP12…│
 10044.000    #1 │                              │· closed ·····················│
 10045.000    #2 │· closed ·····················│                              │
"""
WIDTHS: Final = (40, 79, 80, 100, 141, 1_000)
_ANSI: Final = re.compile(r"\x1b\[[0-9]*m")


def ladder_of(
    items: Iterable[Item],
    *,
    width: int = 100,
    glyphs: Glyphs = BOX,
    is_coloured: bool = False,
    show_secrets: bool = False,
) -> str:
    """All that a ladder writes."""
    parts: list[str] = []
    ladder = Ladder(parts.append, Colours(is_coloured), width=width, show_secrets=show_secrets, glyphs=glyphs)
    for item in items:
        ladder.receive(item)
    ladder.finish()
    return "".join(parts)


def every_kind() -> list[Item]:
    """A frame of every kind both ways on a link, a hostile stranger's too, and findings."""
    tape = Tape()
    link = LinkTape(tape)
    stranger = hostile_flow(link.flow)
    for number, message in enumerate(examples(), start=10):
        link.ask(message, number)
        link.answer(message, number)
        tape.frame(stranger, Side.CALLER, message, number)
    tape.items += [opened(stranger), finding(None, HOSTILE), finding(link.flow, LONG)]
    return tape.items


# -- what it looks like ----------------------------------------------------------------------------------


def test_the_specs_session_is_this_picture_in_80_columns() -> None:
    assert ladder_of(seen_session(PAID), width=80) == SESSION_IN_80_COLUMNS


@pytest.mark.parametrize("payment", SESSIONS, ids=lambda payment: payment.name)
def test_every_frame_of_a_session_has_a_row_between_its_two_roles(payment: Payment) -> None:
    items = seen_session(payment)
    rows = [line for line in ladder_of(items).splitlines() if "│" in line]
    assert len(rows) == len(items)
    for row in rows:
        _, left, right, end = row.split("│")
        is_bank_link = "◀" in right or "▶" in right or "closed" in right
        assert is_bank_link is not ("◀" in left or "▶" in left or "closed" in left)
        assert end == ""


def test_a_declined_payments_reason_stands_on_its_arrow_or_beside_it() -> None:
    for width, shown in (
        (100, "◀ PaymentAck DECLINED FENCED 2.01 s ┄"),
        (80, "◀ PaymentAck DECLINED FENCED ┄│ 2.01 s "),
    ):
        assert shown in ladder_of(seen_session(FENCED), width=width)
    assert "│ FENCED 2.01 s " in ladder_of(seen_session(FENCED), width=76)


def test_findings_stand_below_the_frame_that_they_are_about() -> None:
    tape = Tape()
    link = LinkTape(tape)
    tape.items[:] = []
    frame = damaged(link.ask(builders.example(Kind.TOKEN_QUERY), 5))
    frame.findings = (finding(link.flow, time_ns=frame.time_ns),)
    assert ladder_of([frame], width=100).splitlines()[2:] == [
        "     0.000    #1 │─ TokenQuery ──────────────────────────▶│                                        │",
        "     0.000    #1 │ ✗ BAD_CHECKSUM at checksum, byte 120",
        "                 │   expected 0x00000002, got 0x00000001 (spec 4.3)",
    ]


def test_secrets_are_masked_unless_they_are_asked_for() -> None:
    session = seen_session(PAID)
    assert "passcode=<secret>" in ladder_of(session, width=140)
    shown = ladder_of(session, width=140, show_secrets=True)
    assert "<secret>" not in shown
    assert f"passcode={PASSCODE}" in shown


def test_the_end_of_a_connection_is_two_marks_at_most() -> None:
    tape = Tape()
    flows = [tape.flow(), tape.flow()]
    for event, side in ((StreamEvent.FINISHED, Side.CALLER), (StreamEvent.FINISHED, Side.ANSWERER)):
        tape.note(flows[0], event, side)
    tape.note(flows[0], StreamEvent.CLOSED)
    tape.note(flows[1], StreamEvent.RESET, Side.ANSWERER)
    tape.note(flows[1], StreamEvent.CLOSED)
    marks = [line.split("│")[1].split("·")[0:2] for line in ladder_of(tape.items).splitlines()[2:]]
    assert marks == [["", " sends no more "], ["", " closed "], ["✗ reset ", ""]]


def test_connections_that_the_capture_leaves_open_are_counted_at_its_end() -> None:
    tape = Tape()
    for _ in range(3):
        tape.note(tape.flow(), StreamEvent.CAPTURE_ENDED)
    assert ladder_of(tape.items).strip() == "the capture ended with 3 connections open"
    assert ladder_of(tape.items[:1]).strip() == "the capture ended with 1 connection open"


def test_an_input_without_traffic_gives_nothing() -> None:
    assert ladder_of([]) == ""


# -- who stands where ------------------------------------------------------------------------------------


def test_pasted_frames_of_both_links_stand_where_their_kinds_belong() -> None:
    tape = Tape()
    flow = tape.flow(FlowKind.BYTES, knows_sides=False)
    for number, kind in enumerate((Kind.TOKEN_QUERY, Kind.TOKEN_ACK, Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT)):
        tape.frame(flow, Side.CALLER, builders.example(kind), number + 1)
    cells = [line.split("│") for line in ladder_of(through(Links(), tape.items)).splitlines()[2:]]
    assert ["─ Tok" in cells[0][1], "◀ Tok" in cells[1][1], "─ Tra" in cells[2][2], "◀ Tra" in cells[3][2]] == [
        True
    ] * 4


def test_a_connection_to_a_port_that_is_known_stands_right_before_its_first_frame() -> None:
    tape = Tape()
    known, new = LinkTape(tape, is_bank_link=True), tape.flow()
    known.flow.answerer = new.answerer = new.answerer._replace(port=7_000)
    tape.note(new, StreamEvent.OPENED)
    lines = ladder_of(through(Links(), tape.items)).splitlines()
    assert "· connected ·" in lines[-1].split("│")[2]


def test_the_frame_of_strangers_tells_their_addresses() -> None:
    tape = Tape()
    flow = hostile_flow(tape.flow())
    flow.caller = flow.caller._replace(host="10.0.0.8", port=9)
    tape.frame(flow, Side.CALLER, builders.example(Kind.ECHO), 1)
    assert "│ 10.0.0.8:9 ▶ 10.0.0.9:7 Echo echo_data=" in ladder_of(tape.items)


# -- any terminal, any bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("glyphs", [BOX, ASCII], ids=["box", "ascii"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_or_holds_a_control(width: int, glyphs: Glyphs) -> None:
    text = ladder_of(every_kind(), width=width, glyphs=glyphs)
    assert text.count("\n") > 3 * len(examples())
    for line in text.split("\n"):
        assert display_width(line) <= width
        assert line.isprintable()


def test_a_terminal_that_shows_ascii_alone_gets_nothing_else() -> None:
    text = ladder_of(every_kind(), glyphs=glyphs_for("ascii"))
    assert text.isascii()
    assert "|- TokenQuery ---" in text
    assert "|< TokenAck VALID 1250.00 INR ..." in text


def test_the_encoding_decides_which_glyphs_are_drawn() -> None:
    assert [glyphs_for(name) for name in ("utf-8", "ascii", "latin-1", "no such encoding", None)] == [BOX, *[ASCII] * 4]


def test_colours_add_nothing_but_colours() -> None:
    items = every_kind() + seen_session(FENCED)
    coloured = ladder_of(items, is_coloured=True)
    assert "\x1b[31mDECLINED\x1b[0m" in coloured
    assert _ANSI.sub("", coloured) == ladder_of(items)


def test_every_item_is_written_whole_before_the_next_comes() -> None:
    parts: list[str] = []
    ladder = Ladder(parts.append, Colours(), width=80, show_secrets=False)
    for item in seen_session(PAID):
        before = len(parts)
        ladder.receive(item)
        assert len(parts) > before
        assert parts[-1].endswith("\n")


def test_times_that_lack_or_go_back_or_last_for_weeks_keep_their_column() -> None:
    tape = Tape()
    link = LinkTape(tape)
    asked = [link.ask(builders.example(Kind.ECHO), number) for number in range(5, 9)]
    begin_ns = asked[0].time_ns
    assert begin_ns is not None
    asked[1].time_ns = None
    asked[2].time_ns = begin_ns - 2_500_000
    asked[3].time_ns = begin_ns + 30 * 86_400 * 10**9 + 123_456
    times = [line[:11] for line in ladder_of(asked).splitlines()[2:]]
    assert times == ["     0.000 ", "           ", "    -2.500 ", "2592000000 "]


# -- widths ----------------------------------------------------------------------------------------------


@given(st.text(), st.integers(0, 30))
def test_what_is_cut_fits_and_is_a_beginning_of_the_text(text: str, width: int) -> None:
    shown = cut(text, width)
    assert display_width(shown) <= width
    if display_width(text) <= width:
        assert shown == text
    elif width:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert display_width("漢字") == 4
    assert display_width("e\u0301") == 1
    assert cut("漢字漢字", 4) == "漢…"
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("abcdef", 2, "...") == ".."
    assert pad("漢", 4) == "漢  "
