"""Total state × message tables of tokens at the gateway and payments at the bank, *measured*.

A real token store or ledger is put into each state and given everything that can come; the cell says what it did.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
from paygate.clock import Now
from paygate.codec.codes import PaymentStatus, Reason, TransferOutcome
from paygate.codec.sealed import Terms
from paygate.gateway.payment import PASSCODE_TRY_COUNT_MAX, expire
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
from specgen.diagrams import state_diagram
from specgen.tables import table

# -- tokens at the gateway -------------------------------------------------------------------------------

_NOW: Final = Now(wall_ms=1_700_000_000_000, mono_ms=1_000)
_TOKEN: Final = Token("TX", "pass", "M", "", 100, "INR", None)
_UTR: Final = "BANKP12023111400000001"
_TERMS: Final = Terms("bank", "gateway", "M", "TX", b"p" * 16, b"s" * 16, 100, "INR", _NOW.wall_ms)
_OTHER_TERMS: Final = replace(_TERMS, payment_id=b"q" * 16)
_NEW_TERMS: Final = replace(_TERMS, payment_id=b"n" * 16)
_HASH: Final = bytes(32)


def _settle(outcome: TransferOutcome, payment_id: bytes = _TERMS.payment_id) -> SettlePayment:
    reason = {TransferOutcome.DECLINED: Reason.FUNDS, TransferOutcome.FENCED: Reason.FENCED}.get(outcome, Reason.NONE)
    return SettlePayment(payment_id, outcome, reason, _UTR if outcome is TransferOutcome.POSTED else "", b"")


_BEGUN: Final[list[Operation]] = [IssueToken(_TOKEN), BeginPayment(_TERMS, _HASH)]
_OTHER_BEGUN: Final[list[Operation]] = [IssueToken(_TOKEN), BeginPayment(_OTHER_TERMS, _HASH)]
_TOKEN_COLUMNS: Final[dict[str, tuple[TokenState | None, list[Operation]]]] = {
    "unknown token": (None, []),
    "UNPAID": (TokenState.UNPAID, [IssueToken(_TOKEN)]),
    "UNPAID and LOCKED": (
        TokenState.UNPAID,
        [IssueToken(_TOKEN), *[CheckToken("TX", "wrong")] * PASSCODE_TRY_COUNT_MAX],
    ),
    "UNPAID again: this payment was declined": (TokenState.UNPAID, [*_BEGUN, _settle(TransferOutcome.DECLINED)]),
    "UNPAID again: this payment ended by MISMATCH": (TokenState.UNPAID, [*_BEGUN, _settle(TransferOutcome.MISMATCH)]),
    "IN_FLIGHT by this payment": (TokenState.IN_FLIGHT, _BEGUN),
    "IN_FLIGHT by another payment": (TokenState.IN_FLIGHT, _OTHER_BEGUN),
    "PAID by this payment": (TokenState.PAID, [*_BEGUN, _settle(TransferOutcome.POSTED)]),
    "PAID by another payment": (
        TokenState.PAID,
        [*_OTHER_BEGUN, _settle(TransferOutcome.POSTED, _OTHER_TERMS.payment_id)],
    ),
    "CANCELLED": (TokenState.CANCELLED, [IssueToken(_TOKEN), CancelToken(_TOKEN)]),
    "EXPIRED": (TokenState.EXPIRED, [IssueToken(replace(_TOKEN, expires_ms=_NOW.wall_ms)), CheckToken("TX", "pass")]),
}
"""Each column's state, and what brings a token into it."""
_TOKEN_ROWS: Final[list[tuple[str, Operation]]] = [
    ("TokenQuery, right passcode", CheckToken("TX", "pass")),
    ("TokenQuery, wrong passcode", CheckToken("TX", "wrong")),
    ("EncryptedCredentials of this payment", BeginPayment(_TERMS, _HASH)),
    ("EncryptedCredentials, this payment ID with another envelope", BeginPayment(_TERMS, bytes(31) + b"\1")),
    ("EncryptedCredentials of a new payment", BeginPayment(_NEW_TERMS, _HASH)),
    ("StatusQuery of this payment, right passcode", FindPayment(_TERMS.payment_id, "TX", "pass")),
    ("StatusQuery of a new payment, right passcode", FindPayment(_NEW_TERMS.payment_id, "TX", "pass")),
    ("StatusQuery, wrong passcode", FindPayment(_TERMS.payment_id, "TX", "wrong")),
    *(
        (f"the bank's result for this payment: {outcome.name}", _settle(outcome))
        for outcome in TransferOutcome
        if outcome is not TransferOutcome.UNAVAILABLE  # it leaves everything as it is, and the store never hears of it
    ),
    ("the merchant withdraws it", CancelToken(_TOKEN)),
]


def token_table(*then: Operation) -> str:
    """What the gateway does with everything that can come for a token, in each of its states.

    `then`: what came in each of the states before.
    """
    rows = []
    for name, operation in _TOKEN_ROWS:
        rows.append([name, *(_token_cell(state, [*into, *then], operation) for state, into in _TOKEN_COLUMNS.values())])
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
            if payment.outcome is TransferOutcome.MISMATCH:
                return f"REFUSED {Reason.PAYMENT_MISMATCH.name}"
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
    return state_diagram({_ABSENT: ""}, steps)


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
