"""One wording of declarations, and messages in one line with their secrets masked."""

import pytest
from builders import example
from strategies import RECORDS

from paygate.codec import limits
from paygate.codec.codes import Kind, Role
from paygate.codec.describe import (
    allowed_words,
    describe,
    first_sentence,
    message_name,
    route_words,
    size_words,
    sizes_of,
    type_words,
)
from paygate.codec.fields import (
    KEY_ID,
    PASSCODE,
    PAYMENT_ID,
    USER_ID,
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Uint,
    fields_of,
)
from paygate.codec.messages import TokenQuery
from paygate.codec.sealed import Terms


@pytest.mark.parametrize(
    ("field", "type_text", "allowed"),
    [
        (Uint(4), "u32", ""),
        (Uint(1, 1), "u8", "1 to 255"),
        (Uint(1, 1, 1), "u8", "1"),
        (Choice(1, Role), "u8 Role", ""),
        (Boolean(), "bool", ""),
        (KEY_ID, "bytes[8]", ""),
        (PAYMENT_ID, "bytes[16]", "not all zero"),
        (Blob(1, 9), "blob 1..9", ""),
        (USER_ID, f"text 1..{limits.USER_ID_SIZE_MAX}", "text (3.4)"),
        (PASSCODE, "text 1..32", "printable ASCII without blanks and '|'"),
        (Counted(Uint(1, 1), 1, 8), "list 1..8 of u8", "1 to 255"),
        (Nested(Terms), "Terms", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Field) else None,
)
def test_types_and_what_they_allow_in_words(field: Field, type_text: str, allowed: str) -> None:
    assert (type_words(field), allowed_words(field)) == (type_text, allowed)


def test_every_declared_field_has_words() -> None:
    for cls in RECORDS:
        assert first_sentence(cls)
        low, high = sizes_of(cls)
        assert 0 < low <= high
        for field in fields_of(cls):
            assert type_words(field.type)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.ECHO, "either end of any link"),
        (Kind.HELLO, "from the end that connected, on any link"),
        (Kind.HELLO_ACK, "to the end that connected"),
        (Kind.TOKEN_QUERY, "client to gateway"),
        (Kind.TOKEN_ACK, "gateway to client"),
        (Kind.TRANSFER_REQUEST, "gateway to bank"),
        (Kind.TRANSFER_RESULT, "bank to gateway"),
        (Kind.VERIFIER, "child to parent"),
        (Kind.MAKE_VERIFIER, "parent to child"),
    ],
)
def test_routes_in_words(kind: Kind, words: str) -> None:
    assert route_words(kind) == words


def test_sizes_and_names() -> None:
    assert (size_words(3, 3), size_words(3, 4)) == ("3", "3 to 4")
    assert message_name(Kind.TOKEN_QUERY) == "TokenQuery"


def test_a_message_is_one_line() -> None:
    assert describe(TokenQuery("TX-1", "4321")) == "TOKEN_QUERY transaction_id=TX-1 passcode=<secret>"
    for kind in Kind:
        assert describe(example(kind)).isprintable()
