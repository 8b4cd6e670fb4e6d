"""One end of one link, without its socket: hello, MAC, correlation, echo, deadlines (spec 5).

Strategy: bytes and the time go in, events and bytes to send come out. A state table says which input is legal
in which state; whatever is not in it closes the link with `UNEXPECTED_MESSAGE`. Requests and replies are matched
by correlation ID, never by order; a reply's kind must be its request's. Whatever a peer does wrong becomes one
`Error` frame, one `LinkFailed` event and a closed link (T35), here and nowhere else.

On the bank link every frame carries a MAC. The answering end learns from Hello whose key to check, and a frame
without a MAC is refused from its header alone, before any cryptography (T13).
"""

from typing import Final

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.frame import Frame, decode_frames, encode_frame
from paygate.codec.messages import Echo, EchoReply, Error, Hello, HelloAck, Message
from paygate.link_checks import KeyOf, check_head, check_hello, check_hello_ack, error_message, proven_key
from paygate.link_events import LinkEvent, LinkFailed, Opened, PeerClosed, ReplyReceived, RequestReceived
from paygate.link_states import (
    ECHO_AFTER_MS,
    ECHO_TIMEOUT_MS,
    FRAME_TIMEOUT_MS,
    HELLO_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    REPLY_OF,
    REQUEST_COUNT_MAX,
    TRANSITIONS,
    LinkInput,
    LinkState,
    kinds_asked,
    kinds_taken,
)
from paygate.making import maker_of

_make_request_received: Final = maker_of(RequestReceived)
_make_reply_received: Final = maker_of(ReplyReceived)

# An enum's member is looked up through its class each time, and these are asked for with every frame.
_OPEN: Final = LinkState.OPEN
_CLOSED: Final = LinkState.CLOSED
_ERROR: Final = Kind.ERROR
_ECHO_REPLY: Final = Kind.ECHO_REPLY
_HELLO_TIMEOUT: Final = ErrorCode.HELLO_TIMEOUT
_FRAME_TIMEOUT: Final = ErrorCode.FRAME_TIMEOUT
_IDLE_TIMEOUT: Final = ErrorCode.IDLE_TIMEOUT


class Link:
    """One end of a link. All times are milliseconds of one monotonic clock, given by the caller."""

    # A server has one for each of its connections, most of which are idle.
    __slots__ = (
        "_asked",
        "_buffer",
        "_echo_sent_ms",
        "_frame_started_ms",
        "_has_mac",
        "_is_backlogged",
        "_key_of",
        "_kinds_asked",
        "_kinds_taken",
        "_link_key",
        "_next_correlation_id",
        "_opened_ms",
        "_output",
        "_received_ms",
        "_to_answer",
        "_turn_frame_count_max",
        "is_caller",
        "party_id",
        "peer_id",
        "peer_role",
        "role",
        "state",
    )

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
        self._output: list[bytes] = []  # frames
        self._next_correlation_id = 1
        self._asked: dict[int, Kind] = {}  # our requests that wait for a reply: correlation ID to reply kind
        self._to_answer: dict[int, Kind] = {}  # the peer's requests that wait for ours
        self._opened_ms = now_ms
        self._frame_started_ms: int | None = None
        self._received_ms = now_ms
        self._echo_sent_ms: int | None = None
        self._turn_frame_count_max = turn_frame_count_max
        self._is_backlogged = False
        self._kinds_asked = kinds_asked(role, peer_role, is_caller=is_caller)
        self._enter(LinkState.WAIT_HELLO_ACK if is_caller else LinkState.WAIT_HELLO)
        if is_caller:
            self._put_request(Hello(role=role, party_id=party_id, versions=(limits.PROTOCOL_VERSION,)))

    # -- sending ---------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether requests may be sent."""
        return self.state is _OPEN

    @property
    def is_closed(self) -> bool:
        """Whether nothing is looked at any more; what `data_to_send` still gives may be sent, then close."""
        return self.state is _CLOSED

    @property
    def is_backlogged(self) -> bool:
        """Whether the last turn ended with frames left: call `receive_data` with no bytes for the next turn."""
        return self._is_backlogged and self.state is not _CLOSED

    @property
    def has_news(self) -> bool:
        """Whether more than events came of what was received.

        Something to send, another turn, an earlier deadline, or the end. A whole frame alone is none of them.
        """
        return self._frame_started_ms is not None or self.state is not _OPEN or bool(self._output)

    @property
    def is_between_frames(self) -> bool:
        """Whether the link is open and holds no part of a frame.

        Then no turn is wanted, and what was received, asked or answered has put its deadline off or left it.
        """
        return self._frame_started_ms is None and self.state is _OPEN

    @property
    def waiting_count(self) -> int:
        """How many of the peer's requests wait for our reply."""
        return len(self._to_answer)

    def send_request(self, message: Message) -> int:
        """Queue a request and give its correlation ID.

        Raises LocalProtocolError if the link is not open, or the message is no request from here to there.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError(f"a {message.kind.name} was sent on a link that is {self.state.value}")
        if message.kind not in self._kinds_asked:
            raise LocalProtocolError(
                f"a {message.kind.name} does not go from {self.role.name} to {self.peer_role.name}"
            )
        return self._put_request(message)

    def send_reply(self, correlation_id: int, message: Message) -> None:
        """Queue the reply to a request of the peer. A link that has closed meanwhile swallows it.

        Raises LocalProtocolError if no such request waits or the kind is not its reply's.
        """
        if self.state is _CLOSED:
            return
        expected = self._to_answer.get(correlation_id)
        kind = message.kind
        if expected is None or (kind is not expected and kind is not _ERROR):
            raise LocalProtocolError(f"a {kind.name} answers nothing that waits under {correlation_id}")
        self._output.append(encode_frame(message, correlation_id, self._link_key))
        del self._to_answer[correlation_id]

    def refuse(self, correlation_id: int, code: ErrorCode, text: str = "") -> None:
        """Answer a request with an Error after which the link goes on."""
        assert not code.closes
        self.send_reply(correlation_id, error_message(code, text))

    def fail(self, code: ErrorCode, text: str = "") -> None:
        """Queue an Error and close: for what the link itself can't see, such as a full server."""
        if self.state is not _CLOSED:
            self._put(error_message(code, text), 0)
            self._step(LinkInput.CLOSE)

    def close(self) -> None:
        """We are done; what is queued may still be sent."""
        self._step(LinkInput.CLOSE)

    def data_to_send(self) -> bytes:
        """All bytes queued since the last call."""
        output = self._output
        if len(output) == 1:
            return output.pop()
        data = b"".join(output)
        output.clear()
        return data

    # -- receiving -------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview, now_ms: int) -> list[LinkEvent]:
        """Take bytes from the stream and tell what they meant."""
        state = self.state
        if state is _CLOSED:
            return []
        events: list[LinkEvent] = []
        frame_count = end = 0
        try:
            if state is _OPEN and self._frame_started_ms is None and data.__class__ is bytes:
                received, end = decode_frames(data, self._kinds_taken, self._link_key, self._turn_frame_count_max)
                frame_count = len(received)
                for kind, correlation_id, message in received:
                    receive = self._receive_request if kind in REPLY_OF else self._receive_reply
                    event = receive(kind, correlation_id, message)
                    if event is not None:
                        events.append(event)
                if frame_count and end == len(data):  # What mostly comes: whole frames, and none is begun.
                    self._received_ms = now_ms
                    self._echo_sent_ms = None
                    return events
            self._receive_in_pieces(data[end:], frame_count, events, now_ms)
        except RemoteProtocolError as error:
            events.append(self._fail(error))
        return events

    def _receive_in_pieces(
        self, data: bytes | bytearray | memoryview, frame_count: int, events: list[LinkEvent], now_ms: int
    ) -> None:
        """Take bytes frame by frame, however they were cut; so many frames of the same turn came before them."""
        buffer = self._buffer
        was_mid_frame = buffer.is_mid_frame
        self._is_backlogged = False
        if data:
            buffer.receive_data(data)
        while buffer.is_mid_frame and self.state is not _CLOSED:
            if frame_count == self._turn_frame_count_max:
                self._is_backlogged = True
                break
            head = buffer.next_head()
            if head is None:
                break
            check_head(*(head, self.state, self.role, self.peer_role), is_caller=self.is_caller, has_mac=self._has_mac)
            frame = buffer.next_frame()
            if frame is None:
                break
            frame_count += 1
            event = self._receive_frame(frame)
            if event is not None:
                events.append(event)
        if frame_count:
            self._received_ms = now_ms
            self._echo_sent_ms = None
        if not buffer.is_mid_frame:
            self._frame_started_ms = None
        elif frame_count or not was_mid_frame:
            self._frame_started_ms = now_ms

    def receive_eof(self) -> list[LinkEvent]:
        """The peer's stream has ended."""
        if self.state is _CLOSED:
            return []
        try:
            self._buffer.receive_eof()
        except RemoteProtocolError as error:
            return [self._fail(error)]
        self._step(LinkInput.EOF)
        return [PeerClosed("end of stream")]

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` wants to be called, or None."""
        deadline = self._next_deadline()
        return deadline and deadline[0]

    def receive_timer(self, now_ms: int) -> list[LinkEvent]:
        """The time is now `now_ms`; tests an idle bank link, or fails a link whose deadline has passed."""
        deadline = self._next_deadline()
        if deadline is None or now_ms < deadline[0]:
            return []
        if deadline[1] is not None:
            return [self._fail(RemoteProtocolError(deadline[1]))]
        self._echo_sent_ms = now_ms
        self.send_request(Echo(now_ms.to_bytes(limits.ECHO_DATA_SIZE)))
        return []

    def _next_deadline(self) -> tuple[int, ErrorCode | None] | None:
        """The first deadline, and how the link fails then; it is tested instead if it has no code."""
        if self.state is _OPEN:
            deadline = self._idle_deadline()
        elif self.state is _CLOSED:
            return None
        else:
            deadline = (self._opened_ms + HELLO_TIMEOUT_MS, _HELLO_TIMEOUT)
        if self._frame_started_ms is not None:
            frame_ms = self._frame_started_ms + FRAME_TIMEOUT_MS
            if deadline is None or frame_ms <= deadline[0]:
                return frame_ms, _FRAME_TIMEOUT
        return deadline

    def _idle_deadline(self) -> tuple[int, ErrorCode | None] | None:
        if not self.is_caller:
            # A peer that waits for our answer is not idle, however long the bank takes.
            return None if self._to_answer else (self._received_ms + IDLE_TIMEOUT_MS, _IDLE_TIMEOUT)
        if not self._has_mac:
            return None
        if self._echo_sent_ms is not None:
            return self._echo_sent_ms + ECHO_TIMEOUT_MS, _IDLE_TIMEOUT
        return self._received_ms + ECHO_AFTER_MS, None

    # -- inside ----------------------------------------------------------------------------------------

    def _receive_frame(self, frame: Frame) -> LinkEvent | None:
        kind = frame.kind
        if kind is Kind.HELLO:
            return self._receive_hello(frame)
        if frame.mac:
            if self._link_key is None:  # A made-up MAC before Hello: nobody has said yet whose key to check it with.
                raise RemoteProtocolError(ErrorCode.BAD_MAC)
            frame.check_mac(self._link_key)
        if kind in REPLY_OF:
            return self._receive_request(kind, frame.correlation_id, frame.message())
        message = frame.message()
        if isinstance(message, Error):
            return self._receive_error(frame.correlation_id, message)
        return self._receive_reply(kind, frame.correlation_id, message)

    def _receive_hello(self, frame: Frame) -> Opened:
        hello = frame.message()
        assert isinstance(hello, Hello)
        if self._key_of is not None:
            # If it is not proven, the complaint goes out without a MAC: the caller has another key, or none.
            self._link_key = proven_key(frame, hello.party_id, self._key_of)
        check_hello(hello, self.peer_role)
        self.peer_id = hello.party_id
        ack = HelloAck(self.role, self.party_id, limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
        self._put(ack, frame.correlation_id)
        self._step(LinkInput.HELLO)
        return Opened(hello.role, hello.party_id)

    def _receive_error(self, correlation_id: int, error: Error) -> LinkEvent | None:
        if error.closes:
            self._step(LinkInput.ERROR_CLOSING)
            return PeerClosed(f"peer says: {error.code.name.lower()}: {error.text}", error.code)
        if LinkInput.ERROR_PASSING not in TRANSITIONS[self.state]:
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "closes", "an Error that closes in this state")
        refused = self._asked.pop(correlation_id, None)
        if refused is None:
            raise RemoteProtocolError(ErrorCode.UNKNOWN_CORRELATION, "correlation_id", "that of a waiting request")
        # A link test is the link's own request; that the peer refuses it still shows that it lives.
        return None if refused is Kind.ECHO_REPLY else ReplyReceived(correlation_id, error)

    def _receive_reply(self, kind: Kind, correlation_id: int, message: Message) -> LinkEvent | None:
        expected = self._asked.get(correlation_id)
        if expected is None:
            raise RemoteProtocolError(ErrorCode.UNKNOWN_CORRELATION, "correlation_id", "that of a waiting request")
        if expected is not kind:
            raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "kind", f"{expected.name}, the reply asked for")
        del self._asked[correlation_id]
        if kind is _ECHO_REPLY:
            return None
        if isinstance(message, HelloAck):
            check_hello_ack(message, self.peer_role)
            self.peer_id = message.party_id
            self._step(LinkInput.HELLO_ACK)
            return Opened(message.role, message.party_id)
        return _make_reply_received(correlation_id, message)

    def _receive_request(self, kind: Kind, correlation_id: int, message: Message) -> LinkEvent | None:
        to_answer = self._to_answer
        if correlation_id in to_answer:
            raise RemoteProtocolError(ErrorCode.DUPLICATE_CORRELATION, "correlation_id", "one not in use")
        if isinstance(message, Echo):
            self._put(EchoReply(message.echo_data), correlation_id)
            return None
        to_answer[correlation_id] = REPLY_OF[kind]
        if len(to_answer) > REQUEST_COUNT_MAX:
            self.refuse(correlation_id, ErrorCode.TOO_MANY_REQUESTS, "wait for replies before asking more")
            return None
        return _make_request_received(correlation_id, message)

    def _put_request(self, message: Message) -> int:
        correlation_id = self._next_correlation_id
        # First, since it raises for a message that can't be encoded.
        self._output.append(encode_frame(message, correlation_id, self._link_key))
        self._next_correlation_id += 1
        self._asked[correlation_id] = REPLY_OF[message.kind]
        return correlation_id

    def _put(self, message: Message, correlation_id: int) -> None:
        self._output.append(encode_frame(message, correlation_id, self._link_key))

    def _fail(self, error: RemoteProtocolError) -> LinkFailed:
        # Nobody reads an answer to a stream that ended in the middle of a frame, but half-open peers may.
        self._put(error_message(error.code, error.text), 0)
        self._step(LinkInput.FAULT)
        return LinkFailed(error)

    def _step(self, link_input: LinkInput) -> None:
        self._enter(TRANSITIONS[self.state][link_input])

    def _enter(self, state: LinkState) -> None:
        self.state = state
        self._kinds_taken = kinds_taken(state, self.role, self.peer_role, is_caller=self.is_caller)
