"""Bytes to records and back: the one file that calls construct's `parse` and `build` (style 1).

What is legal goes the fast way, by functions compiled from the declaration (`compiled.py`). Only what they refuse
goes through construct, which finds out what is wrong with it, and has the last word. The environment variable
PAYGATE_CODEC changes that, to find out whose fault something is: with `construct` every record goes through
construct; with `check` every record goes both ways, and an AssertionError tells where they differ.
"""

from collections.abc import Callable
from os import environ
from typing import Any, Final, NamedTuple, TypeVar

import construct

from paygate.codec.compiled import REFUSALS, compile_record
from paygate.codec.decode_lines import Decode
from paygate.codec.encode_lines import Encode
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import BadValue, Nested, Record

_layouts: dict[type[Record], construct.Construct] = {}


def _layout(cls: type[Record]) -> construct.Construct:
    found = _layouts.get(cls)
    if found is None:
        # Terminated stands outside the declaration, since inside a Struct it breaks sizeof (style 2).
        found = construct.FocusedSeq("record", "record" / Nested(cls), construct.Terminated)
        _layouts[cls] = found
    return found


R = TypeVar("R", bound=Record)


def encode_record(value: Record) -> bytes:
    """The one encoding of a record.

    Raises LocalProtocolError, naming the field, for a value that may not stand on the wire.
    """
    try:
        encoded = encoders_at_once[value.__class__](value)
    except REFUSALS:
        encoded = None
    return _encode(value) if encoded is None else encoded


def decode_record(cls: type[R], data: bytes) -> R:
    """Decode bytes that hold exactly one record.

    Raises RemoteProtocolError: TRUNCATED_FIELD, TRAILING_BYTES or BAD_VALUE with the field's path.
    """
    value: R = decode_at(cls, data, 0)
    return value


# -- the two ways through the codec ----------------------------------------------------------------------


# Each record's functions, written at its first use: a program uses few of the records, and starts sooner.
_encoders: Final[dict[type[Record], Encode]] = {}
_decoders: Final[dict[type[Record], Decode]] = {}


def _compile(cls: type[Record]) -> None:
    if cls not in _encoders:
        _decoders[cls], _encoders[cls], _ = compile_record(cls)


def _encode_fast(value: Record) -> bytes:
    try:
        encoded = _encoders[value.__class__](value)
    except REFUSALS:  # The KeyError of a first use among them.
        encoded = None
    # Outside of the handler, so that nothing that holds a value is chained to an error.
    return _encode_reluctantly(value) if encoded is None else encoded


def _encode_reluctantly(value: Record) -> bytes:
    encoded = _encode_compiled(value) if type(value) not in _encoders else None
    return _encode_construct(value) if encoded is None else encoded


def _encode_compiled(value: Record) -> bytes | None:
    _compile(type(value))
    try:
        return _encoders[type(value)](value)
    except REFUSALS:
        return None


def _encode_construct(value: Record) -> bytes:
    try:
        encoded: bytes = _layout(type(value)).build(value)
    except construct.ConstructError as error:
        expected = error.expected if isinstance(error, BadValue) else "a value that its layout can hold"
        # The value itself stays out of the text: it may be a secret.
        raise LocalProtocolError(
            f"{type(value).__name__} can't be encoded at {_field_path(error)}: expected {expected}"
        ) from None
    return encoded


def _encode_both(value: Record) -> bytes:
    compiled = _encode_compiled(value)
    try:
        reference = _encode_construct(value)
    except LocalProtocolError:
        assert compiled is None, f"only the compiled codec encodes this {type(value).__name__}"
        raise
    assert compiled == reference, f"compiled codec and construct encode a {type(value).__name__} differently"
    return reference


def _decode_fast(cls: type[Record], data: bytes, at: int) -> Any:
    try:
        value = _decoders[cls](data, at, len(data))
    except REFUSALS:
        value = None
    return _decode_reluctantly(cls, data, at) if value is None else value


def _decode_reluctantly(cls: type[Record], data: bytes, at: int) -> Any:
    value = _decode_compiled(cls, data, at) if cls not in _decoders else None
    return _decode_construct(cls, data, at) if value is None else value


def _decode_compiled(cls: type[Record], data: bytes, at: int) -> Any:
    _compile(cls)
    try:
        return _decoders[cls](data, at, len(data))
    except REFUSALS:
        return None


def _decode_construct(cls: type[Record], data: bytes, at: int) -> Any:
    try:
        return _layout(cls).parse(data[at:])
    except BadValue as error:
        raise RemoteProtocolError(ErrorCode.BAD_VALUE, _field_path(error), error.expected) from None
    except construct.TerminatedError:
        raise RemoteProtocolError(ErrorCode.TRAILING_BYTES, "", f"the end of a {cls.__name__}") from None
    except construct.StreamError as error:
        raise RemoteProtocolError(ErrorCode.TRUNCATED_FIELD, _field_path(error), "more bytes") from None


def _decode_both(cls: type[Record], data: bytes, at: int) -> Any:
    compiled = _decode_compiled(cls, data, at)
    try:
        reference = _decode_construct(cls, data, at)
    except RemoteProtocolError:
        assert compiled is None, f"only the compiled codec takes this {cls.__name__}"
        raise
    assert type(compiled) is type(reference), f"only construct takes this {cls.__name__}"
    assert compiled == reference, f"compiled codec and construct decode a {cls.__name__} differently"
    return reference


class _Way(NamedTuple):
    encode: Callable[[Record], bytes]
    decode: Callable[[type[Record], bytes, int], Any]


WAYS: Final = {
    "compiled": _Way(_encode_fast, _decode_fast),
    "construct": _Way(_encode_construct, _decode_construct),
    "check": _Way(_encode_both, _decode_both),
}
"""What PAYGATE_CODEC may say."""

_way = environ.get("PAYGATE_CODEC", "compiled")
if _way not in WAYS:
    raise ValueError(f"PAYGATE_CODEC is {_way!r}: expected one of {', '.join(WAYS)}")
_encode, decode_at = WAYS[_way]

encoders_at_once: Final = _encoders if _way == "compiled" else {}
"""The functions that may be tried before anything else; none when another way is asked for."""
decoders_at_once: Final = _decoders if _way == "compiled" else {}
"""The same for decoding."""


def _field_path(error: construct.ConstructError) -> str:
    # construct says "(parsing) -> record -> terms -> amount_minor"; only names may pass, never its message. "count"
    # and "items" are its own names for the insides of a counted field.
    names = (error.path or "").split(" -> ")[2:]
    return ".".join(name for name in names if name not in ("count", "items"))
