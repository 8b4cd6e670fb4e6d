"""The compiled codec and construct take the same bytes and values, refuse the same with the same words (R20, R25)."""

import pytest
from builders import build_key_list, build_statement, build_terms, example, with_changes
from codec_ways import assert_same_decoding, assert_same_encoding
from hypothesis import given
from hypothesis import strategies as st
from strategies import RECORDS, illegal_values, records

from paygate.codec.codes import Kind
from paygate.codec.fields import Nested, Record, fields_of
from paygate.codec.record_codec import WAYS

each_record = pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


# -- both ways are one -----------------------------------------------------------------------------------


@each_record
@given(data=st.data())
def test_legal_values_and_bytes_near_theirs_are_the_same_both_ways(cls: type[Record], data: st.DataObject) -> None:
    value = data.draw(records(cls))
    assert_same_encoding(value)
    whole = WAYS["check"].encode(value)
    assert_same_decoding(cls, whole)
    assert WAYS["check"].decode(cls, whole, 0) == value
    # One byte that is just outside of its range shows an "at most" that should be a "below".
    at = data.draw(st.integers(0, len(whole) - 1))
    for byte in {0, 1, 0x7F, 0xFF, (whole[at] - 1) % 256, (whole[at] + 1) % 256}:
        assert_same_decoding(cls, whole[:at] + bytes([byte]) + whole[at + 1 :])
    assert_same_decoding(cls, whole[:at])
    assert_same_decoding(cls, whole + whole[at : at + 3])
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert_same_decoding(cls, bytes(changed))


@each_record
@given(data=st.binary(max_size=600))
def test_random_bytes_are_taken_or_refused_alike(cls: type[Record], data: bytes) -> None:
    assert_same_decoding(cls, data)


@each_kind
def test_every_prefix_of_an_example_is_refused_alike(kind: Kind) -> None:
    message = example(kind)
    whole = WAYS["construct"].encode(message)
    for size in range(len(whole)):
        assert_same_decoding(type(message), whole[:size])


@pytest.mark.parametrize(
    "valid",
    [*map(example, Kind), build_terms(), build_key_list(), build_statement()],
    ids=lambda value: type(value).__name__,
)
def test_illegal_values_are_refused_with_the_same_words(valid: Record) -> None:
    for field in fields_of(type(valid)):
        for wrong in illegal_values(field.type):
            assert_same_encoding(with_changes(valid, **{field.name: wrong}))


@each_record
@given(data=st.data())
def test_values_that_break_a_rule_are_refused_alike(cls: type[Record], data: st.DataObject) -> None:
    # A field of one legal record in the place of another's: each is legal by itself, and rules between them break.
    one, other = data.draw(records(cls)), data.draw(records(cls))
    for field in fields_of(cls):
        mixed = with_changes(one, **{field.name: getattr(other, field.name)})
        assert_same_encoding(mixed)
        pieces = (f.type.build(getattr(mixed, f.name)) for f in fields_of(cls) if not isinstance(f.type, Nested))
        if not any(isinstance(f.type, Nested) for f in fields_of(cls)):
            assert_same_decoding(cls, b"".join(pieces))


def test_rules_within_nested_and_counted_records_are_held() -> None:
    key_list = build_key_list()
    # 8 KiB a lane, spec 8.4: a rule of a record within the list.
    assert_same_encoding(with_changes(key_list, password_key=with_changes(key_list.password_key, lane_count=8)))
    broken = with_changes(key_list.password_key, memory_kib=8, lane_count=8)
    assert_same_encoding(with_changes(key_list, password_key=broken))
    whole = WAYS["construct"].encode(key_list)
    parameters = WAYS["construct"].encode(key_list.password_key)
    assert_same_decoding(type(key_list), whole.replace(parameters, b"\0\0\0\x08" + parameters[4:8] + b"\x08"))
