"""Splits a stream of bytes into frames, however they were cut or glued on the way."""

from collections.abc import Container, Iterator

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, FrameHead, decode_frame, decode_frames, decode_head
from paygate.codec.messages import Message


class FrameBuffer:
    """Collects received bytes and gives whole frames.

    It holds at most one unfinished frame and what came behind it in one read: a body is awaited only after
    its header was accepted. After an error the stream has no boundaries left, so the buffer refuses to go on.

    A read that begins with a frame is kept as it came, and its frames are cut out of it one after another; only the
    piece of a frame at its end is copied, once, to wait for the rest.
    """

    __slots__ = ("_data", "_error", "_head", "_start")  # every link has one

    def __init__(self) -> None:
        # Bytes as they were read, or a piece of a frame that grows.
        self._data: bytes | bytearray = b""
        self._start = 0  # everything before it was given out
        self._head: FrameHead | None = None
        self._error: RemoteProtocolError | None = None

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes as they came from the stream."""
        if not self._data:
            self._data = bytes(data)  # no copy of what is bytes already
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data[self._start :])
            self._start = 0
        self._data += data

    @property
    def is_mid_frame(self) -> bool:
        """Whether part of a frame is waiting for the rest: its deadline runs (T23)."""
        return len(self._data) > self._start

    def next_head(self) -> FrameHead | None:
        """The header of the frame that comes next, as soon as its 20 bytes are there; None before.

        Raises RemoteProtocolError; again at each further call.
        """
        if self._error is not None:
            raise self._error
        head = self._head
        if head is None and len(self._data) - self._start >= limits.HEADER_SIZE:
            try:
                head = self._head = decode_head(self._data, self._start)
            except RemoteProtocolError as error:
                self._error = error
                raise
        return head

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None while its bytes are not all there.

        Raises RemoteProtocolError; again at each further call.
        """
        head = self._head
        if head is None or self._error is not None:
            head = self.next_head()
            if head is None:
                return None
        start = self._start
        end = start + head.frame_size
        data = self._data
        if end > len(data):
            return None
        if data.__class__ is not bytes:
            data = self._data = bytes(data)  # The piece is whole now: no more will be put behind it.
        try:
            frame = decode_frame(head, data, start)
        except RemoteProtocolError as error:
            self._error = error
            raise
        self._head = None
        if end == len(data):  # An idle connection holds on to nothing.
            self._data, self._start = b"", 0
        else:
            self._start = end
        return frame

    def receive_eof(self) -> None:
        """The stream has ended. Raises RemoteProtocolError(TRUNCATED_FRAME) in the middle of a frame."""
        if self.is_mid_frame:
            raise RemoteProtocolError(ErrorCode.TRUNCATED_FRAME, "", "the rest of the frame before the end")


def take_messages(buffer: FrameBuffer, data: bytes, kinds: Container[int]) -> Iterator[tuple[Kind, int, Message]]:
    """What a read from a pipe brought: kind, correlation ID and message of each frame that is whole by now.

    Frames on a pipe have no MAC. Those of these kinds, where a read begins with them, are decoded fast; any others come
    too. Raises RemoteProtocolError, after what came before the frame that is wrong.
    """
    if not buffer.is_mid_frame:
        received, end = decode_frames(data, kinds, None, None)
        yield from received
        data = data[end:]
    if data:
        buffer.receive_data(data)
        while (frame := buffer.next_frame()) is not None:
            yield frame.kind, frame.correlation_id, frame.message()
