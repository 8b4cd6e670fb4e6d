"""Records as the vectors write them, and an encoder without checks.

The form differs from `paygate.codec.jsonform`, which is for people: here the type of a value never depends on how
large it is (every u64 is a decimal string), and a code stands with its number, since others don't know our names.
The encoder follows the same declarations as the codec but checks nothing, so that it can also write what is wrong.
"""

from typing import Any, TypeVar

from paygate.codec.codes import Code
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of

R = TypeVar("R", bound=Record)


def json_of_code(code: Code) -> dict[str, Any]:
    """A code with its number and its name."""
    return {"code": int(code), "name": code.name}


def json_of(value: Record) -> dict[str, Any]:
    """A record's fields in wire order."""
    return {f.name: _json_of(f.type, getattr(value, f.name)) for f in fields_of(type(value))}


def _json_of(field: Field, value: Any) -> Any:
    match field:
        case Nested():
            return json_of(value)
        case Counted():
            return [_json_of(field.item, item) for item in value]
        case Opaque() | Blob():
            return value.hex()
        case Choice():
            return json_of_code(value)
        case Uint(width=8):  # passes 2**53, what a JSON number holds everywhere
            return str(value)
    return value


def record_of(cls: type[R], fields: dict[str, Any]) -> R:
    """The record that `json_of` wrote. Raises KeyError or ValueError for what it did not write."""
    return cls(**{f.name: _value_of(f.type, fields[f.name]) for f in fields_of(cls)})


def _value_of(field: Field, data: Any) -> Any:
    match field:
        case Nested():
            return record_of(field.record, data)
        case Counted():
            return tuple(_value_of(field.item, item) for item in data)
        case Opaque() | Blob():
            return bytes.fromhex(data)
        case Choice():
            return field.choices(data["code"])
        case Uint(width=8):
            return int(data)
    return data


def encode(value: Record) -> bytes:
    """The encoding of a record, legal or not."""
    return b"".join(encode_field(f.type, getattr(value, f.name)) for f in fields_of(type(value)))


def encode_field(field: Field, value: Any) -> bytes:
    """The encoding of one field, its length or count included."""
    match field:
        case Uint() | Choice():
            return int(value).to_bytes(field.width)
        case Boolean():
            return bytes([value])
        case Opaque():
            return bytes(value)
        case Blob():
            return prefixed(value, field.PREFIX_SIZE)
        case Text():
            return prefixed(value.encode(), field.PREFIX_SIZE)
        case Counted():
            return bytes([len(value)]) + b"".join(encode_field(field.item, item) for item in value)
        case Nested():
            return encode(value)
    raise AssertionError(f"no encoding for {field}")


def prefixed(data: bytes, prefix_size: int) -> bytes:
    """Bytes behind their length."""
    return len(data).to_bytes(prefix_size) + data
