"""Key lists: only the pinned bank's, only while valid, never back to an older one (T10, T12)."""

import pytest
from builders import (
    BANK_ID,
    DAY_MS,
    NOW_MS,
    RECEIPT_KEY,
    ROOT_KEY,
    ROOT_PUBLIC_KEY,
    build_key_list,
    build_signed_key_list,
    sealing_key,
)
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec.codes import KemId
from paygate.codec.errors import LocalProtocolError
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.seal import (
    LABEL_ENVELOPE,
    LABEL_KEY_LIST,
    LABEL_RECEIPT,
    LABEL_RECEIPT_ROOT,
    LABEL_SALT,
    LABEL_VERIFIER,
    BadKeyList,
    sign_key_list,
    verify_key_list,
)
from paygate.codec.sealed import KeyList, SignedKeyList


def verify(signed: bytes, now_ms: int = NOW_MS, serial_min: int = 0, bank_id: str = BANK_ID) -> KeyList:
    return verify_key_list(signed, ROOT_PUBLIC_KEY, bank_id, now_ms, serial_min)


def test_the_banks_own_list_verifies() -> None:
    assert verify(build_signed_key_list()) == build_key_list()


@pytest.mark.pg("PG-KEY-4")
def test_a_list_under_another_root_is_refused() -> None:
    with pytest.raises(BadKeyList, match="not signed by the pinned root key"):
        verify(sign_key_list(RECEIPT_KEY, build_key_list()))


@pytest.mark.pg("PG-KEY-4")
def test_a_list_of_another_bank_is_refused() -> None:
    with pytest.raises(BadKeyList, match="of bank BANK2, not of BANK1"):
        verify(build_signed_key_list(bank_id="BANK2"))
    with pytest.raises(BadKeyList, match="of bank BANK1, not of BANK2"):
        verify(build_signed_key_list(), bank_id="BANK2")


@pytest.mark.pg("PG-KEY-5")
def test_a_list_is_valid_from_its_first_to_before_its_last_millisecond() -> None:
    signed = build_signed_key_list()
    for now_ms in (NOW_MS - DAY_MS, NOW_MS + DAY_MS - 1):
        assert verify(signed, now_ms).serial == 7
    for now_ms in (NOW_MS - DAY_MS - 1, NOW_MS + DAY_MS, 0):
        with pytest.raises(BadKeyList, match="not valid now"):
            verify(signed, now_ms)


@pytest.mark.pg("PG-KEY-5")
def test_the_serial_never_goes_back() -> None:
    signed = build_signed_key_list()
    for serial_min in (0, 6, 7):
        assert verify(signed, serial_min=serial_min).serial == 7
    with pytest.raises(BadKeyList, match="serial 7 is older than 8"):
        verify(signed, serial_min=8)


def test_every_flipped_bit_is_refused() -> None:
    signed = bytearray(build_signed_key_list(suite_keys=(sealing_key(KemId.X25519).public_suite_key(),)))
    for bit in range(8 * len(signed)):
        signed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadKeyList):
            verify(bytes(signed))
        signed[bit // 8] ^= 1 << bit % 8
    verify(bytes(signed))


@pytest.mark.pg("PG-KEY-3")
def test_a_list_cut_or_followed_by_more_is_refused() -> None:
    signed = build_signed_key_list()
    for size in range(len(signed)):
        with pytest.raises(BadKeyList, match="malformed: truncated field"):
            verify(signed[:size])
    with pytest.raises(BadKeyList, match="malformed: trailing bytes"):
        verify(signed + b"\0")


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadKeyList):
        verify(garbage)


@pytest.mark.pg("PG-KEY-3", "PG-VER-1")
@pytest.mark.parametrize(
    "change",
    [
        lambda encoded: encoded[:-1],
        lambda encoded: encoded + b"\0",
        lambda encoded: b"",
        lambda encoded: encoded.replace(b"\x00\x20\x00\x01\x00\x01", b"\x00\x21\x00\x01\x00\x01"),  # KEM 0x0021
        lambda encoded: encoded.replace(b"\x00\x20\x00\x01\x00\x01", b"\x00\x20\x00\x02\x00\x01"),  # KDF 0x0002
        lambda encoded: encoded.replace(b"\x00\x20\x00\x01\x00\x01", b"\x00\x20\x00\x01\x00\x03"),  # AEAD 0x0003
    ],
)
def test_even_the_root_key_can_not_sign_what_no_list_can_be(change: object) -> None:
    assert callable(change)
    encoded = encode_record(build_key_list())
    changed: bytes = change(encoded)
    assert changed != encoded
    with pytest.raises((BadKeyList, LocalProtocolError), match=r"malformed|can't be encoded"):
        verify(encode_record(SignedKeyList(changed, ROOT_KEY.sign(LABEL_KEY_LIST + changed))))


def test_a_signature_without_the_label_is_refused() -> None:
    encoded = encode_record(build_key_list())
    for label in (b"", LABEL_RECEIPT_ROOT):
        with pytest.raises(BadKeyList, match="not signed"):
            verify(encode_record(SignedKeyList(encoded, ROOT_KEY.sign(label + encoded))))


@pytest.mark.pg("PG-CRY-1")
def test_no_label_is_the_beginning_of_another() -> None:
    labels = [LABEL_ENVELOPE, LABEL_KEY_LIST, LABEL_RECEIPT, LABEL_RECEIPT_ROOT, LABEL_SALT, LABEL_VERIFIER]
    names = ["envelope", "key-list", "receipt", "receipt-root", "password-salt", "verifier"]
    assert labels == [f"paygate/v1/{name}\0".encode("ascii") for name in names]
    for label in labels:
        assert [other for other in labels if other.startswith(label)] == [label]


def test_the_signed_bytes_are_what_is_verified() -> None:
    signed = decode_record(SignedKeyList, build_signed_key_list())
    ROOT_KEY.public_key().verify(signed.signature, LABEL_KEY_LIST + signed.key_list)
    assert decode_record(KeyList, signed.key_list) == build_key_list()
