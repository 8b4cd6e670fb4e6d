"""What comes whole in one read is decoded at once; a link is told the same as by the way that looks frame by frame."""

import dataclasses

import pytest
from builders import example
from hypothesis import given
from hypothesis import strategies as st
from link_ends import BANK_LINK, CLIENT_LINK, NOW_MS, Pairing, each_pairing, raw_frame

from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, Error
from paygate.link import Link
from paygate.link_events import LinkEvent


def told(event: LinkEvent) -> object:
    """An event to compare: errors are equal by what they say."""
    error = getattr(event, "error", None)
    return (type(event), error.code, error.text) if error else (type(event), dataclasses.astuple(event))


def state_of(link: Link) -> tuple[object, ...]:
    deadline_ms = link.next_deadline_ms()
    return (link.state, link.data_to_send(), deadline_ms, link.is_backlogged, link._asked, link._to_answer)


def frames_of(pairing: Pairing) -> list[bytes]:
    """Right and wrong ones, for either end."""
    key = pairing.link_key
    request, reply = pairing.frame(pairing.request, 7), pairing.frame(pairing.reply, 2)
    return [
        *(request, pairing.frame(pairing.request, 8), pairing.frame(pairing.request, 9)),
        *(reply, pairing.frame(pairing.reply, 3), pairing.frame(pairing.reply, 99)),
        pairing.frame(Echo(b"12345678"), 11),
        pairing.frame(Error(code=ErrorCode.TOO_MANY_REQUESTS, closes=False, text="later"), 3),
        pairing.frame(Error(code=ErrorCode.INTERNAL, closes=True, text=""), 0),
        pairing.frame(example(Kind.HELLO), 1),
        *(request[:-1] + bytes([request[-1] ^ 1]), request[:30] + bytes([request[30] ^ 1]) + request[31:]),
        *(raw_frame(pairing.request.kind, bytes(100), 5, key), raw_frame(pairing.request.kind, b"", 5, key)),
        *(raw_frame(0x7E, b"", 5, key), raw_frame(pairing.request.kind, bytes(100), 5, None if key else b"k" * 32)),
        raw_frame(pairing.request.kind, request[20 : len(request) - (16 if key else 0)] + b"x", 6, key),
        raw_frame(pairing.request.kind, request[20 : len(request) - (16 if key else 0)], 6, key, version=2),
    ]


def ends(pairing: Pairing, *, answers: bool, turn_frame_count_max: int | None) -> Link:
    caller, answerer = pairing.opened()
    for _ in range(2):
        caller.send_request(pairing.request)
    caller.data_to_send()
    link = answerer if answers else caller
    link._turn_frame_count_max = turn_frame_count_max
    return link


@each_pairing
@given(data=st.data())
def test_a_link_is_told_the_same_either_way(pairing: Pairing, data: st.DataObject) -> None:
    answers = data.draw(st.booleans())
    turn_frame_count_max = data.draw(st.sampled_from([None, 1, 2, 8]))
    one, other = (ends(pairing, answers=answers, turn_frame_count_max=turn_frame_count_max) for _ in range(2))
    stream = b"".join(data.draw(st.lists(st.sampled_from(frames_of(pairing)), max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    for after_ms, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(stream)], strict=True)):
        reads = [stream[begin:end], *[b""] * 8]  # a read, and turns of what it left
        for read in reads:
            at_once = one.receive_data(read, NOW_MS + after_ms)
            # What isn't bytes is looked at frame by frame.
            one_by_one = other.receive_data(bytearray(read), NOW_MS + after_ms)
            assert [told(event) for event in at_once] == [told(event) for event in one_by_one]
            assert state_of(one) == state_of(other)


@pytest.mark.parametrize("pairing", [CLIENT_LINK, BANK_LINK], ids=lambda p: p.name)
def test_whole_frames_do_not_go_through_the_buffer(pairing: Pairing, monkeypatch: pytest.MonkeyPatch) -> None:
    link = ends(pairing, answers=True, turn_frame_count_max=None)
    assert len(link.receive_data(pairing.frame(pairing.request, 40), NOW_MS)) == 1  # the first use compiles
    monkeypatch.setattr("paygate.codec.buffer.decode_head", None)
    frames = b"".join(pairing.frame(pairing.request, number) for number in range(41, 51))
    assert [event.correlation_id for event in link.receive_data(frames, NOW_MS)] == [*range(41, 51)]  # type: ignore[union-attr]
