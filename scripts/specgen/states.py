"""State diagrams, and total state × message tables, of links, tokens, payments and the client's session.

Strategy: the diagrams are drawn from the transition tables that the cores run. The tables are *measured*: for every
state a real link, token store or ledger is put into that state and given every message; the cell says what it did.
So a cell can't say anything that the code does not do, and none can be missing.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate import link as links
from paygate.bank.ledger import (
    BankIdentity,
    OpenCustomer,
    Opened,
    OpenMerchant,
    PaymentOperation,
    PaymentOutcome,
    Resolve,
    Transfer,
)
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.client import states as client_states
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind, PaymentStatus, Reason, Role, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import Header, encode_frame, encode_record
from paygate.codec.messages import Error, Hello, HelloAck, Message
from paygate.codec.sealed import Terms
from paygate.gateway.payment import TOKEN_TRANSITIONS, expire
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import (
    BeginPayment,
    CancelToken,
    CheckToken,
    FindPayment,
    IssueToken,
    Operation,
    Outcome,
    Payment,
    PaymentBegun,
    PaymentFound,
    SettlePayment,
    Token,
    TokenChecked,
    TokenState,
)
from paygate.link import Link, LinkFailed, LinkState, PeerClosed, ReplyReceived, RequestReceived
from specgen.samples import sample
from specgen.tables import table
from specgen.words import SOCKET_KINDS, message_name

# -- diagrams --------------------------------------------------------------------------------------------


def _diagram(starts: dict[str, str], steps: Iterable[tuple[str, str, str]]) -> str:
    """A fenced Mermaid state diagram; what leads from one state to another is drawn as one arrow.

    `starts`: each first state, and who begins there; empty if there is only one.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, label, target in steps:
        arrows.setdefault((source, target), []).append(label)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {start}{f': {who}' if who else ''}" for start, who in starts.items()]
    lines += [f"    {source} --> {target}: {' / '.join(labels)}" for (source, target), labels in arrows.items()]
    return "\n".join([*lines, "```"])


def link_diagram() -> str:
    """Both ends of a link, from the table that `paygate/link.py` runs."""
    steps = [
        (state.name, entered.value, after.name)
        for state, row in links.TRANSITIONS.items()
        for entered, after in row.items()
        if state is not after
    ]
    starts = {LinkState.WAIT_HELLO: "answering end", LinkState.WAIT_HELLO_ACK: "caller, sends Hello"}
    return _diagram({state.name: who for state, who in starts.items()}, steps)


def token_diagram() -> str:
    """A token at the gateway, from the table that `paygate/gateway/payment.py` runs."""
    steps = [
        (state.name, event.value, after.name)
        for state, row in TOKEN_TRANSITIONS.items()
        for event, after in row.items()
        if state is not after
    ]
    return _diagram({TokenState.UNPAID.name: ""}, steps)


def client_diagram() -> str:
    """The client's session, from the table that `paygate/client/states.py` runs."""
    steps = [
        (state.name, event.name, after.name)
        for state, row in client_states.TRANSITIONS.items()
        for event, after in row.items()
        if state is not after
    ]
    return _diagram({client_states.State.CONNECTING.name: ""}, steps)


def client_events_table() -> str:
    """The words of the client's events."""
    return table(["event", "meaning"], [[event.name, event.value] for event in client_states.Event])


# -- links -----------------------------------------------------------------------------------------------

_NOW_MS: Final = 0
_LINK_KEY: Final = bytes(range(32))
_GATEWAY_ID: Final = "gateway"
_BANK_ID: Final = "bank"


@dataclass(frozen=True)
class _End:
    """One end of one kind of link, and the state that it is put into."""

    name: str
    make: Callable[[], Link]
    peer: Role
    has_mac: bool
    state: LinkState

    def link(self) -> Link:
        link = self.make()
        if self.state is LinkState.CLOSED:
            link.close()
        elif self.state is LinkState.OPEN:
            if link.is_caller:
                party_id = _BANK_ID if self.has_mac else _GATEWAY_ID
                ack = HelloAck(self.peer, party_id, limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
                link.receive_data(self.frame(ack, 1), _NOW_MS)
            else:
                link.receive_data(self.frame(self.adapted(sample(Kind.HELLO)), 1), _NOW_MS)
        assert link.state is self.state
        link.data_to_send()
        return link

    def adapted(self, message: Message) -> Message:
        """Hello and HelloAck as this end's peer says them."""
        if isinstance(message, Hello):
            return replace(message, role=self.peer, party_id=_GATEWAY_ID)
        if isinstance(message, HelloAck):
            return replace(message, role=self.peer)
        return message

    def frame(self, message: Message, correlation_id: int) -> bytes:
        return encode_frame(message, correlation_id, _LINK_KEY if self.has_mac else None)


def _gateway_for_client() -> Link:
    return Link(Role.GATEWAY, _GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=_NOW_MS)


def _bank_for_gateway() -> Link:
    keys = {_GATEWAY_ID: _LINK_KEY}
    return Link(Role.BANK, _BANK_ID, Role.GATEWAY, is_caller=False, now_ms=_NOW_MS, key_of=keys.get)


def _client() -> Link:
    return Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=_NOW_MS)


def _gateway_at_bank() -> Link:
    return Link(Role.GATEWAY, _GATEWAY_ID, Role.BANK, is_caller=True, now_ms=_NOW_MS, link_key=_LINK_KEY)


ANSWERING_ENDS: Final = [
    _End("gateway, WAIT_HELLO", _gateway_for_client, Role.CLIENT, False, LinkState.WAIT_HELLO),
    _End("gateway, OPEN", _gateway_for_client, Role.CLIENT, False, LinkState.OPEN),
    _End("bank, WAIT_HELLO", _bank_for_gateway, Role.GATEWAY, True, LinkState.WAIT_HELLO),
    _End("bank, OPEN", _bank_for_gateway, Role.GATEWAY, True, LinkState.OPEN),
    _End("CLOSED", _gateway_for_client, Role.CLIENT, False, LinkState.CLOSED),
]
CALLING_ENDS: Final = [
    _End("client, WAIT_HELLO_ACK", _client, Role.GATEWAY, False, LinkState.WAIT_HELLO_ACK),
    _End("client, OPEN", _client, Role.GATEWAY, False, LinkState.OPEN),
    _End("gateway, WAIT_HELLO_ACK", _gateway_at_bank, Role.BANK, True, LinkState.WAIT_HELLO_ACK),
    _End("gateway, OPEN", _gateway_at_bank, Role.BANK, True, LinkState.OPEN),
    _End("CLOSED", _client, Role.GATEWAY, False, LinkState.CLOSED),
]


def link_table(ends: list[_End]) -> str:
    """What each end does with everything that can come, in each state."""
    names: dict[tuple[str, ...], list[str]] = {}  # what comes, by what all ends do with it: one row each
    for name, act in _link_rows():
        names.setdefault(tuple(act(end) for end in ends), []).append(name)
    return table(["what comes", *(end.name for end in ends)], [["; ".join(n), *cells] for cells, n in names.items()])


def _link_rows() -> Iterator[tuple[str, Callable[[_End], str]]]:
    for kind in SOCKET_KINDS:
        name = message_name(kind)
        if kind is Kind.ERROR:
            yield "Error, closes = 1", lambda end: _received(end, Error(ErrorCode.INTERNAL, True, ""), 0)
            yield "Error, closes = 0, to a request that waits", _error_to_waiting
            passing = Error(ErrorCode.TOO_MANY_REQUESTS, False, "")
            yield "Error, closes = 0, to none", lambda end, error=passing: _received(end, error, 99)  # type: ignore[misc]  # a default binds it
        elif kind.is_reply:
            yield f"{name}, waited for", lambda end, kind=kind: _waited_reply(end, kind)  # type: ignore[misc]
            yield f"{name}, not waited for", lambda end, kind=kind: _received(end, sample(kind), 99)  # type: ignore[misc]
        else:
            yield name, lambda end, kind=kind: _received(end, sample(kind), 7)  # type: ignore[misc]
    yield "a request whose correlation ID waits", _twice
    yield "a kind of the pipes (appendix A)", lambda end: _received(end, sample(Kind.MAKE_VERIFIER), 7)
    yield "an unknown or reserved kind", lambda end: _raw(end, _head(kind=0x22))
    yield "another fault in a header", lambda end: _raw(end, _head(version=2))
    yield "MAC missing (bank link) or unexpected (client link)", _wrong_mac_flag
    yield "a whole frame with a bad checksum", _bad_checksum
    yield "end of stream between frames", lambda end: _outcome(link := end.link(), link.receive_eof())
    yield "end of stream within a frame", _cut
    yield "the timer of this state runs out (5.5)", _timer
    yield "own wish to close", _close


def _received(end: _End, message: Message, correlation_id: int) -> str:
    return _raw(end, end.frame(end.adapted(message), correlation_id))


def _raw(end: _End, data: bytes) -> str:
    link = end.link()
    return _outcome(link, link.receive_data(data, _NOW_MS))


def _waited_reply(end: _End, kind: Kind) -> str:
    link = end.link()
    request = Kind(kind & 0x7F)
    if kind is Kind.HELLO_ACK and end.state is LinkState.WAIT_HELLO_ACK:
        correlation_id = 1
    elif link.is_open and link._may_send(request):
        correlation_id = link.send_request(sample(request))
        link.data_to_send()
    else:
        return "ignore" if link.is_closed else "–"
    return _outcome(link, link.receive_data(end.frame(end.adapted(sample(kind)), correlation_id), _NOW_MS))


def _error_to_waiting(end: _End) -> str:
    link = end.link()
    if link.is_closed:
        return "ignore"
    if end.state is LinkState.WAIT_HELLO_ACK:
        correlation_id = 1
    elif link.is_open and link._may_send(Kind.ECHO):
        correlation_id = link.send_request(sample(Kind.ECHO))
        link.data_to_send()
    else:
        return "–"
    error = Error(ErrorCode.TOO_MANY_REQUESTS, False, "")
    text = _outcome(link, link.receive_data(end.frame(error, correlation_id), _NOW_MS))
    # A refused link test shows that the peer lives; a refused request is told to who asked.
    return "match it" if text == "take it" else text


def _twice(end: _End) -> str:
    link = end.link()
    request = sample(Kind.BANK_KEYS_QUERY)
    frame = end.frame(request, 7)
    if link.is_open and not link.is_caller:
        link.receive_data(frame, _NOW_MS)
        link.data_to_send()
        return _outcome(link, link.receive_data(frame, _NOW_MS))
    return _received(end, request, 7)


def _wrong_mac_flag(end: _End) -> str:
    return _raw(end, encode_frame(sample(Kind.ECHO), 7, None if end.has_mac else _LINK_KEY))


def _bad_checksum(end: _End) -> str:
    kind = Kind.HELLO if end.state is LinkState.WAIT_HELLO else Kind.ECHO
    if end.state is LinkState.WAIT_HELLO_ACK:
        kind = Kind.HELLO_ACK
    frame = bytearray(end.frame(end.adapted(sample(kind)), 1))
    frame[limits.HEADER_SIZE - 1] ^= 1
    return _raw(end, bytes(frame))


def _cut(end: _End) -> str:
    link = end.link()
    link.receive_data(b"PG", _NOW_MS)
    return _outcome(link, link.receive_eof())


def _timer(end: _End) -> str:
    link = end.link()
    deadline_ms = link.next_deadline_ms()
    if deadline_ms is None:
        return "–"
    return _outcome(link, link.receive_timer(deadline_ms))


def _close(end: _End) -> str:
    link = end.link()
    link.close()
    return link.state.name


def _head(*, version: int = limits.PROTOCOL_VERSION, kind: int = int(Kind.ECHO)) -> bytes:
    return encode_record(Header(0x5047, version, kind, 0, limits.ECHO_DATA_SIZE, 7, 0))


def _outcome(link: Link, events: list[links.LinkEvent]) -> str:
    """In words: what the link told, what it sent, and where it is now."""
    sent = FrameBuffer()
    sent.receive_data(link.data_to_send())
    answer = sent.next_frame()
    event = events[0] if events else None
    match event:
        case links.Opened():
            text = "OPEN"
        case RequestReceived():
            text = "serve it"
        case ReplyReceived():
            text = "match it"
        case PeerClosed():
            text = "CLOSED"
        case LinkFailed(error=error):
            assert answer is not None
            assert answer.kind is Kind.ERROR
            return f"refuse: {error.code.name}"
        case _:
            text = "ignore" if link.is_closed else "take it"
    if answer is not None:
        sends = f"send {message_name(answer.kind)}"
        text = sends if text == "take it" else f"{text}, {sends}"
    return text


# -- tokens at the gateway -------------------------------------------------------------------------------

_NOW: Final = Now(wall_ms=1_700_000_000_000, mono_ms=1_000)
_TOKEN: Final = Token("TX", "pass", "M", "", 100, "INR", None)
_UTR: Final = "BANKP12023111400000001"
_TERMS: Final = Terms("bank", "gateway", "M", "TX", b"p" * 16, b"s" * 16, 100, "INR", _NOW.wall_ms)
_OTHER_TERMS: Final = replace(_TERMS, payment_id=b"q" * 16)
_HASH: Final = bytes(32)


def _settle(outcome: TransferOutcome, payment_id: bytes = _TERMS.payment_id) -> SettlePayment:
    reason = {TransferOutcome.DECLINED: Reason.FUNDS, TransferOutcome.FENCED: Reason.FENCED}.get(outcome, Reason.NONE)
    return SettlePayment(payment_id, outcome, reason, _UTR if outcome is TransferOutcome.POSTED else "", b"")


_BEGUN: Final[list[Operation]] = [IssueToken(_TOKEN), BeginPayment(_TERMS, _HASH)]
_TOKEN_COLUMNS: Final[dict[str, tuple[TokenState | None, list[Operation]]]] = {
    "unknown token": (None, []),
    "UNPAID": (TokenState.UNPAID, [IssueToken(_TOKEN)]),
    "UNPAID again: this payment was declined": (TokenState.UNPAID, [*_BEGUN, _settle(TransferOutcome.DECLINED)]),
    "IN_FLIGHT by this payment": (TokenState.IN_FLIGHT, _BEGUN),
    "PAID by this payment": (TokenState.PAID, [*_BEGUN, _settle(TransferOutcome.POSTED)]),
    "CANCELLED": (TokenState.CANCELLED, [IssueToken(_TOKEN), CancelToken(_TOKEN)]),
    "EXPIRED": (TokenState.EXPIRED, [IssueToken(replace(_TOKEN, expires_ms=_NOW.wall_ms)), CheckToken("TX", "pass")]),
}
"""Each column's state, and what brings a token into it."""
_TOKEN_ROWS: Final[list[tuple[str, Operation]]] = [
    ("TokenQuery, right passcode", CheckToken("TX", "pass")),
    ("TokenQuery, wrong passcode", CheckToken("TX", "wrong")),
    ("EncryptedCredentials of this payment", BeginPayment(_TERMS, _HASH)),
    ("EncryptedCredentials, this payment ID with another envelope", BeginPayment(_TERMS, bytes(31) + b"\1")),
    ("EncryptedCredentials of another payment", BeginPayment(_OTHER_TERMS, _HASH)),
    ("StatusQuery of this payment, right passcode", FindPayment(_TERMS.payment_id, "TX", "pass")),
    ("StatusQuery of another payment, right passcode", FindPayment(_OTHER_TERMS.payment_id, "TX", "pass")),
    ("StatusQuery, wrong passcode", FindPayment(_TERMS.payment_id, "TX", "wrong")),
    *(
        (f"the bank's result for this payment: {outcome.name}", _settle(outcome))
        for outcome in TransferOutcome
        if outcome is not TransferOutcome.UNAVAILABLE  # it leaves everything as it is, and the store never hears of it
    ),
    ("the merchant withdraws it", CancelToken(_TOKEN)),
]


def token_table() -> str:
    """What the gateway does with everything that can come for a token, in each of its states."""
    rows = []
    for name, operation in _TOKEN_ROWS:
        rows.append([name, *(_token_cell(state, into, operation) for state, into in _TOKEN_COLUMNS.values())])
    expired = [_expired(state) if state else "–" for state, _ in _TOKEN_COLUMNS.values()]
    rows.append(["its time is seen to be over", *expired])
    return table(["what comes", *_TOKEN_COLUMNS], rows)


def _expired(state: TokenState) -> str:
    token = replace(_TOKEN, state=state, expires_ms=_NOW.wall_ms, payment_id=_TERMS.payment_id)
    after = expire(token, _NOW.wall_ms).state
    return "–" if after is state else after.name


def _token_cell(before: TokenState | None, into: list[Operation], operation: Operation) -> str:
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteTokens(Path(directory) / "tokens.db")
        try:
            store.apply(into, _NOW)
            assert [token.state for token in store.tokens()] == ([before] if before else [])
            outcome = store.apply([operation], _NOW)[0]
            token = next(store.tokens(), None)
        finally:
            store.close()
    moved = token.state.name if token and token.state is not before else ""
    return ", ".join(part for part in (moved, _said(outcome)) if part) or "–"


def _said(outcome: Outcome) -> str:
    """What an outcome of the store makes the gateway say."""
    match outcome:
        case TokenChecked():
            return f"TokenAck {outcome.status.name}"
        case PaymentBegun(payment=None) | PaymentFound(payment=None) if outcome.refusal is not Reason.NONE:
            return f"REFUSED {outcome.refusal.name}"
        case PaymentBegun(payment=Payment(outcome=None), is_new=is_new):
            return "send TransferRequest" if is_new else "wait with the first"
        case PaymentFound(payment=None):
            return PaymentStatus.UNKNOWN.name
        case PaymentBegun(payment=Payment() as payment) | PaymentFound(payment=Payment() as payment):
            if payment.outcome is None:
                return PaymentStatus.PENDING.name
            return "PAID, the same bytes" if payment.outcome is TransferOutcome.POSTED else "DECLINED, the same bytes"
    return ""


# -- payments at the bank --------------------------------------------------------------------------------

_CUSTOMER: Final = OpenCustomer("C", "user", bytes(32), 1_000)
_MERCHANT: Final = OpenMerchant("M", "", 0)
_TRANSFER: Final = Transfer(_TERMS, _HASH, Opened("user", bytes(32)), 10**12)
_POOR: Final = Transfer(_TERMS, _HASH, Reason.TERMS, 10**12)
_ABSENT: Final = "ABSENT"
_PAYMENT_STATES: Final[dict[str, list[PaymentOperation]]] = {
    _ABSENT: [],
    TransferOutcome.POSTED.name: [_TRANSFER],
    TransferOutcome.DECLINED.name: [_POOR],
    TransferOutcome.FENCED.name: [Resolve(_TERMS, _HASH)],
}
_PAYMENT_ROWS: Final[list[tuple[str, PaymentOperation]]] = [
    ("TransferRequest that nothing speaks against", _TRANSFER),
    ("TransferRequest that a reason speaks against", _POOR),
    ("ResolveRequest", Resolve(_TERMS, _HASH)),
]
_OTHER: Final = replace(_TERMS, amount_minor=99)
_MISMATCH_ROWS: Final[list[tuple[str, PaymentOperation]]] = [
    ("TransferRequest, this payment ID with other terms or envelope", replace(_TRANSFER, terms=_OTHER)),
    ("ResolveRequest, this payment ID with other terms or envelope hash", Resolve(_OTHER, _HASH)),
]


def payment_table() -> str:
    """What the bank does with every request, by what it knows of the payment ID."""
    rows = [
        [name, *(_payment_cell(state, operation) for state in _PAYMENT_STATES)] for name, operation in _PAYMENT_ROWS
    ]
    for name, operation in _MISMATCH_ROWS:
        # A payment ID that was never seen has no other terms.
        rows.append([name, "–", *(_payment_cell(state, operation) for state in _PAYMENT_STATES if state != _ABSENT)])
    return table(["request", *_PAYMENT_STATES], rows)


def payment_diagram() -> str:
    """A payment ID at the bank, as measured."""
    steps = [(_ABSENT, name, _payment_cell(_ABSENT, operation)) for name, operation in _PAYMENT_ROWS]
    return _diagram({_ABSENT: ""}, steps)


def _payment_cell(state: str, operation: PaymentOperation) -> str:
    with tempfile.TemporaryDirectory() as directory:
        key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        ledger = SqliteLedger(Path(directory) / "ledger.db", BankIdentity("bank", "BANK", "INR"), key)
        try:
            ledger.apply([_CUSTOMER, _MERCHANT], _NOW)
            first = ledger.apply(_PAYMENT_STATES[state], _NOW)
            outcome = ledger.apply([operation], _NOW)[0]
        finally:
            ledger.close()
    assert isinstance(outcome, PaymentOutcome)
    assert outcome.outcome is not None
    if first and isinstance(first[0], PaymentOutcome) and outcome.receipt and outcome.receipt == first[0].receipt:
        return f"{outcome.outcome.name}, the same bytes"
    return outcome.outcome.name
