"""Mermaid diagrams: by the grammar's rules, whatever the texts hold. Mermaid 11's own parser was asked by hand."""

import re
from collections.abc import Iterable
from html import unescape
from typing import Final

import builders
from dump.drawn import HOSTILE, LONG, finding, hostile_flow, opened, seen_session
from dump.tape import LinkTape, Tape
from hypothesis import given
from hypothesis import strategies as st
from specgen.vector_session import FENCED, PAID

from paygate.codec.codes import Kind
from paygate.dump.mermaid import DIAGRAM_SIZE_MAX, Mermaid, mermaid_text
from paygate.dump.model import Item, Side
from paygate.dump.sheet import ROW_COUNT_MAX

_TEXT: Final = r"(?:[A-Za-z0-9 .,_=+()/-]|#[0-9]+;|<br/>)+"
_STATEMENT: Final = re.compile(
    rf"participant P\d+ as {_TEXT}|P\d+(?:->>|-->>|--\)|--x|-->)P\d+: {_TEXT}|Note over P\d+(?:,P\d+)?: {_TEXT}"
)


def mermaid_of(items: Iterable[Item]) -> list[str]:
    """The diagram's lines, each of which follows the grammar."""
    parts: list[str] = []
    mermaid = Mermaid(parts.append, show_secrets=False)
    for item in items:
        mermaid.receive(item)
    mermaid.finish()
    text = "".join(parts)
    assert text.isascii()
    first, *lines = text.splitlines()
    assert first == "sequenceDiagram"
    for line in lines:
        assert _STATEMENT.fullmatch(line.removeprefix("    ")), line
    declared = {line.split()[1] for line in lines if line.startswith("    participant")}
    used = {name for line in lines for name in re.findall(r"\bP\d+(?=-|:|,)", line.partition(": ")[0] + ":")}
    assert used <= declared
    return [line.removeprefix("    ") for line in lines]


def test_a_payment_is_drawn_from_connect_to_receipt() -> None:
    assert mermaid_of(seen_session(PAID)) == [
        "participant P0 as client",
        "participant P1 as gateway GW1",
        "participant P2 as bank BANK1",
        "P1--)P2: connected<br/>127.0.0.1#58;40001 to 127.0.0.1#58;15001",
        "P1->>P2: Hello<br/>GATEWAY party=GW1 versions=1",
        "P2-->>P1: HelloAck 1.00 ms<br/>BANK party=BANK1 version=1",
        "P1->>P2: BankKeysQuery<br/>bank=BANK1",
        "P2-->>P1: BankKeys 1.00 ms<br/>AVAILABLE signed_key_list=#60;195 bytes#62;",
        "P0--)P1: connected<br/>127.0.0.1#58;40002 to 127.0.0.1#58;15000",
        "P0->>P1: Hello<br/>CLIENT party=client versions=1",
        "P1-->>P0: HelloAck 1.00 ms<br/>GATEWAY party=GW1 version=1",
        "P0->>P1: BankKeysQuery<br/>bank=BANK1",
        "P0->>P1: TokenQuery<br/>transaction=TX-1001 passcode=#60;secret#62;",
        "P1-->>P0: BankKeys 2.00 ms<br/>AVAILABLE signed_key_list=#60;195 bytes#62;",
        "P1-->>P0: TokenAck VALID 1250.00 INR 2.00 ms<br/>session=003e98d8 session_left=30s merchant=M-100",
        "P0->>P1: EncryptedCredentials<br/>session=003e98d8 payment=01ee9381 key=d8dca9c0 envelope=#60;304 by#8230;",
        "P1->>P2: TransferRequest 1250.00 INR<br/>"
        "merchant=M-100 transaction=TX-1001 payment=01ee9381 time_left=1#8230;",
        "P2-->>P1: TransferResult POSTED 39.0 ms<br/>"
        "payment=01ee9381 utr=PGBKP12026010200000001 receipt=#60;222 bytes#62;",
        "P1-->>P0: PaymentAck PAID 41.0 ms<br/>payment=01ee9381 utr=PGBKP12026010200000001 receipt=#60;222 bytes#62;",
        "P0->>P1: StatusQuery<br/>payment=01ee9381 transaction=TX-1001 passcode=#60;secret#62;",
        "P1-->>P0: StatusAck PAID 1.00 ms<br/>payment=01ee9381 utr=PGBKP12026010200000001 receipt=#60;222 bytes#62;",
        "P1-->P2: closed",
        "P0-->P1: closed",
    ]


def test_two_connections_to_one_bank_are_one_lifeline() -> None:
    lines = mermaid_of(seen_session(FENCED))
    assert [line for line in lines if line.startswith("participant")] == [
        "participant P0 as client",
        "participant P1 as gateway GW1",
        "participant P2 as bank BANK1",
    ]


def test_findings_are_notes_over_who_sent_the_bytes() -> None:
    tape = Tape()
    link = LinkTape(tape)
    lines = mermaid_of([*tape.items, finding(link.flow), finding(None)])
    note = "BAD_CHECKSUM at checksum, byte 120<br/>expected 0x00000002, got 0x00000001 (spec 4.3)"
    assert lines[-2:] == [f"Note over P0: {note}", f"Note over P0,P1: {note}"]


def test_hostile_names_and_findings_stay_within_their_statements() -> None:
    tape = Tape()
    stranger = hostile_flow(tape.flow())
    lines = mermaid_of([opened(stranger), finding(stranger, HOSTILE), finding(None, LONG)])
    assert len(lines) == 2 + 3
    for text in ("%%{", "<script", "$$", "-->>"):
        assert not any(text in line.partition(": ")[2] for line in lines)


@given(st.text())
def test_a_reader_of_html_sees_the_text_as_it_was(text: str) -> None:
    # Mermaid turns `#59;` into `&#59;` and leaves the rest to the browser.
    printable = "".join(char for char in text if char.isprintable())
    escaped = mermaid_text(printable)
    assert unescape(re.sub(r"#(\d+);", r"&#\1;", escaped)) == printable


def test_a_long_capture_ends_with_a_note_that_counts_the_rest() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for number in range(ROW_COUNT_MAX):
        link.ask(builders.example(Kind.ECHO), number + 10)
    last = link.ask(builders.example(Kind.ECHO), 9)
    last.findings = (finding(link.flow), finding(link.flow))
    lines = mermaid_of(tape.items)
    assert len(lines) == 2 + ROW_COUNT_MAX + 1
    # Three rows open the link; the last frame would be three.
    assert lines[-1].startswith("Note over P0,P1: 6 more rows are not shown#59; ")


def test_a_diagram_is_never_larger_than_mermaid_takes() -> None:
    tape = Tape()
    flow = tape.flow()
    lines = mermaid_of([finding(flow, HOSTILE * 3)] * ROW_COUNT_MAX)
    drawn = sum(line.startswith("Note over P0: BAD_CHECKSUM") for line in lines)
    assert DIAGRAM_SIZE_MAX * 0.99 < len("\n    ".join(lines[:-1])) <= DIAGRAM_SIZE_MAX
    assert 100 < drawn < ROW_COUNT_MAX
    assert f": {ROW_COUNT_MAX - drawn} more rows " in lines[-1]


def test_an_input_without_traffic_is_a_diagram_that_says_so() -> None:
    assert mermaid_of([]) == ["participant P0 as no paygate traffic"]


def test_a_frame_of_two_strangers_has_two_lifelines_by_address() -> None:
    tape = Tape()
    flow = hostile_flow(tape.flow())
    tape.frame(flow, Side.ANSWERER, builders.example(Kind.ECHO), 1)
    lines = mermaid_of(tape.items)
    assert lines[0] == "participant P0 as 10.0.0.9#58;7"
    assert lines[2].startswith("P0->>P1: Echo<br/>")
