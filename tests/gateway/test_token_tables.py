"""What is held in memory never says what the disk does not; databases of before stay readable."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from builders import NOW_MS, PASSCODE, UTR, build_terms
from failing_disk import VFS_NAME, FailingDisk
from gateway.world import build_token, hash_of, payment_id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import Terms
from paygate.files.sqlite import StoreFull
from paygate.gateway import sqlite_tokens, token_schema, token_tables
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import (
    BeginPayment,
    CancelToken,
    CheckToken,
    FindPayment,
    IssueToken,
    Operation,
    Payment,
    PaymentBegun,
    PaymentSettled,
    RecallPayment,
    SettlePayment,
    Token,
    TokenState,
)

NOW = Now(5, NOW_MS)
NAMES = ("TX-1", "TX-2")
PAYMENT_IDS = tuple(payment_id(name) for name in ("first", "second", "third"))
ENVELOPE_HASH = hash_of()


def token(name: str) -> Token:
    return build_token(transaction_id=name, expires_ms=NOW_MS + 30 if name == "TX-2" else None)


def begin(name: str, of: bytes) -> BeginPayment:
    return BeginPayment(build_terms(transaction_id=name, payment_id=of), ENVELOPE_HASH)


def settle(of: bytes, outcome: TransferOutcome = TransferOutcome.POSTED) -> SettlePayment:
    is_posted = outcome is TransferOutcome.POSTED
    return SettlePayment(of, outcome, Reason.NONE if is_posted else Reason.FUNDS, UTR if is_posted else "", b"receipt")


def everything(store: SqliteTokens) -> tuple[list[Token], list[Payment], list[Payment]]:
    return list(store.tokens()), list(store.payments()), store.payments_in_flight()


def reopened(store: SqliteTokens, path: Path) -> SqliteTokens:
    store.close()
    return SqliteTokens(path, vfs=VFS_NAME)


# -- what is held against what is on disk ----------------------------------------------------------------

_NAME = st.sampled_from((*NAMES, "TX-unknown"))
_PAYMENT_ID = st.sampled_from(PAYMENT_IDS)
_PASSCODE = st.sampled_from((PASSCODE, "wrong"))
_OPERATION: st.SearchStrategy[Operation] = st.one_of(
    st.builds(CheckToken, _NAME, _PASSCODE),
    st.builds(begin, st.sampled_from(NAMES), _PAYMENT_ID),
    st.builds(
        settle, _PAYMENT_ID, st.sampled_from((TransferOutcome.POSTED, TransferOutcome.DECLINED, TransferOutcome.FENCED))
    ),
    st.builds(FindPayment, _PAYMENT_ID, _NAME, _PASSCODE),
    st.builds(RecallPayment, _PAYMENT_ID, st.just(build_terms().session_id), st.just(ENVELOPE_HASH)),
    st.builds(CancelToken, st.sampled_from(NAMES).map(token)),
    st.builds(IssueToken, st.sampled_from(NAMES).map(token)),
)
_TICK = st.tuples(st.lists(_OPERATION, min_size=1, max_size=6), st.booleans(), st.integers(0, 40))
"""Operations, whether the disk is full meanwhile, and how much wall time has passed."""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=st.lists(_TICK, max_size=6))
def test_a_store_that_remembers_says_what_one_says_that_reads_all_of_it_anew(
    ticks: list[tuple[list[Operation], bool, int]], tmp_path_factory: pytest.TempPathFactory, disk: FailingDisk
) -> None:
    """Batches on a full disk now and then, against one operation at a time, with a restart before each."""
    directory = tmp_path_factory.mktemp("stores")
    path, anew_path = directory / "tokens.sqlite", directory / "anew.sqlite"
    store, anew = SqliteTokens(path, vfs=VFS_NAME), SqliteTokens(anew_path, vfs=VFS_NAME)
    now = NOW
    try:
        for operations, is_full, passed_ms in ticks:
            now = Now(now.mono_ms, now.wall_ms + passed_ms)
            tried = store._unknown_tried.copy()
            disk.is_full = is_full
            try:
                outcomes = store.apply(operations, now)
            except StoreFull:
                disk.is_full = False
                store._unknown_tried = tried  # in memory only, and counted whatever became of the batch
                assert everything(store) == everything(anew)
                continue
            disk.is_full = False
            for operation, outcome in zip(operations, outcomes, strict=True):
                tried = anew._unknown_tried
                anew = reopened(anew, anew_path)
                anew._unknown_tried = tried
                assert anew.apply([operation], now) == [outcome]
            assert everything(store) == everything(anew)
        before = everything(store)
        store = reopened(store, path)
        assert everything(store) == before
    finally:
        disk.is_full = False
        store.close()
        anew.close()


@pytest.fixture
def store(tmp_path: Path, disk: FailingDisk) -> Iterator[SqliteTokens]:
    store = SqliteTokens(tmp_path / "tokens.sqlite", vfs=VFS_NAME)
    store.apply([IssueToken(token(name)) for name in NAMES], NOW)
    yield store
    disk.is_full = False
    store.close()


def test_a_payment_that_could_not_be_begun_or_settled_is_so_the_next_time(
    store: SqliteTokens, disk: FailingDisk
) -> None:
    first = PAYMENT_IDS[0]
    for operation, outcome_type in ((begin("TX-1", first), PaymentBegun), (settle(first), PaymentSettled)):
        before = everything(store)
        disk.is_full = True
        with pytest.raises(StoreFull):
            store.apply([CheckToken("TX-1", PASSCODE), operation], NOW)
        disk.is_full = False
        assert everything(store) == before
        (outcome,) = store.apply([operation], NOW)
        assert isinstance(outcome, outcome_type)
        assert everything(store) != before
    assert [t.state for t in store.tokens()] == [TokenState.PAID, TokenState.UNPAID]


def test_tokens_in_flight_are_held_and_of_the_others_a_bounded_number(
    store: SqliteTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_tokens, "HELD_TOKEN_COUNT_MAX", 3)
    names = [f"TX-{number}" for number in range(10, 30)]
    store.apply([IssueToken(token(name)) for name in names], NOW)
    store.apply([begin(name, payment_id(name)) for name in names[:10]], NOW)
    store.apply([CheckToken(name, PASSCODE) for name in names], NOW)
    assert len(store._tokens) == 3
    assert len(store._tokens_in_flight) == 10
    outcomes = store.apply([settle(payment_id(name)) for name in names[:10]], NOW)
    assert all(isinstance(o, PaymentSettled) and o.is_changed for o in outcomes)
    assert (len(store._tokens), len(store._tokens_in_flight), len(store._flights)) == (3, 0, 0)


def test_each_row_is_written_once_a_batch(store: SqliteTokens) -> None:
    first, second, _ = PAYMENT_IDS
    written: list[str] = []
    store._tables._connection.set_update_hook(lambda kind, database, table, row: written.append(table))
    store.apply([CheckToken("TX-1", PASSCODE), FindPayment(first, "TX-1", PASSCODE)], NOW)
    assert written == []
    store.apply([CheckToken("TX-1", "wrong"), CheckToken("TX-1", "wrong"), begin("TX-2", first)], NOW)
    assert written == ["token_state", "in_flight"]
    written.clear()
    # Declined and begun again: in flight before and after, so its token's row stays as it is.
    store.apply([settle(first, TransferOutcome.DECLINED), begin("TX-2", second)], NOW)
    assert written == ["in_flight", "payment"]
    written.clear()
    store.apply([settle(second)], NOW)
    assert written == ["payment", "paid"]
    written.clear()
    store.apply([CheckToken("TX-2", "wrong")], NOW)
    assert written == ["token_state"]


# -- earlier versions ------------------------------------------------------------------------------------


INSERT_TOKEN_OF_2 = "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_PAYMENT = "INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def token_values(of: Token) -> tuple[object, ...]:
    """A row up to version 3, without its number."""
    return (
        *(of.transaction_id, of.passcode, of.merchant_id, of.merchant_name, of.amount_minor, of.currency),
        *(of.expires_ms, of.state.value, of.payment_id, of.utr, of.wrong_passcode_count, of.locked_until_ms),
    )


def payment_values(of: Payment) -> tuple[object, ...]:
    return (
        *(of.payment_id, of.terms.transaction_id, encode_record(of.terms), of.envelope_hash, of.begun_ms),
        *(of.outcome, of.reason, of.utr, of.receipt, of.ended_ms),
    )


def test_a_database_of_version_1_is_taken_over(tmp_path: Path, disk: FailingDisk) -> None:
    path = tmp_path / "tokens.sqlite"
    tokens = [
        build_token(transaction_id="TX-in-flight", state=TokenState.IN_FLIGHT, payment_id=PAYMENT_IDS[0]),
        build_token(transaction_id="TX-paid", state=TokenState.PAID, payment_id=PAYMENT_IDS[1], utr=UTR),
        build_token(transaction_id="TX-unpaid", wrong_passcode_count=3),
        build_token(transaction_id="TX-cancelled", state=TokenState.CANCELLED),
        build_token(transaction_id="TX-expired", state=TokenState.EXPIRED, expires_ms=NOW_MS),
    ]
    terms = [
        build_terms(transaction_id=name, payment_id=of)
        for name, of in zip(("TX-in-flight", "TX-paid", "TX-unpaid"), PAYMENT_IDS, strict=True)
    ]
    payments = [
        Payment(terms[0], ENVELOPE_HASH, NOW_MS),
        Payment(terms[1], ENVELOPE_HASH, NOW_MS, TransferOutcome.POSTED, Reason.NONE, UTR, b"receipt", NOW_MS + 1),
        Payment(terms[2], ENVELOPE_HASH, NOW_MS, TransferOutcome.DECLINED, Reason.FUNDS, "", b"no", NOW_MS + 2),
    ]
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", token_schema.APPLICATION_ID)
    connection.execute(token_schema.SCHEMA[0])
    connection.pragma("user_version", 1)
    for t in tokens:
        connection.execute(INSERT_TOKEN_OF_2, (None, *token_values(t)))
    for p in payments:
        connection.execute(INSERT_PAYMENT, (None, *payment_values(p)))
    connection.close()
    path.chmod(0o600)

    store = SqliteTokens(path, vfs=VFS_NAME)
    assert everything(store) == (tokens, payments, payments[:1])
    (outcome,) = store.apply([settle(PAYMENT_IDS[0])], NOW)
    assert isinstance(outcome, PaymentSettled)
    assert outcome.is_changed
    store.apply([IssueToken(token("TX-1")), begin("TX-1", payment_id("fourth"))], NOW)
    after = everything(store)
    assert [p.payment_id for p in after[1]] == [*PAYMENT_IDS, payment_id("fourth")]
    assert [t.transaction_id for t in after[0]] == [*(t.transaction_id for t in tokens), "TX-1"]
    store = reopened(store, path)
    assert everything(store) == after
    store.close()


def test_a_database_of_version_2_is_taken_over(tmp_path: Path, disk: FailingDisk) -> None:
    path = tmp_path / "tokens.sqlite"
    flights = [build_terms(transaction_id=name, payment_id=of) for name, of in zip(NAMES, PAYMENT_IDS, strict=False)]
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", token_schema.APPLICATION_ID)
    for script in token_schema.SCHEMA[:2]:
        connection.execute(script)
    connection.pragma("user_version", 2)
    for number, name in enumerate(NAMES, 1):
        connection.execute(INSERT_TOKEN_OF_2, (number, *token_values(token(name))))
    for number, terms in zip((7, 9), flights, strict=True):
        values = (number, terms.payment_id, terms.transaction_id, encode_record(terms), ENVELOPE_HASH, NOW_MS)
        connection.execute("INSERT INTO in_flight VALUES (?, ?, ?, ?, ?, ?)", values)
    connection.close()
    path.chmod(0o600)

    store = SqliteTokens(path, vfs=VFS_NAME)
    payments = [Payment(terms, ENVELOPE_HASH, NOW_MS) for terms in flights]
    assert everything(store)[1:] == (payments, payments)
    store.apply([settle(PAYMENT_IDS[0])], NOW)
    store.apply([IssueToken(build_token(transaction_id="TX-9")), begin("TX-9", PAYMENT_IDS[2])], NOW)
    after = everything(store)
    assert [p.payment_id for p in after[1]] == list(PAYMENT_IDS)
    store = reopened(store, path)
    assert everything(store) == after
    store.close()


def test_a_database_of_version_3_is_taken_over(tmp_path: Path, disk: FailingDisk) -> None:
    path = tmp_path / "tokens.sqlite"
    first, second, _ = PAYMENT_IDS
    tokens = [
        build_token(transaction_id="TX-paid", state=TokenState.PAID, payment_id=first, utr=UTR, wrong_passcode_count=2),
        build_token(transaction_id="TX-paid-by-file", state=TokenState.PAID, utr=UTR[::-1]),
        build_token(transaction_id="TX-in-flight"),
        build_token(transaction_id="TX-cancelled", state=TokenState.CANCELLED),
        build_token(transaction_id="TX-free", wrong_passcode_count=3),
    ]
    names = ("TX-paid", "TX-in-flight", "TX-free")
    terms = [build_terms(transaction_id=name, payment_id=of) for name, of in zip(names, PAYMENT_IDS, strict=True)]
    payments = [
        Payment(terms[0], ENVELOPE_HASH, NOW_MS, TransferOutcome.POSTED, Reason.NONE, UTR, b"receipt", NOW_MS + 1),
        Payment(terms[1], ENVELOPE_HASH, NOW_MS),
        Payment(terms[2], ENVELOPE_HASH, NOW_MS, TransferOutcome.DECLINED, Reason.FUNDS, "", b"no", NOW_MS + 2),
    ]
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", token_schema.APPLICATION_ID)
    for script in token_schema.SCHEMA[:3]:
        connection.execute(script)
    connection.pragma("user_version", 3)
    for number, t in enumerate(tokens, 11):
        connection.execute(INSERT_TOKEN_OF_2, (number, *token_values(t)))
    for number in (1, 3):
        connection.execute(INSERT_PAYMENT, (number, *payment_values(payments[number - 1])))
    # The first place is one of a payment that has ended.
    for place, number in ((1, 1), (2, 2)):
        connection.execute(
            "INSERT INTO in_flight VALUES (?, ?, ?, ?, ?, ?, ?)",
            (place, number, *payment_values(payments[number - 1])[:5]),
        )
    connection.close()
    path.chmod(0o600)

    store = SqliteTokens(path, vfs=VFS_NAME)
    in_flight = replace(tokens[2], state=TokenState.IN_FLIGHT, payment_id=second)
    assert everything(store) == ([*tokens[:2], in_flight, *tokens[3:]], payments, payments[1:2])
    outcome, again = store.apply([settle(second), begin("TX-paid", payment_id("fourth"))], NOW)
    assert isinstance(outcome, PaymentSettled)
    assert outcome.is_changed
    assert isinstance(again, PaymentBegun)
    assert again.refusal is Reason.TOKEN_PAID
    before = everything(store)
    assert before[0][2] == replace(in_flight, state=TokenState.PAID, utr=UTR)
    store = reopened(store, path)
    assert everything(store) == before
    store.close()


def test_a_database_of_version_4_is_taken_over_and_chained(tmp_path: Path, disk: FailingDisk) -> None:
    path = tmp_path / "tokens.sqlite"
    _, second, third = PAYMENT_IDS
    tokens = [
        build_token(transaction_id="TX-paid", state=TokenState.PAID, payment_id=second, utr=UTR),
        build_token(transaction_id="TX-tried", wrong_passcode_count=5, locked_until_ms=NOW_MS + 9),
        build_token(transaction_id="TX-by-file", state=TokenState.PAID, utr=UTR[::-1]),
        build_token(transaction_id="TX-in-flight", state=TokenState.IN_FLIGHT, payment_id=third),
        build_token(transaction_id="TX-it's", merchant_name="Asha's Books"),
    ]
    names = ("TX-paid", "TX-paid", "TX-in-flight")
    terms = [build_terms(transaction_id=name, payment_id=of) for name, of in zip(names, PAYMENT_IDS, strict=True)]
    payments = [
        Payment(terms[0], ENVELOPE_HASH, NOW_MS, TransferOutcome.DECLINED, Reason.FUNDS, "", b"no", NOW_MS + 2),
        Payment(terms[1], ENVELOPE_HASH, NOW_MS, TransferOutcome.POSTED, Reason.NONE, UTR, b"receipt", NOW_MS + 1),
        Payment(terms[2], ENVELOPE_HASH, NOW_MS),
    ]
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", token_schema.APPLICATION_ID)
    for script in token_schema.SCHEMA[:4]:
        connection.execute(script)
    connection.pragma("user_version", 4)
    for number, t in enumerate(tokens, 1):
        state = ("unpaid", "") if t.payment_id else (t.state.value, t.utr)
        row = (*token_tables.token_row(number, t), *state, t.wrong_passcode_count, t.locked_until_ms)
        connection.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    for number in (1, 2):
        connection.execute(INSERT_PAYMENT, (number, *payment_values(payments[number - 1])))
    connection.execute("INSERT INTO paid VALUES (1, 2)")
    values = (encode_record(terms[2]), ENVELOPE_HASH, NOW_MS)
    connection.execute("INSERT INTO in_flight VALUES (1, 3, ?, ?, ?)", values)
    connection.close()
    path.chmod(0o600)

    store = SqliteTokens(path, vfs=VFS_NAME)
    assert everything(store) == (tokens, payments, payments[2:])
    store.apply([settle(third), CheckToken("TX-it's", "wrong")], NOW)
    before = everything(store)
    store = reopened(store, path)
    assert everything(store) == before
    for sql in (
        "UPDATE token SET passcode = '0'",
        "DELETE FROM token",
        "UPDATE payment SET utr = ''",
        "DELETE FROM payment",
    ):
        with pytest.raises(apsw.ConstraintError, match="never"):
            store._tables._connection.execute(sql)
    store.close()


def test_a_token_that_is_paid_says_by_which_payment_after_a_restart(store: SqliteTokens, tmp_path: Path) -> None:
    first, second, third = PAYMENT_IDS
    store.apply([begin("TX-1", first), settle(first, TransferOutcome.DECLINED), begin("TX-1", second)], NOW)
    store.apply([settle(second)], NOW)
    store.apply([IssueToken(token("TX-3")), begin("TX-3", third), settle(third)], NOW)
    store.apply([CheckToken("TX-1", "wrong"), CheckToken("TX-3", PASSCODE)], NOW)
    before = everything(store)
    assert [(t.state, t.payment_id, t.utr) for t in before[0]] == [
        (TokenState.PAID, second, UTR),
        (TokenState.UNPAID, None, ""),
        (TokenState.PAID, third, UTR),
    ]
    assert before[0][0].wrong_passcode_count == 1
    store = reopened(store, tmp_path / "tokens.sqlite")
    assert everything(store) == before
    store.close()


# -- places of payments in flight ------------------------------------------------------------------------


def places(store: SqliteTokens) -> list[tuple[int, bytes]]:
    rows = store._tables._connection.execute("SELECT place, terms FROM in_flight ORDER BY place")
    return [(place, decode_record(Terms, terms).payment_id) for place, terms in rows]


def test_a_place_is_used_again_once_its_payment_has_ended(store: SqliteTokens, tmp_path: Path) -> None:
    first, second, third = PAYMENT_IDS
    store.apply([begin("TX-1", first), begin("TX-2", second)], NOW)
    store.apply([settle(first)], NOW)
    # Its row is still there, and is no payment in flight: neither now nor after a crash.
    assert places(store) == [(1, first), (2, second)]
    assert [p.payment_id for p in store.payments_in_flight()] == [second]
    assert [p.payment_id for p in store.payments()] == [first, second]
    store.apply([IssueToken(build_token(transaction_id="TX-3")), begin("TX-3", third)], NOW)
    assert places(store) == [(1, third), (2, second)]
    store.apply([settle(second)], NOW)
    before = everything(store)
    store = reopened(store, tmp_path / "tokens.sqlite")
    assert everything(store) == before
    assert places(store) == [(1, third)]
    store.close()


def test_a_place_that_a_full_disk_did_not_take_is_still_free(store: SqliteTokens, disk: FailingDisk) -> None:
    first, second, third = PAYMENT_IDS
    store.apply([begin("TX-1", first)], NOW)
    disk.is_full = True
    for operation in (settle(first), begin("TX-2", second)):
        with pytest.raises(StoreFull):
            store.apply([operation], NOW)
    disk.is_full = False
    store.apply([begin("TX-2", second)], NOW)
    assert places(store) == [(1, first), (2, second)]
    store.apply([settle(first)], NOW)
    store.apply([IssueToken(build_token(transaction_id="TX-3"))], NOW)
    disk.is_full = True
    with pytest.raises(StoreFull):
        store.apply([begin("TX-3", third)], NOW)
    disk.is_full = False
    store.apply([begin("TX-3", third)], NOW)
    assert places(store) == [(1, third), (2, second)]
