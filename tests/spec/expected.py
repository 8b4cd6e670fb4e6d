"""What the Wireshark dissector should show of a value, derived from the declarations."""

from typing import Any

import pytest
from spec.capture import Dissected
from spec.dissectors import decoded, header_of
from specgen.declared import snake_case

from paygate.codec import fields, limits
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.fields import (
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Sensitivity,
    Text,
    Uint,
    WireField,
    fields_of,
)
from paygate.codec.frame import Header
from paygate.codec.record_codec import decode_record
from paygate.codec.walk import record_held

NOTES = {"error_frame", "not_the_record"}
"""Expert items that are no faults of the frame."""


def declared_fields(value: Record) -> list[tuple[str, str]]:
    """Name and value of each field that should be shown, in order, derived from the declarations alone."""
    prefix = f"paygate.{snake_case(type(value).__name__)}"
    return [entry for f in fields_of(type(value)) for entry in _shown(prefix, f, getattr(value, f.name))]


def _shown(prefix: str, field: WireField, value: Any) -> list[tuple[str, str]]:
    name = f"{prefix}.{field.name}"
    if field.sensitivity is Sensitivity.SECRET:
        return [(name, "<secret>")]
    if field.sensitivity is Sensitivity.SIZED:
        size = f"<{len(value)} byte{'' if len(value) == 1 else 's'}>"
        held = record_held(field.type)
        return [(name, size), *(declared_fields(inner) if held and (inner := _only(held, value)) else [])]
    if isinstance(field.type, Nested):
        return declared_fields(value)
    if isinstance(field.type, Counted):
        items = [_item(name, field.type.item, item) for item in value]
        return [(f"{name}_count", str(len(value))), *[entry for item in items for entry in item]]
    return [(name, _word(field.type, value))]


def _item(name: str, field: Field, value: Any) -> list[tuple[str, str]]:
    return declared_fields(value) if isinstance(field, Nested) else [(name, _word(field, value))]


def _word(field: Field, value: Any) -> str:
    match field:
        case Text():
            return str(value)
        case Opaque():
            return ":".join(f"{byte:02x}" for byte in value)
        case Choice() if field.choices.__name__.endswith("Id"):
            return f"0x{value:04x}"
        case Choice() | Uint() | Boolean():
            return str(int(value))
    raise AssertionError(f"{type(field).__name__} is not shown in public")


def _only(record: type[Record], data: bytes) -> Record | None:
    """The one record that a blob holds, by its layout: the dissector does not know the rules between fields."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "_check_whole", lambda value, path: None)
        try:
            return decode_record(record, data)
        except RemoteProtocolError:
            return None


def header_fields(frame: bytes) -> list[tuple[str, str]]:
    found = header_of(frame)
    widths = {f.name: f.type.size_max for f in fields_of(Header)}
    quantities = ("version", "body_size")
    return [
        (f"paygate.header.{name}", str(value) if name in quantities else f"0x{value:0{2 * widths[name]}x}")
        for name, value in found.items()
    ]


def whole_frame(frame: bytes) -> list[tuple[str, str]]:
    """Everything that should be shown of a legal frame."""
    mac = frame[limits.HEADER_SIZE + header_of(frame)["body_size"] :]
    macs = [("paygate.mac", ":".join(f"{byte:02x}" for byte in mac))] if mac else []
    return header_fields(frame) + declared_fields(decoded(frame)) + macs


def without_links(found: Dissected) -> list[tuple[str, str]]:
    """What is shown of the frame itself, without which packet holds its request or reply."""
    return [(n, v) for n, v in found.fields if n not in ("paygate.request_in", "paygate.reply_in")]


def faults_of(found: Dissected) -> list[tuple[str, str]]:
    return [fault for fault in found.faults if fault[0] not in NOTES]
