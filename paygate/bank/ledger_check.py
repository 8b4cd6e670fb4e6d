"""Whether every row of a ledger is what was written, and the books balance (T32): at each start, and in an audit."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import apsw

from paygate.audit.findings import Damage, damages_of, readable
from paygate.audit.pages import quick_damages
from paygate.audit.row_hash import CHAIN_START, formatted_expression, row_hash, text_expression
from paygate.bank.ledger_chain import (
    ATTEMPT_FIELDS,
    CUSTOMER_FIELDS,
    EQUITY_ID,
    HEAD_FIELDS,
    IDENTITY_FIELDS,
    MERCHANT_FIELDS,
    NO_ATTEMPTS,
    PAYMENT_FIELDS,
    Head,
    made_hash,
    next_payment_chain,
    next_posting_chain,
)
from paygate.codec.codes import TransferOutcome

_PAYMENTS: Final = f"SELECT {PAYMENT_FIELDS} FROM payment ORDER BY payment_number"  # noqa: S608  # a constant
_ATTEMPTS_TEXT: Final = text_expression(ATTEMPT_FIELDS)
_CUSTOMER_MARKS: Final = dict.fromkeys(CUSTOMER_FIELDS, "%Q") | {"account_id": "%d", "verifier": "%s"}
_MERCHANT_MARKS: Final = dict.fromkeys(MERCHANT_FIELDS, "%Q") | {"account_id": "%d"}
_ACCOUNTS: Final = (
    f"SELECT account_id, 'customer', {formatted_expression(_CUSTOMER_MARKS)}, chain, "  # noqa: S608  # constants
    "CASE WHEN quote(failure_count) || ',' || quote(locked_until_ms) || quote(attempts_hash) = '0,0X''''' "
    f"THEN NULL ELSE {_ATTEMPTS_TEXT} END, attempts_hash FROM customer "
    f"UNION ALL SELECT account_id, 'merchant', {formatted_expression(_MERCHANT_MARKS)}, chain, NULL, NULL "
    "FROM merchant ORDER BY account_id"
)
_HEAD: Final = f"SELECT {text_expression(Head._fields)}, row_hash FROM bank"  # noqa: S608  # a constant
_IDENTITY: Final = f"SELECT {text_expression(IDENTITY_FIELDS)} FROM bank"  # noqa: S608  # a constant
_CHANGED: Final = "is not what was written"


def is_new(connection: apsw.Connection) -> bool:
    """Whether nothing was written yet; of a database whose tables are damaged, `head_damages` tells."""
    try:
        return bool(connection.execute("SELECT count(*) = 0 FROM bank").get)
    except apsw.SQLError:
        return False


def head_damages(connection: apsw.Connection) -> Iterator[Damage]:
    """What is wrong with the counters, which all else is compared with, and with the tables that hold it."""
    return damages_of(lambda: _head_damages(connection))


def _head_damages(connection: apsw.Connection) -> Iterator[Damage]:
    rows: list[Any] = connection.execute(_HEAD).fetchall()
    if len(rows) != 1:
        yield Damage("bank", "", "has not one row", "one row")
    elif row_hash(CHAIN_START, rows[0][0]) != rows[0][1]:
        yield Damage("bank", "1", _CHANGED, "counters with their hash")
    else:
        identity: Any = connection.execute(_IDENTITY).get
        if made_hash(connection, identity) != read_head(connection).made_hash:
            yield Damage("bank or sqlite_schema", "", _CHANGED, "the bank's identity, and the tables that we made")


def read_head(connection: apsw.Connection) -> Head:
    """The counters, of which `head_damage` said that they are whole."""
    row: Any = connection.execute(f"SELECT {HEAD_FIELDS} FROM bank").fetchone()  # noqa: S608  # a constant
    return Head(*row)


class LedgerCheck:
    """One look at a whole ledger, table after table: what is found in one is compared with those before it."""

    def __init__(self, connection: apsw.Connection, head: Head) -> None:
        self.posted_count = 0
        self.payment_count = 0
        self.posting_count = 0
        self.account_count = 0
        self._connection = connection
        self._head = head
        self._balances: Counter[int] = Counter()
        """By account ID, the sums of all postings."""
        self._written: dict[int, int] = {}
        """By account ID, the sums that the table `account` must say."""

    def damages(self) -> Iterator[Damage]:
        """All that is wrong."""
        return damages_of(self.pages, self.payments, self.postings, self.accounts, self.balances)

    def unwritten_balances(self) -> dict[int, int]:
        """The balances that are not what the table `account` says, since later postings changed them."""
        written = self._written
        return {account: minor for account, minor in self._balances.items() if written.get(account, 0) != minor}

    def pages(self) -> Iterator[Damage]:
        """All pages, and the indexes of payments: a payment or paid token that they did not find would debit again."""
        return quick_damages(self._connection, "payment")

    def payments(self) -> Iterator[Damage]:
        """The chain of payments."""
        chain, number = CHAIN_START, 0
        for *values, row_chain in readable("payment", self._connection.execute(_PAYMENTS)):
            number = values[0]
            if next_payment_chain(chain, values) != row_chain:
                yield Damage("payment", str(number), _CHANGED)
            chain = row_chain  # so that each damaged row is named, and none behind it
            self.payment_count += 1
            self.posted_count += values[6] == TransferOutcome.POSTED
        head = self._head
        if (number, chain) != (head.payment_count, head.payment_chain):
            yield Damage("payment", "", "rows are missing at the end", f"{head.payment_count} payments")
        if head.utr_sequence < self.posted_count:
            expected = f"a UTR sequence of {self.posted_count} at least"
            yield Damage("bank", "1", "is wrong: UTRs would be given out again", expected)

    def postings(self) -> Iterator[Damage]:
        """The chain of postings, and double entry; after `payments`."""
        chain, number = CHAIN_START, 0
        transferred_count, sum_minor = 0, 0
        balances = self._balances
        query = "SELECT * FROM posting ORDER BY posting_number"
        for *values, row_chain in readable("posting", self._connection.execute(query)):
            number, payment_number, account_id, amount_minor = values
            if next_posting_chain(chain, values) != row_chain:
                yield Damage("posting", str(number), _CHANGED)
                if not isinstance(amount_minor, int):
                    return
            chain = row_chain
            self.posting_count += 1
            balances[account_id] += amount_minor
            transferred_count += payment_number is not None
            sum_minor += amount_minor
            if number == self._head.balanced_count:
                self._written = dict(balances)
            if number % 2 == 0 and sum_minor:  # The halves of a transfer stand side by side.
                yield Damage("posting", str(number), "and the one before it do not balance", "a sum of 0")
                sum_minor = 0
        head = self._head
        if (number, chain) != (head.posting_count, head.posting_chain) or number % 2:
            yield Damage("posting", "", "rows are missing at the end", f"{head.posting_count} postings")
        if transferred_count != 2 * self.posted_count:
            expected = f"{2 * self.posted_count} for {self.posted_count} payments that moved money"
            yield Damage("posting", "", "rows do not agree with the payments", expected)

    def accounts(self) -> Iterator[Damage]:
        """The chain of customers and merchants, and the hashes of password attempts."""
        chain = CHAIN_START
        count = 1  # The first is the bank's own.
        for account_id, table, text, row_chain, attempts_text, attempts_hash in self._accounts():
            if row_hash(chain, text) != row_chain:
                yield Damage(table, str(account_id), _CHANGED)
            if attempts_text is not None and (
                attempts_hash == NO_ATTEMPTS or row_hash(CHAIN_START, attempts_text) != attempts_hash
            ):
                yield Damage(table, str(account_id), "has password attempts that are not what was written")
            chain = row_chain
            count += 1
        self.account_count = count
        head = self._head
        if (count, chain) != (head.account_count, head.account_chain):
            expected = f"{head.account_count - 1} customers and merchants"
            yield Damage("account", "", "rows are missing: customers or merchants", expected)

    def balances(self) -> Iterator[Damage]:
        """The balances that are written against their postings; after `postings`."""
        count, written = 0, self._written
        query = "SELECT * FROM account"
        for account_id, balance_minor in readable("account", self._connection.execute(query)):
            count += 1
            expected_minor = written.get(account_id, 0 if account_id == EQUITY_ID else None)
            if expected_minor is None:
                yield Damage("account", str(account_id), "has no postings", "an opening posting")
            elif expected_minor != balance_minor or balance_minor.__class__ is not int:
                problem = "has a balance that is not the sum of its postings"
                yield Damage("account", str(account_id), problem, f"{expected_minor} minor units")
            if account_id != EQUITY_ID and self._balances[account_id] < 0:
                yield Damage("account", str(account_id), "was overdrawn", "0 or more")
        if count != self._head.account_count:
            yield Damage("account", "", "rows are missing", f"{self._head.account_count} accounts")

    def _accounts(self) -> Iterator[Any]:
        return readable("account", self._connection.execute(_ACCOUNTS))
