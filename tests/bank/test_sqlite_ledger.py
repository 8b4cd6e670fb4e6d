"""The ledger in SQLite: batches, replays, double entry, lock-outs, time, damage."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from audit.tampering import without_triggers
from bank_books import (
    ASHA_MINOR,
    ENVELOPE_HASH,
    IDENTITY,
    RAVI_MINOR,
    VERIFIER,
    WRONG_VERIFIER,
    Books,
    build_transfer,
    payment_id,
    statement_of,
)
from builders import MERCHANT_ID, NOW_MS, RECEIPT_KEY, USER_ID, build_terms
from failing_disk import VFS_NAME, FailingDisk

from paygate.bank import ledger_batch, ledger_rows, sqlite_ledger
from paygate.bank.ledger import (
    ABSENT,
    BALANCE_MINOR_MAX,
    MISMATCH,
    AccountOutcome,
    FindPayment,
    OpenCustomer,
    OpenMerchant,
    PaymentOutcome,
    Resolve,
)
from paygate.bank.ledger_chain import EQUITY_ID, next_posting_chain
from paygate.bank.ledger_tables import SCHEMA
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.fields import fields_of
from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import Receipt, Terms
from paygate.files.sqlite import StoreCorrupt, StoreError, StoreFsyncFailed, StoreFull

OTHER_VALUE: dict[str, Any] = {
    "merchant_id": "M-200",
    "transaction_id": "TX-other",
    "session_id": b"s" * 16,
    "amount_minor": 125_001,
    "currency": "EUR",
    "authorised_at_ms": NOW_MS + 1,
}


@pytest.mark.pg("PG-TRF-5")
def test_a_payment_moves_the_money_and_the_receipt_says_so(books: Books) -> None:
    transfer = build_transfer()
    outcome = books.apply(transfer)[0]
    assert outcome.outcome is TransferOutcome.POSTED
    assert outcome.utr == "PGBKP12026010200000001"
    assert statement_of(outcome, transfer.terms).bank_time_ms == NOW_MS
    assert books.balance("C-1") == ASHA_MINOR - 125_000
    merchant = books.ledger.find_merchant(MERCHANT_ID)
    assert merchant is not None
    assert merchant.balance_minor == 125_000
    assert outcome.posted.posting.customer_id == "C-1"
    assert (outcome.posted.customer_balance_minor, outcome.posted.merchant_balance_minor) == (4_875_000, 125_000)
    assert [posting.utr for posting in books.ledger.postings()] == [outcome.utr]


def test_a_decline_moves_nothing_and_has_its_own_receipt(books: Books) -> None:
    outcome = books.pay(user_id="ravi", amount_minor=RAVI_MINOR + 1)
    assert (outcome.outcome, outcome.reason, outcome.utr) == (TransferOutcome.DECLINED, Reason.FUNDS, "")
    assert outcome.posted is None
    statement_of(outcome, build_terms(payment_id=payment_id(0), transaction_id="TX-0", amount_minor=RAVI_MINOR + 1))
    assert books.balance("C-2") == RAVI_MINOR


@pytest.mark.pg("PG-TRF-2")
@pytest.mark.parametrize("number", range(5))
def test_all_of_a_payment_is_written_or_nothing(books: Books, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    # The power goes before the statement of this number: five write the batch, since a failure is forgotten too.
    monkeypatch.setattr(ledger_rows, "BALANCE_COUNT_MAX", 0)
    books.pay(1, verifier=WRONG_VERIFIER)
    transfer = build_transfer()
    tables = ("account", "customer", "payment", "posting", "bank")
    before = [books.query(f"SELECT * FROM {table}") for table in tables]
    connection = _Failing(books.ledger._connection, number)
    with monkeypatch.context() as patch:
        patch.setattr(books.ledger, "_connection", connection)
        with pytest.raises(PowerCut):
            books.apply(transfer)
    assert connection.write_count == number + 1
    assert [books.query(f"SELECT * FROM {table}") for table in tables] == before
    connection = _Failing(books.ledger._connection, 5)
    with monkeypatch.context() as patch:
        patch.setattr(books.ledger, "_connection", connection)
        assert books.apply(transfer)[0].utr == "PGBKP12026010200000001"
    assert connection.write_count == 5
    assert len(books.query("SELECT * FROM posting WHERE payment_number = 2")) == 2
    assert books.failure_count() == 0


class PowerCut(Exception):
    pass


class _Failing:
    """A connection that fails at its statement `number` of those that write."""

    def __init__(self, connection: apsw.Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        self.write_count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _write(self, sql: str) -> None:
        if sql.startswith(("INSERT", "UPDATE")):
            self.write_count += 1
            if self.write_count > self._number:
                raise PowerCut

    def execute(self, sql: str, *arguments: Any) -> Any:
        self._write(sql)
        return self._connection.execute(sql, *arguments)

    def executemany(self, sql: str, rows: Any) -> Any:
        self._write(sql)
        return self._connection.executemany(sql, rows)


# -- replays and batches ---------------------------------------------------------------------------------


def test_the_same_payment_ten_thousand_times_is_one_debit_and_the_same_bytes(books: Books) -> None:
    outcomes = books.apply(*[build_transfer()] * 10_000)
    assert {(o.outcome, o.utr, o.receipt) for o in outcomes} == {
        (TransferOutcome.POSTED, outcomes[0].utr, outcomes[0].receipt)
    }
    assert [o.posted is not None for o in outcomes] == [True] + [False] * 9_999
    assert books.balance("C-1") == ASHA_MINOR - 125_000


@pytest.mark.pg("PG-RES-9", "PG-TRF-8")
@pytest.mark.parametrize("same_batch", [True, False])
def test_a_final_outcome_is_replayed_byte_for_byte(books: Books, same_batch: bool) -> None:
    stories: list[Any] = [
        build_transfer(payment_id=payment_id(1), transaction_id="TX-1"),
        build_transfer(payment_id=payment_id(2), transaction_id="TX-2", verifier=WRONG_VERIFIER),
        Resolve(build_terms(payment_id=payment_id(3)), ENVELOPE_HASH),
    ]
    for first in stories:
        again: list[Any] = [
            FindPayment(first.terms, ENVELOPE_HASH),
            Resolve(first.terms, ENVELOPE_HASH),
            # What was in the envelope doesn't matter any more, nor does the time.
            replace(build_transfer(opened=Reason.TERMS, deadline_mono_ms=0), terms=first.terms),
        ]
        if same_batch:
            decided, *replayed = books.apply(first, *again)
        else:
            decided = books.apply(first)[0]
            books.reopen()
            books.advance(10**9)
            replayed = books.apply(*again)
        expected = replace(decided, posted=None)
        assert replayed == [expected] * 3
        assert decided.receipt


def test_a_batch_has_one_signature_and_each_receipt_verifies_alone(books: Books) -> None:
    transfers = [build_transfer(payment_id=payment_id(n), transaction_id=f"TX-{n}", amount_minor=1) for n in range(5)]
    outcomes = books.apply(*transfers)
    receipts = [decode_record(Receipt, outcome.receipt) for outcome in outcomes]
    assert len({receipt.signature for receipt in receipts}) == 1
    assert [(r.leaf_index, r.leaf_count) for r in receipts] == [(n, 5) for n in range(5)]
    for outcome, transfer in zip(outcomes, transfers, strict=True):
        statement_of(outcome, transfer.terms)


def test_a_large_batch_decides_as_its_operations_do_one_by_one(tmp_path: Path) -> None:
    together, alone = Books(tmp_path / "together"), Books(tmp_path / "alone")
    first = build_transfer(payment_id=payment_id(1), transaction_id="TX-1", amount_minor=1)
    known: list[Any] = [first, Resolve(build_terms(payment_id=payment_id(2)), ENVELOPE_HASH)]
    others: dict[str, dict[str, Any]] = {
        "new": {},
        "token paid before": {"transaction_id": "TX-1"},
        "token paid in this batch": {"transaction_id": "TX-3"},
        "of another gateway": {"gateway_id": "GW2", "transaction_id": "TX-1"},
        "nobody": {"user_id": "nobody"},
        "wrong password": {"verifier": WRONG_VERIFIER},
        "wrong password again": {"verifier": WRONG_VERIFIER},
        "not opened": {"opened": Reason.TERMS},
        "too much": {"user_id": "ravi", "amount_minor": RAVI_MINOR + 1},
        "no merchant": {"merchant_id": "M-999"},
    }
    transfers = [
        build_transfer(**{"payment_id": payment_id(n), "transaction_id": f"TX-{n}", "amount_minor": 1, **changes})
        for n, changes in enumerate(others.values(), 3)
    ]
    finds: list[Any] = [FindPayment(o.terms, o.envelope_hash) for o in [*known, *transfers]]
    for operations in ([*known], finds, [*finds, *known, *transfers, *finds], [*transfers, *finds]):
        expected = [outcome for operation in operations for outcome in alone.apply(operation)]
        outcomes = together.apply(*operations)
        assert [replace(o, receipt=b"") for o in outcomes] == [replace(o, receipt=b"") for o in expected]
        assert [bool(o.receipt) for o in outcomes] == [bool(o.receipt) for o in expected]
    for sql in ("SELECT * FROM account", "SELECT * FROM customer", "SELECT posting_number, amount_minor FROM posting"):
        assert together.query(sql) == alone.query(sql)


@pytest.mark.pg("PG-CLI-4", "PG-TRF-3")
def test_a_token_is_paid_once_in_one_batch_and_a_year_later(books: Books) -> None:
    transfers = [build_transfer(payment_id=payment_id(n)) for n in range(3)]
    first, second = books.apply(*transfers[:2])
    assert (first.outcome, second.reason) == (TransferOutcome.POSTED, Reason.TOKEN_ALREADY_PAID)
    books.reopen()
    books.advance(365 * 86_400_000)
    late = replace(transfers[2].terms, authorised_at_ms=books.now.wall_ms)
    assert books.apply(replace(transfers[2], terms=late))[0].reason is Reason.TOKEN_ALREADY_PAID
    assert books.balance("C-1") == ASHA_MINOR - 125_000


@pytest.mark.pg("PG-RES-7")
def test_another_gateway_may_have_the_same_token_and_payment_id(books: Books) -> None:
    assert books.pay().outcome is TransferOutcome.POSTED
    assert books.pay(gateway_id="GW2").outcome is TransferOutcome.POSTED


@pytest.mark.pg("PG-RES-7")
def test_payments_of_two_gateways_are_apart_under_one_payment_id(books: Books) -> None:
    mine, theirs = build_transfer(), build_transfer(gateway_id="GW2", amount_minor=7)
    fenced = books.resolve(theirs.terms)
    assert fenced.outcome is TransferOutcome.FENCED
    posted = books.apply(mine)[0]
    assert posted.outcome is TransferOutcome.POSTED
    assert books.apply(theirs) == [fenced]
    assert books.apply(mine) == [replace(posted, posted=None)]


@pytest.mark.pg("PG-ENC-8")
def test_identifiers_are_compared_byte_by_byte(books: Books) -> None:
    assert books.pay(1, merchant_id=MERCHANT_ID.lower()).reason is Reason.MERCHANT_UNKNOWN
    assert books.pay(2, transaction_id="TX-a").outcome is TransferOutcome.POSTED
    assert books.pay(3, transaction_id="TX-A").outcome is TransferOutcome.POSTED


@pytest.mark.pg("PG-TRF-8")
def test_a_token_that_was_declined_can_be_paid(books: Books) -> None:
    books.pay(transaction_id="TX-1", verifier=WRONG_VERIFIER)
    assert books.pay(1, transaction_id="TX-1").outcome is TransferOutcome.POSTED


@pytest.mark.pg("PG-RES-8")
@pytest.mark.parametrize("name", OTHER_VALUE)
@pytest.mark.parametrize("same_batch", [True, False])
def test_a_payment_id_with_other_terms_reveals_nothing_and_changes_nothing(
    books: Books, name: str, same_batch: bool
) -> None:
    first = build_transfer()
    other = build_transfer(**{name: OTHER_VALUE[name]})
    operations: list[Any] = [other, FindPayment(other.terms, ENVELOPE_HASH), Resolve(other.terms, ENVELOPE_HASH)]
    if same_batch:
        _, *answers = books.apply(first, *operations)
    else:
        books.apply(first)
        before = books.query("SELECT * FROM payment")
        answers = books.apply(*operations)
        assert books.query("SELECT * FROM payment") == before
    assert answers == [MISMATCH] * 3
    assert books.balance("C-1") == ASHA_MINOR - 125_000


def test_the_other_values_cover_all_terms_but_what_names_the_payment() -> None:
    names = {field.name for field in fields_of(Terms)}
    assert set(OTHER_VALUE) == names - {"bank_id", "gateway_id", "payment_id"}


def test_another_envelope_is_a_mismatch(books: Books) -> None:
    books.apply(build_transfer())
    assert books.apply(build_transfer(sent_envelope_hash=bytes(32))) == [MISMATCH]


@pytest.mark.pg("PG-RES-1", "PG-RES-3")
def test_a_fenced_payment_never_debits(books: Books) -> None:
    transfer = build_transfer()
    fenced = books.resolve(transfer.terms)
    assert (fenced.outcome, fenced.reason) == (TransferOutcome.FENCED, Reason.FENCED)
    statement_of(fenced, transfer.terms)
    assert books.apply(transfer) == [fenced]
    assert books.balance("C-1") == ASHA_MINOR


def test_asking_leaves_no_trace(books: Books) -> None:
    assert books.apply(FindPayment(build_terms(), ENVELOPE_HASH)) == [ABSENT]
    assert books.query("SELECT count(*) FROM payment") == [(0,)]


# -- passwords -------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-PAY-12")
def test_unknown_wrong_and_locked_look_the_same(books: Books) -> None:
    wrong = books.pay(1, verifier=WRONG_VERIFIER)
    unknown = books.pay(2, user_id="nobody")
    for number in (3, 4):
        books.pay(number, verifier=WRONG_VERIFIER)
    locked = books.pay(5)
    answers = [wrong, unknown, locked]
    assert {(a.outcome, a.reason, a.utr, a.posted) for a in answers} == {
        (TransferOutcome.DECLINED, Reason.CREDENTIALS, "", None)
    }
    # The receipts differ in nothing but what the asker sent: payment, token.
    assert len({len(a.receipt) for a in answers}) == 1


@pytest.mark.pg("PG-PAY-12")
def test_unknown_wrong_and_locked_cost_the_same_work(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[str] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        work.append(f"compare {len(one)} with {len(other)} bytes")
        return one == other

    def trace(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        work.append(sql)
        return True

    def cost(number: int, **changes: Any) -> list[str]:
        work.clear()
        assert books.pay(number, **changes).reason is Reason.CREDENTIALS
        return list(work)

    monkeypatch.setattr("paygate.bank.ledger.hmac.compare_digest", compare_digest)
    books.ledger._connection.exec_trace = trace
    books.pay(6)  # The merchant, which is no secret, is read but once.
    unknown = cost(0, user_id="nobody")
    wrong = [cost(number, verifier=WRONG_VERIFIER) for number in (1, 2, 3)]
    locked = [cost(4), cost(5, verifier=WRONG_VERIFIER)]
    assert wrong + locked == [unknown] * 5
    assert unknown.count("compare 32 with 32 bytes") == 1
    assert any("UPDATE customer" in statement for statement in unknown)


@pytest.mark.pg("PG-TRF-7")
def test_failures_survive_a_restart_and_lock_the_account(books: Books) -> None:
    for number in range(3):
        assert books.pay(number, verifier=WRONG_VERIFIER).reason is Reason.CREDENTIALS
        books.reopen()
        assert books.failure_count() == number + 1
    assert books.pay(3).reason is Reason.CREDENTIALS
    books.advance(29_999)
    assert books.pay(4).reason is Reason.CREDENTIALS
    assert books.failure_count() == 3
    books.advance(1)
    assert books.pay(5).outcome is TransferOutcome.POSTED
    assert books.failure_count() == 0


def test_failures_of_one_batch_all_count(books: Books) -> None:
    guesses = [
        build_transfer(payment_id=payment_id(n), transaction_id=f"TX-{n}", verifier=WRONG_VERIFIER) for n in range(3)
    ]
    right = build_transfer(payment_id=payment_id(9), transaction_id="TX-9")
    assert [outcome.reason for outcome in books.apply(*guesses, right)] == [Reason.CREDENTIALS] * 4
    assert books.failure_count() == 3


def test_replaying_a_wrong_guess_counts_it_once(books: Books) -> None:
    books.apply(*[build_transfer(verifier=WRONG_VERIFIER)] * 100)
    assert books.failure_count() == 1


def test_too_little_money_is_no_failed_password(books: Books) -> None:
    books.pay(1, user_id="ravi", verifier=WRONG_VERIFIER)
    books.pay(2, user_id="ravi", amount_minor=RAVI_MINOR + 1)
    assert books.failure_count("C-2") == 0


# -- time ------------------------------------------------------------------------------------------------


DAY_MS = 86_400_000


def set_clock(books: Books, wall_ms: int) -> None:
    """Somebody sets the clock; the monotonic one goes on."""
    books.now = Now(books.now.mono_ms + 1, wall_ms)


@pytest.mark.pg("PG-TRF-6")
@pytest.mark.parametrize("restarts", [True, False])
def test_a_clock_set_back_reopens_nothing_and_keeps_utrs_apart(books: Books, restarts: bool) -> None:
    first = books.pay(1)
    yesterday_ms = NOW_MS - DAY_MS
    late = build_transfer(payment_id=payment_id(2), transaction_id="TX-2", authorised_at_ms=yesterday_ms)
    (refused,) = books.apply(late)
    assert refused.reason is Reason.LATE
    for number in range(3, 6):
        books.pay(number, verifier=WRONG_VERIFIER)
    set_clock(books, yesterday_ms)
    if restarts:
        books.reopen()
    assert books.apply(late) == [refused]
    assert books.pay(6).reason is Reason.CREDENTIALS  # locked
    assert books.pay(7, authorised_at_ms=NOW_MS, user_id="ravi").reason is Reason.LATE
    other = books.pay(8, user_id="ravi", amount_minor=1)
    assert (first.utr, other.utr) == ("PGBKP12026010200000001", "PGBKP12026010200000002")
    books.advance(30_000)
    assert books.pay(9).outcome is TransferOutcome.POSTED


@pytest.mark.pg("PG-TRF-4")
@pytest.mark.parametrize("restarts", [True, False])
def test_after_a_clock_that_leapt_forward_is_mended_payments_work_at_once(books: Books, restarts: bool) -> None:
    set_clock(books, NOW_MS + 3_650 * DAY_MS)
    assert books.pay(1, authorised_at_ms=NOW_MS).reason is Reason.LATE
    leapt = books.pay(2, amount_minor=1)  # by a client whose clock leapt too
    for number in range(3, 6):
        books.pay(number, user_id="ravi", verifier=WRONG_VERIFIER)
    set_clock(books, NOW_MS)
    if restarts:
        books.reopen()
    mended = books.pay(6, amount_minor=1)
    assert (leapt.utr, mended.utr) == ("PGBKP12035123100000001", "PGBKP12035123100000002")
    # A lock that began meanwhile is as long as any other.
    books.advance(29_000)
    assert books.pay(7, user_id="ravi", amount_minor=1).reason is Reason.CREDENTIALS
    books.advance(1_000)
    assert books.pay(8, user_id="ravi", amount_minor=1).outcome is TransferOutcome.POSTED


def test_a_clock_that_leaps_forward_ends_no_lock_early(books: Books) -> None:
    for number in range(3):
        books.pay(number, verifier=WRONG_VERIFIER)
    set_clock(books, NOW_MS + DAY_MS)
    assert books.pay(3).reason is Reason.CREDENTIALS


def test_a_declined_batch_moves_bank_time_too(books: Books) -> None:
    books.advance(DAY_MS)
    books.pay(1, verifier=WRONG_VERIFIER)
    books.now = Now(0, NOW_MS)
    books.reopen()
    assert books.pay(2, amount_minor=1).utr == "PGBKP12026010300000001"


@pytest.mark.pg("PG-TRF-6")
def test_the_time_in_receipts_never_runs_backwards(books: Books) -> None:
    times_ms = []
    for number, wall_ms in enumerate((NOW_MS + 5, NOW_MS - DAY_MS, NOW_MS + 4, NOW_MS + 6)):
        set_clock(books, wall_ms)
        outcome = books.pay(number, amount_minor=1)
        times_ms.append(decode_record(Receipt, outcome.receipt).statement.bank_time_ms)
        books.reopen()
    assert times_ms == [NOW_MS + 5, NOW_MS + 5, NOW_MS + 5, NOW_MS + 6]


def test_a_ledger_from_before_lock_time_keeps_its_locks(books: Books) -> None:
    for number in range(3):
        books.pay(number, verifier=WRONG_VERIFIER)
    books.ledger.close()
    connection = apsw.Connection(str(books.path))
    drop_hashes(connection)
    connection.execute("ALTER TABLE bank DROP COLUMN lock_time_ms")
    connection.execute("ALTER TABLE bank DROP COLUMN balanced_count")
    connection.pragma("user_version", 1)
    connection.close()
    books.ledger = SqliteLedger(books.path, IDENTITY, RECEIPT_KEY)
    set_clock(books, NOW_MS - DAY_MS)
    assert books.pay(3).reason is Reason.CREDENTIALS
    books.advance(30_000)
    assert books.pay(4).outcome is TransferOutcome.POSTED


def test_a_ledger_whose_payments_are_made_anew_keeps_them_and_their_guards(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with of_schema((*SCHEMA[:2], *SCHEMA[3:])):  # the last columns are those of the later ones, which are made anew too
        books = Books(path)
        posted, declined = books.pay(1), books.pay(2, verifier=WRONG_VERIFIER)
        books.ledger.close()
    connection = apsw.Connection(str(path))
    balance_at_once(connection)
    connection.pragma("user_version", 2)
    connection.close()
    books.ledger = SqliteLedger(path, IDENTITY, RECEIPT_KEY)
    assert "BETWEEN 1 AND 3" in books.query("SELECT sql FROM sqlite_schema WHERE name = 'payment'")[0][0]
    assert books.pay(1) == replace(posted, posted=None)
    assert books.pay(2, verifier=WRONG_VERIFIER) == declined
    assert books.pay(3, transaction_id="TX-1").reason is Reason.TOKEN_ALREADY_PAID
    assert [(row[2], row[3]) for row in books.query("PRAGMA foreign_key_list(posting)")] == [
        ("account", "account_id"),
        ("payment", "payment_number"),
    ]
    for sql in ("UPDATE payment SET reason = 0", "DELETE FROM payment"):
        with pytest.raises(apsw.ConstraintError, match="payments never"):
            books.query(sql)
    books.reopen()
    books.ledger.close()


def test_a_ledger_that_wrote_each_balance_at_once_is_taken_over(books: Books) -> None:
    books.pay(1, amount_minor=7)
    books.ledger.close()
    connection = apsw.Connection(str(books.path))
    balance_at_once(connection)
    connection.pragma("user_version", 3)
    connection.close()
    books.ledger = SqliteLedger(books.path, IDENTITY, RECEIPT_KEY)
    books.pay(2, amount_minor=1)
    books.reopen()
    assert books.balance("C-1") == ASHA_MINOR - 8


def test_a_ledger_without_a_chain_of_accounts_gets_one(books: Books) -> None:
    for number in range(3):
        books.pay(number, verifier=WRONG_VERIFIER)
    books.pay(3, user_id="ravi", amount_minor=1)
    hashed = books.query("SELECT account_chain, made_hash, row_hash FROM bank")
    accounts = "SELECT account_id, chain, attempts_hash FROM customer"
    rows = books.query(accounts)
    assert [row[2] == b"" for row in rows] == [False, True]
    books.ledger.close()
    connection = apsw.Connection(str(books.path))
    drop_hashes(connection)
    connection.pragma("user_version", 4)
    connection.close()
    books.ledger = SqliteLedger(books.path, IDENTITY, RECEIPT_KEY)
    assert books.query("SELECT account_chain, made_hash, row_hash FROM bank") == hashed
    assert books.query(accounts) == rows


def drop_hashes(connection: apsw.Connection) -> None:
    """As before version 5."""
    for table, columns in (
        ("customer", "chain attempts_hash"),
        ("merchant", "chain"),
        ("bank", "account_chain made_hash row_hash"),
    ):
        for column in columns.split():
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def balance_at_once(connection: apsw.Connection) -> None:
    """As the ledgers before version 4 did with each posting."""
    drop_hashes(connection)
    connection.execute(
        "UPDATE account SET balance_minor = "
        "(SELECT sum(amount_minor) FROM posting WHERE posting.account_id = account.account_id)"
    )
    connection.execute("ALTER TABLE bank DROP COLUMN balanced_count")


@contextmanager
def of_schema(schema: tuple[str, ...]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_ledger, "SCHEMA", schema)
        yield


def test_asking_alone_needs_no_transaction(books: Books) -> None:
    statements: list[str] = []

    def trace(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        statements.append(sql)
        return True

    books.ledger._connection.set_exec_trace(trace)
    assert books.apply(FindPayment(build_terms(), ENVELOPE_HASH)) == [ABSENT]
    assert [sql.split()[0] for sql in statements] == ["SELECT"]


def test_utrs_that_somebody_has_seen_are_skipped(books: Books) -> None:
    books.pay(1)
    books.ledger.skip_utrs(41)
    books.ledger.skip_utrs(7)
    books.reopen()
    assert books.pay(2).utr.endswith("00000042")


# -- accounts --------------------------------------------------------------------------------------------


def test_accounts_are_opened_once(books: Books) -> None:
    assert books.apply(
        OpenCustomer("C-1", "somebody", VERIFIER, 1),
        OpenCustomer("C-3", "ravi", VERIFIER, 1),
        OpenCustomer("C-4", "meera", VERIFIER, 1),
        OpenCustomer("C-4", "meera2", VERIFIER, 1),
        OpenCustomer("C-5", "meera", VERIFIER, 1),
        OpenMerchant(MERCHANT_ID, "Other", 1),
        OpenMerchant("M-9", "Nine", 0),
        OpenMerchant("M-9", "Nine", 0),
    ) == [
        AccountOutcome.KNOWN,
        AccountOutcome.USER_ID_TAKEN,
        AccountOutcome.OPENED,
        AccountOutcome.KNOWN,
        AccountOutcome.USER_ID_TAKEN,
        AccountOutcome.KNOWN,
        AccountOutcome.OPENED,
        AccountOutcome.KNOWN,
    ]
    assert [customer.customer_id for customer in books.ledger.customers()] == ["C-1", "C-2", "C-4"]
    assert [merchant.merchant_id for merchant in books.ledger.merchants()] == [MERCHANT_ID, "M-200", "M-9"]


def test_a_new_account_can_pay_in_its_first_batch(books: Books) -> None:
    _, outcome = books.apply(OpenCustomer("C-4", "meera", VERIFIER, 125_000), build_transfer(user_id="meera"))
    assert outcome.outcome is TransferOutcome.POSTED
    books.reopen()
    assert books.balance("C-4") == 0


def test_the_bank_holds_no_more_money_than_it_can_count(books: Books) -> None:
    total_minor = ASHA_MINOR + RAVI_MINOR + 150_000
    rest_minor = BALANCE_MINOR_MAX - total_minor
    assert books.apply(
        OpenMerchant("M-3", "Too much", rest_minor + 1),
        OpenMerchant("M-4", "All there is", rest_minor),
        OpenMerchant("M-5", "Nothing", 0),
        OpenMerchant("M-6", "One too many", 1),
    ) == [AccountOutcome.TOO_MUCH, AccountOutcome.OPENED, AccountOutcome.OPENED, AccountOutcome.TOO_MUCH]
    # Even all of it on one account is counted exactly.
    assert books.pay(1, merchant_id="M-4", amount_minor=ASHA_MINOR).outcome is TransferOutcome.POSTED
    books.reopen()


# -- invariants ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_random_operations_keep_the_books(books: Books, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(ledger_rows, "BALANCE_COUNT_MAX", 2 * seed)
    chance = random.Random(seed)
    receipts: dict[tuple[str, bytes], bytes] = {}
    done = 0
    while done < 1_000:
        batch = [_random_operation(chance, books.now) for _ in range(chance.randrange(1, 40))]
        for operation, outcome in zip(batch, books.apply(*batch), strict=True):
            if outcome.receipt:
                key = (operation.terms.gateway_id, operation.terms.payment_id)
                assert receipts.setdefault(key, outcome.receipt) == outcome.receipt
        done += len(batch)
        books.now = Now(books.now.mono_ms + 50, books.now.wall_ms + chance.choice((-60_000, 0, 100, 40_000)))
        if chance.random() < 0.2:
            books.reopen()
    assert books.query("SELECT sum(amount_minor) FROM posting") == [(0,)]
    assert not books.query(
        "SELECT gateway_id, transaction_id FROM payment WHERE outcome = 1 GROUP BY 1, 2 HAVING count(*) > 1"
    )
    utrs = [row[0] for row in books.query("SELECT utr FROM payment WHERE utr IS NOT NULL ORDER BY payment_number")]
    assert utrs == sorted(set(utrs))
    assert len(utrs) > 10
    sums = dict(books.query("SELECT account_id, sum(amount_minor) FROM posting WHERE account_id <> 1 GROUP BY 1"))
    balances = {customer.account_id: customer.balance_minor for customer in books.ledger.customers()}
    balances |= {merchant.account_id: merchant.balance_minor for merchant in books.ledger.merchants()}
    assert sums == balances
    assert min(sums.values()) >= 0


def _random_operation(chance: random.Random, now: Now) -> Any:
    number = chance.randrange(300)
    facts = random.Random(number if chance.random() < 0.95 else -number)  # a payment ID mostly has its own terms
    transfer = build_transfer(
        payment_id=payment_id(number),
        transaction_id=f"TX-{facts.randrange(200)}",
        amount_minor=facts.randrange(1, 60_000),
        merchant_id=facts.choice([MERCHANT_ID, "M-200", "M-unknown"]),
        gateway_id=facts.choice(["GW1", "GW2"]),
        authorised_at_ms=now.wall_ms - now.wall_ms % 100_000,
        user_id=facts.choice(["asha", "ravi", "nobody"]),
        verifier=facts.choice([VERIFIER] * 5 + [WRONG_VERIFIER]),
        deadline_mono_ms=facts.choice([0] + [10**12] * 20),
    )
    kind = chance.random()
    if kind < 0.1:
        return Resolve(transfer.terms, transfer.envelope_hash)
    return FindPayment(transfer.terms, transfer.envelope_hash) if kind < 0.2 else transfer


# -- the disk --------------------------------------------------------------------------------------------


def test_a_full_disk_changes_nothing_and_is_got_over(books: Books) -> None:
    books.pay(1)
    connection = books.ledger._connection
    connection.pragma("max_page_count", connection.pragma("page_count"))
    posted_count = 1
    is_full = False
    while not is_full:
        try:
            books.pay(posted_count + 1, amount_minor=1)
            posted_count += 1
        except StoreFull:
            is_full = True
    # What was answered before is still answered: reading needs no room (T30).
    known = build_terms(payment_id=payment_id(1), transaction_id="TX-1", authorised_at_ms=NOW_MS)
    assert books.apply(FindPayment(known, ENVELOPE_HASH))[0].outcome is TransferOutcome.POSTED
    connection.pragma("max_page_count", 10**6)
    assert books.pay(posted_count + 1, amount_minor=1).utr.endswith(f"{posted_count + 1:08d}")
    books.reopen()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payment SET utr = 'PGBKP12026010200000099' WHERE payment_number = 1",
        "UPDATE payment SET receipt = x'00' WHERE payment_number = 2",
        "DELETE FROM payment WHERE payment_number = 2",
        "UPDATE posting SET amount_minor = amount_minor * 2 WHERE payment_number = 1",
        "DELETE FROM posting WHERE payment_number = 1",
        "UPDATE account SET balance_minor = balance_minor + 1 WHERE account_id = 2",
        "UPDATE account SET balance_minor = balance_minor + CASE account_id WHEN 2 THEN 1 WHEN 3 THEN -1 ELSE 0 END",
        "DELETE FROM customer WHERE account_id = 3",
        "DELETE FROM merchant WHERE account_id = 4",
        "UPDATE bank SET utr_sequence = 0",
        "UPDATE bank SET balanced_count = balanced_count + 2",
        "UPDATE bank SET bank_time_ms = bank_time_ms + 1",
        "UPDATE bank SET lock_time_ms = 0",
        "UPDATE customer SET verifier = zeroblob(32) WHERE account_id = 3",
        "UPDATE customer SET user_id = 'RAVI' WHERE account_id = 3",
        "UPDATE customer SET customer_id = 'C-9' WHERE account_id = 3",
        "UPDATE customer SET failure_count = 2 WHERE account_id = 2",
        "UPDATE customer SET locked_until_ms = 1 WHERE account_id = 3",
        "UPDATE customer SET attempts_hash = x'01' WHERE account_id = 3",
        "UPDATE merchant SET name = 'Coffee' WHERE account_id = 5",
        "UPDATE merchant SET merchant_id = 'M-201' WHERE account_id = 5",
        "UPDATE merchant SET account_id = 9 WHERE account_id = 5",
    ],
)
def test_a_changed_record_is_noticed_at_start(books: Books, damage: str) -> None:
    books.pay(1)
    books.pay(2, verifier=WRONG_VERIFIER)
    books.ledger.close()
    connection = apsw.Connection(str(books.path))
    if damage.split()[1] in ("payment", "posting") or damage.split()[2] in ("payment", "posting"):
        with pytest.raises(apsw.ConstraintError, match="never"):
            connection.execute(damage)
    with without_triggers(connection):
        connection.execute(damage)
    connection.close()
    with pytest.raises(StoreCorrupt, match="restore it from a backup") as refused:
        SqliteLedger(books.path, IDENTITY, RECEIPT_KEY)
    assert "sqlite_schema" not in str(refused.value)


@pytest.mark.parametrize("change", ["DROP TRIGGER payment_stays", "DROP INDEX posted_token", "CREATE TABLE t(x)"])
def test_a_ledger_whose_guards_are_not_there_is_not_served(books: Books, change: str) -> None:
    books.ledger.close()
    connection = apsw.Connection(str(books.path))
    connection.execute(change)
    connection.close()
    with pytest.raises(StoreCorrupt, match="bank or sqlite_schema is not what was written; restore it from a backup"):
        SqliteLedger(books.path, IDENTITY, RECEIPT_KEY)


def test_no_account_is_overdrawn_whatever_was_decided(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's own check comes only when the balance is written, which is later than its postings."""
    monkeypatch.setattr(ledger_batch, "decide", lambda _, situation, __: (Reason.NONE, situation.customer))
    with pytest.raises(AssertionError):
        books.pay(1, amount_minor=ASHA_MINOR + 1)
    assert books.balance("C-1") == ASHA_MINOR


def test_postings_that_overdraw_an_account_are_not_served(books: Books) -> None:
    head = books.ledger._head
    chain, rows = head.posting_chain, []
    for row in (
        (head.posting_count + 1, None, EQUITY_ID, ASHA_MINOR + 1),
        (head.posting_count + 2, None, 2, -ASHA_MINOR - 1),
    ):
        chain = next_posting_chain(chain, row)
        rows.append((*row, chain))
    books.ledger._connection.executemany("INSERT INTO posting VALUES (?, ?, ?, ?, ?)", rows)
    counters = head._replace(posting_count=head.posting_count + 2, posting_chain=chain)
    ledger_rows.write_head(books.ledger._connection, counters)
    with pytest.raises(StoreCorrupt, match="account 2 was overdrawn"):
        books.reopen()


def test_nothing_is_written_after_a_failed_fsync(tmp_path: Path) -> None:
    """T31: what Linux does with pages that it could not write is not known, so the next start finds out."""
    disk = FailingDisk()
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", IDENTITY, RECEIPT_KEY, vfs=VFS_NAME)
    now = Now(1_000, NOW_MS)
    ledger.apply([OpenCustomer("C-1", USER_ID, VERIFIER, ASHA_MINOR), OpenMerchant(MERCHANT_ID, "Books", 0)], now)
    ledger.apply([build_transfer()], now)
    disk.fsync_fails = True
    with pytest.raises(StoreFsyncFailed):
        ledger.apply([OpenCustomer("C-2", "ravi", VERIFIER, RAVI_MINOR)], now)
    disk.fsync_fails = False
    counts = disk.write_count, disk.sync_count
    ledger.close()
    disk.unregister()
    assert (disk.write_count, disk.sync_count) == counts


def test_a_payment_that_changed_under_a_running_bank_is_never_served(books: Books) -> None:
    transfer = build_transfer()
    books.apply(transfer)
    connection = books.ledger._connection
    connection.execute("DROP TRIGGER payment_stays")
    connection.execute("UPDATE payment SET reason = 8, outcome = 2, utr = NULL")
    with pytest.raises(StoreCorrupt):
        books.apply(transfer)


def test_the_ledger_of_another_bank_is_refused(books: Books, tmp_path: Path) -> None:
    books.ledger.close()
    with pytest.raises(StoreError, match="is the ledger of"):
        SqliteLedger(tmp_path / "ledger.sqlite", replace(IDENTITY, bank_code="XXXX"), RECEIPT_KEY)
    books.ledger = SqliteLedger(books.path, IDENTITY, RECEIPT_KEY)


def test_a_batch_larger_than_a_tree_is_signed_in_several(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paygate.bank.sqlite_ledger._SIGNED_COUNT_MAX", 3)
    fences = [Resolve(build_terms(payment_id=payment_id(n)), ENVELOPE_HASH) for n in range(7)]
    outcomes: list[PaymentOutcome] = books.apply(*fences)
    for fence, outcome in zip(fences, outcomes, strict=True):
        statement_of(outcome, fence.terms)
    assert [decode_record(Receipt, o.receipt).leaf_count for o in outcomes] == [3, 3, 3, 3, 3, 3, 1]
    assert 1 << limits.RECEIPT_PATH_COUNT_MAX == 65_536
