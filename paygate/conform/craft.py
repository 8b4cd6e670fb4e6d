"""Bytes that no honest end sends: frames with any header, bodies with any field, derived from the declarations (R20).

The codec's own encoder refuses what is illegal, so this one asks nothing: it writes what it is told. It is also what
valid bodies are altered with, since it knows where each field lies.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.frame import FLAG_AUTHENTICATED, MAGIC, Header, frame_checksum, frame_mac
from paygate.codec.messages import Message
from paygate.codec.record_codec import encode_record

MAGIC_NUMBER: Final = int.from_bytes(MAGIC)


@dataclass(frozen=True, slots=True)
class Draft:
    """A frame to be sent: what is None is made as it should be, the rest is sent as given."""

    kind: int
    body: bytes
    correlation_id: int = 1
    link_key: bytes | None = None
    magic: int = MAGIC_NUMBER
    version: int = limits.PROTOCOL_VERSION
    flags: int | None = None
    body_size: int | None = None
    checksum: int | None = None
    mac: bytes | None = None

    def encode(self) -> bytes:
        """Header, body and, with a link key, MAC."""
        flags = (FLAG_AUTHENTICATED if self.link_key is not None else 0) if self.flags is None else self.flags
        body_size = len(self.body) if self.body_size is None else self.body_size
        header = Header(self.magic, self.version, int(self.kind), flags, body_size, self.correlation_id, 0)
        checksum = frame_checksum(encode_record(header) + self.body) if self.checksum is None else self.checksum
        signed = encode_record(replace(header, checksum=checksum)) + self.body
        if self.mac is not None:
            return signed + self.mac
        return signed if self.link_key is None else signed + frame_mac(self.link_key, signed)

    def header(self) -> bytes:
        """Only the header: what a receiver must be able to judge before a byte of the body is there."""
        return self.encode()[: limits.HEADER_SIZE]


def draft(message: Message, link_key: bytes | None, correlation_id: int = 1) -> Draft:
    """A valid frame, to be altered with `dataclasses.replace`."""
    return Draft(int(message.kind), encode_record(message), correlation_id, link_key)


def flipped(data: bytes, place: int) -> bytes:
    """The bytes with one bit changed in this place."""
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


# -- fields ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One field of an encoded record that holds no other: where it lies and what it is."""

    path: str
    field: Field
    encoded: bytes


def encode_any(field: Field, value: Any) -> bytes:
    """A value as its field's encoding, legal or not; numbers as integers, text as text or as bytes."""
    match field:
        case Uint() | Choice():
            return int(value).to_bytes(field.width)
        case Boolean():
            return int(value).to_bytes(1)
        case Opaque():
            return bytes(value)
        case Blob():
            return len(value).to_bytes(field.PREFIX_SIZE) + bytes(value)
        case Text():
            data = value.encode() if isinstance(value, str) else bytes(value)
            return len(data).to_bytes(field.PREFIX_SIZE) + data
        case Counted():
            items = b"".join(encode_any(field.item, item) for item in value)
            return len(value).to_bytes(field.PREFIX_SIZE) + items
        case Nested():
            return b"".join(part.encoded for part in parts_of(value))
    raise AssertionError(f"a kind of field without an encoding: {type(field).__name__}")


def leaves_of(cls: type[Record], before: str = "") -> Iterator[tuple[str, Field]]:
    """(path, type) of each field that holds no other, in wire order (`terms.amount_minor`)."""
    for declared in fields_of(cls):
        path = before + declared.name
        if isinstance(declared.type, Nested):
            yield from leaves_of(declared.type.record, f"{path}.")
        else:
            yield path, declared.type


def parts_of(record: Record, before: str = "") -> list[Part]:
    """The fields of a record that hold no others, in wire order, each with its bytes."""
    parts: list[Part] = []
    for declared in fields_of(type(record)):
        value, path = getattr(record, declared.name), before + declared.name
        if isinstance(declared.type, Nested):
            parts += parts_of(value, f"{path}.")
        else:
            parts.append(Part(path, declared.type, encode_any(declared.type, value)))
    return parts


def body_with(record: Record, path: str, encoded: bytes) -> bytes:
    """The record's encoding with one field's bytes replaced."""
    parts = parts_of(record)
    assert any(part.path == path for part in parts), path
    return b"".join(encoded if part.path == path else part.encoded for part in parts)


def longer_than_body(record: Record) -> bytes:
    """The record's encoding with the last length in it one too large: that field runs past the end of the body."""
    parts = parts_of(record)
    last = parts[-1]
    size = last.field.PREFIX_SIZE if isinstance(last.field, Blob | Text | Counted) else 0
    if not size:  # no length to lie about: the last byte is missing instead
        return b"".join(part.encoded for part in parts)[:-1]
    length = (int.from_bytes(last.encoded[:size]) + 1).to_bytes(size)
    return b"".join(part.encoded for part in parts[:-1]) + length + last.encoded[size:]


def bad_encodings(field: Field) -> list[tuple[str, bytes]]:
    """(what is wrong, the field's bytes) for values just outside what the declaration allows; may be empty."""
    match field:
        case Uint():
            beyond = [field.minimum - 1, field.maximum + 1, (1 << 8 * field.width) - 1]
            wrong = [n for n in beyond if 0 <= n < 1 << 8 * field.width and not field.is_legal(n)]
            return [(f"the number {n}", encode_any(field, n)) for n in dict.fromkeys(wrong)]
        case Choice():
            numbers = {int(choice) for choice in field.choices}
            beyond = [0, max(numbers) + 1, (1 << 8 * field.width) - 1]
            return [(f"code {n}", encode_any(field, n)) for n in dict.fromkeys(beyond) if n not in numbers]
        case Boolean():
            return [(f"the number {n}", encode_any(field, n)) for n in (2, 255)]
        case Opaque():
            return [] if field.zero_allowed else [("all zeros", bytes(field.size))]
        case Blob():
            wrong_sizes = [field.minimum - 1] * (field.minimum > 0) + [field.maximum + 1]
            return [(f"{size} bytes", encode_any(field, bytes(size))) for size in wrong_sizes]
        case Text():
            return _bad_texts(field)
        case Counted():
            one = _any_item(field.item)
            counts = [field.minimum - 1] * (field.minimum > 0) + [field.maximum + 1]
            found = [(f"{count} items", encode_any(field, (one,) * count)) for count in counts]
            bad_items = [(f"an item with {words}", b"\1" + item) for words, item in bad_encodings(field.item)]
            return found + bad_items
    return []


def _bad_texts(field: Text) -> list[tuple[str, bytes]]:
    size = max(field.minimum, 1)
    texts: list[tuple[str, str | bytes]] = [
        ("one character too many", "A" * (field.maximum + 1)),
        ("no UTF-8", b"\xff" * size),
        ("a line feed", "A" * (size - 1) + "\n"),
        ("a zero byte", "\0" * size),
        ("a bidirectional override", "\u202e"),
    ]
    if field.minimum:
        texts.append(("no character", ""))
    if field.charset is None:
        texts.append(("a text that is not in normal form C", "e\u0301"))
    else:
        texts += [("a blank", "A" * (size - 1) + " "), ("a letter beyond ASCII", "\u00e9")]
    return [
        (words, encode_any(field, text)) for words, text in texts if isinstance(text, bytes) or not field.is_legal(text)
    ]


def _any_item(field: Field) -> Any:
    assert isinstance(field, Uint), "no request to a server counts anything else"
    return field.minimum
