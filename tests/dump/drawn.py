"""Items for diagrams and statistics: whole sessions on the usual ports, findings, and texts that mean harm."""

from typing import Final

import builders
from dump.tape import session, through
from specgen.vector_session import Payment

from paygate.codec.codes import Kind, Role
from paygate.codec.messages import Error, Hello, Message
from paygate.dump.links import Links
from paygate.dump.model import Endpoint, Finding, Flow, Item, SeenFrame, Side, StreamEvent, StreamNote

HOSTILE: Final = (
    '\x1b[31m\n\u202e;#35;%%{init: {"theme":"dark"}}%%$$x$$<script>alert(1)</script>]]>&amp;"\'`end` : -->> \u2028\0'
)
"""A terminal's escape, line breaks, a right-to-left mark; markup of Mermaid, HTML and XML."""
LONG: Final = "漢字" * 200
"""Twice as wide as it is long."""


def seen_session(payment: Payment) -> list[Item]:
    """A session as `links` gives it, its bank at the usual port."""
    items = session(payment)
    for item in items:
        if isinstance(item, SeenFrame) and isinstance(item.message, Hello) and item.message.role is Role.GATEWAY:
            item.flow.answerer = Endpoint("127.0.0.1", 15_001)
    return through(Links(), items)


def finding(flow: Flow | None, text: str = "0x00000001", *, time_ns: int | None = None) -> Finding:
    """A finding that repeats `text`."""
    return Finding(
        "BAD_CHECKSUM", "0x00000002", text, "4.3", 7, time_ns, flow, Side.CALLER, 120, "checksum", frame_offset=104
    )


def hostile_flow(flow_like: Flow) -> Flow:
    """A flow between two strangers, one of them with a name that means harm."""
    return Flow(99, flow_like.kind, Endpoint(HOSTILE, 0), Endpoint("10.0.0.9", 7))


def opened(flow: Flow, time_ns: int | None = None) -> StreamNote:
    """The flow began."""
    return StreamNote(flow, Side.CALLER, StreamEvent.OPENED, 0, 0, time_ns, 1)


def examples() -> list[Message]:
    """A message of every kind, and an Error with a text as long as it may be."""
    text = "~" * 120
    usual = builders.example(Kind.ERROR)
    assert isinstance(usual, Error)
    return [*(builders.example(kind) for kind in Kind), builders.with_changes(usual, text=text)]
