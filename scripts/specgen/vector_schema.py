"""schema.json: the JSON Schema (2020-12) of all vector files, strict, from the same declarations as the codec."""

from enum import IntEnum
from typing import Any, Final

from paygate.codec import sealed
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.limits import FRAME_SIZE_MAX, KEY_LIST_SIZE_MAX
from paygate.codec.messages import MESSAGES
from specgen.words import SOCKET_KINDS

Schema = dict[str, Any]

_RECORDS: Final = [
    declared
    for declared in vars(sealed).values()
    if isinstance(declared, type) and issubclass(declared, Record) and declared is not Record
]
_WHOLE_NUMBER: Final = r"^(0|[1-9][0-9]{0,19})$"
_HEX: Final = "^([0-9a-f]{2})*$"
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_U64: Final[Schema] = {"type": "string", "pattern": _WHOLE_NUMBER}
_PARTY: Final[Schema] = {"enum": ["client", "gateway", "bank"]}
_LINK: Final[Schema] = {"enum": ["client", "bank"]}


def render() -> Schema:
    """What schema.json holds."""
    files = {"frames": _frames(), "records": _records(), "crypto": _crypto(), "session": _session()}
    declared = [f.type for record in _all_records() for f in fields_of(record)]
    registries = {field.choices.__name__: field.choices for field in declared if isinstance(field, Choice)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "paygate protocol version 1: test vectors",
        "description": "Each file says in `vectors` which of the definitions it follows.",
        "type": "object",
        "required": ["vectors"],
        "properties": {"vectors": {"enum": list(files)}},
        "allOf": [_when("vectors", name, _ref(f"{name}.json")) for name in files],
        "$defs": {
            **{f"{name}.json": schema for name, schema in files.items()},
            **{cls.__name__: _record(cls) for cls in _all_records()},
            **{name: {"enum": [_code(code) for code in registries[name]]} for name in sorted(registries)},
        },
    }


def _all_records() -> list[type[Record]]:
    return [*_RECORDS, *(MESSAGES[kind] for kind in SOCKET_KINDS)]


# -- what schemas are made of ----------------------------------------------------------------------------


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(**members: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(members),
        "properties": members,
        "additionalProperties": False,
    }


def _list(item: Schema, minimum: int = 1) -> Schema:
    return {"type": "array", "minItems": minimum, "items": item}


def _when(member: str, value: Any, then: Schema) -> Schema:
    return {"if": {"properties": {member: {"const": value}}}, "then": then}


def _hex(size_min: int, size_max: int) -> Schema:
    """Lower-case hexadecimal text of so many bytes."""
    return {"type": "string", "pattern": _HEX, "minLength": 2 * size_min, "maxLength": 2 * size_max}


def _bytes(size: int) -> Schema:
    return _hex(size, size)


def _code(code: IntEnum) -> Schema:
    return {"code": int(code), "name": code.name}


def _record(cls: type[Record]) -> Schema:
    return _object(**{f.name: _field(f.type) for f in fields_of(cls)})


def _field(field: Field) -> Schema:
    match field:
        case Nested():
            return _ref(field.record.__name__)
        case Choice():
            return _ref(field.choices.__name__)
        case Counted():
            return {**_list(_field(field.item), field.minimum), "maxItems": field.maximum}
        case Opaque():
            return _bytes(field.size)
        case Blob():
            return _hex(field.minimum, field.maximum)
        case Boolean():
            return _BOOLEAN
        case Uint(width=8):
            return _U64
        case Uint():
            return {"type": "integer", "minimum": field.minimum, "maximum": field.maximum}
        case Text():
            return _text(field)
    raise AssertionError(f"no schema for {field}")


def _text(field: Text) -> Schema:
    # No character takes less than a byte, so what the bytes allow bounds the characters too.
    schema: Schema = {"type": "string", "minLength": min(field.minimum, 1), "maxLength": field.maximum}
    if field.charset is not None:
        schema["pattern"] = f"^({field.charset})$" if field.minimum else f"^({field.charset})?$"
    return schema


# -- the files -------------------------------------------------------------------------------------------

_ERRORS: Final[Schema] = {**_list(_ref(ErrorCode.__name__)), "maxItems": 2, "uniqueItems": True}
_PATH: Final[Schema] = {"type": "string", "pattern": r"^([a-z_]+(\.[a-z_]+)*)?$"}
_KINDS: Final = [{"code": int(kind), "name": MESSAGES[kind].__name__} for kind in SOCKET_KINDS]
_PIPE_KINDS: Final = [{"code": int(k), "name": MESSAGES[k].__name__} for k in Kind if k not in SOCKET_KINDS]
_ANY_KIND: Final[Schema] = {
    "anyOf": [
        {"enum": [*_KINDS, *_PIPE_KINDS]},
        _object(code={"type": "integer", "minimum": 0, "maximum": 255}, name={"const": ""}),
    ]
}
_FIELDS_BY_KIND: Final = [_when("kind", kind, {"properties": {"fields": _ref(str(kind["name"]))}}) for kind in _KINDS]
_FRAME: Final = _hex(20, FRAME_SIZE_MAX)


def _frames() -> Schema:
    valid = _object(
        name=_TEXT,
        kind={"enum": _KINDS},
        link=_LINK,
        sender=_PARTY,
        receiver=_PARTY,
        correlation_id=_U64,
        authenticated=_BOOLEAN,
        frame=_FRAME,
        fields={"type": "object"},
    )
    invalid = _object(
        name=_TEXT,
        kind=_ANY_KIND,
        link=_LINK,
        sender=_PARTY,
        receiver=_PARTY,
        frame=_FRAME,
        header_suffices=_BOOLEAN,
        errors=_ERRORS,
        closes={"const": True},
        path=_PATH,
    )
    return _object(
        vectors={"const": "frames"},
        link_key=_bytes(32),
        valid=_list({**valid, "allOf": _FIELDS_BY_KIND}),
        invalid=_list(invalid),
    )


def _records() -> Schema:
    names = {"enum": [cls.__name__ for cls in _RECORDS]}
    encoding = _hex(0, KEY_LIST_SIZE_MAX)
    valid = _object(name=_TEXT, record=names, encoding=encoding, fields={"type": "object"})
    by_name = [_when("record", cls.__name__, {"properties": {"fields": _ref(cls.__name__)}}) for cls in _RECORDS]
    invalid = _object(name=_TEXT, record=names, encoding=encoding, errors=_ERRORS, path=_PATH)
    return _object(vectors={"const": "records"}, valid=_list({**valid, "allOf": by_name}), invalid=_list(invalid))


def _crypto() -> Schema:
    any_hex = _hex(0, KEY_LIST_SIZE_MAX)
    label = _hex(2, 64)
    pair = {"private_key": _bytes(32), "public_key": _bytes(32)}
    key_id = {"key_id_input_sha256": _bytes(32), "key_id": _bytes(8)}
    keys = _object(
        link_key=_bytes(32),
        pepper=_bytes(32),
        root=_object(**pair),
        receipt=_object(**pair, **key_id),
        x25519=_object(**pair, **key_id),
        hybrid=_object(private_key=_bytes(96), public_key=_bytes(1_216), **key_id),
    )
    frame = _object(
        kind={"enum": _KINDS},
        checksum_input=any_hex,
        checksum=_bytes(4),
        mac_input=any_hex,
        hmac_sha256=_bytes(32),
        mac=_bytes(16),
        frame=_FRAME,
    )
    password = _object(
        name=_TEXT,
        bank_id=_TEXT,
        user_id_typed_utf8=_hex(1, 128),
        user_id_utf8=_hex(1, 64),
        password_typed_utf8=_hex(1, 510),
        password_utf8=_hex(1, 255),
        parameters=_ref("PasswordKeyParameters"),
        salt_input=any_hex,
        salt_input_sha256=_bytes(32),
        salt=_bytes(16),
        password_key=_bytes(32),
        verifier_input=any_hex,
        verifier=_bytes(32),
    )
    labels = ("envelope", "password_salt", "verifier", "key_list", "receipt", "receipt_root")
    return _object(
        vectors={"const": "crypto"},
        labels=_object(**dict.fromkeys(labels, label)),
        test_keys=keys,
        frames=_list(frame),
        passwords=_list(password),
        x25519_envelope=_envelope(
            ephemeral_private_key=_bytes(32),
            enc=_bytes(32),
            dh=_bytes(32),
            kem_context=_bytes(64),
            eae_prk=_bytes(32),
            shared_secret=_bytes(32),
            **_key_schedule(16),
            ciphertext=_bytes(272),
        ),
        hybrid_envelope=_envelope(
            enc=_bytes(1_120),
            ciphertext=_bytes(272),
            ml_kem_ciphertext=_bytes(1_088),
            x25519_ephemeral_public_key=_bytes(32),
            ml_kem_shared_secret=_bytes(32),
            x25519_shared_secret=_bytes(32),
            combiner_input=_bytes(134),
            shared_secret=_bytes(32),
            **_key_schedule(32),
        ),
        refused_envelopes=_list(
            _object(name=_TEXT, key_id=_bytes(8), terms=_ref("Terms"), envelope=_hex(1, 2_048), reason=_ref("Reason"))
        ),
        key_list=_key_list(),
        receipts=_receipts(),
    )


def _key_schedule(key_size: int) -> dict[str, Schema]:
    return {
        "suite_id": _bytes(10),
        "psk_id_hash": _bytes(32),
        "info_hash": _bytes(32),
        "key_schedule_context": _bytes(65),
        "secret": _bytes(32),
        "key": _bytes(key_size),
        "base_nonce": _bytes(12),
    }


def _envelope(**steps: Schema) -> Schema:
    return _object(
        suite=_object(kem_id=_ref("KemId"), kdf_id=_ref("KdfId"), aead_id=_ref("AeadId")),
        key_id=_bytes(8),
        terms=_ref("Terms"),
        terms_encoding=_hex(66, 255),
        info=_hex(66, 512),
        plaintext_fields=_ref("CredentialsPlaintext"),
        plaintext=_bytes(256),
        steps=_object(**steps),
        envelope=_hex(304, 1_392),
        envelope_hash=_bytes(32),
    )


def _key_list() -> Schema:
    signed = _hex(0, KEY_LIST_SIZE_MAX)
    check = _object(
        name=_TEXT,
        signed_key_list=signed,
        root_public_key=_bytes(32),
        bank_id=_TEXT,
        now_ms=_U64,
        serial_min=_U64,
        result={"enum": ["accepted", "malformed", "signature", "bank_id", "validity", "serial"]},
    )
    return _object(
        fields=_ref("KeyList"),
        encoding=signed,
        signed_bytes=signed,
        signature=_bytes(64),
        signed_key_list=signed,
        checks=_list(check),
    )


def _receipts() -> Schema:
    receipt = _hex(0, 1_024)
    leaf = _object(
        leaf_index={"type": "integer", "minimum": 0, "maximum": 7},
        leaf=_bytes(32),
        path={**_list(_bytes(32), 0), "maxItems": 16},
        receipt=receipt,
    )
    tree = _object(
        leaf_count={"type": "integer", "minimum": 1, "maximum": 8},
        root=_bytes(32),
        signed_bytes=_hex(32, 128),
        signature=_bytes(64),
        leaves=_list(leaf),
    )
    results = ["accepted", "malformed", "unknown_key", "path", "signature", "terms", "envelope_hash"]
    check = _object(
        name=_TEXT, receipt=receipt, terms=_ref("Terms"), envelope_hash=_bytes(32), result={"enum": results}
    )
    return _object(
        leaf=_object(
            statement=_ref("ReceiptStatement"),
            statement_encoding=receipt,
            leaf_input=receipt,
            leaf=_bytes(32),
        ),
        trees=_list(tree),
        checks=_list(check),
    )


def _session() -> Schema:
    step = _object(
        number={"type": "integer", "minimum": 1, "maximum": 100},
        at_ms=_U64,
        connection={"type": "string", "pattern": "^(client|bank)-[1-9]$"},
        link=_LINK,
        sender=_PARTY,
        receiver=_PARTY,
        text=_TEXT,
        delivered=_BOOLEAN,
        kind={"enum": _KINDS},
        correlation_id=_U64,
        frame=_FRAME,
        fields={"type": "object"},
    )
    secrets = _object(
        root_private_key=_bytes(32),
        root_public_key=_bytes(32),
        receipt_private_key=_bytes(32),
        x25519_private_key=_bytes(32),
        link_key=_bytes(32),
        pepper=_bytes(32),
        user_id=_TEXT,
        password=_TEXT,
        verifier=_bytes(32),
        passcode=_TEXT,
    )
    of_session = _object(
        password_typed=_TEXT, password_key=_bytes(32), nonce=_bytes(16), ephemeral_private_key=_bytes(32)
    )
    session = _object(name=_TEXT, about=_TEXT, secrets=of_session, steps=_list({**step, "allOf": _FIELDS_BY_KIND}))
    return _object(vectors={"const": "session"}, secrets=secrets, sessions=_list(session))
