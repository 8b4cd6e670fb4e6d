"""Who is to blame, as a type (style 10): our own misuse, or the peer's fault. A declined payment is neither.

`ErrorCode` is the registry of spec section 9; the order of the codes is the order in which they are checked. One
exception: a link refuses a kind that its state rules out (UNEXPECTED_MESSAGE) from the header, before the checksum,
since it awaits no body that it would refuse anyway.
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """What an `Error` frame says went wrong with framing, version, size, state or rate; never a payment."""

    BAD_MAGIC = 1
    UNSUPPORTED_VERSION = 2
    UNKNOWN_KIND = 3
    UNKNOWN_FLAG = 4
    BODY_TOO_SMALL = 5
    BODY_TOO_LARGE = 6
    NOT_AUTHENTICATED = 7
    UNEXPECTED_MAC = 8
    BAD_CHECKSUM = 9
    BAD_MAC = 10
    TRUNCATED_FIELD = 11
    TRAILING_BYTES = 12
    BAD_VALUE = 13
    UNEXPECTED_MESSAGE = 14
    DUPLICATE_CORRELATION = 15
    UNKNOWN_CORRELATION = 16
    UNKNOWN_PARTY = 17
    NO_COMMON_VERSION = 18
    HELLO_TIMEOUT = 32
    FRAME_TIMEOUT = 33
    IDLE_TIMEOUT = 34
    TRUNCATED_FRAME = 35
    TOO_MANY_REQUESTS = 48
    TOO_MANY_CONNECTIONS = 49
    SHUTTING_DOWN = 50
    INTERNAL = 63

    @property
    def closes(self) -> bool:
        """Whether the sender closes the link after this Error (spec 9)."""
        return self not in _LINK_GOES_ON


_LINK_GOES_ON = frozenset({ErrorCode.TOO_MANY_REQUESTS, ErrorCode.SHUTTING_DOWN})


class ProtocolError(Exception):
    """Base of both kinds of protocol error."""


class LocalProtocolError(ProtocolError):
    """Our own misuse: a message that can't be encoded, or not in this state. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer's bytes broke the protocol (T35).

    `code` goes onto the wire, `path` names the field (`terms.amount_minor`, or empty for the frame as a
    whole), `expected` says in words what would have been right. None of them ever holds a received value.
    """

    def __init__(self, code: ErrorCode, path: str = "", expected: str = "") -> None:
        self.code = code
        self.path = path
        self.expected = expected
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """One safe line for logs and for the text of an Error frame."""
        words = self.code.name.lower().replace("_", " ")
        at = f" at {self.path}" if self.path else ""
        expected = f": expected {self.expected}" if self.expected else ""
        return f"{words}{at}{expected}"
