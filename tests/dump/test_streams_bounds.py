"""What reassembly counts, streams of any length, and memory that stays bounded."""

from collections import Counter
from itertools import count

import pytest
from dump import tcp_cases as cases
from dump.builders import ACK, PSH
from dump.tcp_cases import SEQUENCE_COUNT, Wire, reassembled, streams, told

from paygate.dump import one_way
from paygate.dump import streams as streams_module
from paygate.dump.held import PIECE_COST
from paygate.dump.model import Endpoint, Segment, Side, StreamData, StreamEvent, StreamGap, StreamItem, StreamNote
from paygate.dump.one_way import HELD_COST_MAX, RECENT_SIZE
from paygate.dump.streams import Reassembler, StreamCounts


def counted(wire: Wire) -> StreamCounts:
    reassembler = Reassembler(count(1))
    for segment in wire.segments:
        reassembler.receive_segment(segment)
    reassembler.finish()
    return reassembler.counts


def size_of(items: list[StreamItem]) -> int:
    return sum(len(item.data) for item in items if isinstance(item, StreamData))


# -- counts ----------------------------------------------------------------------------------------------


def test_counts_tell_of_retransmissions_and_overlaps() -> None:
    counts = counted(cases.retransmission_with_new_tail())
    assert (counts.flows, counts.segments) == (1, 7)
    assert (counts.retransmitted_segments, counts.retransmitted_size, counts.differing_segments) == (2, 7, 0)
    assert counted(cases.overlap_differs()).differing_segments == 1


def test_counts_tell_of_gaps_and_what_came_too_late_for_them() -> None:
    counts = counted(cases.gap_filled_too_late())
    assert (counts.gaps, counts.gap_size, counts.late_segments, counts.late_size) == (1, 3, 1, 3)


def test_bytes_from_before_the_beginning_count_as_sent_again() -> None:
    counts = counted(cases.mid_stream_repeats_what_lies_before())
    assert (counts.retransmitted_segments, counts.retransmitted_size, counts.differing_segments) == (2, 12, 0)


def test_counts_tell_of_segments_out_of_order_probes_and_nonsense() -> None:
    assert counted(cases.out_of_order()).out_of_order_segments == 1
    assert counted(cases.in_order()).out_of_order_segments == 0
    assert counted(cases.keepalive()).keepalives == 1  # The second probe has no byte at all.
    assert counted(cases.keepalive()).retransmitted_segments == 0
    assert counted(cases.bad_sequence()).implausible_segments == 1


# -- long streams ----------------------------------------------------------------------------------------


def test_offsets_go_on_beyond_4_gib() -> None:
    size = 1 << 27
    data = bytes(size)
    reassembler = Reassembler(count(1))
    source, target = Endpoint("127.0.0.1", 40_000), Endpoint("127.0.0.1", 15_000)
    for number, segment in enumerate(Wire(999).open().segments):
        reassembler.receive_segment(segment._replace(number=number))
    for at in range(0, 3 * SEQUENCE_COUNT // 2, size):
        sequence = (1_000 + at) % SEQUENCE_COUNT
        (item,) = reassembler.receive_segment(Segment(1, 1, source, target, sequence, 5_001, ACK | PSH, data, 0))
        assert isinstance(item, StreamData)
        assert item.offset == at


@pytest.mark.parametrize("start", [SEQUENCE_COUNT - 3, (1 << 31) - 3, 0])
def test_any_first_sequence_number_is_as_good(start: int) -> None:
    wire = Wire(start, start).open().client(3, b"def").client(0, b"abc").client(2, b"cdefgh").server(0, b"ok", ack=8)
    assert streams(reassembled(wire.segments)) == {(1, Side.CALLER): b"abcdefgh", (1, Side.ANSWERER): b"ok"}


# -- memory ----------------------------------------------------------------------------------------------


def test_bytes_are_compared_as_far_back_as_they_are_kept() -> None:
    wire = Wire().open()
    for at in range(0, 4 * RECENT_SIZE, 1_024):
        wire.client(at, b"a" * 1_024)
    wire.client(4 * RECENT_SIZE - RECENT_SIZE, b"b" * 10)
    wire.client(0, b"b" * 10)  # Too old: it counts as the same.
    events = [(i.event, i.offset) for i in reassembled(wire.segments) if isinstance(i, StreamNote) and i.size]
    assert events == [(StreamEvent.OVERLAP_DIFFERS, 3 * RECENT_SIZE), (StreamEvent.RETRANSMITTED, 0)]


def test_a_gap_is_told_before_more_is_held_than_may_be() -> None:
    reassembler = Reassembler(count(1))
    wire = Wire().syn()
    pieces = HELD_COST_MAX // 1_024 + 10
    for number in range(pieces):
        wire.client(1 + 1_024 * number, bytes(1_024))
    received = [item for segment in wire.segments for item in reassembler.receive_segment(segment)]
    assert [told(i) for i in received if isinstance(i, StreamGap)] == ["1 caller 0: 1 missing"]
    assert size_of(received) == 1_024 * pieces


def test_tiny_pieces_with_holes_are_held_within_the_same_bound() -> None:
    wire = Wire().syn()
    pieces = 30_000
    for number in range(pieces):
        wire.client(1 + 2 * number, b"x")
    reassembler = Reassembler(count(1))
    given = 0
    held_max = 0
    for number, segment in enumerate(wire.segments):
        given += size_of(list(reassembler.receive_segment(segment)))
        held_max = max(held_max, number - given)
    assert held_max <= HELD_COST_MAX // (PIECE_COST + 1) + 1
    assert given + size_of(list(reassembler.finish())) == pieces


def test_all_connections_together_hold_no_more_than_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_way, "HELD_COST_TOTAL_MAX", 100_000)
    reassembler = Reassembler(count(1))
    sent = given = 0
    for port in range(40_000, 40_050):
        wire = Wire(client=("127.0.0.1", port)).syn()
        for number in range(10):
            wire.client(1_000 + 2_000 * number, bytes(1_000))
        for segment in wire.segments:
            sent += len(segment.payload)
            given += size_of(list(reassembler.receive_segment(segment)))
            assert sent - given <= 100_000
    assert given + size_of(list(reassembler.finish())) == sent


def test_all_connections_together_keep_no_more_than_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_way, "RECENT_SIZE_TOTAL_MAX", 10_000)
    reassembler = Reassembler(count(1))
    events: Counter[StreamEvent] = Counter()
    for port in range(40_000, 40_020):
        wire = Wire(client=("127.0.0.1", port)).open().client(0, b"a" * 1_000).client(0, b"b" * 1_000)
        for segment in wire.segments:
            events.update(i.event for i in reassembler.receive_segment(segment) if isinstance(i, StreamNote))
    # Ten are compared; who comes when the bound is reached keeps nothing, and counts as the same.
    assert events[StreamEvent.OVERLAP_DIFFERS] == 10
    assert events[StreamEvent.RETRANSMITTED] == 10


def test_the_connection_that_was_silent_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "FLOW_COUNT_MAX", 2)
    first, second, third = (Wire(client=("127.0.0.1", port)) for port in (40_001, 40_002, 40_003))
    segments = first.open().segments + second.open().client(3, b"held").segments
    first.segments = []
    segments += first.client(0, b"alive").segments + third.open().segments
    assert [told(item) for item in reassembled(segments)] == [
        "1 caller 0: OPENED",
        "2 caller 0: OPENED",
        "1 caller 0: alive",
        "2 caller 0: 3 missing",
        "2 caller 3: held",
        "2 caller 7: DROPPED",
        "3 caller 0: OPENED",
        "1 caller 5: CAPTURE_ENDED",
        "3 caller 0: CAPTURE_ENDED",
    ]
