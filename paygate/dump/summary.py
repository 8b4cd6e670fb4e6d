"""The fields of a message that matter, in one short line, by the declarations (R24).

Strategy: what a field shows is decided once for each kind, from its declaration: a code by its name, an amount with its
currency, an ID by its first digits, a secret by its mask, and nothing for zero or empty. Showing a frame is then a loop
over a few functions. Every text that comes from a peer goes through `paygate.escape` (T21), in quotation marks where it
may hold blanks, so that it can't pass for a field of its own.
"""

from collections.abc import Callable
from enum import IntEnum
from operator import attrgetter
from typing import Any, Final

from paygate.clock import utc_text
from paygate.codec import limits
from paygate.codec.codes import Kind, PaymentStatus, Reason, SealStatus, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import (
    AMOUNT_MINOR,
    ENVELOPE,
    TIME_LEFT_MS,
    TIME_MS,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Sensitivity,
    Text,
    Uint,
    WireField,
    fields_of,
)
from paygate.codec.messages import (
    MESSAGES,
    EncryptedCredentials,
    HelloAck,
    MakeVerifier,
    Message,
    SealCredentials,
    TokenAck,
)
from paygate.codec.money import format_amount
from paygate.codec.seal import AEAD_TAG_SIZE, SUITES
from paygate.codec.sealed import CredentialsPlaintext, Terms
from paygate.dump.envelopes import opened_fields
from paygate.dump.model import SeenFrame
from paygate.dump.output import Colours
from paygate.escape import escape_line

ID_DIGITS: Final = 8
"""How much of an ID is shown, in hexadecimal digits: 32 bits tell the payments of a capture apart."""
ENVELOPE_SUITES: Final = {
    suite.enc_size + limits.ENVELOPE_PLAINTEXT_SIZE + AEAD_TAG_SIZE: suite.kem_id for suite in SUITES
}
"""Which suite made an envelope, by its size in bytes: a plaintext has one size, and each suite adds its own (8.2)."""

_LEFT_OUT: Final[dict[type[Record], frozenset[str]]] = {
    # Who speaks stands in front of the line already.
    TokenAck: frozenset({"gateway_id", "bank_id", "merchant_name"}),
    # A payment is told by its own ID, its token and its amount; the rest of what it binds is for `-v`.
    Terms: frozenset({"gateway_id", "bank_id", "session_id", "authorised_at_ms"}),
    EncryptedCredentials: frozenset({"authorised_at_ms"}),
    HelloAck: frozenset({"frame_size_max"}),
    SealCredentials: frozenset({"password_key"}),
    MakeVerifier: frozenset({"password_key"}),
}
"""Fields that a line leaves to the tree."""
for _cls, _names in _LEFT_OUT.items():
    assert _names <= {f.name for f in fields_of(_cls)}, f"{_cls.__name__} has no such fields"

_GOOD: Final[dict[type[IntEnum], frozenset[IntEnum]]] = {
    TokenStatus: frozenset({TokenStatus.VALID}),
    PaymentStatus: frozenset({PaymentStatus.PAID}),
    TransferOutcome: frozenset({TransferOutcome.POSTED}),
    SealStatus: frozenset({SealStatus.DONE}),
    Reason: frozenset({Reason.NONE}),
    ErrorCode: frozenset(),
}
"""The registries whose codes say how something went, and which went well. What is in neither table went badly."""
_IN_DOUBT: Final[dict[type[IntEnum], frozenset[IntEnum]]] = {
    TokenStatus: frozenset({TokenStatus.PAID, TokenStatus.IN_FLIGHT}),
    PaymentStatus: frozenset({PaymentStatus.PENDING, PaymentStatus.UNKNOWN}),
    TransferOutcome: frozenset({TransferOutcome.UNAVAILABLE}),
    ErrorCode: frozenset({ErrorCode.TOO_MANY_REQUESTS, ErrorCode.SHUTTING_DOWN}),
}

Piece = Callable[[Any], str]
"""Shows a part of a record; empty if there is nothing to show."""


class Summary:
    """Shows messages of any kind in the same colours and with the same mask."""

    def __init__(self, colours: Colours, *, show_secrets: bool) -> None:
        self._show_secrets = show_secrets
        self._pieces = {kind: tuple(_pieces(cls, colours, show_secrets)) for kind, cls in MESSAGES.items()}

    def text(self, kind: Kind, message: Message, opened: CredentialsPlaintext | None = None) -> str:
        """The fields that matter, one blank between them; behind them what its envelope holds, if it was opened."""
        text = " ".join([text for piece in self._pieces[kind] if (text := piece(message))])
        return text if opened is None else f"{text} {opened_text(opened, show_secrets=self._show_secrets)}"


def summary(frame: SeenFrame, *, show_secrets: bool) -> str:
    """The fields of a frame that matter, without colours and safe to print; empty if its body is broken."""
    return _PLAIN[show_secrets].text(frame.kind, frame.message) if frame.message is not None else ""


def opened_text(opened: CredentialsPlaintext, *, show_secrets: bool) -> str:
    """Whose credentials an opened envelope holds, safe to print."""
    user_id = dict(opened_fields(opened, show_secrets=show_secrets))["user_id"]
    # Escaped already, but sealed by a stranger, so it may look like more fields.
    return "opens: user=" + (quoted(user_id) if {" ", '"'} & set(user_id) else user_id)


def coloured_code(code: IntEnum, colours: Colours) -> str:
    """A code's name in the colour of how it went; as it is if its registry does not say how something went."""
    # Codes of two registries are equal if their numbers are, so each registry has a set of its own.
    good = _GOOD.get(type(code))
    if good is None:
        return code.name
    if code in good:
        return colours.good(code.name)
    in_doubt = code in _IN_DOUBT.get(type(code), frozenset())
    return colours.doubt(code.name) if in_doubt else colours.bad(code.name)


def quoted(text: str) -> str:
    """A peer's text in quotation marks that it can't end, safe to print."""
    return '"' + escape_line(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def text_of(field: Field) -> Callable[[str], str]:
    """How texts of a field are shown: bare if they can't hold a blank, else in quotation marks."""
    assert isinstance(field, Text)
    return quoted if field.is_legal("a b") else escape_line


def seconds_text(milliseconds: int) -> str:
    """A span of time for people: `9.5s`."""
    return f"{milliseconds / 1_000:g}s"


# -- pieces of records -------------------------------------------------------------------------------------


def _pieces(cls: type[Record], colours: Colours, show_secrets: bool) -> list[Piece]:
    left_out = _LEFT_OUT.get(cls, frozenset())
    shown = [f for f in fields_of(cls) if f.name not in left_out and f.name != "currency"]
    return [_piece(field, colours, show_secrets) for field in shown]


def _piece(field: WireField, colours: Colours, show_secrets: bool) -> Piece:
    name, kind, get = field.name, field.type, attrgetter(field.name)
    before = f"{name.removesuffix('_id').removesuffix('_ms')}="
    if field.sensitivity is not Sensitivity.PUBLIC and not (show_secrets and field.sensitivity is Sensitivity.SECRET):
        return _masked(before, field, get)
    if isinstance(kind, Nested):
        inner = tuple(_pieces(kind.record, colours, show_secrets))
        return lambda r: " ".join([text for piece in inner if (text := piece(get(r)))])
    if isinstance(kind, Uint) and kind.unit == AMOUNT_MINOR.unit:
        return lambda r: f"{format_amount(r.amount_minor, r.currency)} {r.currency}" if r.amount_minor else ""
    if isinstance(kind, Choice):
        # A code needs no name in front: no two registries of a message share one.
        codes = {code: coloured_code(code, colours) if code else "" for code in kind.choices}
        return lambda r: codes[get(r)]
    show = _value(kind)

    def piece(record: Any) -> str:
        value = get(record)
        text = show(value) if value else ""
        return before + text if text else ""

    return piece


def _masked(before: str, field: WireField, get: Callable[[Any], Any]) -> Piece:
    if field.sensitivity is not Sensitivity.SIZED:
        return lambda _: f"{before}<secret>"
    if field.type is ENVELOPE:
        return lambda r: f"{before}{envelope_text(get(r))}"
    return lambda r: f"{before}<{len(value)} bytes>" if (value := get(r)) else ""


def envelope_text(envelope: bytes) -> str:
    """An envelope's size, and its suite if its size tells."""
    kem_id = ENVELOPE_SUITES.get(len(envelope))
    suite = kem_id.name if kem_id is not None else "no known suite"
    return f"<{len(envelope)} bytes, {suite}>"


def _value(kind: Field) -> Callable[[Any], str]:
    match kind:
        case Text():
            return text_of(kind)
        case Opaque():
            return lambda v: v.hex()[:ID_DIGITS] if any(v) else ""
        case Uint(unit=TIME_LEFT_MS.unit):
            return seconds_text
        case Uint(unit=TIME_MS.unit):
            return utc_text
        case Counted():
            item = _value(kind.item)
            return lambda v: ",".join(map(item, v))
    return lambda v: "yes" if v is True else str(v)


_PLAIN: Final = {shows: Summary(Colours(), show_secrets=shows) for shows in (False, True)}
