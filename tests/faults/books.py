"""What must hold between a bank, a gateway and a client at rest, whatever went wrong before and is healed now."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from paygate.bank.keys import load_identity
from paygate.bank.ledger import Posting
from paygate.bank.record_lines import (
    MERCHANTS_LAYOUT,
    TRANSACTIONS_LAYOUT,
    USERS_LAYOUT,
    customer_row,
    merchant_row,
    transaction_row,
)
from paygate.bank.server import open_ledger
from paygate.client.payment import PaymentState
from paygate.client.pending import PendingStore
from paygate.codec.codes import TransferOutcome
from paygate.files.text_records import Layout
from paygate.gateway.record_lines import (
    CONNECTIONS_LAYOUT,
    PAYMENTS_LAYOUT,
    REFUSED,
    TOKENS_LAYOUT,
    payment_row,
    token_row,
)
from paygate.gateway.settings import STORE_NAME
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import TokenState

T = TypeVar("T")


class Broken(Exception):
    """A promise does not hold; the text says which, of what."""


def check_bank(directory: Path, opening_minor: int) -> list[Posting]:
    """The ledger's own checks, its money, and its files; gives what was posted. Raises Broken, StoreError.

    `opening_minor`: what all accounts had when they were opened, together.
    """
    with contextlib.closing(open_ledger(directory)) as ledger:  # it checks every hash and every balance
        currency = load_identity(directory).currency
        customers, merchants, postings = list(ledger.customers()), list(ledger.merchants()), list(ledger.postings())
    balances = [customer.balance_minor for customer in customers]
    balances += [merchant.balance_minor for merchant in merchants]
    _require(sum(balances) == opening_minor, f"I1: {sum(balances)} in all accounts, and {opening_minor} was put in")
    _require(min(balances) >= 0, f"I1: a balance is negative: {balances}")
    _unique([posting.utr for posting in postings], "I5: UTR")
    _unique([posting.transaction_id for posting in postings], "I2: debit for token")
    rows = [customer_row(customer, currency) for customer in customers]
    _same_rows(directory, USERS_LAYOUT, rows)
    _same_rows(directory, MERCHANTS_LAYOUT, [merchant_row(merchant, currency) for merchant in merchants])
    _same_rows(directory, TRANSACTIONS_LAYOUT, [transaction_row(posting) for posting in postings])
    return postings


def check_gateway(directory: Path, postings: Sequence[Posting]) -> None:
    """I4, and the gateway's files. Raises Broken, StoreError."""
    with contextlib.closing(SqliteTokens(directory / STORE_NAME)) as store:
        tokens, payments = list(store.tokens()), list(store.payments())
    posted = {posting.transaction_id: posting.utr for posting in postings}
    for token in tokens:
        told = f"token {token.transaction_id} is {token.state.value}"
        _require(token.state is not TokenState.IN_FLIGHT, f"I9: {told} after all is healed")
        utr = posted.pop(token.transaction_id, "")
        _require((token.state is TokenState.PAID) is bool(utr), f"I4: {told}, and its debit is {utr or 'none'}")
        _require(token.utr == utr, f"I4: {told} with UTR {token.utr}, and its debit is {utr}")
    _require(not posted, f"I4: debits of tokens that the gateway does not know: {posted}")
    for payment in payments:
        _require(payment.outcome is not None, f"I9: payment {payment.payment_id.hex()} is in flight")
    _same_rows(directory, TOKENS_LAYOUT, [token_row(token) for token in tokens])
    of_file = [row for row in _rows(directory, PAYMENTS_LAYOUT) if row[6] != REFUSED]
    _same(of_file, [payment_row(payment) for payment in payments], PAYMENTS_LAYOUT.file_name)
    events = Counter(row[1] for row in _rows(directory, CONNECTIONS_LAYOUT))
    is_balanced = events["connected"] == events["disconnected"]
    _require(is_balanced, f"I8: {events['connected']} connects and {events['disconnected']} disconnects in the log")


def check_client(directory: Path, bank: Path, *, is_healed: bool = True) -> None:
    """I3, I6: what the client's records say is what the ledger says. Raises Broken, StateError, StoreError."""
    if not (directory / "payments").exists():
        return
    payments = PendingStore(directory).load_all()
    with contextlib.closing(open_ledger(bank)) as ledger:
        for payment in payments:
            known = ledger.payment(payment.terms.gateway_id, payment.payment_id)
            is_posted = known is not None and known.outcome is TransferOutcome.POSTED
            told = f"the client has payment {payment.payment_id.hex()} as {payment.state.value}"
            _require(payment.state is not PaymentState.PENDING or not is_healed, f"I9: {told} after all is healed")
            if payment.state is PaymentState.PAID:
                _require(is_posted and known is not None and known.utr == payment.utr, f"I6: {told}, the bank {known}")
            elif payment.state is not PaymentState.PENDING:
                _require(not is_posted, f"I3: {told}, and the bank posted it")


def _rows(directory: Path, layout: Layout) -> list[tuple[str, ...]]:
    lines = (directory / layout.file_name).read_bytes().splitlines()
    return [layout.parse(line) for line in lines if line.strip() and not line.startswith(b"#")]


def _same_rows(directory: Path, layout: Layout, expected: Sequence[tuple[str, ...]]) -> None:
    _same(_rows(directory, layout), expected, layout.file_name)


def _same(found: Sequence[tuple[str, ...]], expected: Sequence[tuple[str, ...]], name: str) -> None:
    if Counter(found) != Counter(expected):
        more, less = Counter(found) - Counter(expected), Counter(expected) - Counter(found)
        raise Broken(f"{name} is not as the store: it has {list(more)} too much, and lacks {list(less)}")


def _unique(values: Sequence[str], what: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    _require(not twice, f"{what} twice: {twice}")


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise Broken(text)
