"""Every message of protocol v1, declared once (R20; spec sections 4 to 8).

A message is a record with a kind. The kind of a reply is its request's with the top bit set. `Route` says who
sends it to whom; `paygate/link.py` refuses it anywhere else.
"""

from enum import Enum, IntEnum
from typing import ClassVar, Final, TypeVar, dataclass_transform

from paygate.codec import limits
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import (
    AMOUNT_MINOR,
    AMOUNT_MINOR_OR_ZERO,
    CURRENCY,
    CURRENCY_OR_EMPTY,
    ENVELOPE,
    ERROR_TEXT,
    HASH,
    IDENTIFIER,
    IDENTIFIER_OR_EMPTY,
    KEY_ID,
    MERCHANT_NAME_OR_EMPTY,
    PASSCODE,
    PASSWORD,
    PAYMENT_ID,
    RECEIPT_OR_EMPTY,
    SESSION_ID,
    SESSION_ID_OR_ZERO,
    TIME_LEFT_MS,
    TIME_MS,
    USER_ID,
    UTR_OR_EMPTY,
    Blob,
    Boolean,
    Choice,
    Counted,
    Nested,
    Opaque,
    Record,
    Uint,
    fields_of,
    public,
    record,
    secret,
    sized,
)

REPLY_BIT: Final = 0x80


class Role(IntEnum):
    """Who speaks; the number in Hello."""

    CLIENT = 1
    GATEWAY = 2
    BANK = 3


class Kind(IntEnum):
    """What a frame carries (spec 4.2). 0x22, 0x23 and their replies are reserved for refund and reconcile."""

    HELLO = 0x01
    ECHO = 0x02
    BANK_KEYS_QUERY = 0x03
    TOKEN_QUERY = 0x10
    ENCRYPTED_CREDENTIALS = 0x11
    STATUS_QUERY = 0x12
    TRANSFER_REQUEST = 0x20
    RESOLVE_REQUEST = 0x21
    SEAL_CREDENTIALS = 0x60
    OPEN_ENVELOPE = 0x61
    MAKE_VERIFIER = 0x62

    HELLO_ACK = 0x81
    ECHO_REPLY = 0x82
    BANK_KEYS = 0x83
    TOKEN_ACK = 0x90
    PAYMENT_ACK = 0x91
    STATUS_ACK = 0x92
    TRANSFER_RESULT = 0xA0
    RESOLVE_RESULT = 0xA1
    SEALED_CREDENTIALS = 0xE0
    OPENED_ENVELOPE = 0xE1
    VERIFIER = 0xE2

    ERROR = 0xFF

    @property
    def is_reply(self) -> bool:
        """Whether it answers a request and so carries that request's correlation ID. Error stands apart."""
        return bool(self & REPLY_BIT) and self is not Kind.ERROR

    @property
    def reply(self) -> "Kind":
        """The kind that answers this request. Raises ValueError for what is no request."""
        if self & REPLY_BIT:
            raise ValueError(f"{self.name} is not a request")
        return Kind(self | REPLY_BIT)


class Route(Enum):
    """Between whom a request may travel; its reply travels the other way."""

    ANY = "either end of any link"
    CALLER = "from the end that connected, on any link"
    CLIENT_TO_GATEWAY = "client to gateway"
    GATEWAY_TO_BANK = "gateway to bank"
    PIPE = "parent to child over a pipe; never on a socket"


class TokenStatus(IntEnum):
    """R2: what the gateway says of a token."""

    VALID = 1
    INVALID = 2
    PAID = 3
    EXPIRED = 4
    LOCKED = 5
    IN_FLIGHT = 6


class PaymentStatus(IntEnum):
    """What became of a payment, as the gateway tells the client (spec 6.4)."""

    PAID = 1
    DECLINED = 2
    PENDING = 3
    REFUSED = 4
    UNKNOWN = 5


class TransferOutcome(IntEnum):
    """What the bank says of a payment ID (spec 7.2). The first three are final and replayed for ever."""

    POSTED = 1
    DECLINED = 2
    FENCED = 3
    MISMATCH = 4
    UNAVAILABLE = 5

    @property
    def is_final(self) -> bool:
        """Whether the bank will never say anything else of this payment ID."""
        return self in (TransferOutcome.POSTED, TransferOutcome.DECLINED, TransferOutcome.FENCED)


class Reason(IntEnum):
    """Why a payment was declined by the bank (1 to 63) or refused by the gateway (64 and up).

    In each half the codes stand in the order in which they are checked.
    """

    NONE = 0
    LATE = 1
    KEY_RETIRED = 2
    TERMS = 3
    TOKEN_ALREADY_PAID = 4
    MERCHANT_UNKNOWN = 5
    CURRENCY = 6
    CREDENTIALS = 7
    FUNDS = 8
    FENCED = 9

    DRAINING = 64
    SESSION = 65
    BANK_UNREACHABLE = 66
    STORE_UNAVAILABLE = 67
    PAYMENT_MISMATCH = 68
    TOKEN_PAID = 69
    TOKEN_IN_FLIGHT = 70
    TOKEN_WITHDRAWN = 71
    PASSCODE = 72
    TOKEN_LOCKED = 73

    @property
    def is_banks(self) -> bool:
        """Whether the bank gives this reason, under its signature."""
        return 0 < self < Reason.DRAINING

    @property
    def text(self) -> str:
        """The reason in words, and whether trying again can help."""
        return _REASON_TEXTS[self]


_REASON_TEXTS: Final = {
    Reason.NONE: "no reason",
    Reason.LATE: "the authorisation reached the bank too late; pay again",
    Reason.KEY_RETIRED: "the bank has retired the key it was sealed for; pay again, with the new key",
    Reason.TERMS: "the bank could not open the envelope under these terms; somebody changed something on the way",
    Reason.TOKEN_ALREADY_PAID: "this token was paid by another payment; do not pay again",
    Reason.MERCHANT_UNKNOWN: "the bank does not know the merchant; tell the merchant",
    Reason.CURRENCY: "the bank does not hold accounts in that currency; tell the merchant",
    Reason.CREDENTIALS: "user ID or password not accepted; after several failures the bank waits longer each time",
    Reason.FUNDS: "the balance does not cover the amount",
    Reason.FENCED: "the bank never received the payment in time and now refuses it for ever; pay again",
    Reason.DRAINING: "the gateway is shutting down; pay again later",
    Reason.SESSION: "the session is unknown or has ended; query the token again",
    Reason.BANK_UNREACHABLE: "the gateway has no link to the bank; pay again later",
    Reason.STORE_UNAVAILABLE: "the gateway can't record payments now; pay again later",
    Reason.PAYMENT_MISMATCH: "this payment ID was used with other terms; nothing was changed",
    Reason.TOKEN_PAID: "the token is paid; do not pay again",
    Reason.TOKEN_IN_FLIGHT: "the token is being paid right now; ask for its status later",
    Reason.TOKEN_WITHDRAWN: "the token has expired or was cancelled by the merchant",
    Reason.PASSCODE: "transaction ID or passcode not accepted",
    Reason.TOKEN_LOCKED: "too many wrong passcodes; the token is locked for a time",
}


class KeysStatus(IntEnum):
    """Whether a BankKeys carries a key list."""

    AVAILABLE = 1
    UNAVAILABLE = 2
    UNKNOWN_BANK = 3


class SealStatus(IntEnum):
    """What a child process made of its request (pipe messages only)."""

    DONE = 1
    KEY_RETIRED = 2
    NOT_OPENED = 3


class Message(Record):
    """A record that travels as the body of a frame."""

    __slots__ = ()
    kind: ClassVar[Kind]
    route: ClassVar[Route]


MESSAGES: Final[dict[Kind, type[Message]]] = {}
"""Every kind with its declaration: the registry that spec, dissectors and vectors are derived from (R20)."""

M = TypeVar("M", bound=Message)


class _Declares:
    """`@message(kind, route)`: a class, since `dataclass_transform` does not see through a nested function."""

    def __init__(self, kind: Kind, route: Route) -> None:
        self.kind = kind
        self.route = route

    def __call__(self, cls: type[M]) -> type[M]:
        declared = record(cls)
        declared.kind = self.kind
        declared.route = self.route
        assert self.kind not in MESSAGES, f"{self.kind.name} is declared twice"
        MESSAGES[self.kind] = declared
        return declared


@dataclass_transform(frozen_default=True, field_specifiers=(public, sized, secret))
def message(kind: Kind, route: Route) -> _Declares:
    """Declare the message of one kind."""
    return _Declares(kind, route)


@record
class Terms(Record):
    """What a payment binds (spec 8.1). It has exactly one encoding: HPKE `info`, receipt, fingerprint."""

    bank_id: str = public(IDENTIFIER, "the bank that holds the customer's account")
    gateway_id: str = public(IDENTIFIER, "the gateway that the token was issued to")
    merchant_id: str = public(IDENTIFIER, "who is paid")
    transaction_id: str = public(IDENTIFIER, "the merchant's order, as on the payment token")
    payment_id: bytes = public(PAYMENT_ID, "16 random bytes made and saved by the client before it sends")
    session_id: bytes = public(SESSION_ID, "the gateway's session, from the token ack")
    amount_minor: int = public(AMOUNT_MINOR, "the amount in minor units (paise, cents)")
    currency: str = public(CURRENCY, "ISO 4217 code")
    authorised_at_ms: int = public(TIME_MS, "when the customer authorised it, by the client's clock")


@message(Kind.HELLO, Route.CALLER)
class Hello(Message):
    """The first frame of every link, from the end that connected."""

    role: Role = public(Choice(1, Role), "what the caller is")
    party_id: str = public(IDENTIFIER, "the caller's ID; a client's is free and means nothing")
    versions: tuple[int, ...] = public(
        Counted(Uint(1, 1), 1, limits.VERSION_COUNT_MAX), "protocol versions that the caller speaks"
    )


@message(Kind.HELLO_ACK, Route.CALLER)
class HelloAck(Message):
    """The answer that opens the link."""

    role: Role = public(Choice(1, Role), "what the answering end is")
    party_id: str = public(IDENTIFIER, "its ID")
    version: int = public(Uint(1, 1), "the highest version that both speak; used from the next frame on")
    frame_size_max: int = public(
        Uint(4, limits.HEADER_SIZE, limits.FRAME_SIZE_MAX), "the largest frame the answering end takes, in bytes"
    )


@message(Kind.ECHO, Route.ANY)
class Echo(Message):
    """A link test; either end may send it at any time once the link is open."""

    echo_data: bytes = public(Opaque(limits.ECHO_DATA_SIZE), "any bytes")


@message(Kind.ECHO_REPLY, Route.ANY)
class EchoReply(Message):
    """The answer to a link test; it is itself never answered."""

    echo_data: bytes = public(Opaque(limits.ECHO_DATA_SIZE), "the bytes of the Echo")


@message(Kind.ERROR, Route.ANY)
class Error(Message):
    """What was wrong with a frame, its version, size, state or rate; never a payment's outcome."""

    code: ErrorCode = public(Choice(2, ErrorCode), "what was wrong")
    closes: bool = public(Boolean(), "1 if the sender closes the link now")
    text: str = public(ERROR_TEXT, "for people and logs; safe to show, not to be parsed")


@message(Kind.BANK_KEYS_QUERY, Route.CALLER)
class BankKeysQuery(Message):
    """Asks for a bank's signed key list."""

    bank_id: str = public(IDENTIFIER, "whose keys")


@message(Kind.BANK_KEYS, Route.CALLER)
class BankKeys(Message):
    """A bank's signed key list, relayed byte for byte."""

    status: KeysStatus = public(Choice(1, KeysStatus), "whether there is one")
    signed_key_list: bytes = sized(
        Blob(0, limits.KEY_LIST_SIZE_MAX), "a SignedKeyList (spec 8.4); empty unless AVAILABLE"
    )

    def broken_rule(self) -> tuple[str, str] | None:
        if bool(self.signed_key_list) is not (self.status is KeysStatus.AVAILABLE):
            return "signed_key_list", "a key list with AVAILABLE and none otherwise"
        return None


@message(Kind.TOKEN_QUERY, Route.CLIENT_TO_GATEWAY)
class TokenQuery(Message):
    """Asks whether a payment token is valid (R1)."""

    transaction_id: str = public(IDENTIFIER, "the merchant's order")
    passcode: str = secret(PASSCODE, "the token's passcode")


@message(Kind.TOKEN_ACK, Route.CLIENT_TO_GATEWAY)
class TokenAck(Message):
    """R2: what the gateway says of a token; with VALID it opens a session of `session_left_ms`."""

    status: TokenStatus = public(Choice(1, TokenStatus), "what the token is")
    session_id: bytes = public(SESSION_ID_OR_ZERO, "the session; zero unless VALID")
    session_left_ms: int = public(TIME_LEFT_MS, "how long the session lasts from now; 0 unless VALID")
    merchant_id: str = public(IDENTIFIER_OR_EMPTY, "who is paid; empty with INVALID and LOCKED")
    merchant_name: str = public(MERCHANT_NAME_OR_EMPTY, "the merchant's name for people; may be empty")
    amount_minor: int = public(AMOUNT_MINOR_OR_ZERO, "the amount in minor units; 0 with INVALID and LOCKED")
    currency: str = public(CURRENCY_OR_EMPTY, "ISO 4217 code; empty with INVALID and LOCKED")
    gateway_id: str = public(IDENTIFIER, "this gateway, for the terms")
    bank_id: str = public(IDENTIFIER, "the bank that this gateway pays through")
    utr: str = public(UTR_OR_EMPTY, "the UTR with PAID; empty otherwise")

    def broken_rule(self) -> tuple[str, str] | None:
        if (self.status is TokenStatus.VALID) is not any(self.session_id):
            return "session_id", "a session with VALID and zeros otherwise"
        if (self.status is TokenStatus.VALID) is not (self.session_left_ms > 0):
            return "session_left_ms", "time left with VALID and 0 otherwise"
        told = self.status not in (TokenStatus.INVALID, TokenStatus.LOCKED)
        if told is not bool(self.merchant_id):
            return "merchant_id", "empty with INVALID and LOCKED only"
        if told is not (self.amount_minor > 0):
            return "amount_minor", "0 with INVALID and LOCKED only"
        if told is not bool(self.currency):
            return "currency", "empty with INVALID and LOCKED only"
        if self.merchant_name and not told:
            return "merchant_name", "empty with INVALID and LOCKED"
        if (self.status is TokenStatus.PAID) is not bool(self.utr):
            return "utr", "a UTR with PAID and none otherwise"
        return None


@message(Kind.ENCRYPTED_CREDENTIALS, Route.CLIENT_TO_GATEWAY)
class EncryptedCredentials(Message):
    """The payment: user ID and password sealed for the bank alone (R4), and what the terms need besides."""

    session_id: bytes = public(SESSION_ID, "from the token ack")
    payment_id: bytes = public(PAYMENT_ID, "made and saved by the client before it sends")
    authorised_at_ms: int = public(TIME_MS, "when the customer authorised it, by the client's clock")
    key_id: bytes = public(KEY_ID, "which of the bank's keys sealed the envelope")
    envelope: bytes = sized(ENVELOPE, "HPKE: encapsulated key, then ciphertext (spec 8.2)")


@record
class PaymentAnswer(Message):
    """What became of a payment: the fields of PaymentAck and of StatusAck."""

    payment_id: bytes = public(PAYMENT_ID, "which payment")
    status: PaymentStatus = public(Choice(1, PaymentStatus), "what became of it")
    reason: Reason = public(Choice(1, Reason), "why, with DECLINED and REFUSED")
    utr: str = public(UTR_OR_EMPTY, "R7: the Unique Transaction Reference with PAID")
    receipt: bytes = sized(RECEIPT_OR_EMPTY, "the bank's signed Receipt (spec 8.5) with PAID and DECLINED")

    def broken_rule(self) -> tuple[str, str] | None:
        reason_fits = {
            PaymentStatus.DECLINED: self.reason.is_banks,
            PaymentStatus.REFUSED: self.reason >= Reason.DRAINING,
        }.get(self.status, self.reason is Reason.NONE)
        if not reason_fits:
            return "reason", "a bank's reason with DECLINED, a gateway's with REFUSED, NONE otherwise"
        if self.status is PaymentStatus.PAID and not self.utr:
            return "utr", "a UTR with PAID"
        if self.utr and self.status is not PaymentStatus.PAID and self.reason is not Reason.TOKEN_PAID:
            return "utr", "a UTR with PAID or TOKEN_PAID only"
        if bool(self.receipt) is not (self.status in (PaymentStatus.PAID, PaymentStatus.DECLINED)):
            return "receipt", "a receipt with PAID and DECLINED and none otherwise"
        return None


@message(Kind.PAYMENT_ACK, Route.CLIENT_TO_GATEWAY)
class PaymentAck(PaymentAnswer):
    """The answer to EncryptedCredentials (R8)."""


@message(Kind.STATUS_QUERY, Route.CLIENT_TO_GATEWAY)
class StatusQuery(Message):
    """Asks what became of a payment; it never moves money."""

    payment_id: bytes = public(PAYMENT_ID, "which payment")
    transaction_id: str = public(IDENTIFIER, "the token it was for")
    passcode: str = secret(PASSCODE, "the token's passcode")


@message(Kind.STATUS_ACK, Route.CLIENT_TO_GATEWAY)
class StatusAck(PaymentAnswer):
    """The answer to StatusQuery: PaymentAck's fields under the kind that its request fixes."""


@message(Kind.TRANSFER_REQUEST, Route.GATEWAY_TO_BANK)
class TransferRequest(Message):
    """Asks the bank to move the money; harmless to repeat, since the payment ID makes it idempotent."""

    terms: Terms = public(Nested(Terms), "what the payment binds, from the gateway's own token record")
    time_left_ms: int = public(TIME_LEFT_MS, "how long the bank may take; after that it declines as LATE")
    key_id: bytes = public(KEY_ID, "which of the bank's keys sealed the envelope")
    envelope: bytes = sized(ENVELOPE, "as the client sent it, unread")


@record
class TransferAnswer(Message):
    """What the bank says of a payment ID: the fields of TransferResult and of ResolveResult."""

    payment_id: bytes = public(PAYMENT_ID, "which payment; results are matched by it, not by the link")
    outcome: TransferOutcome = public(Choice(1, TransferOutcome), "what the bank did")
    reason: Reason = public(Choice(1, Reason), "why, with DECLINED and FENCED")
    utr: str = public(UTR_OR_EMPTY, "R7: the Unique Transaction Reference with POSTED")
    receipt: bytes = sized(RECEIPT_OR_EMPTY, "the signed Receipt (spec 8.5) of every final outcome")

    def broken_rule(self) -> tuple[str, str] | None:
        reason_fits = {
            TransferOutcome.DECLINED: self.reason.is_banks and self.reason is not Reason.FENCED,
            TransferOutcome.FENCED: self.reason is Reason.FENCED,
        }.get(self.outcome, self.reason is Reason.NONE)
        if not reason_fits:
            return "reason", "a bank's reason with DECLINED, FENCED with FENCED, NONE otherwise"
        if bool(self.utr) is not (self.outcome is TransferOutcome.POSTED):
            return "utr", "a UTR with POSTED and none otherwise"
        if bool(self.receipt) is not self.outcome.is_final:
            return "receipt", "a receipt with every final outcome and none otherwise"
        return None


@message(Kind.TRANSFER_RESULT, Route.GATEWAY_TO_BANK)
class TransferResult(TransferAnswer):
    """The bank's answer to a TransferRequest (R6, R8)."""


@message(Kind.RESOLVE_REQUEST, Route.GATEWAY_TO_BANK)
class ResolveRequest(Message):
    """Asks for a payment's final outcome; if the bank never saw it, it is fenced: refused for ever.

    It repeats the terms and the envelope's hash, so that even a fence comes with a receipt that the client
    can hold against its own payment.
    """

    terms: Terms = public(Nested(Terms), "as in the TransferRequest")
    envelope_hash: bytes = public(HASH, "SHA-256 of the envelope")


@message(Kind.RESOLVE_RESULT, Route.GATEWAY_TO_BANK)
class ResolveResult(TransferAnswer):
    """The answer to ResolveRequest: TransferResult's fields under the kind that its request fixes."""


@record
class PasswordKeyParameters(Record):
    """How a password becomes a password key: Argon2id (RFC 9106), parameters from the bank's key list."""

    memory_kib: int = public(Uint(4, 8, limits.ARGON2_MEMORY_KIB_MAX), "memory in KiB")
    iteration_count: int = public(Uint(4, 1, limits.ARGON2_ITERATION_COUNT_MAX), "passes over the memory")
    lane_count: int = public(Uint(1, 1, limits.ARGON2_LANE_COUNT_MAX), "lanes")

    def broken_rule(self) -> tuple[str, str] | None:
        if self.memory_kib < 8 * self.lane_count:
            return "memory_kib", "at least 8 KiB a lane"
        return None


class KemId(IntEnum):
    """HPKE KEM identifiers: RFC 9180 section 7.1, and the hybrid's registration."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A


class KdfId(IntEnum):
    """HPKE KDF identifiers (RFC 9180 section 7.2)."""

    HKDF_SHA256 = 0x0001


class AeadId(IntEnum):
    """HPKE AEAD identifiers (RFC 9180 section 7.3)."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002


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

    def broken_rule(self) -> tuple[str, str] | None:
        if self.valid_until_ms <= self.valid_from_ms:
            return "valid_until_ms", "a time after valid_from_ms"
        return None


@record
class SignedKeyList(Record):
    """A key list's exact bytes and the root key's signature over them."""

    key_list: bytes = sized(Blob(1, limits.KEY_LIST_SIZE_MAX), "a KeyList, encoded")
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

    def broken_rule(self) -> tuple[str, str] | None:
        if not self.outcome.is_final:
            return "outcome", "POSTED, DECLINED or FENCED"
        if bool(self.utr) is not (self.outcome is TransferOutcome.POSTED):
            return "utr", "a UTR with POSTED and none otherwise"
        return None


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

    def broken_rule(self) -> tuple[str, str] | None:
        if self.leaf_index >= self.leaf_count:
            return "leaf_index", "an index below leaf_count"
        return None


@record
class CredentialsPlaintext(Record):
    """What an envelope holds: always 256 bytes, so that lengths tell nothing (spec 8.2)."""

    format_version: int = public(Uint(1, 1, 1), "1")
    user_id_size: int = secret(Uint(1, 1, limits.USER_ID_SIZE_MAX), "how many bytes of user_id count")
    user_id: bytes = secret(Opaque(limits.USER_ID_SIZE_MAX), "UTF-8, filled up with zeros")
    password_key: bytes = secret(Opaque(limits.PASSWORD_KEY_SIZE), "Argon2id output (spec 8.3)")
    nonce: bytes = secret(Opaque(limits.ENVELOPE_NONCE_SIZE), "random")
    padding: bytes = secret(Opaque(142), "zeros")

    def broken_rule(self) -> tuple[str, str] | None:
        if any(self.user_id[self.user_id_size :]):
            return "user_id", "zeros after user_id_size bytes"
        if any(self.padding):
            return "padding", "zeros"
        return None


@message(Kind.SEAL_CREDENTIALS, Route.PIPE)
class SealCredentials(Message):
    """To the encoder child: make an envelope (R23)."""

    suite_key: SuiteKey = public(Nested(SuiteKey), "the suite and key to seal for")
    password_key: PasswordKeyParameters = public(Nested(PasswordKeyParameters), "Argon2id parameters")
    terms: Terms = public(Nested(Terms), "what the payment binds")
    user_id: str = secret(USER_ID, "the customer's net-banking user ID")
    password: str = secret(PASSWORD, "the customer's net-banking password")


@message(Kind.SEALED_CREDENTIALS, Route.PIPE)
class SealedCredentials(Message):
    """From the encoder child: the envelope."""

    envelope: bytes = sized(ENVELOPE, "HPKE: encapsulated key, then ciphertext")


@message(Kind.OPEN_ENVELOPE, Route.PIPE)
class OpenEnvelope(Message):
    """To the decoder child: open an envelope under these terms (R23)."""

    key_id: bytes = public(KEY_ID, "which key sealed it")
    terms: Terms = public(Nested(Terms), "what the payment binds")
    envelope: bytes = sized(ENVELOPE, "as the client sent it")


@message(Kind.OPENED_ENVELOPE, Route.PIPE)
class OpenedEnvelope(Message):
    """From the decoder child: who it is and the verifier of what they typed; never a password or its key."""

    status: SealStatus = public(Choice(1, SealStatus), "whether it opened")
    user_id: str = secret(USER_ID, "from the envelope; '-' unless DONE")
    verifier: bytes = secret(Opaque(limits.VERIFIER_SIZE), "HMAC of the password key; zeros unless DONE")


@message(Kind.MAKE_VERIFIER, Route.PIPE)
class MakeVerifier(Message):
    """To the decoder child: the verifier of a plain password that stands in NetbankingUsers.txt (R16)."""

    bank_id: str = public(IDENTIFIER, "the bank, part of the salt")
    password_key: PasswordKeyParameters = public(Nested(PasswordKeyParameters), "Argon2id parameters")
    user_id: str = secret(USER_ID, "the customer's net-banking user ID, part of the salt")
    password: str = secret(PASSWORD, "the plain password")


@message(Kind.VERIFIER, Route.PIPE)
class Verifier(Message):
    """From the decoder child: what the bank keeps instead of a password."""

    verifier: bytes = secret(Opaque(limits.VERIFIER_SIZE), "HMAC of the password key under the pepper")


assert set(MESSAGES) == set(Kind), "every kind has a declaration"
assert sum(f.type.size_max for f in fields_of(Receipt)) <= limits.RECEIPT_SIZE_MAX
assert sum(f.type.size_max for f in fields_of(KeyList)) <= limits.KEY_LIST_SIZE_MAX
assert sum(f.type.size_max for f in fields_of(CredentialsPlaintext)) == limits.ENVELOPE_PLAINTEXT_SIZE
