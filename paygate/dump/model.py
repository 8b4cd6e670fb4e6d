"""What passes through `paygate-dump`, step by step: packets, segments, stream items, frames, findings.

Strategy: each step is a generator over the one before it, so that a live capture is shown as it comes and a file of any
size takes a bounded memory:

    file → source → Packet → packets → Segment → streams → StreamItem → frames → SeenFrame and Finding → links → output

Times are nanoseconds since 1970-01-01T00:00:00Z, None where the input has none. A packet's number counts from 1 through
the whole input, as Wireshark's does. Whatever is made for each packet is a tuple, since those are cheap to make.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from paygate.codec.codes import Kind, Role
from paygate.codec.frame import Frame
from paygate.codec.messages import Message
from paygate.codec.sealed import CredentialsPlaintext

NANOSECONDS_PER_SECOND: Final = 1_000_000_000


class Direction(IntEnum):
    """Which way a packet went at the interface where it was captured (pcapng's epb_flags); most files don't say."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


class Packet(NamedTuple):
    """One captured packet, as the container holds it."""

    number: int
    time_ns: int | None
    interface: int
    """Which of the capture's interfaces, from 0 through the whole input."""
    link_type: int
    """A LINKTYPE number of the tcpdump group's registry."""
    data: bytes
    """What was captured of it: `data` may be shorter than `original_size`."""
    original_size: int
    direction: Direction = Direction.UNKNOWN


class Endpoint(NamedTuple):
    """One end of a TCP connection. Without addresses (pasted bytes, USER0) the host is a name and the port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT, an IPv6 address in brackets; the host alone without a port."""
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Segment(NamedTuple):
    """One TCP segment."""

    number: int
    time_ns: int | None
    source: Endpoint
    target: Endpoint
    sequence: int
    acknowledged: int
    """Meaningless without the ACK flag."""
    flags: int
    """The TCP header's flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16."""
    payload: bytes
    lost_size: int
    """Bytes at the payload's end that the capture did not keep (snap length)."""


class Side(IntEnum):
    """Who sends, within a flow."""

    CALLER = 0
    ANSWERER = 1

    @property
    def other(self) -> "Side":
        """Who receives."""
        return Side.ANSWERER if self is Side.CALLER else Side.CALLER


class FlowKind(Enum):
    """Where a flow's bytes come from."""

    TCP = "a TCP connection"
    USER0 = "packets that hold stream bytes and nothing else"
    BYTES = "bytes without a capture around them"


@dataclass(slots=True, eq=False)
class Flow:
    """One connection: compared by identity, since ports are used again."""

    number: int
    """From 1, in the order in which flows began."""
    kind: FlowKind
    caller: Endpoint
    """Who connected; a guess when the capture began later."""
    answerer: Endpoint
    knows_sides: bool = True
    """False: the input does not say who sent what, so all bytes stand under CALLER, and each frame's kind decides."""
    roles: list[Role | None] = field(default_factory=lambda: [None, None])
    """Of caller and answerer: from Hello and HelloAck, else from what they send; None while unknown."""
    party_ids: list[str] = field(default_factory=lambda: ["", ""])
    """Of caller and answerer, from Hello and HelloAck; empty while unknown."""

    def endpoint(self, side: Side) -> Endpoint:
        """The address of one side."""
        return self.answerer if side else self.caller


class StreamData(NamedTuple):
    """Bytes of one direction of a flow that come next in order."""

    flow: Flow
    side: Side
    offset: int
    """Where `data` begins in its direction's stream: 0 is the first byte after SYN, or the first one captured."""
    data: bytes
    time_ns: int | None
    number: int


class StreamGap(NamedTuple):
    """Bytes of one direction are missing; what comes next begins `size` bytes later."""

    flow: Flow
    side: Side
    offset: int
    size: int
    time_ns: int | None
    number: int


class StreamEvent(Enum):
    """What else happened in a flow."""

    OPENED = "connected"
    STARTED_LATE = "the capture began in mid-stream"
    RETRANSMITTED = "bytes that had come before, the same"
    OVERLAP_DIFFERS = "bytes that had come before, but others; the first ones count"
    CAME_TOO_LATE = "bytes of a gap that was told already; they are left out"
    IMPLAUSIBLE = "a sequence number that no window reaches; its bytes are left out"
    SKIPPED = "skipped what is no frame, up to the next good one or the end"
    FINISHED = "sends no more (FIN)"
    RESET = "reset the connection (RST)"
    CLOSED = "both sides have finished, or one has reset"
    DROPPED = "forgotten, to keep the memory bounded"
    CAPTURE_ENDED = "the capture ended before the flow did"


class StreamNote(NamedTuple):
    """An event of a flow; `side` is who did it, `size` counts bytes where bytes are meant."""

    flow: Flow
    side: Side
    event: StreamEvent
    offset: int
    size: int
    time_ns: int | None
    number: int


StreamItem = StreamData | StreamGap | StreamNote


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong, at one place; the reading goes on behind it."""

    name: str
    """An ErrorCode's name, or one of this tool's own (`paygate.dump.findings`)."""
    expected: str
    got: str
    """What stands there instead; of a secret field never its value."""
    section: str
    """The section of spec/protocol.md that says so; empty for what is no matter of the protocol."""
    number: int
    time_ns: int | None
    flow: Flow | None = None
    """None: about the input itself, not a flow."""
    side: Side = Side.CALLER
    offset: int | None = None
    """Of the bad byte, in its direction's stream; without a flow in the input (after decompression)."""
    path: str = ""
    """The field, such as `terms.amount_minor`; empty for a whole frame or stream."""
    frame_offset: int | None = None
    """Where the frame that it is in begins in the stream, if it is in one."""


@dataclass(slots=True, eq=False)
class SeenFrame:
    """One frame whose checksum holds, with what became known of it."""

    index: int
    """From 1, through all frames of the input."""
    flow: Flow
    side: Side
    """Who sent it."""
    offset: int
    """Of its first byte in its direction's stream."""
    time_ns: int | None
    """When its last byte came."""
    number: int
    """The packet that held its last byte."""
    frame: Frame
    message: Message | None
    """None if the body breaks its declaration; then a finding says where."""
    findings: tuple[Finding, ...] = ()

    # What `links` adds.
    answers: "SeenFrame | None" = None
    """The request that this reply or Error answers, if it was seen."""
    latency_ns: int | None = None
    """From that request's last byte to this frame's."""
    payment_id: bytes = b""
    """Which payment it is about, from its own fields or its request's; empty for none."""
    transaction_id: str = ""
    """Which token it is about, from its own fields, its request's or its session's; empty if unknown."""
    session_id: bytes = b""
    """Which gateway session it belongs to; empty for none."""
    opened: CredentialsPlaintext | None = None
    """What its envelope holds, if a key was given that opens it. All of it but its version is secret."""

    @property
    def kind(self) -> Kind:
        """What the frame carries."""
        return self.frame.kind

    @property
    def data(self) -> bytes:
        """All of its bytes: header, body and MAC."""
        return self.frame.signed + self.frame.mac


Item = SeenFrame | Finding | StreamNote
"""What outputs and filters get, in the order of the input; of the notes those that tell of connections."""
