"""Streams to frames: good frames are seen whatever stands between them; what is wrong is told once, with its place."""

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import pytest
from builders import LINK_KEY, example
from hypothesis import given
from hypothesis import strategies as st
from specgen.vector_fixtures import LINK_KEY as SPEC_LINK_KEY
from specgen.vector_session import payment_steps

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, FrameHead, body_size_range, decode_frame, decode_head, encode_frame
from paygate.codec.walk import decoder_path
from paygate.dump import frame_stream, frames
from paygate.dump.findings import OwnFinding
from paygate.dump.frame_stream import LARGEST_FRAME_SIZE, LATE_SEARCH_SIZE_MAX
from paygate.dump.frames import UNDECIDED_SIZE_MAX, FrameReader
from paygate.dump.model import (
    Endpoint,
    Finding,
    Flow,
    FlowKind,
    Item,
    SeenFrame,
    Side,
    StreamData,
    StreamEvent,
    StreamGap,
    StreamNote,
)

PORT: Final = 15_000
OTHER_PORT: Final = 40_001
each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


class Capture:
    """One flow's items in order, and what the reader makes of them."""

    def __init__(
        self,
        *,
        port: int = PORT,
        kind: FlowKind = FlowKind.TCP,
        knows_sides: bool = True,
        link_keys: tuple[bytes, ...] = (),
        reader: FrameReader | None = None,
    ) -> None:
        self.flow = Flow(1, kind, Endpoint("10.0.0.1", 50_000), Endpoint("10.0.0.2", port), knows_sides)
        self.reader = reader or FrameReader(ports=frozenset({PORT}), link_keys=link_keys)
        self.offsets = [0, 0]
        self.number = 0
        self.items: list[Item] = []

    def send(self, data: bytes, side: Side = Side.CALLER) -> "Capture":
        """The next packet."""
        self.number += 1
        item = StreamData(self.flow, side, self.offsets[side], data, 1_000 * self.number, self.number)
        self.offsets[side] += len(data)
        self.items += self.reader.receive(item)
        return self

    def lose(self, size: int, side: Side = Side.CALLER) -> "Capture":
        """Bytes that the capture lacks."""
        self.number += 1
        self.items += self.reader.receive(
            StreamGap(self.flow, side, self.offsets[side], size, 1_000 * self.number, self.number)
        )
        self.offsets[side] += size
        return self

    def note(self, event: StreamEvent, side: Side = Side.CALLER, *, size: int = 0) -> "Capture":
        self.number += 1
        self.items += self.reader.receive(
            StreamNote(self.flow, side, event, self.offsets[side], size, 1_000 * self.number, self.number)
        )
        return self

    def end(self) -> "Capture":
        """The input's end."""
        self.items += self.reader.finish()
        return self

    @property
    def frames(self) -> list[SeenFrame]:
        return [item for item in self.items if isinstance(item, SeenFrame)]

    @property
    def findings(self) -> list[Finding]:
        """Those that come by themselves, and those of frames."""
        found: list[Finding] = []
        for item in self.items:
            if isinstance(item, SeenFrame):
                found += item.findings
            elif isinstance(item, Finding):
                found.append(item)
        return found

    @property
    def skipped(self) -> list[tuple[int, int]]:
        """Offset and size of each region that was no frame."""
        return [
            (item.offset, item.size)
            for item in self.items
            if isinstance(item, StreamNote) and item.event is StreamEvent.SKIPPED
        ]

    def seen(self) -> list[bytes]:
        return [frame.data for frame in self.frames]


def frame_of(kind: Kind, correlation_id: int = 7) -> bytes:
    return encode_frame(example(kind), correlation_id)


def frame_around(kind: int, body: bytes) -> bytes:
    """A frame with a right checksum around any body, by `struct` and not by the code under test."""
    header = struct.pack(">2sBBHHQ", b"PG", 1, kind, 0, len(body), 7)
    return header + struct.pack(">I", zlib.crc32(header + body)) + body


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def told(items: Iterable[Item]) -> list[tuple[object, ...]]:
    """What was told, without objects: for comparisons."""
    rows: list[tuple[object, ...]] = []
    for item in items:
        if isinstance(item, SeenFrame):
            names = tuple(finding.name for finding in item.findings)
            rows.append(("frame", item.index, item.side, item.offset, item.time_ns, item.number, item.data, names))
        elif isinstance(item, Finding):
            rows.append((item.name, item.expected, item.got, item.section, item.offset, item.path, item.frame_offset))
        else:
            rows.append((item.event, item.side, item.offset, item.size))
    return rows


BEFORE: Final = frame_of(Kind.ECHO, 1)
AFTER: Final = [frame_of(Kind.BANK_KEYS_QUERY, 2), frame_of(Kind.TOKEN_QUERY, 3), frame_of(Kind.ECHO, 4)]


# -- good frames -----------------------------------------------------------------------------------------


def test_every_kind_is_seen_with_its_place_time_and_message() -> None:
    sent = [frame_of(kind, int(kind)) for kind in Kind]
    capture = Capture()
    for data in sent:
        capture.send(data)
    capture.end()
    assert not capture.findings
    assert capture.seen() == sent
    offset = 0
    for index, (kind, frame) in enumerate(zip(Kind, capture.frames, strict=True), start=1):
        assert (frame.index, frame.kind, frame.offset, frame.side) == (index, kind, offset, Side.CALLER)
        assert (frame.time_ns, frame.number) == (1_000 * index, index)
        assert frame.message == example(kind)
        offset += len(sent[index - 1])


def test_many_frames_in_one_packet_are_many_frames() -> None:
    capture = Capture().send(BEFORE + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    assert {frame.number for frame in capture.frames} == {1}


def test_a_frame_has_the_time_of_its_last_byte() -> None:
    data = frame_of(Kind.BANK_KEYS)
    capture = Capture().send(BEFORE + data[:30]).send(data[30:90]).send(data[90:] + BEFORE).end()
    assert [(frame.offset, frame.number) for frame in capture.frames] == [
        (0, 1),
        (len(BEFORE), 3),
        (len(BEFORE) + len(data), 3),
    ]


def test_both_directions_are_read_each_by_itself() -> None:
    request, reply = frame_of(Kind.ECHO), frame_of(Kind.ECHO_REPLY)
    capture = Capture().send(request[:10]).send(reply[:25], Side.ANSWERER).send(request[10:])
    capture.send(reply[25:], Side.ANSWERER).end()
    assert [(frame.kind, frame.side, frame.offset) for frame in capture.frames] == [
        (Kind.ECHO, Side.CALLER, 0),
        (Kind.ECHO_REPLY, Side.ANSWERER, 0),
    ]


def test_without_sides_the_kind_says_who_sent() -> None:
    data = b"".join(frame_of(kind) for kind in (Kind.TOKEN_QUERY, Kind.TOKEN_ACK, Kind.ERROR, Kind.OPEN_ENVELOPE))
    capture = Capture(kind=FlowKind.BYTES, port=0, knows_sides=False).send(data).end()
    assert [frame.side for frame in capture.frames] == [Side.CALLER, Side.ANSWERER, Side.ANSWERER, Side.CALLER]


# -- damage ----------------------------------------------------------------------------------------------

HEADER_DAMAGE: Final = [
    # what stands where in the header of a TokenQuery, then: name, path, expected, got, section
    (0, b"GH", "BAD_MAGIC", "magic", "the letters PG", "0x4748", "4.1"),
    (1, b"\0", "BAD_MAGIC", "magic", "the letters PG", "0x5000", "4.1"),
    (2, b"\2", "UNSUPPORTED_VERSION", "version", "1", "2", "4.1"),
    (3, b"\x77", "UNKNOWN_KIND", "kind", "a kind of spec section 4.2", "0x77", "4.2"),
    (3, b"\x22", "UNKNOWN_KIND", "kind", "a kind of spec section 4.2", "0x22", "4.2"),
    (4, b"\x80\0", "UNKNOWN_FLAG", "flags", "no flag but AUTHENTICATED", "0x8000", "4.1"),
    (6, b"\0\3", "BODY_TOO_SMALL", "body_size", "at least 4 for TOKEN_QUERY", "3", "4.1"),
    (6, b"\0\x43", "BODY_TOO_LARGE", "body_size", "at most 66 for TOKEN_QUERY", "67", "4.1"),
    (6, b"\xff\xff", "BODY_TOO_LARGE", "body_size", "at most 66 for TOKEN_QUERY", "65535", "4.1"),
]


@pytest.mark.parametrize(("at", "new", "name", "path", "expected", "got", "section"), HEADER_DAMAGE)
def test_damage_in_a_header_is_one_finding_and_all_other_frames_are_seen(
    at: int, new: bytes, name: str, path: str, expected: str, got: str, section: str
) -> None:
    damaged = changed(frame_of(Kind.TOKEN_QUERY), at, new)
    capture = Capture().send(BEFORE + damaged + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    (finding,) = capture.findings
    field_at = {"magic": 0, "version": 2, "kind": 3, "flags": 4, "body_size": 6}[path]
    assert (finding.name, finding.path, finding.expected, finding.got, finding.section) == (
        name,
        path,
        expected,
        got,
        section,
    )
    assert (finding.offset, finding.frame_offset) == (len(BEFORE) + field_at, len(BEFORE))
    assert (finding.flow, finding.side, finding.number, finding.time_ns) == (capture.flow, Side.CALLER, 1, 1_000)
    assert capture.skipped == [(len(BEFORE), len(damaged))]


@each_kind
@pytest.mark.parametrize("where", ["correlation_id", "checksum", "first body byte", "last body byte"])
def test_a_bad_checksum_is_one_finding_and_all_other_frames_are_seen(kind: Kind, where: str) -> None:
    data = frame_of(kind)
    at = {"correlation_id": 12, "checksum": 18, "first body byte": 20, "last body byte": len(data) - 1}[where]
    damaged = changed(data, at, bytes([data[at] ^ 0x10]))
    capture = Capture().send(BEFORE + damaged + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    (finding,) = capture.findings
    right = zlib.crc32(damaged[:16] + damaged[20:])
    assert (finding.name, finding.path, finding.section) == ("BAD_CHECKSUM", "checksum", "4.3")
    assert finding.expected == f"the CRC-32 of header and body, 0x{right:08x}"
    assert finding.got == f"0x{damaged[16:20].hex()}"
    assert (finding.offset, finding.frame_offset) == (len(BEFORE) + 16, len(BEFORE))
    assert capture.skipped == [(len(BEFORE), len(damaged))]


@pytest.mark.parametrize("more", [1, 10, 33, 40])
def test_a_size_that_takes_in_good_frames_does_not_hide_them(more: int) -> None:
    data = frame_of(Kind.TOKEN_QUERY)
    damaged = changed(data, 6, struct.pack(">H", len(data) - 20 + more))
    capture = Capture().send(BEFORE + damaged + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    assert [finding.name for finding in capture.findings] == ["BAD_CHECKSUM"]


def test_a_size_that_takes_in_all_that_follows_does_not_hide_it() -> None:
    damaged = changed(frame_of(Kind.BANK_KEYS), 6, struct.pack(">H", 20_000))
    capture = Capture().send(BEFORE + damaged + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    (finding,) = capture.findings
    assert (finding.name, finding.section) == ("TRUNCATED_FRAME", "")
    assert finding.expected == "20020 bytes of a BankKeys"


def test_a_whole_frame_of_an_unknown_kind_is_passed_by_its_own_size() -> None:
    inner = frame_around(0x22, b"PG" + bytes(60))
    nested = changed(frame_of(Kind.ECHO), 16, b"\0\0\0\0")  # seems a header, but no checksum holds
    unknown = frame_around(0x23, nested + b"PG\1")
    capture = Capture().send(BEFORE + inner + unknown + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    assert [(finding.name, finding.got) for finding in capture.findings] == [
        ("UNKNOWN_KIND", "0x22"),
        ("UNKNOWN_KIND", "0x23"),
    ]


def test_two_damaged_frames_in_a_row_are_two_findings() -> None:
    first = changed(frame_of(Kind.ECHO), 25, b"!")
    second = changed(frame_of(Kind.TOKEN_ACK), 30, b"!")
    capture = Capture().send(BEFORE + first + second + b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    assert [(finding.name, finding.frame_offset) for finding in capture.findings] == [
        ("BAD_CHECKSUM", len(BEFORE)),
        ("BAD_CHECKSUM", len(BEFORE) + len(first)),
    ]


def test_a_long_lost_region_is_one_finding() -> None:
    capture = Capture().send(BEFORE + b"GET / HTTP/1.1\r\n" * 10_000)
    capture.send(b"".join(AFTER)).end()
    assert capture.seen() == [BEFORE, *AFTER]
    assert [finding.name for finding in capture.findings] == ["BAD_MAGIC"]
    assert capture.skipped == [(len(BEFORE), 160_000)]


def refusal(frame: SeenFrame) -> RemoteProtocolError | None:
    try:
        frame.frame.message()
    except RemoteProtocolError as error:
        return error
    return None


@each_kind
def test_any_wrong_byte_in_a_body_is_a_finding_within_its_frame(kind: Kind) -> None:
    body = frame_of(kind)[20:]
    for at in range(min(len(body), 120)):
        damaged = frame_around(kind, changed(body, at, b"\xff"))
        capture = Capture().send(BEFORE + damaged + b"".join(AFTER)).end()
        assert capture.seen() == [BEFORE, damaged, *AFTER]
        assert not any(isinstance(item, Finding) for item in capture.items)
        frame = capture.frames[1]
        error = refusal(frame)
        if error is None:
            assert frame.message == frame.frame.message()
            assert frame.findings == ()
            continue
        assert frame.message is None
        (finding,) = frame.findings
        assert (finding.name, finding.expected) == (error.code.name, error.expected)
        assert decoder_path(finding.path) == error.path
        assert finding.frame_offset == frame.offset == len(BEFORE)
        assert finding.offset is not None
        assert frame.offset + 20 <= finding.offset <= frame.offset + len(damaged)


@pytest.mark.parametrize(
    ("kind", "at", "new", "name", "path", "got", "section"),
    [
        (Kind.TOKEN_ACK, 0, b"\x63", "BAD_VALUE", "status", "99", "6.2"),
        (Kind.HELLO, 0, b"\x09", "BAD_VALUE", "role", "9", "5.1"),
        (Kind.TRANSFER_RESULT, 16, b"\x07", "BAD_VALUE", "outcome", "7", "7.2"),
        (Kind.BANK_KEYS, 1, b"\xff\xff", "BAD_VALUE", "signed_key_list", "65535 bytes", "6.1"),
        (Kind.ENCRYPTED_CREDENTIALS, 50, b"\0", "TRAILING_BYTES", "", "48 bytes more", "3.3"),
    ],
)
def test_a_finding_in_a_body_says_where_and_what(
    kind: Kind, at: int, new: bytes, name: str, path: str, got: str, section: str
) -> None:
    body = frame_of(kind)[20:]
    if name == "TRAILING_BYTES":
        body, at, new = body[:48] + (len(body) - 50 - 48).to_bytes(2) + body[50:], 48, b""
        place = len(body) - 48
    else:
        place = at
    capture = Capture().send(BEFORE + frame_around(kind, changed(body, at, new))).end()
    (finding,) = capture.frames[1].findings
    assert (finding.name, finding.path, finding.got, finding.section) == (name, path, got, section)
    assert finding.offset == len(BEFORE) + 20 + place


# -- MACs ------------------------------------------------------------------------------------------------


def test_a_mac_is_checked_under_each_key_given() -> None:
    data = encode_frame(example(Kind.ECHO), 1, LINK_KEY)
    assert not Capture(link_keys=(b"x" * 32, LINK_KEY)).send(data + data).findings
    capture = Capture(link_keys=(b"x" * 32, b"y" * 32)).send(BEFORE + data).end()
    assert capture.seen() == [BEFORE, data]
    (finding,) = capture.frames[1].findings
    assert (finding.name, finding.section) == ("BAD_MAC", "4.4")
    assert finding.expected == "the MAC under the link key, one of the 2 given"
    assert finding.got == f"0x{data[-16:].hex()}"
    assert finding.offset == len(BEFORE) + len(data) - 16
    assert capture.frames[1].message == example(Kind.ECHO)


def test_without_a_key_no_mac_is_checked() -> None:
    data = encode_frame(example(Kind.ECHO), 1, LINK_KEY)
    assert not Capture().send(changed(data, len(data) - 1, b"?")).end().findings


def test_a_damaged_mac_is_found_and_not_that_of_the_next_frame() -> None:
    data = encode_frame(example(Kind.ECHO), 1, LINK_KEY)
    capture = Capture(link_keys=(LINK_KEY,)).send(changed(data, len(data) - 1, b"?") + data).end()
    assert [[finding.name for finding in frame.findings] for frame in capture.frames] == [["BAD_MAC"], []]


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
    assert (finding.expected, finding.got) == ("89 bytes of a TokenAck", f"50 bytes, then {words}")
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
    assert (finding.name, finding.got) == ("OVERLAP_DIFFERS", "5 bytes that are others")
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


# -- any cut, any bytes ----------------------------------------------------------------------------------


STORY: Final = (
    BEFORE
    + changed(frame_of(Kind.TOKEN_QUERY), 22, b"!")
    + AFTER[0]
    + b"PG\1 no frame PG"
    + frame_around(Kind.HELLO, b"\x09\x01A\x01\x01")
    + changed(AFTER[1], 6, b"\0\x40")
    + AFTER[2]
    + changed(AFTER[0], 3, b"\x33")
    + BEFORE
    + BEFORE[:15]
)


def retold(parts: Iterable[bytes], **options: bool) -> list[tuple[object, ...]]:
    """What is told of the bytes, without packets' numbers and times."""
    capture = Capture()
    if options.get("is_late"):
        capture.note(StreamEvent.STARTED_LATE)
    for part in parts:
        capture.send(part)
    rows = told(capture.note(StreamEvent.CLOSED).end().items)
    return [(*row[:4], *row[6:]) if row[0] == "frame" else row for row in rows]


def test_every_cut_of_a_stream_tells_the_same() -> None:
    whole = retold([STORY])
    assert [row[0] for row in whole] == [
        "frame", "BAD_CHECKSUM", StreamEvent.SKIPPED, "frame", "UNKNOWN_FLAG", StreamEvent.SKIPPED, "frame",
        "BAD_CHECKSUM", StreamEvent.SKIPPED, "frame", "UNKNOWN_KIND", StreamEvent.SKIPPED, "frame", "TRUNCATED_FRAME",
        StreamEvent.CLOSED,
    ]  # fmt: skip
    for at in range(len(STORY)):
        assert retold([STORY[:at], STORY[at:]]) == whole
    assert retold(STORY[at : at + 1] for at in range(len(STORY))) == whole
    assert retold(STORY[at : at + 3] for at in range(0, len(STORY), 3)) == whole


def test_frames_have_the_time_of_their_last_byte_behind_a_lost_region_too() -> None:
    size = limits.HEADER_SIZE + body_size_range(Kind.BANK_KEYS)[1]
    # A header that lies makes what follows wait; it is told later, but with its own time.
    lie = changed(frame_of(Kind.BANK_KEYS), 6, struct.pack(">H", size - 20))[:20]
    capture = Capture().send(lie)
    for data in AFTER:
        capture.send(data)
    assert capture.seen() == []
    capture.send(bytes(size)).end()
    assert [(frame.data, frame.number) for frame in capture.frames] == [(AFTER[0], 2), (AFTER[1], 3), (AFTER[2], 4)]


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=60) | st.sampled_from([b"PG", b"PG\1\2\0\0\0\x08"])),
        max_size=6,
    ),
    st.booleans(),
)
def test_all_good_frames_between_garbage_are_seen_and_nothing_else(
    parts: list[tuple[Kind, bytes]], is_late: bool
) -> None:
    sent = [frame_of(kind) for kind, _ in parts]
    data = b"".join(garbage + frame for (_, garbage), frame in zip(parts, sent, strict=True))
    capture = Capture()
    if is_late:
        capture.note(StreamEvent.STARTED_LATE)
    capture.send(data).end()
    assert capture.seen() == sent
    assert sum(size for _, size in capture.skipped) == len(data) - sum(map(len, sent))


PIECES: Final = [
    b"P", b"PG", b"PG\1", b"PG\1\2", b"PG\1\2\0\0\0\x08", b"PG\1\x22\0\0\0\0", BEFORE[:20], BEFORE[:27], BEFORE,
    changed(BEFORE, 25, b"!"), changed(BEFORE, 3, b"\x22"), changed(AFTER[0], 6, b"\0\x1f"),
    changed(AFTER[1], 4, b"\1"),
    frame_around(0x22, BEFORE + b"PG\1"), frame_around(Kind.HELLO, b"\x09\x01A\x01\x01"),
]  # fmt: skip
GARBAGE: Final = st.binary(max_size=200) | st.lists(st.sampled_from(PIECES) | st.binary(max_size=9), max_size=12).map(
    b"".join
)


@given(GARBAGE, st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_whatever_bytes_come_however_cut_the_same_is_told(garbage: bytes, cuts: list[int], is_late: bool) -> None:
    data = BEFORE + garbage + AFTER[0] + garbage[:50]
    ends = sorted(min(cut, len(data)) for cut in cuts)
    parts = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    assert retold(parts, is_late=is_late) == retold([data], is_late=is_late)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, len(STORY)), st.integers(1, 90)), max_size=12))
def test_gaps_and_ends_anywhere_break_nothing(steps: list[tuple[int, int, int]]) -> None:
    capture = Capture()
    for step, at, size in steps:
        match step:
            case 0:
                capture.lose(size)
            case 1:
                capture.note(StreamEvent.FINISHED)
            case _:
                capture.send(STORY[at : at + size])
    capture.send(bytes(LARGEST_FRAME_SIZE)).send(BEFORE).end()
    assert capture.seen()[-1] == BEFORE


def test_the_search_looks_for_all_that_a_header_may_begin_with_and_for_nothing_else() -> None:
    for kind in range(256):
        for flags in (0, 1, 2, 3, 0x0100, 0x8000):
            beginning = b"PG\1" + bytes([kind]) + flags.to_bytes(2)
            try:
                decode_head(beginning + bytes(14))
                is_plausible = True
            except RemoteProtocolError as error:
                is_plausible = error.code is ErrorCode.BODY_TOO_SMALL
            assert (frame_stream._SEARCH(b"PG\1" + beginning) is not None) is is_plausible


def test_the_session_of_the_spec_is_read_without_a_finding() -> None:
    reader = FrameReader(ports=frozenset({PORT}), link_keys=(SPEC_LINK_KEY,))
    links: dict[frozenset[str], Capture] = {}
    sent = list(payment_steps())
    for _, sender, receiver, data in sent:
        link = links.setdefault(frozenset({sender, receiver}), Capture(reader=reader))
        side = Side.CALLER if sender == "client" or receiver == "bank" else Side.ANSWERER
        link.send(data[:30], side).send(data[30:], side)
    seen = sorted((frame for link in links.values() for frame in link.frames), key=lambda frame: frame.index)
    assert [frame.data for frame in seen] == [data for *_, data in sent]
    assert not any(link.findings for link in links.values())


# -- bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        b"PG",
        b"PG\1",
        b"PG\1\x83\0\0",
        b"PG\1\x83\0\0" + struct.pack(">H", 24_000),
        changed(frame_of(Kind.BANK_KEYS), 6, struct.pack(">H", 24_000))[:20],
    ],
    ids=["magic", "version", "kind", "size", "header"],
)
def test_bytes_made_of_beginnings_cost_so_much_a_byte_and_no_more(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    checked_size = 0
    head_count = 0

    def counted_frame(head: FrameHead, data: bytes) -> Frame:
        nonlocal checked_size
        checked_size += len(data)
        return decode_frame(head, data)

    def counted_head(data: bytes) -> FrameHead:
        nonlocal head_count
        head_count += 1
        return decode_head(data)

    monkeypatch.setattr(frame_stream, "decode_frame", counted_frame)
    monkeypatch.setattr(frame_stream, "decode_head", counted_head)
    total_size = 400_000
    capture = Capture()
    data = unit * (total_size // len(unit))
    for at in range(0, len(data), 1_400):
        capture.send(data[at : at + 1_400])
        assert len(capture.reader._flows[capture.flow].streams[0].pending) <= LARGEST_FRAME_SIZE + 1_400
    capture.send(b"".join(AFTER) + bytes(LARGEST_FRAME_SIZE)).end()
    assert capture.seen() == AFTER
    # Beside the ration of the search, each frame that is told is checked once, and one that is found once more.
    told_count = len(capture.findings) + 2 * len(AFTER)
    free_size = frame_stream.CHECKED_SIZE_FREE + told_count * LARGEST_FRAME_SIZE
    assert checked_size <= free_size + frame_stream.CHECKED_PER_BYTE * capture.offsets[0]
    # What may be a header is looked at when it is found, again when its frame is complete, and once more to read it.
    assert head_count <= 3 * capture.offsets[0] / 6 + 2 * capture.number
    assert told_count <= 100 + capture.offsets[0] / 20


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
