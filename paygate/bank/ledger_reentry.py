"""A payment that was lost with the time since a backup, entered into the restored ledger as it was (PG-TRF-6)."""

from collections.abc import Mapping

import apsw

from paygate.bank import ledger_rows
from paygate.bank.ledger import UTR_SEQUENCE_MODULUS, Customer, Merchant, ReenterOutcome
from paygate.bank.ledger_chain import Head
from paygate.bank.ledger_tables import is_token_posted
from paygate.codec.sealed import ReceiptStatement


def reenter(
    connection: apsw.Connection,
    head: Head,
    proof: tuple[ReceiptStatement, bytes],
    accounts: tuple[Customer | None, Merchant | None],
    lock_time_ms: int,
    balances: Mapping[int, int],
) -> tuple[ReenterOutcome, Head, ledger_rows.Changes]:
    """Within a transaction: the payment with both its postings, or nothing. `proof`: what a receipt states, and itself.

    `balances`: those that are not written yet; what it comes to are the counters and the changes that then hold.
    """
    statement, receipt = proof
    customer, merchant = accounts
    changes = ledger_rows.Changes()
    terms = statement.terms
    if customer is None or merchant is None:
        return ReenterOutcome.NO_ACCOUNT, head, changes
    if is_token_posted(connection, (terms.gateway_id, terms.transaction_id)):
        return ReenterOutcome.TOKEN_PAID, head, changes
    if connection.execute("SELECT 1 FROM payment WHERE utr = ?", (statement.utr,)).fetchone():
        return ReenterOutcome.UTR_TAKEN, head, changes
    if customer.balance_minor < terms.amount_minor:
        return ReenterOutcome.FUNDS, head, changes
    changes.balances[customer.account_id] = customer.balance_minor - terms.amount_minor
    changes.balances[merchant.account_id] = merchant.balance_minor + terms.amount_minor
    payment_number, number = head.payment_count + 1, head.posting_count + 1
    changes.postings += (
        (number, payment_number, customer.account_id, -terms.amount_minor),
        (number + 1, payment_number, merchant.account_id, terms.amount_minor),
    )
    counters = (
        max(head.bank_time_ms, statement.bank_time_ms),
        _utr_sequence(connection, head, int(statement.utr[-8:])),
        lock_time_ms,
    )
    written = ledger_rows.write(connection, head, counters, [statement], [receipt], changes, balances)
    return ReenterOutcome.ENTERED, written, changes


def _utr_sequence(connection: apsw.Connection, head: Head, digits: int) -> int:
    """The counter of UTRs when one from before stands behind the last: with a round more, if that was a later one.

    The counter says how far the UTRs went that stand in the ledger in their order; its last eight digits, which the
    next UTR follows, stay as they are.
    """
    query = "SELECT utr FROM payment WHERE outcome = 1 ORDER BY payment_number DESC LIMIT 1"
    row = connection.execute(query).fetchone()
    last_digits = int(row[0][-8:]) if row else 0
    last = head.utr_sequence - (head.utr_sequence - last_digits) % UTR_SEQUENCE_MODULUS
    step = (digits - last_digits) % UTR_SEQUENCE_MODULUS or UTR_SEQUENCE_MODULUS
    return head.utr_sequence if last + step <= head.utr_sequence else head.utr_sequence + UTR_SEQUENCE_MODULUS
