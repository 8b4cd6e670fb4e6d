"""Headers, checksums and MACs: each fault has its code, and the code of the first fault is what is told (T24, T35)."""

import hmac
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from builders import LINK_KEY, example
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.frame import body_size_range, decode_frame, decode_head, encode_frame, frame_mac
from paygate.codec.messages import MESSAGES, Verifier
from paygate.codec.record_codec import encode_record

each_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)


def raw_header(**changes: Any) -> bytes:
    """A header by `struct`, not by the code under test; an Echo's unless changed."""
    fields = {"magic": b"PG", "version": 1, "kind": 0x02, "flags": 0, "body_size": 8, "correlation_id": 7, **changes}
    checksum = fields.pop("checksum", 0)
    return struct.pack(">2sBBHHQI", *fields.values(), checksum)


def raw_frame(body: bytes, **changes: Any) -> bytes:
    header = raw_header(**{"body_size": len(body), **changes})[:16]
    return header + struct.pack(">I", zlib.crc32(header + body)) + body


def code_of(data: bytes) -> ErrorCode:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_head(data)
    return caught.value.code


@pytest.mark.pg("PG-ENC-1")
def test_a_frame_is_what_the_spec_says_byte_by_byte() -> None:
    frame = encode_frame(example(Kind.ECHO), 7)
    assert frame == raw_frame(b"echoecho")
    assert frame.hex() == "5047010200000008" + "0000000000000007" + frame[16:20].hex() + b"echoecho".hex()
    assert len(raw_header()) == limits.HEADER_SIZE == 20


@pytest.mark.pg("PG-FRM-1", "PG-MAC-1")
def test_a_mac_follows_the_body() -> None:
    frame = encode_frame(example(Kind.ECHO), 7, LINK_KEY)
    signed = raw_frame(b"echoecho", flags=1)
    assert frame == signed + hmac.digest(LINK_KEY, signed, "sha256")[:16]
    assert len(frame_mac(LINK_KEY, signed)) == limits.MAC_SIZE == 16


@pytest.mark.pg("PG-MAC-1")
@pytest.mark.parametrize("key_size", [0, 1, 32, 63, 64, 65, 300])
@pytest.mark.parametrize("signed_size", [20, 430, 65_555])
def test_a_mac_is_that_of_any_hmac_for_a_key_of_any_size(key_size: int, signed_size: int) -> None:
    link_key, signed = bytes(range(1, 256))[:key_size].ljust(key_size, b"k"), b"s" * signed_size
    for _ in range(2):  # the key's state is kept, and must come out of the first call as it went in
        assert frame_mac(link_key, signed) == hmac.digest(link_key, signed, "sha256")[:16]


def crc_32(data: bytes) -> int:
    """The CRC-32 of IEEE 802.3, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)  # 0x04c11db7, reflected
    return register ^ 0xFFFFFFFF


@pytest.mark.pg("PG-FRM-9")
@each_kind
def test_the_checksum_is_the_crc_32_of_the_header_before_it_and_the_body(kind: Kind) -> None:
    assert crc_32(b"123456789") == 0xCBF43926
    for link_key in (None, LINK_KEY):
        frame = encode_frame(example(kind), 7, link_key)
        body_end = len(frame) - (limits.MAC_SIZE if link_key else 0)
        assert int.from_bytes(frame[16:20]) == crc_32(frame[:16] + frame[20:body_end])


@each_kind
def test_every_kind_travels(kind: Kind) -> None:
    for link_key in (None, LINK_KEY):
        data = encode_frame(example(kind), limits.UINT64_MAX, link_key)
        head = decode_head(data[:20])
        assert (head.kind, head.correlation_id) == (kind, limits.UINT64_MAX)
        assert head.frame_size == len(data)
        frame = decode_frame(head, data)
        assert frame.size == len(data)
        assert frame.message() == example(kind)
        if link_key:
            frame.check_mac(link_key)


# -- the order of the codes ------------------------------------------------------------------------------

HEADER_FAULTS: list[tuple[ErrorCode, dict[str, Any]]] = [
    (ErrorCode.BAD_MAGIC, {"magic": b"HT"}),
    (ErrorCode.UNSUPPORTED_VERSION, {"version": 2}),
    (ErrorCode.UNKNOWN_KIND, {"kind": 0x22}),  # reserved, not yet spoken
    (ErrorCode.UNKNOWN_FLAG, {"flags": 0x8000}),
    (ErrorCode.BODY_TOO_LARGE, {"body_size": 0xFFFF}),
]


@pytest.mark.pg("PG-ERR-7")
@pytest.mark.parametrize("first", range(len(HEADER_FAULTS)), ids=lambda i: HEADER_FAULTS[i][0].name)
def test_the_first_fault_in_the_order_of_the_codes_is_told(first: int) -> None:
    codes = [code for code, _ in HEADER_FAULTS]
    assert codes == sorted(codes)
    alone = HEADER_FAULTS[first]
    assert code_of(raw_header(**alone[1])) is alone[0]
    together: dict[str, Any] = {}
    for _, fault in HEADER_FAULTS[first:]:
        together |= fault
    assert code_of(raw_header(**together)) is alone[0]


@pytest.mark.pg("PG-FRM-4")
@each_kind
def test_a_body_size_out_of_the_kinds_range_is_refused_from_the_header_alone(kind: Kind) -> None:
    # T24: no body is awaited, let alone room made for it.
    size_min, size_max = body_size_range(kind)
    assert size_max < limits.BODY_SIZE_MAX
    for body_size in (size_max + 1, limits.BODY_SIZE_MAX):
        buffer = FrameBuffer()
        buffer.receive_data(raw_header(kind=kind, body_size=body_size))
        with pytest.raises(RemoteProtocolError) as caught:
            buffer.next_frame()
        assert caught.value.code is ErrorCode.BODY_TOO_LARGE
    assert code_of(raw_header(kind=kind, body_size=size_min - 1)) is ErrorCode.BODY_TOO_SMALL
    for body_size in (size_min, size_max):
        assert decode_head(raw_header(kind=kind, body_size=body_size)).body_size == body_size


@pytest.mark.pg("PG-FRM-5")
def test_the_checksum_comes_after_the_header_and_before_the_body() -> None:
    frame = raw_frame(b"\xff" * 8, kind=Kind.ERROR)  # no legal Error
    broken = frame[:19] + bytes([frame[19] ^ 1]) + frame[20:]
    with pytest.raises(RemoteProtocolError) as caught:
        decode_frame(decode_head(broken[:20]), broken)
    assert caught.value.code is ErrorCode.BAD_CHECKSUM
    with pytest.raises(RemoteProtocolError) as caught:
        decode_frame(decode_head(frame[:20]), frame).message()
    assert caught.value.code is ErrorCode.BAD_VALUE


@pytest.mark.pg("PG-VER-1")
@pytest.mark.parametrize("kind_code", sorted(set(range(256)) - set(Kind)))
def test_no_other_kind_is_known(kind_code: int) -> None:
    assert code_of(raw_header(kind=kind_code)) is ErrorCode.UNKNOWN_KIND


@pytest.mark.pg("PG-FRM-7")
@pytest.mark.parametrize("kind_code", [0x22, 0x23, 0xA2, 0xA3])
def test_what_is_reserved_for_later_is_not_known_today(kind_code: int) -> None:
    assert code_of(raw_header(kind=kind_code)) is ErrorCode.UNKNOWN_KIND


@pytest.mark.pg("PG-FRM-1", "PG-VER-1")
@pytest.mark.parametrize("bit", range(1, 16))
def test_no_other_flag_is_known(bit: int) -> None:
    assert code_of(raw_header(flags=1 << bit)) is ErrorCode.UNKNOWN_FLAG
    assert code_of(raw_header(flags=1 << bit | 1)) is ErrorCode.UNKNOWN_FLAG


@given(st.binary(min_size=20, max_size=20) | st.binary(min_size=16, max_size=16).map(lambda tail: b"PG\1\2" + tail))
def test_any_twenty_bytes_are_a_head_or_refused(data: bytes) -> None:
    try:
        head = decode_head(data)
    except RemoteProtocolError as error:
        code = error.code
    else:
        assert data[:3] == b"PG\1"
        assert head.frame_size <= limits.FRAME_SIZE_MAX
        return
    assert ErrorCode.BAD_MAGIC <= code <= ErrorCode.BODY_TOO_LARGE


# -- bits ------------------------------------------------------------------------------------------------


def take_frame(data: bytes, link_key: bytes | None) -> None:
    """What a link does with bytes that then end: raises RemoteProtocolError unless they are one good frame."""
    buffer = FrameBuffer()
    buffer.receive_data(data)
    frame = buffer.next_frame()
    buffer.receive_eof()
    assert frame is not None
    if link_key:
        frame.check_mac(link_key)
    frame.message()


@each_kind
@pytest.mark.parametrize("link_key", [None, LINK_KEY], ids=["plain", "authenticated"])
def test_every_flipped_bit_is_an_error(kind: Kind, link_key: bytes | None) -> None:
    # The checksum covers all of the frame but itself and the MAC, so there is no bit that may change (T35).
    data = bytearray(encode_frame(example(kind), 0x0102_0304_0506_0708, link_key))
    take_frame(bytes(data), link_key)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            take_frame(bytes(data), link_key)
        data[bit // 8] ^= 1 << bit % 8


def test_a_flipped_bit_behind_the_checksum_is_told_as_that() -> None:
    data = bytearray(encode_frame(example(Kind.TOKEN_QUERY), 7, LINK_KEY))
    for at, code in ((8, ErrorCode.BAD_CHECKSUM), (16, ErrorCode.BAD_CHECKSUM), (20, ErrorCode.BAD_CHECKSUM)):
        flipped = bytes(data[:at]) + bytes([data[at] ^ 1]) + bytes(data[at + 1 :])
        with pytest.raises(RemoteProtocolError) as caught:
            take_frame(flipped, LINK_KEY)
        assert caught.value.code is code
    data[-1] ^= 1
    with pytest.raises(RemoteProtocolError) as caught:
        take_frame(bytes(data), LINK_KEY)
    assert caught.value.code is ErrorCode.BAD_MAC


@pytest.mark.pg("PG-MAC-2")
def test_a_mac_of_another_key_is_refused() -> None:
    data = encode_frame(example(Kind.TRANSFER_REQUEST), 7, b"another key of thirty-two bytes!")
    with pytest.raises(RemoteProtocolError) as caught:
        take_frame(data, LINK_KEY)
    assert caught.value.code is ErrorCode.BAD_MAC


@pytest.mark.pg("PG-MAC-2")
def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Time can't be measured that well here; so it is shown that nothing but `compare_digest` decides.
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    data = encode_frame(example(Kind.ECHO), 7, LINK_KEY)
    monkeypatch.setattr("paygate.codec.frame.hmac.compare_digest", compare_digest)
    take_frame(data[:-16] + bytes(16), LINK_KEY)
    assert compared == [(bytes(16), data[-16:])]


def test_a_frame_without_a_mac_has_none_to_check() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        take_frame(encode_frame(example(Kind.ECHO), 7), LINK_KEY)
    assert caught.value.code is ErrorCode.BAD_MAC


# -- our own misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation_id", [-1, limits.UINT64_MAX + 1, True, None])
def test_no_correlation_id_beyond_its_field_is_sent(correlation_id: Any) -> None:
    with pytest.raises(LocalProtocolError, match="at correlation_id"):
        encode_frame(example(Kind.ECHO), correlation_id)


def test_an_illegal_message_makes_no_frame() -> None:
    with pytest.raises(LocalProtocolError, match="Verifier can't be encoded at verifier"):
        encode_frame(Verifier(b"short"), 1)


def test_bodies_fit_their_kinds_range() -> None:
    for kind in Kind:
        size_min, size_max = body_size_range(kind)
        assert size_min <= len(encode_record(example(kind))) <= size_max
        assert 0 < size_min <= size_max
        assert MESSAGES[kind] is type(example(kind))


def test_frames_are_values() -> None:
    data = encode_frame(example(Kind.ECHO), 7)
    frame = decode_frame(decode_head(data[:20]), data)
    assert frame == decode_frame(decode_head(data[:20]), data)
    assert replace(frame, correlation_id=8) != frame
    assert frame.body == b"echoecho"
