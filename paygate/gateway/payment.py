"""What may happen to a token and its payments: a table and pure decisions, shared by every store.

Strategy: a token is reserved for one payment before anything leaves for the bank, and freed only by the bank's
own final word. Posted money always rolls forward: whatever we believed, a POSTED makes the token PAID, so no
reversal can race a late success (R9, design: In doubt).
"""

import hmac
from dataclasses import replace
from enum import Enum
from typing import Final

from paygate.codec.codes import Reason, TokenStatus, TransferOutcome
from paygate.gateway.tokens import (
    BeginPayment,
    CheckToken,
    EnterPayment,
    Payment,
    PaymentBegun,
    PaymentFound,
    PaymentSettled,
    RecallPayment,
    SettlePayment,
    Token,
    TokenChecked,
    TokenState,
)
from paygate.making import maker_of

_make_token: Final = maker_of(Token)
_make_payment: Final = maker_of(Payment)
_make_checked: Final = maker_of(TokenChecked)
_make_begun: Final = maker_of(PaymentBegun)
_make_settled: Final = maker_of(PaymentSettled)
_POSTED_OUTCOME: Final = TransferOutcome.POSTED

PASSCODE_TRY_COUNT_MAX: Final = 5
"""T16: wrong passcodes before a token is locked; of 10,000 four-digit passcodes, five are one in 2,000."""
PASSCODE_LOCK_MS: Final = 15 * 60 * 1_000
"""T16: how long it stays locked: at 20 tries an hour a four-digit passcode lasts three weeks of trying."""


class TokenEvent(Enum):
    """What can happen to a token."""

    BEGIN = "a payment is begun"
    POSTED = "the bank posted a payment"
    NOT_POSTED = "the bank declined, fenced or does not know its payment under these terms"
    CANCEL = "the merchant withdraws it"
    EXPIRE = "its time was seen to be over"

    __hash__ = object.__hash__  # as TokenState


TOKEN_TRANSITIONS: Final[dict[TokenState, dict[TokenEvent, TokenState]]] = {
    TokenState.UNPAID: {
        TokenEvent.BEGIN: TokenState.IN_FLIGHT,
        TokenEvent.POSTED: TokenState.PAID,
        TokenEvent.CANCEL: TokenState.CANCELLED,
        TokenEvent.EXPIRE: TokenState.EXPIRED,
    },
    TokenState.IN_FLIGHT: {
        TokenEvent.POSTED: TokenState.PAID,
        TokenEvent.NOT_POSTED: TokenState.UNPAID,
    },
    TokenState.PAID: {},
    TokenState.CANCELLED: {TokenEvent.POSTED: TokenState.PAID},
    # Once seen as expired it stays so: a clock set back reopens nothing (T7).
    TokenState.EXPIRED: {TokenEvent.POSTED: TokenState.PAID},
}
"""What is missing changes nothing and is refused. One test walks every pair."""


def next_token_state(state: TokenState, event: TokenEvent) -> TokenState | None:
    """The state that follows, or None if the event is refused in this state."""
    return TOKEN_TRANSITIONS[state].get(event)


# Every payment has these two, and a member is looked up through its class each time.
_BEGIN: Final = TokenEvent.BEGIN
_POSTED: Final = TokenEvent.POSTED

_REFUSED_BEGIN: Final = {
    TokenState.PAID: Reason.TOKEN_PAID,
    TokenState.IN_FLIGHT: Reason.TOKEN_IN_FLIGHT,
    TokenState.CANCELLED: Reason.TOKEN_WITHDRAWN,
    TokenState.EXPIRED: Reason.TOKEN_WITHDRAWN,
}
_STATUS: Final = {
    TokenState.UNPAID: TokenStatus.VALID,
    TokenState.PAID: TokenStatus.PAID,
    TokenState.IN_FLIGHT: TokenStatus.IN_FLIGHT,
    TokenState.CANCELLED: TokenStatus.EXPIRED,
    TokenState.EXPIRED: TokenStatus.EXPIRED,
}


def with_state(token: Token, state: TokenState, payment_id: bytes | None, utr: str) -> Token:
    """The token in another state. Every payment does this twice, and `replace` would take ten times as long."""
    return _make_token(
        token.transaction_id,
        token.passcode,
        token.merchant_id,
        token.merchant_name,
        token.amount_minor,
        token.currency,
        token.expires_ms,
        state,
        payment_id,
        utr,
        token.wrong_passcode_count,
        token.locked_until_ms,
    )


def expire(token: Token, now_wall_ms: int) -> Token:
    """The token, EXPIRED if its time is over and it is still unpaid."""
    if token.expires_ms is None or now_wall_ms < token.expires_ms:
        return token
    state = next_token_state(token.state, TokenEvent.EXPIRE)
    return token if state is None else replace(token, state=state)


def check_passcode(token: Token, passcode: str, now_wall_ms: int) -> tuple[TokenStatus | None, Token]:
    """None if the passcode is right, else INVALID or LOCKED; and the token with its tries counted (T16).

    While a token is locked even the right passcode is not told apart, or guessing could go on.
    """
    if token.wrong_passcode_count >= PASSCODE_TRY_COUNT_MAX:
        if now_wall_ms < token.locked_until_ms:
            # A clock that was wrong and is set right locks nobody out for longer than the lock lasts (T7).
            locked_until_ms = min(token.locked_until_ms, now_wall_ms + PASSCODE_LOCK_MS)
            return TokenStatus.LOCKED, replace(token, locked_until_ms=locked_until_ms)
        token = replace(token, wrong_passcode_count=0, locked_until_ms=0)
    if hmac.compare_digest(token.passcode.encode(), passcode.encode()):
        return None, replace(token, wrong_passcode_count=0) if token.wrong_passcode_count else token
    count = token.wrong_passcode_count + 1
    locked_until_ms = now_wall_ms + PASSCODE_LOCK_MS if count >= PASSCODE_TRY_COUNT_MAX else 0
    return TokenStatus.INVALID, replace(token, wrong_passcode_count=count, locked_until_ms=locked_until_ms)


def decide_check(token: Token, operation: CheckToken, now_wall_ms: int) -> tuple[TokenChecked, Token]:
    """R2's answer, and the token as it is to be kept."""
    denied, counted = check_passcode(token, operation.passcode, now_wall_ms)
    if denied is not None:
        return TokenChecked(denied, None, counted != token), counted
    kept = counted if counted.expires_ms is None else expire(counted, now_wall_ms)
    return _make_checked(_STATUS[kept.state], kept, kept is not token and kept != token), kept


def decide_begin(
    token: Token | None, known: Payment | None, operation: BeginPayment, now_wall_ms: int
) -> tuple[PaymentBegun, Token | None]:
    """Whether this payment may begin, and the token as it is to be kept.

    `known`: the payment that has this payment ID, if any. With the same terms and envelope it is a repeat
    and answered as such; with any other it is a mismatch that reveals nothing (T4).
    """
    if known is not None:
        if known.terms != operation.terms or known.envelope_hash != operation.envelope_hash:
            return PaymentBegun(None, None, refusal=Reason.PAYMENT_MISMATCH), token
        return PaymentBegun(known, token), token
    if token is None:  # A session's token can't vanish, but a store is not ours to trust with that.
        return PaymentBegun(None, None, refusal=Reason.SESSION), None
    if token.expires_ms is not None:
        token = expire(token, now_wall_ms)
    state = TOKEN_TRANSITIONS[token.state].get(_BEGIN)
    if state is None:
        return PaymentBegun(None, token, refusal=_REFUSED_BEGIN[token.state]), token
    token = with_state(token, state, operation.terms.payment_id, token.utr)
    payment = _make_payment(operation.terms, operation.envelope_hash, now_wall_ms)
    return _make_begun(payment, token, is_new=True), token


def decide_recall(known: Payment | None, operation: RecallPayment) -> PaymentFound:
    """Whether this is a repeat: the session ID, which nobody else can know, and the envelope must be its own (T4)."""
    if known is None:
        return PaymentFound(None)
    if known.terms.session_id != operation.session_id or known.envelope_hash != operation.envelope_hash:
        return PaymentFound(None, Reason.PAYMENT_MISMATCH)
    return PaymentFound(known)


def decide_enter(
    token: Token | None, known: Payment | None, operation: EnterPayment, now_wall_ms: int
) -> PaymentSettled:
    """As if the payment had been begun and the bank had just spoken; one that is known with other terms stays (T4)."""
    terms = operation.terms
    if known is not None and (known.terms, known.envelope_hash) != (terms, operation.envelope_hash):
        return PaymentSettled(known, token)
    if operation.outcome is _POSTED_OUTCOME and token is not None and token.utr not in ("", operation.utr):
        return PaymentSettled(known, token)  # The bank posts one payment of a token at most, so this is not its word.
    payment = known or Payment(terms, operation.envelope_hash, now_wall_ms)
    settle = SettlePayment(terms.payment_id, operation.outcome, operation.reason, operation.utr, operation.receipt)
    return decide_settle(token, payment, settle, now_wall_ms)


def decide_settle(
    token: Token | None, payment: Payment | None, operation: SettlePayment, now_wall_ms: int
) -> PaymentSettled:
    """What the bank's word makes of payment and token. A final outcome is never changed again."""
    if payment is None or token is None or payment.outcome is not None:
        return PaymentSettled(payment, token)
    settled = _make_payment(
        payment.terms,
        payment.envelope_hash,
        payment.begun_ms,
        operation.outcome,
        operation.reason,
        operation.utr,
        operation.receipt,
        now_wall_ms if now_wall_ms > payment.begun_ms else payment.begun_ms,
    )
    if operation.outcome is _POSTED_OUTCOME:
        state = TOKEN_TRANSITIONS[token.state].get(_POSTED)
        if state is not None:
            token = with_state(token, state, payment.terms.payment_id, operation.utr)
    elif token.payment_id == payment.terms.payment_id:
        state = next_token_state(token.state, TokenEvent.NOT_POSTED)
        if state is not None:
            token = with_state(token, state, None, token.utr)
    return _make_settled(settled, token, is_changed=True)
