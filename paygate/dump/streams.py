"""Segments to streams: which connection a segment belongs to, how connections begin and end (RFC 9293).

Strategy: a segment with the next bytes of a connection that is up takes a short path; all else takes a long one.
A connection gets its flow's number when the first thing is told of it, since only then its sides are settled: a SYN
or SYN-ACK says who called, even one that the capture holds behind the first data. Without either, a known server
port answers, else the lower port, since clients' ports are high.

After RST or both FINs a connection tells nothing more. It stays known, so that what is sent again of it is counted and
not taken for a new connection; bytes beyond its end, and a SYN, begin a new flow. The bytes after an RST that were on
their way so stand in a flow of their own.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from paygate.dump.held import At
from paygate.dump.model import Endpoint, Flow, FlowKind, Segment, Side, StreamEvent, StreamItem, StreamNote
from paygate.dump.one_way import HELD_COST_MAX, SEQUENCE_MASK, Memory, OneWay, StreamCounts

__all__ = ["Reassembler", "StreamCounts"]

FLOW_COUNT_MAX: Final = 16_384
"""Connections known at once, the closed ones too; the one that was silent for longest is forgotten. Each takes some
2 KiB beside its bytes, and a gateway's clients are far fewer at once."""

_FIN: Final = 1
_SYN: Final = 2
_RST: Final = 4
_ACK: Final = 16
_CONTROL: Final = _FIN | _SYN | _RST


class _Connection:
    """Two directions and what is known of their beginning."""

    __slots__ = ("caller", "flow", "is_told", "saw_syn", "ways")

    def __init__(self, flow: Flow, way: OneWay, back: OneWay) -> None:
        self.flow = flow
        self.ways = (way, back)
        """First the one that was seen first."""
        self.caller: OneWay | None = None
        """Who sent the SYN, or got the SYN-ACK; None while unknown."""
        self.saw_syn = False
        self.is_told = False
        """Whether the flow has its number, and something was told of it."""


class Reassembler:
    """Gives the bytes of every connection in order, and tells what happened to it."""

    def __init__(self, flow_numbers: Iterator[int], server_ports: frozenset[int] = frozenset()) -> None:
        """`server_ports` are those whose owners answer, where the capture does not hold the beginning."""
        self._flow_numbers = flow_numbers
        self._server_ports = server_ports
        self._memory = Memory()
        self.counts: Final[StreamCounts] = self._memory.counts
        """What was seen so far."""
        self._ways: dict[tuple[Endpoint, Endpoint], tuple[OneWay, _Connection]] = {}
        self._connections: OrderedDict[_Connection, None] = OrderedDict()
        """The one with the latest segment last."""
        self._latest: _Connection | None = None
        self._last: Segment | None = None

    def receive_segment(self, segment: Segment) -> Sequence[StreamItem]:
        """What the next segment of the capture brings."""
        number, time_ns, source, target, sequence, acknowledged, flags, payload, lost_size = segment
        self.counts.segments += 1
        self._last = segment
        found = self._ways.get((source, target))
        if found is None:
            return self._receive_first(segment)
        way, connection = found
        if connection is not self._latest:
            self._connections.move_to_end(connection)
            self._latest = connection
        if not flags & _CONTROL and not lost_size and connection.is_told:
            back = way.back
            is_settled = True
            if flags & _ACK:
                back.acknowledged = acknowledged
                is_settled = not back.awaits_acknowledgement
            if is_settled:
                if not payload:
                    return ()
                if sequence == way.next_sequence and way.takes_next:
                    return (way.deliver(payload, time_ns, number),)
        return self._receive_rare(way, connection, segment)

    @property
    def held_size(self) -> int:
        """What bytes that came before their turn take now, in bytes."""
        return self._memory.held_cost

    @property
    def recent_size(self) -> int:
        """Bytes that are kept for comparison now."""
        return self._memory.recent_size

    def finish(self) -> Sequence[StreamItem]:
        """The capture has ended: what is held comes out, and every flow that is still open is told as that."""
        items: list[StreamItem] = []
        at = At(self._last.time_ns, self._last.number) if self._last else At(None, 0)
        for connection in list(self._connections):
            self._end(items, connection, StreamEvent.CAPTURE_ENDED, at)
        return items

    # -- the long path -----------------------------------------------------------------------------------

    def _receive_first(self, segment: Segment) -> Sequence[StreamItem]:
        if segment.flags & _RST and not segment.payload:
            return ()  # Of a connection that was never seen there is nothing to tell.
        items: list[StreamItem] = []
        if len(self._connections) >= FLOW_COUNT_MAX:
            self.counts.dropped_flows += 1
            oldest = next(iter(self._connections))
            self._end(items, oldest, StreamEvent.DROPPED, At(segment.time_ns, segment.number))
        way, connection = self._begin(segment)
        return [*items, *self._receive_rare(way, connection, segment)]

    def _begin(self, segment: Segment) -> tuple[OneWay, _Connection]:
        flow = Flow(0, FlowKind.TCP, segment.source, segment.target)
        way, back = OneWay(flow, self._memory), OneWay(flow, self._memory)
        way.back, back.back = back, way
        connection = _Connection(flow, way, back)
        self._take_sides(connection)
        self._ways[segment.source, segment.target] = way, connection
        # An endpoint may talk to itself; both directions then are one, and stay apart by nothing.
        self._ways.setdefault((segment.target, segment.source), (back, connection))
        self._connections[connection] = None
        self._latest = connection
        return way, connection

    def _receive_rare(self, way: OneWay, connection: _Connection, segment: Segment) -> list[StreamItem]:
        number, time_ns, _, _, sequence, acknowledged, flags, payload, lost_size = segment
        at = At(time_ns, number)
        items: list[StreamItem] = []
        if way.is_closed and not flags & _SYN:
            if flags & _RST or not payload or not self._is_beyond_end(way, segment):
                self.counts.retransmitted_segments += bool(payload)
                self.counts.retransmitted_size += len(payload)
                return items
            way, connection = self._replace(items, connection, segment)
        if flags & _SYN:
            way, connection = self._receive_syn(items, way, connection, segment)
            sequence = (sequence + 1) & SEQUENCE_MASK
        back = way.back
        if flags & _ACK:
            back.acknowledged = acknowledged
            if back.awaits_acknowledgement:
                self._settle(items, connection, back, at)
        if not way.is_plausible(sequence):
            self.counts.implausible_segments += 1
            if connection.is_told and payload:
                self._tell(items, way, StreamEvent.IMPLAUSIBLE, at, len(payload))
            return items
        if flags & _RST:
            self._reset(items, connection, way, at)
            return items
        if payload or lost_size:
            new: list[StreamItem] = []
            way.receive(new, sequence, payload, lost_size, at)
            self._announce(items, connection, way, at, new)
        if flags & _FIN and way.fin_offset < 0:
            way.receive_fin(sequence, len(payload) + lost_size)
        self._settle(items, connection, way, at)
        if way.is_finished and back.is_finished and not way.is_closed:
            self._tell(items, way, StreamEvent.CLOSED, at)
            self._close(connection)
        return items

    def _receive_syn(
        self, items: list[StreamItem], way: OneWay, connection: _Connection, segment: Segment
    ) -> tuple[OneWay, _Connection]:
        first = (segment.sequence + 1) & SEQUENCE_MASK
        is_answer = bool(segment.flags & _ACK)
        if way.is_closed or self._is_of_another(way, first, is_answer=is_answer):
            way, connection = self._replace(items, connection, segment)
        connection.saw_syn = True
        if not way.is_started:
            way.start(first)
        if is_answer and not way.back.is_started:
            way.back.start(segment.acknowledged)
        if connection.caller is None:
            connection.caller = way.back if is_answer else way
            self._take_sides(connection)
        if is_answer and not connection.is_told:
            self._announce(items, connection, way, At(segment.time_ns, segment.number), None)
        return way, connection

    @staticmethod
    def _is_of_another(way: OneWay, first: int, *, is_answer: bool) -> bool:
        """Whether a SYN begins another connection between the same ports: not one sent again, nor one captured late."""
        if way.is_started:
            return way.base_sequence != first
        held_offset = way.held_offset
        if held_offset is not None and not 0 <= held_offset - way.offset_of(first) <= HELD_COST_MAX:
            return True
        return not is_answer and way.back.offset > 0

    @staticmethod
    def _is_beyond_end(way: OneWay, segment: Segment) -> bool:
        """Whether a closed connection can't have sent these bytes before it was closed."""
        end = (segment.sequence + len(segment.payload)) & SEQUENCE_MASK
        return way.next_sequence < 0 or not way.is_plausible(segment.sequence) or way.offset_of(end) > way.offset

    def _settle(
        self, items: list[StreamItem], connection: _Connection, way: OneWay, at: At, *, is_over: bool = False
    ) -> None:
        new: list[StreamItem] = []
        way.settle(new, at, is_over=is_over)
        self._announce(items, connection, way, at, new)

    def _announce(
        self, items: list[StreamItem], connection: _Connection, way: OneWay, at: At, new: list[StreamItem] | None
    ) -> None:
        """Before the first news of a connection, give its flow a number and tell how it began. None: that is news."""
        if not connection.is_told and new != []:
            self._give_number(connection)
            if connection.saw_syn:
                items.append(StreamNote(connection.flow, Side.CALLER, StreamEvent.OPENED, 0, 0, *at))
            else:
                # It began for us with the first bytes that come out, not with what let them out.
                began = At(new[0].time_ns, new[0].number) if new else at
                items.append(StreamNote(connection.flow, way.side, StreamEvent.STARTED_LATE, 0, 0, *began))
        items += new or ()

    def _give_number(self, connection: _Connection) -> None:
        connection.is_told = True
        flow = connection.flow
        if connection.ways[0].side is Side.ANSWERER:
            flow.caller, flow.answerer = flow.answerer, flow.caller
        flow.number = next(self._flow_numbers)
        self.counts.flows += 1

    def _take_sides(self, connection: _Connection) -> None:
        if connection.is_told:
            return
        caller = connection.caller or self._guessed_caller(connection)
        caller.side, caller.back.side = Side.CALLER, Side.ANSWERER

    def _guessed_caller(self, connection: _Connection) -> OneWay:
        flow = connection.flow
        first, second = connection.ways
        ports = flow.caller.port, flow.answerer.port
        is_server = [port in self._server_ports for port in ports]
        if is_server[0] != is_server[1]:
            return second if is_server[0] else first
        return second if ports[0] < ports[1] else first

    # -- ends --------------------------------------------------------------------------------------------

    def _reset(self, items: list[StreamItem], connection: _Connection, way: OneWay, at: At) -> None:
        self._flush(items, connection, at)
        if not connection.is_told and connection.saw_syn:
            self._give_number(connection)  # Refused, so never OPENED.
        if connection.is_told:
            self._tell(items, way, StreamEvent.RESET, at)
            self._tell(items, way, StreamEvent.CLOSED, at)
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        for way in connection.ways:
            way.close()

    def _flush(self, items: list[StreamItem], connection: _Connection, at: At) -> None:
        for way in connection.ways:
            self._settle(items, connection, way, at, is_over=True)

    def _replace(
        self, items: list[StreamItem], connection: _Connection, segment: Segment
    ) -> tuple[OneWay, _Connection]:
        """The ports are used again: the connection before was closed, even if the capture does not show it."""
        self._end(items, connection, StreamEvent.CLOSED, At(segment.time_ns, segment.number))
        return self._begin(segment)

    def _end(self, items: list[StreamItem], connection: _Connection, event: StreamEvent, at: At) -> None:
        """Give on what is held, tell the end if it was not told yet, and forget the connection."""
        way, back = connection.ways
        if not way.is_closed:
            self._flush(items, connection, at)
            if connection.is_told:
                both_finished = way.is_finished and back.is_finished
                self._tell(items, way, StreamEvent.CLOSED if both_finished else event, at)
        self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        self._close(connection)
        first = connection.flow.caller, connection.flow.answerer
        self._ways.pop(first, None)
        self._ways.pop((first[1], first[0]), None)
        del self._connections[connection]

    @staticmethod
    def _tell(items: list[StreamItem], way: OneWay, event: StreamEvent, at: At, size: int = 0) -> None:
        items.append(StreamNote(way.flow, way.side, event, way.offset, size, *at))
