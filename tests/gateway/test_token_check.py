"""A gateway's database of which a row was changed, put in or taken out is not served (T32)."""

from pathlib import Path

import apsw
import pytest
from audit.pair import Pair
from audit.tampering import without_triggers

from paygate.files.sqlite import StoreCorrupt
from paygate.gateway import token_check
from paygate.gateway.sqlite_tokens import SqliteTokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with tokens 1 to 6: 1, 4 and 5 paid, 2 declined, 3 in flight, 6 tried in vain.

    Payment 4 ended before 2 did, so that places in the chain are not payments' numbers.
    """
    pair = Pair(tmp_path)
    pair.pay(1)
    late = pair.begin(2)
    pair.begin(3)
    pair.pay(4)
    pair.settle(late, pair.decide(late, opened=None, verifier=bytes(32)))
    pair.pay(5)
    pair.issue(6)
    pair.try_passcode(6, "wrong")
    pair.close()
    return pair.path


def tamper(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    with without_triggers(connection):
        connection.execute(sql)
    connection.close()


def refusal(path: Path) -> str:
    with pytest.raises(StoreCorrupt) as refused:
        SqliteTokens(path)
    text = str(refused.value)
    assert text.startswith(f"{path} is damaged: ")
    assert text.endswith("; restore it from a backup")
    return text.removeprefix(f"{path} is damaged: ").removesuffix("; restore it from a backup")


CHANGED = "is not what was written"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE token SET passcode = '0000' WHERE token_number = 2", f"token 2 {CHANGED}"),
        ("UPDATE token SET amount_minor = 1 WHERE token_number = 6", f"token 6 {CHANGED}"),
        ("UPDATE token SET expires_ms = 0 WHERE token_number = 6", f"token 6 {CHANGED}"),
        ("DELETE FROM token WHERE token_number = 6", "token rows are missing at the end"),
        ("INSERT INTO token SELECT 7, 'TX-7', '', '', '', 1, '', NULL, chain FROM token LIMIT 1", f"token 7 {CHANGED}"),
        ("UPDATE token_state SET wrong_passcode_count = 0", f"token_state 6 {CHANGED}"),
        ("UPDATE token_state SET locked_until_ms = 9", f"token_state 6 {CHANGED}"),
        ("UPDATE token_state SET token_number = 2", f"token_state 2 {CHANGED}"),
        ("UPDATE payment SET outcome = 1 WHERE payment_number = 2", f"payment 2 {CHANGED}"),
        ("UPDATE payment SET utr = 'DEMOP12026010200000009' WHERE payment_number = 4", f"payment 4 {CHANGED}"),
        ("UPDATE payment SET receipt = x'00' WHERE payment_number = 1", f"payment 1 {CHANGED}"),
        ("UPDATE payment SET chain_number = 2 WHERE payment_number = 5", f"payment 5 {CHANGED}"),
        (
            "UPDATE payment SET chain_number = 9 WHERE payment_number = 5",
            "payment with place 4 to 8 in the chain is missing, before 5",
        ),
        ("DELETE FROM payment WHERE payment_number = 4", "payment with place 2 in the chain is missing, before 2"),
        ("UPDATE in_flight SET terms = x'00' WHERE payment_number = 3", f"in_flight 2 {CHANGED}"),
        ("UPDATE in_flight SET payment_number = 30 WHERE payment_number = 3", f"in_flight 2 {CHANGED}"),
        ("UPDATE in_flight SET ended_count = 4 WHERE payment_number = 3", f"in_flight 2 {CHANGED}"),
        ("UPDATE paid SET payment_number = 4 WHERE token_number = 1", "paid 1 names payment 4"),
        ("UPDATE paid SET token_number = 2 WHERE token_number = 1", "paid 2 names payment 1"),
        ("DELETE FROM paid WHERE token_number = 1", "paid has no row of payment 1"),
        ("UPDATE gateway SET token_count = 5", f"gateway 1 {CHANGED}"),
        ("DELETE FROM gateway", "gateway has not one row"),
        ("CREATE TABLE t(x)", f"sqlite_schema {CHANGED}"),
        ("ALTER TABLE paid RENAME TO unpaid", "database can't be read (no such table: paid)"),
    ],
)
def test_a_changed_row_is_named_at_start(path: Path, sql: str, said: str) -> None:
    tamper(path, sql)
    if said.startswith("database"):
        assert refusal(path) in (said, f"sqlite_schema {CHANGED}")
    else:
        assert refusal(path) == said


def test_payments_that_are_lost_at_the_end_are_noticed_by_what_began_since(path: Path) -> None:
    tamper(path, "DELETE FROM payment WHERE payment_number = 5; DELETE FROM paid WHERE token_number = 5")
    # The last one hangs on nothing yet but the head of the last tokens, so it is in flight again, and will be resolved.
    assert refusal(path) == "payment rows are missing at the end"


def test_a_place_in_the_chain_that_never_comes_ends_the_look(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_check, "WAITING_COUNT_MAX", 1)
    tamper(path, "DELETE FROM payment WHERE payment_number = 1")
    assert refusal(path) == "payment with place 1 in the chain is missing, before 4"
