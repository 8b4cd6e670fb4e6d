"""Writes `spec/paygate.lua`: a Wireshark dissector.

Strategy: the protocol becomes tables of kinds, records, codes and faults. Two files beside this one are the engine that
reads them, the same whatever the records are: `paygate_prelude.lua` finds out where fields stand and what is wrong with
them, `paygate_dissect.lua` shows it. So a field that is declared is dissected, masked and checked without a line of
Lua for it.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.codes import Code, Kind
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import (
    TIME_MS,
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
    WireField,
    fields_of,
)
from paygate.codec.frame import FLAG_AUTHENTICATED, FLAGS_KNOWN, MAGIC, Header, body_size_range
from paygate.codec.messages import MESSAGES
from paygate.codec.walk import record_held
from specgen.declared import SOCKET_MESSAGES, codes_from, records_from, snake_case
from specgen.words import SOCKET_KINDS, first_sentence

PORTS: Final = "15000,15001"
"""Where a gateway and a bank listen unless told otherwise; a preference of the dissector."""

SEEN_FAULTS: Final = (
    ErrorCode.BAD_MAGIC,
    ErrorCode.UNSUPPORTED_VERSION,
    ErrorCode.UNKNOWN_KIND,
    ErrorCode.UNKNOWN_FLAG,
    ErrorCode.BODY_TOO_SMALL,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.BAD_CHECKSUM,
    ErrorCode.TRUNCATED_FIELD,
    ErrorCode.TRAILING_BYTES,
    ErrorCode.BAD_VALUE,
)
"""What can be seen of a frame by itself, without a key and without the state of its link."""

_ENGINE: Final = [Path(__file__).with_name(name) for name in ("paygate_prelude.lua", "paygate_dissect.lua")]
_MARK: Final = "-- @DECLARATIONS@\n"
_HEX_FIELDS: Final = {"magic", "kind", "flags", "correlation_id", "checksum"}
"""Of the header: bits and names, not quantities."""

assert FLAGS_KNOWN == FLAG_AUTHENTICATED == 1, "the dissector takes this one flag for the lowest bit"


class _Raw(str):
    """A piece of Lua that is written as it stands."""

    __slots__ = ()


def render() -> str:
    """The whole file."""
    engine = "\n".join(part.read_text(encoding="utf-8") for part in _ENGINE)
    assert engine.count(_MARK) == 1
    return engine.replace(_MARK, _declarations())


def _declarations() -> str:
    records = records_from([Header, *SOCKET_MESSAGES])
    constants = {
        "PORTS": PORTS,
        "MAGIC": _Raw(f"0x{MAGIC.hex()}"),
        "VERSION": limits.PROTOCOL_VERSION,
        "HEADER_SIZE": limits.HEADER_SIZE,
        "MAC_SIZE": limits.MAC_SIZE,
        "FLAG_AUTHENTICATED": FLAG_AUTHENTICATED,
        "ERROR_KIND": _hex(Kind.ERROR),
    }
    tables: dict[str, dict[Any, Any]] = {
        "KINDS": {_hex(kind): _kind(kind) for kind in SOCKET_KINDS},
        "CODES": {"kind": {_hex(kind): _kind_code(kind) for kind in SOCKET_KINDS}}
        | {snake_case(codes.__name__): _codes(codes) for codes in codes_from(records)},
        "FAULT_MEANINGS": {code.name: code.meaning for code in SEEN_FAULTS},
        "RECORDS": {snake_case(record.__name__): _record(record) for record in records},
    }
    lines = ["-- The declarations " + "-" * 96, ""]
    lines += [f"local {name} = {_lua(value)}" for name, value in constants.items()]
    for name, value in tables.items():
        lines += ["", f"local {name} = {{", *_rows(value, "  "), "}"]
    return "\n".join(lines) + "\n"


def _hex(kind: Kind) -> _Raw:
    return _Raw(f"0x{kind:02x}")


def _kind(kind: Kind) -> dict[str, Any]:
    size_min, size_max = body_size_range(kind)
    name = MESSAGES[kind].__name__
    described = {"name": name, "record": snake_case(name), "size_min": size_min, "size_max": size_max}
    is_request = kind is not Kind.ERROR and not kind.is_reply
    return described | {"meaning": first_sentence(MESSAGES[kind])} | ({"reply": _hex(kind.reply)} if is_request else {})


def _kind_code(kind: Kind) -> dict[str, str]:
    return {"name": MESSAGES[kind].__name__}


def _codes(codes: type[Code]) -> dict[int, dict[str, str]]:
    return {int(code): {"name": code.name, "meaning": code.meaning} for code in codes}


def _record(record: type[Record]) -> dict[str, Any]:
    described = {"name": record.__name__, "meaning": first_sentence(record)}
    return described | {"fields": [_field(field, record) for field in fields_of(record)]}


def _field(field: WireField, record: type[Record]) -> dict[str, Any]:
    described = {"name": field.name, **_type(field.type), "shows": field.sensitivity.name, "doc": field.doc}
    held = record_held(field.type)
    if held is not None:
        described["holds"] = snake_case(held.__name__)
    if record is Header:
        described |= {"hex": True} if field.name in _HEX_FIELDS else {}
        # An unknown kind is a fault of its own, so the value strings stand here and the declaration has none.
        described |= {"words": "kind"} if field.name == "kind" else {}
    return described


def _type(field: Field) -> dict[str, Any]:
    match field:
        case Uint():
            described: dict[str, Any] = {"is": "uint", "width": field.width}
            # In a Lua of 64-bit integers a maximum of 2**64 - 1 would not fit; the width says it already.
            described |= {"minimum": field.minimum, "maximum": min(field.maximum, 1 << 53)}
            if field.maximum == limits.UINT64_MAX:
                described["maximum"] = _Raw("math.huge")
            described |= {"unit": field.unit} if field.unit else {}
            described |= {"is_time": True} if field.unit == TIME_MS.unit else {}
        case Choice():
            described = {"is": "choice", "width": field.width, "codes": snake_case(field.choices.__name__)}
            described |= {"minimum": 0, "maximum": (1 << (8 * field.width)) - 1}
            described |= {"hex": True} if field.choices.__name__.endswith("Id") else {}
        case Boolean():
            described = {"is": "boolean", "width": 1, "minimum": 0, "maximum": 1}
        case Opaque():
            described = {"is": "opaque", "size": field.size} | ({} if field.zero_allowed else {"nonzero": True})
        case Blob():
            described = {"is": "blob", "prefix": field.PREFIX_SIZE, "minimum": field.minimum, "maximum": field.maximum}
        case Text():
            described = {"is": "text", "prefix": field.PREFIX_SIZE, "minimum": field.minimum, "maximum": field.maximum}
            described |= {"pattern": lua_pattern(field.charset)} if field.charset is not None else {}
        case Counted():
            described = {"is": "list", "prefix": field.PREFIX_SIZE, "minimum": field.minimum, "maximum": field.maximum}
            described["item"] = _type(field.item)
        case Nested():
            described = {"is": "nested", "record": snake_case(field.record.__name__)}
        case _:
            raise AssertionError(f"the dissector has no way to read {type(field).__name__}")
    return described | {"expected": field.expected}


_TOKEN: Final = re.compile(r"(?P<one>\[[^\]^%]+\]|[A-Za-z0-9])(?P<times>\{(?P<count>[0-9]+)\}|[*+])?")


def lua_pattern(charset: str) -> str:
    """The Lua pattern that matches what a charset's regular expression does.

    Raises ValueError for an expression that has more than sets, letters and repetitions: Lua has no `{n}`, no groups
    and no alternatives.
    """
    pattern, at = "", 0
    while at < len(charset):
        found = _TOKEN.match(charset, at)
        if found is None:
            raise ValueError(f"no Lua pattern for {charset!r} from position {at}")
        one, times, count = found["one"], found["times"] or "", found["count"]
        pattern += one * int(count) if count else one + times
        at = found.end()
    return f"^{pattern}$"


def _lua(value: object) -> str:
    match value:
        case _Raw():
            return value
        case bool():
            return str(value).lower()
        case str():
            # JSON's escapes of quotes and backslashes are Lua's too; there are no control characters.
            return json.dumps(value, ensure_ascii=False)
        case dict():
            return "{ " + ", ".join(f"{_key(k)} = {_lua(v)}" for k, v in value.items()) + " }"
    return str(value)


def _key(key: object) -> str:
    return key if isinstance(key, str) and not isinstance(key, _Raw) else f"[{key}]"


def _rows(table: dict[Any, Any], indent: str) -> list[str]:
    """The entries of a table, each on a line of its own down to the last table of tables."""
    lines = []
    for key, value in table.items():
        if isinstance(value, dict) and "fields" in value:
            lines.append(f"{indent}{_key(key)} = {{ name = {_lua(value['name'])}, meaning = {_lua(value['meaning'])},")
            lines.append(f"{indent}  fields = {{")
            lines += [f"{indent}    {_lua(field)}," for field in value["fields"]]
            lines += [f"{indent}  }},", f"{indent}}},"]
        elif isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()):
            lines += [f"{indent}{_key(key)} = {{", *_rows(value, indent + "  "), f"{indent}}},"]
        else:
            lines.append(f"{indent}{_key(key)} = {_lua(value)},")
    return lines
