"""The annotated hex of section 12: each frame of the session's vector, field by field, with offsets."""

from collections.abc import Iterator
from typing import Any

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Code
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.frame import MAGIC, Frame, Header, decode_record
from specgen import vector_session
from specgen.declared import record_held
from specgen.words import message_name

_ROW_SIZE = 16


def render() -> str:
    """All steps of the usual payment."""
    return "\n\n".join(_step(number, *step) for number, step in enumerate(vector_session.payment_steps(), start=1))


def _step(number: int, text: str, sender: str, receiver: str, data: bytes) -> str:
    buffer = FrameBuffer()
    buffer.receive_data(data)
    frame = buffer.next_frame()
    assert frame is not None
    message = frame.message()
    lines = list(_header_rows(frame, data))
    lines += _record_rows(message, data, limits.HEADER_SIZE, "")
    if frame.mac:
        lines += _rows(data[len(frame.signed) :], len(frame.signed), "MAC", "")
    head = f"**{number}. {sender} → {receiver}: {message_name(frame.kind)}**, {len(data)} bytes. {text}"
    return "\n".join([head, "", "```text", *lines, "```"])


def _header_rows(frame: Frame, data: bytes) -> Iterator[str]:
    values = {
        "magic": MAGIC.decode(),
        "kind": f"0x{frame.kind:02x} {message_name(frame.kind)}",
        "flags": "AUTHENTICATED" if frame.mac else "none",
        "correlation_id": str(frame.correlation_id),
        "body_size": str(len(frame.body)),
        "version": str(limits.PROTOCOL_VERSION),
        "checksum": "",
    }
    at = 0
    for field in fields_of(Header):
        yield from _rows(data[at : at + field.type.size_max], at, field.name, values[field.name])
        at += field.type.size_max


def _record_rows(record: Record, data: bytes, at: int, path: str) -> Iterator[str]:
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        size = _size(field.type, value)
        yield from _field_rows(field.type, value, data[: at + size], at, path + field.name)
        at += size


def _field_rows(field: Field, value: Any, data: bytes, at: int, path: str) -> Iterator[str]:
    match field:
        case Nested():
            yield from _record_rows(value, data, at, f"{path}.")
        case Blob():
            start = at + field.PREFIX_SIZE
            yield from _rows(data[at:start], at, f"{path} size", str(len(value)))
            held = record_held(field)
            if held is not None and value:
                yield from _record_rows(decode_record(held, value), data, start, f"{path}.")
            else:
                yield from _rows(data[start:], start, path, "")
        case Text():
            start = at + field.PREFIX_SIZE
            yield from _rows(data[at:start], at, f"{path} size", str(len(data) - start))
            yield from _rows(data[start:], start, path, value)
        case Counted():
            start = at + field.PREFIX_SIZE
            yield from _rows(data[at:start], at, f"{path} count", str(len(value)))
            for index, item in enumerate(value):
                size = _size(field.item, item)
                yield from _field_rows(field.item, item, data[: start + size], start, f"{path}[{index}]")
                start += size
        case _:
            yield from _rows(data[at:], at, path, _shown(value))


def _size(field: Field, value: Any) -> int:
    """What a value takes on the wire in bytes."""
    match field:
        case Text():
            return field.PREFIX_SIZE + len(value.encode())
        case Blob():
            return field.PREFIX_SIZE + len(value)
        case Counted():
            return field.PREFIX_SIZE + sum(_size(field.item, item) for item in value)
        case Nested():
            return sum(_size(inner.type, getattr(value, inner.name)) for inner in fields_of(field.record))
        case Uint() | Choice() | Boolean() | Opaque():
            return field.size_max
    raise AssertionError(f"no size of {type(field).__name__}")


def _shown(value: Any) -> str:
    if isinstance(value, Code):
        return f"{int(value)} {value.name}"
    return "" if isinstance(value, bytes) else str(int(value))


def _rows(data: bytes, at: int, name: str, value: str) -> Iterator[str]:
    for start in range(0, len(data), _ROW_SIZE):
        row = data[start : start + _ROW_SIZE]
        note = f"{name}{' = ' + value if value else ''}" if start == 0 else ""
        yield f"{at + start:04x}  {row.hex(' '):<{3 * _ROW_SIZE - 1}}  {note}".rstrip()
