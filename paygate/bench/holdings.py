"""What a system is made to hold before it is measured: payments made on days gone by, and connections logged then.

As the stores and the log would have come to it: through their own `apply` and `append`, with the times of those days.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

from paygate.bank.keys import load_identity, load_pepper, load_receipt_key
from paygate.bank.ledger import Opened, PaymentOutcome, Transfer
from paygate.bank.server import LEDGER_NAME
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.bench.orders import Customer, Order
from paygate.bench.system import BANK_ID, CURRENCY, GATEWAY_ID, BenchSystem, order_of
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.clock import Now, system_now
from paygate.codec import limits
from paygate.codec.codes import TransferOutcome
from paygate.codec.seal import verifier_of
from paygate.codec.sealed import Terms
from paygate.files.append_file import AppendFile
from paygate.gateway.effects import ConnectionRecord
from paygate.gateway.record_lines import CONNECTIONS_LAYOUT, connection_row
from paygate.gateway.settings import STORE_NAME
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import BeginPayment, SettlePayment

DAY_ROW_COUNT: Final = 1_000
"""Payments, or lines of the log, of one day; a batch."""
_DAY_MS: Final = 86_400_000
_LOGGED_MS: Final = 40
"""From a connection's line to the next."""


def days_of(row_count: int) -> int:
    """Over how many days so many rows are spread."""
    return ceil(row_count / DAY_ROW_COUNT)


def days_ago(day_count: int) -> Now:
    """The time so many days before now, on both clocks: the bank measures locks by one, and dates by the other."""
    now = system_now()
    return Now(now.mono_ms - day_count * _DAY_MS, now.wall_ms - day_count * _DAY_MS)


def add_history(system: BenchSystem, customers: Sequence[Customer], first_number: int, count: int) -> None:
    """Have had the orders from this number on paid, so many, up to yesterday, while no server runs.

    The customers must have had their accounts before. Raises StoreError.
    """
    system.add_orders(order_of(first_number + n, customers) for n in range(count))
    bank = system.root / "bank"
    pepper = load_pepper(bank)
    ledger = SqliteLedger(bank / LEDGER_NAME, load_identity(bank), load_receipt_key(bank))
    tokens = SqliteTokens(system.root / "gateway" / STORE_NAME)
    with contextlib.closing(ledger), contextlib.closing(tokens):
        for day in range(days_of(count)):
            first = first_number + day * DAY_ROW_COUNT
            numbers = range(first, min(first + DAY_ROW_COUNT, first_number + count))
            orders = [order_of(number, customers) for number in numbers]
            _pay_all(orders, pepper, ledger, tokens, days_ago(days_of(count) - day))


def _pay_all(orders: Sequence[Order], pepper: bytes, ledger: SqliteLedger, tokens: SqliteTokens, now: Now) -> None:
    paid = [(_terms(order, now.wall_ms), os.urandom(limits.HASH_SIZE), order.customer) for order in orders]
    tokens.apply([BeginPayment(terms, envelope_hash) for terms, envelope_hash, _ in paid], now)
    transfers = [
        Transfer(terms, envelope_hash, _opened(pepper, customer), now.mono_ms + limits.SESSION_MS)
        for terms, envelope_hash, customer in paid
    ]
    settled = []
    for (terms, _, _), outcome in zip(paid, ledger.apply(transfers, now), strict=True):
        assert isinstance(outcome, PaymentOutcome)
        assert outcome.outcome is TransferOutcome.POSTED
        settled.append(SettlePayment(terms.payment_id, outcome.outcome, outcome.reason, outcome.utr, outcome.receipt))
    tokens.apply(settled, now)


def _terms(order: Order, now_wall_ms: int) -> Terms:
    return Terms(
        bank_id=BANK_ID,
        gateway_id=GATEWAY_ID,
        merchant_id=order.merchant_id,
        transaction_id=order.transaction_id,
        payment_id=make_payment_id(now_wall_ms, os.urandom(RANDOMNESS_SIZE)),
        session_id=os.urandom(limits.SESSION_ID_SIZE),
        amount_minor=order.amount_minor,
        currency=CURRENCY,
        authorised_at_ms=now_wall_ms,
    )


def _opened(pepper: bytes, customer: Customer) -> Opened:
    return Opened(customer.user_id, verifier_of(pepper, customer.password_key))


def add_connections(system: BenchSystem, line_count: int) -> None:
    """Have had connections begin and end, with so many lines in `LogFiles.txt`, while no gateway runs.

    Raises OSError.
    """
    log = AppendFile(system.root / "gateway", CONNECTIONS_LAYOUT)
    with contextlib.closing(log):
        for day in range(days_of(line_count)):
            first = day * DAY_ROW_COUNT
            at_ms = days_ago(days_of(line_count) - day).wall_ms
            log.append(_lines(range(first, min(first + DAY_ROW_COUNT, line_count)), at_ms))


def _lines(numbers: range, at_ms: int) -> Iterator[tuple[str, ...]]:
    for number in numbers:
        is_begin = number % 2 == 0
        yield connection_row(
            ConnectionRecord(
                at_ms=at_ms + _LOGGED_MS * (number - numbers[0]),
                event="connected" if is_begin else "disconnected",
                link_id=number // 2 + 1,
                address=("127.0.0.1", 40_000 + number // 2 % 20_000),
                reason="" if is_begin else "closed by the client",
            )
        )
