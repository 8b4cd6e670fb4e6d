"""`spec/registry.json`: every kind, record, code, limit, timer, label and requirement, for programs in any language."""

import json
from collections.abc import Sequence
from typing import Any

from paygate.codec import codes, limits
from paygate.codec.codes import Code, PaymentStatus, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.frame import FLAG_AUTHENTICATED, MAGIC, Header, body_size_range
from paygate.codec.messages import MESSAGES
from paygate.codec.money import CURRENCY_EXPONENTS
from paygate.codec.seal import SUITES
from specgen.declared import SEALED_RECORDS
from specgen.document import CODES, Requirement
from specgen.tables import LABELS, TIMERS, documented_limits
from specgen.words import SOCKET_KINDS, first_sentence, message_name, route_words, sizes_of


def render(edition: str, requirements: Sequence[Requirement]) -> str:
    """The file's text. `edition`: the spec's date. 64-bit numbers are decimal strings, bytes lower-case hexadecimal."""
    found = {
        "protocol_version": limits.PROTOCOL_VERSION,
        "edition": edition,
        "magic": MAGIC.hex(),
        "flags": {"AUTHENTICATED": FLAG_AUTHENTICATED},
        "header": _record(Header),
        "kinds": [_kind(kind) for kind in MESSAGES],
        "records": {cls.__name__: _record(cls) for cls in SEALED_RECORDS},
        "codes": {cls.__name__: [_code(code) for code in cls] for cls in CODES.values()},
        "limits": {name: {"value": _number(value, 8), "why": why} for name, value, why in documented_limits()},
        "timers": {name: {"ms": ms, "since": since, "then": then} for name, (ms, since, then) in TIMERS.items()},
        "currency_decimals": {"default": 2, **CURRENCY_EXPONENTS},
        "labels": {name: label.hex() for name, (label, _) in LABELS.items()},
        "suites": [
            {
                "kem": int(suite.kem_id),
                "kdf": int(suite.kdf_id),
                "aead": int(suite.aead_id),
                "public_key_size": suite.public_key_size,
                "enc_size": suite.enc_size,
            }
            for suite in SUITES
        ],
        "requirements": [{"number": r.number, "section": r.section, "text": r.text} for r in requirements],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _kind(kind: codes.Kind) -> dict[str, Any]:
    declared = MESSAGES[kind]
    size_min, size_max = body_size_range(kind)
    return {
        "kind": int(kind),
        "name": message_name(kind),
        "reply": message_name(kind.reply) if not kind.is_reply and kind is not codes.Kind.ERROR else None,
        "route": route_words(kind),
        "on_sockets": kind in SOCKET_KINDS,
        "body_size_min": size_min,
        "body_size_max": size_max,
        **_record(declared),
    }


def _record(cls: type[Record]) -> dict[str, Any]:
    size_min, size_max = sizes_of(cls)
    return {
        "what": first_sentence(cls),
        "size_min": size_min,
        "size_max": size_max,
        "fields": [
            {
                "name": field.name,
                **_type(field.type),
                "meaning": field.doc,
                "sensitivity": field.sensitivity.name.lower(),
            }
            for field in fields_of(cls)
        ],
        "rules": [{"field": rule.field, "expected": rule.expected} for rule in cls.rules],
    }


def _type(field: Field) -> dict[str, Any]:
    match field:
        case Uint():
            of: dict[str, Any] = {"type": "uint", "size": field.width}
            of |= {"minimum": _number(field.minimum, field.width), "maximum": _number(field.maximum, field.width)}
            return of | ({"unit": field.unit} if field.unit else {})
        case Choice():
            return {"type": "code", "size": field.width, "codes": field.choices.__name__}
        case Boolean():
            return {"type": "bool", "size": 1}
        case Opaque():
            return {"type": "bytes", "size": field.size, "zero_allowed": field.zero_allowed}
        case Blob():
            of = {"type": "blob", "prefix_size": 2, "minimum": field.minimum, "maximum": field.maximum}
            return of | ({"holds": field.holds} if field.holds else {})
        case Text():
            of = {"type": "text", "prefix_size": 1, "minimum": field.minimum, "maximum": field.maximum}
            return of | {"pattern": field.charset, "words": field.words}
        case Counted():
            of = {"type": "list", "prefix_size": 1, "minimum": field.minimum, "maximum": field.maximum}
            return of | {"item": _type(field.item)}
        case Nested():
            return {"type": "record", "record": field.record.__name__}
    raise AssertionError(f"the registry has no words for {type(field).__name__}")


def _number(value: int, width: int) -> int | str:
    """A number as JSON holds it exactly: of 64 bits, a decimal string, always, so that its type never changes."""
    return str(value) if width == 8 else value


def _code(code: Code) -> dict[str, Any]:
    of: dict[str, Any] = {"code": int(code), "name": code.name, "meaning": code.meaning}
    match code:
        case ErrorCode():
            of["closes"] = code.closes
        case Reason():
            of["given_by"] = "bank" if code.is_banks else "gateway" if code else None
        case TransferOutcome():
            of |= {"final": code.is_final, "reasons": [r.name for r in Reason if code.fits(r)]}
        case PaymentStatus():
            of["reasons"] = [r.name for r in Reason if code.fits(r)]
    return of
