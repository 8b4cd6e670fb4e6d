"""crypto.json: every cryptographic value of spec 4 and 8 with all that lies between input and output.

The intermediates are computed here from the formulas of the spec; the tests compute the results a second time with
`paygate/codec/seal.py`. What a receiver must refuse stands beside what it must take.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from paygate.codec import limits
from paygate.codec.codes import AeadId, KdfId, KemId, Kind, Reason
from paygate.codec.fields import fields_of
from paygate.codec.seal import (
    DEFAULT_PASSWORD_KEY,
    LABEL_ENVELOPE,
    LABEL_KEY_LIST,
    LABEL_RECEIPT,
    LABEL_RECEIPT_ROOT,
    LABEL_SALT,
    LABEL_VERIFIER,
    password_key,
    seal_credentials,
)
from paygate.codec.sealed import CredentialsPlaintext, PasswordKeyParameters, Terms
from specgen.vector_checks import key_lists, receipts
from specgen.vector_fixtures import (
    BANK_ID,
    CHEAP_PASSWORD_KEY,
    HYBRID_KEY,
    LINK_KEY,
    PASSWORD,
    PEPPER,
    RECEIPT_KEY,
    RECEIPT_KEY_ID,
    RECEIPT_PUBLIC_KEY,
    ROOT_KEY,
    ROOT_PUBLIC_KEY,
    USER_ID,
    X25519_KEY,
    build_terms,
    fixed_bytes,
)
from specgen.vector_frames import correlation_id_of, frame_bytes
from specgen.vector_hpke import Steps, open_hybrid, seal_x25519
from specgen.vector_messages import variants
from specgen.vector_samples import with_field
from specgen.vector_values import encode, json_of, json_of_code

_X25519: Final = X25519_KEY.public_suite_key()
_HYBRID: Final = HYBRID_KEY.public_suite_key()
_NONCE: Final = fixed_bytes("nonce", limits.ENVELOPE_NONCE_SIZE)


def render(previous: str) -> dict[str, Any]:
    """What crypto.json holds. `previous` is its text so far, or empty: the hybrid envelope is taken from it."""
    return {
        "vectors": "crypto",
        "labels": {
            "envelope": LABEL_ENVELOPE.hex(),
            "password_salt": LABEL_SALT.hex(),
            "verifier": LABEL_VERIFIER.hex(),
            "key_list": LABEL_KEY_LIST.hex(),
            "receipt": LABEL_RECEIPT.hex(),
            "receipt_root": LABEL_RECEIPT_ROOT.hex(),
        },
        "test_keys": _keys(),
        "frames": [*_frames()],
        "passwords": [_password(*case) for case in _PASSWORDS],
        "x25519_envelope": _x25519_envelope(),
        "hybrid_envelope": _hybrid_envelope(previous),
        "refused_envelopes": [*_refused_envelopes()],
        "key_list": key_lists(),
        "receipts": receipts(),
    }


def _hex(steps: Steps) -> dict[str, str]:
    return {name: value.hex() for name, value in steps.items()}


def _keys() -> dict[str, Any]:
    return {
        "link_key": LINK_KEY.hex(),
        "pepper": PEPPER.hex(),
        "root": {"private_key": ROOT_KEY.private_bytes_raw().hex(), "public_key": ROOT_PUBLIC_KEY.hex()},
        "receipt": {
            "private_key": RECEIPT_KEY.private_bytes_raw().hex(),
            "public_key": RECEIPT_PUBLIC_KEY.hex(),
            "key_id_input_sha256": hashlib.sha256(RECEIPT_PUBLIC_KEY).hexdigest(),
            "key_id": RECEIPT_KEY_ID.hex(),
        },
        "x25519": _sealing_key(X25519_KEY.private_bytes(), _X25519.public_key, _X25519.key_id),
        "hybrid": _sealing_key(HYBRID_KEY.private_bytes(), _HYBRID.public_key, _HYBRID.key_id),
    }


def _sealing_key(private_key: bytes, public_key: bytes, key_id: bytes) -> dict[str, str]:
    return {
        "private_key": private_key.hex(),
        "public_key": public_key.hex(),
        "key_id_input_sha256": hashlib.sha256(public_key).hexdigest(),
        "key_id": key_id.hex(),
    }


# -- frames (spec 4.3, 4.4) ------------------------------------------------------------------------------


def _frames() -> Iterator[dict[str, Any]]:
    for kind in (Kind.ECHO, Kind.TRANSFER_REQUEST):
        message = variants(kind, "bank")["usual"]
        frame = frame_bytes(kind, encode(message), correlation_id_of(message), LINK_KEY)
        signed, mac = frame[: -limits.MAC_SIZE], frame[-limits.MAC_SIZE :]
        yield {
            "kind": {"code": int(kind), "name": type(message).__name__},
            "checksum_input": (signed[:16] + signed[20:]).hex(),
            "checksum": signed[16:20].hex(),
            "mac_input": signed.hex(),
            "hmac_sha256": hmac.digest(LINK_KEY, signed, hashlib.sha256).hex(),
            "mac": mac.hex(),
            "frame": frame.hex(),
        }


# -- passwords (spec 8.3) --------------------------------------------------------------------------------

_PASSWORDS: Final[tuple[tuple[str, PasswordKeyParameters, str, str, str, str], ...]] = (
    ("default_parameters", DEFAULT_PASSWORD_KEY, USER_ID, USER_ID, PASSWORD, PASSWORD),
    ("least_parameters", CHEAP_PASSWORD_KEY, USER_ID, USER_ID, PASSWORD, PASSWORD),
    ("four_lanes", PasswordKeyParameters(64, 3, 4), USER_ID, USER_ID, PASSWORD, PASSWORD),
    # Typed with combining marks; what is hashed is in normal form C.
    ("normal_form", CHEAP_PASSWORD_KEY, "zoe\u0308", "zo\u00eb", "cafe\u0301 \U0001f511", "caf\u00e9 \U0001f511"),
    ("longest", CHEAP_PASSWORD_KEY, "u" * 64, "u" * 64, "p" * 255, "p" * 255),
)
"""Name, parameters, user ID as typed and in normal form C, password as typed and in normal form C."""


def _password(
    name: str, parameters: PasswordKeyParameters, user_typed: str, user_id: str, typed: str, password: str
) -> dict[str, Any]:
    salt_input = LABEL_SALT + BANK_ID.encode() + b"\0" + user_id.encode()
    key = password_key(parameters, BANK_ID, user_id, password)
    return {
        "name": name,
        "bank_id": BANK_ID,
        "user_id_typed_utf8": user_typed.encode().hex(),
        "user_id_utf8": user_id.encode().hex(),
        "password_typed_utf8": typed.encode().hex(),
        "password_utf8": password.encode().hex(),
        "parameters": json_of(parameters),
        "salt_input": salt_input.hex(),
        "salt_input_sha256": hashlib.sha256(salt_input).hexdigest(),
        "salt": hashlib.sha256(salt_input).digest()[:16].hex(),
        "password_key": key.hex(),
        "verifier_input": (LABEL_VERIFIER + key).hex(),
        "verifier": hmac.digest(PEPPER, LABEL_VERIFIER + key, hashlib.sha256).hex(),
    }


# -- envelopes (spec 8.2) --------------------------------------------------------------------------------


def _plaintext() -> CredentialsPlaintext:
    key = password_key(DEFAULT_PASSWORD_KEY, BANK_ID, USER_ID, PASSWORD)
    user_id = USER_ID.encode()
    return CredentialsPlaintext(1, len(user_id), user_id.ljust(64, b"\0"), key, _NONCE, bytes(142))


def _info(key_id: bytes, terms: Terms) -> bytes:
    return LABEL_ENVELOPE + key_id + encode(terms)


def _envelope(kem_id: KemId, aead_id: AeadId, key_id: bytes, steps: Steps, envelope: bytes) -> dict[str, Any]:
    terms = build_terms()
    return {
        "suite": {
            "kem_id": json_of_code(kem_id),
            "kdf_id": json_of_code(KdfId.HKDF_SHA256),
            "aead_id": json_of_code(aead_id),
        },
        "key_id": key_id.hex(),
        "terms": json_of(terms),
        "terms_encoding": encode(terms).hex(),
        "info": _info(key_id, terms).hex(),
        "plaintext_fields": json_of(_plaintext()),
        "plaintext": encode(_plaintext()).hex(),
        "steps": _hex(steps),
        "envelope": envelope.hex(),
        "envelope_hash": hashlib.sha256(envelope).hexdigest(),
    }


def _seal(purpose: str, plaintext: bytes, info: bytes) -> Steps:
    # Its own ephemeral key for each: two plaintexts under one would show what they differ in.
    return seal_x25519(_X25519.public_key, fixed_bytes(f"ephemeral key of {purpose}", 32), info, plaintext)


def _x25519_envelope() -> dict[str, Any]:
    steps = _seal("the usual envelope", encode(_plaintext()), _info(_X25519.key_id, build_terms()))
    envelope = steps.pop("envelope")
    return _envelope(KemId.X25519, AeadId.AES_128_GCM, _X25519.key_id, steps, envelope)


def _hybrid_envelope(previous: str) -> dict[str, Any]:
    terms, plaintext = build_terms(), _plaintext()
    info = _info(_HYBRID.key_id, terms)
    envelope = _previous_envelope(previous)
    steps = _opened(info, envelope)
    if steps is None or steps["plaintext"] != encode(plaintext):
        envelope = seal_credentials(_HYBRID, terms, USER_ID, plaintext.password_key, _NONCE)
        steps = open_hybrid(HYBRID_KEY.private_bytes(), info, envelope)
    del steps["plaintext"]
    return _envelope(KemId.MLKEM768_X25519, AeadId.AES_256_GCM, _HYBRID.key_id, steps, envelope)


def _previous_envelope(previous: str) -> bytes:
    try:
        return bytes.fromhex(json.loads(previous)["hybrid_envelope"]["envelope"])
    except (ValueError, KeyError, TypeError):
        return b""  # The file is new, or somebody has damaged it: a new envelope mends it.


def _opened(info: bytes, envelope: bytes) -> Steps | None:
    try:
        return open_hybrid(HYBRID_KEY.private_bytes(), info, envelope)
    except (ValueError, InvalidTag):
        return None


def _refused_envelopes() -> Iterator[dict[str, Any]]:
    """All for the X25519 key; each differs in one thing from the envelope that opens."""
    terms, key_id = build_terms(), _X25519.key_id
    info, plaintext = _info(key_id, terms), _plaintext()
    envelope = _seal("the usual envelope", encode(plaintext), info)["envelope"]
    for field in fields_of(Terms):
        other = with_field(terms, field.name, _OTHER_TERMS[field.name])
        yield _refused(f"other_{field.name}", other, envelope)
    other_key = _seal("another key ID", encode(plaintext), _info(fixed_bytes("another key ID", 8), terms))
    yield _refused("info_with_another_key_id", terms, other_key["envelope"])
    no_label = _seal("no label", encode(plaintext), info.removeprefix(LABEL_ENVELOPE))
    yield _refused("info_without_label", terms, no_label["envelope"])
    for name, at in (("encapsulated_key", 0), ("ciphertext", 40), ("tag", len(envelope) - 1)):
        changed = envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
        yield _refused(f"one_bit_of_{name}", terms, changed)
    yield _refused("one_byte_short", terms, envelope[:-1])
    yield _refused("one_byte_long", terms, envelope + b"\0")
    yield _refused("one_byte", terms, envelope[:1])
    yield _refused("encapsulated_key_alone", terms, envelope[:32])
    yield _refused("encapsulated_key_of_zeros", terms, bytes(32) + envelope[32:])
    for name, data in _bad_plaintexts(plaintext):
        yield _refused(f"plaintext_{name}", terms, _seal(name, data, info)["envelope"])


_OTHER_TERMS: Final[dict[str, Any]] = {
    "bank_id": "BANK2",
    "gateway_id": "GW2",
    "merchant_id": "M-101",
    "transaction_id": "TX-1002",
    "payment_id": fixed_bytes("another payment ID", 16),
    "session_id": fixed_bytes("another session ID", 16),
    "amount_minor": 125_001,
    "currency": "EUR",
    "authorised_at_ms": build_terms().authorised_at_ms + 1,
}


def _bad_plaintexts(plaintext: CredentialsPlaintext) -> Iterator[tuple[str, bytes]]:
    def changed(**changes: Any) -> bytes:
        value = plaintext
        for name, new in changes.items():
            value = with_field(value, name, new)
        return encode(value)

    def of_user(user_id: bytes) -> bytes:
        return changed(user_id=user_id.ljust(64, b"\0"), user_id_size=len(user_id))

    yield "format_version_0", changed(format_version=0)
    yield "format_version_2", changed(format_version=2)
    yield "user_id_size_0", changed(user_id=bytes(64), user_id_size=0)
    yield "user_id_size_65", changed(user_id=b"u" * 64, user_id_size=65)
    yield "user_id_not_padded_with_zeros", changed(user_id=b"asha".ljust(63, b"\0") + b"\1")
    yield "user_id_not_utf8", of_user(b"ash\xff")
    yield "user_id_not_nfc", of_user("zoe\u0308".encode())
    yield "user_id_with_line_feed", of_user(b"as\nha")
    yield "padding_not_zero", changed(padding=bytes(141) + b"\1")
    yield "one_byte_short", encode(plaintext)[:-1]
    yield "one_byte_long", encode(plaintext) + b"\0"


def _refused(name: str, terms: Terms, envelope: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "key_id": _X25519.key_id.hex(),
        "terms": json_of(terms),
        "envelope": envelope.hex(),
        "reason": json_of_code(Reason.TERMS),
    }
