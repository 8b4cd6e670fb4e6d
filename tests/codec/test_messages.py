"""Every message and record: exactly one encoding, and nothing but legal values in either direction (R20, R25)."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest
from builders import (
    FIXED_ENVELOPE,
    build_key_list,
    build_statement,
    build_terms,
    build_token_ack,
    example,
    with_changes,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import RECORDS, illegal_values, records

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.frame import body_size_range
from paygate.codec.messages import MESSAGES, BankKeys, Error, Hello, Message, PaymentAck, StatusAck, TransferResult
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import CredentialsPlaintext, PasswordKeyParameters, Receipt, Terms

each_record = pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


# -- the registry ----------------------------------------------------------------------------------------


@pytest.mark.pg("PG-FRM-6")
def test_every_kind_has_a_message_and_every_request_a_reply() -> None:
    assert set(MESSAGES) == set(Kind)
    requests = [kind for kind in Kind if not kind.is_reply and kind is not Kind.ERROR]
    assert {kind.reply for kind in requests} == {kind for kind in Kind if kind.is_reply}
    for kind in requests:
        assert kind.reply == kind | 0x80
        assert MESSAGES[kind].route is MESSAGES[kind.reply].route
    assert int(Kind.ERROR) == 0xFF
    for other in set(Kind) - set(requests):
        with pytest.raises(ValueError, match="not a request"):
            _ = other.reply


@each_kind
def test_a_message_knows_its_kind(kind: Kind) -> None:
    assert MESSAGES[kind].kind is kind
    assert example(kind).kind is kind


def test_messages_of_two_kinds_differ_even_with_equal_fields() -> None:
    ack = example(Kind.PAYMENT_ACK)
    fields = {f.name: getattr(ack, f.name) for f in fields_of(type(ack))}
    assert MESSAGES[Kind.STATUS_ACK](**fields) != ack
    assert MESSAGES[Kind.PAYMENT_ACK](**fields) == ack


def test_sizes_are_pinned() -> None:
    sizes = {cls.__name__: (Nested(cls).size_min, Nested(cls).size_max) for cls in RECORDS}
    assert sizes["Header"] == (20, 20)
    assert sizes["Terms"] == (60, 184)
    assert sizes["CredentialsPlaintext"] == (256, 256)
    assert sizes["Receipt"][1] <= limits.RECEIPT_SIZE_MAX
    assert body_size_range(Kind.ECHO) == (8, 8)
    assert body_size_range(Kind.VERIFIER) == (32, 32)
    assert body_size_range(Kind.ENCRYPTED_CREDENTIALS) == (51, 2_098)


# -- bodies written down by hand -------------------------------------------------------------------------

# Lengths and counts stand apart from what they count. The merchant's name has 16 characters and 18 bytes.
BODIES: list[tuple[Record, bytes]] = [
    (Hello(Role.GATEWAY, "GW1", (1, 9)), b"\x02" + b"\x03" + b"GW1" + b"\x02" + b"\x01\x09"),
    (
        build_token_ack(),
        b"\x01"
        + bytes(range(17, 33))
        + b"\x00\x00\x75\x30"
        + b"\x05"
        + b"M-100"
        + b"\x12"
        + "Bücher & Töchter".encode()
        + b"\x00\x00\x00\x00\x00\x01\xe8\x48"
        + b"\x03"
        + b"INR"
        + b"\x03"
        + b"GW1"
        + b"\x05"
        + b"BANK1"
        + b"\x00",
    ),
    (
        with_changes(example(Kind.ENCRYPTED_CREDENTIALS), key_id=b"key-id-8"),
        bytes(range(17, 33))
        + bytes(range(1, 17))
        + b"\x00\x00\x01\x9b\x7c\x01\x04\x00"
        + b"key-id-8"
        + b"\x01\x30"
        + FIXED_ENVELOPE,
    ),
]


@pytest.mark.pg("PG-ENC-1", "PG-ENC-2")
@pytest.mark.parametrize(("value", "body"), BODIES, ids=lambda v: type(v).__name__ if isinstance(v, Record) else "")
def test_a_body_is_its_fields_one_after_another_and_nothing_else(value: Record, body: bytes) -> None:
    assert encode_record(value) == body
    assert decode_record(type(value), body) == value


# -- round trips -----------------------------------------------------------------------------------------


@pytest.mark.pg("PG-ENC-6")
@each_record
@given(data=st.data())
def test_a_value_comes_back_from_its_one_encoding_and_from_no_part_of_it(
    cls: type[Record], data: st.DataObject
) -> None:
    value = data.draw(records(cls))
    encoded = encode_record(value)
    assert Nested(cls).size_min <= len(encoded) <= Nested(cls).size_max
    decoded = decode_record(cls, encoded)
    assert decoded == value
    assert type(decoded) is cls
    assert encode_record(decoded) == encoded
    size = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(cls, encoded[:size])
    assert caught.value.code is ErrorCode.TRUNCATED_FIELD


def decode_or_refuse(cls: type[Record], data: bytes) -> Record | None:
    """Anything but a value with exactly these bytes, or a RemoteProtocolError with a code, fails the test."""
    try:
        value = decode_record(cls, data)
    except RemoteProtocolError as error:
        code = error.code
    else:
        assert encode_record(value) == data
        return value
    assert code in (ErrorCode.BAD_VALUE, ErrorCode.TRUNCATED_FIELD, ErrorCode.TRAILING_BYTES)
    return None


@each_record
@given(data=st.binary(max_size=600))
def test_any_bytes_are_a_value_or_refused(cls: type[Record], data: bytes) -> None:
    decode_or_refuse(cls, data)


@pytest.mark.pg("PG-ENC-6")
@each_record
@given(data=st.data())
def test_changed_bytes_are_a_value_or_refused(cls: type[Record], data: st.DataObject) -> None:
    # Bytes near a valid encoding get further into the decoder than random ones.
    encoded = bytearray(encode_record(data.draw(records(cls))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded)))
        cut = data.draw(st.integers(0, 3))
        encoded[at : at + cut] = data.draw(st.binary(max_size=3))
    decode_or_refuse(cls, bytes(encoded))


@pytest.mark.pg("PG-ENC-4")
@each_kind
def test_an_encoding_cut_anywhere_is_refused(kind: Kind) -> None:
    encoded = encode_record(example(kind))
    for size in range(len(encoded)):
        with pytest.raises(RemoteProtocolError) as caught:
            decode_record(MESSAGES[kind], encoded[:size])
        assert caught.value.code is ErrorCode.TRUNCATED_FIELD


@pytest.mark.pg("PG-ENC-4")
@each_kind
@pytest.mark.parametrize("more", [b"\0", b"\xff", b"x" * 300])
def test_trailing_bytes_are_refused(kind: Kind, more: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(MESSAGES[kind], encode_record(example(kind)) + more)
    assert caught.value.code is ErrorCode.TRAILING_BYTES


# -- what may not stand on the wire ----------------------------------------------------------------------


def paths_of(cls: type[Record]) -> list[tuple[str, Field]]:
    return [(f.name, f.type) for f in fields_of(cls)]


@pytest.mark.pg("PG-ENC-6")
@each_kind
def test_no_illegal_value_is_encoded(kind: Kind) -> None:
    valid = example(kind)
    for name, field in paths_of(type(valid)):
        wrong_values = illegal_values(field)
        assert wrong_values
        for wrong in wrong_values:
            with pytest.raises(LocalProtocolError) as caught:
                encode_record(with_changes(valid, **{name: wrong}))
            # The first field that is wrong is named, if not the one behind it that the same value spoils.
            assert f"at {name}" in str(caught.value), (name, wrong)


@pytest.mark.parametrize("value", [build_terms(), build_key_list(), build_statement()], ids=lambda v: type(v).__name__)
def test_no_illegal_value_is_encoded_in_other_records(value: Record) -> None:
    for name, field in paths_of(type(value)):
        for wrong in illegal_values(field):
            with pytest.raises(LocalProtocolError):
                encode_record(with_changes(value, **{name: wrong}))


def test_errors_name_the_field_by_its_path() -> None:
    request = example(Kind.TRANSFER_REQUEST)
    with pytest.raises(LocalProtocolError, match=r"at terms\.amount_minor: expected a whole number from 1 to"):
        encode_record(with_changes(request, terms=build_terms(amount_minor=0)))
    encoded = encode_record(request).replace((125_000).to_bytes(8), bytes(8))
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(type(request), encoded)
    assert (caught.value.code, caught.value.path) == (ErrorCode.BAD_VALUE, "terms.amount_minor")
    assert caught.value.text == f"bad value at terms.amount_minor: expected {caught.value.expected}"


@pytest.mark.pg("PG-ENC-3")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x01\x01a\x09" + b"\1" * 9, ErrorCode.BAD_VALUE),  # one version too many
        (b"\x01\x01a\xff", ErrorCode.BAD_VALUE),  # the count alone is refused: nothing is read for it (T24)
        (b"\x01\x01a\x00", ErrorCode.BAD_VALUE),  # none
        (b"\x01\x01a\x01\x00", ErrorCode.BAD_VALUE),  # version 0
        (b"\x01\x01a\x02\x01", ErrorCode.TRUNCATED_FIELD),
    ],
)
def test_counted_fields_are_named_without_the_insides_of_the_layout(body: bytes, code: ErrorCode) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(MESSAGES[Kind.HELLO], body)
    assert (caught.value.code, caught.value.path) == (code, "versions")


@pytest.mark.pg("PG-ENC-3")
@pytest.mark.parametrize(
    ("kind", "body", "path"),
    [
        (Kind.HELLO, b"\x00" + b"\x01a" + b"\x01\x01", "role"),
        (Kind.HELLO, b"\x04" + b"\x01a" + b"\x01\x01", "role"),
        (Kind.HELLO, b"\x01" + b"\x00" + b"\x01\x01", "party_id"),
        (Kind.HELLO, b"\x01" + b"\x21" + b"a" * 33 + b"\x01\x01", "party_id"),
        (Kind.ERROR, b"\x00\x00" + b"\x01" + b"\x00", "code"),
        (Kind.ERROR, b"\x00\x13" + b"\x01" + b"\x00", "code"),
        (Kind.ERROR, b"\x00\x01" + b"\x02" + b"\x00", "closes"),
        (Kind.ERROR, b"\x00\x01" + b"\xff" + b"\x00", "closes"),
        (Kind.ERROR, b"\x00\x01" + b"\x01" + b"\x79" + b"a" * 121, "text"),
        (Kind.BANK_KEYS, b"\x04" + b"\x00\x00", "status"),
        (Kind.BANK_KEYS, b"\x01" + b"\x60\x43" + bytes(24_643), "signed_key_list"),
        (Kind.PAYMENT_ACK, b"p" * 16 + b"\x06" + b"\x00" * 4, "status"),
        (Kind.PAYMENT_ACK, b"p" * 16 + b"\x04" + b"\x0a" + b"\x00" * 3, "reason"),
        (Kind.PAYMENT_ACK, bytes(16) + b"\x03" + b"\x00" * 4, "payment_id"),
        (Kind.TRANSFER_RESULT, b"p" * 16 + b"\x06" + b"\x00" * 4, "outcome"),
    ],
)
def test_what_is_outside_its_range_or_registry_is_refused(kind: Kind, body: bytes, path: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(MESSAGES[kind], body)
    assert (caught.value.code, caught.value.path) == (ErrorCode.BAD_VALUE, path)


def field_by_field(value: Record, **instead: bytes) -> bytes:
    """As somebody without the rules between fields would encode it; `instead`: other bytes in a field's place."""
    return b"".join(instead.get(f.name) or f.type.build(getattr(value, f.name)) for f in fields_of(type(value)))


def is_taken(value: Record, **instead: bytes) -> bool:
    """Whether a receiver takes it; whatever else it does than to refuse it as a BAD_VALUE fails the test."""
    try:
        decode_record(type(value), field_by_field(value, **instead))
    except RemoteProtocolError as error:
        code = error.code
    else:
        return True
    assert code is ErrorCode.BAD_VALUE
    return False


@pytest.mark.pg("PG-ENC-12")
def test_an_amount_has_one_to_fifteen_digits_and_is_never_zero() -> None:
    for amount_minor, is_legal in ((0, False), (1, True), (10**15 - 1, True), (10**15, False), (1 << 63, False)):
        assert is_taken(build_terms(), amount_minor=amount_minor.to_bytes(8)) is is_legal, amount_minor


@pytest.mark.pg("PG-ENC-11")
def test_a_point_in_time_is_before_the_year_10000() -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    last_ms = int(last.timestamp()) * 1_000 + 999
    for time_ms, is_legal in ((0, True), (last_ms, True), (last_ms + 1, False), (limits.UINT64_MAX, False)):
        assert is_taken(build_terms(), authorised_at_ms=time_ms.to_bytes(8)) is is_legal, time_ms


def bad_bytes(field: Field) -> bytes | None:
    """Bytes that no value of the field has, and that end where the field ends; None if any bytes will do."""
    match field:
        case Choice():
            return b"\xff" * field.width
        case Boolean():
            return b"\2"
        case Uint() if field.minimum:
            return bytes(field.width)
        case Uint() if field.maximum < 256**field.width - 1:
            return b"\xff" * field.width
        case Opaque() if not field.zero_allowed:
            return bytes(field.size)
        case Blob() if field.minimum:
            return bytes(field.PREFIX_SIZE)
        case Text():
            return b"\0" if field.minimum else b"\1\n"
        case Counted() if field.minimum:
            return b"\0"
        case Nested():
            first = fields_of(field.record)[0]
            bad = bad_bytes(first.type)
            return field_by_field(build_terms(), **{first.name: bad}) if bad and field.record is Terms else None
    return None


@pytest.mark.pg("PG-ENC-7", "PG-ERR-7")
@pytest.mark.parametrize(
    ("kind", "body", "code", "path"),
    [
        # A length is looked at before what it counts, which is not there.
        (Kind.BANK_KEYS_QUERY, b"\x21", ErrorCode.BAD_VALUE, "bank_id"),
        (Kind.BANK_KEYS_QUERY, b"\x20" + b"a", ErrorCode.TRUNCATED_FIELD, "bank_id"),
        (Kind.BANK_KEYS, b"\x01" + b"\x60\x43", ErrorCode.BAD_VALUE, "signed_key_list"),
        (Kind.BANK_KEYS, b"\x01" + b"\x60\x42" + b"a", ErrorCode.TRUNCATED_FIELD, "signed_key_list"),
        (Kind.HELLO, b"\x01" + b"\x01a" + b"\x09", ErrorCode.BAD_VALUE, "versions"),
        (Kind.HELLO, b"\x01" + b"\x01a" + b"\x08\x01", ErrorCode.TRUNCATED_FIELD, "versions"),
        # What is wrong within comes before what is too much, and a rule before it too.
        (Kind.BANK_KEYS_QUERY, b"\x01-" + b"more", ErrorCode.BAD_VALUE, "bank_id"),
        (Kind.BANK_KEYS, b"\x02" + b"\x00\x01x" + b"more", ErrorCode.BAD_VALUE, "signed_key_list"),
        (Kind.BANK_KEYS, b"\x02" + b"\x00\x00" + b"more", ErrorCode.TRAILING_BYTES, ""),
    ],
)
def test_the_first_fault_found_in_a_body_is_told(kind: Kind, body: bytes, code: ErrorCode, path: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(MESSAGES[kind], body)
    assert (caught.value.code, caught.value.path) == (code, path)


@pytest.mark.pg("PG-ENC-7")
@each_kind
def test_of_two_faults_that_of_the_first_field_is_told(kind: Kind) -> None:
    value = example(kind)
    bad = {f.name: found for f in fields_of(type(value)) if (found := bad_bytes(f.type)) is not None}
    for first, second in combinations(bad, 2):
        for faults in ({first: bad[first]}, {first: bad[first], second: bad[second]}):
            with pytest.raises(RemoteProtocolError) as caught:
                decode_record(type(value), field_by_field(value, **faults))
            assert (caught.value.code, caught.value.path.split(".")[0]) == (ErrorCode.BAD_VALUE, first)


# -- rules between fields --------------------------------------------------------------------------------


def payment_ack(**changes: Any) -> PaymentAck:
    paid = example(Kind.PAYMENT_ACK)
    assert isinstance(paid, PaymentAck)
    return replace(paid, **changes)


def transfer_result(**changes: Any) -> TransferResult:
    posted = example(Kind.TRANSFER_RESULT)
    assert isinstance(posted, TransferResult)
    return replace(posted, **changes)


def plaintext(**changes: Any) -> CredentialsPlaintext:
    usual = CredentialsPlaintext(
        format_version=1,
        user_id_size=4,
        user_id=b"asha".ljust(64, b"\0"),
        password_key=b"k" * 32,
        nonce=b"n" * 16,
        padding=bytes(142),
    )
    return replace(usual, **changes)


SINGLE_RECEIPT = decode_record(Receipt, payment_ack().receipt)
INVALID_TOKEN: dict[str, Any] = {
    "status": TokenStatus.INVALID,
    "session_id": bytes(16),
    "session_left_ms": 0,
    "merchant_id": "",
    "merchant_name": "",
    "amount_minor": 0,
    "currency": "",
}
NO_SESSION: dict[str, Any] = {"session_id": bytes(16), "session_left_ms": 0}
UTR = payment_ack().utr

BROKEN_RULES: list[tuple[Record, str]] = [
    (Error(ErrorCode.BAD_MAGIC, closes=False, text=""), "closes"),
    (Error(ErrorCode.SHUTTING_DOWN, closes=True, text=""), "closes"),
    (payment_ack(status=PaymentStatus.UNKNOWN, utr="", receipt=b""), "status"),
    (BankKeys(KeysStatus.AVAILABLE, b""), "signed_key_list"),
    (BankKeys(KeysStatus.UNKNOWN_BANK, b"list"), "signed_key_list"),
    (build_token_ack(session_id=bytes(16)), "session_id"),
    (build_token_ack(**{**INVALID_TOKEN, "session_id": b"s" * 16}), "session_id"),
    (build_token_ack(session_left_ms=0), "session_left_ms"),
    (build_token_ack(**{**INVALID_TOKEN, "session_left_ms": 1}), "session_left_ms"),
    (build_token_ack(merchant_id=""), "merchant_id"),
    (build_token_ack(**{**INVALID_TOKEN, "merchant_id": "M"}), "merchant_id"),
    (build_token_ack(**{**INVALID_TOKEN, "status": TokenStatus.LOCKED, "merchant_id": "M"}), "merchant_id"),
    (build_token_ack(amount_minor=0), "amount_minor"),
    (build_token_ack(**{**INVALID_TOKEN, "amount_minor": 1}), "amount_minor"),
    (build_token_ack(currency=""), "currency"),
    (build_token_ack(**{**INVALID_TOKEN, "currency": "INR"}), "currency"),
    (build_token_ack(**{**INVALID_TOKEN, "merchant_name": "M"}), "merchant_name"),
    (build_token_ack(utr=UTR), "utr"),
    (build_token_ack(status=TokenStatus.PAID, **NO_SESSION), "utr"),
    (payment_ack(reason=Reason.FUNDS), "reason"),
    (payment_ack(utr=""), "utr"),
    (payment_ack(receipt=b""), "receipt"),
    (payment_ack(status=PaymentStatus.DECLINED, utr=""), "reason"),
    (payment_ack(status=PaymentStatus.DECLINED, reason=Reason.DRAINING, utr=""), "reason"),
    (payment_ack(status=PaymentStatus.DECLINED, reason=Reason.FUNDS), "utr"),
    (payment_ack(status=PaymentStatus.REFUSED, reason=Reason.FUNDS, utr="", receipt=b""), "reason"),
    (payment_ack(status=PaymentStatus.REFUSED, reason=Reason.DRAINING, receipt=b""), "utr"),
    (payment_ack(status=PaymentStatus.PENDING, utr=""), "receipt"),
    (StatusAck(payment_ack().payment_id, PaymentStatus.UNKNOWN, Reason.SESSION, "", b""), "reason"),
    (transfer_result(reason=Reason.FUNDS), "reason"),
    (transfer_result(utr=""), "utr"),
    (transfer_result(receipt=b""), "receipt"),
    (transfer_result(outcome=TransferOutcome.DECLINED, utr=""), "reason"),
    (transfer_result(outcome=TransferOutcome.DECLINED, reason=Reason.FENCED, utr=""), "reason"),
    (transfer_result(outcome=TransferOutcome.DECLINED, reason=Reason.SESSION, utr=""), "reason"),
    (transfer_result(outcome=TransferOutcome.DECLINED, reason=Reason.FUNDS), "utr"),
    (transfer_result(outcome=TransferOutcome.FENCED, reason=Reason.LATE, utr=""), "reason"),
    (transfer_result(outcome=TransferOutcome.MISMATCH, utr=""), "receipt"),
    (transfer_result(outcome=TransferOutcome.UNAVAILABLE), "utr"),
    (PasswordKeyParameters(memory_kib=15, iteration_count=1, lane_count=2), "memory_kib"),
    (build_key_list(valid_until_ms=build_key_list().valid_from_ms), "valid_until_ms"),
    (build_statement(outcome=TransferOutcome.MISMATCH, utr=""), "outcome"),
    (build_statement(reason=Reason.FUNDS), "reason"),
    (build_statement(utr=""), "utr"),
    (build_statement(outcome=TransferOutcome.DECLINED, reason=Reason.FUNDS), "utr"),
    (replace(SINGLE_RECEIPT, leaf_index=1), "leaf_index"),
    (plaintext(user_id_size=3), "user_id"),
    (plaintext(padding=bytes(141) + b"\1"), "padding"),
]


@pytest.mark.pg("PG-ENC-5", "PG-ERR-6", "PG-RCP-5")
@pytest.mark.parametrize(("value", "name"), BROKEN_RULES, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_broken_rules_are_refused_both_ways(value: Record, name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"at {name}: expected"):
        encode_record(value)
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(type(value), field_by_field(value))
    assert (caught.value.code, caught.value.path) == (ErrorCode.BAD_VALUE, name)


@pytest.mark.pg("PG-ENC-5")
def test_rules_are_checked_in_their_order_and_after_all_fields() -> None:
    faults: dict[str, Any] = {
        **NO_SESSION,
        "merchant_id": "",
        "amount_minor": 0,
        "currency": "",
        "utr": UTR,
    }
    names = list(faults)
    for number, name in enumerate(names):
        value = build_token_ack(**{n: faults[n] for n in names[number:]})
        with pytest.raises(RemoteProtocolError) as caught:
            decode_record(type(value), field_by_field(value))
        assert (caught.value.code, caught.value.path) == (ErrorCode.BAD_VALUE, name)
        # The last field's own fault is found before any rule is looked at.
        with pytest.raises(RemoteProtocolError) as caught:
            decode_record(type(value), field_by_field(value, utr=b"\1x"))
        assert (caught.value.code, caught.value.path) == (ErrorCode.BAD_VALUE, "utr")


def test_every_rule_is_tried() -> None:
    assert {rule for cls in RECORDS for rule in cls.rules} == {value.broken_rule() for value, _ in BROKEN_RULES}


@pytest.mark.parametrize(
    "value",
    [
        build_token_ack(**INVALID_TOKEN),
        build_token_ack(**{**INVALID_TOKEN, "status": TokenStatus.LOCKED}),
        build_token_ack(status=TokenStatus.EXPIRED, **NO_SESSION),
        build_token_ack(status=TokenStatus.IN_FLIGHT, **NO_SESSION),
        build_token_ack(status=TokenStatus.PAID, utr=UTR, **NO_SESSION),
        # A token that another payment has paid is declined with the UTR of that payment (R2).
        payment_ack(status=PaymentStatus.REFUSED, reason=Reason.TOKEN_PAID, receipt=b""),
        payment_ack(status=PaymentStatus.PENDING, utr="", receipt=b""),
        payment_ack(status=PaymentStatus.DECLINED, reason=Reason.FENCED, utr=""),
        transfer_result(outcome=TransferOutcome.MISMATCH, utr="", receipt=b""),
        transfer_result(outcome=TransferOutcome.UNAVAILABLE, utr="", receipt=b""),
        plaintext(),
        plaintext(user_id_size=64, user_id=b"u" * 64),
        PasswordKeyParameters(memory_kib=16, iteration_count=1, lane_count=2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_rules_allow_comes_back(value: Record) -> None:
    assert decode_record(type(value), encode_record(value)) == value


def test_an_invalid_and_a_locked_token_differ_in_one_byte() -> None:
    # T17 at the gateway: nothing but the status tells them apart, and unknown and wrong have one status.
    invalid = encode_record(build_token_ack(**INVALID_TOKEN))
    locked = encode_record(build_token_ack(**{**INVALID_TOKEN, "status": TokenStatus.LOCKED}))
    assert invalid[1:] == locked[1:]


def test_reasons_say_in_words_what_to_do() -> None:
    assert all(reason.meaning for reason in Reason)
    assert len({reason.meaning for reason in Reason}) == len(Reason)
    assert [reason for reason in Reason if reason.is_banks] == [reason for reason in Reason if 1 <= reason <= 63]


@pytest.mark.pg("PG-TRM-1")
@pytest.mark.parametrize("name", [f.name for f in fields_of(Terms)])
def test_each_field_of_the_terms_is_in_their_encoding(name: str) -> None:
    # T2: what were not encoded would not be bound.
    other = {
        "amount_minor": 125_001,
        "currency": "USD",
        "authorised_at_ms": 1,
        "payment_id": b"p" * 16,
        "session_id": b"s" * 16,
    }.get(name, "OTHER")
    assert encode_record(build_terms(**{name: other})) != encode_record(build_terms())


@each_kind
def test_examples_are_valid(kind: Kind) -> None:
    message: Message = example(kind)
    assert decode_record(type(message), encode_record(message)) == message
