"""What only the ends can read or make: envelopes, password keys, verifiers, key lists, receipts (spec 8).

The one file of the codec that uses `cryptography`. Randomness for keys and encapsulation is the library's; all
else that varies (time, nonces) is an argument. `SealError` and its kin never carry a secret.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from paygate.codec import limits
from paygate.codec.codes import AeadId, KdfId, KemId
from paygate.codec.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from paygate.codec.fields import PASSWORD, USER_ID, Text, fields_of, utf8_text
from paygate.codec.frame import hmac_sha256
from paygate.codec.messages import SealCredentials
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import (
    CredentialsPlaintext,
    KeyList,
    PasswordKeyParameters,
    Receipt,
    ReceiptStatement,
    SignedKeyList,
    SuiteKey,
    Terms,
)
from paygate.making import maker_of

# Every label ends in a zero byte and none is another's beginning, so no input of one use is one of another.
LABEL_ENVELOPE: Final = b"paygate/v1/envelope\0"
LABEL_SALT: Final = b"paygate/v1/password-salt\0"
LABEL_VERIFIER: Final = b"paygate/v1/verifier\0"
LABEL_KEY_LIST: Final = b"paygate/v1/key-list\0"
LABEL_RECEIPT: Final = b"paygate/v1/receipt\0"
LABEL_RECEIPT_ROOT: Final = b"paygate/v1/receipt-root\0"

_SALT_SIZE: Final = 16
_LEAF_PREFIX: Final = b"\0"  # RFC 6962 section 2.1: leaves and nodes can't be taken for one another
_NODE_PREFIX: Final = b"\1"
_LABELLED_LEAF: Final = _LEAF_PREFIX + LABEL_RECEIPT
_sha256: Final = hashlib.sha256  # looked up for every node of every receipt
_make_receipt: Final = maker_of(Receipt)

DEFAULT_PASSWORD_KEY: Final = PasswordKeyParameters(memory_kib=19_456, iteration_count=2, lane_count=1)
"""19 MiB and two passes: the design's cost, about 20 ms on one core when it was measured."""


class SealError(ProtocolError):
    """Something signed or sealed does not hold; the text says what, and never shows a secret."""


class NotOpened(SealError):
    """The envelope does not open: other terms, another key, or changed bytes (T2, T3)."""


class BadKeyList(SealError):
    """The key list is not the pinned bank's, is not valid now, or goes back to an older one (T10)."""


class BadReceipt(SealError):
    """The receipt does not verify, or speaks of another payment (T8, T9)."""


# -- suites and keys -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SuiteSpec:
    """An HPKE suite and the sizes in bytes that follow from it (spec 8.2)."""

    kem_id: KemId
    kdf_id: KdfId
    aead_id: AeadId
    public_key_size: int
    enc_size: int
    """The encapsulated key that an envelope begins with."""


SUITES: Final = (
    SuiteSpec(KemId.MLKEM768_X25519, KdfId.HKDF_SHA256, AeadId.AES_256_GCM, public_key_size=1_216, enc_size=1_120),
    SuiteSpec(KemId.X25519, KdfId.HKDF_SHA256, AeadId.AES_128_GCM, public_key_size=32, enc_size=32),
)
"""Best first: a recorded password stays worth stealing for years."""
AEAD_TAG_SIZE: Final = 16
_SUITE_IDS: Final = {suite.kem_id: (suite.kdf_id, suite.aead_id) for suite in SUITES}
_SUITES: Final = {
    KemId.X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM),
    KemId.MLKEM768_X25519: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}
_MLKEM_SEED_SIZE: Final = 64
_MLKEM_PUBLIC_KEY_SIZE: Final = 1_184
_X25519_KEY_SIZE: Final = 32


def key_id_of(public_key: bytes) -> bytes:
    """The first 8 bytes of SHA-256 of a public key's encoding (spec 8.4)."""
    return hashlib.sha256(public_key).digest()[: limits.KEY_ID_SIZE]


@dataclass(frozen=True, slots=True, repr=False)
class SealingKey:
    """A private key of one suite; held by the bank's decoder alone (R23)."""

    kem_id: KemId
    _x25519: X25519PrivateKey
    _mlkem: MLKEM768PrivateKey | None
    _hpke: "X25519PrivateKey | hpke.MLKEM768X25519PrivateKey"
    """What HPKE takes: both as one, or X25519's."""

    @staticmethod
    def generate(kem_id: KemId) -> "SealingKey":
        """Make a new key."""
        mlkem = MLKEM768PrivateKey.generate() if kem_id is KemId.MLKEM768_X25519 else None
        return SealingKey._of(kem_id, X25519PrivateKey.generate(), mlkem)

    @staticmethod
    def _of(kem_id: KemId, x25519: X25519PrivateKey, mlkem: MLKEM768PrivateKey | None) -> "SealingKey":
        return SealingKey(kem_id, x25519, mlkem, hpke.MLKEM768X25519PrivateKey(mlkem, x25519) if mlkem else x25519)

    @staticmethod
    def from_private_bytes(kem_id: KemId, data: bytes) -> "SealingKey":
        """Read what `private_bytes` wrote. Raises ValueError on another length."""
        seed_size = _MLKEM_SEED_SIZE if kem_id is KemId.MLKEM768_X25519 else 0
        if len(data) != seed_size + _X25519_KEY_SIZE:
            raise ValueError(f"a {kem_id.name} private key has {seed_size + _X25519_KEY_SIZE} bytes, not {len(data)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(data[:seed_size]) if seed_size else None
        return SealingKey._of(kem_id, X25519PrivateKey.from_private_bytes(data[seed_size:]), mlkem)

    def private_bytes(self) -> bytes:
        """The hybrid's ML-KEM seed (64 bytes), if any, then the X25519 key (32 bytes)."""
        return (self._mlkem.private_bytes_raw() if self._mlkem else b"") + self._x25519.private_bytes_raw()

    def public_suite_key(self) -> SuiteKey:
        """The entry of a key list: the hybrid's ML-KEM-768 public key (1,184 bytes), if any, then X25519's (32)."""
        mlkem = self._mlkem.public_key().public_bytes_raw() if self._mlkem else b""
        public_key = mlkem + self._x25519.public_key().public_bytes_raw()
        kdf_id, aead_id = _SUITE_IDS[self.kem_id]
        return SuiteKey(key_id_of(public_key), self.kem_id, kdf_id, aead_id, public_key)


def choose_suite_key(key_list: KeyList) -> SuiteKey:
    """The best suite that both know; of several keys of it, the first listed (T11, T12).

    Raises BadKeyList if the list has no suite that this program implements.
    """
    for suite in SUITES:
        for suite_key in key_list.suite_keys:
            ids = (suite_key.kem_id, suite_key.kdf_id, suite_key.aead_id)
            if ids == (suite.kem_id, *_SUITE_IDS[suite.kem_id]) and len(suite_key.public_key) == suite.public_key_size:
                return suite_key
    raise BadKeyList("the bank's key list has no suite that this program implements")


# -- envelope (spec 8.2) ---------------------------------------------------------------------------------


def envelope_info(key_id: bytes, terms: Terms) -> bytes:
    """HPKE `info`: label, key ID and terms. Any change to them and the envelope does not open (T2)."""
    return LABEL_ENVELOPE + key_id + encode_record(terms)


def envelope_hash(envelope: bytes) -> bytes:
    """SHA-256 of an envelope: what receipts and the gateway's records name it by."""
    return hashlib.sha256(envelope).digest()


def seal_credentials(suite_key: SuiteKey, terms: Terms, user_id: str, password_key: bytes, nonce: bytes) -> bytes:
    """Seal user ID and password key so that only the bank can read them (R4). `nonce`: 16 random bytes.

    Raises LocalProtocolError for a user ID that the field can't hold, BadKeyList for a public key that is none.
    """
    encoded = _normal("user ID", USER_ID, user_id)
    plaintext = CredentialsPlaintext(
        format_version=1,
        user_id_size=len(encoded),
        user_id=encoded.ljust(limits.USER_ID_SIZE_MAX, b"\0"),
        password_key=password_key,
        nonce=nonce,
        padding=bytes(142),
    )
    info = envelope_info(suite_key.key_id, terms)
    encoded_plaintext = encode_record(plaintext)
    try:
        return _SUITES[suite_key.kem_id].encrypt(encoded_plaintext, _hpke_public_key(suite_key), info=info)
    except ValueError:
        raise BadKeyList(f"the bank's {suite_key.kem_id.name} key is not a public key of that suite") from None


def _hpke_public_key(suite_key: SuiteKey) -> "X25519PublicKey | hpke.MLKEM768X25519PublicKey":
    mlkem_size = _MLKEM_PUBLIC_KEY_SIZE if suite_key.kem_id is KemId.MLKEM768_X25519 else 0
    x25519 = X25519PublicKey.from_public_bytes(suite_key.public_key[mlkem_size:])
    if not mlkem_size:
        return x25519
    mlkem = MLKEM768PublicKey.from_public_bytes(suite_key.public_key[:mlkem_size])
    return hpke.MLKEM768X25519PublicKey(mlkem, x25519)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What an envelope held."""

    user_id: str
    password_key: bytes


_make_credentials: Final = maker_of(Credentials)
_NOT_OPENED: Final = "the envelope does not open under these terms"


def decrypt_envelope(key: SealingKey, key_id: bytes, terms: Terms, envelope: bytes) -> bytes:
    """The bytes that were sealed under these terms, not looked at yet. Raises NotOpened."""
    try:
        return _SUITES[key.kem_id].decrypt(envelope, key._hpke, info=envelope_info(key_id, terms))
    except (InvalidTag, ValueError):
        raise NotOpened(_NOT_OPENED) from None


def read_plaintext(plaintext: bytes) -> CredentialsPlaintext:
    """What the sealed bytes hold, whoever made them: the user ID is any bytes. Raises NotOpened."""
    try:
        return decode_record(CredentialsPlaintext, plaintext)
    except RemoteProtocolError:
        raise NotOpened(_NOT_OPENED) from None


def read_credentials(plaintext: bytes) -> Credentials:
    """The credentials in the sealed bytes. Raises NotOpened."""
    opened = read_plaintext(plaintext)
    user_id = utf8_text(opened.user_id[: opened.user_id_size])
    # The sealed bytes are a stranger's: a user ID that no message can hold would break whoever sends it on.
    if user_id is None or not USER_ID.is_legal(user_id):
        raise NotOpened(_NOT_OPENED)
    return _make_credentials(user_id, opened.password_key)


def open_plaintext(key: SealingKey, key_id: bytes, terms: Terms, envelope: bytes) -> CredentialsPlaintext:
    """What an envelope holds under these terms, as `read_plaintext` has it. Raises NotOpened."""
    return read_plaintext(decrypt_envelope(key, key_id, terms, envelope))


def open_envelope(key: SealingKey, key_id: bytes, terms: Terms, envelope: bytes) -> Credentials:
    """Open an envelope under these terms. Raises NotOpened, whatever was wrong: one answer for every cause."""
    return read_credentials(decrypt_envelope(key, key_id, terms, envelope))


# -- password key and verifier (spec 8.3) ----------------------------------------------------------------


def password_salt(bank_id: str, user_id: str) -> bytes:
    """16 bytes of SHA-256 over label, bank ID, a zero byte (no bank ID holds one) and user ID.

    Raises LocalProtocolError for a user ID that the field can't hold.
    """
    normal_user_id = _normal("user ID", USER_ID, user_id)
    return hashlib.sha256(LABEL_SALT + bank_id.encode() + b"\0" + normal_user_id).digest()[:_SALT_SIZE]


def password_key(parameters: PasswordKeyParameters, bank_id: str, user_id: str, password: str) -> bytes:
    """Argon2id (RFC 9106) of the password in normal form C; costs the client, never the bank (T18).

    Raises LocalProtocolError for a user ID or password that its field can't hold.
    """
    derivation = Argon2id(
        salt=password_salt(bank_id, user_id),
        length=limits.PASSWORD_KEY_SIZE,
        iterations=parameters.iteration_count,
        lanes=parameters.lane_count,
        memory_cost=parameters.memory_kib,
    )
    return derivation.derive(_normal("password", PASSWORD, password))


def _normal(name: str, field: Text, text: str) -> bytes:
    # Checked before it is encoded: a UnicodeEncodeError would hold the whole text.
    normal = unicodedata.normalize("NFC", text)
    if not field.is_legal(normal):
        raise LocalProtocolError(f"the {name} can't be used: expected {field.expected}")
    return normal.encode()


def verifier_of(pepper: bytes, key: bytes) -> bytes:
    """What the bank keeps of a password: HMAC-SHA-256 of the password key under the pepper (T18)."""
    return hmac_sha256(pepper, LABEL_VERIFIER + key)


def seal_request(request: SealCredentials, nonce: bytes) -> bytes:
    """The envelope that a SealCredentials asks for; costs an Argon2id. `nonce`: 16 random bytes.

    Raises LocalProtocolError, BadKeyList.
    """
    key = password_key(request.password_key, request.terms.bank_id, request.user_id, request.password)
    return seal_credentials(request.suite_key, request.terms, request.user_id, key, nonce)


# -- key list (spec 8.4) ---------------------------------------------------------------------------------


def sign_key_list(root_key: Ed25519PrivateKey, key_list: KeyList) -> bytes:
    """The bytes of a SignedKeyList. Raises LocalProtocolError for a list that can't be encoded."""
    encoded = encode_record(key_list)
    return encode_record(SignedKeyList(encoded, root_key.sign(LABEL_KEY_LIST + encoded)))


def verify_key_list(
    signed_key_list: bytes, root_public_key: bytes, bank_id: str, now_wall_ms: int | None, serial_min: int = 0
) -> KeyList:
    """The key list, if the pinned root key signed it for this bank, it is valid now and no older than seen.

    With `now_wall_ms` None its validity is not judged: it was accepted in its time, and a receipt under it stays good
    (spec 8.5, PG-RCP-6). Raises BadKeyList (T10); its text says which of these failed.
    """
    try:
        signed = decode_record(SignedKeyList, signed_key_list)
        Ed25519PublicKey.from_public_bytes(root_public_key).verify(signed.signature, LABEL_KEY_LIST + signed.key_list)
        key_list = decode_record(KeyList, signed.key_list)
    except InvalidSignature:
        raise BadKeyList("the bank's key list is not signed by the pinned root key") from None
    except RemoteProtocolError as error:
        raise BadKeyList(f"the bank's key list is malformed: {error.text}") from None
    if key_list.bank_id != bank_id:
        raise BadKeyList(f"the key list is of bank {key_list.bank_id}, not of {bank_id}")
    if now_wall_ms is not None and not key_list.valid_from_ms <= now_wall_ms < key_list.valid_until_ms:
        raise BadKeyList("the bank's key list is not valid now; check this machine's clock, or ask the bank")
    if key_list.serial < serial_min:
        raise BadKeyList(f"key list serial {key_list.serial} is older than {serial_min}, seen before")
    return key_list


# -- receipts (spec 8.5) ---------------------------------------------------------------------------------


def receipt_leaf(statement: ReceiptStatement) -> bytes:
    """The Merkle leaf: SHA-256 of 0x00, label and the statement's encoding."""
    return _sha256(_LABELLED_LEAF + encode_record(statement)).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return _sha256(_NODE_PREFIX + left + right).digest()


def _signed_root(receipt_key_id: bytes, leaf_count: int, root: bytes) -> bytes:
    return LABEL_RECEIPT_ROOT + receipt_key_id + leaf_count.to_bytes(4) + root


def merkle_paths(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """The root over the leaves and each leaf's path, siblings from the leaf upward (RFC 6962 section 2.1).

    RFC 6962 splits a tree at the largest power of two below its size. Level by level from the bottom that
    is: pair neighbours, and carry a last odd node up unchanged.
    """
    assert leaves
    levels = [list(leaves)]
    while len(level := levels[-1]) > 1:
        odd = level[-1:] if len(level) % 2 else []
        # `_node` written out: a call less for every payment.
        pairs = zip(level[::2], level[1::2], strict=False)
        levels.append([_sha256(_NODE_PREFIX + left + right).digest() for left, right in pairs] + odd)
    # Downward again: a node's path is its sibling, if it has one, and then the path of the node above both.
    paths: list[tuple[bytes, ...]] = [()]
    for level in levels[-2::-1]:
        above, paths = paths, []
        for left, right, path in zip(level[::2], level[1::2], above, strict=False):
            paths += ((right, *path), (left, *path))
        if len(level) % 2:
            paths.append(above[-1])
    return levels[-1][0], paths


def merkle_root(leaf: bytes, leaf_index: int, leaf_count: int, path: Sequence[bytes]) -> bytes:
    """The root that a path leads to (RFC 9162 section 2.1.3.2). Raises BadReceipt if the path's length is wrong."""
    node = leaf
    remaining = list(path)
    index, last = leaf_index, leaf_count - 1
    while last:
        is_carried = index == last and index % 2 == 0  # the odd last node of its level has no sibling
        if not is_carried:
            if not remaining:
                raise BadReceipt("the receipt's path is too short for its place in the tree")
            sibling = remaining.pop(0)
            node = _node(sibling, node) if index % 2 else _node(node, sibling)
        index >>= 1
        last >>= 1
    if remaining:
        raise BadReceipt("the receipt's path is too long for its place in the tree")
    return node


def sign_receipts(receipt_key: Ed25519PrivateKey, statements: Sequence[ReceiptStatement]) -> list[bytes]:
    """One encoded Receipt for each statement, all under one signature (36 us serve a whole tick)."""
    if not statements:
        return []
    receipt_key_id = key_id_of(receipt_key.public_key().public_bytes_raw())
    assert {s.receipt_key_id for s in statements} == {receipt_key_id}
    leaf_count = len(statements)
    root, paths = merkle_paths([receipt_leaf(s) for s in statements])
    signature = receipt_key.sign(_signed_root(receipt_key_id, leaf_count, root))
    return [
        encode_record(_make_receipt(statement, index, leaf_count, path, signature))
        for index, (statement, path) in enumerate(zip(statements, paths, strict=True))
    ]


def verify_receipt(receipt: bytes, key_list: KeyList) -> ReceiptStatement:
    """What a receipt states, if a key of this key list signed it. Raises BadReceipt (T8)."""
    try:
        decoded = decode_record(Receipt, receipt)
    except RemoteProtocolError as error:
        raise BadReceipt(f"the receipt is malformed: {error.text}") from None
    statement = decoded.statement
    keys = {k.receipt_key_id: k.public_key for k in key_list.receipt_keys}
    public_key = keys.get(statement.receipt_key_id)
    if public_key is None or key_id_of(public_key) != statement.receipt_key_id:
        raise BadReceipt("the receipt is signed with a key that the bank's key list does not hold")
    root = merkle_root(receipt_leaf(statement), decoded.leaf_index, decoded.leaf_count, decoded.path)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            decoded.signature, _signed_root(statement.receipt_key_id, decoded.leaf_count, root)
        )
    except InvalidSignature:
        raise BadReceipt("the receipt's signature does not verify") from None
    return statement


def match_receipt(statement: ReceiptStatement, terms: Terms, sent_envelope_hash: bytes) -> None:
    """Check that a verified statement speaks of this payment. Raises BadReceipt naming what differs (T9).

    Without the envelope's hash, a debit of another person's account under a copied payment ID would pass.
    """
    for field in fields_of(Terms):
        if getattr(statement.terms, field.name) != getattr(terms, field.name):
            raise BadReceipt(f"the receipt is of another payment: its {field.name} differs")
    if statement.envelope_hash != sent_envelope_hash:
        raise BadReceipt("the receipt is of another envelope: somebody else's credentials were used")
