"""The valid messages of the vectors: for every kind that travels on sockets, each variant that sets other fields."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Role, Route, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Record, fields_of
from paygate.codec.limits import FRAME_SIZE_MAX
from paygate.codec.messages import (
    MESSAGES,
    BankKeys,
    BankKeysQuery,
    Echo,
    EchoReply,
    EncryptedCredentials,
    Error,
    Hello,
    HelloAck,
    Message,
    PaymentAck,
    PaymentAnswer,
    ResolveRequest,
    ResolveResult,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
    TransferAnswer,
    TransferRequest,
    TransferResult,
)
from paygate.codec.seal import envelope_hash
from specgen.vector_fixtures import (
    AMOUNT_MINOR,
    BANK_ID,
    GATEWAY_ID,
    MERCHANT_ID,
    MERCHANT_NAME,
    NOW_MS,
    OPAQUE_ENVELOPE,
    PASSCODE,
    TRANSACTION_ID,
    UTR,
    X25519_KEY,
    build_receipt,
    build_signed_key_list,
    build_terms,
)
from specgen.vector_samples import at_lower_end, at_upper_end, with_field
from specgen.words import SOCKET_KINDS

R = TypeVar("R", bound=Record)

_CALLERS: Final = {"client": (Role.CLIENT, Role.GATEWAY), "bank": (Role.GATEWAY, Role.BANK)}
_PARTIES: Final = {Role.CLIENT: "client", Role.GATEWAY: GATEWAY_ID, Role.BANK: BANK_ID}
_LINKS: Final = {
    Route.ANY: ("client", "bank"),
    Route.CALLER: ("client", "bank"),
    Route.CLIENT_TO_GATEWAY: ("client",),
    Route.GATEWAY_TO_BANK: ("bank",),
    Route.PIPE: (),
}


def links_of(kind: Kind) -> tuple[str, ...]:
    """On which links a kind may travel: `client` (client and gateway) and `bank` (gateway and bank)."""
    return _LINKS[MESSAGES[kind].route]


def ends_of(kind: Kind, link: str) -> tuple[Role, Role]:
    """Who sends a kind to whom on a link. What either end may send is sent by its caller, an Error by the other."""
    caller, answering = _CALLERS[link]
    return (answering, caller) if kind.is_reply or kind is Kind.ERROR else (caller, answering)


def variants(kind: Kind, link: str) -> dict[str, Message]:
    """By name, the usual message of each status, outcome or reason that the kind has."""
    return dict(_VARIANTS[kind](link))


def with_ends(usual: Mapping[str, R]) -> dict[str, R]:
    """The same, and for each set of fields that are not empty a record at both ends of every range."""
    found = dict(usual)
    seen: set[tuple[bool, ...]] = set()
    for name, value in usual.items():
        shape = tuple(is_set(getattr(value, f.name)) for f in fields_of(type(value)))
        if shape not in seen:
            seen.add(shape)
            for end, at_end in (("least", at_lower_end), ("greatest", at_upper_end)):
                at = at_end(value)
                # Of all versions that a HelloAck can hold, a caller takes the one that exists.
                found[f"{name}_{end}"] = with_field(at, "version", 1) if isinstance(at, HelloAck) else at
    return found


def is_set(value: object) -> bool:
    """Whether a field has another value than zero or nothing."""
    return any(value) if isinstance(value, bytes) else bool(value)


def _hello(link: str) -> Iterable[tuple[str, Message]]:
    caller, _ = _CALLERS[link]
    yield "usual", Hello(caller, _PARTIES[caller], (1,))
    yield "several_versions", Hello(caller, _PARTIES[caller], (3, 1, 2))


def _hello_ack(link: str) -> Iterable[tuple[str, Message]]:
    _, answering = _CALLERS[link]
    yield "usual", HelloAck(answering, _PARTIES[answering], 1, FRAME_SIZE_MAX)


def _error(_link: str) -> Iterable[tuple[str, Message]]:
    for code in ErrorCode:
        yield code.name.lower(), Error(code, code.closes, code.name.lower().replace("_", " "))


def _bank_keys(_link: str) -> Iterable[tuple[str, Message]]:
    for status in KeysStatus:
        signed = build_signed_key_list(suite_keys=(X25519_KEY.public_suite_key(),))
        yield status.name.lower(), BankKeys(status, signed if status is KeysStatus.AVAILABLE else b"")


def _token_ack(_link: str) -> Iterable[tuple[str, Message]]:
    for status in TokenStatus:
        is_valid = status is TokenStatus.VALID
        yield (
            status.name.lower(),
            TokenAck(
                status=status,
                session_id=build_terms().session_id if is_valid else bytes(16),
                session_left_ms=30_000 if is_valid else 0,
                merchant_id=MERCHANT_ID if status.is_told else "",
                merchant_name=MERCHANT_NAME if status.is_told else "",
                amount_minor=AMOUNT_MINOR if status.is_told else 0,
                currency="INR" if status.is_told else "",
                gateway_id=GATEWAY_ID,
                bank_id=BANK_ID,
                utr=UTR if status is TokenStatus.PAID else "",
            ),
        )


_PROVEN: Final = {PaymentStatus.PAID: TransferOutcome.POSTED, PaymentStatus.DECLINED: TransferOutcome.DECLINED}


def _payment_answers(cls: type[PaymentAnswer]) -> Iterable[tuple[str, Message]]:
    payment_id = build_terms().payment_id
    for status in PaymentStatus:
        if status is PaymentStatus.UNKNOWN and cls is PaymentAck:  # Spec 6.4: StatusAck only.
            continue
        for reason in filter(status.fits, Reason):
            outcome = TransferOutcome.FENCED if reason is Reason.FENCED else _PROVEN.get(status)
            receipt = build_receipt(outcome, reason) if outcome else b""
            utr = UTR if status is PaymentStatus.PAID or reason is Reason.TOKEN_PAID else ""
            yield _name(status.name, reason), cls(payment_id, status, reason, utr, receipt)
    yield "refused_token_paid_without_utr", cls(payment_id, PaymentStatus.REFUSED, Reason.TOKEN_PAID, "", b"")


def _transfer_answers(cls: type[TransferAnswer]) -> Iterable[tuple[str, Message]]:
    for outcome in TransferOutcome:
        for reason in filter(outcome.fits, Reason):
            utr = UTR if outcome is TransferOutcome.POSTED else ""
            receipt = build_receipt(outcome, reason)
            yield _name(outcome.name, reason), cls(build_terms().payment_id, outcome, reason, utr, receipt)


def _name(status: str, reason: Reason) -> str:
    return status.lower() if reason is Reason.NONE else f"{status}_{reason.name}".lower()


def _one(message: Message) -> Callable[[str], Iterable[tuple[str, Message]]]:
    return lambda _link: [("usual", message)]


_TERMS: Final = build_terms()
_KEY_ID: Final = X25519_KEY.public_suite_key().key_id
_VARIANTS: Final[dict[Kind, Callable[[str], Iterable[tuple[str, Message]]]]] = {
    Kind.HELLO: _hello,
    Kind.HELLO_ACK: _hello_ack,
    Kind.ECHO: _one(Echo(b"echoecho")),
    Kind.ECHO_REPLY: _one(EchoReply(b"echoecho")),
    Kind.ERROR: _error,
    Kind.BANK_KEYS_QUERY: _one(BankKeysQuery(BANK_ID)),
    Kind.BANK_KEYS: _bank_keys,
    Kind.TOKEN_QUERY: _one(TokenQuery(TRANSACTION_ID, PASSCODE)),
    Kind.TOKEN_ACK: _token_ack,
    Kind.ENCRYPTED_CREDENTIALS: _one(
        EncryptedCredentials(_TERMS.session_id, _TERMS.payment_id, NOW_MS, _KEY_ID, OPAQUE_ENVELOPE)
    ),
    Kind.PAYMENT_ACK: lambda _link: _payment_answers(PaymentAck),
    Kind.STATUS_QUERY: _one(StatusQuery(_TERMS.payment_id, TRANSACTION_ID, PASSCODE)),
    Kind.STATUS_ACK: lambda _link: _payment_answers(StatusAck),
    Kind.TRANSFER_REQUEST: _one(TransferRequest(_TERMS, 20_000, _KEY_ID, OPAQUE_ENVELOPE)),
    Kind.TRANSFER_RESULT: lambda _link: _transfer_answers(TransferResult),
    Kind.RESOLVE_REQUEST: _one(ResolveRequest(_TERMS, envelope_hash(OPAQUE_ENVELOPE))),
    Kind.RESOLVE_RESULT: lambda _link: _transfer_answers(ResolveResult),
}
assert set(_VARIANTS) == set(SOCKET_KINDS)

DONORS: Final[dict[Kind, tuple[Message, ...]]] = {
    Kind.PAYMENT_ACK: (PaymentAck(_TERMS.payment_id, PaymentStatus.UNKNOWN, Reason.NONE, "", b""),),
}
"""Messages that break a rule by a value that no legal message of their kind has."""
