"""Streams to frames: good frames are seen whatever stands between them; what is wrong is told once, with its place."""

import struct
import zlib
from typing import Final

import pytest
from builders import LINK_KEY, example
from dump.flow_capture import AFTER, BEFORE, Capture, changed, frame_around, frame_of

from paygate.codec.codes import Kind
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import encode_frame
from paygate.codec.walk import decoder_path
from paygate.dump.model import (
    Finding,
    FlowKind,
    SeenFrame,
    Side,
)

each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


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
    (0, b"GH", "BAD_MAGIC", "magic", "the letters PG", "two other bytes", "4.1"),
    (1, b"\0", "BAD_MAGIC", "magic", "the letters PG", "two other bytes", "4.1"),
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
    assert finding.expected == "20020 bytes, a whole BankKeys"


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
