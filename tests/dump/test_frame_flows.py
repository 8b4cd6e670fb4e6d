"""Flows: what their gaps, late starts and ends do to frames, which are paygate at all, and what they may hold."""

import re
from pathlib import Path

import pytest
from dump.flow_capture import AFTER, BEFORE, OTHER_PORT, PORT, Capture, changed, frame_of, told

from paygate.codec.codes import Kind
from paygate.dump import frames
from paygate.dump.findings import OwnFinding
from paygate.dump.frame_stream import LATE_SEARCH_SIZE_MAX
from paygate.dump.frames import UNDECIDED_SIZE_MAX, FrameReader
from paygate.dump.model import (
    Finding,
    Side,
    StreamEvent,
    StreamNote,
)

# -- gaps, late starts, ends ------------------------------------------------------------------------------


def test_missing_bytes_are_counted_and_the_next_frame_that_checks_is_found() -> None:
    data = frame_of(Kind.TOKEN_ACK)
    capture = Capture().send(BEFORE + data[:40]).lose(7).send(data[47:] + AFTER[0]).send(AFTER[1]).end()
    assert capture.seen() == [BEFORE, AFTER[0], AFTER[1]]
    (finding,) = capture.findings
    assert (finding.name, finding.got, finding.section) == (OwnFinding.BYTES_MISSING.name, "7 bytes missing", "")
    assert (finding.offset, finding.frame_offset) == (len(BEFORE) + 40, len(BEFORE))
    assert capture.skipped == [(len(BEFORE), len(data) - 7)]


def test_a_gap_between_frames_loses_no_other_frame() -> None:
    capture = Capture().send(BEFORE).lose(100).send(b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    assert [(finding.name, finding.frame_offset) for finding in capture.findings] == [("BYTES_MISSING", None)]
    assert not capture.skipped


def test_each_gap_is_told_with_its_size() -> None:
    data = frame_of(Kind.TOKEN_ACK)
    capture = Capture().send(data[:40]).lose(len(data) - 40).send(data[:40]).lose(len(data) - 40).send(BEFORE).end()
    assert capture.seen() == [BEFORE]
    assert [(finding.name, finding.got) for finding in capture.findings] == [
        ("BYTES_MISSING", f"{len(data) - 40} bytes missing")
    ] * 2
    assert capture.skipped == [(0, 40), (len(data), 40)]


def test_in_mid_stream_the_first_frame_is_searched_in_silence() -> None:
    data = frame_of(Kind.TOKEN_ACK)
    capture = Capture().note(StreamEvent.STARTED_LATE).send(data[25:] + BEFORE).send(AFTER[0]).end()
    assert capture.seen() == [BEFORE, AFTER[0]]
    assert not capture.findings
    assert capture.skipped == [(0, len(data) - 25)]


def test_in_mid_stream_the_other_direction_is_searched_too() -> None:
    reply = frame_of(Kind.ECHO_REPLY)
    capture = Capture().note(StreamEvent.STARTED_LATE).send(BEFORE).send(reply[9:] + reply, Side.ANSWERER).end()
    assert capture.seen() == [BEFORE, reply]
    assert not capture.findings


def test_in_mid_stream_no_frame_where_one_must_have_begun_is_one_finding() -> None:
    capture = Capture().note(StreamEvent.STARTED_LATE)
    while capture.offsets[0] <= 2 * LATE_SEARCH_SIZE_MAX:
        capture.send(b"no frame" * 150)
    capture.send(BEFORE).end()
    assert capture.seen() == [BEFORE]
    assert [(finding.name, finding.offset) for finding in capture.findings] == [("NO_FRAME_FOUND", 0)]


@pytest.mark.parametrize(
    ("event", "words", "section"),
    [
        (StreamEvent.FINISHED, "the end of the stream (FIN)", "5.3"),
        (StreamEvent.RESET, "a reset of the connection (RST)", "5.3"),
        (StreamEvent.CLOSED, "the end of the connection", "5.3"),
        (StreamEvent.CAPTURE_ENDED, "the end of the capture", ""),
        (None, "the end of the capture", ""),
    ],
)
def test_an_end_in_mid_frame_is_told_with_its_cause(event: StreamEvent | None, words: str, section: str) -> None:
    capture = Capture().send(BEFORE + frame_of(Kind.TOKEN_ACK)[:50])
    if event is not None:
        capture.note(event)
    capture.end()
    (finding,) = capture.findings
    assert (finding.name, finding.section) == ("TRUNCATED_FRAME", section)
    assert (finding.expected, finding.got) == ("89 bytes, a whole TokenAck", f"50 bytes, then {words}")
    assert (finding.offset, finding.frame_offset) == (len(BEFORE) + 50, len(BEFORE))
    assert not capture.skipped


def test_a_flow_that_is_forgotten_says_that_of_its_incomplete_frame() -> None:
    capture = Capture().send(BEFORE + BEFORE[:21]).note(StreamEvent.DROPPED).end()
    (finding,) = capture.findings
    assert (finding.name, finding.section) == ("FRAME_FORGOTTEN", "")
    assert finding.got == "21 bytes, then nothing more, since it was let go to keep the memory bounded"


def test_an_end_within_a_header_is_told_too() -> None:
    capture = Capture().send(BEFORE + BEFORE[:19]).note(StreamEvent.FINISHED).note(StreamEvent.CLOSED).end()
    (finding,) = capture.findings
    assert (finding.expected, finding.got) == ("20 bytes of a header", "19 bytes, then the end of the stream (FIN)")


def test_an_end_between_frames_is_no_finding() -> None:
    capture = Capture().send(BEFORE).note(StreamEvent.FINISHED).note(StreamEvent.CLOSED).end()
    assert not capture.findings
    assert [row[0] for row in told(capture.items)] == ["frame", StreamEvent.FINISHED, StreamEvent.CLOSED]


def test_bytes_that_came_again_and_were_others_are_a_finding() -> None:
    capture = Capture().send(BEFORE).note(StreamEvent.OVERLAP_DIFFERS, size=5).end()
    (finding,) = capture.findings
    assert (finding.name, finding.got) == ("OVERLAP_DIFFERS", "others, 5 bytes")
    assert not any(isinstance(item, StreamNote) for item in capture.items)


# -- which flows are paygate -----------------------------------------------------------------------------


def test_of_a_flow_that_is_not_paygate_nothing_is_told() -> None:
    capture = Capture(port=443).note(StreamEvent.OPENED).send(b"\x16\x03\x01" + bytes(300))
    capture.note(StreamEvent.RETRANSMITTED).lose(20).note(StreamEvent.FINISHED).note(StreamEvent.CLOSED).end()
    assert capture.items == []
    assert capture.reader.foreign_flow_count == 1


def test_a_frame_on_any_port_shows_that_it_is_paygate_and_what_was_kept_back_is_told() -> None:
    capture = Capture(port=OTHER_PORT).note(StreamEvent.OPENED).send(BEFORE[:10]).send(BEFORE[10:])
    assert [row[0] for row in told(capture.items)] == [StreamEvent.OPENED, "frame"]
    assert capture.note(StreamEvent.FINISHED).end().reader.foreign_flow_count == 0


def test_a_damaged_first_frame_on_any_port_is_a_finding_if_it_begins_as_one() -> None:
    capture = Capture(port=OTHER_PORT).send(changed(BEFORE, 3, b"\x77")).end()
    assert [finding.name for finding in capture.findings] == ["UNKNOWN_KIND"]


def test_frames_behind_other_bytes_on_any_port_are_seen() -> None:
    capture = Capture(port=OTHER_PORT).send(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 9\r\n" + BEFORE).end()
    assert capture.seen() == [BEFORE]
    assert [finding.name for finding in capture.findings] == ["BAD_MAGIC"]


def test_a_foreign_flow_costs_nothing_once_it_is_known_as_that() -> None:
    capture = Capture(port=443)
    while capture.offsets[0] <= UNDECIDED_SIZE_MAX:
        capture.send(b"\0PG\1\2\0\0\0\x08" * 150)
    assert capture.reader.foreign_flow_count == 1
    stream = capture.reader._flows[capture.flow].streams[0]
    assert len(stream.pending) == 0
    capture.send(BEFORE).lose(5).note(StreamEvent.CLOSED).end()
    assert capture.items == []
    assert stream.received_size < UNDECIDED_SIZE_MAX + 2_000
    assert capture.reader.foreign_flow_count == 1


def test_what_incomplete_frames_hold_is_bounded_over_all_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "HELD_SIZE_MAX", 2_000)
    reader = FrameReader(ports=frozenset({PORT}))
    captures = [Capture(reader=reader) for _ in range(20)]
    data = frame_of(Kind.BANK_KEYS)
    for capture in captures:
        capture.send(data[:180])
        assert reader._held_size <= 2_000
    told_of = [item for capture in captures for item in capture.items]
    assert {item.name for item in told_of if isinstance(item, Finding)} == {"FRAME_FORGOTTEN"}
    # Who waited first was forgotten first; the latest still gets its frame.
    forgotten = [item.flow for item in told_of if isinstance(item, Finding)]
    assert forgotten == [capture.flow for capture in captures[: len(forgotten)]]
    assert captures[-1].send(data[180:]).seen() == [data]
    assert captures[0].send(data[180:] + BEFORE).seen() == [BEFORE]
    for capture in captures:
        capture.end()
    assert reader._held_size == 0


def test_how_many_flows_are_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FLOW_COUNT_MAX", 10)
    reader = FrameReader(ports=frozenset({PORT}))
    captures = [Capture(reader=reader).send(BEFORE + BEFORE[:5]) for _ in range(30)]
    assert len(reader._flows) == 10
    assert [len(capture.seen()) for capture in captures] == [1] * 30
    assert captures[0].send(BEFORE[5:] + BEFORE).seen() == [BEFORE] * 2


def test_no_step_takes_the_oldest_out_of_a_plain_dict() -> None:
    # Its first key is found by a scan over all that were removed before it: with n flows that takes n² steps.
    sources = {path.name: path.read_text() for path in Path(frames.__file__).parent.glob("*.py")}
    asked = {
        (name, attribute)
        for name, source in sources.items()
        for attribute in re.findall(r"next\(iter\(self\.(_\w+)", source)
    }
    assert ("frames.py", "_flows") in asked
    removing = [
        (name, attribute)
        for name, attribute in sorted(asked)
        if re.search(rf"\b{attribute}: dict\[", sources[name])
        and re.search(rf"del self\.{attribute}\[|self\.{attribute}\.pop\(", sources[name])
    ]
    assert removing == []
