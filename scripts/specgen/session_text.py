"""The annotated hex of section 12: each frame of the session's vector, field by field, with offsets."""

from collections.abc import Iterator
from typing import Any

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Code
from paygate.codec.frame import MAGIC, Frame, Header
from paygate.codec.messages import MESSAGES
from paygate.codec.walk import Part, Span, walk
from specgen import vector_session
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
    lines = list(_header_rows(frame, data))
    found = walk(MESSAGES[frame.kind], frame.signed, limits.HEADER_SIZE)
    assert not found.faults
    for span in found.spans:
        lines += _span_rows(span, data)
    if frame.mac:
        lines += _rows(data[len(frame.signed) :], len(frame.signed), "MAC", "")
    head = f"**{number}. {sender} → {receiver}: {message_name(frame.kind)}**, {len(data)} bytes. {text}"
    return "\n".join([head, "", "```text", *lines, "```"])


def _header_rows(frame: Frame, data: bytes) -> Iterator[str]:
    values = {
        "magic": MAGIC.decode(),
        "kind": f"0x{frame.kind:02x} {message_name(frame.kind)}",
        "flags": "AUTHENTICATED" if frame.mac else "none",
        "checksum": "",
    }
    for span in walk(Header, data[: limits.HEADER_SIZE]).spans:
        yield from _rows(data[span.start : span.end], span.start, span.path, values.get(span.path, str(span.value)))


def _span_rows(span: Span, data: bytes) -> Iterator[str]:
    if span.part is Part.RECORD:
        return  # its fields follow
    name = span.path if span.part is Part.VALUE else f"{span.path} {span.part.value}"
    yield from _rows(data[span.start : span.end], span.start, name, _shown(span.value))


def _shown(value: Any) -> str:
    if isinstance(value, Code):
        return f"{int(value)} {value.name}"
    if isinstance(value, str):
        return value
    return "" if isinstance(value, bytes) else str(int(value))


def _rows(data: bytes, at: int, name: str, value: str) -> Iterator[str]:
    for start in range(0, len(data), _ROW_SIZE):
        row = data[start : start + _ROW_SIZE]
        note = f"{name}{' = ' + value if value else ''}" if start == 0 else ""
        yield f"{at + start:04x}  {row.hex(' '):<{3 * _ROW_SIZE - 1}}  {note}".rstrip()
