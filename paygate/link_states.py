"""Which state a link is in, and what may come in it, how much and how long (spec 5.3).

Data for `link`, and for what draws and checks it.
"""

from enum import Enum
from functools import cache
from typing import Final

from paygate.codec.codes import Kind, Role, Route
from paygate.codec.messages import MESSAGES

HELLO_TIMEOUT_MS: Final = 5_000
"""A caller says hello at once; a stranger that only connects holds a descriptor no longer than this."""
FRAME_TIMEOUT_MS: Final = 10_000
"""From a frame's first byte to its last: far above any honest network, and the bound on a slow drip (T23)."""
IDLE_TIMEOUT_MS: Final = 60_000
"""The answering end closes a link that sent no frame for so long: twice a session, so a person may type (R10)."""
ECHO_AFTER_MS: Final = 15_000
"""The calling end of a bank link tests it when nothing came for so long; a quarter of the idle time."""
ECHO_TIMEOUT_MS: Final = 10_000
"""No frame at all after a link test for so long: the link is dead, and the payments on it are in doubt."""
REQUEST_COUNT_MAX: Final = 4_096
"""Requests of one peer that may wait for a reply; more are answered with TOO_MANY_REQUESTS."""
TURN_FRAME_COUNT_MAX: Final = 8
"""Frames of a stranger that are handled before others have their turn (R21): a few milliseconds' worth, and more
than any client has to say at once."""


class LinkState(Enum):
    """Where a link is in its life."""

    WAIT_HELLO = "answering end, before the caller's Hello"
    WAIT_HELLO_ACK = "calling end, Hello sent"
    OPEN = "open"
    CLOSED = "closed"


class LinkInput(Enum):
    """What can happen to a link; frames by what they are, not by kind."""

    HELLO = "Hello"
    HELLO_ACK = "HelloAck"
    REQUEST = "a request"
    REPLY = "a reply"
    ERROR_CLOSING = "an Error that closes"
    ERROR_PASSING = "an Error after which the link goes on"
    FAULT = "a protocol fault of the peer, or a deadline"
    EOF = "the end of the stream"
    CLOSE = "our own wish to close"


TRANSITIONS: Final[dict[LinkState, dict[LinkInput, LinkState]]] = {
    LinkState.WAIT_HELLO: {
        LinkInput.HELLO: LinkState.OPEN,
        LinkInput.ERROR_CLOSING: LinkState.CLOSED,
        LinkInput.FAULT: LinkState.CLOSED,
        LinkInput.EOF: LinkState.CLOSED,
        LinkInput.CLOSE: LinkState.CLOSED,
    },
    LinkState.WAIT_HELLO_ACK: {
        LinkInput.HELLO_ACK: LinkState.OPEN,
        LinkInput.ERROR_CLOSING: LinkState.CLOSED,
        LinkInput.FAULT: LinkState.CLOSED,
        LinkInput.EOF: LinkState.CLOSED,
        LinkInput.CLOSE: LinkState.CLOSED,
    },
    LinkState.OPEN: {
        LinkInput.REQUEST: LinkState.OPEN,
        LinkInput.REPLY: LinkState.OPEN,
        LinkInput.ERROR_PASSING: LinkState.OPEN,
        LinkInput.ERROR_CLOSING: LinkState.CLOSED,
        LinkInput.FAULT: LinkState.CLOSED,
        LinkInput.EOF: LinkState.CLOSED,
        LinkInput.CLOSE: LinkState.CLOSED,
    },
    # After CLOSED nothing is looked at any more: the bytes of a link that has failed mean nothing.
    LinkState.CLOSED: {
        LinkInput.EOF: LinkState.CLOSED,
        LinkInput.CLOSE: LinkState.CLOSED,
    },
}
"""What is missing is refused: a frame with UNEXPECTED_MESSAGE. One test walks every pair."""


@cache
def kinds_taken(state: LinkState, role: Role, peer_role: Role, *, is_caller: bool) -> frozenset[Kind]:
    """The kinds that one end of a link takes in a state; of an Error, what it says decides.

    role, is_caller: of the end that takes them. Asked of the table once, since a link asks it of every frame.
    """
    return frozenset(
        kind
        for kind in Kind
        if kind is Kind.ERROR
        or (
            MESSAGES[kind].route is not Route.PIPE
            and input_of(kind) in TRANSITIONS[state]
            and (input_of(kind) is not LinkInput.REQUEST or travels(kind, peer_role, role, from_caller=not is_caller))
        )
    )


@cache
def kinds_asked(role: Role, peer_role: Role, *, is_caller: bool) -> frozenset[Kind]:
    """The requests that one end may send once the link is open."""
    return frozenset(
        kind
        for kind in Kind
        if kind is not Kind.ERROR
        and input_of(kind) is LinkInput.REQUEST
        and travels(kind, role, peer_role, from_caller=is_caller)
    )


def travels(kind: Kind, sender: Role, receiver: Role, *, from_caller: bool) -> bool:
    """Whether a request goes this way at all."""
    return {
        Route.ANY: True,
        Route.CALLER: from_caller,
        Route.CLIENT_TO_GATEWAY: (sender, receiver) == (Role.CLIENT, Role.GATEWAY),
        Route.GATEWAY_TO_BANK: (sender, receiver) == (Role.GATEWAY, Role.BANK),
        Route.PIPE: False,
    }[MESSAGES[kind].route]


def input_of(kind: Kind) -> LinkInput:
    """What a frame of any kind but Error is to a link."""
    if kind is Kind.HELLO:
        return LinkInput.HELLO
    if kind is Kind.HELLO_ACK:
        return LinkInput.HELLO_ACK
    return LinkInput.REPLY if kind.is_reply else LinkInput.REQUEST


REPLY_OF: Final[dict[Kind, Kind]] = {kind: kind.reply for kind in Kind if kind is not Kind.ERROR and not kind.is_reply}
"""The reply of each kind of request, and of Hello."""
