"""Valid terms, keys, key lists, receipts and one example of every message, for any test to start from.

Everything here is fixed: the same bytes at every run, so that a failure can be compared with the last one.
`build_terms(amount_minor=1)` gives the usual value with one field changed.
"""

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from paygate.codec import limits
from paygate.codec.codes import (
    KemId,
    KeysStatus,
    Kind,
    PaymentStatus,
    Reason,
    Role,
    SealStatus,
    TokenStatus,
    TransferOutcome,
)
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Record, fields_of
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Echo,
    EchoReply,
    EncryptedCredentials,
    Error,
    Hello,
    HelloAck,
    MakeVerifier,
    Message,
    OpenedEnvelope,
    OpenEnvelope,
    PaymentAck,
    ResolveRequest,
    ResolveResult,
    SealCredentials,
    SealedCredentials,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
    TransferRequest,
    TransferResult,
    Verifier,
)
from paygate.codec.record_codec import encode_record
from paygate.codec.seal import (
    SealingKey,
    envelope_hash,
    envelope_info,
    key_id_of,
    seal_credentials,
    sign_key_list,
    sign_receipts,
)
from paygate.codec.sealed import (
    CredentialsPlaintext,
    KeyList,
    PasswordKeyParameters,
    ReceiptKey,
    ReceiptStatement,
    SuiteKey,
    Terms,
)

R = TypeVar("R", bound=Record)

BANK_ID: Final = "BANK1"
GATEWAY_ID: Final = "GW1"
MERCHANT_ID: Final = "M-100"
TRANSACTION_ID: Final = "TX-1001"
PASSCODE: Final = "4321"
USER_ID: Final = "asha"
PASSWORD: Final = "correct horse"
UTR: Final = "PGBKP120260102" + "00000001"
NOW_MS: Final = 1_767_312_000_000
"""2026-01-02T00:00:00Z, by everybody's clock."""
DAY_MS: Final = 86_400_000

ROOT_KEY: Final = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"root").digest())
ROOT_PUBLIC_KEY: Final = ROOT_KEY.public_key().public_bytes_raw()
RECEIPT_KEY: Final = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"receipts").digest())
RECEIPT_KEY_ID: Final = key_id_of(RECEIPT_KEY.public_key().public_bytes_raw())
LINK_KEY: Final = hashlib.sha256(b"link").digest()
PEPPER: Final = hashlib.sha256(b"pepper").digest()

CHEAP_PASSWORD_KEY: Final = PasswordKeyParameters(memory_kib=8, iteration_count=1, lane_count=1)
"""Argon2id parameters that cost nothing, for tests that are not about them."""


def with_changes(value: R, **changes: Any) -> R:
    """The record with other values in some fields, legal or not; `replace` for when its class is not known."""
    return type(value)(**{f.name: getattr(value, f.name) for f in fields_of(type(value))} | changes)


@cache
def sealing_key(kem_id: KemId, name: str = "usual") -> SealingKey:
    """A private key of the suite; another `name` gives another key."""
    size = 96 if kem_id is KemId.MLKEM768_X25519 else 32
    return SealingKey.from_private_bytes(kem_id, hashlib.shake_256(name.encode()).digest(size))


def build_terms(**changes: Any) -> Terms:
    """The usual payment, with changes."""
    usual = Terms(
        bank_id=BANK_ID,
        gateway_id=GATEWAY_ID,
        merchant_id=MERCHANT_ID,
        transaction_id=TRANSACTION_ID,
        payment_id=bytes(range(1, 17)),
        session_id=bytes(range(17, 33)),
        amount_minor=125_000,
        currency="INR",
        authorised_at_ms=NOW_MS,
    )
    return replace(usual, **changes)


def build_key_list(**changes: Any) -> KeyList:
    """Both suites, the weaker one listed first, and one receipt key; valid for a day around NOW_MS."""
    usual = KeyList(
        bank_id=BANK_ID,
        serial=7,
        valid_from_ms=NOW_MS - DAY_MS,
        valid_until_ms=NOW_MS + DAY_MS,
        password_key=CHEAP_PASSWORD_KEY,
        suite_keys=(
            sealing_key(KemId.X25519).public_suite_key(),
            sealing_key(KemId.MLKEM768_X25519).public_suite_key(),
        ),
        receipt_keys=(ReceiptKey(RECEIPT_KEY_ID, RECEIPT_KEY.public_key().public_bytes_raw()),),
    )
    return replace(usual, **changes)


def build_signed_key_list(**changes: Any) -> bytes:
    """`build_key_list`, signed by the root key."""
    return sign_key_list(ROOT_KEY, build_key_list(**changes))


def build_envelope(kem_id: KemId = KemId.X25519, terms: Terms | None = None, user_id: str = USER_ID) -> bytes:
    """An envelope under the terms. Encapsulation is random: these bytes differ at each call."""
    suite_key = sealing_key(kem_id).public_suite_key()
    return seal_credentials(suite_key, terms or build_terms(), user_id, b"k" * 32, b"n" * 16)


def seal_foreign(suite_key: SuiteKey, terms: Terms, user_id: bytes) -> bytes:
    """An envelope as a client of somebody's own making may seal it: any bytes for a user ID. X25519 only."""
    plaintext = CredentialsPlaintext(
        format_version=1,
        user_id_size=len(user_id),
        user_id=user_id.ljust(limits.USER_ID_SIZE_MAX, b"\0"),
        password_key=b"k" * 32,
        nonce=b"n" * 16,
        padding=bytes(142),
    )
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
    public_key = X25519PublicKey.from_public_bytes(suite_key.public_key)
    return suite.encrypt(encode_record(plaintext), public_key, info=envelope_info(suite_key.key_id, terms))


FIXED_ENVELOPE: Final = hashlib.shake_256(b"envelope").digest(304)
"""Of an envelope's size, but it opens under nothing: for tests to whom an envelope is opaque bytes."""


def build_statement(**changes: Any) -> ReceiptStatement:
    """What the bank states of the usual payment: POSTED."""
    usual = ReceiptStatement(
        receipt_key_id=RECEIPT_KEY_ID,
        outcome=TransferOutcome.POSTED,
        reason=Reason.NONE,
        terms=build_terms(),
        utr=UTR,
        bank_time_ms=NOW_MS + 40,
        envelope_hash=envelope_hash(FIXED_ENVELOPE),
    )
    return replace(usual, **changes)


def build_declined_statement(**changes: Any) -> ReceiptStatement:
    """What the bank states when the balance does not cover the usual payment."""
    return build_statement(**{"outcome": TransferOutcome.DECLINED, "reason": Reason.FUNDS, "utr": "", **changes})


def build_receipt(statement: ReceiptStatement | None = None) -> bytes:
    """The receipt over one statement, alone in its tree."""
    return sign_receipts(RECEIPT_KEY, [statement or build_statement()])[0]


def build_token_ack(**changes: Any) -> TokenAck:
    """The answer for a valid token."""
    terms = build_terms()
    usual = TokenAck(
        status=TokenStatus.VALID,
        session_id=terms.session_id,
        session_left_ms=30_000,
        merchant_id=terms.merchant_id,
        merchant_name="Bücher & Töchter",
        amount_minor=terms.amount_minor,
        currency=terms.currency,
        gateway_id=terms.gateway_id,
        bank_id=terms.bank_id,
        utr="",
    )
    return replace(usual, **changes)


@cache
def example(kind: Kind) -> Message:
    """A valid message of the kind: the usual payment, going well."""
    return {m.kind: m for m in _examples()}[kind]


def _examples() -> list[Message]:
    terms = build_terms()
    suite_key = sealing_key(KemId.X25519).public_suite_key()
    return [
        Hello(role=Role.GATEWAY, party_id=GATEWAY_ID, versions=(1,)),
        HelloAck(role=Role.BANK, party_id=BANK_ID, version=1, frame_size_max=65_571),
        Echo(b"echoecho"),
        EchoReply(b"echoecho"),
        Error(code=ErrorCode.TOO_MANY_REQUESTS, closes=False, text="wait for replies before asking more"),
        BankKeysQuery(bank_id=BANK_ID),
        BankKeys(
            status=KeysStatus.AVAILABLE,
            signed_key_list=build_signed_key_list(suite_keys=(suite_key,)),
        ),
        TokenQuery(transaction_id=TRANSACTION_ID, passcode=PASSCODE),
        build_token_ack(),
        EncryptedCredentials(
            session_id=terms.session_id,
            payment_id=terms.payment_id,
            authorised_at_ms=terms.authorised_at_ms,
            key_id=suite_key.key_id,
            envelope=FIXED_ENVELOPE,
        ),
        PaymentAck(
            payment_id=terms.payment_id,
            status=PaymentStatus.PAID,
            reason=Reason.NONE,
            utr=UTR,
            receipt=build_receipt(),
        ),
        StatusQuery(payment_id=terms.payment_id, transaction_id=TRANSACTION_ID, passcode=PASSCODE),
        StatusAck(
            payment_id=terms.payment_id,
            status=PaymentStatus.DECLINED,
            reason=Reason.FUNDS,
            utr="",
            receipt=build_receipt(build_declined_statement()),
        ),
        TransferRequest(terms=terms, time_left_ms=20_000, key_id=suite_key.key_id, envelope=FIXED_ENVELOPE),
        TransferResult(
            payment_id=terms.payment_id,
            outcome=TransferOutcome.POSTED,
            reason=Reason.NONE,
            utr=UTR,
            receipt=build_receipt(),
        ),
        ResolveRequest(terms=terms, envelope_hash=envelope_hash(FIXED_ENVELOPE)),
        ResolveResult(
            payment_id=terms.payment_id,
            outcome=TransferOutcome.FENCED,
            reason=Reason.FENCED,
            utr="",
            receipt=build_receipt(build_statement(outcome=TransferOutcome.FENCED, reason=Reason.FENCED, utr="")),
        ),
        SealCredentials(
            suite_key=suite_key,
            password_key=CHEAP_PASSWORD_KEY,
            terms=terms,
            user_id=USER_ID,
            password=PASSWORD,
        ),
        SealedCredentials(envelope=FIXED_ENVELOPE),
        OpenEnvelope(key_id=suite_key.key_id, terms=terms, envelope=FIXED_ENVELOPE),
        OpenedEnvelope(status=SealStatus.DONE, user_id=USER_ID, verifier=b"v" * 32),
        MakeVerifier(bank_id=BANK_ID, password_key=CHEAP_PASSWORD_KEY, user_id=USER_ID, password=PASSWORD),
        Verifier(verifier=b"v" * 32),
    ]
