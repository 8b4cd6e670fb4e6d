"""The registries of protocol v1: kinds, roles, statuses, outcomes, reasons, HPKE identifiers (spec 4.2, 6, 7, 8)."""

from enum import Enum, IntEnum
from typing import Final

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

    def fits(self, reason: "Reason") -> bool:
        """Whether the outcome may carry this reason: DECLINED a bank's, FENCED its own, all others NONE."""
        if self is TransferOutcome.DECLINED:
            return reason.is_banks and reason is not Reason.FENCED
        return reason is (Reason.FENCED if self is TransferOutcome.FENCED else Reason.NONE)


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
