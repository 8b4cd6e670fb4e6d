"""Files of the client that people read: one JSON object, one field a line, each field refused by its name."""

import json
from typing import Any

from paygate.codec.fields import Field
from paygate.codec.jsonform import BadJson, from_json
from paygate.codec.sealed import Terms


def json_text(fields: dict[str, Any]) -> bytes:
    """The text of such a file, everything as it is in UTF-8."""
    return f"{json.dumps(fields, indent=2, ensure_ascii=False)}\n".encode()


def read_json(data: bytes, file_format: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of such a file: exactly these names. Raises BadJson."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise BadJson("", "JSON") from None
    if not isinstance(fields, dict) or fields.get("format") != file_format:
        raise BadJson("format", f'"{file_format}"')
    for name in names:
        if name not in fields:
            raise BadJson(name, "a value")
    if len(fields) != len(names):
        raise BadJson("", f"no fields but {', '.join(names)}")
    return fields


def terms_in(fields: dict[str, Any]) -> Terms:
    """The field `terms`. Raises BadJson with the whole path."""
    try:
        return from_json(Terms, fields["terms"])
    except BadJson as error:
        raise BadJson(f"terms.{error.path}" if error.path else "terms", error.expected) from None


def text_in(fields: dict[str, Any], name: str, field: Field) -> str:
    """A text that is legal for this field type. Raises BadJson."""
    text = any_text_in(fields, name)
    if not field.is_legal(text):
        raise BadJson(name, field.expected)
    return text


def bytes_in(fields: dict[str, Any], name: str, field: Field) -> bytes:
    """Bytes in hexadecimal that are legal for this field type. Raises BadJson."""
    expected = f"{field.expected}, in hexadecimal"
    try:
        data = bytes.fromhex(any_text_in(fields, name))
    except ValueError:
        raise BadJson(name, expected) from None
    if not field.is_legal(data):
        raise BadJson(name, expected)
    return data


def any_text_in(fields: dict[str, Any], name: str) -> str:
    """A text, whatever it says. Raises BadJson."""
    value = fields[name]
    if not isinstance(value, str):
        raise BadJson(name, "a text")
    return value
