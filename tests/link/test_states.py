"""Every state and every input of a link, and whatever bytes may come (spec 5.3)."""

from collections.abc import Callable
from typing import Any

import pytest
from builders import GATEWAY_ID, LINK_KEY, example
from hypothesis import given
from hypothesis import strategies as st
from link_ends import (
    BANK_LINK,
    NOW_MS,
    OTHER_KEY,
    Pairing,
    assert_failed,
    bank_end,
    client_end,
    each_pairing,
    gateway_end,
    gateway_end_to_bank,
    messages_in,
)

from paygate.codec import limits
from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import encode_frame
from paygate.codec.messages import Echo, EchoReply, Error, Hello, HelloAck
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, PeerClosed, RequestReceived
from paygate.link_states import TRANSITIONS, LinkInput, LinkState

# -- every state and every input -------------------------------------------------------------------------


def end_in(state: LinkState, pairing: Pairing, *, is_caller: bool) -> Link:
    if state in (LinkState.WAIT_HELLO, LinkState.WAIT_HELLO_ACK):
        link = pairing.make_caller() if is_caller else pairing.make_answerer()
    else:
        link = pairing.opened()[0 if is_caller else 1]
        link.send_request(Echo(b"12345678"))  # so that a reply and a passing Error have something to answer
        if state is LinkState.CLOSED:
            link.close()
    link.data_to_send()
    assert link.state is state
    return link


def put_in(link: Link, link_input: LinkInput, pairing: Pairing, *, is_caller: bool) -> list[LinkEvent]:
    peer_role = link.peer_role
    hello_id = 1
    echo_id = 2 if is_caller else 1  # the caller's first correlation ID went into its Hello
    frames: dict[LinkInput, bytes] = {
        LinkInput.HELLO: pairing.frame(Hello(role=peer_role, party_id=GATEWAY_ID, versions=(1,)), hello_id),
        LinkInput.HELLO_ACK: pairing.frame(
            HelloAck(role=peer_role, party_id=GATEWAY_ID, version=1, frame_size_max=1_000), hello_id
        ),
        LinkInput.REQUEST: pairing.frame(Echo(b"12345678"), 9),
        LinkInput.REPLY: pairing.frame(EchoReply(b"12345678"), echo_id),
        LinkInput.ERROR_CLOSING: pairing.frame(Error(code=ErrorCode.INTERNAL, closes=True, text=""), 0),
        LinkInput.ERROR_PASSING: pairing.frame(Error(code=ErrorCode.SHUTTING_DOWN, closes=False, text=""), echo_id),
        LinkInput.FAULT: b"x" * 20,
    }
    if link_input in frames:
        return link.receive_data(frames[link_input], NOW_MS)
    if link_input is LinkInput.EOF:
        return link.receive_eof()
    assert link_input is LinkInput.CLOSE
    link.close()
    return []


STATES_OF_ENDS = [
    (LinkState.WAIT_HELLO, False),
    (LinkState.WAIT_HELLO_ACK, True),
    (LinkState.OPEN, False),
    (LinkState.OPEN, True),
    (LinkState.CLOSED, False),
    (LinkState.CLOSED, True),
]


@pytest.mark.pg("PG-LNK-12")
@each_pairing
@pytest.mark.parametrize("link_input", LinkInput, ids=lambda i: i.name)
@pytest.mark.parametrize(("state", "is_caller"), STATES_OF_ENDS, ids=str)
def test_every_state_takes_every_input_as_the_table_says(
    pairing: Pairing, link_input: LinkInput, state: LinkState, is_caller: bool
) -> None:
    link = end_in(state, pairing, is_caller=is_caller)
    events = put_in(link, link_input, pairing, is_caller=is_caller)
    if state is LinkState.CLOSED:
        assert (link.state, events, link.data_to_send()) == (LinkState.CLOSED, [], b"")
    elif (
        pairing is BANK_LINK
        and state is LinkState.WAIT_HELLO
        and link_input
        in (
            LinkInput.ERROR_CLOSING,
            LinkInput.ERROR_PASSING,
        )
    ):
        assert_failed(link, events, ErrorCode.BAD_MAC)  # nobody has said yet whose key to check it with
    elif link_input in TRANSITIONS[state]:
        assert link.state is TRANSITIONS[state][link_input]
        if link.is_open:
            assert not any(isinstance(event, LinkFailed | PeerClosed) for event in events)
        elif link_input is LinkInput.FAULT:
            assert_failed(link, events, ErrorCode.BAD_MAGIC)
    else:
        assert_failed(link, events, ErrorCode.UNEXPECTED_MESSAGE)


OPEN, CLOSED = LinkState.OPEN, LinkState.CLOSED
NEXT = {
    # state:           WAIT_HELLO, WAIT_HELLO_ACK, OPEN, CLOSED
    LinkInput.HELLO: (OPEN, None, None, None),
    LinkInput.HELLO_ACK: (None, OPEN, None, None),
    LinkInput.REQUEST: (None, None, OPEN, None),
    LinkInput.REPLY: (None, None, OPEN, None),
    LinkInput.ERROR_PASSING: (None, None, OPEN, None),
    LinkInput.ERROR_CLOSING: (CLOSED, CLOSED, CLOSED, None),
    LinkInput.FAULT: (CLOSED, CLOSED, CLOSED, None),
    LinkInput.EOF: (CLOSED, CLOSED, CLOSED, CLOSED),
    LinkInput.CLOSE: (CLOSED, CLOSED, CLOSED, CLOSED),
}


@pytest.mark.pg("PG-LNK-12")
def test_the_table_is_this_one() -> None:
    assert set(TRANSITIONS) == set(LinkState)
    assert set(NEXT) == set(LinkInput)
    for link_input, after in NEXT.items():
        assert tuple(TRANSITIONS[state].get(link_input) for state in LinkState) == after


# -- whatever comes --------------------------------------------------------------------------------------

ALL_FRAMES = [
    encode_frame(example(kind), correlation_id, link_key)
    for kind in Kind
    for correlation_id in (0, 1, 2, 3)
    for link_key in (None, LINK_KEY, OTHER_KEY)
]
HELLOS = [
    encode_frame(Hello(role=role, party_id=GATEWAY_ID, versions=(1,)), 1, link_key)
    for role in (Role.CLIENT, Role.GATEWAY)
    for link_key in (None, LINK_KEY)
] + [
    encode_frame(HelloAck(role=role, party_id=GATEWAY_ID, version=1, frame_size_max=1_000), 1, link_key)
    for role in (Role.BANK, Role.GATEWAY)
    for link_key in (None, LINK_KEY)
]


def changed(frame: bytes, at: int, byte: int) -> bytes:
    at %= len(frame)
    return frame[:at] + bytes([byte]) + frame[at + 1 :]


ANY_BYTES = st.one_of(
    st.sampled_from(ALL_FRAMES),
    st.builds(changed, st.sampled_from(ALL_FRAMES), st.integers(0, 2_000), st.integers(0, 255)),
    st.builds(lambda frame, size: frame[:size], st.sampled_from(ALL_FRAMES), st.integers(0, 40)),
    st.binary(max_size=60),
)


@pytest.mark.parametrize("make_end", [client_end, gateway_end, gateway_end_to_bank, bank_end])
@given(first=st.sampled_from([b"", *HELLOS]), chunks=st.lists(ANY_BYTES, max_size=8), data=st.data())
def test_whatever_comes_a_link_is_waiting_open_or_closed(
    make_end: Callable[[], Link], first: bytes, chunks: list[bytes], data: st.DataObject
) -> None:
    link = make_end()
    now_ms = NOW_MS
    for chunk in (first, *chunks):
        was_closed = link.is_closed
        events = link.receive_data(chunk, now_ms)
        assert not (was_closed and events)
        # A link fails or is closed by its peer at most once, and says nothing after it.
        ends = [i for i, event in enumerate(events) if isinstance(event, LinkFailed | PeerClosed)]
        assert ends == ([len(events) - 1] if link.is_closed and not was_closed else [])
        for event in events:
            if isinstance(event, RequestReceived) and link.is_open and data.draw(st.booleans()):
                link.send_reply(event.correlation_id, example(event.message.kind.reply))
        now_ms += data.draw(st.integers(0, 4_000))
        link.receive_timer(now_ms)
        messages_in(link.data_to_send())  # what we say is well formed, whatever we heard
    link.receive_eof()
    assert link.state is LinkState.CLOSED


@pytest.mark.pg("PG-ERR-2")
def test_error_texts_fit_their_field_and_are_safe() -> None:
    link = gateway_end()
    link.fail(ErrorCode.INTERNAL, "é\n\x1b[31m" + "x" * 500)
    (error,) = messages_in(link.data_to_send())
    assert isinstance(error, Error)
    assert error.text == "???[31m" + "x" * 113
    assert len(error.text) == limits.ERROR_TEXT_SIZE_MAX


def test_a_link_shows_no_key() -> None:
    shown: list[Any] = [gateway_end_to_bank(), *BANK_LINK.opened()]
    for link in shown:
        assert LINK_KEY.hex() not in repr(link)
        assert repr(LINK_KEY) not in repr(link)
