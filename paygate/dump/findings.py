"""What this tool finds wrong by itself, which sections of the spec its findings cite, and how they tell what they saw.

A finding's name is an ErrorCode's where the protocol has one; `OwnFinding` names the rest. What a receiver would say
of a frame is said with the receiver's own words (`expected`). What stands there instead a receiver may not repeat
(PG-ERR-2), but who looks at a capture needs it, so it is told here, a secret field's value excepted (R4).
"""

from enum import Enum
from typing import Final

from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Boolean, Choice, Sensitivity, Text, Uint, utf8_text
from paygate.codec.frame import Header, frame_checksum
from paygate.codec.limits import HEADER_SIZE
from paygate.codec.messages import MESSAGES
from paygate.codec.walk import Fault, Part, Span, walk
from paygate.escape import escape_line


class OwnFinding(Enum):
    """Names of findings for which the protocol has no ErrorCode, with their meaning."""

    INPUT_UNREADABLE = "reading the input failed; what came before counts"
    GZIP_TRUNCATED = "compressed data ends before its end"
    GZIP_DAMAGED = "compressed data is no gzip any more, or its checksum does not hold"
    CAPTURE_TRUNCATED = "a capture file ends within a packet or a block"
    CAPTURE_DAMAGED = "a record of a capture file is not what its format says"
    BAD_HEX = "a line among hexadecimal text is none"
    BAD_HEX_OFFSET = "the offset before a line of hexadecimal text does not follow the line before"
    UNKNOWN_LINK_TYPE = "packets of a link type that is not known are ignored"
    MALFORMED_PACKET = "a packet's headers contradict themselves or its size"
    BYTES_MISSING = "the capture lacks bytes of the stream; frames in them, or in part in them, were not seen"
    OVERLAP_DIFFERS = (
        "bytes came again and were others; the first ones count here, the receiver may have taken the others"
    )
    NO_FRAME_FOUND = "begun in mid-stream, and no frame stands where one must have begun by now"
    FRAME_FORGOTTEN = "an incomplete frame was let go, to keep the memory bounded"
    UNANSWERED = "requests had no answer when their connection ended, or the capture did"
    ENVELOPE_NOT_OPENED = "an envelope does not open with the key whose ID it carries"
    DECODE_KEY_UNUSED = "no envelope of the input was sealed for any key that was given"


SECTIONS: Final[dict[ErrorCode, str]] = {
    ErrorCode.BAD_MAGIC: "4.1",
    ErrorCode.UNSUPPORTED_VERSION: "4.1",
    ErrorCode.UNKNOWN_KIND: "4.2",
    ErrorCode.UNKNOWN_FLAG: "4.1",
    ErrorCode.BODY_TOO_SMALL: "4.1",
    ErrorCode.BODY_TOO_LARGE: "4.1",
    ErrorCode.NOT_AUTHENTICATED: "4.4",
    ErrorCode.UNEXPECTED_MAC: "4.4",
    ErrorCode.BAD_CHECKSUM: "4.3",
    ErrorCode.BAD_MAC: "4.4",
    ErrorCode.TRUNCATED_FIELD: "3.3",
    ErrorCode.TRAILING_BYTES: "3.3",
    ErrorCode.BAD_VALUE: "3.3",
    ErrorCode.UNEXPECTED_MESSAGE: "5.3",
    ErrorCode.DUPLICATE_CORRELATION: "5.2",
    ErrorCode.UNKNOWN_CORRELATION: "5.2",
    ErrorCode.UNKNOWN_PARTY: "5.1",
    ErrorCode.NO_COMMON_VERSION: "5.1",
    ErrorCode.HELLO_TIMEOUT: "5.5",
    ErrorCode.FRAME_TIMEOUT: "5.5",
    ErrorCode.IDLE_TIMEOUT: "5.5",
    ErrorCode.TRUNCATED_FRAME: "5.3",
    ErrorCode.TOO_MANY_REQUESTS: "5.2",
    ErrorCode.TOO_MANY_CONNECTIONS: "9",
    ErrorCode.SHUTTING_DOWN: "6.6",
    ErrorCode.INTERNAL: "9",
}
"""Where spec/protocol.md says what each code is about."""

MESSAGE_SECTIONS: Final[dict[Kind, str]] = {
    Kind.HELLO: "5.1",
    Kind.HELLO_ACK: "5.1",
    Kind.ECHO: "5.4",
    Kind.ECHO_REPLY: "5.4",
    Kind.ERROR: "5.6",
    Kind.BANK_KEYS_QUERY: "6.1",
    Kind.BANK_KEYS: "6.1",
    Kind.TOKEN_QUERY: "6.2",
    Kind.TOKEN_ACK: "6.2",
    Kind.ENCRYPTED_CREDENTIALS: "6.3",
    Kind.PAYMENT_ACK: "6.4",
    Kind.STATUS_QUERY: "6.5",
    Kind.STATUS_ACK: "6.5",
    Kind.TRANSFER_REQUEST: "7.1",
    Kind.TRANSFER_RESULT: "7.2",
    Kind.RESOLVE_REQUEST: "7.3",
    Kind.RESOLVE_RESULT: "7.3",
    Kind.SEAL_CREDENTIALS: "Appendix A",
    Kind.SEALED_CREDENTIALS: "Appendix A",
    Kind.OPEN_ENVELOPE: "Appendix A",
    Kind.OPENED_ENVELOPE: "Appendix A",
    Kind.MAKE_VERIFIER: "Appendix A",
    Kind.VERIFIER: "Appendix A",
}
"""Where spec/protocol.md declares each message: what a wrong value is held against."""

HEADER_PLACES: Final = {span.path: (span.start, span.end) for span in walk(Header, bytes(HEADER_SIZE)).spans}
"""Where each field of a header begins and ends."""

_HEX_SHOWN_MAX: Final = 32
"""Bytes of a value that are told: all identifiers, hashes and MACs of the protocol, so only a text is ever cut."""


def body_section(code: ErrorCode, kind: Kind) -> str:
    """Which section to cite for a fault in a body: a value's meaning stands with its message."""
    return MESSAGE_SECTIONS[kind] if code is ErrorCode.BAD_VALUE else SECTIONS[code]


def body_fault(kind: Kind, signed: bytes) -> tuple[Fault, str]:
    """What is wrong first in the body of a frame that was refused, with offsets in the frame, and what stands there."""
    fault = walk(MESSAGES[kind], signed, HEADER_SIZE).fault
    assert fault is not None, "the walk finds what the decoder refuses"
    return fault, _got(fault, signed)


def header_fault(error: RemoteProtocolError, header: bytes) -> tuple[int, str]:
    """Where in a header the field stands that `decode_head` refused, and what stands there."""
    start, end = HEADER_PLACES[error.path]
    there = header[start:end]
    if error.code is ErrorCode.BAD_MAGIC:
        # What is no header may be anything, a passcode too (R4).
        return start, "two other bytes"
    # Codes and flags are written in hexadecimal in the spec's tables, sizes and versions in decimal.
    is_number = error.code in (ErrorCode.BODY_TOO_SMALL, ErrorCode.BODY_TOO_LARGE, ErrorCode.UNSUPPORTED_VERSION)
    return start, str(int.from_bytes(there)) if is_number else f"0x{there.hex()}"


def checksum_fault(signed: bytes) -> tuple[int, str, str]:
    """Of a frame with a bad checksum: where the checksum stands, the right one and the one that stands there."""
    start, end = HEADER_PLACES["checksum"]
    return start, f"0x{frame_checksum(signed):08x}", f"0x{signed[start:end].hex()}"


def _got(fault: Fault, data: bytes) -> str:
    span = fault.span
    there = data[span.start : span.end]
    if fault.code is ErrorCode.TRUNCATED_FIELD:
        return f"the end of the body after {bytes_text(span.size)} of it"
    if span.part is Part.REST:
        return f"{bytes_text(span.size)} more"
    if span.sensitivity is Sensitivity.SECRET:
        if span.field is not None and span.field.sensitivity is not Sensitivity.SECRET:
            return "a value that is not shown, since a secret may have slipped to its place"
        return "another value, which is secret"
    if span.part is Part.SIZE:
        return bytes_text(int.from_bytes(there))
    if span.part is Part.COUNT:
        return f"{int.from_bytes(there)} items"
    if span.part is Part.RECORD or span.sensitivity is not Sensitivity.PUBLIC:
        return bytes_text(span.size)
    return _got_value(span, there)


def _got_value(span: Span, there: bytes) -> str:
    match span.type:
        case Choice(choices=choices):
            number = int.from_bytes(there)
            return next((f"{number} {choice.name}" for choice in choices if choice == number), str(number))
        case Uint() | Boolean():
            return str(int.from_bytes(there))
        case Text():
            return _got_text(there)
    return _hex(there) if any(there) else f"{bytes_text(span.size)}, all zero"


def _got_text(there: bytes) -> str:
    text = utf8_text(there)
    if text is None:
        return f"{_hex(there)}, which is no UTF-8"
    cut = text[:_HEX_SHOWN_MAX]
    return f"'{escape_line(cut)}'{'…' if cut != text else ''}, {bytes_text(len(there))}" if text else "an empty text"


def _hex(data: bytes) -> str:
    return f"0x{data[:_HEX_SHOWN_MAX].hex()}{'…' if len(data) > _HEX_SHOWN_MAX else ''}"


def bytes_text(count: int) -> str:
    """`1 byte`, `20 bytes`."""
    return "1 byte" if count == 1 else f"{count} bytes"
