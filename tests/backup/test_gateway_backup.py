"""A gateway's backup and what is restored of it, with the store itself: tokens that were paid since."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bank_books import payment_id
from builders import BANK_ID, GATEWAY_ID, LINK_KEY, MERCHANT_ID, NOW_MS, build_key_list, build_statement, build_terms
from builders import build_receipt as receipt_of

from paygate.audit.exports import ExportedPayment
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.sealed import Terms
from paygate.files.database_copy import BackupFailed
from paygate.files.state_dir import StateDir, StateError
from paygate.gateway.backup import back_up, restore
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.reconcile import Reconciler
from paygate.gateway.settings import write_identity
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.token_schema import MADE_AS, SCHEMA
from paygate.gateway.tokens import (
    BeginPayment,
    CancelToken,
    FindPayment,
    IssueToken,
    PaymentFound,
    SettlePayment,
    Token,
    TokenState,
)

NOW = Now(1_000_000, NOW_MS)
HASH = build_statement().envelope_hash


def token(number: int, **changes: object) -> Token:
    return replace(Token(f"TX-{number}", "4711", MERCHANT_ID, "Books", 125_000, "INR", None), **changes)  # type: ignore[arg-type]


def terms(number: int) -> Terms:
    return build_terms(payment_id=payment_id(number), transaction_id=f"TX-{number}")


def told(number: int, **changes: object) -> ExportedPayment:
    """A payment of the bank's export: posted, unless `changes` to the statement say otherwise."""
    utr = f"PGBKP120260102{number:08d}"
    statement = build_statement(**{"terms": terms(number), "utr": utr, **changes})
    stated = statement.terms
    return ExportedPayment(
        stated.payment_id,
        stated.transaction_id,
        stated.merchant_id,
        stated.amount_minor,
        stated.currency,
        statement.outcome.name,
        statement.utr,
        statement.envelope_hash,
        receipt_of(statement),
    )


DECLINED = {"outcome": TransferOutcome.DECLINED, "reason": Reason.FUNDS, "utr": ""}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    state = StateDir(tmp_path / "gateway")
    state.create()
    write_identity(state, GatewayIdentity(GATEWAY_ID, BANK_ID, LINK_KEY))
    return state.path


@pytest.fixture
def store(directory: Path) -> Iterator[SqliteTokens]:
    store = SqliteTokens(directory / "tokens.sqlite")
    store.apply([IssueToken(token(number)) for number in range(1, 8)], NOW)
    yield store
    store.close()


def states(store: SqliteTokens) -> list[tuple[str, str]]:
    return [(t.state.value, t.utr[-2:]) for t in store.tokens()]


def reconcile(store: SqliteTokens, payments: list[ExportedPayment]) -> tuple[Reconciler, list[str]]:
    work = Reconciler(store, build_key_list(), GATEWAY_ID)
    return work, list(work.lines(payments, NOW))


def test_a_backup_is_whole_private_and_restored_as_it_was(directory: Path, store: SqliteTokens, tmp_path: Path) -> None:
    store.apply([BeginPayment(terms(1), HASH)], NOW)
    before = list(store.tokens()), list(store.payments())
    store.close()
    back_up(directory, tmp_path / "plain", NOW, with_keys=False)
    back_up(directory, tmp_path / "keys", NOW, with_keys=True)
    assert sorted(p.name for p in (tmp_path / "plain").iterdir()) == ["gateway.json", "manifest.json", "tokens.sqlite"]
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "keys").iterdir()} == {0o600}
    with pytest.raises(StateError, match="give --link-key FILE"):
        restore(tmp_path / "plain", tmp_path / "one")
    with pytest.raises(StateError, match=r"could not read .*nowhere: No such file or directory$"):
        restore(tmp_path / "keys", tmp_path / "one", tokens=tmp_path / "nowhere")
    (tmp_path / "wrong.txt").write_text("C-1 | asha | secret | 1.00\n", encoding="ascii")
    with pytest.raises(StateError, match=r"wrong\.txt is no PaymentTokensData\.txt: line 1 is not a payment token's;"):
        restore(tmp_path / "keys", tmp_path / "one", tokens=tmp_path / "wrong.txt")
    restore(tmp_path / "plain", tmp_path / "one", link_key=directory / "link.key")
    restore(tmp_path / "keys", tmp_path / "two")
    for made in ("one", "two"):
        again = SqliteTokens(tmp_path / made / "tokens.sqlite")
        assert (list(again.tokens()), list(again.payments())) == before
        assert (tmp_path / made / "link.key").read_bytes() == (directory / "link.key").read_bytes()
        again.close()
    with pytest.raises(StateError, match="is not empty"):
        restore(tmp_path / "keys", tmp_path / "two")
    with pytest.raises(BackupFailed, match="exists"):
        back_up(directory, tmp_path / "keys", NOW, with_keys=True)


def test_a_backup_of_before_an_update_is_restored_by_it(
    directory: Path, store: SqliteTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(store.tokens())
    store.close()
    back_up(directory, tmp_path / "keys", NOW, with_keys=True)
    monkeypatch.setattr("paygate.gateway.token_tables.SCHEMA", (*SCHEMA, "SELECT 1"))
    monkeypatch.setattr("paygate.gateway.backup.MADE_AS", {**MADE_AS, "version": len(SCHEMA) + 1})
    restore(tmp_path / "keys", tmp_path / "again")
    again = SqliteTokens(tmp_path / "again" / "tokens.sqlite")
    assert list(again.tokens()) == before
    again.close()
    back_up(tmp_path / "again", tmp_path / "of newer", NOW, with_keys=False)


@pytest.mark.pg("PG-TOK-6", "PG-STA-3")
def test_what_the_bank_posted_and_declined_since_is_entered_whatever_state_the_token_is_in(store: SqliteTokens) -> None:
    store.apply([CancelToken(token(2)), BeginPayment(terms(3), HASH)], NOW)
    other = replace(terms(4), payment_id=payment_id(400))
    store.apply([BeginPayment(other, HASH)], NOW)
    payments = [told(1), told(2), told(3), told(4), told(5, **DECLINED), told(6, **DECLINED)]
    work, lines = reconcile(store, payments)
    assert (work.known_count, work.entered_count, work.left_count) == (0, 6, 0), lines
    assert states(store) == [*(("paid", f"0{n}") for n in range(1, 5)), *[("unpaid", "")] * 3]
    # Who asks for one of them hears it, receipt and all.
    (found,) = store.apply([FindPayment(payment_id(5), "TX-5", "4711")], NOW)
    assert isinstance(found, PaymentFound)
    assert found.payment is not None
    assert found.payment.receipt == payments[4].receipt
    # What was in flight under another payment ID is still resolved, and changes nothing.
    assert [p.payment_id for p in store.payments_in_flight()] == [payment_id(400)]
    declined = told(4, terms=other, outcome=TransferOutcome.DECLINED, reason=Reason.TOKEN_ALREADY_PAID, utr="")
    settle = SettlePayment(payment_id(400), TransferOutcome.DECLINED, Reason.TOKEN_ALREADY_PAID, "", declined.receipt)
    store.apply([settle], NOW)
    assert states(store)[3] == ("paid", "04")
    again, lines = reconcile(store, payments)
    assert (again.known_count, again.entered_count, lines) == (6, 0, [])


def test_a_token_that_a_merchants_file_brought_as_paid_gets_its_payment(directory: Path, store: SqliteTokens) -> None:
    utr = "PGBKP12026010200000050"
    store.apply([IssueToken(token(50, state=TokenState.PAID, utr=utr))], NOW)
    work, lines = reconcile(store, [told(50)])
    assert (work.entered_count, work.left_count) == (1, 0), lines
    store.close()
    again = SqliteTokens(directory / "tokens.sqlite")
    assert states(again)[-1] == ("paid", "50")
    (found,) = again.apply([FindPayment(payment_id(50), "TX-50", "4711")], NOW)
    assert isinstance(found, PaymentFound)
    assert found.payment is not None
    again.close()


def test_it_is_still_so_after_a_restart(directory: Path, store: SqliteTokens) -> None:
    reconcile(store, [told(1), told(2, **DECLINED)])
    expected = list(store.tokens()), list(store.payments())
    store.close()
    again = SqliteTokens(directory / "tokens.sqlite")  # which checks every row
    assert (list(again.tokens()), list(again.payments())) == expected
    assert again.payments_in_flight() == []
    again.close()


def test_what_can_not_be_entered_is_named_for_people(store: SqliteTokens) -> None:
    reconcile(store, [told(1), told(2, **DECLINED)])
    stranger = replace(terms(3), gateway_id="GW2")
    another = replace(terms(1), payment_id=payment_id(100))
    work, lines = reconcile(
        store,
        [
            told(99),
            replace(told(3), receipt=told(4).receipt),
            told(3, terms=stranger),
            replace(told(4), receipt=b"\0" * 40),
            told(2, utr="PGBKP12026010200000002"),
            told(1, terms=another, utr="PGBKP12026010200000077"),
        ],
    )
    assert (work.entered_count, work.left_count) == (0, 6)
    for line, why in zip(
        lines,
        (
            # What proves nothing comes first, since it is never put to the store.
            "its receipt is another payment's",
            "its receipt is another payment's",
            "its receipt proves nothing",
            "the token was issued after the backup: add its line to PaymentTokensData.txt",
            "the store has it with another outcome or other terms",
            "its token is paid here, by UTR PGBKP12026010200000001",
        ),
        strict=True,
    ):
        assert why in line
    assert [p.payment_id for p in store.payments() if p.terms.transaction_id == "TX-1"] == [payment_id(1)]
    assert store.apply([FindPayment(payment_id(3), "TX-3", "4711")], NOW) == [PaymentFound(None)]
    assert [t.state for t in store.tokens()][2:] == [TokenState.UNPAID] * 5
