"""Both ways through the codec, compiled and interpreted, held against each other (R20, R25)."""

from functools import cache
from typing import Any, cast

from paygate.codec.compiled import REFUSALS, Compiled, compile_record
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import Field, Record, fields_of, public, record
from paygate.codec.record_codec import WAYS

Fault = tuple[ErrorCode, str, str]


@cache
def _compiled_once(cls: Any) -> Compiled:
    return compile_record(cls)


def compiled_of(cls: type[Record]) -> Compiled:
    """The functions alone, without what `record_codec.py` does when they refuse."""
    return _compiled_once(cast("Any", cls))


def taken(codec: Compiled, data: bytes, at: int, end: int) -> Any:
    """What the compiled functions alone make of bytes: None if they refuse."""
    try:
        return codec.decode(data, at, end)
    except REFUSALS:
        return None


def built(codec: Compiled, value: Record) -> bytes | None:
    try:
        return codec.encode(value)
    except REFUSALS:
        return None


def decoded(way: str, cls: type[Record], data: bytes) -> Record | Fault:
    try:
        value: Record = WAYS[way].decode(cls, data, 0)
    except RemoteProtocolError as error:
        return error.code, error.path, error.expected
    return value


def encoded(way: str, value: Record) -> bytes | str:
    try:
        return WAYS[way].encode(value)
    except LocalProtocolError as error:
        return str(error)


def assert_same_decoding(cls: type[Record], data: bytes) -> None:
    reference = decoded("construct", cls, data)
    assert decoded("compiled", cls, data) == reference
    alone = taken(compiled_of(cls), data, 0, len(data))
    # The place within something larger makes no difference, and nothing behind the end is taken for a part of it.
    assert taken(compiled_of(cls), b"\1before" + data + b"\1after", 7, 7 + len(data)) == alone
    if isinstance(reference, Record):
        assert alone == reference
        assert type(alone) is cls
        assert [type(getattr(alone, f.name)) for f in fields_of(cls)] == [
            type(getattr(reference, f.name)) for f in fields_of(cls)
        ]
        assert hash(alone) == hash(reference)
    else:
        assert alone is None


def assert_same_encoding(value: Record) -> None:
    reference = encoded("construct", value)
    assert encoded("compiled", value) == reference
    assert built(compiled_of(type(value)), value) == (reference if isinstance(reference, bytes) else None)


def record_of(field: Field) -> type[Record]:
    """A record with this one field, `one`."""

    @record
    class One(Record):
        one: Any = public(field, "the field under test")

    return One
