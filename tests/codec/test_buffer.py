"""However a stream is cut or glued, the same frames come out, and an error stays an error (T35)."""

import contextlib

import pytest
from builders import LINK_KEY, example
from hypothesis import given
from hypothesis import strategies as st
from strategies import records

from paygate.codec.buffer import FrameBuffer, take_messages
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, encode_frame
from paygate.codec.messages import MESSAGES, Message

each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


def feed(buffer: FrameBuffer, *chunks: bytes) -> list[Frame]:
    frames = []
    for chunk in chunks:
        buffer.receive_data(chunk)
        while (frame := buffer.next_frame()) is not None:
            frames.append(frame)
    return frames


@pytest.mark.pg("PG-FRM-2")
@each_kind
def test_one_vector_whole_byte_by_byte_glued_and_with_trailing_bytes(kind: Kind) -> None:
    for link_key in (None, LINK_KEY):
        data = encode_frame(example(kind), 7, link_key)
        whole = feed(FrameBuffer(), data)
        assert [frame.message() for frame in whole] == [example(kind)]
        assert feed(FrameBuffer(), *(data[i : i + 1] for i in range(len(data)))) == whole
        assert feed(FrameBuffer(), data + data) == whole * 2
        buffer = FrameBuffer()
        assert feed(buffer, data + b"PG\1") == whole  # the beginning of a frame
        assert buffer.is_mid_frame
        buffer = FrameBuffer()
        buffer.receive_data(data + b"x" * 20)  # no frame
        assert buffer.next_frame() == whole[0]
        with pytest.raises(RemoteProtocolError) as caught:
            buffer.next_frame()
        assert caught.value.code is ErrorCode.BAD_MAGIC


@each_kind
def test_a_stream_may_end_between_frames_and_nowhere_else(kind: Kind) -> None:
    data = encode_frame(example(kind), 7)
    for size in range(1, len(data)):
        buffer = FrameBuffer()
        assert feed(buffer, data[:size]) == []
        assert buffer.is_mid_frame
        with pytest.raises(RemoteProtocolError) as caught:
            buffer.receive_eof()
        assert caught.value.code is ErrorCode.TRUNCATED_FRAME
    buffer = FrameBuffer()
    buffer.receive_eof()
    feed(buffer, data)
    assert not buffer.is_mid_frame
    buffer.receive_eof()


def messages() -> st.SearchStrategy[Message]:
    return st.sampled_from(list(MESSAGES.values())).flatmap(records)


@pytest.mark.pg("PG-FRM-2")
@given(st.lists(messages(), min_size=1, max_size=4), st.data())
def test_any_cutting_of_any_stream_gives_the_same_messages(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(message, i) for i, message in enumerate(sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    frames = feed(FrameBuffer(), *chunks)
    assert [frame.message() for frame in frames] == sent
    assert [frame.correlation_id for frame in frames] == list(range(len(sent)))


@given(st.lists(messages(), min_size=1, max_size=4), st.sets(st.sampled_from(Kind)), st.data())
def test_any_cutting_of_a_pipes_stream_gives_the_same_messages(
    sent: list[Message], kinds: set[Kind], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(message, i) for i, message in enumerate(sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    buffer = FrameBuffer()
    taken = [one for chunk in chunks for one in take_messages(buffer, chunk, kinds)]
    assert taken == [(message.kind, i, message) for i, message in enumerate(sent)]
    assert not buffer.is_mid_frame


@pytest.mark.parametrize("end", [b"x" * 20, encode_frame(example(Kind.ECHO), 8)[:-1] + b"x"])
def test_what_came_before_a_wrong_frame_in_a_pipe_comes_before_its_error(end: bytes) -> None:
    stream = encode_frame(example(Kind.ECHO), 7) + end
    for kinds in (set[Kind](), {Kind.ECHO}):
        buffer = FrameBuffer()
        messages = take_messages(buffer, stream, kinds)
        assert next(messages) == (Kind.ECHO, 7, example(Kind.ECHO))
        with pytest.raises(RemoteProtocolError):
            next(messages)
        with pytest.raises(RemoteProtocolError):  # There are no boundaries any more.
            next(take_messages(buffer, stream, kinds))


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_any_bytes_are_frames_or_refused(chunks: list[bytes]) -> None:
    buffer = FrameBuffer()
    with contextlib.suppress(RemoteProtocolError):  # and no other exception
        for frame in feed(buffer, *chunks):
            frame.message()
        buffer.receive_eof()
        assert not buffer.is_mid_frame


def test_after_an_error_the_buffer_refuses_to_go_on() -> None:
    data = encode_frame(example(Kind.ECHO), 7)
    for bad in (b"x" * 20, data[:-1] + b"x"):  # by the header, by the checksum
        buffer = FrameBuffer()
        buffer.receive_data(bad)
        with pytest.raises(RemoteProtocolError) as first:
            buffer.next_frame()
        buffer.receive_data(data)
        with pytest.raises(RemoteProtocolError) as second:
            buffer.next_frame()
        assert second.value.code is first.value.code


def test_a_header_is_told_before_its_body_is_there() -> None:
    data = encode_frame(example(Kind.ECHO), 7)
    buffer = FrameBuffer()
    buffer.receive_data(data[:19])
    assert buffer.next_head() is None
    buffer.receive_data(data[19:20])
    head = buffer.next_head()
    assert head is not None
    assert head.kind is Kind.ECHO
    assert buffer.next_frame() is None
    buffer.receive_data(memoryview(data)[20:])
    assert buffer.next_frame() is not None
    assert buffer.next_head() is None
