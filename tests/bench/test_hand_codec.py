"""The hand-written codec of the bench is a fair peer: same bytes, same objects, same checks."""

import pytest
from builders import example, with_changes
from hypothesis import given
from hypothesis import strategies as st
from strategies import illegal_values, records

from paygate.bench.peers.hand_codec import BY_HAND, HAND_REFUSALS
from paygate.codec.codes import Kind, Route
from paygate.codec.errors import LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import fields_of
from paygate.codec.messages import MESSAGES
from paygate.codec.record_codec import decode_record, encode_record

each_kind = pytest.mark.parametrize("kind", BY_HAND, ids=lambda kind: kind.name)


def test_every_kind_of_the_socket_is_written_by_hand() -> None:
    assert set(BY_HAND) == {kind for kind, cls in MESSAGES.items() if cls.route is not Route.PIPE}


@each_kind
@given(data=st.data())
def test_by_hand_legal_messages_are_the_same_bytes_and_objects(kind: Kind, data: st.DataObject) -> None:
    encode, decode = BY_HAND[kind]
    message = data.draw(records(MESSAGES[kind]))
    encoded = encode_record(message)
    assert encode(message) == encoded
    assert decode(encoded) == message


@each_kind
@given(data=st.data())
def test_by_hand_the_same_bytes_are_refused(kind: Kind, data: st.DataObject) -> None:
    changed = bytearray(encode_record(data.draw(records(MESSAGES[kind]))))
    at = data.draw(st.integers(0, len(changed)))
    changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        expected = decode_record(MESSAGES[kind], bytes(changed))
    except RemoteProtocolError:
        with pytest.raises(HAND_REFUSALS):
            BY_HAND[kind][1](bytes(changed))
    else:
        assert BY_HAND[kind][1](bytes(changed)) == expected


@each_kind
def test_by_hand_no_illegal_value_is_encoded(kind: Kind) -> None:
    valid = example(kind)
    for field in fields_of(type(valid)):
        for wrong in illegal_values(field.type):
            with pytest.raises((LocalProtocolError, UnicodeEncodeError)):
                BY_HAND[kind][0](with_changes(valid, **{field.name: wrong}))
