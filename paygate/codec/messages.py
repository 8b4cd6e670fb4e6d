"""Every message of protocol v1, declared once (R20; spec sections 4 to 8).

A message is a record with a kind. The kind of a reply is its request's with the top bit set. `Route` says who
sends it to whom; `paygate/link.py` refuses it anywhere else.
"""

from typing import ClassVar, Final, TypeVar, dataclass_transform

from paygate.codec import limits
from paygate.codec.codes import (
    KeysStatus,
    Kind,
    PaymentStatus,
    Reason,
    Role,
    Route,
    SealStatus,
    TokenStatus,
    TransferOutcome,
)
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import (
    AMOUNT_MINOR_OR_ZERO,
    CURRENCY_OR_EMPTY,
    ENVELOPE,
    ERROR_TEXT,
    HASH,
    IDENTIFIER,
    KEY_ID,
    MERCHANT_NAME_OR_EMPTY,
    PARTY_ID,
    PARTY_ID_OR_EMPTY,
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
    Rule,
    Uint,
    public,
    record,
    secret,
    sized,
)
from paygate.codec.sealed import (
    PasswordKeyParameters,
    SuiteKey,
    Terms,
)


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

    rules = (Rule("closes", "what the registry says of the code", lambda m: m.closes is m.code.closes),)


@message(Kind.BANK_KEYS_QUERY, Route.CALLER)
class BankKeysQuery(Message):
    """Asks for a bank's signed key list."""

    bank_id: str = public(IDENTIFIER, "whose keys")


@message(Kind.BANK_KEYS, Route.CALLER)
class BankKeys(Message):
    """A bank's signed key list, relayed byte for byte."""

    status: KeysStatus = public(Choice(1, KeysStatus), "whether there is one")
    signed_key_list: bytes = sized(
        Blob(0, limits.SIGNED_KEY_LIST_SIZE_MAX, holds="SignedKeyList"),
        "a SignedKeyList (spec 8.4); empty unless AVAILABLE",
    )

    rules = (
        Rule(
            "signed_key_list",
            "not empty with AVAILABLE, empty otherwise",
            lambda m: bool(m.signed_key_list) is (m.status is KeysStatus.AVAILABLE),
        ),
    )


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
    merchant_id: str = public(PARTY_ID_OR_EMPTY, "who is paid; empty with INVALID and LOCKED")
    merchant_name: str = public(MERCHANT_NAME_OR_EMPTY, "the merchant's name for people; may be empty")
    amount_minor: int = public(AMOUNT_MINOR_OR_ZERO, "the amount in minor units; 0 with INVALID and LOCKED")
    currency: str = public(CURRENCY_OR_EMPTY, "ISO 4217 code; empty with INVALID and LOCKED")
    gateway_id: str = public(PARTY_ID, "this gateway, for the terms")
    bank_id: str = public(PARTY_ID, "the bank that this gateway pays through")
    utr: str = public(UTR_OR_EMPTY, "the UTR with PAID; empty otherwise")

    rules = (
        Rule(
            "session_id",
            "not zero with VALID, zero otherwise",
            lambda m: any(m.session_id) is (m.status is TokenStatus.VALID),
        ),
        Rule(
            "session_left_ms",
            "above 0 with VALID, 0 otherwise",
            lambda m: (m.session_left_ms > 0) is (m.status is TokenStatus.VALID),
        ),
        Rule(
            "merchant_id",
            "empty with INVALID and LOCKED, not empty otherwise",
            lambda m: bool(m.merchant_id) is m.status.is_told,
        ),
        Rule(
            "amount_minor",
            "0 with INVALID and LOCKED, above 0 otherwise",
            lambda m: (m.amount_minor > 0) is m.status.is_told,
        ),
        Rule(
            "currency",
            "empty with INVALID and LOCKED, not empty otherwise",
            lambda m: bool(m.currency) is m.status.is_told,
        ),
        Rule("merchant_name", "empty with INVALID and LOCKED", lambda m: m.status.is_told or not m.merchant_name),
        Rule("utr", "not empty with PAID, empty otherwise", lambda m: bool(m.utr) is (m.status is TokenStatus.PAID)),
    )


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

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "reason",
            "a bank's reason with DECLINED, a gateway's with REFUSED, NONE otherwise",
            lambda m: m.status.fits(m.reason),
        ),
        Rule("utr", "not empty with PAID", lambda m: m.status is not PaymentStatus.PAID or bool(m.utr)),
        Rule(
            "utr",
            "empty but with PAID and TOKEN_PAID",
            lambda m: not m.utr or m.status is PaymentStatus.PAID or m.reason is Reason.TOKEN_PAID,
        ),
        Rule(
            "receipt",
            "not empty with PAID and DECLINED, empty otherwise",
            lambda m: bool(m.receipt) is (m.status in (PaymentStatus.PAID, PaymentStatus.DECLINED)),
        ),
    )


@message(Kind.PAYMENT_ACK, Route.CLIENT_TO_GATEWAY)
class PaymentAck(PaymentAnswer):
    """The answer to EncryptedCredentials (R8)."""

    rules = (
        Rule("status", "any but UNKNOWN", lambda m: m.status is not PaymentStatus.UNKNOWN),
        *PaymentAnswer.rules,
    )


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

    rules = (
        Rule(
            "reason",
            "a bank's reason with DECLINED, FENCED with FENCED, NONE otherwise",
            lambda m: m.outcome.fits(m.reason),
        ),
        Rule(
            "utr",
            "not empty with POSTED, empty otherwise",
            lambda m: bool(m.utr) is (m.outcome is TransferOutcome.POSTED),
        ),
        Rule(
            "receipt",
            "not empty with a final outcome, empty otherwise",
            lambda m: bool(m.receipt) is m.outcome.is_final,
        ),
    )


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
