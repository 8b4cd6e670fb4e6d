"""The store: the same decisions around rows, one transaction a batch, and nothing lost at its end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from builders import NOW_MS, PASSCODE, TRANSACTION_ID, UTR, build_terms
from failing_disk import VFS_NAME, FailingDisk
from gateway.world import build_token, hash_of, payment_id

from paygate.clock import Now
from paygate.codec.codes import Reason, TokenStatus, TransferOutcome
from paygate.files.sqlite import StoreFsyncFailed, StoreFull
from paygate.gateway import sqlite_tokens
from paygate.gateway.payment import PASSCODE_LOCK_MS, PASSCODE_TRY_COUNT_MAX
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
    PaymentSettled,
    RecallPayment,
    SettlePayment,
    Token,
    TokenChecked,
    TokenState,
    TokenTaken,
)

NOW = Now(5, NOW_MS)
TOKEN = build_token()
TERMS = build_terms()
BEGIN = BeginPayment(TERMS, hash_of())
POSTED = SettlePayment(TERMS.payment_id, TransferOutcome.POSTED, Reason.NONE, UTR, b"receipt")
DECLINED = SettlePayment(TERMS.payment_id, TransferOutcome.DECLINED, Reason.FUNDS, "", b"receipt")
RIGHT = CheckToken(TRANSACTION_ID, PASSCODE)
WRONG = CheckToken(TRANSACTION_ID, "wrong")


@pytest.fixture
def store(tmp_path: Path, disk: FailingDisk) -> Iterator[SqliteTokens]:
    store = open_store(tmp_path)
    store.apply([IssueToken(TOKEN)], NOW)
    disk.sync_count = 0
    yield store
    disk.is_full = disk.fsync_fails = False
    store.close()


def open_store(directory: Path) -> SqliteTokens:
    return SqliteTokens(directory / "tokens.sqlite", vfs=VFS_NAME)


def apply(store: SqliteTokens, operation: Operation, now: Now = NOW) -> Outcome:
    return store.apply([operation], now)[0]


def token(store: SqliteTokens) -> Token:
    return next(store.tokens())


def payments(store: SqliteTokens) -> list[Payment]:
    return list(store.payments())


def statuses(outcomes: list[Outcome]) -> list[TokenStatus]:
    return [outcome.status for outcome in outcomes if isinstance(outcome, TokenChecked)]


# -- payments --------------------------------------------------------------------------------------------


def test_a_payment_from_check_to_paid(store: SqliteTokens) -> None:
    assert apply(store, RIGHT) == TokenChecked(TokenStatus.VALID, TOKEN)
    in_flight = replace(TOKEN, state=TokenState.IN_FLIGHT, payment_id=TERMS.payment_id)
    begun = Payment(TERMS, hash_of(), NOW_MS)
    assert apply(store, BEGIN) == PaymentBegun(begun, in_flight, is_new=True)
    assert (token(store), payments(store), store.payments_in_flight()) == (in_flight, [begun], [begun])

    paid = replace(in_flight, state=TokenState.PAID, utr=UTR)
    ended = replace(begun, outcome=TransferOutcome.POSTED, utr=UTR, receipt=b"receipt", ended_ms=NOW_MS)
    assert apply(store, POSTED) == PaymentSettled(ended, paid, is_changed=True)
    assert (token(store), payments(store), store.payments_in_flight()) == (paid, [ended], [])
    assert apply(store, RIGHT) == TokenChecked(TokenStatus.PAID, paid)
    assert apply(store, BEGIN) == PaymentBegun(ended, paid)
    second = BeginPayment(build_terms(payment_id=payment_id("second")), hash_of())
    assert apply(store, second) == PaymentBegun(None, paid, refusal=Reason.TOKEN_PAID)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (TransferOutcome.DECLINED, Reason.CREDENTIALS),
        (TransferOutcome.FENCED, Reason.FENCED),
        (TransferOutcome.MISMATCH, Reason.NONE),
    ],
)
def test_a_payment_that_was_not_posted_frees_the_token(
    store: SqliteTokens, outcome: TransferOutcome, reason: Reason
) -> None:
    apply(store, BEGIN)
    settled = apply(store, SettlePayment(TERMS.payment_id, outcome, reason, "", b""))
    assert isinstance(settled, PaymentSettled)
    assert settled.token == token(store) == TOKEN
    assert [p.outcome for p in payments(store)] == [outcome]
    # The next try is another payment, with an ID of its own.
    again = apply(store, BeginPayment(build_terms(payment_id=payment_id("second")), hash_of()))
    assert isinstance(again, PaymentBegun)
    assert again.is_new


def test_of_two_payments_in_one_batch_one_gets_the_token(store: SqliteTokens) -> None:
    second = BeginPayment(build_terms(payment_id=payment_id("second")), hash_of())
    outcomes = store.apply([BEGIN, second], NOW)
    assert [o.refusal for o in outcomes if isinstance(o, PaymentBegun)] == [Reason.NONE, Reason.TOKEN_IN_FLIGHT]
    assert len(payments(store)) == 1


def test_other_terms_change_nothing(store: SqliteTokens) -> None:
    apply(store, BEGIN)
    before = (token(store), payments(store))
    other = apply(store, replace(BEGIN, envelope_hash=bytes(32)))
    assert other == PaymentBegun(None, None, refusal=Reason.PAYMENT_MISMATCH)
    assert (token(store), payments(store)) == before


def test_a_late_result_counts_and_a_final_one_stays(store: SqliteTokens) -> None:
    apply(store, BEGIN)
    apply(store, DECLINED)
    assert apply(store, POSTED) == PaymentSettled(payments(store)[0], TOKEN)
    unknown = apply(store, replace(POSTED, payment_id=payment_id("nobody's")))
    assert unknown == PaymentSettled(None, None)


@pytest.mark.pg("PG-STA-2")
def test_a_payment_is_found_with_its_own_tokens_passcode_only(store: SqliteTokens) -> None:
    apply(store, IssueToken(build_token(transaction_id="TX-2", passcode="other")))
    apply(store, BEGIN)
    payment = payments(store)[0]
    assert apply(store, FindPayment(TERMS.payment_id, TRANSACTION_ID, PASSCODE)) == PaymentFound(payment)
    assert apply(store, FindPayment(TERMS.payment_id, "TX-2", "other")) == PaymentFound(None)
    assert apply(store, FindPayment(payment_id("none"), TRANSACTION_ID, PASSCODE)) == PaymentFound(None)
    for transaction_id in (TRANSACTION_ID, "TX-unknown"):
        find = FindPayment(TERMS.payment_id, transaction_id, "wrong")
        refusals = [o.refusal for o in store.apply([find] * 6, NOW) if isinstance(o, PaymentFound)]
        assert refusals == [Reason.PASSCODE] * PASSCODE_TRY_COUNT_MAX + [Reason.TOKEN_LOCKED]


def test_a_payment_is_recalled_by_session_and_envelope(store: SqliteTokens) -> None:
    apply(store, BEGIN)
    recall = RecallPayment(TERMS.payment_id, TERMS.session_id, hash_of())
    assert apply(store, recall) == PaymentFound(payments(store)[0])
    mismatch = PaymentFound(None, Reason.PAYMENT_MISMATCH)
    assert apply(store, replace(recall, session_id=b"s" * 16)) == mismatch
    assert apply(store, replace(recall, payment_id=payment_id("none"))) == PaymentFound(None)


# -- passcodes (T16) -------------------------------------------------------------------------------------


@pytest.mark.pg("PG-TOK-2")
@pytest.mark.parametrize("transaction_id", [TRANSACTION_ID, "TX-unknown"])
def test_unknown_and_known_transactions_answer_a_guesser_alike(store: SqliteTokens, transaction_id: str) -> None:
    guess = CheckToken(transaction_id, "wrong")
    round_of_guesses = [TokenStatus.INVALID] * PASSCODE_TRY_COUNT_MAX + [TokenStatus.LOCKED]
    outcomes = store.apply([guess] * 6, NOW)
    assert statuses(outcomes) == round_of_guesses
    assert all(isinstance(o, TokenChecked) and o.token is None for o in outcomes)
    until_ms = NOW_MS + PASSCODE_LOCK_MS
    assert statuses([apply(store, guess, Now(6, until_ms - 1))]) == [TokenStatus.LOCKED]
    assert statuses(store.apply([guess] * 6, Now(7, until_ms))) == round_of_guesses


def test_wrong_passcodes_are_counted_over_a_restart(store: SqliteTokens, tmp_path: Path) -> None:
    store.apply([WRONG] * PASSCODE_TRY_COUNT_MAX, NOW)
    store.close()
    reopened = open_store(tmp_path)
    assert statuses([apply(reopened, RIGHT)]) == [TokenStatus.LOCKED]
    reopened.close()


def test_strangers_transaction_ids_take_bounded_memory(store: SqliteTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_tokens, "UNKNOWN_TRIED_COUNT_MAX", 10)
    store.apply([CheckToken(f"TX-x{number}", "wrong") for number in range(100)], NOW)
    assert len(store._unknown_tried) == 10


def test_a_token_that_is_issued_starts_without_a_strangers_tries(store: SqliteTokens) -> None:
    early = CheckToken("TX-2", "wrong")
    store.apply([early] * 6, NOW)
    apply(store, IssueToken(build_token(transaction_id="TX-2")))
    assert statuses([apply(store, CheckToken("TX-2", PASSCODE))]) == [TokenStatus.VALID]


# -- issue and cancel ------------------------------------------------------------------------------------


def test_a_token_is_issued_once(store: SqliteTokens) -> None:
    other = build_token(amount_minor=1, passcode="other")
    assert apply(store, IssueToken(other)) == TokenTaken(TOKEN, False)
    assert list(store.tokens()) == [TOKEN]


def test_an_unpaid_token_can_be_cancelled_by_whoever_knows_all_of_it(store: SqliteTokens) -> None:
    for change in ({"passcode": "other"}, {"amount_minor": 1}, {"merchant_id": "M-2"}, {"expires_ms": NOW_MS}):
        assert apply(store, CancelToken(build_token(**change))) == TokenTaken(TOKEN, False)
    assert apply(store, CancelToken(build_token(transaction_id="TX-2"))) == TokenTaken(None, False)
    cancelled = replace(TOKEN, state=TokenState.CANCELLED)
    assert apply(store, CancelToken(TOKEN)) == TokenTaken(cancelled, True)
    assert apply(store, CancelToken(TOKEN)) == TokenTaken(cancelled, False)
    assert statuses([apply(store, RIGHT)]) == [TokenStatus.EXPIRED]


def test_a_token_in_flight_is_not_cancelled(store: SqliteTokens) -> None:
    apply(store, BEGIN)
    assert apply(store, CancelToken(TOKEN)) == TokenTaken(token(store), False)
    assert token(store).state is TokenState.IN_FLIGHT


@pytest.mark.pg("PG-TOK-7")
def test_expiry_is_kept(store: SqliteTokens) -> None:
    apply(store, IssueToken(build_token(transaction_id="TX-2", expires_ms=NOW_MS + 10)))
    check = CheckToken("TX-2", PASSCODE)
    assert statuses([apply(store, check), apply(store, check, Now(6, NOW_MS + 10)), apply(store, check)]) == [
        TokenStatus.VALID,
        TokenStatus.EXPIRED,
        TokenStatus.EXPIRED,  # T7: the clock was set back, and nothing opens again
    ]


# -- durability ------------------------------------------------------------------------------------------


def test_a_batch_is_one_fsync_and_a_batch_that_changes_nothing_is_none(store: SqliteTokens, disk: FailingDisk) -> None:
    store.apply([WRONG], NOW)  # the first one also begins the log
    disk.sync_count = 0
    find = FindPayment(payment_id("none"), TRANSACTION_ID, PASSCODE)
    store.apply([RIGHT], NOW)  # forgets the wrong passcode
    assert disk.sync_count == 1
    recall = RecallPayment(payment_id("none"), TERMS.session_id, hash_of())
    store.apply([RIGHT, find, recall, CheckToken("TX-unknown", "wrong"), CancelToken(build_token(passcode="x"))], NOW)
    store.apply([replace(POSTED, payment_id=payment_id("nobody's"))], NOW)
    assert disk.sync_count == 1
    store.apply([BEGIN, RIGHT, WRONG], NOW)
    assert disk.sync_count == 2


def test_a_batch_that_fails_in_the_middle_leaves_nothing(store: SqliteTokens) -> None:
    good = IssueToken(build_token(transaction_id="TX-2"))
    bad = IssueToken(build_token(transaction_id="TX-3", amount_minor=0))
    with pytest.raises(apsw.ConstraintError):
        store.apply([WRONG, BEGIN, good, bad], NOW)
    assert (list(store.tokens()), payments(store)) == ([TOKEN], [])
    assert statuses([apply(store, RIGHT)]) == [TokenStatus.VALID]


def test_all_is_there_after_reopening(store: SqliteTokens, tmp_path: Path) -> None:
    second = build_token(transaction_id="TX-2", expires_ms=NOW_MS + 1, state=TokenState.PAID, utr=UTR)
    in_flight = BeginPayment(build_terms(payment_id=payment_id("second"), transaction_id="TX-3"), hash_of())
    store.apply([IssueToken(second), IssueToken(build_token(transaction_id="TX-3")), BEGIN, POSTED, in_flight], NOW)
    before = (list(store.tokens()), payments(store), store.payments_in_flight())
    store.close()
    reopened = open_store(tmp_path)
    assert (list(reopened.tokens()), payments(reopened), reopened.payments_in_flight()) == before
    assert [p.payment_id for p in reopened.payments_in_flight()] == [payment_id("second")]
    reopened.close()


def test_a_full_disk_changes_nothing_and_what_only_reads_goes_on(store: SqliteTokens, disk: FailingDisk) -> None:
    disk.is_full = True
    with pytest.raises(StoreFull):
        store.apply([BEGIN], NOW)
    assert (list(store.tokens()), payments(store)) == ([TOKEN], [])
    assert statuses([apply(store, RIGHT)]) == [TokenStatus.VALID]
    disk.is_full = False
    begun = apply(store, BEGIN)
    assert isinstance(begun, PaymentBegun)
    assert begun.is_new


def test_a_failed_fsync_is_not_a_full_disk(store: SqliteTokens, disk: FailingDisk) -> None:
    disk.fsync_fails = True
    with pytest.raises(StoreFsyncFailed):
        store.apply([BEGIN], NOW)
