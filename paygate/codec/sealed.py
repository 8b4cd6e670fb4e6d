"""What is signed or sealed, and travels inside messages: terms, envelope plaintext, key list, receipt (spec 8)."""

from typing import ClassVar

from paygate.codec import limits
from paygate.codec.codes import (
    AeadId,
    KdfId,
    KemId,
    Reason,
    TransferOutcome,
)
from paygate.codec.fields import (
    AMOUNT_MINOR,
    CURRENCY,
    HASH,
    IDENTIFIER,
    KEY_ID,
    PARTY_ID,
    PAYMENT_ID,
    SESSION_ID,
    TIME_MS,
    UTR_OR_EMPTY,
    Blob,
    Choice,
    Counted,
    Nested,
    Opaque,
    Record,
    Rule,
    Uint,
    fields_of,
    public,
    record,
    secret,
    sized,
)


@record
class Terms(Record):
    """What a payment binds (spec 8.1). It has exactly one encoding: HPKE `info`, receipt, fingerprint."""

    bank_id: str = public(PARTY_ID, "the bank that holds the customer's account")
    gateway_id: str = public(PARTY_ID, "the gateway that the token was issued to")
    merchant_id: str = public(PARTY_ID, "who is paid")
    transaction_id: str = public(IDENTIFIER, "the merchant's order, as on the payment token")
    payment_id: bytes = public(PAYMENT_ID, "made and saved by the client before it sends (PG-TRM-3)")
    session_id: bytes = public(SESSION_ID, "the gateway's session, from the token ack")
    amount_minor: int = public(AMOUNT_MINOR, "the amount in minor units (paise, cents)")
    currency: str = public(CURRENCY, "ISO 4217 code")
    authorised_at_ms: int = public(TIME_MS, "when the customer authorised it, by the client's clock")

    keeps_encoding: ClassVar[bool] = True


@record
class PasswordKeyParameters(Record):
    """How a password becomes a password key: Argon2id (RFC 9106), parameters from the bank's key list."""

    memory_kib: int = public(Uint(4, 8, limits.ARGON2_MEMORY_KIB_MAX), "memory in KiB")
    iteration_count: int = public(Uint(4, 1, limits.ARGON2_ITERATION_COUNT_MAX), "passes over the memory")
    lane_count: int = public(Uint(1, 1, limits.ARGON2_LANE_COUNT_MAX), "lanes")

    rules = (Rule("memory_kib", "at least 8 KiB a lane", lambda r: r.memory_kib >= 8 * r.lane_count),)


@record
class SuiteKey(Record):
    """One HPKE suite with the public key to seal for."""

    key_id: bytes = public(KEY_ID, "the first 8 bytes of SHA-256 of the public key")
    kem_id: KemId = public(Choice(2, KemId), "HPKE KEM")
    kdf_id: KdfId = public(Choice(2, KdfId), "HPKE KDF")
    aead_id: AeadId = public(Choice(2, AeadId), "HPKE AEAD")
    public_key: bytes = sized(Blob(32, limits.PUBLIC_KEY_SIZE_MAX), "X25519: 32 bytes; hybrid: ML-KEM-768, then X25519")


@record
class ReceiptKey(Record):
    """One Ed25519 key under which the bank signs receipts."""

    receipt_key_id: bytes = public(KEY_ID, "the first 8 bytes of SHA-256 of the public key")
    public_key: bytes = public(Opaque(limits.ED25519_PUBLIC_KEY_SIZE), "Ed25519 public key (RFC 8032)")


@record
class KeyList(Record):
    """What a bank says of its keys (spec 8.4)."""

    bank_id: str = public(IDENTIFIER, "whose keys")
    serial: int = public(Uint(8, 1), "grows with every list; a client never takes a lower one than it has seen")
    valid_from_ms: int = public(TIME_MS, "not valid before")
    valid_until_ms: int = public(TIME_MS, "not valid from then on")
    password_key: PasswordKeyParameters = public(Nested(PasswordKeyParameters), "Argon2id parameters")
    suite_keys: tuple[SuiteKey, ...] = public(
        Counted(Nested(SuiteKey), 1, limits.SUITE_KEY_COUNT_MAX), "keys to seal for"
    )
    receipt_keys: tuple[ReceiptKey, ...] = public(
        Counted(Nested(ReceiptKey), 1, limits.RECEIPT_KEY_COUNT_MAX), "keys that receipts verify under"
    )

    rules = (Rule("valid_until_ms", "a time after valid_from_ms", lambda r: r.valid_until_ms > r.valid_from_ms),)


@record
class SignedKeyList(Record):
    """A key list's exact bytes and the root key's signature over them."""

    key_list: bytes = sized(Blob(1, limits.KEY_LIST_SIZE_MAX, holds="KeyList"), "a KeyList, encoded")
    signature: bytes = sized(Opaque(limits.SIGNATURE_SIZE), "Ed25519 by the bank's root key (spec 8.4)")


@record
class ReceiptStatement(Record):
    """What a receipt states; the Merkle leaf is a hash over its encoding (spec 8.5)."""

    receipt_key_id: bytes = public(KEY_ID, "which key signed")
    outcome: TransferOutcome = public(Choice(1, TransferOutcome), "a final outcome")
    reason: Reason = public(Choice(1, Reason), "why, with DECLINED and FENCED")
    terms: Terms = public(Nested(Terms), "what the payment bound")
    utr: str = public(UTR_OR_EMPTY, "the UTR with POSTED")
    bank_time_ms: int = public(TIME_MS, "when, by the bank's clock")
    envelope_hash: bytes = public(HASH, "SHA-256 of the envelope: whose credentials these were")

    keeps_encoding: ClassVar[bool] = True
    rules = (
        Rule("outcome", "POSTED, DECLINED or FENCED", lambda r: r.outcome.is_final),
        Rule(
            "reason",
            "a bank's reason with DECLINED, FENCED with FENCED, NONE otherwise",
            lambda r: r.outcome.fits(r.reason),
        ),
        Rule(
            "utr",
            "not empty with POSTED, empty otherwise",
            lambda r: bool(r.utr) is (r.outcome is TransferOutcome.POSTED),
        ),
    )


@record
class Receipt(Record):
    """A statement, its place in a tree of statements signed at once, and the signature over the tree's root."""

    statement: ReceiptStatement = public(Nested(ReceiptStatement), "what is stated")
    leaf_index: int = public(Uint(4), "which leaf, from 0")
    leaf_count: int = public(Uint(4, 1), "how many leaves the tree has")
    path: tuple[bytes, ...] = public(
        Counted(HASH, 0, limits.RECEIPT_PATH_COUNT_MAX), "sibling hashes from the leaf upward (RFC 6962 2.1.1)"
    )
    signature: bytes = public(Opaque(limits.SIGNATURE_SIZE), "Ed25519 over label, key ID, leaf count and root")

    rules = (Rule("leaf_index", "an index below leaf_count", lambda r: r.leaf_index < r.leaf_count),)


@record
class CredentialsPlaintext(Record):
    """What an envelope holds: always 256 bytes, so that lengths tell nothing (spec 8.2)."""

    format_version: int = public(Uint(1, 1, 1), "1")
    user_id_size: int = secret(Uint(1, 1, limits.USER_ID_SIZE_MAX), "how many bytes of user_id count")
    user_id: bytes = secret(Opaque(limits.USER_ID_SIZE_MAX), "UTF-8, filled up with zeros")
    password_key: bytes = secret(Opaque(limits.PASSWORD_KEY_SIZE), "Argon2id output (spec 8.3)")
    nonce: bytes = secret(Opaque(limits.ENVELOPE_NONCE_SIZE), "random")
    padding: bytes = secret(Opaque(142), "zeros")

    rules = (
        Rule("user_id", "zeros after user_id_size bytes", lambda r: not any(r.user_id[r.user_id_size :])),
        Rule("padding", "zeros", lambda r: not any(r.padding)),
    )


assert sum(f.type.size_max for f in fields_of(Receipt)) <= limits.RECEIPT_SIZE_MAX
assert sum(f.type.size_max for f in fields_of(KeyList)) <= limits.KEY_LIST_SIZE_MAX
assert sum(f.type.size_max for f in fields_of(CredentialsPlaintext)) == limits.ENVELOPE_PLAINTEXT_SIZE
