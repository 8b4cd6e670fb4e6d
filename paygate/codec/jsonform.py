"""Records as JSON objects, for people and scripts: derived from the same declarations as the wire format (R20).

Bytes are hexadecimal text, enums are their names, nested records are objects, counted fields are lists.

`to_json` holds secrets as they are: it is for the children's `--text` mode and for files, never for logs.
`to_wide_json` is for other people's programs: its 64-bit numbers are decimal strings whatever their value, since a
JSON number holds 53 bits everywhere and no more, and it can mask what may not be shown. Each has an inverse of its own.
"""

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, TypeVar

from paygate.codec.fields import (
    Blob,
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

R = TypeVar("R", bound=Record)
_WIDE: Final = 8
"""Bytes of a number that passes 2**53."""
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,19}")


class BadJson(ValueError):
    """A JSON value is not what the declaration asks for.

    `path` names the field (`terms.amount_minor`, `suite_keys[0].kem_id`), `expected` says what would have been
    right. Neither holds the value, which may be a secret.
    """

    def __init__(self, path: str, expected: str) -> None:
        self.path = path
        self.expected = expected
        super().__init__(f"{path or 'the object'}: expected {expected}")

    def within(self, member: str) -> "BadJson":
        """The same of a value that is a member of another object."""
        return type(self)(f"{member}.{self.path}" if self.path else member, self.expected)


class MaskedJson(BadJson):
    """A mask stands where a value belongs: nobody can make the record of it."""

    def __init__(self, path: str, expected: str = "a value, which is masked here") -> None:
        super().__init__(path, expected)


MASK: Final = "masked"
"""The one member name that tells a mask from a record: `{"masked": "secret"}`, `{"masked": "sized", "size": 304}`."""


def to_json(value: Record) -> dict[str, Any]:
    """A record's fields in wire order, as values that `json.dumps` takes. Secrets are in it."""
    return _record_to_json(value, is_wide=False, masks=False)


def to_wide_json(value: Record, *, masks: bool) -> dict[str, Any]:
    """The same with 64-bit numbers as decimal strings; `masks`: each field shows what its declaration allows."""
    return _record_to_json(value, is_wide=True, masks=masks)


def from_json(cls: type[R], data: object) -> R:
    """The record that `to_json` made an object of.

    Every field must be there and no other. Raises BadJson with the path of the first field that is wrong.
    """
    return _record_from_json(cls, data, "", is_wide=False)


def from_wide_json(cls: type[R], data: object) -> R:
    """The record that `to_wide_json` made an object of; somebody who writes one by hand may give plain numbers.

    Raises BadJson as `from_json` does, MaskedJson where a mask stands.
    """
    return _record_from_json(cls, data, "", is_wide=True)


_Writer = Callable[[Any], Any]


def _record_to_json(value: Record, *, is_wide: bool, masks: bool) -> dict[str, Any]:
    return {name: write(get(value)) for name, get, write in _writers(type(value), is_wide, masks)}


_found_writers: Final[dict[tuple[type[Record], bool, bool], list[tuple[str, _Writer, _Writer]]]] = {}


def _writers(cls: type[Record], is_wide: bool, masks: bool) -> list[tuple[str, _Writer, _Writer]]:
    """What reads and writes each field of a record, found once."""
    found = _found_writers.get((cls, is_wide, masks))
    if found is None:
        found = _found_writers[cls, is_wide, masks] = _find_writers(cls, is_wide, masks)
    return found


def _find_writers(cls: type[Record], is_wide: bool, masks: bool) -> list[tuple[str, _Writer, _Writer]]:
    return [
        (f.name, attrgetter(f.name), _mask_of(f) if masks and f.sensitivity is not Sensitivity.PUBLIC else write)
        for f in fields_of(cls)
        for write in [_writer(f.type, is_wide, masks)]
    ]


def _mask_of(field: WireField) -> _Writer:
    if field.sensitivity is Sensitivity.SIZED:
        return lambda value: {MASK: "sized", "size": len(value)}
    # Whatever else is not public is not shown: a new sensitivity fails closed.
    return lambda _: {MASK: "secret"}


def _writer(field: Field, is_wide: bool, masks: bool) -> _Writer:
    match field:
        case Nested():
            return lambda value: _record_to_json(value, is_wide=is_wide, masks=masks)
        case Counted():
            item = _writer(field.item, is_wide, masks)
            return lambda value: [item(one) for one in value]
        case Opaque() | Blob():
            return bytes.hex
        case Choice():
            return attrgetter("name")
        case Uint() if is_wide and field.width == _WIDE:
            return str
    return _itself


def _itself(value: Any) -> Any:
    return value


def value_from_json(field: Field, data: object, path: str) -> Any:
    """One value that stands outside of a record, at `path`, in the wide form. Raises BadJson."""
    return _from_json(field, data, path, is_wide=True)


def _from_json(field: Field, data: object, path: str, *, is_wide: bool) -> Any:
    if isinstance(data, dict) and MASK in data:
        raise MaskedJson(path)
    if isinstance(field, Nested):
        return _record_from_json(field.record, data, path, is_wide=is_wide)
    value = _plain_value(field, data, path, is_wide=is_wide)
    if not field.is_legal(value):
        raise BadJson(path, _expected(field))
    return value


def _plain_value(field: Field, data: object, path: str, *, is_wide: bool) -> Any:
    if isinstance(field, Counted):
        if not isinstance(data, list):
            raise BadJson(path, "a list")
        return tuple(
            _from_json(field.item, item, f"{path}[{index}]", is_wide=is_wide) for index, item in enumerate(data)
        )
    if isinstance(field, Opaque | Blob):
        return _bytes_from_hex(field, data, path)
    if isinstance(field, Choice):
        return field.choices.__members__.get(data) if isinstance(data, str) else None
    assert isinstance(field, Uint | Boolean | Text)
    is_wide_number = is_wide and isinstance(field, Uint) and field.width == _WIDE
    return int(data) if is_wide_number and isinstance(data, str) and _DECIMAL.fullmatch(data) else data


def _bytes_from_hex(field: Field, data: object, path: str) -> bytes:
    # bytes.fromhex skips blanks; a value has exactly one form here.
    if isinstance(data, str) and data.isascii() and data.isalnum():
        try:
            return bytes.fromhex(data)
        except ValueError:
            pass
    elif data == "":
        return b""
    raise BadJson(path, _expected(field))


def _expected(field: Field) -> str:
    if isinstance(field, Choice):
        return f"one of {', '.join(field.choices.__members__)}"
    if isinstance(field, Boolean):
        return "true or false"
    return f"{field.expected}, in hexadecimal" if isinstance(field, Opaque | Blob) else field.expected


def _record_from_json(cls: type[R], data: object, path: str, *, is_wide: bool) -> R:
    if not isinstance(data, dict):
        raise BadJson(path, f"an object with the fields of {cls.__name__}")
    before = f"{path}." if path else ""
    declared = fields_of(cls)
    unknown = data.keys() - {f.name for f in declared}
    if unknown:
        # The name itself stays out: somebody may have typed a password where a name belongs.
        raise BadJson(path, f"no fields but {', '.join(f.name for f in declared)}")
    for field in declared:
        if field.name not in data:
            raise BadJson(f"{before}{field.name}", f"a value: {_expected(field.type)}")
    value = cls(**{f.name: _from_json(f.type, data[f.name], f"{before}{f.name}", is_wide=is_wide) for f in declared})
    broken = value.broken_rule()
    if broken is not None:
        raise BadJson(f"{before}{broken.field}", broken.expected)
    return value
