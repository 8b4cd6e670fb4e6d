"""Makes what the steps before `links` give: frames of real bytes on flows, notes of connections, and whole sessions."""

from dataclasses import replace
from functools import cache
from typing import Final

import builders
from specgen.vector_session import Payment, steps_of

from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, decode_frame, decode_head, encode_frame
from paygate.codec.limits import FRAME_SIZE_MAX, HEADER_SIZE
from paygate.codec.messages import Error, Hello, HelloAck, Message
from paygate.dump.links import Links
from paygate.dump.model import (
    Endpoint,
    Finding,
    Flow,
    FlowKind,
    Item,
    SeenFrame,
    Side,
    StreamEvent,
    StreamNote,
)

BEGIN_NS: Final = builders.NOW_MS * 1_000_000
STEP_NS: Final = 1_000_000
"""Between two items."""


def frame_of(data: bytes) -> Frame:
    """The frame that bytes are."""
    return decode_frame(decode_head(data[:HEADER_SIZE]), data)


class Tape:
    """Gives items in order, a millisecond apart; each flow has its own streams."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.time_ns = BEGIN_NS
        self._flow_count = 0
        self._frame_count = 0
        self._offsets: dict[tuple[Flow, Side], int] = {}

    def flow(self, kind: FlowKind = FlowKind.TCP, *, knows_sides: bool = True) -> Flow:
        """A flow of which nothing was seen yet."""
        self._flow_count += 1
        caller = Endpoint("127.0.0.1", 40_000 + self._flow_count)
        return Flow(self._flow_count, kind, caller, Endpoint("127.0.0.1", 15_000), knows_sides=knows_sides)

    def note(self, flow: Flow, event: StreamEvent, side: Side = Side.CALLER) -> StreamNote:
        """Something happened to a flow."""
        note = StreamNote(flow, side, event, 0, 0, self._tick(), len(self.items) + 1)
        self.items.append(note)
        return note

    def finding(self, flow: Flow | None, name: str = "BYTES_MISSING", side: Side = Side.CALLER) -> Finding:
        """Something that is wrong with a flow, but with no frame of it."""
        finding = Finding(name, "", "", "", len(self.items) + 1, self._tick(), flow, side)
        self.items.append(finding)
        return finding

    def frame(
        self, flow: Flow, side: Side, message: Message, correlation_id: int, *, link_key: bytes | None = None
    ) -> SeenFrame:
        """A frame was seen."""
        return self.data(flow, side, encode_frame(message, correlation_id, link_key))

    def data(self, flow: Flow, side: Side, data: bytes, time_ns: int | None = None) -> SeenFrame:
        """A frame was seen, given as its bytes."""
        frame = frame_of(data)
        try:
            message = frame.message()
        except RemoteProtocolError:
            message = None
        self._frame_count += 1
        offset = self._offsets.get((flow, side), 0)
        self._offsets[flow, side] = offset + len(data)
        tick_ns = self._tick()
        seen = SeenFrame(
            index=self._frame_count,
            flow=flow,
            side=side,
            offset=offset,
            time_ns=tick_ns if time_ns is None else time_ns,
            number=len(self.items) + 1,
            frame=frame,
            message=message,
        )
        self.items.append(seen)
        return seen

    def _tick(self) -> int:
        self.time_ns += STEP_NS
        return self.time_ns


class LinkTape:
    """One link on a tape, open already: `ask` and `answer` speak for its two ends."""

    def __init__(self, tape: Tape, *, is_bank_link: bool = False, is_whole: bool = True) -> None:
        self.tape = tape
        self.flow = tape.flow()
        self._link_key = builders.LINK_KEY if is_bank_link else None
        if not is_whole:
            tape.note(self.flow, StreamEvent.STARTED_LATE)
            return
        tape.note(self.flow, StreamEvent.OPENED)
        caller = Hello(Role.GATEWAY, "GW1", (1,)) if is_bank_link else Hello(Role.CLIENT, "paygate", (1,))
        answerer = HelloAck(
            Role.BANK if is_bank_link else Role.GATEWAY, "BANK1" if is_bank_link else "GW1", 1, FRAME_SIZE_MAX
        )
        self.ask(caller, 1)
        self.answer(answerer, 1)

    def ask(self, message: Message, correlation_id: int) -> SeenFrame:
        """The end that connected sends."""
        return self.tape.frame(self.flow, Side.CALLER, message, correlation_id, link_key=self._link_key)

    def answer(self, message: Message, correlation_id: int) -> SeenFrame:
        """The other end sends."""
        return self.tape.frame(self.flow, Side.ANSWERER, message, correlation_id, link_key=self._link_key)

    def note(self, event: StreamEvent) -> StreamNote:
        """Something happened to the connection."""
        return self.tape.note(self.flow, event)


def error_of(code: ErrorCode) -> Error:
    """An Error with this code."""
    return Error(code=code, closes=code.closes, text="")


def through(links: Links, items: list[Item]) -> list[Item]:
    """What comes out of `links`, its end included."""
    out = [item for given in items for item in links.receive(given)]
    return [*out, *links.finish()]


def findings_in(items: list[Item]) -> list[Finding]:
    """All findings, those of frames too."""
    found: list[Finding] = []
    for item in items:
        if isinstance(item, Finding):
            found.append(item)
        elif isinstance(item, SeenFrame):
            found += item.findings
    return found


def finding_names(items: list[Item]) -> list[str]:
    """The names of all findings."""
    return [finding.name for finding in findings_in(items)]


@cache
def _session_frames(payment: Payment) -> list[tuple[str, Role, int, bytes, bool]]:
    return [(s.connection, s.sender, s.at_ms, s.frame, s.is_delivered) for s in steps_of(payment)]


def session(payment: Payment, *, with_lost: bool = False) -> list[Item]:
    """A whole session of the spec's section 12, on connections that open and close around it.

    with_lost: as a capture at the sender shows it, with the frame that never arrived.
    """
    tape = Tape()
    flows: dict[str, Flow] = {}
    lost: set[str] = set()
    for connection, sender, at_ms, data, is_delivered in _session_frames(payment):
        tape.time_ns = max(tape.time_ns, at_ms * 1_000_000)
        if connection not in flows:
            flows[connection] = tape.flow()
            tape.note(flows[connection], StreamEvent.OPENED)
        caller = Role.CLIENT if connection.startswith("client") else Role.GATEWAY
        if is_delivered or with_lost:
            tape.data(flows[connection], Side.CALLER if sender is caller else Side.ANSWERER, data)
        if not is_delivered:
            lost.add(connection)
            tape.note(flows[connection], StreamEvent.CLOSED)
    for connection, flow in flows.items():
        if connection not in lost:
            tape.note(flow, StreamEvent.CLOSED)
    return tape.items


def damaged(seen: SeenFrame) -> SeenFrame:
    """The same frame as if its body broke the declaration."""
    return replace(seen, message=None)
