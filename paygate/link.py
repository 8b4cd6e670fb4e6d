"""One end of one link, without its socket: hello, MAC, correlation, echo, deadlines (spec 5).

Strategy: bytes and the time go in, events and bytes to send come out. A state table says which input is legal
in which state; whatever is not in it closes the link with `UNEXPECTED_MESSAGE`. Requests and replies are matched
by correlation ID, never by order; a reply's kind must be its request's. Whatever a peer does wrong becomes one
`Error` frame, one `LinkFailed` event and a closed link (T35), here and nowhere else.

On the bank link every frame carries a MAC. The answering end learns from Hello whose key to check, and a frame
without a MAC is refused from its header alone, before any cryptography (T13).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind, Role, Route
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.frame import Frame, FrameHead, encode_frame
from paygate.codec.messages import MESSAGES, Echo, EchoReply, Error, Hello, HelloAck, Message

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

KeyOf = Callable[[str], bytes | None]
"""The link key shared with a gateway of that ID, or None for a stranger."""


class Link:
    """One end of a link. All times are milliseconds of one monotonic clock, given by the caller."""

    def __init__(
        self,
        role: Role,
        party_id: str,
        peer_role: Role,
        *,
        is_caller: bool,
        now_ms: int,
        link_key: bytes | None = None,
        key_of: KeyOf | None = None,
        turn_frame_count_max: int | None = None,
    ) -> None:
        """Make an end that has just connected or been accepted.

        role, party_id: who we are. peer_role: who the other end must be. link_key: the caller's key on a bank
        link. key_of: on the bank's end, finds the key of the gateway that says hello. turn_frame_count_max: frames
        that one `receive_data` handles; None for all.
        """
        # An answering end with a fixed key would take a Hello without checking its MAC.
        assert link_key is None or is_caller
        assert key_of is None or not is_caller
        self.role = role
        self.party_id = party_id
        self.peer_role = peer_role
        self.peer_id = ""
        self.is_caller = is_caller
        self._has_mac = link_key is not None or key_of is not None
        self._link_key = link_key
        self._key_of = key_of
        self._buffer = FrameBuffer()
        self._output = bytearray()
        self._next_correlation_id = 1
        self._asked: dict[int, Kind] = {}  # our requests that wait for a reply: correlation ID to reply kind
        self._to_answer: dict[int, Kind] = {}  # the peer's requests that wait for ours
        self._opened_ms = now_ms
        self._frame_started_ms: int | None = None
        self._received_ms = now_ms
        self._echo_sent_ms: int | None = None
        self._turn_frame_count_max = turn_frame_count_max
        self._is_backlogged = False
        self.state = LinkState.WAIT_HELLO_ACK if is_caller else LinkState.WAIT_HELLO
        if is_caller:
            self._put_request(Hello(role=role, party_id=party_id, versions=(limits.PROTOCOL_VERSION,)))

    # -- sending ---------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether requests may be sent."""
        return self.state is LinkState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether nothing is looked at any more; what `data_to_send` still gives may be sent, then close."""
        return self.state is LinkState.CLOSED

    @property
    def is_backlogged(self) -> bool:
        """Whether the last turn ended with frames left: call `receive_data` with no bytes for the next turn."""
        return self._is_backlogged and not self.is_closed

    @property
    def waiting_count(self) -> int:
        """How many of the peer's requests wait for our reply."""
        return len(self._to_answer)

    def send_request(self, message: Message) -> int:
        """Queue a request and give its correlation ID.

        Raises LocalProtocolError if the link is not open, or the message is no request from here to there.
        """
        if self.state is not LinkState.OPEN:
            raise LocalProtocolError(f"a {message.kind.name} was sent on a link that is {self.state.value}")
        if not self._may_send(message.kind):
            raise LocalProtocolError(
                f"a {message.kind.name} does not go from {self.role.name} to {self.peer_role.name}"
            )
        return self._put_request(message)

    def send_reply(self, correlation_id: int, message: Message) -> None:
        """Queue the reply to a request of the peer. A link that has closed meanwhile swallows it.

        Raises LocalProtocolError if no such request waits or the kind is not its reply's.
        """
        if self.state is LinkState.CLOSED:
            return
        expected = self._to_answer.get(correlation_id)
        if expected is None or message.kind not in (expected, Kind.ERROR):
            raise LocalProtocolError(f"a {message.kind.name} answers nothing that waits under {correlation_id}")
        self._put(message, correlation_id)
        del self._to_answer[correlation_id]

    def refuse(self, correlation_id: int, code: ErrorCode, text: str = "") -> None:
        """Answer a request with an Error after which the link goes on."""
        assert not code.closes
        self.send_reply(correlation_id, _error_message(code, text))

    def fail(self, code: ErrorCode, text: str = "") -> None:
        """Queue an Error and close: for what the link itself can't see, such as a full server."""
        if self.state is not LinkState.CLOSED:
            self._put(_error_message(code, text), 0)
            self._step(LinkInput.CLOSE)

    def close(self) -> None:
        """We are done; what is queued may still be sent."""
        self._step(LinkInput.CLOSE)

    def data_to_send(self) -> bytes:
        """All bytes queued since the last call."""
        data = bytes(self._output)
        self._output.clear()
        return data

    # -- receiving -------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview, now_ms: int) -> list[LinkEvent]:
        """Take bytes from the stream and tell what they meant."""
        if self.state is LinkState.CLOSED:
            return []
        was_mid_frame = self._buffer.is_mid_frame
        self._buffer.receive_data(data)
        events: list[LinkEvent] = []
        frame_count = 0
        self._is_backlogged = False
        try:
            while not self.is_closed:
                if frame_count == self._turn_frame_count_max and self._buffer.is_mid_frame:
                    self._is_backlogged = True
                    break
                head = self._buffer.next_head()
                if head is None:
                    break
                self._check_head(head)
                frame = self._buffer.next_frame()
                if frame is None:
                    break
                frame_count += 1
                events += self._receive_frame(frame)
        except RemoteProtocolError as error:
            events.append(self._fail(error))
        if frame_count:
            self._received_ms = now_ms
            self._echo_sent_ms = None
        if not self._buffer.is_mid_frame:
            self._frame_started_ms = None
        elif frame_count or not was_mid_frame:
            self._frame_started_ms = now_ms
        return events

    def receive_eof(self) -> list[LinkEvent]:
        """The peer's stream has ended."""
        if self.state is LinkState.CLOSED:
            return []
        try:
            self._buffer.receive_eof()
        except RemoteProtocolError as error:
            return [self._fail(error)]
        self._step(LinkInput.EOF)
        return [PeerClosed("end of stream")]

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` wants to be called, or None."""
        if self.state is LinkState.CLOSED:
            return None
        deadlines = [d for d, _ in self._deadlines()]
        return min(deadlines, default=None)

    def receive_timer(self, now_ms: int) -> list[LinkEvent]:
        """The time is now `now_ms`; tests an idle bank link, or fails a link whose deadline has passed."""
        if self.state is LinkState.CLOSED:
            return []
        for deadline_ms, code in self._deadlines():
            if now_ms >= deadline_ms:
                if code is not None:
                    return [self._fail(RemoteProtocolError(code))]
                self._echo_sent_ms = now_ms
                self.send_request(Echo(now_ms.to_bytes(limits.ECHO_DATA_SIZE)))
        return []

    def _deadlines(self) -> list[tuple[int, ErrorCode | None]]:
        found: list[tuple[int, ErrorCode | None]] = []
        if self.state is not LinkState.OPEN:
            found.append((self._opened_ms + HELLO_TIMEOUT_MS, ErrorCode.HELLO_TIMEOUT))
        if self._frame_started_ms is not None:
            found.append((self._frame_started_ms + FRAME_TIMEOUT_MS, ErrorCode.FRAME_TIMEOUT))
        if self.state is LinkState.OPEN:
            if not self.is_caller:
                # A peer that waits for our answer is not idle, however long the bank takes.
                if not self._to_answer:
                    found.append((self._received_ms + IDLE_TIMEOUT_MS, ErrorCode.IDLE_TIMEOUT))
            elif self._has_mac:
                if self._echo_sent_ms is not None:
                    found.append((self._echo_sent_ms + ECHO_TIMEOUT_MS, ErrorCode.IDLE_TIMEOUT))
                else:
                    found.append((self._received_ms + ECHO_AFTER_MS, None))
        return found

    # -- inside ----------------------------------------------------------------------------------------

    def _check_head(self, head: FrameHead) -> None:
        if head.is_authenticated and not self._has_mac:
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MAC, "flags", "no MAC on this link")
        # Only the bank's complaint about our Hello may come without a MAC: it may not know our key (spec 5.2).
        is_complaint = self.state is LinkState.WAIT_HELLO_ACK and head.kind is Kind.ERROR
        if self._has_mac and not head.is_authenticated and not is_complaint:
            raise RemoteProtocolError(ErrorCode.NOT_AUTHENTICATED, "flags", "a MAC on every frame of this link")
        if head.kind is Kind.ERROR:
            return
        if MESSAGES[head.kind].route is Route.PIPE:  # Spec 4.2; replies too, and before their bodies are awaited.
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "kind", "a kind that travels on sockets")
        link_input = _input_of(head.kind)
        if link_input not in TRANSITIONS[self.state]:
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "kind", "another message in this state")
        if link_input is LinkInput.REQUEST and not self._may_receive(head.kind):
            raise RemoteProtocolError(
                ErrorCode.UNEXPECTED_MESSAGE, "kind", f"what {self.peer_role.name} may ask {self.role.name}"
            )

    def _receive_frame(self, frame: Frame) -> list[LinkEvent]:
        if self.state is LinkState.WAIT_HELLO and frame.kind is Kind.HELLO:
            return [self._receive_hello(frame)]
        if frame.mac:
            if self._link_key is None:  # A made-up MAC before Hello: nobody has said yet whose key to check it with.
                raise RemoteProtocolError(ErrorCode.BAD_MAC)
            frame.check_mac(self._link_key)
        message = frame.message()
        if isinstance(message, Error):
            return self._receive_error(frame.correlation_id, message)
        if frame.kind.is_reply:
            return self._receive_reply(frame.correlation_id, message)
        return self._receive_request(frame.correlation_id, message)

    def _receive_hello(self, frame: Frame) -> Opened:
        hello = frame.message()
        assert isinstance(hello, Hello)
        if self._key_of is not None:
            self._link_key = self._key_of(hello.party_id)
            if self._link_key is None:
                raise RemoteProtocolError(ErrorCode.UNKNOWN_PARTY, "party_id", "a gateway that this bank knows")
            try:
                frame.check_mac(self._link_key)
            except RemoteProtocolError:
                self._link_key = None  # The complaint goes out without a MAC: the caller has another key.
                raise
        if hello.role is not self.peer_role:
            raise RemoteProtocolError(ErrorCode.BAD_VALUE, "role", self.peer_role.name)
        if limits.PROTOCOL_VERSION not in hello.versions:
            raise RemoteProtocolError(ErrorCode.NO_COMMON_VERSION, "versions", str(limits.PROTOCOL_VERSION))
        self.peer_id = hello.party_id
        self._put(
            HelloAck(
                role=self.role,
                party_id=self.party_id,
                version=limits.PROTOCOL_VERSION,
                frame_size_max=limits.FRAME_SIZE_MAX,
            ),
            frame.correlation_id,
        )
        self._step(LinkInput.HELLO)
        return Opened(hello.role, hello.party_id)

    def _receive_error(self, correlation_id: int, error: Error) -> list[LinkEvent]:
        if error.closes:
            self._step(LinkInput.ERROR_CLOSING)
            return [PeerClosed(f"peer says: {error.code.name.lower()}: {error.text}", error.code)]
        if LinkInput.ERROR_PASSING not in TRANSITIONS[self.state]:
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "closes", "an Error that closes in this state")
        refused = self._asked.pop(correlation_id, None)
        if refused is None:
            raise RemoteProtocolError(ErrorCode.UNKNOWN_CORRELATION, "correlation_id", "that of a waiting request")
        # A link test is the link's own request; that the peer refuses it still shows that it lives.
        return [] if refused is Kind.ECHO_REPLY else [ReplyReceived(correlation_id, error)]

    def _receive_reply(self, correlation_id: int, message: Message) -> list[LinkEvent]:
        expected = self._asked.get(correlation_id)
        if expected is None:
            raise RemoteProtocolError(ErrorCode.UNKNOWN_CORRELATION, "correlation_id", "that of a waiting request")
        if expected is not message.kind:
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "kind", f"{expected.name}, the reply asked for")
        del self._asked[correlation_id]
        if isinstance(message, HelloAck):
            if message.role is not self.peer_role:
                raise RemoteProtocolError(ErrorCode.BAD_VALUE, "role", self.peer_role.name)
            if message.version != limits.PROTOCOL_VERSION:
                raise RemoteProtocolError(ErrorCode.NO_COMMON_VERSION, "version", str(limits.PROTOCOL_VERSION))
            self.peer_id = message.party_id
            self._step(LinkInput.HELLO_ACK)
            return [Opened(message.role, message.party_id)]
        if isinstance(message, EchoReply):
            return []
        return [ReplyReceived(correlation_id, message)]

    def _receive_request(self, correlation_id: int, message: Message) -> list[LinkEvent]:
        if correlation_id in self._to_answer:
            raise RemoteProtocolError(ErrorCode.DUPLICATE_CORRELATION, "correlation_id", "one not in use")
        if isinstance(message, Echo):
            self._put(EchoReply(message.echo_data), correlation_id)
            return []
        self._to_answer[correlation_id] = message.kind.reply
        if len(self._to_answer) > REQUEST_COUNT_MAX:
            self.refuse(correlation_id, ErrorCode.TOO_MANY_REQUESTS, "wait for replies before asking more")
            return []
        return [RequestReceived(correlation_id, message)]

    def _may_receive(self, kind: Kind) -> bool:
        return _travels(MESSAGES[kind].route, self.peer_role, self.role, from_caller=not self.is_caller)

    def _may_send(self, kind: Kind) -> bool:
        is_request = not kind.is_reply and kind not in (Kind.HELLO, Kind.ERROR)
        return is_request and _travels(MESSAGES[kind].route, self.role, self.peer_role, from_caller=self.is_caller)

    def _put_request(self, message: Message) -> int:
        correlation_id = self._next_correlation_id
        self._put(message, correlation_id)  # first, since it raises for a message that can't be encoded
        self._next_correlation_id += 1
        self._asked[correlation_id] = message.kind.reply
        return correlation_id

    def _put(self, message: Message, correlation_id: int) -> None:
        self._output += encode_frame(message, correlation_id, self._link_key)

    def _fail(self, error: RemoteProtocolError) -> LinkFailed:
        # Nobody reads an answer to a stream that ended in the middle of a frame, but half-open peers may.
        self._put(_error_message(error.code, error.text), 0)
        self._step(LinkInput.FAULT)
        return LinkFailed(error)

    def _step(self, link_input: LinkInput) -> None:
        self.state = TRANSITIONS[self.state][link_input]


def _travels(route: Route, sender: Role, receiver: Role, *, from_caller: bool) -> bool:
    return {
        Route.ANY: True,
        Route.CALLER: from_caller,
        Route.CLIENT_TO_GATEWAY: (sender, receiver) == (Role.CLIENT, Role.GATEWAY),
        Route.GATEWAY_TO_BANK: (sender, receiver) == (Role.GATEWAY, Role.BANK),
        Route.PIPE: False,
    }[route]


def _input_of(kind: Kind) -> LinkInput:
    if kind is Kind.HELLO:
        return LinkInput.HELLO
    if kind is Kind.HELLO_ACK:
        return LinkInput.HELLO_ACK
    return LinkInput.REPLY if kind.is_reply else LinkInput.REQUEST


def _error_message(code: ErrorCode, text: str) -> Error:
    safe = "".join(c if " " <= c <= "~" else "?" for c in text)[: limits.ERROR_TEXT_SIZE_MAX]
    return Error(code=code, closes=code.closes, text=safe)
