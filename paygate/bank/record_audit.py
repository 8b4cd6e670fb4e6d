"""The bank's text records against its ledger (R16 to R18)."""

from collections.abc import Iterator
from pathlib import Path

import apsw

from paygate.audit.findings import Check
from paygate.audit.text_files import TextFile
from paygate.bank.ledger_check import LedgerCheck, read_head
from paygate.bank.ledger_tables import (
    CUSTOMER_QUERY,
    MERCHANT_QUERY,
    POSTING_QUERY,
    customer_of,
    merchant_of,
    posting_of_row,
)
from paygate.bank.record_lines import (
    MERCHANTS_LAYOUT,
    TRANSACTIONS_LAYOUT,
    USERS_LAYOUT,
    customer_row,
    merchant_row,
    transaction_row,
)
from paygate.files.sqlite import read_rows


def record_checks(directory: Path, connection: apsw.Connection, currency: str) -> Iterator[Check]:
    """Each of the three files; the ledger must be whole."""
    check = LedgerCheck(connection, read_head(connection))
    for _ in check.damages():
        raise AssertionError("only asked of a ledger that is whole")
    balances = check.unwritten_balances()
    customers = read_rows(connection, f"{CUSTOMER_QUERY} ORDER BY account_id")
    merchants = read_rows(connection, f"{MERCHANT_QUERY} ORDER BY account_id")
    postings = read_rows(connection, POSTING_QUERY)
    yield TextFile(
        directory,
        USERS_LAYOUT,
        USERS_LAYOUT.columns[0].name,
        (customer_row(customer_of(row, balances), currency) for row in customers),
        is_shared=True,
    ).check()
    yield TextFile(
        directory,
        MERCHANTS_LAYOUT,
        MERCHANTS_LAYOUT.columns[0].name,
        (merchant_row(merchant_of(row, balances), currency) for row in merchants),
        is_shared=True,
    ).check()
    yield TextFile(
        directory,
        TRANSACTIONS_LAYOUT,
        TRANSACTIONS_LAYOUT.columns[0].name,
        (transaction_row(posting_of_row(row)) for row in postings),
        unknown_remedy="was an older copy of the ledger restored? --against a gateway's export finds the payment",
    ).check()
