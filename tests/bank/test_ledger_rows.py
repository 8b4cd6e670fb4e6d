"""Balances are written later than the postings that they are the sums of; whoever asks never sees that."""

from typing import Any

import pytest
from bank_books import ASHA_MINOR, RAVI_MINOR, VERIFIER, Books

from paygate.bank import ledger_rows
from paygate.bank.ledger import AccountOutcome, OpenCustomer
from paygate.codec.codes import Reason, TransferOutcome
from paygate.files.sqlite import StoreCorrupt


def written(books: Books) -> dict[int, int]:
    """What the table of accounts says."""
    rows: list[Any] = books.ledger._connection.execute("SELECT account_id, balance_minor FROM account").fetchall()
    return dict(rows)


def test_balances_are_in_the_table_once_they_are_many(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_rows, "BALANCE_COUNT_MAX", 3)
    before = written(books)
    books.pay(1, amount_minor=7)
    books.pay(2, amount_minor=1)
    books.pay(3, user_id="ravi", amount_minor=2)
    assert written(books) == before
    assert books.balance("C-1") == ASHA_MINOR - 8
    books.pay(4, amount_minor=5)
    assert written(books) == {**before, 2: ASHA_MINOR - 13, 3: RAVI_MINOR - 2, 4: 15}
    books.pay(5, amount_minor=1)
    assert written(books)[2] == ASHA_MINOR - 13


def test_a_killed_banks_balances_are_the_sums_of_its_postings(books: Books) -> None:
    before = written(books)
    books.pay(1, amount_minor=7)
    books.reopen()
    assert written(books) == before
    assert (books.balance("C-1"), books.balance("C-2")) == (ASHA_MINOR - 7, RAVI_MINOR)
    assert [c.balance_minor for c in books.ledger.customers()] == [ASHA_MINOR - 7, RAVI_MINOR]
    assert [m.balance_minor for m in books.ledger.merchants()] == [7, 150_000]
    assert books.pay(2, amount_minor=ASHA_MINOR - 6).reason is Reason.FUNDS
    assert books.pay(3, amount_minor=ASHA_MINOR - 7).outcome is TransferOutcome.POSTED
    books.reopen()
    assert books.balance("C-1") == 0
    assert books.apply(OpenCustomer("C-3", "mira", VERIFIER, 5)) == [AccountOutcome.OPENED]
    assert written(books)[2] == 0
    books.reopen()
    assert (books.balance("C-1"), books.balance("C-3")) == (0, 5)


@pytest.mark.parametrize("damage", ["balance_minor + 1 WHERE account_id = 2", "balance_minor + 1 WHERE account_id = 3"])
def test_a_changed_balance_is_noticed_whether_or_not_a_later_one_is_to_be_written(books: Books, damage: str) -> None:
    books.pay(1)
    books.ledger._connection.execute(f"UPDATE account SET balance_minor = {damage}")
    with pytest.raises(StoreCorrupt, match="is not the sum of its postings"):
        books.reopen()
