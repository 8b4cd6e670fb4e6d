"""What the compiled codec does another way than construct: checks of texts and numbers, nesting; and what it makes."""

import dataclasses
import linecache
import struct
import traceback
import unicodedata
from typing import Any, Final

import pytest
from builders import example, with_changes
from codec_ways import assert_same_decoding, assert_same_encoding, compiled_of, encoded, record_of, taken
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec import fields as wire_fields
from paygate.codec import record_codec
from paygate.codec.codes import Kind, Role
from paygate.codec.compiled import compile_record
from paygate.codec.fields import Blob, Counted, Nested, Opaque, Record, Text, Uint, fields_of, public, record
from paygate.codec.messages import Hello, TransferRequest
from paygate.codec.record_codec import WAYS
from paygate.codec.sealed import Terms

# -- the checks that are written out another way ---------------------------------------------------------

TEXTS: Final = [
    (name, field) for name, field in vars(wire_fields).items() if isinstance(field, Text) and not name.startswith("_")
]
each_text = pytest.mark.parametrize("field", [field for _, field in TEXTS], ids=[name for name, _ in TEXTS])


@each_text
def test_every_byte_at_every_place_of_a_text_is_judged_alike(field: Text) -> None:
    one = record_of(field)
    sizes = {0, 1, 2, field.minimum, field.maximum}
    for size in sorted(sizes):
        filling = b"ABCDPA0123456789012345678901234567890123456789" * 6
        for at in {0, 1, size // 2, size - 1} & set(range(size)):
            for byte in range(256):
                text = filling[:at] + bytes([byte]) + filling[at + 1 : size]
                assert_same_decoding(one, bytes([size]) + text)
    for size in range(256):
        assert_same_decoding(one, bytes([size]) + b"A" * size)


@each_text
@given(text=st.text(max_size=40))
def test_any_text_is_judged_alike(field: Text, text: str) -> None:
    one = record_of(field)
    assert_same_encoding(one(one=text))  # type: ignore[call-arg]  # its field
    data = text.encode(errors="surrogatepass")[:255]
    assert_same_decoding(one, bytes([len(data)]) + data)


def is_plain_by_category(character: str) -> bool:
    """The definition of spec 3.4, word by word."""
    category = unicodedata.category(character)
    return unicodedata.normalize("NFC", character) == character and category[0] != "C" and category not in ("Zl", "Zp")


def test_every_character_alone_is_plain_text_by_its_category_alone() -> None:
    # `str.isprintable` is a short cut: it may say no where the categories say yes, never the other way.
    wrong = [
        code for code in range(0x110000) if wire_fields.is_plain_text(chr(code)) is not is_plain_by_category(chr(code))
    ]
    assert wrong == []


def test_characters_of_every_size_are_plain_text_or_not_both_ways() -> None:
    codec = compiled_of(record_of(wire_fields.MERCHANT_NAME_OR_EMPTY))
    for code in (*range(0x3100), *range(0xFE00, 0x10100), *range(0xE0000, 0xE0080), 0x10FFFF):
        data = chr(code).encode(errors="surrogatepass")
        alone = taken(codec, bytes([len(data)]) + data, 0, 1 + len(data))
        assert (alone is not None) is is_plain_by_category(chr(code)), hex(code)


@pytest.mark.parametrize(
    "charset",
    [
        *(r"[a-c]*", r"[a-c]+", r"[a-c]{2}", r"[a][a-c]*", r"[ab][a-c]+", r"[a][a-c]{2}"),
        *(r"[x][a-c]*", r"a*b", r"[^a]*", r"[é-ü]*", r"[a-c]{1,2}", r"[a\]]*", r"[a-c]*|b"),
    ],
)
@pytest.mark.parametrize("minimum", [0, 1, 3])
def test_charsets_of_any_form_are_held(charset: str, minimum: int) -> None:
    # Those made of classes are checked without the expression, all others with it.
    one = record_of(Text(minimum, 4, charset, "text"))
    for text in ("", "a", "b", "c", "x", "aa", "ab", "ba", "xa", "ax", "abc", "aab", "cab", "aaaa", "aaaaa", "é", "éü"):
        for whole in (text, text + "\n", text + "é", "-" + text):
            data = whole.encode()
            assert_same_decoding(one, bytes([len(data)]) + data)
            assert_same_encoding(one(one=whole))  # type: ignore[call-arg]  # its field


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_the_ends_of_every_range_of_numbers_are_held(width: int) -> None:
    largest = 256**width - 1
    for minimum, maximum in ((0, largest), (1, largest), (0, largest - 1), (3, 5), (4, 4), (largest, largest)):
        one = record_of(Uint(width, minimum, maximum))
        for number in {0, 1, 2, 3, 4, 5, 6, largest - 1, largest}:
            assert_same_decoding(one, number.to_bytes(width))
            assert_same_encoding(one(one=number))  # type: ignore[call-arg]  # its field
        for number in (-1, largest + 1):
            assert_same_encoding(one(one=number))  # type: ignore[call-arg]  # its field


def test_every_record_within_a_record_is_written_in_line() -> None:
    inner = record_of(Counted(Blob(0, 3), 0, 2))
    outer = record_of(Counted(Nested(inner), 1, 3))

    @record
    class Whole(Record):
        # Names that the written functions use themselves must not get into each other's way.
        data: bytes = public(Opaque(2), "as the parameter")
        at: Any = public(Nested(outer), "as the place")
        end: Any = public(Nested(inner), "as the end")
        value: int = public(Uint(1), "as the other parameter")
        tuple: int = public(Uint(2), "as the built-in")
        len: int = public(Uint(4), "as the built-in")
        decoded: int = public(Uint(1), "as the result")
        at_one: int = public(Uint(1), "as a field of the nested record")

    made = [inner(one=blobs) for blobs in ((), (b"",), (b"abc", b"d"))]  # type: ignore[call-arg]  # its field
    for end in made:
        value = Whole(b"xy", outer(one=tuple(made)), end, 1, 2, 3, 4, 5)  # type: ignore[call-arg]  # its field
        assert_same_encoding(value)
        data = WAYS["construct"].encode(value)
        assert_same_decoding(Whole, data)
        for size in range(len(data)):
            assert_same_decoding(Whole, data[:size])


def test_values_of_subclasses_go_the_interpreted_way_and_have_the_same_bytes() -> None:
    class Bytes(bytes):
        __slots__ = ()

    class Str(str):
        __slots__ = ()

    @record
    class OtherTerms(Terms):
        pass

    request = example(Kind.TRANSFER_REQUEST)
    assert isinstance(request, TransferRequest)
    terms = request.terms
    values: list[Any] = [
        with_changes(request, key_id=Bytes(request.key_id)),
        with_changes(request, terms=with_changes(terms, bank_id=Str(terms.bank_id))),
        with_changes(request, terms=OtherTerms(**{f.name: getattr(terms, f.name) for f in fields_of(Terms)})),
    ]
    for value in values:
        assert encoded("compiled", value) == encoded("construct", request)


# -- what it makes ---------------------------------------------------------------------------------------


def test_what_is_made_is_frozen_and_has_no_room_for_more() -> None:
    made = compiled_of(Hello).decode(b"\1\1a\1\1", 0, 5)
    assert made == Hello(Role.CLIENT, "a", (1,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.party_id = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.party_id
    assert not hasattr(made, "__dict__")
    assert repr(made) == "Hello(role=CLIENT, party_id=a, versions=[1])"


def test_a_traceback_shows_the_written_line() -> None:
    codec = compiled_of(Hello)
    with pytest.raises(struct.error) as caught:
        codec.decode(b"", 0, 0)
    shown = "".join(traceback.format_exception(caught.value))
    assert "<decode of Hello>" in shown
    assert linecache.getline("<decode of Hello>", 1) == "def decode(data, at, end):\n"
    assert codec.source.startswith("def decode(data, at, end):\n")


def test_a_field_type_without_code_is_refused_at_once() -> None:
    class Even(Uint):
        pass

    with pytest.raises(TypeError, match="Even"):
        compile_record(record_of(Even(2)))


# -- the debug switch ------------------------------------------------------------------------------------


def test_the_check_tells_where_the_two_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Hello(Role.CLIENT, "a", (1,))
    data = WAYS["construct"].encode(good)
    assert WAYS["check"].decode(Hello, data, 0) == good
    monkeypatch.setitem(record_codec._decoders, Hello, lambda data, at, end: with_changes(good, party_id="b"))
    monkeypatch.setitem(record_codec._encoders, Hello, lambda value: b"b")
    with pytest.raises(AssertionError, match="decode a Hello differently"):
        WAYS["check"].decode(Hello, data, 0)
    with pytest.raises(AssertionError, match="only the compiled codec takes this Hello"):
        WAYS["check"].decode(Hello, b"", 0)
    with pytest.raises(AssertionError, match="encode a Hello differently"):
        WAYS["check"].encode(good)
    with pytest.raises(AssertionError, match="only the compiled codec encodes this Hello"):
        WAYS["check"].encode(with_changes(good, party_id=""))
    monkeypatch.setitem(record_codec._decoders, Hello, lambda data, at, end: None)
    monkeypatch.setitem(record_codec._encoders, Hello, lambda value: None)
    with pytest.raises(AssertionError, match="only construct takes this Hello"):
        WAYS["check"].decode(Hello, data, 0)
    # What the compiled functions wrongly refuse is still taken, since construct has the last word.
    assert WAYS["compiled"].decode(Hello, data, 0) == good
    assert WAYS["compiled"].encode(good) == data
