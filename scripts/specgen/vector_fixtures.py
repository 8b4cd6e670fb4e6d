"""Who and what the vectors speak of: parties, test keys, one payment. All fixed, so that every run writes the same.

Private keys are SHA-256 of a text that says what they are for; the vectors publish them, so nobody must use them.
"""

import hashlib
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.codec.codes import KemId, Reason, TransferOutcome
from paygate.codec.seal import (
    DEFAULT_PASSWORD_KEY,
    SealingKey,
    envelope_hash,
    key_id_of,
    sign_key_list,
    sign_receipts,
)
from paygate.codec.sealed import KeyList, PasswordKeyParameters, ReceiptKey, ReceiptStatement, Terms

BANK_ID: Final = "BANK1"
GATEWAY_ID: Final = "GW1"
MERCHANT_ID: Final = "M-100"
MERCHANT_NAME: Final = "Bücher & Töchter"
TRANSACTION_ID: Final = "TX-1001"
PASSCODE: Final = "4321"
USER_ID: Final = "asha"
PASSWORD: Final = "correct horse"
AMOUNT_MINOR: Final = 125_000
UTR: Final = "PGBKP12026010200000001"
NOW_MS: Final = 1_767_312_000_000
"""2026-01-02T00:00:00Z, by everybody's clock."""
DAY_MS: Final = 86_400_000
CHEAP_PASSWORD_KEY: Final = PasswordKeyParameters(memory_kib=8, iteration_count=1, lane_count=1)
"""The least that Argon2id takes, for tests that are not about its cost."""


def fixed_bytes(purpose: str, size: int = 32) -> bytes:
    """Fixed bytes for one purpose."""
    return hashlib.shake_256(f"paygate test vector: {purpose}".encode()).digest(size)


ROOT_KEY: Final = Ed25519PrivateKey.from_private_bytes(fixed_bytes("root key"))
RECEIPT_KEY: Final = Ed25519PrivateKey.from_private_bytes(fixed_bytes("receipt key"))
ROOT_PUBLIC_KEY: Final = ROOT_KEY.public_key().public_bytes_raw()
RECEIPT_PUBLIC_KEY: Final = RECEIPT_KEY.public_key().public_bytes_raw()
RECEIPT_KEY_ID: Final = key_id_of(RECEIPT_PUBLIC_KEY)
X25519_KEY: Final = SealingKey.from_private_bytes(KemId.X25519, fixed_bytes("X25519 key"))
HYBRID_KEY: Final = SealingKey.from_private_bytes(KemId.MLKEM768_X25519, fixed_bytes("hybrid key", 96))
LINK_KEY: Final = fixed_bytes("link key")
PEPPER: Final = fixed_bytes("pepper")
OPAQUE_ENVELOPE: Final = fixed_bytes("opaque envelope", 304)
"""Of an envelope's size, but it opens under nothing: for frames, to which an envelope is opaque bytes."""


def build_terms(**changes: Any) -> Terms:
    """The usual payment, with changes."""
    usual = Terms(
        bank_id=BANK_ID,
        gateway_id=GATEWAY_ID,
        merchant_id=MERCHANT_ID,
        transaction_id=TRANSACTION_ID,
        payment_id=fixed_bytes("payment ID", 16),
        session_id=fixed_bytes("session ID", 16),
        amount_minor=AMOUNT_MINOR,
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
        password_key=DEFAULT_PASSWORD_KEY,
        suite_keys=(X25519_KEY.public_suite_key(), HYBRID_KEY.public_suite_key()),
        receipt_keys=(ReceiptKey(RECEIPT_KEY_ID, RECEIPT_PUBLIC_KEY),),
    )
    return replace(usual, **changes)


def build_signed_key_list(**changes: Any) -> bytes:
    """`build_key_list`, signed by the root key."""
    return sign_key_list(ROOT_KEY, build_key_list(**changes))


def build_statement(**changes: Any) -> ReceiptStatement:
    """What the bank states of the usual payment: POSTED."""
    usual = ReceiptStatement(
        receipt_key_id=RECEIPT_KEY_ID,
        outcome=TransferOutcome.POSTED,
        reason=Reason.NONE,
        terms=build_terms(),
        utr=UTR,
        bank_time_ms=NOW_MS + 40,
        envelope_hash=envelope_hash(OPAQUE_ENVELOPE),
    )
    return replace(usual, **changes)


def build_receipt(outcome: TransferOutcome, reason: Reason) -> bytes:
    """The receipt of the usual payment with this outcome, alone in its tree; empty of what is not final."""
    if not outcome.is_final:
        return b""
    utr = UTR if outcome is TransferOutcome.POSTED else ""
    return sign_receipts(RECEIPT_KEY, [build_statement(outcome=outcome, reason=reason, utr=utr)])[0]
