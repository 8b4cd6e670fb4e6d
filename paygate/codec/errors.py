"""Who is to blame, as a type (style 10): our own misuse, or the peer's fault. A declined payment is neither.

`ErrorCode` is the registry of spec section 9; the order of the codes is the order in which they are checked, but
within a body (PG-ENC-7) and in Hello (PG-LNK-2). And a link refuses a kind that its state rules out
(UNEXPECTED_MESSAGE) from the header, before the checksum, since it awaits no body that it would refuse anyway.
"""

from paygate.codec.codes import Code


class ErrorCode(Code):
    """What an `Error` frame says went wrong with framing, version, size, state or rate; never a payment."""

    BAD_MAGIC = 1, "the first two bytes are not `PG`"
    UNSUPPORTED_VERSION = 2, "the header's version is not 1"
    UNKNOWN_KIND = 3, "the kind is not in 4.2, or reserved"
    UNKNOWN_FLAG = 4, "a flag other than AUTHENTICATED is set"
    BODY_TOO_SMALL = 5, "`body_size` is below the kind's smallest body"
    BODY_TOO_LARGE = 6, "`body_size` is above the kind's largest body"
    NOT_AUTHENTICATED = 7, "a frame without a MAC on a bank link"
    UNEXPECTED_MAC = 8, "a frame with a MAC on a client link"
    BAD_CHECKSUM = 9, "the checksum does not match"
    BAD_MAC = 10, "the MAC does not match"
    TRUNCATED_FIELD = 11, "a field runs past the end of the body"
    TRAILING_BYTES = 12, "bytes are left after the last field"
    BAD_VALUE = 13, "a field's value, or a rule between fields, is broken; the text names the field"
    UNEXPECTED_MESSAGE = 14, "a message that is not allowed in this state or from this end"
    DUPLICATE_CORRELATION = 15, "a request with a correlation ID that still waits for its reply"
    UNKNOWN_CORRELATION = 16, "a reply, or an Error that does not close, whose correlation ID waits for nothing"
    UNKNOWN_PARTY = 17, "Hello names a gateway that the bank has no key for"
    NO_COMMON_VERSION = 18, "the two ends speak no common version"
    HELLO_TIMEOUT = 32, "no Hello within 5 s, or no HelloAck"
    FRAME_TIMEOUT = 33, "a frame was not complete 10 s after its first byte"
    IDLE_TIMEOUT = 34, "nothing came for 60 s, or no frame for 10 s after an Echo"
    TRUNCATED_FRAME = 35, "the stream ended in the middle of a frame"
    TOO_MANY_REQUESTS = 48, "this request is not served: too many wait, or nothing can be recorded now; try later"
    TOO_MANY_CONNECTIONS = 49, "the server takes no more connections"
    SHUTTING_DOWN = 50, "this request is not served: the server is shutting down"
    INTERNAL = 63, "the sender failed; nothing is said of the cause"

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
