"""What the compiled codec remembers: bounded, public, only what was accepted, and never with another result."""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import pytest
from builders import example, with_changes
from codec_ways import assert_same_decoding, assert_same_encoding, compiled_of, taken
from strategies import RECORDS

from paygate.codec.codes import Kind, Reason, TransferOutcome
from paygate.codec.compiled import compile_record
from paygate.codec.fields import (
    CURRENCY,
    HASH,
    Counted,
    Field,
    Nested,
    Record,
    Sensitivity,
    Text,
    fields_of,
    public,
    record,
    secret,
    sized,
)
from paygate.codec.messages import TokenAck, TransferRequest
from paygate.codec.record_codec import WAYS
from paygate.codec.remembered import KEPT_COUNT_MAX, REMEMBERED_COUNT_MAX, Remembered, kept
from paygate.codec.sealed import Receipt, ReceiptStatement, Terms

UTR: Final = "HDFCP20261124000000001"

# -- texts that recur ------------------------------------------------------------------------------------


def test_each_key_is_made_once_until_there_are_too_many() -> None:
    asked: list[int] = []
    found = Remembered[int, str](lambda key: asked.append(key) or str(key))  # type: ignore[func-returns-value]
    for _ in range(2):
        assert [found[key] for key in range(REMEMBERED_COUNT_MAX)] == [str(key) for key in range(REMEMBERED_COUNT_MAX)]
    assert asked == list(range(REMEMBERED_COUNT_MAX))
    assert found[-1] == "-1"
    assert list(found) == [-1]
    assert found[0] == "0"
    assert asked[REMEMBERED_COUNT_MAX:] == [-1, 0]


def test_what_is_refused_is_neither_remembered_nor_shown() -> None:
    found = Remembered[str, str](lambda key: None)
    with pytest.raises(KeyError) as caught:
        found["passcode"]
    assert caught.value.args == ()
    assert not found


def test_more_merchants_than_are_remembered_are_read_and_written_alike() -> None:
    ack = example(Kind.TOKEN_ACK)
    codec = compiled_of(TokenAck)
    for number in (*range(REMEMBERED_COUNT_MAX + 10), 0, 1):
        value = with_changes(ack, merchant_id=f"M{number}", merchant_name=f"Shop {number}")
        data = codec.encode(value)
        assert data is not None
        assert codec.decode(data, 0, len(data)) == value


def test_the_same_bytes_divided_otherwise_are_other_texts() -> None:
    # "0" is the byte 48, which is a length too: without the lengths, these pairs would be the same bytes.
    ack = example(Kind.TOKEN_ACK)
    long = "x" * 48
    for merchant_id, merchant_name in (("a", long), ("a0" + long[:30], long[30:]), ("a", long)):
        value = with_changes(ack, merchant_id=merchant_id, merchant_name=merchant_name)
        assert_same_encoding(value)
        assert_same_decoding(TokenAck, WAYS["construct"].encode(value))


@pytest.mark.parametrize("cut", [1, 2, 5, 30, 60])
def test_a_text_that_was_read_before_is_still_refused_where_it_is_cut(cut: int) -> None:
    data = WAYS["construct"].encode(example(Kind.TOKEN_ACK))
    assert taken(compiled_of(TokenAck), data, 0, len(data)) is not None
    assert_same_decoding(TokenAck, data[:-cut])


def _texts(field: Field) -> Iterator[Text]:
    match field:
        case Text():
            yield field
        case Counted():
            yield from _texts(field.item)


def test_only_public_texts_recur() -> None:
    recurring = [
        (cls.__name__, f.name)
        for cls in RECORDS
        for f in fields_of(cls)
        for text in _texts(f.type)
        if text.recurs and f.sensitivity is not Sensitivity.PUBLIC
    ]
    assert recurring == []
    with pytest.raises(TypeError, match="a secret is not remembered"):
        secret(CURRENCY, "a secret")


# -- encodings that are kept -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> None:
    example(Kind.TRANSFER_REQUEST)  # The examples are made at once, and encode terms.
    kept.clear()


def request() -> TransferRequest:
    message = example(Kind.TRANSFER_REQUEST)
    assert isinstance(message, TransferRequest)
    return message


def test_terms_are_encoded_once() -> None:
    message = request()
    codec = compiled_of(Terms)
    first = codec.encode(message.terms)
    assert codec.encode(message.terms) is first
    # Equal terms are not the same terms: only the object that was encoded is found.
    other = with_changes(message.terms, amount_minor=message.terms.amount_minor)
    assert codec.encode(other) == first
    assert len(kept) == 2


def test_terms_that_were_read_have_the_bytes_that_were_read() -> None:
    data = WAYS["construct"].encode(request())
    padded = b"before" + data + b"after"
    message = compiled_of(TransferRequest).decode(padded, 6, 6 + len(data))
    assert list(kept.values()) == [(message.terms, WAYS["construct"].encode(message.terms))]
    assert kept[id(message.terms)][0] is message.terms


def test_a_message_that_is_refused_keeps_nothing() -> None:
    data = WAYS["construct"].encode(request())
    for wrong in (data[:-1], data + b"\0", data[:80]):
        assert taken(compiled_of(TransferRequest), wrong, 0, len(wrong)) is None
    bad = with_changes(request(), terms=with_changes(request().terms, currency="inr"))
    with pytest.raises(KeyError):
        compiled_of(TransferRequest).encode(bad)
    assert not kept


def test_what_is_kept_is_bounded() -> None:
    terms = request().terms
    codec = compiled_of(Terms)
    values = [with_changes(terms, amount_minor=number) for number in range(1, KEPT_COUNT_MAX + 2)]
    for value in values:
        assert codec.encode(value) == WAYS["construct"].encode(value)
    assert [value for value, _ in kept.values()] == values[-1:]


def test_an_object_that_is_kept_can_lend_its_identity_to_no_other() -> None:
    codec = compiled_of(Terms)
    data = WAYS["construct"].encode(request().terms)
    for number in range(1, 1_000):
        # Each would be made where the one before it was, if nobody held that.
        value = with_changes(codec.decode(data, 0, len(data)), amount_minor=number)
        encoded = codec.encode(value)
        assert encoded is not None
        assert codec.decode(encoded, 0, len(encoded)).amount_minor == number


def test_a_statement_is_kept_as_a_whole() -> None:
    hashes = [bytes([number]) * 32 for number in range(3)]
    statement = ReceiptStatement(bytes(8), TransferOutcome.POSTED, Reason.NONE, request().terms, UTR, 1, hashes[0])
    data = WAYS["construct"].encode(Receipt(statement, 0, 4, tuple(hashes[1:]), bytes(64)))
    receipt = compiled_of(Receipt).decode(data, 0, len(data))
    assert list(kept.values()) == [(receipt.statement, WAYS["construct"].encode(statement))]
    assert compiled_of(Receipt).encode(receipt) == data


@record
class _Holds(Record):
    inner: Any = sized(HASH, "not to be shown")
    keeps_encoding: ClassVar[bool] = True


@record
class _HoldsWithin(Record):
    inner: Any = public(Nested(_Holds), "holds what is not to be shown")
    keeps_encoding: ClassVar[bool] = True


@pytest.mark.parametrize("cls", [_Holds, _HoldsWithin])
def test_no_record_that_holds_what_may_not_be_shown_is_kept(cls: type[Record]) -> None:
    with pytest.raises(TypeError, match="is not public"):
        compile_record(cls)
