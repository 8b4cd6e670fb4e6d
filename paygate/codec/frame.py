"""Bytes to messages and back: headers, checksums, MACs; what is in a body is for `record_codec.py`.

Strategy: a header is checked field by field in the order of its error codes before a byte of the body is
awaited (T24); a body is parsed by the layout of its kind, must end where `body_size` says, and must hold
only legal values. Whatever a peer sends, the result is a message or a `RemoteProtocolError`, nothing else.
"""

import hashlib
import hmac
import struct
import zlib
from collections.abc import Container
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.compiled import REFUSALS, struct_of
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import Nested, Record, Uint, fields_of, public, record
from paygate.codec.messages import MESSAGES, Message
from paygate.codec.record_codec import decode_at, decode_record, decoders_at_once, encode_record
from paygate.making import maker_of

MAGIC: Final = b"PG"
FLAG_AUTHENTICATED: Final = 0x0001
FLAGS_KNOWN: Final = FLAG_AUTHENTICATED


@record
class Header(Record):
    """The first 20 bytes of every frame (spec 4.1)."""

    magic: int = public(Uint(2), "the letters PG: 0x5047")
    version: int = public(Uint(1), "protocol version")
    kind: int = public(Uint(1), "what the body is")
    flags: int = public(Uint(2), "bit 0: a MAC of 16 bytes follows the body; the others are 0")
    body_size: int = public(Uint(2), "size of the body in bytes, without header and MAC")
    correlation_id: int = public(Uint(8), "chosen by the requester, repeated in the reply")
    checksum: int = public(Uint(4), "CRC-32 of the 16 bytes before it and the body")


assert Nested(Header).size_max == limits.HEADER_SIZE
_MAGIC_NUMBER: Final = int.from_bytes(MAGIC)


def body_size_range(kind: Kind) -> tuple[int, int]:
    """The smallest and the largest body of a kind in bytes, derived from its declaration."""
    return _BODY_SIZE_RANGES[kind]


_BODY_SIZE_RANGES: Final = {
    kind: (
        sum(f.type.size_min for f in fields_of(cls)),
        min(sum(f.type.size_max for f in fields_of(cls)), limits.BODY_SIZE_MAX),
    )
    for kind, cls in MESSAGES.items()
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame whose header and checksum hold; its body is not decoded and its MAC not checked yet."""

    kind: Kind
    correlation_id: int
    signed: bytes = field(repr=False)  # header and body: what the MAC covers; may hold secrets (R4)
    mac: bytes = field(repr=False)  # empty without the AUTHENTICATED flag

    @property
    def body(self) -> bytes:
        """The encoded message."""
        return self.signed[limits.HEADER_SIZE :]

    @property
    def size(self) -> int:
        """What the frame takes on the wire, in bytes."""
        return len(self.signed) + len(self.mac)

    def check_mac(self, link_key: bytes) -> None:
        """Check the MAC under the link's key, in constant time. Raises RemoteProtocolError(BAD_MAC)."""
        if not hmac.compare_digest(self.mac, frame_mac(link_key, self.signed)):
            raise RemoteProtocolError(ErrorCode.BAD_MAC)

    def message(self) -> Message:
        """Decode the body. Raises RemoteProtocolError."""
        message: Message = decode_at(MESSAGES[self.kind], self.signed, limits.HEADER_SIZE)
        return message


@dataclass(frozen=True, slots=True)
class FrameHead:
    """What a checked header says."""

    kind: Kind
    is_authenticated: bool
    body_size: int
    correlation_id: int
    checksum: int
    frame_size: int
    """Header, body and MAC in bytes."""


# These are made for every frame, so they are made as the compiled records are.
_make_frame: Final = maker_of(Frame)
_make_head: Final = maker_of(FrameHead)

_HEADER: Final = struct_of(Header)
_CHECKSUM_SIZE: Final = 4
_UNCHECKED: Final = struct.Struct(_HEADER.format[:-1])
"""The header without its checksum."""

assert _HEADER.size == _UNCHECKED.size + _CHECKSUM_SIZE == limits.HEADER_SIZE

# Names of this module are found sooner than those of another, and these are needed for every frame.
_VERSION: Final = limits.PROTOCOL_VERSION
_HEADER_SIZE: Final = limits.HEADER_SIZE
_BODY_SIZE_MAX: Final = limits.BODY_SIZE_MAX
_UINT64_MAX: Final = limits.UINT64_MAX
_MAC_SIZE: Final = limits.MAC_SIZE
_UNCHECKED_SIZE: Final = _UNCHECKED.size
_SIZE_BESIDE_BODY: Final = {0: limits.HEADER_SIZE, FLAG_AUTHENTICATED: limits.HEADER_SIZE + limits.MAC_SIZE}
"""Header and MAC in bytes, by the header's flags: those that may be set."""

assert max(_SIZE_BESIDE_BODY) == FLAGS_KNOWN

_KINDS: Final = {int(kind): (kind, *size_range) for kind, size_range in _BODY_SIZE_RANGES.items()}
_REQUESTS_AND_REPLIES: Final = {
    int(kind): (kind, MESSAGES[kind], *size_range)
    for kind, size_range in _BODY_SIZE_RANGES.items()
    if kind is not Kind.ERROR
}


def decode_head(data: bytes | bytearray, at: int = 0) -> FrameHead:
    """Check the 20 bytes of the header that lies in the data at `at`, in the order of the error codes.

    Raises RemoteProtocolError: BAD_MAGIC to BODY_TOO_LARGE; TRUNCATED_FIELD if the data ends within the header. The
    checksum needs the body: `decode_frame`.
    """
    if len(data) - at < _HEADER_SIZE:
        decode_record(Header, bytes(data[at:]))
    magic, version, kind_code, flags, body_size, correlation_id, checksum = _HEADER.unpack_from(data, at)
    known = _KINDS.get(kind_code)
    if magic == _MAGIC_NUMBER and version == _VERSION and known and flags in _SIZE_BESIDE_BODY:
        kind, size_min, size_max = known
        if size_min <= body_size <= size_max:
            frame_size = body_size + _SIZE_BESIDE_BODY[flags]
            return _make_head(kind, flags == FLAG_AUTHENTICATED, body_size, correlation_id, checksum, frame_size)
    raise _head_error(magic, version, kind_code, flags, body_size)


def _head_error(magic: int, version: int, kind_code: int, flags: int, body_size: int) -> RemoteProtocolError:
    """What is wrong with a header: the first of its fields that is wrong."""
    if magic != _MAGIC_NUMBER:
        return RemoteProtocolError(ErrorCode.BAD_MAGIC, "magic", "the letters PG")
    if version != limits.PROTOCOL_VERSION:
        return RemoteProtocolError(ErrorCode.UNSUPPORTED_VERSION, "version", str(limits.PROTOCOL_VERSION))
    if kind_code not in _KINDS:
        return RemoteProtocolError(ErrorCode.UNKNOWN_KIND, "kind", "a kind of spec section 4.2")
    if flags & ~FLAGS_KNOWN:
        return RemoteProtocolError(ErrorCode.UNKNOWN_FLAG, "flags", "no flag but AUTHENTICATED")
    kind, size_min, size_max = _KINDS[kind_code]
    if body_size < size_min:
        return RemoteProtocolError(ErrorCode.BODY_TOO_SMALL, "body_size", f"at least {size_min} for {kind.name}")
    return RemoteProtocolError(ErrorCode.BODY_TOO_LARGE, "body_size", f"at most {size_max} for {kind.name}")


def decode_frame(head: FrameHead, data: bytes, at: int = 0) -> Frame:
    """Make a Frame of a checked header and the whole frame's bytes, which lie in the data at `at`.

    Raises RemoteProtocolError(BAD_CHECKSUM).
    """
    end = at + head.frame_size
    assert len(data) >= end
    body_end = at + _HEADER_SIZE + head.body_size
    signed = data[at:body_end]
    # As `frame_checksum` has it.
    if zlib.crc32(signed[_HEADER_SIZE:], zlib.crc32(signed[:_UNCHECKED_SIZE])) != head.checksum:
        raise RemoteProtocolError(ErrorCode.BAD_CHECKSUM, "checksum", "the CRC-32 of header and body")
    return _make_frame(head.kind, head.correlation_id, signed, data[body_end:end])


def decode_frames(
    data: bytes, kinds: Container[int], link_key: bytes | None, count_max: int | None
) -> tuple[list[tuple[Kind, int, Message]], int]:
    """Decode the frames at the beginning of a read: kind, correlation ID and message of each, and where they end.

    The fast way for what mostly comes: whole frames of these kinds, right in everything, MAC included, with a link key;
    at most `count_max`. It stops before any other, and before an Error; what is wrong with that frame or missing of
    it, a FrameBuffer finds out.
    """
    received: list[tuple[Kind, int, Message]] = []
    at, size = 0, len(data)
    flags_wanted = 0 if link_key is None else FLAG_AUTHENTICATED
    size_beside_body = _SIZE_BESIDE_BODY[flags_wanted]
    try:
        while at + size_beside_body <= size and len(received) != count_max:
            magic, version, kind_code, flags, body_size, correlation_id, checksum = _HEADER.unpack_from(data, at)
            if magic != _MAGIC_NUMBER or version != _VERSION or flags != flags_wanted or kind_code not in kinds:
                break
            kind, cls, size_min, size_max = _REQUESTS_AND_REPLIES[kind_code]
            end = at + size_beside_body + body_size
            if end > size or not size_min <= body_size <= size_max:
                break
            body_at = at + _HEADER_SIZE
            body_end = body_at + body_size
            # As `frame_checksum` has it.
            if zlib.crc32(data[body_at:body_end], zlib.crc32(data[at : at + _UNCHECKED_SIZE])) != checksum:
                break
            if link_key is not None and not hmac.compare_digest(
                data[body_end:end], frame_mac(link_key, data[at:body_end])
            ):
                break
            message = decoders_at_once[cls](data, body_at, body_end)
            if message is None:
                break
            received.append((kind, correlation_id, message))
            at = end
    except REFUSALS:  # The KeyError of a record's first use among them, and that of an Error.
        pass
    return received, at


def encode_frame(message: Message, correlation_id: int, link_key: bytes | None = None) -> bytes:
    """The bytes of one frame; with a link key it carries a MAC.

    Raises LocalProtocolError if a field may not stand on the wire.
    """
    body = encode_record(message)
    body_size = len(body)
    if body_size > _BODY_SIZE_MAX:
        raise LocalProtocolError(f"{type(message).__name__} is larger than a frame can hold")
    kind = message.kind
    flags = 0 if link_key is None else FLAG_AUTHENTICATED
    if correlation_id.__class__ is not int or not 0 <= correlation_id <= _UINT64_MAX:
        # Its declaration says what is wrong with it.
        encode_record(Header(_MAGIC_NUMBER, _VERSION, int(kind), flags, body_size, correlation_id, 0))
    unchecked = _UNCHECKED.pack(_MAGIC_NUMBER, _VERSION, kind, flags, body_size, correlation_id)
    # As `frame_checksum` has it.
    checksum = zlib.crc32(body, zlib.crc32(unchecked))
    signed = b"".join((unchecked, checksum.to_bytes(_CHECKSUM_SIZE), body))
    return signed if link_key is None else signed + frame_mac(link_key, signed)


def frame_checksum(signed: bytes) -> int:
    """CRC-32 (IEEE 802.3) over the header without its checksum field, then the body."""
    return zlib.crc32(signed[_HEADER_SIZE:], zlib.crc32(signed[:_UNCHECKED_SIZE]))


def frame_mac(link_key: bytes, signed: bytes) -> bytes:
    """HMAC-SHA-256 over header and body, cut to 16 bytes (spec 4.4)."""
    # As `hmac_sha256` has it; written out, since it is needed for every frame between gateway and bank.
    keyed_inner, keyed_outer = _keyed(link_key)
    inner, outer = keyed_inner.copy(), keyed_outer.copy()
    inner.update(signed)
    outer.update(inner.digest())
    return outer.digest()[:_MAC_SIZE]


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) under one of a process's few keys."""
    keyed_inner, keyed_outer = _keyed(key)
    inner, outer = keyed_inner.copy(), keyed_outer.copy()
    inner.update(data)
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=256)
def _keyed(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """HMAC's inner and outer hash with the key in them (RFC 2104), which is half of the work for a frame."""
    block_size = hashlib.sha256().block_size
    short = hashlib.sha256(key).digest() if len(key) > block_size else key
    block = short.ljust(block_size, b"\0")
    return hashlib.sha256(block.translate(hmac.trans_36)), hashlib.sha256(block.translate(hmac.trans_5C))
