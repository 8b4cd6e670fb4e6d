"""A known session, its segments split, reordered, repeated, overlapping, lying or lost: bytes and frames stay known.

The shuffler obeys what a capture at one place can't break: a byte is acknowledged after it passed.
"""

from dataclasses import dataclass
from functools import cache
from itertools import count
from random import Random
from typing import Final

from dump.builders import ACK, FIN, PSH, SYN
from hypothesis import given, settings
from hypothesis import strategies as st
from specgen.vector_session import payment_steps

from paygate.dump.frames import FrameReader
from paygate.dump.model import Endpoint, SeenFrame, Segment, Side, StreamData, StreamEvent, StreamGap, StreamItem
from paygate.dump.one_way import START_COUNT
from paygate.dump.streams import Reassembler

SEQUENCE_COUNT: Final = 1 << 32
DELAY_MAX: Final = START_COUNT - 1
"""Segments by which one is overtaken at most: a stream without a SYN waits for so many, and no longer."""
PORTS: Final = {"client": 15_000, "bank": 15_001}


@cache
def known_frames() -> dict[str, tuple[list[bytes], list[bytes]]]:
    """The session's frames by the link, those of the one who connects first."""
    links: dict[str, tuple[list[bytes], list[bytes]]] = {"client": ([], []), "bank": ([], [])}
    for _, sender, receiver, frame in payment_steps():
        link = "bank" if "bank" in (sender, receiver) else "client"
        is_caller = sender == "client" or receiver == "bank"
        links[link][Side.CALLER if is_caller else Side.ANSWERER].append(frame)
    return links


@dataclass
class Piece:
    """A segment in the making: bytes at their place in the stream."""

    side: Side
    at: int
    data: bytes
    flags: int = PSH


@dataclass
class Shuffler:
    """Makes a capture of one connection from the bytes of both sides."""

    link: str
    sizes: list[int]
    """Of segments, in bytes; chosen among at random."""
    delay_max: int
    """Segments by which one is overtaken at most."""
    repeat_count: int
    """Segments that repeat bytes, cut elsewhere, in each direction."""
    starts: tuple[int, int]
    """The sequence numbers of both SYNs."""
    seed: int
    """Of all choices that are left."""
    has_syns: bool = True
    has_fins: bool = True
    has_lies: bool = True
    """Segments that repeat bytes that passed, but as others."""

    @property
    def streams(self) -> tuple[bytes, bytes]:
        """The bytes of both sides."""
        caller, answerer = known_frames()[self.link]
        return b"".join(caller), b"".join(answerer)

    def segments(self) -> list[Segment]:
        """What passed, in order, before anything is lost."""
        self._rng = rng = Random(self.seed)
        sides = [self._pieces(side) for side in Side]
        pieces = []
        if self.has_syns:
            pieces += [Piece(Side.CALLER, -1, b"", SYN), Piece(Side.ANSWERER, -1, b"", SYN | ACK)]
            # Data may overtake the SYN that allows it, in the file.
            for _ in range(min(rng.randrange(3), len(sides[Side.CALLER]) - 1)):
                pieces.insert(0, sides[Side.CALLER].pop(0))
        while any(sides):
            side = rng.choice([side for side in Side if sides[side]])
            pieces.append(sides[side].pop(0))
        return self._acknowledged(pieces)

    def _pieces(self, side: Side) -> list[Piece]:
        rng, stream = self._rng, self.streams[side]
        whole, at = [], 0
        while at < len(stream):
            size = rng.choice(self.sizes)
            whole.append(Piece(side, at, stream[at : at + size]))
            at += size
        if self.has_fins:
            whole.append(Piece(side, len(stream), b"", FIN))
        for _ in range(self.repeat_count):
            begin = rng.randrange(len(stream))
            size = rng.choice((1, 30, 1_460))
            number = rng.randrange(len(whole) + 1)
            whole.insert(number, Piece(side, begin, stream[begin : begin + size]))
        places = [number + rng.uniform(0, self.delay_max) for number in range(len(whole))]
        whole = [whole[number] for number in sorted(range(len(whole)), key=places.__getitem__)]
        return whole

    def _acknowledged(self, pieces: list[Piece]) -> list[Segment]:
        """Add acknowledgements of what has passed, and lies about it."""
        rng = self._rng
        passed: list[set[int]] = [set(), set()]
        contiguous = [0, 0]
        segments: list[Segment] = []
        is_open = not self.has_syns
        for piece in pieces:
            is_open |= bool(piece.flags & SYN) and piece.side is Side.ANSWERER
            ack = contiguous[piece.side.other] if rng.random() < 0.9 else None
            self._add(segments, piece, ack)
            passed[piece.side].update(range(piece.at, piece.at + len(piece.data) + bool(piece.flags & FIN)))
            while contiguous[piece.side] in passed[piece.side]:
                contiguous[piece.side] += 1
            if is_open and rng.random() < 0.3:  # a bare acknowledgement by the receiver
                self._add(
                    segments, Piece(piece.side.other, contiguous[piece.side.other], b"", 0), contiguous[piece.side]
                )
            if self.has_lies and rng.random() < 0.1 and contiguous[piece.side] > 40:
                at = rng.randrange(contiguous[piece.side] - 40)
                self._add(segments, Piece(piece.side, at, rng.randbytes(20)), contiguous[piece.side.other])
        return segments

    def _add(self, segments: list[Segment], piece: Piece, ack: int | None) -> None:
        number = len(segments) + 1
        ends = Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", PORTS[self.link])
        flags = piece.flags if ack is None else piece.flags | ACK
        sequence = (self.starts[piece.side] + 1 + piece.at) % SEQUENCE_COUNT
        acknowledged = (self.starts[piece.side.other] + 1 + (ack or 0)) % SEQUENCE_COUNT
        source, target = ends[piece.side], ends[piece.side.other]
        # The caller's SYN can't acknowledge what it does not know yet.
        flags = SYN if piece.flags == SYN else flags
        segments.append(
            Segment(
                number,
                number * 1_000,
                source,
                target,
                sequence,
                acknowledged if flags & ACK else 0,
                flags,
                piece.data,
                0,
            )
        )


SHUFFLERS: Final = st.builds(
    Shuffler,
    link=st.sampled_from(list(PORTS)),
    sizes=st.lists(st.sampled_from([1_460, 536, 200, 20, 7, 1]), min_size=1, max_size=6),
    delay_max=st.integers(0, DELAY_MAX),
    repeat_count=st.integers(0, 6),
    starts=st.tuples(*[st.sampled_from([0, SEQUENCE_COUNT - 10, 1 << 31]) | st.integers(0, SEQUENCE_COUNT - 1)] * 2),
    seed=st.integers(0, 1 << 32),
    has_syns=st.booleans(),
    has_fins=st.booleans(),
    has_lies=st.booleans(),
)


def received(segments: list[Segment]) -> list[StreamItem]:
    reassembler = Reassembler(count(1))
    items = [item for segment in segments for item in reassembler.receive_segment(segment)]
    return [*items, *reassembler.finish()]


def bytes_of(items: list[StreamItem], side: Side) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, StreamData) and item.side is side)


def frames_of(items: list[StreamItem], side: Side) -> list[bytes]:
    reader = FrameReader(ports=frozenset(PORTS.values()))
    seen = [*(s for item in items for s in reader.receive(item)), *reader.finish()]
    return [frame.data for frame in seen if isinstance(frame, SeenFrame) and frame.side is side]


@settings(max_examples=500, deadline=None)
@given(shuffler=SHUFFLERS)
def test_shuffled_segments_give_the_known_bytes_and_frames(shuffler: Shuffler) -> None:
    items = received(shuffler.segments())
    assert {id(item.flow) for item in items} == {id(items[0].flow)}
    assert items[0].flow.answerer.port == PORTS[shuffler.link]
    assert not [item for item in items if isinstance(item, StreamGap)]
    for side in Side:
        assert bytes_of(items, side) == shuffler.streams[side]
        assert frames_of(items, side) == known_frames()[shuffler.link][side]


@settings(max_examples=500, deadline=None)
@given(shuffler=SHUFFLERS, loss=st.floats(0, 1))
def test_what_is_lost_is_counted_and_all_other_bytes_stand_at_their_offset(shuffler: Shuffler, loss: float) -> None:
    shuffler.has_syns = shuffler.has_fins = True
    shuffler.has_lies = False  # In place of what was lost they would be believed.
    streams = shuffler.streams
    segments = shuffler.segments()
    rng = Random(shuffler.seed)
    # SYN and FIN stay, so that beginning and end are known.
    captured = [s for s in segments if s.flags & (SYN | FIN) or rng.random() >= loss]
    items = received(captured)
    assert {id(item.flow) for item in items} == {id(items[0].flow)}
    for side in Side:
        offset = 0
        for item in items:
            if item.side is side and isinstance(item, StreamData):
                assert item.offset == offset
                offset += len(item.data)
                assert item.data == streams[side][item.offset : offset]
            elif item.side is side and isinstance(item, StreamGap):
                assert item.offset == offset
                assert item.size > 0
                offset += item.size
        assert offset == len(streams[side])
        assert [i.offset for i in items if i.side is side and _is_end(i)] == [len(streams[side])]


def _is_end(item: StreamItem) -> bool:
    return not isinstance(item, StreamData | StreamGap) and item.event is StreamEvent.FINISHED
