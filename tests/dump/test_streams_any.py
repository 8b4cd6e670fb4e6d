"""Whatever segments come: no exception, streams without holes, flows that begin and end, and memory given back."""

from itertools import count
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paygate.dump import one_way
from paygate.dump import streams as streams_module
from paygate.dump.model import Endpoint, Flow, Segment, Side, StreamEvent, StreamGap, StreamItem, StreamNote
from paygate.dump.streams import Reassembler

ENDS: Final = [Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 15_000), Endpoint("::1", 15_000)]
BEGINNINGS: Final = {StreamEvent.OPENED, StreamEvent.STARTED_LATE, StreamEvent.RESET}
ENDINGS: Final = {StreamEvent.CLOSED, StreamEvent.DROPPED, StreamEvent.CAPTURE_ENDED}
SEQUENCES: Final = st.integers(0, 30) | st.integers((1 << 32) - 30, (1 << 32) - 1) | st.integers(0, (1 << 32) - 1)

SEGMENTS: Final = st.lists(
    st.builds(
        Segment,
        number=st.just(1),
        time_ns=st.none() | st.just(5),
        source=st.sampled_from(ENDS),
        target=st.sampled_from(ENDS),
        sequence=SEQUENCES,
        acknowledged=SEQUENCES,
        flags=st.sampled_from([0, 16, 16, 16, 24, 2, 18, 17, 4, 20]) | st.integers(0, 511),
        payload=st.binary(max_size=20),
        lost_size=st.sampled_from([0, 0, 0, 5]),
    ),
    max_size=40,
)


@pytest.mark.parametrize("flow_count_max", [1, 100])
@settings(max_examples=1_000, deadline=None)
@given(segments=SEGMENTS)
def test_any_segments_give_sound_streams(flow_count_max: int, segments: list[Segment]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Bounds as small as the segments, so that they are met.
        patch.setattr(one_way, "HELD_COST_MAX", 600)
        patch.setattr(one_way, "RECENT_SIZE", 16)
        patch.setattr(one_way, "RECENT_SIZE_TOTAL_MAX", 100)
        patch.setattr(streams_module, "FLOW_COUNT_MAX", flow_count_max)
        reassembler = Reassembler(count(1))
        items: list[StreamItem] = []
        for segment in segments:
            items += reassembler.receive_segment(segment)
            assert reassembler.held_size <= 2 * flow_count_max * 600
            assert reassembler.recent_size <= 100 + 20
        items += reassembler.finish()
    check_streams(items)
    assert (reassembler.held_size, reassembler.recent_size) == (0, 0)


def check_streams(items: list[StreamItem]) -> None:
    offsets: dict[tuple[Flow, Side], int] = {}
    ended: set[Flow] = set()
    begun: dict[Flow, StreamEvent] = {}
    for item in items:
        assert item.flow not in ended
        if item.flow not in begun:
            assert isinstance(item, StreamNote)
            assert item.event in BEGINNINGS
            assert item.flow.number == len(begun) + 1
            begun[item.flow] = item.event
        key = item.flow, item.side
        if isinstance(item, StreamNote):
            if item.event in ENDINGS:
                ended.add(item.flow)
            continue
        size = item.size if isinstance(item, StreamGap) else len(item.data)
        assert size > 0
        assert item.offset == offsets.get(key, 0)
        offsets[key] = item.offset + size
    assert ended == begun.keys()
