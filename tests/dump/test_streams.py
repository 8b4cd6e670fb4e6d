"""TCP segments become the bytes of streams, in every state that a capture can be in."""

import io
from collections.abc import Callable
from itertools import count

from dump import tcp_cases as cases
from dump.builders import CLIENT, RAW, SERVER, Captured, pcap_bytes, tcp_packet
from dump.flow_capture import frame_of
from dump.tcp_cases import Wire, reassembled, streams, told

from paygate.codec.codes import Kind
from paygate.dump.model import SeenFrame, Side, StreamData, StreamGap, StreamItem
from paygate.dump.one_way import START_COUNT
from paygate.dump.pipeline import Pipeline
from paygate.dump.streams import Reassembler


def tells(build: Callable[[], Wire]) -> list[str]:
    return [told(item) for item in reassembled(build().segments)]


def size_of(items: list[StreamItem]) -> int:
    return sum(len(item.data) for item in items if isinstance(item, StreamData))


# -- what each capture tells -----------------------------------------------------------------------------


def test_bytes_in_order_come_at_once() -> None:
    assert tells(cases.in_order) == [
        "1 caller 0: OPENED",
        "1 caller 0: ask ",
        "1 caller 4: more",
        "1 answerer 0: answer",
        "1 caller 8: FINISHED",
        "1 answerer 6: FINISHED",
        "1 answerer 6: CLOSED",
    ]


def test_segments_out_of_order_are_put_in_order() -> None:
    assert tells(cases.out_of_order) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: ghi",
        "1 caller 9: jkl",
        "1 caller 12: CAPTURE_ENDED",
    ]


def test_the_first_segment_may_be_out_of_order() -> None:
    assert tells(cases.first_out_of_order) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_data_may_stand_before_the_syn_in_the_capture() -> None:
    assert tells(cases.data_before_syn) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: ghi",
        "1 answerer 0: ok",
        "1 caller 9: CAPTURE_ENDED",
    ]


def test_the_answer_may_stand_before_the_syn_in_the_capture() -> None:
    assert tells(cases.answer_before_syn) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 answerer 0: ok",
        "1 answerer 2: CAPTURE_ENDED",
    ]


def test_bytes_sent_again_are_told_and_left_out() -> None:
    assert tells(cases.retransmission) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 0: RETRANSMITTED 3",
        "1 caller 3: RETRANSMITTED 3",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_the_new_tail_of_a_retransmission_counts() -> None:
    assert tells(cases.retransmission_with_new_tail) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 0: RETRANSMITTED 3",
        "1 caller 3: def",
        "1 caller 2: RETRANSMITTED 4",
        "1 caller 6: ghi",
        "1 caller 9: CAPTURE_ENDED",
    ]


def test_held_bytes_sent_again_are_told_and_left_out() -> None:
    assert tells(cases.retransmission_of_held_bytes) == [
        "1 caller 0: OPENED",
        "1 caller 6: RETRANSMITTED 3",
        "1 caller 6: RETRANSMITTED 3",
        "1 caller 11: RETRANSMITTED 2",
        "1 caller 0: abc",
        "1 caller 3: defghijkl",
        "1 caller 12: m",
        "1 caller 13: n",
        "1 caller 14: CAPTURE_ENDED",
    ]


def test_of_differing_bytes_the_first_ones_count() -> None:
    assert tells(cases.overlap_differs) == [
        "1 caller 0: OPENED",
        "1 caller 0: abcdef",
        "1 caller 2: OVERLAP_DIFFERS 3",
        "1 caller 6: gh",
        "1 caller 8: CAPTURE_ENDED",
    ]


def test_of_differing_bytes_the_first_ones_count_while_they_are_held_too() -> None:
    assert tells(cases.overlap_of_held_bytes_differs) == [
        "1 caller 0: OPENED",
        "1 caller 4: OVERLAP_DIFFERS 2",
        "1 caller 2: OVERLAP_DIFFERS 1",
        "1 caller 0: ab",
        "1 caller 2: cdefghij",
        "1 caller 10: CAPTURE_ENDED",
    ]


def test_a_capture_that_holds_every_packet_twice_gives_every_byte_once() -> None:
    assert tells(cases.every_packet_twice) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 0: RETRANSMITTED 3",
        "1 answerer 0: ok",
        "1 answerer 0: RETRANSMITTED 2",
        "1 caller 3: FINISHED",
        "1 answerer 2: FINISHED",
        "1 answerer 2: CLOSED",
    ]


def test_keepalive_probes_are_no_retransmissions() -> None:
    assert tells(cases.keepalive) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_a_keepalive_probe_does_not_begin_a_stream() -> None:
    assert tells(cases.keepalive_first) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: abc",
        "1 answerer 0: ok",
        "1 answerer 2: CAPTURE_ENDED",
    ]


def test_the_byte_of_a_zero_window_probe_counts() -> None:
    assert tells(cases.zero_window_probe) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: d",
        "1 caller 4: ef",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_a_gap_is_told_as_soon_as_its_bytes_are_acknowledged() -> None:
    assert tells(cases.gap_acknowledged) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 5 missing",
        "1 caller 8: ijk",
        "1 caller 11: lmn",
        "1 caller 14: CAPTURE_ENDED",
    ]


def test_a_gap_is_told_as_soon_as_something_comes_behind_acknowledged_bytes() -> None:
    assert tells(cases.gap_acknowledged_before) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 5 missing",
        "1 caller 8: ijk",
        "1 answerer 0: ok",
        "1 caller 11: CAPTURE_ENDED",
    ]


def test_a_gap_may_be_at_the_start() -> None:
    assert tells(cases.gap_at_the_start) == [
        "1 caller 0: OPENED",
        "1 caller 0: 5 missing",
        "1 caller 5: fgh",
        "1 answerer 0: ok",
        "1 caller 8: i",
        "1 caller 9: CAPTURE_ENDED",
    ]


def test_a_gap_that_nobody_acknowledges_is_told_at_the_end() -> None:
    assert tells(cases.gap_never_acknowledged) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 5 missing",
        "1 caller 8: ijk",
        "1 caller 11: 9 missing",
        "1 caller 20: uvw",
        "1 caller 23: CAPTURE_ENDED",
    ]


def test_a_gap_before_the_fin_is_told_when_the_fin_is_acknowledged() -> None:
    assert tells(cases.gap_before_fin) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 3 missing",
        "1 caller 6: FINISHED",
        "1 answerer 0: FINISHED",
        "1 answerer 0: CLOSED",
    ]


def test_bytes_that_are_acknowledged_and_never_came_are_missing_at_the_end() -> None:
    assert tells(cases.gap_at_the_end) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 answerer 0: ok",
        "1 caller 3: 7 missing",
        "1 caller 10: CAPTURE_ENDED",
    ]


def test_bytes_of_a_gap_that_was_told_come_too_late() -> None:
    assert tells(cases.gap_filled_too_late) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 3 missing",
        "1 caller 6: ghi",
        "1 caller 3: CAME_TOO_LATE 3",
        "1 caller 1: RETRANSMITTED 4",
        "1 caller 9: jkl",
        "1 caller 12: CAPTURE_ENDED",
    ]


def test_bytes_that_the_capture_cut_off_are_missing_at_once() -> None:
    assert tells(cases.snapped) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 7 missing",
        "1 caller 10: klm",
        "1 answerer 0: ok",
        "1 answerer 2: 3 missing",
        "1 caller 13: CAPTURE_ENDED",
    ]


def test_bytes_cut_off_of_a_segment_out_of_order_are_missing_in_their_place() -> None:
    assert tells(cases.snapped_out_of_order) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 2 missing",
        "1 caller 5: fg",
        "1 caller 7: 3 missing",
        "1 caller 10: CAPTURE_ENDED",
    ]


def test_bytes_cut_off_at_the_end_are_missing_even_if_nobody_acknowledged_them() -> None:
    assert tells(cases.snapped_at_the_end) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: d",
        "1 caller 4: 2 missing",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_a_capture_may_begin_in_mid_stream() -> None:
    assert tells(cases.mid_stream) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: abc",
        "1 answerer 0: ok",
        "1 caller 3: def",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_in_mid_stream_the_lower_port_answers() -> None:
    assert tells(cases.mid_stream_from_the_server) == [
        "1 answerer 0: STARTED_LATE",
        "1 answerer 0: pushed",
        "1 caller 0: taken",
        "1 answerer 6: CAPTURE_ENDED",
    ]


def test_in_mid_stream_the_first_segment_may_be_out_of_order() -> None:
    assert tells(cases.mid_stream_out_of_order) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 answerer 0: ok",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_bytes_sent_again_from_before_a_stream_joined_late_have_no_place_in_it() -> None:
    assert tells(cases.mid_stream_repeats_what_lies_before) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: abc",
        "1 answerer 0: ok",
        "1 caller 0: RETRANSMITTED 3",
        "1 caller 3: def",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_a_capture_may_begin_with_a_fin() -> None:
    assert tells(cases.mid_stream_fin) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: FINISHED",
        "1 answerer 0: last",
        "1 answerer 4: FINISHED",
        "1 answerer 4: CLOSED",
    ]


def test_ports_used_again_are_a_new_flow() -> None:
    assert tells(cases.port_reuse_after_close) == [
        "1 caller 0: OPENED",
        "1 caller 0: one",
        "1 caller 3: FINISHED",
        "1 answerer 0: FINISHED",
        "1 answerer 0: CLOSED",
        "2 caller 0: OPENED",
        "2 caller 0: two",
        "2 answerer 0: ok",
        "2 caller 3: CAPTURE_ENDED",
    ]


def test_ports_used_again_close_a_connection_whose_end_is_not_in_the_capture() -> None:
    assert tells(cases.port_reuse_without_close) == [
        "1 caller 0: OPENED",
        "1 caller 0: one",
        "1 answerer 0: first",
        "1 caller 3: CLOSED",
        "2 caller 0: OPENED",
        "2 caller 0: two",
        "2 answerer 0: second",
        "2 caller 3: CAPTURE_ENDED",
    ]


def test_the_ports_of_a_client_that_had_sent_nothing_may_be_used_again() -> None:
    assert tells(cases.port_reuse_by_a_silent_client) == [
        "1 answerer 0: STARTED_LATE",
        "1 answerer 0: pushed",
        "1 answerer 6: CLOSED",
        "2 caller 0: OPENED",
        "2 caller 0: two",
        "2 answerer 0: ok",
        "2 caller 3: CAPTURE_ENDED",
    ]


def test_bytes_that_wait_for_their_beginning_come_out_when_the_ports_are_used_again() -> None:
    assert tells(cases.port_reuse_behind_bytes_that_wait) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: one",
        "1 caller 3: CLOSED",
        "2 caller 0: OPENED",
        "2 caller 0: two",
        "2 answerer 0: ok",
        "2 caller 3: CAPTURE_ENDED",
    ]


def test_a_syn_sent_again_opens_nothing() -> None:
    assert tells(cases.syn_retransmitted) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 answerer 0: ok",
        "1 caller 3: CAPTURE_ENDED",
    ]


def test_sequence_numbers_wrap() -> None:
    assert tells(cases.sequence_wrap) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: ghi",
        "1 answerer 0: ok",
        "1 caller 9: j",
        "1 caller 10: CAPTURE_ENDED",
    ]


def test_a_reset_ends_both_directions() -> None:
    assert tells(cases.reset) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: 3 missing",
        "1 caller 6: ghi",
        "1 answerer 0: RESET",
        "1 answerer 0: CLOSED",
    ]


def test_a_refused_connection_was_never_open() -> None:
    assert tells(cases.refused) == [
        "1 answerer 0: RESET",
        "1 answerer 0: CLOSED",
    ]


def test_bytes_on_their_way_while_a_connection_is_reset_are_not_lost() -> None:
    assert tells(cases.bytes_after_reset) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: RESET",
        "1 caller 3: CLOSED",
        "2 answerer 0: STARTED_LATE",
        "2 answerer 0: on its way",
        "2 answerer 10: CAPTURE_ENDED",
    ]


def test_a_half_closed_connection_goes_on_in_the_other_direction() -> None:
    assert tells(cases.half_closed) == [
        "1 caller 0: OPENED",
        "1 caller 0: ask",
        "1 caller 3: FINISHED",
        "1 answerer 0: one ",
        "1 answerer 4: two",
        "1 answerer 7: FINISHED",
        "1 answerer 7: CLOSED",
    ]


def test_a_fin_may_carry_data() -> None:
    assert tells(cases.fin_with_data) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: FINISHED",
        "1 answerer 0: ok",
        "1 answerer 2: FINISHED",
        "1 answerer 2: CLOSED",
    ]


def test_a_fin_may_come_before_the_data() -> None:
    assert tells(cases.fin_before_data) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: FINISHED",
        "1 answerer 0: ok",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_bytes_behind_a_fin_are_not_believed() -> None:
    assert tells(cases.bytes_after_fin) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: FINISHED",
        "1 caller 3: IMPLAUSIBLE 2",
        "1 caller 3: CAPTURE_ENDED",
    ]


def test_of_two_callers_the_first_is_the_caller() -> None:
    assert tells(cases.simultaneous_open) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 answerer 0: def",
        "1 caller 3: CAPTURE_ENDED",
    ]


def test_a_syn_may_carry_data() -> None:
    assert tells(cases.fast_open) == [
        "1 caller 0: OPENED",
        "1 caller 0: early",
        "1 caller 5:  late",
        "1 answerer 0: ok",
        "1 caller 10: CAPTURE_ENDED",
    ]


def test_data_of_a_syn_may_be_sent_again() -> None:
    assert tells(cases.fast_open_refused) == [
        "1 caller 0: OPENED",
        "1 caller 0: early",
        "1 caller 0: RETRANSMITTED 5",
        "1 caller 5:  late",
        "1 answerer 0: ok",
        "1 caller 10: CAPTURE_ENDED",
    ]


def test_a_sequence_number_that_no_window_reaches_is_not_believed() -> None:
    assert tells(cases.bad_sequence) == [
        "1 caller 0: OPENED",
        "1 caller 0: abc",
        "1 caller 3: IMPLAUSIBLE 3",
        "1 caller 3: def",
        "1 caller 6: CAPTURE_ENDED",
    ]


def test_segments_without_acknowledgements_come_out_at_the_end() -> None:
    assert tells(cases.no_acknowledgements) == [
        "1 caller 0: STARTED_LATE",
        "1 caller 0: abc",
        "1 caller 3: def",
        "1 caller 6: CAPTURE_ENDED",
    ]


# -- when things are told --------------------------------------------------------------------------------


def test_every_capture_in_the_list_is_told_above() -> None:
    told_above = {
        name for function in globals().values() if hasattr(function, "__code__") for name in function.__code__.co_names
    }
    assert set(cases.CASES) <= told_above


def test_a_gap_waits_for_the_acknowledgement_and_no_longer() -> None:
    reassembler = Reassembler(count(1))
    *before, acknowledgement, _, _ = cases.gap_acknowledged().segments
    items = [item for segment in before for item in reassembler.receive_segment(segment)]
    assert not any(isinstance(item, StreamGap) for item in items)
    gap, data = reassembler.receive_segment(acknowledgement)
    assert [told(gap), told(data)] == ["1 caller 3: 5 missing", "1 caller 8: ijk"]


def test_items_carry_time_and_number_of_the_packet_that_completed_them() -> None:
    items = reassembled(cases.out_of_order().segments)
    assert [(item.number, item.time_ns) for item in items if isinstance(item, StreamData)] == [
        (4, 4_000_000),
        (7, 7_000_000),
        (7, 7_000_000),
        (7, 7_000_000),
    ]


def numbered(wire: Wire) -> list[tuple[str, int]]:
    """What is told, with the number of the packet that it carries; times are a millisecond a packet."""
    items = reassembled(wire.segments)
    assert all(item.time_ns == 1_000_000 * item.number for item in items)
    return [(told(item), item.number) for item in items]


def test_what_waits_for_an_unknown_beginning_carries_the_packet_that_it_came_in() -> None:
    assert numbered(cases.mid_stream()) == [
        ("1 caller 0: STARTED_LATE", 1),
        ("1 caller 0: abc", 1),
        ("1 answerer 0: ok", 2),
        ("1 caller 3: def", 3),
        ("1 caller 6: CAPTURE_ENDED", 3),
    ]
    assert numbered(cases.no_acknowledgements())[:3] == [
        ("1 caller 0: STARTED_LATE", 1),
        ("1 caller 0: abc", 1),
        ("1 caller 3: def", 2),
    ]


def test_what_waits_for_bytes_before_it_carries_their_packet_even_if_the_beginning_is_unknown() -> None:
    assert numbered(cases.mid_stream_out_of_order())[:4] == [
        ("1 caller 0: STARTED_LATE", 2),
        ("1 caller 0: abc", 2),
        ("1 caller 3: def", 2),
        ("1 answerer 0: ok", 3),
    ]
    wire = Wire().client(0, b"abc", ack=50).client(5, b"fgh", ack=50).server(50, b"ok", ack=8)
    assert numbered(wire)[:5] == [
        ("1 caller 0: STARTED_LATE", 1),
        ("1 caller 0: abc", 1),
        ("1 caller 3: 2 missing", 3),
        ("1 caller 5: fgh", 3),
        ("1 answerer 0: ok", 3),
    ]


def test_a_reply_in_mid_stream_comes_after_the_time_that_passed() -> None:
    query, ack = frame_of(Kind.TOKEN_QUERY, 1), frame_of(Kind.TOKEN_ACK, 1)
    packets = [
        Captured(tcp_packet(query, sequence=1_000, acknowledged=5_000), 10**18),
        Captured(
            tcp_packet(ack, source=SERVER, target=CLIENT, sequence=5_000, acknowledged=1_000 + len(query)),
            10**18 + 10**9,
        ),
    ]
    pipeline = Pipeline()
    read = pipeline.read(io.BytesIO(pcap_bytes(packets, link_type=RAW)))
    asked, replied = (item for item in [*read, *pipeline.finish()] if isinstance(item, SeenFrame))
    assert (asked.number, asked.time_ns, replied.number) == (1, 10**18, 2)
    # The reply is not acknowledged, so that it comes out only when the capture ends; it came before that.
    assert replied.answers is asked
    assert replied.latency_ns == 10**9


def test_what_the_end_of_the_capture_brings_carries_its_last_packet() -> None:
    wire = cases.in_order()
    wire.segments = wire.segments[:-3]
    ended = reassembled(wire.segments)[-1]
    assert told(ended) == "1 caller 8: CAPTURE_ENDED"
    assert (ended.number, ended.time_ns) == (wire.segments[-1].number, wire.segments[-1].time_ns)


def test_a_one_way_capture_from_mid_stream_is_shown_after_a_few_segments() -> None:
    wire = Wire()
    for at in range(START_COUNT + 2):
        wire.client(at, b"x", ack=None)
    reassembler = Reassembler(count(1))
    sizes = [size_of(list(reassembler.receive_segment(segment))) for segment in wire.segments]
    assert sizes == [0] * (START_COUNT - 1) + [START_COUNT, 1, 1]


def test_a_known_server_port_answers_even_if_it_is_the_higher_one() -> None:
    wire = Wire(client=("127.0.0.1", 99), server=("127.0.0.1", 15_000)).client(0, b"ask").server(0, b"ok", ack=3)
    sides = {}
    for server_ports in (frozenset[int](), frozenset({15_000})):
        reassembler = Reassembler(count(1), server_ports)
        items = [item for segment in wire.segments for item in reassembler.receive_segment(segment)]
        (flow,) = {id(item.flow): item.flow for item in items}.values()
        sides[server_ports] = flow.caller.port
    assert sides == {frozenset(): 15_000, frozenset({15_000}): 99}


def test_connections_that_tell_nothing_take_no_number() -> None:
    wire = Wire(client=("127.0.0.1", 41_000)).client(0).server(0).client(0, flags=4)
    other = Wire().open()
    items = reassembled(wire.segments + other.segments)
    assert [told(item) for item in items] == ["1 caller 0: OPENED", "1 caller 0: CAPTURE_ENDED"]


def test_an_end_that_talks_to_itself_is_read() -> None:
    wire = Wire(1_000, 1_000, client=("127.0.0.1", 15_000), server=("127.0.0.1", 15_000)).syn().client(0, b"me")
    assert streams(reassembled(wire.segments)) == {(1, Side.CALLER): b"me"}
