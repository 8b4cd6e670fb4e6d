"""The walk agrees with the decoder on whatever bytes, and says where in them everything stands."""

from typing import Any

import pytest
from builders import PASSCODE, TRANSACTION_ID, build_receipt, build_signed_key_list, example
from hypothesis import given
from hypothesis import strategies as st
from strategies import RECORDS, records

from paygate.codec.codes import Kind, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Record, Sensitivity
from paygate.codec.messages import MESSAGES, BankKeys, Echo, StatusQuery, TokenQuery, TransferResult
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import CredentialsPlaintext, Receipt, SignedKeyList
from paygate.codec.walk import Part, Span, Walk, decoder_path, holds_secrets, walk

each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


def refusal(cls: type[Record], data: bytes) -> tuple[ErrorCode, str, str] | Record:
    """What the decoder says: the record, or the code, path and expectation of its error."""
    try:
        return decode_record(cls, data)
    except RemoteProtocolError as error:
        return error.code, error.path, error.expected


def first_fault(found: Walk) -> tuple[ErrorCode, str, str] | Record | None:
    fault = found.fault
    return found.value if fault is None else (fault.code, decoder_path(fault.path), fault.expected)


def leaves(found: Walk) -> list[Span]:
    """The spans that have no spans of their own within."""
    return [span for span in found.spans if span.part is not Part.RECORD]


def assert_agrees(cls: type[Record], data: bytes) -> None:
    found = walk(cls, data)
    assert first_fault(found) == refusal(cls, data)
    assert b"".join(data[span.start : span.end] for span in leaves(found)) == data


def rows(cls: type[Record], data: bytes) -> list[tuple[int, int, str, str, Any]]:
    return [(s.start, s.end, s.path, s.part.value, s.value) for s in walk(cls, data).spans]


def test_each_field_is_told_with_its_place_and_value() -> None:
    data = encode_record(StatusQuery(payment_id=b"p" * 16, transaction_id="TX-1", passcode="1234"))
    assert rows(StatusQuery, data) == [
        (0, 16, "payment_id", "value", b"p" * 16),
        (16, 17, "transaction_id", "size", 4),
        (17, 21, "transaction_id", "value", "TX-1"),
        (21, 22, "passcode", "size", 4),
        (22, 26, "passcode", "value", "1234"),
    ]


def test_offsets_count_from_the_first_byte_that_was_given() -> None:
    body = encode_record(Echo(b"12345678"))
    (span,) = walk(Echo, b"head" + body + b"tail", 4, 12).spans
    assert (span.start, span.end, span.size, span.value) == (4, 12, 8, b"12345678")


def test_lists_and_the_records_in_them_stand_one_level_deeper() -> None:
    data = build_signed_key_list()
    found = {(s.path, s.part): s for s in walk(SignedKeyList, data).spans}
    count = found["key_list.suite_keys", Part.COUNT]
    assert (count.value, count.depth) == (2, 1)
    record = found["key_list.suite_keys[1]", Part.RECORD]
    assert record.depth == 2
    inner = found["key_list.suite_keys[1].kem_id", Part.VALUE]
    assert inner.depth == 3
    assert record.start < inner.start < inner.end < record.end


def test_a_record_that_a_blob_holds_is_walked_with_its_own_sensitivity() -> None:
    message = example(Kind.TRANSFER_RESULT)
    spans = {(s.path, s.part): s for s in walk(TransferResult, encode_record(message)).spans}
    assert spans["receipt", Part.RECORD].sensitivity is Sensitivity.SIZED
    assert spans["receipt", Part.RECORD].value == decode_record(Receipt, build_receipt())
    assert spans["receipt.statement.outcome", Part.VALUE].value is TransferOutcome.POSTED
    assert spans["receipt.statement.outcome", Part.VALUE].sensitivity is Sensitivity.PUBLIC


def test_a_fault_in_what_a_blob_holds_leaves_the_message_sound() -> None:
    message = example(Kind.TRANSFER_RESULT)
    data = encode_record(message)
    at = next(s.start for s in walk(TransferResult, data).spans if s.path == "receipt.statement.reason")
    damaged = data[:at] + bytes([Reason.FUNDS]) + data[at + 1 :]
    found = walk(TransferResult, damaged)
    assert found.fault is None
    assert found.value == decode_record(TransferResult, damaged)
    (fault,) = found.faults
    assert (fault.code, fault.path, fault.span.start) == (ErrorCode.BAD_VALUE, "receipt.statement.reason", at)
    assert fault.is_held


def test_behind_a_wrong_value_the_walk_goes_on() -> None:
    body = bytearray(encode_record(example(Kind.TRANSFER_RESULT)))
    body[16] = 99
    found = walk(TransferResult, bytes(body))
    assert [(f.code, f.path, f.span.start) for f in found.faults] == [(ErrorCode.BAD_VALUE, "outcome", 16)]
    assert found.value is None
    assert found.spans[-1].path == "receipt.signature"


def test_behind_a_length_that_may_not_be_nothing_is_read() -> None:
    body = encode_record(example(Kind.BANK_KEYS_QUERY))
    found = walk(MESSAGES[Kind.BANK_KEYS_QUERY], b"\xff" + body[1:])
    assert rows(MESSAGES[Kind.BANK_KEYS_QUERY], b"\xff" + body[1:]) == [
        (0, 1, "bank_id", "size", 255),
        (1, 6, "", "rest", None),
    ]
    assert found.fault is not None
    assert (found.fault.expected, found.fault.span.value) == ("at most 32 bytes", 255)


def test_a_field_that_runs_past_the_end_is_shown_as_far_as_it_is_there() -> None:
    found = walk(BankKeys, b"\x01\x00\x10abc")
    span = found.spans[-1]
    assert (span.path, span.part, span.start, span.end, span.value) == ("signed_key_list", Part.VALUE, 3, 6, None)
    assert found.fault is not None
    assert found.fault.code is ErrorCode.TRUNCATED_FIELD


def test_what_is_left_over_is_the_rest() -> None:
    found = walk(Echo, b"12345678more")
    assert (found.spans[-1].part, found.spans[-1].start, found.spans[-1].end) == (Part.REST, 8, 12)
    # No declaration says that they are public, not even where the message has no secrets.
    assert found.spans[-1].sensitivity is Sensitivity.SECRET
    assert found.fault is not None
    assert (found.fault.code, found.fault.path) == (ErrorCode.TRAILING_BYTES, "")


def test_which_records_hold_secrets() -> None:
    assert {kind.name for kind, cls in MESSAGES.items() if holds_secrets(cls)} == {
        "TOKEN_QUERY",
        "STATUS_QUERY",
        "SEAL_CREDENTIALS",
        "OPENED_ENVELOPE",
        "MAKE_VERIFIER",
        "VERIFIER",
    }
    assert holds_secrets(CredentialsPlaintext)


def test_a_secret_that_a_wrong_length_moved_is_still_secret() -> None:
    body = bytearray(encode_record(example(Kind.TOKEN_QUERY)))
    body[0] += 1 + len(PASSCODE)  # transaction_id now takes in the passcode
    found = walk(TokenQuery, bytes(body))
    assert found.fault is not None
    assert found.fault.path == "transaction_id"
    assert found.fault.span.sensitivity is Sensitivity.SECRET
    public = [s for s in found.spans if s.sensitivity is not Sensitivity.SECRET]
    assert [(s.path, s.part, s.value) for s in public] == [("transaction_id", Part.SIZE, len(TRANSACTION_ID) + 5)]


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_the_walk_takes_every_legal_record(cls: type[Record]) -> None:
    @given(records(cls))
    def check(value: Record) -> None:
        data = encode_record(value)
        found = walk(cls, data)
        assert found.value == value
        assert all(fault.is_held for fault in found.faults)
        assert_agrees(cls, data)

    check()


@each_kind
def test_cut_anywhere_the_walk_says_what_the_decoder_says(kind: Kind) -> None:
    body = encode_record(example(kind))
    for end in range(len(body)):
        assert_agrees(MESSAGES[kind], body[:end])
    assert_agrees(MESSAGES[kind], body + b"\0")


@each_kind
def test_with_any_byte_changed_the_walk_says_what_the_decoder_says(kind: Kind) -> None:
    body = encode_record(example(kind))
    for at in range(min(len(body), 400)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(body)
            damaged[at] ^= flip
            assert_agrees(MESSAGES[kind], bytes(damaged))


@given(st.sampled_from(RECORDS), st.binary(max_size=120))
def test_on_any_bytes_the_walk_says_what_the_decoder_says(cls: type[Record], data: bytes) -> None:
    assert_agrees(cls, data)


@given(st.sampled_from(RECORDS), st.binary(max_size=120))
def test_spans_stand_one_behind_the_other_and_within_their_records(cls: type[Record], data: bytes) -> None:
    open_ends: list[int] = []
    at = 0
    for span in walk(cls, data).spans:
        while open_ends and span.start >= open_ends[-1] and at >= open_ends[-1]:
            open_ends.pop()
        assert span.start == at
        assert not open_ends or span.end <= open_ends[-1]
        if span.part is Part.RECORD:
            open_ends.append(span.end)
        else:
            at = span.end
    assert at == len(data)


def test_paths_lose_their_indices_for_the_decoder() -> None:
    assert decoder_path("key_list.suite_keys[12].kem_id") == "key_list.suite_keys.kem_id"
