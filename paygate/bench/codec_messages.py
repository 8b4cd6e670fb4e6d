"""One message of each kind, as in a payment that goes well, and others of it with other names in them."""

from typing import Any, Final, TypeVar

from paygate.codec.codes import (
    AeadId,
    KdfId,
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
from paygate.codec.fields import Nested, Record, Text, fields_of
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
from paygate.codec.sealed import PasswordKeyParameters, SuiteKey, Terms

R = TypeVar("R", bound=Record)

_BANK, _GATEWAY, _MERCHANT, _TOKEN, _PASSCODE = "BANK1", "GW1", "M-100", "TX-1001", "4321"
_USER, _PASSWORD = "asha", "correct horse"
_UTR: Final = "PGBKP12026010200000001"
_TIME_MS: Final = 1_767_312_000_000
_PAYMENT_ID, _SESSION_ID = bytes(range(1, 17)), bytes(range(17, 33))
_RECEIPT: Final = b"r" * 222
_ENVELOPE: Final = b"e" * 304
_KEY_ID: Final = b"k" * 8
_PASSWORD_KEY: Final = PasswordKeyParameters(memory_kib=8, iteration_count=1, lane_count=1)
_SUITE_KEY: Final = SuiteKey(
    key_id=_KEY_ID,
    kem_id=KemId.X25519,
    kdf_id=KdfId.HKDF_SHA256,
    aead_id=AeadId.AES_128_GCM,
    public_key=b"p" * 32,
)
_TERMS: Final = Terms(
    bank_id=_BANK,
    gateway_id=_GATEWAY,
    merchant_id=_MERCHANT,
    transaction_id=_TOKEN,
    payment_id=_PAYMENT_ID,
    session_id=_SESSION_ID,
    amount_minor=125_000,
    currency="INR",
    authorised_at_ms=_TIME_MS,
)
_MESSAGES: Final[tuple[Message, ...]] = (
    Hello(role=Role.GATEWAY, party_id=_GATEWAY, versions=(1,)),
    HelloAck(role=Role.BANK, party_id=_BANK, version=1, frame_size_max=65_571),
    Echo(b"echoecho"),
    EchoReply(b"echoecho"),
    Error(code=ErrorCode.TOO_MANY_REQUESTS, closes=False, text="wait for replies before asking more"),
    BankKeysQuery(bank_id=_BANK),
    BankKeys(status=KeysStatus.AVAILABLE, signed_key_list=b"l" * 195),
    TokenQuery(transaction_id=_TOKEN, passcode=_PASSCODE),
    TokenAck(
        status=TokenStatus.VALID,
        session_id=_SESSION_ID,
        session_left_ms=30_000,
        merchant_id=_MERCHANT,
        merchant_name="Bücher & Töchter",
        amount_minor=125_000,
        currency="INR",
        gateway_id=_GATEWAY,
        bank_id=_BANK,
        utr="",
    ),
    EncryptedCredentials(
        session_id=_SESSION_ID,
        payment_id=_PAYMENT_ID,
        authorised_at_ms=_TIME_MS,
        key_id=_KEY_ID,
        envelope=_ENVELOPE,
    ),
    PaymentAck(payment_id=_PAYMENT_ID, status=PaymentStatus.PAID, reason=Reason.NONE, utr=_UTR, receipt=_RECEIPT),
    StatusQuery(payment_id=_PAYMENT_ID, transaction_id=_TOKEN, passcode=_PASSCODE),
    StatusAck(payment_id=_PAYMENT_ID, status=PaymentStatus.DECLINED, reason=Reason.FUNDS, utr="", receipt=_RECEIPT),
    TransferRequest(terms=_TERMS, time_left_ms=20_000, key_id=_KEY_ID, envelope=_ENVELOPE),
    TransferResult(
        payment_id=_PAYMENT_ID, outcome=TransferOutcome.POSTED, reason=Reason.NONE, utr=_UTR, receipt=_RECEIPT
    ),
    ResolveRequest(terms=_TERMS, envelope_hash=b"h" * 32),
    ResolveResult(
        payment_id=_PAYMENT_ID, outcome=TransferOutcome.FENCED, reason=Reason.FENCED, utr="", receipt=_RECEIPT
    ),
    SealCredentials(suite_key=_SUITE_KEY, password_key=_PASSWORD_KEY, terms=_TERMS, user_id=_USER, password=_PASSWORD),
    SealedCredentials(envelope=_ENVELOPE),
    OpenEnvelope(key_id=_KEY_ID, terms=_TERMS, envelope=_ENVELOPE),
    OpenedEnvelope(status=SealStatus.DONE, user_id=_USER, verifier=b"v" * 32),
    MakeVerifier(bank_id=_BANK, password_key=_PASSWORD_KEY, user_id=_USER, password=_PASSWORD),
    Verifier(verifier=b"v" * 32),
)
MESSAGES_BY_KIND: Final[dict[Kind, Message]] = {message.kind: message for message in _MESSAGES}


def renamed(record: R, number: int) -> R:
    """The record with texts of their own in all fields that are declared to recur, as long as they were.

    The same text for the same number, up to 26³ numbers: a currency has three letters.
    """
    values: dict[str, Any] = {}
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        if isinstance(field.type, Nested):
            value = renamed(value, number)
        elif isinstance(field.type, Text) and field.type.recurs and value:
            value = _letters(number, len(value.encode()))
        values[field.name] = value
    return type(record)(**values)


def copied(record: R) -> R:
    """An equal record that is another object, and so are the records in it."""
    values = {field.name: getattr(record, field.name) for field in fields_of(type(record))}
    return type(record)(**{name: copied(v) if isinstance(v, Record) else v for name, v in values.items()})


def _letters(number: int, size: int) -> str:
    letters = ""
    for _ in range(size):
        number, digit = divmod(number, 26)
        letters = chr(ord("A") + digit) + letters
    return letters
