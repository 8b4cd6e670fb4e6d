"""What may happen to a token and its payments: the table, and the pure decisions."""

from dataclasses import replace

import pytest
from builders import NOW_MS, PASSCODE, UTR, build_terms
from gateway.world import build_token, hash_of

from paygate.codec.codes import Reason, TokenStatus, TransferOutcome
from paygate.gateway.payment import (
    PASSCODE_LOCK_MS,
    PASSCODE_TRY_COUNT_MAX,
    TOKEN_TRANSITIONS,
    TokenEvent,
    check_passcode,
    decide_begin,
    decide_check,
    decide_recall,
    decide_settle,
    expire,
    next_token_state,
)
from paygate.gateway.tokens import (
    BeginPayment,
    CheckToken,
    Payment,
    RecallPayment,
    SettlePayment,
    Token,
    TokenState,
)

TERMS = build_terms()
OTHER_PAYMENT_ID = bytes(15) + b"\1"
BEGIN = BeginPayment(TERMS, hash_of())
PAYMENT = Payment(TERMS, hash_of(), begun_ms=NOW_MS)
IN_FLIGHT = build_token(state=TokenState.IN_FLIGHT, payment_id=TERMS.payment_id)
PAID = build_token(state=TokenState.PAID, payment_id=OTHER_PAYMENT_ID, utr=UTR)

# -- the table -------------------------------------------------------------------------------------------

U, F, P, C, E = TokenState.UNPAID, TokenState.IN_FLIGHT, TokenState.PAID, TokenState.CANCELLED, TokenState.EXPIRED
NEXT = {
    # event:              from  U     F     P     C     E
    TokenEvent.BEGIN: (F, None, None, None, None),
    TokenEvent.POSTED: (P, P, None, P, P),
    TokenEvent.NOT_POSTED: (None, U, None, None, None),
    TokenEvent.CANCEL: (C, None, None, None, None),
    TokenEvent.EXPIRE: (E, None, None, None, None),
}


@pytest.mark.pg("PG-TOK-6", "PG-TOK-7")
@pytest.mark.parametrize("event", TokenEvent)
@pytest.mark.parametrize("state", TokenState)
def test_every_state_and_event(state: TokenState, event: TokenEvent) -> None:
    assert next_token_state(state, event) is NEXT[event][(U, F, P, C, E).index(state)]


@pytest.mark.pg("PG-TOK-7")
def test_every_state_is_in_the_table_and_paid_is_final() -> None:
    assert set(TOKEN_TRANSITIONS) == set(TokenState)
    assert TOKEN_TRANSITIONS[TokenState.PAID] == {}


# -- passcodes (T16) -------------------------------------------------------------------------------------


def check(token: Token, passcode: str, now_ms: int) -> tuple[TokenStatus, Token]:
    """The status that the asker is told, and the token as it is kept."""
    outcome, kept = decide_check(token, CheckToken(token.transaction_id, passcode), now_ms)
    return outcome.status, kept


@pytest.mark.pg("PG-TOK-2")
def test_five_wrong_passcodes_lock_and_the_lock_ends() -> None:
    assert (PASSCODE_TRY_COUNT_MAX, PASSCODE_LOCK_MS) == (5, 15 * 60_000)
    token = build_token()
    for _ in range(PASSCODE_TRY_COUNT_MAX):
        status, token = check(token, "wrong", NOW_MS)
        assert status is TokenStatus.INVALID
    # Locked: the right passcode is not told apart, or guessing could go on.
    for passcode in ("wrong", PASSCODE):
        assert check(token, passcode, NOW_MS + PASSCODE_LOCK_MS - 1) == (TokenStatus.LOCKED, token)
    assert check(token, PASSCODE, NOW_MS + PASSCODE_LOCK_MS)[0] is TokenStatus.VALID
    # After a lock five more tries are there, no more.
    status, token = check(token, "wrong", NOW_MS + PASSCODE_LOCK_MS)
    assert (status, token.wrong_passcode_count, token.locked_until_ms) == (TokenStatus.INVALID, 1, 0)


@pytest.mark.pg("PG-TOK-2")
def test_the_right_passcode_forgets_wrong_ones() -> None:
    token = build_token(wrong_passcode_count=PASSCODE_TRY_COUNT_MAX - 1)
    status, kept = check(token, PASSCODE, NOW_MS)
    assert (status, kept.wrong_passcode_count) == (TokenStatus.VALID, 0)


def test_an_outcome_says_whether_there_is_something_to_keep() -> None:
    token = build_token()
    assert decide_check(token, CheckToken(token.transaction_id, PASSCODE), NOW_MS)[0].is_changed is False
    wrong, _ = decide_check(token, CheckToken(token.transaction_id, "wrong"), NOW_MS)
    assert (wrong.is_changed, wrong.token) == (True, None)


def test_a_clock_set_right_locks_nobody_out_for_longer_than_the_lock_lasts() -> None:
    a_year_ahead_ms = NOW_MS + 365 * 86_400_000
    locked = build_token(
        wrong_passcode_count=PASSCODE_TRY_COUNT_MAX, locked_until_ms=a_year_ahead_ms + PASSCODE_LOCK_MS
    )
    denied, kept = check_passcode(locked, PASSCODE, NOW_MS)
    assert denied is TokenStatus.LOCKED
    assert check_passcode(kept, PASSCODE, NOW_MS + PASSCODE_LOCK_MS - 1)[0] is TokenStatus.LOCKED
    assert check_passcode(kept, PASSCODE, NOW_MS + PASSCODE_LOCK_MS)[0] is None


def test_a_passcode_of_other_letters_is_only_wrong() -> None:
    # hmac.compare_digest refuses str that is not ASCII, so both are compared as bytes.
    assert check(build_token(), "pässword", NOW_MS)[0] is TokenStatus.INVALID


# -- expiry (T7) -----------------------------------------------------------------------------------------


@pytest.mark.pg("PG-TOK-7")
def test_a_token_expires_at_its_time_and_a_clock_set_back_reopens_nothing() -> None:
    token = build_token(expires_ms=NOW_MS)
    assert check(token, PASSCODE, NOW_MS - 1) == (TokenStatus.VALID, token)
    status, expired = check(token, PASSCODE, NOW_MS)
    assert (status, expired.state) == (TokenStatus.EXPIRED, TokenState.EXPIRED)
    assert check(expired, PASSCODE, NOW_MS - 86_400_000) == (TokenStatus.EXPIRED, expired)
    begun, kept = decide_begin(expired, None, BEGIN, NOW_MS - 86_400_000)
    assert (begun.refusal, kept) == (Reason.TOKEN_WITHDRAWN, expired)


@pytest.mark.pg("PG-TOK-6")
@pytest.mark.parametrize("state", [s for s in TokenState if s is not TokenState.UNPAID])
def test_only_an_unpaid_token_expires(state: TokenState) -> None:
    token = build_token(state=state, payment_id=TERMS.payment_id, expires_ms=NOW_MS)
    assert expire(token, NOW_MS) == token


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (TokenState.UNPAID, TokenStatus.VALID),
        (TokenState.IN_FLIGHT, TokenStatus.IN_FLIGHT),
        (TokenState.PAID, TokenStatus.PAID),
        (TokenState.CANCELLED, TokenStatus.EXPIRED),
        (TokenState.EXPIRED, TokenStatus.EXPIRED),
    ],
)
def test_what_each_state_is_told_as(state: TokenState, status: TokenStatus) -> None:
    assert check(build_token(state=state), PASSCODE, NOW_MS)[0] is status


# -- begin -----------------------------------------------------------------------------------------------


def test_a_payment_reserves_its_token() -> None:
    begun, kept = decide_begin(build_token(), None, BEGIN, NOW_MS)
    assert begun.is_new
    assert begun.payment == PAYMENT
    assert kept == begun.token == IN_FLIGHT


@pytest.mark.parametrize("token", [IN_FLIGHT, PAID], ids=["in flight", "paid"])
def test_a_repeat_is_answered_and_changes_nothing(token: Token) -> None:
    begun, kept = decide_begin(token, PAYMENT, BEGIN, NOW_MS + 1)
    assert (begun.payment, begun.is_new, begun.refusal) == (PAYMENT, False, Reason.NONE)
    assert kept is token


@pytest.mark.pg("PG-PAY-6", "PG-TRM-1")
@pytest.mark.parametrize(
    "other",
    [
        replace(BEGIN, envelope_hash=bytes(32)),
        *(
            replace(BEGIN, terms=build_terms(**change))
            for change in (
                {"amount_minor": 1},
                {"merchant_id": "M-2"},
                {"transaction_id": "TX-2"},
                {"session_id": b"s" * 16},
                {"currency": "EUR"},
                {"authorised_at_ms": NOW_MS + 1},
                {"bank_id": "B2"},
                {"gateway_id": "G2"},
            )
        ),
    ],
)
def test_a_payment_id_with_other_terms_reveals_nothing(other: BeginPayment) -> None:
    begun, kept = decide_begin(IN_FLIGHT, PAYMENT, other, NOW_MS)
    assert (begun.payment, begun.token, begun.refusal) == (None, None, Reason.PAYMENT_MISMATCH)
    assert kept is IN_FLIGHT


@pytest.mark.parametrize(
    ("token", "refusal"),
    [
        (IN_FLIGHT, Reason.TOKEN_IN_FLIGHT),
        (PAID, Reason.TOKEN_PAID),
        (build_token(state=TokenState.CANCELLED), Reason.TOKEN_WITHDRAWN),
        (build_token(state=TokenState.EXPIRED), Reason.TOKEN_WITHDRAWN),
    ],
)
def test_a_second_payment_of_a_token_is_refused(token: Token, refusal: Reason) -> None:
    second = BeginPayment(build_terms(payment_id=OTHER_PAYMENT_ID), hash_of())
    begun, kept = decide_begin(token, None, second, NOW_MS)
    assert (begun.payment, begun.refusal, kept) == (None, refusal, token)


def test_a_token_that_the_store_lost_is_not_paid() -> None:
    begun, kept = decide_begin(None, None, BEGIN, NOW_MS)
    assert (begun.payment, begun.refusal, kept) == (None, Reason.SESSION, None)


# -- recall ----------------------------------------------------------------------------------------------


def test_a_repeat_is_recalled_by_its_session_and_envelope_only() -> None:
    recall = RecallPayment(TERMS.payment_id, TERMS.session_id, hash_of())
    assert decide_recall(PAYMENT, recall).payment is PAYMENT
    assert decide_recall(None, recall).payment is None
    for other in (replace(recall, session_id=b"s" * 16), replace(recall, envelope_hash=bytes(32))):
        found = decide_recall(PAYMENT, other)
        assert (found.payment, found.refusal) == (None, Reason.PAYMENT_MISMATCH)


# -- settle ----------------------------------------------------------------------------------------------

POSTED = SettlePayment(TERMS.payment_id, TransferOutcome.POSTED, Reason.NONE, UTR, b"receipt")
DECLINED = SettlePayment(TERMS.payment_id, TransferOutcome.DECLINED, Reason.FUNDS, "", b"receipt")
FENCED = SettlePayment(TERMS.payment_id, TransferOutcome.FENCED, Reason.FENCED, "", b"receipt")
MISMATCH = SettlePayment(TERMS.payment_id, TransferOutcome.MISMATCH, Reason.NONE, "", b"")


@pytest.mark.pg("PG-TOK-6")
@pytest.mark.parametrize("state", [s for s in TokenState if s is not TokenState.PAID])
def test_posted_money_rolls_forward_from_any_state(state: TokenState) -> None:
    token = build_token(state=state, payment_id=OTHER_PAYMENT_ID)
    settled = decide_settle(token, PAYMENT, POSTED, NOW_MS + 5)
    assert settled.token == replace(token, state=TokenState.PAID, payment_id=TERMS.payment_id, utr=UTR)
    assert settled.is_changed
    assert settled.payment == replace(
        PAYMENT, outcome=TransferOutcome.POSTED, utr=UTR, receipt=b"receipt", ended_ms=NOW_MS + 5
    )


def test_a_paid_token_keeps_the_utr_that_paid_it() -> None:
    settled = decide_settle(PAID, PAYMENT, replace(POSTED, utr=UTR[:-1] + "9"), NOW_MS)
    assert settled.token == PAID
    assert settled.payment is not None
    assert settled.payment.outcome is TransferOutcome.POSTED


@pytest.mark.parametrize("operation", [DECLINED, FENCED, MISMATCH])
def test_what_was_not_posted_frees_its_own_token_only(operation: SettlePayment) -> None:
    freed = decide_settle(IN_FLIGHT, PAYMENT, operation, NOW_MS)
    assert freed.token == build_token()
    assert freed.payment is not None
    assert freed.payment.outcome is operation.outcome
    another = replace(IN_FLIGHT, payment_id=OTHER_PAYMENT_ID)
    assert decide_settle(another, PAYMENT, operation, NOW_MS).token == another
    assert decide_settle(PAID, PAYMENT, operation, NOW_MS).token == PAID


@pytest.mark.parametrize("first", [POSTED, DECLINED, FENCED, MISMATCH])
@pytest.mark.parametrize("later", [POSTED, DECLINED, FENCED, MISMATCH])
def test_a_final_outcome_never_changes(first: SettlePayment, later: SettlePayment) -> None:
    settled = decide_settle(IN_FLIGHT, PAYMENT, first, NOW_MS)
    again = decide_settle(settled.token, settled.payment, replace(later, receipt=b"another"), NOW_MS + 1)
    assert (again.payment, again.token, again.is_changed) == (settled.payment, settled.token, False)


def test_a_payment_that_is_not_known_is_not_settled() -> None:
    settled = decide_settle(None, None, POSTED, NOW_MS)
    assert (settled.payment, settled.token, settled.is_changed) == (None, None, False)


def test_a_clock_set_back_ends_no_payment_before_it_began() -> None:
    settled = decide_settle(IN_FLIGHT, PAYMENT, POSTED, NOW_MS - 86_400_000)
    assert settled.payment is not None
    assert settled.payment.ended_ms == NOW_MS
