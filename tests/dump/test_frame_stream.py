"""One direction: however its bytes are cut the same is told, and a search costs so much a byte and no more."""

import struct
from collections.abc import Iterable
from typing import Final

import pytest
from dump.flow_capture import AFTER, BEFORE, PORT, Capture, changed, frame_around, frame_of, told
from hypothesis import given
from hypothesis import strategies as st
from specgen.vector_fixtures import LINK_KEY as SPEC_LINK_KEY
from specgen.vector_session import payment_steps

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, FrameHead, body_size_range, decode_frame, decode_head
from paygate.dump import frame_stream
from paygate.dump.frame_stream import LARGEST_FRAME_SIZE
from paygate.dump.frames import FrameReader
from paygate.dump.model import (
    Side,
    StreamEvent,
)

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
