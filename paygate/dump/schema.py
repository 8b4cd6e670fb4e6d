"""The JSON Schema of what `--json` prints, from the declarations (R20): `paygate-dump schema`, spec/dump.schema.json.

Members are only ever added, so the schema forbids none that it does not know: who validates with an older one than the
tool that printed goes on working. Where a field may be masked, the mask may stand in its value's place.
"""

import json
from enum import Enum
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.fields import (
    PAYMENT_ID,
    SESSION_ID,
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
from paygate.codec.jsonform import MASK
from paygate.codec.messages import MESSAGES
from paygate.dump.json_lines import FLAGS, SCHEMA
from paygate.dump.model import FlowKind, Side, StreamEvent
from paygate.dump.stats import PERCENTILES

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_BIG: Final[Schema] = {"type": "string", "pattern": "^(0|-?[1-9][0-9]*)$"}
_TIME: Final[Schema] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$"}
_WHOLE: Final = "of the whole capture, also where filters choose frames"
_FLOW: Final[Schema] = {"type": "integer", "minimum": 1}


def text() -> str:
    """The schema as JSON text."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema() -> Schema:
    """What each line of the output is."""
    types = {
        "frame": _frame(),
        "finding": _object(**_head("finding"), **_finding()),
        "connection": _connection(),
        "end": _object(**_head("end"), counts=_object(frames=_COUNT, findings=_COUNT, connections=_COUNT)),
        "stats": _stats(),
    }
    records = _records()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "paygate-dump --json: one object a line",
        "description": "Members are only ever added, and so are types, events and names of findings; whatever else "
        "changes, `schema` changes with it. Numbers that can pass 2**53 are decimal strings, bytes are hexadecimal, "
        "codes their names; null is unknown.",
        "type": "object",
        "required": ["type", "schema"],
        "properties": {"type": _STRING, "schema": {"const": SCHEMA}},
        "allOf": [_when("type", name, _ref(name)) for name in types],
        "$defs": {
            **types,
            "frame_finding": _object(**_finding()),
            "endpoint": _endpoint(),
            "masked_secret": _object(**{MASK: {"const": "secret"}}),
            "masked_sized": _object(**{MASK: {"const": "sized"}, "size": _COUNT}),
            **{cls.__name__: _record(cls) for cls in records},
            **{codes.__name__: _names(codes) for codes in _registries(records)},
        },
    }


# -- objects -----------------------------------------------------------------------------------------------


def _frame() -> Schema:
    names = {int(kind): declared.__name__ for kind, declared in MESSAGES.items()}
    members = _object(
        **_head("frame"),
        index={"type": "integer", "minimum": 1},
        **_when_seen(),
        **_where_seen(),
        size={"type": "integer", "minimum": limits.HEADER_SIZE, "maximum": limits.FRAME_SIZE_MAX},
        kind={"enum": list(names.values())},
        kind_code={"enum": list(names)},
        correlation_id=_field(Uint(8)),
        flags={"type": "array", "items": {"enum": list(FLAGS)}, "uniqueItems": True},
        mac=_or_null(_field(Opaque(limits.MAC_SIZE))),
        message=_or_null({"type": "object"}),
        body=_or_null({"anyOf": [_field(Blob(0, limits.BODY_SIZE_MAX)), _ref("masked_secret")]}),
        answers=_or_null(_object(index={"type": "integer", "minimum": 1}, packet=_COUNT)),
        latency_ns=_or_null(_BIG),
        payment_id=_or_null(_field(PAYMENT_ID)),
        transaction_id=_or_null(_STRING),
        session_id=_or_null(_field(SESSION_ID)),
        opened=_or_null(_opened()),
        findings={"type": "array", "items": _ref("frame_finding")},
    )
    by_kind = [_when("kind", name, {"properties": {"message": _or_null(_ref(name))}}) for name in names.values()]
    return {**members, "allOf": by_kind}


def _opened() -> Schema:
    no_text = _object(hex=_field(Blob(0, limits.USER_ID_SIZE_MAX)))
    return _object(user_id={"anyOf": [_STRING, no_text, _ref("masked_secret")]}, password_key=_ref("masked_secret"))


def _finding() -> dict[str, Schema]:
    return {
        "name": _STRING,
        **_when_seen(),
        "flow": _or_null(_FLOW),
        "side": _or_null(_side()),
        "offset": _or_null(_COUNT),
        "frame_offset": _or_null(_COUNT),
        "path": _or_null(_STRING),
        "expected": _STRING,
        "got": _STRING,
        "section": _or_null(_STRING),
    }


def _connection() -> Schema:
    return _object(
        **_head("connection"),
        # An older schema has to let newer events through.
        event={**_STRING, "examples": [event.name for event in StreamEvent]},
        meaning=_STRING,
        **_when_seen(),
        **_where_seen(),
        size=_COUNT,
    )


def _stats() -> Schema:
    """What --stats --json prints, alone."""
    latency = _object(count=_COUNT, **{f"{name}_ns": _BIG for name in ("min", "mean", *PERCENTILES, "max")})
    return _object(
        **_head("stats"),
        begin=_or_null(_TIME),
        end=_or_null(_TIME),
        span_ns=_or_null(_BIG),
        frames=_COUNT,
        size=_COUNT,
        connections=_COUNT,
        kinds=_by_name(_object(count=_COUNT, size=_COUNT, latency=_or_null(latency))),
        outcomes=_by_name(_by_name(_by_name(_COUNT))),
        payments=_object(
            begun=_COUNT,
            answered=_by_name(_COUNT),
            open=_COUNT,
            end_to_end=_or_null(latency),
            answered_per_second=_or_null({"type": "number", "minimum": 0}),
        ),
        findings=_by_name(_COUNT),
        tcp={**_or_null(_by_name(_COUNT)), "description": f"TCP segments {_WHOLE}"},
        ignored={**_or_null(_by_name(_COUNT)), "description": f"packets that were ignored, by reason, {_WHOLE}"},
    )


def _head(type_name: str) -> dict[str, Schema]:
    return {"type": {"const": type_name}, "schema": {"const": SCHEMA}}


def _when_seen() -> dict[str, Schema]:
    return {"time": _or_null(_TIME), "time_ns": _or_null(_BIG), "packet": _COUNT}


def _where_seen() -> dict[str, Schema]:
    end = _or_null(_ref("endpoint"))
    return {
        "flow": _FLOW,
        "source": _names(FlowKind),
        "side": _or_null(_side()),
        "sender": end,
        "receiver": end,
        "stream_offset": _COUNT,
    }


def _side() -> Schema:
    return {"enum": [side.name.lower() for side in Side]}


def _endpoint() -> Schema:
    port = {"type": "integer", "minimum": 0, "maximum": 65_535}
    return _object(host=_STRING, port=port, role=_or_null(_names(Role)), party_id=_or_null(_STRING))


# -- records -----------------------------------------------------------------------------------------------


def _records() -> list[type[Record]]:
    """Every message and what is nested in it."""
    found: list[type[Record]] = list(MESSAGES.values())
    for record in found:  # it grows while it is walked
        inner = [_item_of(f.type) for f in fields_of(record)]
        found += [field.record for field in inner if isinstance(field, Nested) and field.record not in found]
    return found


def _registries(records: list[type[Record]]) -> list[type[Enum]]:
    types = [_item_of(f.type) for record in records for f in fields_of(record)]
    return list(dict.fromkeys(field.choices for field in types if isinstance(field, Choice)))


def _item_of(field: Field) -> Field:
    return _item_of(field.item) if isinstance(field, Counted) else field


def _record(cls: type[Record]) -> Schema:
    return _object(**{f.name: _maskable(f) for f in fields_of(cls)})


def _maskable(field: WireField) -> Schema:
    described = {**_field(field.type), "description": field.doc}
    if field.sensitivity is Sensitivity.PUBLIC:
        return described
    mask = "masked_sized" if field.sensitivity is Sensitivity.SIZED else "masked_secret"
    return {"anyOf": [described, _ref(mask)]}


def _field(field: Field) -> Schema:
    match field:
        case Nested():
            return _ref(field.record.__name__)
        case Choice():
            return _ref(field.choices.__name__)
        case Counted():
            items = _field(field.item)
            return {"type": "array", "items": items, "minItems": field.minimum, "maxItems": field.maximum}
        case Opaque():
            return _hex(field.size, field.size)
        case Blob():
            return _hex(field.minimum, field.maximum)
        case Boolean():
            return {"type": "boolean"}
        case Uint(width=8):
            return {"type": "string", "pattern": "^(0|[1-9][0-9]{0,19})$"}
        case Uint():
            return {"type": "integer", "minimum": field.minimum, "maximum": field.maximum}
        case Text():
            # No character takes less than a byte, so what the bytes allow bounds the characters too.
            return {"type": "string", "minLength": min(field.minimum, 1), "maxLength": field.maximum}
    raise AssertionError(f"no schema for {type(field).__name__}")


# -- what schemas are made of ------------------------------------------------------------------------------


def _object(**members: Schema) -> Schema:
    return {"type": "object", "required": list(members), "properties": members}


def _by_name(of: Schema) -> Schema:
    """An object whose members' names are told by the input, such as kinds that were seen."""
    return {"type": "object", "additionalProperties": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _or_null(of: Schema) -> Schema:
    return {"anyOf": [of, {"type": "null"}]}


def _names(of: type[Enum]) -> Schema:
    return {"enum": [member.name for member in of]}


def _hex(size_min: int, size_max: int) -> Schema:
    return {"type": "string", "pattern": "^([0-9a-f]{2})*$", "minLength": 2 * size_min, "maxLength": 2 * size_max}


def _when(member: str, value: str, then: Schema) -> Schema:
    return {"if": {"required": [member], "properties": {member: {"const": value}}}, "then": then}
