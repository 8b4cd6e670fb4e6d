"""Envelopes that no honest client seals: they open, and what is in them breaks a rule of spec 8.2.

The codec's own sealing refuses to make them, so this uses the same HPKE library directly, for the suite that every
implementation must have.
"""

from collections.abc import Callable

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from paygate.codec import limits
from paygate.codec.seal import envelope_info
from paygate.codec.sealed import CredentialsPlaintext, SuiteKey, Terms
from paygate.conform.craft import body_with, encode_any, parts_of

Seal = Callable[[SuiteKey, Terms], bytes]


def foreign_envelopes(nonce: bytes) -> list[tuple[str, Seal]]:
    """(what is wrong with the plaintext, how to seal it) for each rule of the plaintext; X25519 keys only."""
    good = CredentialsPlaintext(
        format_version=1,
        user_id_size=1,
        user_id=b"x".ljust(limits.USER_ID_SIZE_MAX, b"\0"),
        password_key=bytes(limits.PASSWORD_KEY_SIZE),
        nonce=nonce,
        padding=bytes(142),
    )
    whole = b"".join(part.encoded for part in parts_of(good))
    fields = {part.path: part for part in parts_of(good)}

    def with_field(path: str, value: object) -> bytes:
        return body_with(good, path, encode_any(fields[path].field, value))

    def with_user_id(user_id: bytes) -> bytes:
        size = with_field("user_id_size", len(user_id))
        return size[:2] + user_id.ljust(limits.USER_ID_SIZE_MAX, b"\0") + whole[2 + limits.USER_ID_SIZE_MAX :]

    wrong = [
        ("format version 0", with_field("format_version", 0)),
        ("format version 2", with_field("format_version", 2)),
        ("an empty user ID", with_field("user_id_size", 0)),
        ("a user ID of 65 bytes", with_field("user_id_size", limits.USER_ID_SIZE_MAX + 1)),
        ("something behind the user ID", with_field("user_id", b"xy".ljust(limits.USER_ID_SIZE_MAX, b"\0"))),
        ("something in the last byte of the user ID", with_field("user_id", b"x" + bytes(62) + b"\1")),
        ("padding that is not zero", with_field("padding", bytes(141) + b"\1")),
        ("a user ID that is no UTF-8", with_user_id(b"\xff\xfe")),
        ("a user ID with a control character", with_user_id(b"a\nb")),
        ("a user ID that is not in normal form C", with_user_id("e\u0301".encode())),
        ("a byte too few", whole[:-1]),
        ("a byte too many", whole + b"\0"),
    ]
    return [(what, _sealer(plaintext)) for what, plaintext in wrong]


def _sealer(plaintext: bytes) -> Seal:
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)

    def seal(suite_key: SuiteKey, terms: Terms) -> bytes:
        public_key = X25519PublicKey.from_public_bytes(suite_key.public_key)
        return suite.encrypt(plaintext, public_key, info=envelope_info(suite_key.key_id, terms))

    return seal
