"""Bytes to messages and back: the one file that calls construct's `parse` and `build` (style 1).

Strategy: a header is checked field by field in the order of its error codes before a byte of the body is
awaited (T24); a body is parsed by the layout of its kind, must end where `body_size` says, and must hold
only legal values. Whatever a peer sends, the result is a message or a `RemoteProtocolError`, nothing else.
"""

import hashlib
import hmac
import struct
import zlib
from dataclasses import dataclass, field
from typing import Final, TypeVar

import construct

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import BadValue, Nested, Record, Uint, fields_of, public, record
from paygate.codec.messages import MESSAGES, Message

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


_layouts: dict[type[Record], construct.Construct] = {}


def _layout(cls: type[Record]) -> construct.Construct:
    found = _layouts.get(cls)
    if found is None:
        # Terminated stands outside the declaration, since inside a Struct it breaks sizeof (style 2).
        found = construct.FocusedSeq("record", "record" / Nested(cls), construct.Terminated)
        _layouts[cls] = found
    return found


assert Nested(Header).size_max == limits.HEADER_SIZE
_MAGIC_NUMBER: Final = int.from_bytes(MAGIC)

R = TypeVar("R", bound=Record)


def encode_record(value: Record) -> bytes:
    """The one encoding of a record.

    Raises LocalProtocolError, naming the field, for a value that may not stand on the wire.
    """
    try:
        encoded: bytes = _layout(type(value)).build(value)
    except construct.ConstructError as error:
        expected = error.expected if isinstance(error, BadValue) else "a value that its layout can hold"
        # The value itself stays out of the text: it may be a secret.
        raise LocalProtocolError(
            f"{type(value).__name__} can't be encoded at {_field_path(error)}: expected {expected}"
        ) from None
    return encoded


def decode_record(cls: type[R], data: bytes) -> R:
    """Decode bytes that hold exactly one record.

    Raises RemoteProtocolError: TRUNCATED_FIELD, TRAILING_BYTES or BAD_VALUE with the field's path.
    """
    try:
        value: R = _layout(cls).parse(data)
    except BadValue as error:
        raise RemoteProtocolError(ErrorCode.BAD_VALUE, _field_path(error), error.expected) from None
    except construct.TerminatedError:
        raise RemoteProtocolError(ErrorCode.TRAILING_BYTES, "", f"the end of a {cls.__name__}") from None
    except construct.StreamError as error:
        raise RemoteProtocolError(ErrorCode.TRUNCATED_FIELD, _field_path(error), "more bytes") from None
    return value


def _field_path(error: construct.ConstructError) -> str:
    # construct says "(parsing) -> record -> terms -> amount_minor"; only names may pass, never its message. "count"
    # and "items" are its own names for the insides of a counted field.
    names = (error.path or "").split(" -> ")[2:]
    return ".".join(name for name in names if name not in ("count", "items"))


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
        return decode_record(MESSAGES[self.kind], self.body)


@dataclass(frozen=True, slots=True)
class FrameHead:
    """What a checked header says."""

    kind: Kind
    is_authenticated: bool
    body_size: int
    correlation_id: int
    checksum: int

    @property
    def frame_size(self) -> int:
        """Header, body and MAC in bytes."""
        return limits.HEADER_SIZE + self.body_size + (limits.MAC_SIZE if self.is_authenticated else 0)


def decode_head(data: bytes) -> FrameHead:
    """Check the 20 bytes of a header, in the order of the error codes.

    Raises RemoteProtocolError: BAD_MAGIC to BODY_TOO_LARGE. The checksum needs the body: `decode_frame`.
    """
    header = decode_record(Header, data)
    if header.magic != _MAGIC_NUMBER:
        raise RemoteProtocolError(ErrorCode.BAD_MAGIC, "magic", "the letters PG")
    if header.version != limits.PROTOCOL_VERSION:
        raise RemoteProtocolError(ErrorCode.UNSUPPORTED_VERSION, "version", str(limits.PROTOCOL_VERSION))
    try:
        kind = Kind(header.kind)
    except ValueError:
        raise RemoteProtocolError(ErrorCode.UNKNOWN_KIND, "kind", "a kind of spec section 4.2") from None
    if header.flags & ~FLAGS_KNOWN:
        raise RemoteProtocolError(ErrorCode.UNKNOWN_FLAG, "flags", "no flag but AUTHENTICATED")
    size_min, size_max = body_size_range(kind)
    if header.body_size < size_min:
        raise RemoteProtocolError(ErrorCode.BODY_TOO_SMALL, "body_size", f"at least {size_min} for {kind.name}")
    if header.body_size > size_max:
        raise RemoteProtocolError(ErrorCode.BODY_TOO_LARGE, "body_size", f"at most {size_max} for {kind.name}")
    return FrameHead(
        kind, bool(header.flags & FLAG_AUTHENTICATED), header.body_size, header.correlation_id, header.checksum
    )


def decode_frame(head: FrameHead, data: bytes) -> Frame:
    """Make a Frame of a checked header and the whole frame's bytes. Raises RemoteProtocolError(BAD_CHECKSUM)."""
    assert len(data) == head.frame_size
    signed = data[: limits.HEADER_SIZE + head.body_size]
    if frame_checksum(signed) != head.checksum:
        raise RemoteProtocolError(ErrorCode.BAD_CHECKSUM, "checksum", "the CRC-32 of header and body")
    return Frame(head.kind, head.correlation_id, signed, data[len(signed) :])


def encode_frame(message: Message, correlation_id: int, link_key: bytes | None = None) -> bytes:
    """The bytes of one frame; with a link key it carries a MAC.

    Raises LocalProtocolError if a field may not stand on the wire.
    """
    body = encode_record(message)
    if len(body) > limits.BODY_SIZE_MAX:
        raise LocalProtocolError(f"{type(message).__name__} is larger than a frame can hold")
    flags = 0 if link_key is None else FLAG_AUTHENTICATED
    header = Header(
        magic=_MAGIC_NUMBER,
        version=limits.PROTOCOL_VERSION,
        kind=int(message.kind),
        flags=flags,
        body_size=len(body),
        correlation_id=correlation_id,
        checksum=0,
    )
    unchecked = encode_record(header) + body
    checksum = frame_checksum(unchecked)
    signed = unchecked[:16] + struct.pack(">I", checksum) + body
    return signed if link_key is None else signed + frame_mac(link_key, signed)


def frame_checksum(signed: bytes) -> int:
    """CRC-32 (IEEE 802.3) over the header without its checksum field, then the body."""
    return zlib.crc32(signed[limits.HEADER_SIZE :], zlib.crc32(signed[: limits.HEADER_SIZE - 4]))


def frame_mac(link_key: bytes, signed: bytes) -> bytes:
    """HMAC-SHA-256 over header and body, cut to 16 bytes (spec 4.4)."""
    return hmac.digest(link_key, signed, hashlib.sha256)[: limits.MAC_SIZE]
