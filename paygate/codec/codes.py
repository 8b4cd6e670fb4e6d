"""The registries of protocol v1: kinds, roles, statuses, outcomes, reasons, HPKE identifiers (spec 4.2, 6, 7, 8)."""

from enum import Enum, IntEnum
from typing import Final, Self

REPLY_BIT: Final = 0x80


class Code(IntEnum):
    """A number on the wire with its meaning in words: base of every registry that messages draw from.

    A member is declared as `NAME = number, "meaning"`; spec, dissectors and programs' texts all show these words.
    """

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> Self:  # looked up by the number alone, as any enum
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code


class Role(Code):
    """Who speaks; the number in Hello."""

    CLIENT = 1, "a shopper's program"
    GATEWAY = 2, "takes tokens and forwards payments"
    BANK = 3, "opens envelopes and moves money"


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


class TokenStatus(Code):
    """R2: what the gateway says of a token."""

    VALID = 1, "may be paid; a session is open"
    INVALID = 2, "unknown transaction or wrong passcode; they are not told apart"
    PAID = 3, "already paid (R9)"
    EXPIRED = 4, "its time is over, or the merchant withdrew it"
    LOCKED = 5, "five wrong passcodes; locked for 15 minutes, for the right passcode too"
    IN_FLIGHT = 6, "a payment for it is under way right now"

    @property
    def is_told(self) -> bool:
        """Whether merchant, amount and currency are told: only to somebody who knows the passcode."""
        return self not in (TokenStatus.INVALID, TokenStatus.LOCKED)


class PaymentStatus(Code):
    """What became of a payment, as the gateway tells the client (spec 6.4)."""

    PAID = 1, "the bank posted it"
    DECLINED = 2, "the bank declined or fenced it; no money moved"
    PENDING = 3, "in doubt; ask again with StatusQuery"
    REFUSED = 4, "the gateway did not forward it, or did not answer the query"
    UNKNOWN = 5, "StatusAck only: this token never had such a payment here"

    def fits(self, reason: "Reason") -> bool:
        """Whether the status may carry this reason: DECLINED a bank's, REFUSED a gateway's, all others NONE."""
        if self is PaymentStatus.DECLINED:
            return reason.is_banks
        return reason >= Reason.DRAINING if self is PaymentStatus.REFUSED else reason is Reason.NONE


class TransferOutcome(Code):
    """What the bank says of a payment ID (spec 7.2). The first three are final and replayed for ever."""

    POSTED = 1, "the money has moved"
    DECLINED = 2, "no money moved"
    FENCED = 3, "never seen before it was resolved; refused for ever"
    MISMATCH = 4, "this payment ID is known with other terms or envelope; nothing changed, nothing is revealed"
    UNAVAILABLE = 5, "the bank can't decide now; resolve later"

    @property
    def is_final(self) -> bool:
        """Whether the bank will never say anything else of this payment ID."""
        return self in (TransferOutcome.POSTED, TransferOutcome.DECLINED, TransferOutcome.FENCED)

    def fits(self, reason: "Reason") -> bool:
        """Whether the outcome may carry this reason: DECLINED a bank's, FENCED its own, all others NONE."""
        if self is TransferOutcome.DECLINED:
            return reason.is_banks and reason is not Reason.FENCED
        return reason is (Reason.FENCED if self is TransferOutcome.FENCED else Reason.NONE)


class Reason(Code):
    """Why a payment was declined by the bank (1 to 63) or refused by the gateway (64 and up).

    In each half the codes stand in the order in which they are checked. The meaning says whether trying again can help.
    """

    NONE = 0, "no reason"
    LATE = 1, "the authorisation reached the bank too late; pay again"
    KEY_RETIRED = 2, "the bank has retired the key it was sealed for; pay again, with the new key"
    TERMS = 3, "the bank could not open the envelope under these terms; somebody changed something on the way"
    TOKEN_ALREADY_PAID = 4, "this token was paid by another payment; do not pay again"
    MERCHANT_UNKNOWN = 5, "the bank does not know the merchant; tell the merchant"
    CURRENCY = 6, "the bank does not hold accounts in that currency; tell the merchant"
    CREDENTIALS = 7, "user ID or password not accepted; after several failures the bank waits longer each time"
    FUNDS = 8, "the balance does not cover the amount"
    FENCED = 9, "the bank never received the payment in time and now refuses it for ever; pay again"

    DRAINING = 64, "the gateway is shutting down; pay again later"
    SESSION = 65, "the session is unknown or has ended; query the token again"
    BANK_UNREACHABLE = 66, "the gateway has no link to the bank; pay again later"
    STORE_UNAVAILABLE = 67, "the gateway can't record or look up anything now; try again later"
    PAYMENT_MISMATCH = 68, "this payment ID was used with other terms; nothing was changed"
    TOKEN_PAID = 69, "the token is paid; do not pay again"
    TOKEN_IN_FLIGHT = 70, "the token is being paid right now; ask for its status later"
    TOKEN_WITHDRAWN = 71, "the token has expired or was cancelled by the merchant"
    PASSCODE = 72, "transaction ID or passcode not accepted"
    TOKEN_LOCKED = 73, "too many wrong passcodes; the token is locked for a time"

    @property
    def is_banks(self) -> bool:
        """Whether the bank gives this reason, under its signature."""
        return 0 < self < Reason.DRAINING


class KeysStatus(Code):
    """Whether a BankKeys carries a key list."""

    AVAILABLE = 1, "the key list is here"
    UNAVAILABLE = 2, "none at hand now; try later"
    UNKNOWN_BANK = 3, "no such bank here"


class SealStatus(Code):
    """What a child process made of its request (pipe messages only)."""

    DONE = 1, "it opened"
    KEY_RETIRED = 2, "the key was retired"
    NOT_OPENED = 3, "it does not open under these terms"


class KemId(Code):
    """HPKE KEM identifiers: RFC 9180 section 7.1, and the hybrid's registration."""

    X25519 = 0x0020, "DHKEM(X25519, HKDF-SHA256)"
    MLKEM768_X25519 = 0x647A, "MLKEM768-X25519 (X-Wing)"


class KdfId(Code):
    """HPKE KDF identifiers (RFC 9180 section 7.2)."""

    HKDF_SHA256 = 0x0001, "HKDF-SHA256"


class AeadId(Code):
    """HPKE AEAD identifiers (RFC 9180 section 7.3)."""

    AES_128_GCM = 0x0001, "AES-128-GCM"
    AES_256_GCM = 0x0002, "AES-256-GCM"
