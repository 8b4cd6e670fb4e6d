"""Streams to frames: which flows are paygate at all, and what each of their frames says (spec 4).

Strategy: each direction of a flow is read by a `FrameStream`. A flow that no port and no frame shows to be paygate is
read as well, since gateways and banks listen where they like, but for a while only, and all that it told is kept back
until a header or a frame decides; of a flow that turns out to be something else nothing is ever told.

A finding within a frame stands in the frame's `findings` and nowhere else; one that is about bytes which are no frame
comes by itself, before whatever comes behind those bytes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, frame_mac
from paygate.codec.messages import Message
from paygate.dump.findings import SECTIONS, OwnFinding, body_fault, body_section, bytes_text
from paygate.dump.frame_stream import End, FrameStream
from paygate.dump.model import (
    Finding,
    Flow,
    FlowKind,
    Item,
    SeenFrame,
    Side,
    StreamData,
    StreamEvent,
    StreamGap,
    StreamItem,
    StreamNote,
)

UNDECIDED_SIZE_MAX: Final = limits.FRAME_SIZE_MAX + limits.HEADER_SIZE
"""Bytes of one direction in which a frame must be found, or the flow is foreign: more than two of the largest frames,
so that it is enough from any place in mid-stream."""
KEPT_BACK_COUNT_MAX: Final = 64
"""Notes and findings of a flow that is not decided: how it began, and what is odd in its first packets."""
HELD_SIZE_MAX: Final = 64 * 1024 * 1024
"""Bytes of incomplete frames over all flows: two thousand directions, each in the middle of a largest frame."""
FLOW_COUNT_MAX: Final = 32_768
"""Flows known at once, then the oldest is forgotten: twice what the streams' step keeps. Flows of USER0 never end."""

_ENDS: Final = {
    StreamEvent.RESET: End.RESET,
    StreamEvent.CLOSED: End.CLOSED,
    StreamEvent.DROPPED: End.FORGOTTEN,
    StreamEvent.CAPTURE_ENDED: End.CAPTURE_ENDED,
}
"""Events that end both directions."""


class _FlowFrames:
    """Both directions of one flow, and whether it is paygate."""

    __slots__ = ("_indices", "_link_key", "_link_keys", "flow", "is_foreign", "is_paygate", "kept_back", "streams")

    def __init__(self, flow: Flow, indices: Iterator[int], link_keys: tuple[bytes, ...], *, is_paygate: bool) -> None:
        self.flow = flow
        self.is_paygate = is_paygate
        self.is_foreign = False
        self.kept_back: list[Item] = []
        """What is to be told as soon as the flow is known to be paygate."""
        self.streams = FrameStream(flow, Side.CALLER, self._seen), FrameStream(flow, Side.ANSWERER, self._seen)
        self._indices = indices
        self._link_keys = link_keys
        self._link_key: bytes | None = None  # the one that fitted last

    def _seen(self, frame: Frame, side: Side, offset: int, time_ns: int | None, number: int) -> SeenFrame:
        message: Message | None = None
        findings: tuple[Finding, ...] = ()
        flow = self.flow
        if not flow.knows_sides:
            kind = frame.kind
            side = Side.ANSWERER if kind.is_reply or kind is Kind.ERROR else Side.CALLER
        try:
            message = frame.message()
        except RemoteProtocolError:
            fault, got = body_fault(frame.kind, frame.signed)
            findings = (
                Finding(
                    name=fault.code.name,
                    expected=fault.expected,
                    got=got,
                    section=body_section(fault.code, frame.kind),
                    number=number,
                    time_ns=time_ns,
                    flow=flow,
                    side=side,
                    offset=offset + fault.span.start,
                    path=fault.path,
                    frame_offset=offset,
                ),
            )
        if frame.mac and self._link_keys and not self._has_good_mac(frame):
            # A receiver checks the MAC first (PG-FRM-5).
            findings = (self._bad_mac(frame, side, offset, time_ns, number), *findings)
        return SeenFrame(next(self._indices), flow, side, offset, time_ns, number, frame, message, findings)

    def _has_good_mac(self, frame: Frame) -> bool:
        if self._link_key is not None and frame_mac(self._link_key, frame.signed) == frame.mac:
            return True
        for link_key in self._link_keys:
            if frame_mac(link_key, frame.signed) == frame.mac:
                self._link_key = link_key
                return True
        return False

    def _bad_mac(self, frame: Frame, side: Side, offset: int, time_ns: int | None, number: int) -> Finding:
        key_count = len(self._link_keys)
        return Finding(
            name=ErrorCode.BAD_MAC.name,
            expected="the MAC under the link key" + ("" if key_count == 1 else f", one of the {key_count} given"),
            got=f"0x{frame.mac.hex()}",
            section=SECTIONS[ErrorCode.BAD_MAC],
            number=number,
            time_ns=time_ns,
            flow=self.flow,
            side=side,
            offset=offset + len(frame.signed),
            frame_offset=offset,
        )


class FrameReader:
    """Reads the frames of all flows."""

    def __init__(self, *, ports: frozenset[int] = frozenset(), link_keys: tuple[bytes, ...] = ()) -> None:
        """`ports`: a TCP flow from or to one of them is paygate from its first byte on, whatever that is.

        `link_keys`: MACs are checked under these; without any they are not checked.
        """
        self.foreign_flow_count = 0
        """Flows with bytes that turned out not to be paygate."""
        self._ports = ports
        self._link_keys = link_keys
        self._indices = count(1)
        # Of a plain dict the first key takes a scan over all that were removed before it.
        self._flows: OrderedDict[Flow, _FlowFrames] = OrderedDict()
        self._held_size = 0
        self._holding: OrderedDict[FrameStream, _FlowFrames] = OrderedDict()
        """Directions with bytes that are not decided, the one that began to wait first at the front."""

    def receive(self, item: StreamItem) -> Iterable[Item]:
        """What the next item brings: frames, findings, and what happened to flows that are paygate."""
        flow = self._flows.get(item.flow)
        if flow is None:
            # Nothing is known of its bytes, so the one that is forgotten for it has told what it had.
            forgotten = self._forget_oldest() if len(self._flows) >= FLOW_COUNT_MAX else []
            flow = self._begin(item.flow)
            return [*forgotten, *self._receive(flow, item)] if forgotten else self._receive(flow, item)
        return self._receive(flow, item)

    def finish(self) -> Iterable[Item]:
        """The input has ended: frames that are not complete are findings."""
        out: list[Item] = []
        while self._flows:
            out += self._end(next(iter(self._flows.values())), End.CAPTURE_ENDED, None, 0)
        return out

    def _receive(self, flow: _FlowFrames, item: StreamItem) -> Iterable[Item]:
        if type(item) is StreamData:
            if flow.is_foreign:
                return ()
            stream = flow.streams[item.side]
            out = stream.receive(item)
            if stream.pending or stream.counted_size:
                out += self._count_held(flow, stream)
            return out if flow.is_paygate else self._judge(flow, out)
        if type(item) is StreamGap:
            if flow.is_foreign:
                return ()
            stream = flow.streams[item.side]
            out = stream.receive_gap(item)
            self._count_held(flow, stream)
            return self._judge(flow, out)
        assert type(item) is StreamNote
        return self._receive_note(flow, item)

    def _receive_note(self, flow: _FlowFrames, note: StreamNote) -> Iterable[Item]:
        event = note.event
        out: list[Item] = []
        if event is StreamEvent.STARTED_LATE:
            for stream in flow.streams:
                stream.start_late()
        elif event is StreamEvent.FINISHED:
            stream = flow.streams[note.side]
            out += stream.finish(End.FINISHED, note.time_ns, note.number)
            self._count_held(flow, stream)
        elif event is StreamEvent.RESET:
            out += self._end_streams(flow, End.RESET, note.time_ns, note.number)
        elif event in _ENDS:
            # What is kept back is let go with the flow, so the note goes only with a flow that is known.
            ended = self._end(flow, _ENDS[event], note.time_ns, note.number)
            return [*ended, note] if flow.is_paygate else ended
        out.append(_overlap(note) if event is StreamEvent.OVERLAP_DIFFERS else note)
        return self._judge(flow, out)

    # -- flows ---------------------------------------------------------------------------------------------

    def _begin(self, flow: Flow) -> _FlowFrames:
        # Pasted bytes and USER0 are given as paygate by whoever made them.
        is_paygate = (
            flow.kind is not FlowKind.TCP or flow.caller.port in self._ports or flow.answerer.port in self._ports
        )
        begun = _FlowFrames(flow, self._indices, self._link_keys, is_paygate=is_paygate)
        self._flows[flow] = begun
        return begun

    def _judge(self, flow: _FlowFrames, out: list[Item]) -> list[Item]:
        """What may be told now of what was found."""
        if flow.is_paygate:
            return out
        if flow.is_foreign:
            return []
        streams = flow.streams
        if any(stream.has_header for stream in streams) or any(type(item) is SeenFrame for item in out):
            flow.is_paygate = True
            out = [*flow.kept_back, *out]
            flow.kept_back = []
            return out
        flow.kept_back += out[: KEPT_BACK_COUNT_MAX - len(flow.kept_back)]
        if any(stream.received_size > UNDECIDED_SIZE_MAX for stream in streams):
            self._set_foreign(flow)
        return []

    def _set_foreign(self, flow: _FlowFrames) -> None:
        flow.is_foreign = True
        flow.kept_back = []
        self.foreign_flow_count += 1
        for stream in flow.streams:
            stream.pending.clear()
            self._count_held(flow, stream)

    def _end_streams(self, flow: _FlowFrames, end: End, time_ns: int | None, number: int) -> list[Item]:
        out: list[Item] = []
        for stream in flow.streams:
            out += stream.finish(end, time_ns, number)
            self._count_held(flow, stream)
        return out

    def _end(self, flow: _FlowFrames, end: End, time_ns: int | None, number: int) -> list[Item]:
        out = self._judge(flow, self._end_streams(flow, end, time_ns, number))
        if not flow.is_paygate and not flow.is_foreign and any(stream.received_size for stream in flow.streams):
            self._set_foreign(flow)
        del self._flows[flow.flow]
        return out

    def _forget_oldest(self) -> list[Item]:
        return self._end(next(iter(self._flows.values())), End.FORGOTTEN, None, 0)

    # -- memory --------------------------------------------------------------------------------------------

    def _count_held(self, flow: _FlowFrames, stream: FrameStream) -> list[Item]:
        """Keep the books on what incomplete frames hold; what has waited longest is let go when it is too much."""
        self._note_held(flow, stream)
        out: list[Item] = []
        while self._held_size > HELD_SIZE_MAX:
            oldest, its_flow = next(iter(self._holding.items()))
            out += self._judge(its_flow, oldest.finish(End.FORGOTTEN, None, 0))
            self._note_held(its_flow, oldest)
        return out

    def _note_held(self, flow: _FlowFrames, stream: FrameStream) -> None:
        size = stream.held_size
        self._held_size += size - stream.counted_size
        stream.counted_size = size
        if size:
            self._holding.setdefault(stream, flow)
        else:
            self._holding.pop(stream, None)


def _overlap(note: StreamNote) -> Finding:
    return Finding(
        name=OwnFinding.OVERLAP_DIFFERS.name,
        expected="the bytes that came before",
        got=f"others, {bytes_text(note.size)}",
        section="",
        number=note.number,
        time_ns=note.time_ns,
        flow=note.flow,
        side=note.side,
        offset=note.offset,
    )
