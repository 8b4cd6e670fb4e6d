"""Each field type: exactly its declared values in both directions, where construct alone would be lax."""

import string
from enum import IntEnum
from typing import Any

import construct
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import field_values, illegal_values

from paygate.codec import fields as wire_fields
from paygate.codec.fields import (
    CURRENCY,
    CURRENCY_OR_EMPTY,
    IDENTIFIER,
    MERCHANT_NAME_OR_EMPTY,
    PASSCODE,
    PASSWORD,
    USER_ID,
    UTR_OR_EMPTY,
    BadValue,
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Opaque,
    Text,
    Uint,
    is_plain_text,
)


class Colour(IntEnum):
    RED = 1
    GREEN = 5


FIELDS: list[Field] = [
    Uint(1),
    Uint(2, 3, 9),
    Uint(4),
    Uint(8),
    Choice(1, Colour),
    Choice(2, Colour),
    Boolean(),
    Opaque(4),
    Opaque(4, zero_allowed=False),
    Blob(0, 5),
    Blob(2, 300),
    Counted(Uint(1, 1), 1, 3),
    *(value for value in vars(wire_fields).values() if isinstance(value, Field)),
]
each_field = pytest.mark.parametrize("field", FIELDS, ids=lambda f: f"{type(f).__name__}: {f.expected}")


@each_field
@given(data=st.data())
def test_a_legal_value_comes_back_within_the_declared_size(field: Field, data: st.DataObject) -> None:
    value = data.draw(field_values(field))
    assert field.is_legal(value)
    encoded = field.build(value)
    assert field.size_min <= len(encoded) <= field.size_max
    assert field.parse(encoded) == value


@each_field
def test_an_illegal_value_is_not_built(field: Field) -> None:
    for value in illegal_values(field):
        with pytest.raises(BadValue) as caught:
            field.build(value)
        assert caught.value.expected


@each_field
@given(data=st.binary(max_size=40))
def test_what_is_parsed_is_legal(field: Field, data: bytes) -> None:
    try:
        value = field.parse(data)
    except construct.ConstructError:
        return
    assert field.is_legal(value)
    assert data.startswith(field.build(value))


@pytest.mark.pg("PG-ENC-3", "PG-ENC-8", "PG-ENC-9", "PG-ENC-10")
@pytest.mark.parametrize(
    ("field", "data"),
    [
        (Uint(2, 3, 9), b"\0\2"),
        (Uint(2, 3, 9), b"\0\x0a"),
        (Choice(1, Colour), b"\0"),
        (Choice(1, Colour), b"\2"),
        (Choice(1, Colour), b"\xff"),
        (Boolean(), b"\2"),
        (Boolean(), b"\xff"),
        (Opaque(4, zero_allowed=False), bytes(4)),
        (Blob(2, 5), b"\0\1x"),
        (Blob(2, 5), b"\0\6xxxxxx"),
        (IDENTIFIER, b"\0"),
        (IDENTIFIER, b"\x21" + b"A" * 33),
        (IDENTIFIER, b"\1-"),
        (IDENTIFIER, b"\3A\nB"),
        (IDENTIFIER, b"\2A\n"),
        (IDENTIFIER, "\x03Aé".encode()),
        (PASSCODE, b"\3a b"),
        (PASSCODE, b"\3a|b"),
        (CURRENCY, b"\3inr"),
        (CURRENCY, b"\0"),
        (CURRENCY_OR_EMPTY, b"\2IN"),
        (UTR_OR_EMPTY, b"\x15" + b"PGBKP12026010200000001"[:21]),
        (UTR_OR_EMPTY, b"\x16" + b"PGBKX12026010200000001"),
        (USER_ID, b"\2\xc0\x80"),  # an overlong zero
        (USER_ID, b"\3\xed\xa0\x80"),  # a surrogate
        (USER_ID, b"\1\xff"),
        (USER_ID, b"\1\0"),
        (USER_ID, b"\3e\xcc\x81"),  # not in normal form C
        (Counted(Uint(1, 1), 1, 3), b"\0"),
        (Counted(Uint(1, 1), 1, 3), b"\4\1\1\1\1"),
        (Counted(Uint(1, 1), 1, 3), b"\1\0"),
    ],
)
def test_bytes_that_construct_alone_might_let_through_are_refused(field: Field, data: bytes) -> None:
    with pytest.raises(BadValue):
        field.parse(data)


@pytest.mark.pg("PG-ENC-10")
@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ("Bücher & Töchter", True),
        ("आशा", True),
        ("no\u00a0break", True),
        ("😀", True),
        ("a\tb", False),
        ("a\nb", False),
        ("a\x1b[31mb", False),
        ("a\x7fb", False),
        ("a\x85b", False),  # next line
        ("a\u2028b", False),  # line separator
        ("a\u2029b", False),  # paragraph separator
        ("a\u200bb", False),  # zero width space
        ("a\u202eb", False),  # right-to-left override (T21)
        ("a\u2066b", False),  # left-to-right isolate
        ("\ufeffa", False),  # byte order mark
        ("a\ud800b", False),  # lone surrogate
        ("a\ue000b", False),  # private use
        ("a\u0378b", False),  # unassigned: what it will be in normal form nobody knows yet
        ("e\u0301", False),  # not composed
    ],
)
def test_plain_text_is_what_can_not_make_a_log_line_lie(text: str, is_plain: bool) -> None:
    assert is_plain_text(text) is is_plain
    for field in (USER_ID, PASSWORD, MERCHANT_NAME_OR_EMPTY):
        assert field.is_legal(text) is is_plain


@pytest.mark.pg("PG-ENC-8")
def test_an_identifier_is_made_of_these_characters_and_no_others() -> None:
    alphanumeric = set(string.ascii_letters + string.digits)
    for character in map(chr, range(256)):
        assert IDENTIFIER.is_legal(character) is (character in alphanumeric)
        assert IDENTIFIER.is_legal("A" + character) is (character in alphanumeric | set("._-"))
    assert [IDENTIFIER.is_legal("A" * size) for size in (0, 1, 32, 33)] == [False, True, True, False]


@pytest.mark.pg("PG-ENC-9")
def test_a_passcode_is_made_of_these_characters_and_no_others() -> None:
    for character in map(chr, range(256)):
        assert PASSCODE.is_legal(character) is ("!" <= character <= "~" and character != "|")
    assert [PASSCODE.is_legal("1" * size) for size in (0, 1, 32, 33)] == [False, True, True, False]


@pytest.mark.pg("PG-ENC-2")
def test_sizes_of_text_count_bytes_not_characters() -> None:
    field = Text(1, 4, None, "printable text")
    assert field.is_legal("üü")
    assert not field.is_legal("üüü")
    assert field.build("üü") == b"\4" + "üü".encode()
    assert (field.size_min, field.size_max) == (2, 5)


@pytest.mark.pg("PG-ENC-1")
def test_integers_are_big_endian_and_exactly_as_wide_as_declared() -> None:
    for width in (1, 2, 4, 8):
        assert Uint(width).build(1) == bytes(width - 1) + b"\1"
        assert Uint(width).maximum == 256**width - 1


def test_a_base_field_accepts_nothing_by_itself() -> None:
    with pytest.raises(NotImplementedError):
        Field(construct.Int8ub).is_legal(1)


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None])
def test_a_number_is_an_int_and_nothing_like_one(value: Any) -> None:
    assert not Uint(1).is_legal(value)
