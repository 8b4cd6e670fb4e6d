"""The bytes of one direction of a TCP connection, put in order (RFC 9293 section 3.4).

Strategy: a segment that comes next is given on at once and kept for a while, to compare what is sent again. One that
comes early is held until what lies before it came, or until that is known never to come:

- the receiver has acknowledged it (it did arrive, so the capture lost it),
- more is held than may be, or the connection or the capture has ended.

Then a gap is told, and the stream goes on behind it. Bytes that come for a gap that was told are left out.

A stream that the capture joins in the middle has no first sequence number. What was seen of it first may be out of
order too, so it begins when the receiver has acknowledged what lies before, or after `START_COUNT` pieces.

Bytes carry the packet after which the receiver could read them: their own, or the latest of those with bytes before
them. So what waited behind a hole has the packet that filled it, or after which the hole was told as a gap; but what
waited only for the stream's beginning, which the receiver knew all the time, has the packet that it came in.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from paygate.dump.held import NO_REPEAT, At, HeldBytes, Repeat, both, repeat
from paygate.dump.model import Flow, Side, StreamData, StreamEvent, StreamGap, StreamItem, StreamNote

SEQUENCE_MASK: Final = 0xFFFF_FFFF
WINDOW_SIZE_MAX: Final = 1 << 30
"""The largest window that TCP can offer (RFC 7323 section 2.3); a sequence number farther off is not believed."""
HELD_COST_MAX: Final = 1 << 20
"""In one direction: sixteen of the largest frames, more than any end of ours has on its way at once."""
HELD_COST_TOTAL_MAX: Final = 32 << 20
"""Of all connections: who would pass it waits no longer. Enough for 32 that wait for as much as one may, which no
capture has but one made for it; and little on any machine."""
START_COUNT: Final = 16
"""Pieces that may wait for the beginning of a stream joined in the middle: a first flight has 10 (RFC 6928)."""
RECENT_SIZE: Final = 64 << 10
"""Bytes kept for comparison in one direction, at least; at most twice that. The largest frame, so that one sent
again is compared whole. What is older counts as the same."""
RECENT_SIZE_TOTAL_MAX: Final = 32 << 20
"""Of all connections: while so much is kept, the streams that come next keep none. As much as is held, and enough for
thousands of payments at once, since one has some 3 KB on both links."""
GAP_COUNT_KEPT: Final = 16
"""The latest gaps of one direction, to tell bytes that come too late from those sent again."""

_NO_STARTS: Final[list[int]] = []


@dataclass(slots=True)
class StreamCounts:
    """What was seen of TCP, in all connections."""

    flows: int = 0
    dropped_flows: int = 0
    segments: int = 0
    keepalives: int = 0
    """Probes that send the last byte again, and nothing else."""
    out_of_order_segments: int = 0
    """Segments with bytes that came after bytes behind them."""
    retransmitted_segments: int = 0
    retransmitted_size: int = 0
    """Bytes that came more than once, whether the same or not."""
    differing_segments: int = 0
    """Segments with bytes that had come before as others."""
    gaps: int = 0
    gap_size: int = 0
    late_segments: int = 0
    late_size: int = 0
    """Bytes left out because their gap had been told."""
    implausible_segments: int = 0


class Memory:
    """What all directions together hold and keep, in bytes; and what they count."""

    __slots__ = ("counts", "held_cost", "recent_size")

    def __init__(self) -> None:
        self.counts = StreamCounts()
        self.held_cost = 0
        self.recent_size = 0


class OneWay:
    """One direction. Its flow may stay without a number while nothing is given on."""

    __slots__ = (
        "_end_offset", "_gaps", "_held", "_memory", "_recent", "acknowledged", "awaits_acknowledgement", "back",
        "base_sequence", "fin_offset", "flow", "is_closed", "is_finished", "is_started", "next_sequence", "offset",
        "side", "takes_next",
    )  # fmt: skip

    def __init__(self, flow: Flow, memory: Memory) -> None:
        self.flow = flow
        self.side = Side.CALLER
        self.back: OneWay = self
        """The other direction."""
        self.base_sequence = -1
        """Of the stream's first byte; -1 before it is known."""
        self.next_sequence = -1
        """Of the byte that comes next; of the first one seen while the beginning is not known; -1 before that."""
        self.offset = 0
        """Of the byte that comes next."""
        self.acknowledged = -1
        """The sequence number that the receiver awaits; -1 before it told one."""
        self.is_started = False
        """Whether the sequence number of the first byte is known."""
        self.takes_next = False
        """Whether the next bytes can be given on at once: the stream has begun, not ended, and nothing is held."""
        self.awaits_acknowledgement = False
        """Whether something waits for what lies before it."""
        self.is_finished = False
        self.is_closed = False
        """The connection is over: nothing is given on any more."""
        self.fin_offset = -1
        """Where the stream ends; -1 while unknown."""
        self._end_offset = 0
        """Up to where bytes were sent that the capture cut off."""
        self._held: HeldBytes | None = None
        self._memory = memory
        self._recent = bytearray()
        """The last bytes given on, up to `offset`; none from before a gap."""
        self._gaps: deque[tuple[int, int]] | None = None

    def start(self, sequence: int) -> None:
        """The stream begins with this sequence number."""
        assert not self.is_started
        if self.next_sequence >= 0:
            # The offsets so far counted from the first byte seen.
            by = -self.offset_of(sequence)
            if self._held:
                cost = self._held.cost
                self._held.move(by)
                self._memory.held_cost += self._held.cost - cost
            if self.fin_offset >= 0:
                self.fin_offset = max(self.fin_offset + by, 0)
            self._end_offset = max(self._end_offset + by, 0)
        self.is_started = True
        self.base_sequence = self.next_sequence = sequence

    def offset_of(self, sequence: int) -> int:
        """Where a sequence number stands in the stream: of the places that have it, the nearest to the next byte."""
        ahead = (sequence - self.next_sequence) & SEQUENCE_MASK
        return self.offset + (ahead if ahead < 1 << 31 else ahead - (1 << 32))

    def is_plausible(self, sequence: int) -> bool:
        """Whether a window can reach it."""
        return self.next_sequence < 0 or abs(self.offset_of(sequence) - self.offset) <= WINDOW_SIZE_MAX

    @property
    def held_offset(self) -> int | None:
        """Where the first held bytes begin."""
        return self._held.starts[0] if self._held and self._held.starts else None

    def deliver(self, data: bytes, time_ns: int | None, number: int) -> StreamData:
        """Bytes that come next."""
        offset = self.offset
        size = len(data)
        self.offset = offset + size
        self.next_sequence = (self.next_sequence + size) & SEQUENCE_MASK
        recent, memory = self._recent, self._memory
        recent += data
        memory.recent_size += size
        if len(recent) > 2 * RECENT_SIZE or memory.recent_size > RECENT_SIZE_TOTAL_MAX:
            self._keep_less()
        return StreamData(self.flow, self.side, offset, data, time_ns, number)

    def receive(self, items: list[StreamItem], sequence: int, data: bytes, lost_size: int, at: At) -> None:
        """A segment's bytes, wherever they belong; the sequence number is plausible."""
        counts = self._memory.counts
        if self.next_sequence < 0:
            self.next_sequence = sequence
        start = self.offset_of(sequence)
        end = start + len(data)
        if len(data) == 1 and self._is_all_acknowledged(end):
            counts.keepalives += 1  # RFC 9293 section 3.8.4: a probe has a garbage byte before the next one, or none.
            return
        if 0 <= self.fin_offset < end:
            # RFC 9293 section 3.10.7.4: nothing follows a FIN.
            counts.implausible_segments += 1
            size = min(end - self.fin_offset, len(data))
            items.append(StreamNote(self.flow, self.side, StreamEvent.IMPLAUSIBLE, self.fin_offset, size, *at))
            data = data[: len(data) - size]
            lost_size = 0
        if self.takes_next and start == self.offset:
            if data:
                items.append(self.deliver(data, *at))
            if lost_size:
                # Sent again it would be cut off again, so that there is nothing to wait for.
                self._gap(items, end + lost_size, at)
            return
        if lost_size:
            self._end_offset = max(self._end_offset, end + lost_size)
        repeated = NO_REPEAT
        if self.is_started and start < self.offset:
            old, data = data[: self.offset - start], data[self.offset - start :]
            repeated = self._compare(items, start, old, at)
            start = self.offset
        if data:
            if self._held is None:
                self._held = HeldBytes()
            held, cost = self._held, self._held.cost
            starts = held.starts
            counts.out_of_order_segments += bool(starts) and start < starts[-1]
            repeated = both(repeated, held.insert(start, data, at))
            self._memory.held_cost += held.cost - cost
        if repeated.size:
            self._tell_repeat(items, repeated, at)

    def receive_fin(self, sequence: int, size: int) -> None:
        """The stream ends behind `size` bytes from this plausible sequence number on."""
        if self.next_sequence < 0:
            self.next_sequence = sequence
        self.fin_offset = self.offset_of(sequence) + size
        if self.is_started:
            self.fin_offset = max(self.fin_offset, self.offset)

    def settle(self, items: list[StreamItem], at: At, *, is_over: bool = False) -> None:
        """Give on what can be given on now; all that there is if nothing more is to come."""
        held, memory = self._held, self._memory
        readable: At | None = None
        while not self.is_finished:
            starts = held.starts if held else _NO_STARTS
            if self.is_started and 0 <= self.fin_offset <= self.offset:
                self.is_finished = True
                items.append(StreamNote(self.flow, self.side, StreamEvent.FINISHED, self.offset, 0, *at))
            elif held and starts and starts[0] == self.offset and self.is_started:
                cost = held.cost
                pieces = held.take(self.offset)
                memory.held_cost += held.cost - cost
                for piece, received in pieces:
                    if readable is None or received.number > readable.number:
                        readable = received
                    items.append(self.deliver(piece, *readable))
            else:
                target = self._awaited(is_over=is_over)
                if target is None or not (is_over or self._is_acknowledged(target) or self._is_too_much()):
                    break
                if self.is_started:
                    self._gap(items, target, at)
                    readable = at
                else:
                    self.start((self.next_sequence + target) & SEQUENCE_MASK)
        self.awaits_acknowledgement = not self.is_finished and (self.held_offset is not None or self.fin_offset >= 0)
        self.takes_next = self.is_started and not self.is_finished and not self.awaits_acknowledgement

    def close(self) -> None:
        """Nothing more is given on."""
        memory = self._memory
        memory.recent_size -= len(self._recent)
        self._recent = bytearray()
        if self._held:
            memory.held_cost -= self._held.cost
            self._held = None
        self._gaps = None
        self.is_closed = True
        self.takes_next = self.awaits_acknowledgement = False

    def _awaited(self, *, is_over: bool) -> int | None:
        """Where something is behind the next byte: held bytes or the end, or what is only known to have been sent."""
        places = [self.fin_offset] if self.fin_offset >= 0 else []
        if self.held_offset is not None:
            places.append(self.held_offset)
        if not places and is_over and self.is_started:
            # Acknowledged, and never captured. A single byte is the FIN, most likely.
            end = self.offset_of(self.acknowledged) if self.acknowledged >= 0 else 0
            if not self.offset + 1 < end <= self.offset + WINDOW_SIZE_MAX:
                end = 0
            end = max(end, self._end_offset)
            return end if end > self.offset else None
        return min(places, default=None)

    def _is_all_acknowledged(self, end: int) -> bool:
        """Whether these bytes are the last ones, and the receiver has acknowledged them."""
        if self.acknowledged < 0 or end != self.offset_of(self.acknowledged):
            return False
        return end == self.offset or not self.is_started

    def _is_acknowledged(self, offset: int) -> bool:
        if self.acknowledged < 0 or self.next_sequence < 0:
            return False
        return offset <= self.offset_of(self.acknowledged) <= self.offset + WINDOW_SIZE_MAX

    def _is_too_much(self) -> bool:
        held, memory = self._held, self._memory
        if not held or not held.starts:
            return False
        if not self.is_started and len(held.starts) >= START_COUNT:
            return True
        return held.cost > HELD_COST_MAX or memory.held_cost > HELD_COST_TOTAL_MAX

    def _gap(self, items: list[StreamItem], end: int, at: At) -> None:
        size = end - self.offset
        items.append(StreamGap(self.flow, self.side, self.offset, size, *at))
        self._memory.counts.gaps += 1
        self._memory.counts.gap_size += size
        if self._gaps is None:
            self._gaps = deque(maxlen=GAP_COUNT_KEPT)
        self._gaps.append((self.offset, end))
        self.offset = end
        self.next_sequence = (self.next_sequence + size) & SEQUENCE_MASK
        self._memory.recent_size -= len(self._recent)
        self._recent.clear()

    def _keep_less(self) -> None:
        recent, memory = self._recent, self._memory
        size = len(recent) - RECENT_SIZE if memory.recent_size <= RECENT_SIZE_TOTAL_MAX else len(recent)
        del recent[:size]
        memory.recent_size -= size

    def _compare(self, items: list[StreamItem], start: int, old: bytes, at: At) -> Repeat:
        """Bytes from before `offset`, as far as they are kept; those of a gap are told here."""
        counts = self._memory.counts
        end = start + len(old)
        late_size = 0
        for gap_start, gap_end in self._gaps or ():
            common = min(end, gap_end) - max(start, gap_start)
            if common > 0:
                where = max(start, gap_start)
                items.append(StreamNote(self.flow, self.side, StreamEvent.CAME_TOO_LATE, where, common, *at))
                late_size += common
        counts.late_segments += bool(late_size)
        counts.late_size += late_size
        size = len(old) - late_size
        if not size:
            return NO_REPEAT
        recent_start = self.offset - len(self._recent)
        begin = max(start, recent_start)
        if begin >= end:
            return Repeat(start, size, 0, 0)
        again = old[begin - start :]
        found = repeat(begin, self._recent[begin - recent_start : end - recent_start], again)
        return found._replace(offset=start, size=size)

    def _tell_repeat(self, items: list[StreamItem], repeated: Repeat, at: At) -> None:
        counts = self._memory.counts
        counts.retransmitted_segments += 1
        counts.retransmitted_size += repeated.size
        if not self.is_started:
            return  # Nothing of this stream is told yet.
        if repeated.differs_size:
            counts.differing_segments += 1
            event, offset, size = StreamEvent.OVERLAP_DIFFERS, repeated.differs_offset, repeated.differs_size
        else:
            # What the capture joined too late for has no place in its stream; all of it comes first.
            before_size = max(-repeated.offset, 0)
            event, offset, size = StreamEvent.RETRANSMITTED, repeated.offset + before_size, repeated.size - before_size
            if size <= 0:
                return
        items.append(StreamNote(self.flow, self.side, event, offset, size, *at))
