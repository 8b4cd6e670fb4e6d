"""What a link tells whoever holds it: what the bytes meant that came, or that it has ended."""

from dataclasses import dataclass

from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.messages import Message


@dataclass(frozen=True, slots=True)
class Opened:
    """The link is open; `peer_id` is proven on a bank link, and only a claim on a client's."""

    peer_role: Role
    peer_id: str


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer asks; answer with `Link.send_reply(correlation_id, ...)`."""

    correlation_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The peer answered request `correlation_id`; an `Error` here refuses that request alone."""

    correlation_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The stream ended between two frames, or the peer closed with an Error (`code`)."""

    text: str
    code: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The peer broke the protocol or a deadline passed; an Error is waiting to be sent, then close."""

    error: RemoteProtocolError


LinkEvent = Opened | RequestReceived | ReplyReceived | PeerClosed | LinkFailed
