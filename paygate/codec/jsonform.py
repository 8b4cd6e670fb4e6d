"""Records as JSON objects, for people and scripts: derived from the same declarations as the wire format (R20).

Bytes are hexadecimal text, enums are their names, nested records are objects, counted fields are lists. The
form holds secrets as they are: it is for the children's `--text` mode and for files, never for logs.
"""

from typing import Any, TypeVar

from paygate.codec.fields import (
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Text,
    Uint,
    fields_of,
)

R = TypeVar("R", bound=Record)


class BadJson(ValueError):
    """A JSON value is not what the declaration asks for.

    `path` names the field (`terms.amount_minor`, `suite_keys[0].kem_id`), `expected` says what would have been
    right. Neither holds the value, which may be a secret.
    """

    def __init__(self, path: str, expected: str) -> None:
        self.path = path
        self.expected = expected
        super().__init__(f"{path or 'the object'}: expected {expected}")


def to_json(value: Record) -> dict[str, Any]:
    """A record's fields in wire order, as values that `json.dumps` takes. Secrets are in it."""
    return {f.name: _to_json(f.type, getattr(value, f.name)) for f in fields_of(type(value))}


def from_json(cls: type[R], data: object) -> R:
    """The record that `to_json` made an object of.

    Every field must be there and no other. Raises BadJson with the path of the first field that is wrong.
    """
    return _record_from_json(cls, data, "")


def _to_json(field: Field, value: Any) -> Any:
    if isinstance(field, Nested):
        return to_json(value)
    if isinstance(field, Counted):
        return [_to_json(field.item, item) for item in value]
    if isinstance(field, Opaque | Blob):
        return value.hex()
    return value.name if isinstance(field, Choice) else value


def _from_json(field: Field, data: object, path: str) -> Any:
    if isinstance(field, Nested):
        return _record_from_json(field.record, data, path)
    value = _plain_value(field, data, path)
    if not field.is_legal(value):
        raise BadJson(path, _expected(field))
    return value


def _plain_value(field: Field, data: object, path: str) -> Any:
    if isinstance(field, Counted):
        if not isinstance(data, list):
            raise BadJson(path, "a list")
        return tuple(_from_json(field.item, item, f"{path}[{index}]") for index, item in enumerate(data))
    if isinstance(field, Opaque | Blob):
        return _bytes_from_hex(field, data, path)
    if isinstance(field, Choice):
        return field.choices.__members__.get(data) if isinstance(data, str) else None
    assert isinstance(field, Uint | Boolean | Text)
    return data


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


def _record_from_json(cls: type[R], data: object, path: str) -> R:
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
    value = cls(**{f.name: _from_json(f.type, data[f.name], f"{before}{f.name}") for f in declared})
    broken = value.broken_rule()
    if broken is not None:
        raise BadJson(f"{before}{broken.field}", broken.expected)
    return value
