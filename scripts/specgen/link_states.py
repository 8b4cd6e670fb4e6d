"""Total state × message tables of both ends of both kinds of link, *measured*.

A real link is put into each state and given everything that can come; the cell says what it did. So a cell can't say
anything that the code does not do, and none can be missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import Header, encode_frame
from paygate.codec.messages import Error, Hello, HelloAck, Message
from paygate.codec.record_codec import encode_record
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, Opened, PeerClosed, ReplyReceived, RequestReceived
from paygate.link_states import LinkState, kinds_asked
from specgen.samples import sample
from specgen.tables import table
from specgen.words import SOCKET_KINDS, message_name

_NOW_MS: Final = 0
_LINK_KEY: Final = bytes(range(32))
_GATEWAY_ID: Final = "gateway"
_BANK_ID: Final = "bank"


@dataclass(frozen=True)
class _End:
    """One end of one kind of link, and the state that it is put into."""

    name: str
    make: Callable[[], Link]
    peer: Role
    has_mac: bool
    state: LinkState

    def link(self) -> Link:
        link = self.make()
        if self.state is LinkState.CLOSED:
            link.close()
        elif self.state is LinkState.OPEN:
            if link.is_caller:
                party_id = _BANK_ID if self.has_mac else _GATEWAY_ID
                ack = HelloAck(self.peer, party_id, limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
                link.receive_data(self.frame(ack, 1), _NOW_MS)
            else:
                link.receive_data(self.frame(self.adapted(sample(Kind.HELLO)), 1), _NOW_MS)
        assert link.state is self.state
        link.data_to_send()
        return link

    def adapted(self, message: Message) -> Message:
        """Hello and HelloAck as this end's peer says them."""
        if isinstance(message, Hello):
            return replace(message, role=self.peer, party_id=_GATEWAY_ID)
        if isinstance(message, HelloAck):
            return replace(message, role=self.peer)
        return message

    def frame(self, message: Message, correlation_id: int) -> bytes:
        return encode_frame(message, correlation_id, _LINK_KEY if self.has_mac else None)


def _gateway_for_client() -> Link:
    return Link(Role.GATEWAY, _GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=_NOW_MS)


def _bank_for_gateway() -> Link:
    keys = {_GATEWAY_ID: _LINK_KEY}
    return Link(Role.BANK, _BANK_ID, Role.GATEWAY, is_caller=False, now_ms=_NOW_MS, key_of=keys.get)


def _client() -> Link:
    return Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=_NOW_MS)


def _gateway_at_bank() -> Link:
    return Link(Role.GATEWAY, _GATEWAY_ID, Role.BANK, is_caller=True, now_ms=_NOW_MS, link_key=_LINK_KEY)


ANSWERING_ENDS: Final = [
    _End("gateway, WAIT_HELLO", _gateway_for_client, Role.CLIENT, False, LinkState.WAIT_HELLO),
    _End("gateway, OPEN", _gateway_for_client, Role.CLIENT, False, LinkState.OPEN),
    _End("bank, WAIT_HELLO", _bank_for_gateway, Role.GATEWAY, True, LinkState.WAIT_HELLO),
    _End("bank, OPEN", _bank_for_gateway, Role.GATEWAY, True, LinkState.OPEN),
    _End("CLOSED", _gateway_for_client, Role.CLIENT, False, LinkState.CLOSED),
]
CALLING_ENDS: Final = [
    _End("client, WAIT_HELLO_ACK", _client, Role.GATEWAY, False, LinkState.WAIT_HELLO_ACK),
    _End("client, OPEN", _client, Role.GATEWAY, False, LinkState.OPEN),
    _End("gateway, WAIT_HELLO_ACK", _gateway_at_bank, Role.BANK, True, LinkState.WAIT_HELLO_ACK),
    _End("gateway, OPEN", _gateway_at_bank, Role.BANK, True, LinkState.OPEN),
    _End("CLOSED", _client, Role.GATEWAY, False, LinkState.CLOSED),
]


def link_table(ends: list[_End]) -> str:
    """What each end does with everything that can come, in each state."""
    names: dict[tuple[str, ...], list[str]] = {}  # what comes, by what all ends do with it: one row each
    for name, act in _link_rows():
        names.setdefault(tuple(act(end) for end in ends), []).append(name)
    return table(["what comes", *(end.name for end in ends)], [["; ".join(n), *cells] for cells, n in names.items()])


def _link_rows() -> Iterator[tuple[str, Callable[[_End], str]]]:
    for kind in SOCKET_KINDS:
        name = message_name(kind)
        if kind is Kind.ERROR:
            yield "Error, closes = 1", lambda end: _received(end, Error(ErrorCode.INTERNAL, True, ""), 0)
            yield "Error, closes = 0, to a request that waits", _error_to_waiting
            passing = Error(ErrorCode.TOO_MANY_REQUESTS, False, "")
            yield "Error, closes = 0, to none", lambda end, error=passing: _received(end, error, 99)  # type: ignore[misc]  # a default binds it
        elif kind.is_reply:
            yield f"{name}, waited for", lambda end, kind=kind: _waited_reply(end, kind)  # type: ignore[misc]
            yield f"{name}, not waited for", lambda end, kind=kind: _received(end, sample(kind), 99)  # type: ignore[misc]
        else:
            yield name, lambda end, kind=kind: _received(end, sample(kind), 7)  # type: ignore[misc]
    yield "a request whose correlation ID waits", _twice
    yield "a kind of the pipes (appendix A)", lambda end: _received(end, sample(Kind.MAKE_VERIFIER), 7)
    yield "an unknown or reserved kind", lambda end: _raw(end, _head(kind=0x22))
    yield "another fault in a header", lambda end: _raw(end, _head(version=2))
    yield (
        "Error without a MAC, closes = 1 (bank link)",
        lambda end: _without_mac(end, Error(ErrorCode.INTERNAL, True, "")),
    )
    passing = Error(ErrorCode.TOO_MANY_REQUESTS, False, "")
    yield "Error without a MAC, closes = 0 (bank link)", lambda end: _without_mac(end, passing)
    yield "MAC missing on another kind (bank link) or unexpected (client link)", _wrong_mac_flag
    yield "a whole frame with a bad checksum", _bad_checksum
    yield "end of stream between frames", lambda end: _outcome(link := end.link(), link.receive_eof())
    yield "end of stream within a frame", _cut
    yield "the timer of this state runs out (5.5)", _timer
    yield "own wish to close", _close


def _received(end: _End, message: Message, correlation_id: int) -> str:
    return _raw(end, end.frame(end.adapted(message), correlation_id))


def _raw(end: _End, data: bytes) -> str:
    link = end.link()
    return _outcome(link, link.receive_data(data, _NOW_MS))


def _waited_reply(end: _End, kind: Kind) -> str:
    link = end.link()
    request = Kind(kind & 0x7F)
    if kind is Kind.HELLO_ACK and end.state is LinkState.WAIT_HELLO_ACK:
        correlation_id = 1
    elif link.is_open and request in kinds_asked(link.role, link.peer_role, is_caller=link.is_caller):
        correlation_id = link.send_request(sample(request))
        link.data_to_send()
    else:
        return "ignore" if link.is_closed else "–"
    return _outcome(link, link.receive_data(end.frame(end.adapted(sample(kind)), correlation_id), _NOW_MS))


def _error_to_waiting(end: _End) -> str:
    link = end.link()
    if link.is_closed:
        return "ignore"
    if end.state is LinkState.WAIT_HELLO_ACK:
        correlation_id = 1
    elif link.is_open:
        correlation_id = link.send_request(sample(Kind.ECHO))
        link.data_to_send()
    else:
        return "–"
    error = Error(ErrorCode.TOO_MANY_REQUESTS, False, "")
    text = _outcome(link, link.receive_data(end.frame(error, correlation_id), _NOW_MS))
    # A refused link test shows that the peer lives; a refused request is told to who asked.
    return "match it" if text == "take it" else text


def _twice(end: _End) -> str:
    link = end.link()
    request = sample(Kind.BANK_KEYS_QUERY)
    frame = end.frame(request, 7)
    if link.is_open and not link.is_caller:
        link.receive_data(frame, _NOW_MS)
        link.data_to_send()
        return _outcome(link, link.receive_data(frame, _NOW_MS))
    return _received(end, request, 7)


def _without_mac(end: _End, error: Error) -> str:
    return _raw(end, encode_frame(error, 0)) if end.has_mac else "ignore" if end.state is LinkState.CLOSED else "–"


def _wrong_mac_flag(end: _End) -> str:
    return _raw(end, encode_frame(sample(Kind.ECHO), 7, None if end.has_mac else _LINK_KEY))


def _bad_checksum(end: _End) -> str:
    kind = Kind.HELLO if end.state is LinkState.WAIT_HELLO else Kind.ECHO
    if end.state is LinkState.WAIT_HELLO_ACK:
        kind = Kind.HELLO_ACK
    frame = bytearray(end.frame(end.adapted(sample(kind)), 1))
    frame[limits.HEADER_SIZE - 1] ^= 1
    return _raw(end, bytes(frame))


def _cut(end: _End) -> str:
    link = end.link()
    link.receive_data(b"PG", _NOW_MS)
    return _outcome(link, link.receive_eof())


def _timer(end: _End) -> str:
    link = end.link()
    deadline_ms = link.next_deadline_ms()
    if deadline_ms is None:
        return "–"
    return _outcome(link, link.receive_timer(deadline_ms))


def _close(end: _End) -> str:
    link = end.link()
    link.close()
    return link.state.name


def _head(*, version: int = limits.PROTOCOL_VERSION, kind: int = int(Kind.ECHO)) -> bytes:
    return encode_record(Header(0x5047, version, kind, 0, limits.ECHO_DATA_SIZE, 7, 0))


def _outcome(link: Link, events: list[LinkEvent]) -> str:
    """In words: what the link told, what it sent, and where it is now."""
    sent = FrameBuffer()
    sent.receive_data(link.data_to_send())
    answer = sent.next_frame()
    event = events[0] if events else None
    match event:
        case Opened():
            text = "OPEN"
        case RequestReceived():
            text = "serve it"
        case ReplyReceived():
            text = "match it"
        case PeerClosed():
            text = "CLOSED"
        case LinkFailed(error=error):
            assert answer is not None
            assert answer.kind is Kind.ERROR
            return f"refuse: {error.code.name}"
        case _:
            text = "ignore" if link.is_closed else "take it"
    if answer is not None:
        sends = f"send {message_name(answer.kind)}"
        text = sends if text == "take it" else f"{text}, {sends}"
    return text
