"""The pure decision: every reason, in the order of its code; password attempts; time; UTRs."""

from dataclasses import replace

import pytest
from bank_books import IDENTITY, LATER_MONO_MS, VERIFIER, WRONG_VERIFIER, build_transfer
from builders import MERCHANT_ID, NOW_MS, USER_ID, build_terms

from paygate.bank.ledger import (
    FREE_FAILURE_COUNT,
    LOCK_MS_MAX,
    LOCK_MS_MIN,
    MISMATCH,
    UTR_AHEAD_MAX,
    UTR_SEQUENCE_MODULUS,
    Customer,
    FindPayment,
    Merchant,
    Payment,
    PaymentOperation,
    Resolve,
    Situation,
    Transfer,
    check_password,
    decide,
    lock_ms_after,
    replay,
    utr_of,
    utr_start,
    utr_steps_ahead,
)
from paygate.codec import limits
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.fields import UTR_OR_EMPTY

CUSTOMER = Customer(2, "C-1", USER_ID, VERIFIER, balance_minor=125_000)
MERCHANT = Merchant(3, MERCHANT_ID, "Books", 0)
GOOD = Situation(NOW_MS, NOW_MS, "INR", token_is_paid=False, merchant=MERCHANT, customer=CUSTOMER)
TRANSFER = build_transfer()
MONO_MS = 1_000

# Each makes its own check fail and leaves the others as they are; in the order of the codes.
SPOILERS = {
    Reason.LATE: (replace(TRANSFER, deadline_mono_ms=MONO_MS), GOOD),
    Reason.KEY_RETIRED: (replace(TRANSFER, opened=Reason.KEY_RETIRED), GOOD),
    Reason.TERMS: (replace(TRANSFER, opened=Reason.TERMS), GOOD),
    Reason.TOKEN_ALREADY_PAID: (TRANSFER, replace(GOOD, token_is_paid=True)),
    Reason.MERCHANT_UNKNOWN: (TRANSFER, replace(GOOD, merchant=None)),
    Reason.CURRENCY: (TRANSFER, replace(GOOD, currency="EUR")),
    Reason.CREDENTIALS: (TRANSFER, replace(GOOD, customer=None)),
    Reason.FUNDS: (TRANSFER, replace(GOOD, customer=replace(CUSTOMER, balance_minor=124_999))),
}


def test_enough_money_and_the_right_password_move_the_money() -> None:
    assert decide(TRANSFER, GOOD, MONO_MS)[0] is Reason.NONE


@pytest.mark.pg("PG-TRF-3")
@pytest.mark.parametrize("reason", SPOILERS, ids=lambda reason: reason.name)
def test_each_reason_has_its_own_cause(reason: Reason) -> None:
    transfer, situation = SPOILERS[reason]
    assert decide(transfer, situation, MONO_MS)[0] is reason


def test_the_spoilers_cover_every_reason_of_the_bank_but_the_fence() -> None:
    assert set(SPOILERS) == {reason for reason in Reason if reason.is_banks} - {Reason.FENCED}
    assert list(SPOILERS) == sorted(SPOILERS)


@pytest.mark.pg("PG-TRF-3")
@pytest.mark.parametrize("first", SPOILERS, ids=lambda reason: reason.name)
@pytest.mark.parametrize("second", SPOILERS, ids=lambda reason: reason.name)
def test_of_two_causes_the_lower_code_is_told(first: Reason, second: Reason) -> None:
    if {first, second} == {Reason.KEY_RETIRED, Reason.TERMS}:
        return  # one field can't say both
    transfer, situation = TRANSFER, GOOD
    for reason in (first, second):
        spoiled_transfer, spoiled = SPOILERS[reason]
        changed = {n: getattr(spoiled, n) for n in Situation.__slots__ if getattr(spoiled, n) != getattr(GOOD, n)}
        # Nobody and too little money both change the customer; nobody then stands for both.
        if situation.customer is None:
            changed.pop("customer", None)
        situation = replace(situation, **changed)
        if spoiled_transfer.opened != TRANSFER.opened:
            transfer = replace(transfer, opened=spoiled_transfer.opened)
        if spoiled_transfer.deadline_mono_ms != LATER_MONO_MS:
            transfer = replace(transfer, deadline_mono_ms=MONO_MS)
    assert decide(transfer, situation, MONO_MS)[0] is min(first, second)


@pytest.mark.pg("PG-TRF-4", "PG-CLI-5")
@pytest.mark.parametrize(
    ("skew_ms", "is_late"),
    [(-300_001, True), (-300_000, False), (0, False), (300_000, False), (300_001, True)],
)
def test_an_authorisation_is_taken_within_five_minutes_either_way(skew_ms: int, is_late: bool) -> None:
    transfer = build_transfer(authorised_at_ms=NOW_MS + skew_ms)
    assert (decide(transfer, GOOD, MONO_MS)[0] is Reason.LATE) is is_late


@pytest.mark.pg("PG-TRF-4")
@pytest.mark.parametrize(("left_ms", "is_late"), [(-1, True), (0, True), (1, False)])
def test_a_transfer_has_the_time_that_its_request_left_it(left_ms: int, is_late: bool) -> None:
    transfer = build_transfer(deadline_mono_ms=MONO_MS + left_ms)
    assert (decide(transfer, GOOD, MONO_MS)[0] is Reason.LATE) is is_late


@pytest.mark.pg("PG-TRF-5")
def test_the_whole_balance_may_be_spent() -> None:
    assert decide(build_transfer(amount_minor=125_000), GOOD, MONO_MS)[0] is Reason.NONE
    assert decide(build_transfer(amount_minor=125_001), GOOD, MONO_MS)[0] is Reason.FUNDS


@pytest.mark.parametrize("reason", [r for r in SPOILERS if r < Reason.CREDENTIALS], ids=lambda reason: reason.name)
def test_what_is_declined_before_the_password_counts_no_attempt(reason: Reason) -> None:
    transfer, situation = SPOILERS[reason]
    if not isinstance(transfer.opened, Reason):
        transfer = replace(transfer, opened=replace(transfer.opened, verifier=WRONG_VERIFIER))
    assert decide(transfer, situation, MONO_MS)[1] is None


# -- passwords -------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-TRF-7")
def test_the_third_wrong_password_locks_and_each_further_one_doubles_the_time() -> None:
    customer: Customer | None = CUSTOMER
    now_ms, lock_times = NOW_MS, []
    for _ in range(12):
        is_accepted, customer = check_password(customer, WRONG_VERIFIER, now_ms)
        assert customer is not None
        assert not is_accepted
        lock_times.append(max(0, customer.locked_until_ms - now_ms))
        now_ms = max(now_ms, customer.locked_until_ms)
    doubled = [30_000 * 2**n for n in range(7)]
    assert lock_times == [0, 0, *doubled, LOCK_MS_MAX, LOCK_MS_MAX, LOCK_MS_MAX]


def test_guesses_stay_within_their_bound_and_cost_the_customer_every_moment() -> None:
    customer: Customer | None = CUSTOMER
    guess_counts = []
    day_ms = 24 * 3_600_000
    now_ms = 0
    for day in range(1, 4):
        guess_counts.append(0)
        while now_ms < day * day_ms:
            _, customer = check_password(customer, WRONG_VERIFIER, now_ms)
            assert customer is not None
            guess_counts[-1] += 1
            # The customer's own tries, right after the guess and just before the lock ends, find it locked.
            if customer.locked_until_ms > now_ms:
                assert check_password(customer, VERIFIER, now_ms) == (False, customer)
                assert check_password(customer, VERIFIER, customer.locked_until_ms - 1) == (False, customer)
            now_ms = max(now_ms, customer.locked_until_ms)
    assert guess_counts == [32, 24, 24]  # as LOCK_MS_MAX and spec 10 say


@pytest.mark.pg("PG-TRF-7")
def test_a_locked_account_refuses_even_the_right_password_and_counts_nothing() -> None:
    locked = replace(CUSTOMER, failure_count=3, locked_until_ms=NOW_MS + 1)
    for verifier in (VERIFIER, WRONG_VERIFIER):
        assert check_password(locked, verifier, NOW_MS) == (False, locked)


def test_the_right_password_after_the_lock_forgets_the_failures() -> None:
    locked = replace(CUSTOMER, failure_count=7, locked_until_ms=NOW_MS)
    assert check_password(locked, VERIFIER, NOW_MS) == (True, CUSTOMER)


def test_an_unknown_user_is_refused_even_with_the_verifier_that_stands_in() -> None:
    assert check_password(None, bytes(32), NOW_MS) == (False, None)


def test_lock_times_stay_within_their_bounds() -> None:
    assert lock_ms_after(FREE_FAILURE_COUNT) == 0
    assert lock_ms_after(FREE_FAILURE_COUNT + 1) == LOCK_MS_MIN
    assert lock_ms_after(10**9) == LOCK_MS_MAX


# -- replays ---------------------------------------------------------------------------------------------

FINAL = [
    (TransferOutcome.POSTED, Reason.NONE, "PGBKP12026010200000001"),
    (TransferOutcome.DECLINED, Reason.FUNDS, ""),
    (TransferOutcome.FENCED, Reason.FENCED, ""),
]


def operations() -> list[PaymentOperation]:
    return [
        FindPayment(TRANSFER.terms, TRANSFER.envelope_hash),
        TRANSFER,
        Resolve(TRANSFER.terms, TRANSFER.envelope_hash),
    ]


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("final", FINAL, ids=lambda final: final[0].name)
def test_every_final_outcome_is_replayed_to_every_operation(
    operation: PaymentOperation, final: tuple[TransferOutcome, Reason, str]
) -> None:
    known = Payment(TRANSFER.terms, TRANSFER.envelope_hash, *final, receipt=b"receipt")
    answer = replay(known, operation)
    assert answer is not None
    assert (answer.outcome, answer.reason, answer.utr, answer.receipt, answer.posted) == (*final, b"receipt", None)


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("final", FINAL, ids=lambda final: final[0].name)
def test_other_terms_or_another_envelope_learn_nothing(
    operation: PaymentOperation, final: tuple[TransferOutcome, Reason, str]
) -> None:
    known = Payment(TRANSFER.terms, TRANSFER.envelope_hash, *final, receipt=b"receipt")
    assert replay(known, replace(operation, envelope_hash=bytes(32))) is MISMATCH
    assert replay(known, replace(operation, terms=build_terms(amount_minor=1))) is MISMATCH
    assert (MISMATCH.reason, MISMATCH.utr, MISMATCH.receipt) == (Reason.NONE, "", b"")


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: type(operation).__name__)
def test_an_unknown_payment_is_not_replayed(operation: Transfer) -> None:
    assert replay(None, operation) is None


# -- UTRs ---------------------------------------------------------------------------------------


def test_a_utr_says_bank_channel_day_and_sequence() -> None:
    assert utr_of(utr_start(IDENTITY.bank_code, NOW_MS), 7) == "PGBKP12026010200000007"
    assert utr_of(utr_start(IDENTITY.bank_code, NOW_MS - 1), 10**8 + 7) == "PGBKP12026010100000007"
    assert UTR_OR_EMPTY.is_legal(utr_of(utr_start(IDENTITY.bank_code, limits.TIME_MS_MAX), 99_999_999))


@pytest.mark.parametrize(
    ("sequence", "day", "steps"),
    [
        (8, 0, 1),
        (7, 0, 0),
        (6, 0, 0),
        (7 + UTR_AHEAD_MAX, 3, UTR_AHEAD_MAX),
        (8 + UTR_AHEAD_MAX, 0, 0),  # as far behind as ahead, for all that its digits tell
        (8, -1, 0),  # of a round before: later ones have no earlier date
    ],
)
@pytest.mark.parametrize("round_count", [0, 1, 3])
def test_a_later_utr_is_told_by_its_date_and_how_far_its_digits_are_on(
    sequence: int, day: int, steps: int, round_count: int
) -> None:
    utr = utr_of(utr_start(IDENTITY.bank_code, NOW_MS + day * 86_400_000), sequence)
    assert utr_steps_ahead(utr, 7 + round_count * UTR_SEQUENCE_MODULUS, NOW_MS) == steps
