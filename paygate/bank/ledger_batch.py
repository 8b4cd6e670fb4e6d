"""One transaction of the ledger in the making: what its operations find, and what is decided.

Later operations of a batch see what earlier ones decided, so a payment that comes twice in one batch is decided once.
Each row that the batch needs is read once; each account's final balance goes to `ledger_rows.py`.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from paygate.bank import ledger_rows
from paygate.bank.bank_clock import bank_time
from paygate.bank.ledger import (
    ABSENT,
    BALANCE_MINOR_MAX,
    MISMATCH,
    AccountOutcome,
    BankIdentity,
    Customer,
    FindPayment,
    Merchant,
    OpenCustomer,
    Opened,
    OpenMerchant,
    Operation,
    Outcome,
    Payment,
    PaymentOperation,
    PaymentOutcome,
    Posted,
    Resolve,
    Situation,
    Transfer,
    decide,
    replay,
    utr_of,
    utr_start,
)
from paygate.bank.ledger_chain import EQUITY_ID, Head
from paygate.bank.ledger_tables import (
    Balances,
    find_customer,
    find_merchant,
    find_payment,
    find_user,
    find_users,
    is_token_posted,
    known_payments,
    posted_tokens,
    posting_of,
)
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.sealed import ReceiptStatement, Terms
from paygate.making import maker_of

READ_AHEAD_COUNT_MIN: Final = 8
"""Operations from which on their rows are read together; for fewer, one by one is as fast."""

_NOBODY_ID: Final = 0

_make_customer: Final = maker_of(Customer)
_make_merchant: Final = maker_of(Merchant)
_make_outcome: Final = maker_of(PaymentOutcome)
_make_posted: Final = maker_of(Posted)
_make_situation: Final = maker_of(Situation)
_make_statement: Final = maker_of(ReceiptStatement)

_New = tuple[int, Posted | None]
"""A payment decided in this batch, whose receipt comes when it is signed: its place among the statements, and what it
moved just now. A repeat of it in the same batch has the same place and moved nothing."""

_Answer = Outcome | _New


class Batch:
    """One transaction, open meanwhile: `take` all operations, sign the `statements`, `write`."""

    def __init__(
        self,
        path: Path,
        connection: apsw.Connection,
        identity: BankIdentity,
        receipt_key_id: bytes,
        head: Head,
        now: Now,
        lock_time_ms: int,
        absent: set[tuple[str, bytes]],
        merchants: dict[str, Merchant],
        balances: Balances,
    ) -> None:
        """`absent`: payments known not to be there, by gateway and payment ID; kept up to date here.

        `merchants`: some as they are before this batch; those that are read here are added. `changed_merchants` go in
        once the transaction has ended well. `balances`: those that differ from the table's; after the transaction
        `changes.balances` go in, or all have been written.
        """
        self.head = head
        """The counters as they are once the batch is written."""
        self.statements: list[ReceiptStatement] = []
        """What the receipts of the new outcomes state, for `write` in the same order."""
        self.changed_merchants: dict[str, Merchant] = {}
        """Merchants as they are once the batch is written."""
        self.changes = ledger_rows.Changes()
        """What else is to be written."""
        self._path = path
        self._connection = connection
        self._currency = identity.currency
        self._receipt_key_id = receipt_key_id
        self._now = now
        self._lock_time_ms = lock_time_ms
        self._bank_time_ms = bank_time(now.wall_ms, head.bank_time_ms)
        self._utr_start = utr_start(identity.bank_code, self._bank_time_ms)
        self._utr_sequence = head.utr_sequence
        self._answers: list[_Answer] = []
        self._receipts: Sequence[bytes] = ()
        # What this batch has read or decided; None stands for a row that is not there.
        self._absent = absent
        self._merchants = merchants
        self._balances = balances
        self._payments: dict[tuple[str, bytes], int] = {}  # places among the statements, by gateway and payment ID
        self._tokens: dict[tuple[str, str], bool] = {}  # whether one is paid, by gateway and transaction ID
        self._customers: dict[str, Customer | None] = {}  # by user ID
        self._opened_customer_ids: set[str] = set()

    # -- deciding --------------------------------------------------------------------------------------

    def take(self, operations: Sequence[Operation]) -> None:
        """Decide the operations, in order."""
        if len(operations) >= READ_AHEAD_COUNT_MIN:
            self._read_ahead(operations)
        self._answers += [_TAKES[operation.__class__](self, operation) for operation in operations]

    def outcomes(self) -> list[Outcome]:
        """What became of them, once the batch is written."""
        return [self._outcome(a[0], a[1]) if isinstance(a, tuple) else a for a in self._answers]

    def _outcome(self, place: int, posted: Posted | None) -> PaymentOutcome:
        statement = self.statements[place]
        return _make_outcome(statement.outcome, statement.reason, statement.utr, self._receipts[place], posted)

    def _read_ahead(self, operations: Sequence[Operation]) -> None:
        """Read by a few queries what the operations will most likely ask for one by one."""
        connection = self._connection
        user_ids: set[str] = set()
        payment_ids: defaultdict[str, set[bytes]] = defaultdict(set)  # by gateway, as the next
        transaction_ids: defaultdict[str, set[str]] = defaultdict(set)
        for operation in operations:
            if isinstance(operation, FindPayment):
                payment_ids[operation.terms.gateway_id].add(operation.terms.payment_id)
            elif isinstance(operation, Transfer) and isinstance(operation.opened, Opened):
                user_ids.add(operation.opened.user_id)
                transaction_ids[operation.terms.gateway_id].add(operation.terms.transaction_id)
        if user_ids:
            self._customers = find_users(connection, user_ids, self._balances)
        for gateway_id, ids in payment_ids.items():
            new_ids = ids - known_payments(connection, gateway_id, ids)
            self._absent.update([(gateway_id, payment_id) for payment_id in new_ids])
        for gateway_id, tokens in transaction_ids.items():
            paid = posted_tokens(connection, gateway_id, tokens)
            self._tokens.update([((gateway_id, token), token in paid) for token in tokens])

    def _find(self, operation: FindPayment) -> _Answer:
        return self._known(operation) or ABSENT

    def _resolve(self, operation: Resolve) -> _Answer:
        return self._known(operation) or self._add(operation, TransferOutcome.FENCED, Reason.FENCED)

    def _known(self, operation: PaymentOperation) -> PaymentOutcome | _New | None:
        terms = operation.terms
        key = (terms.gateway_id, terms.payment_id)
        # Every transfer is looked for before its envelope is opened, and found here when it is to be decided. What this
        # batch decides is taken out.
        if key in self._absent:
            return None
        place = self._payments.get(key)
        if place is not None:
            return MISMATCH if replay(_payment_of(self.statements[place]), operation) is MISMATCH else (place, None)
        known = find_payment(self._path, self._connection, key)
        if known is None:
            self._absent.add(key)
        return replay(known, operation)

    def _transfer(self, operation: Transfer) -> _Answer:
        known = self._known(operation)
        if known is not None:
            return known
        terms, opened = operation.terms, operation.opened
        customer = self._customer(opened.user_id) if isinstance(opened, Opened) else None
        merchant = self._merchant(terms.merchant_id)
        situation = _make_situation(
            self._now.wall_ms, self._lock_time_ms, self._currency, self._token_is_paid(terms), merchant, customer
        )
        reason, decided = decide(operation, situation, self._now.mono_ms)
        # T17: whoever is refused costs the same statement. The right password writes only what it changes.
        if reason is Reason.CREDENTIALS or not (decided is None or decided is customer):
            self._keep_attempt(decided)
        if reason is not Reason.NONE:
            return self._add(operation, TransferOutcome.DECLINED, reason)
        assert decided is not None
        assert merchant is not None
        return self._post(operation, decided, merchant)

    def _post(self, operation: Transfer, customer: Customer, merchant: Merchant) -> _New:
        """R6: both postings, the UTR and the outcome, or none of them."""
        terms = operation.terms
        amount_minor = terms.amount_minor
        customer_minor = customer.balance_minor - amount_minor
        merchant_minor = merchant.balance_minor + amount_minor
        assert customer_minor >= 0  # R6; the table's own check comes when the balance is written, which is later.
        # All accounts together hold what was paid in, and that is below the limit (T34).
        assert merchant_minor <= BALANCE_MINOR_MAX
        self._customers[customer.user_id] = _make_customer(
            customer.account_id,
            customer.customer_id,
            customer.user_id,
            customer.verifier,
            customer_minor,
            customer.failure_count,
            customer.locked_until_ms,
        )
        self.changed_merchants[merchant.merchant_id] = _make_merchant(
            merchant.account_id, merchant.merchant_id, merchant.name, merchant_minor
        )
        changes = self.changes
        changes.balances[customer.account_id] = customer_minor
        changes.balances[merchant.account_id] = merchant_minor
        self._tokens[(terms.gateway_id, terms.transaction_id)] = True
        self._utr_sequence += 1
        utr = utr_of(self._utr_start, self._utr_sequence)
        place, _ = self._add(operation, TransferOutcome.POSTED, Reason.NONE, utr)
        payment_number = self.head.payment_count + place + 1
        number = self.head.posting_count + len(changes.postings) + 1
        changes.postings += (
            (number, payment_number, customer.account_id, -amount_minor),
            (number + 1, payment_number, merchant.account_id, amount_minor),
        )
        posting = posting_of(utr, customer.customer_id, terms, self._bank_time_ms)
        return place, _make_posted(posting, customer_minor, merchant_minor)

    def _add(self, operation: Transfer | Resolve, outcome: TransferOutcome, reason: Reason, utr: str = "") -> _New:
        terms = operation.terms
        key = (terms.gateway_id, terms.payment_id)
        place = self._payments[key] = len(self.statements)
        self.statements.append(
            _make_statement(
                self._receipt_key_id, outcome, reason, terms, utr, self._bank_time_ms, operation.envelope_hash
            )
        )
        self._absent.discard(key)
        return place, None

    def _keep_attempt(self, customer: Customer | None) -> None:
        attempts = self.changes.attempts
        if customer is None:
            # An unknown user costs the same statement, for a row that is not there (T17).
            attempts.append((1, self._lock_time_ms, _NOBODY_ID))
        else:
            self._customers[customer.user_id] = customer
            attempts.append((customer.failure_count, customer.locked_until_ms, customer.account_id))

    def _open_customer(self, operation: OpenCustomer) -> AccountOutcome:
        is_opened = operation.customer_id in self._opened_customer_ids
        if is_opened or find_customer(self._connection, operation.customer_id, self._balances):
            return AccountOutcome.KNOWN
        if self._customer(operation.user_id):
            return AccountOutcome.USER_ID_TAKEN
        account_id = self._open_account(operation.amount_minor)
        if account_id is None:
            return AccountOutcome.TOO_MUCH
        customer = Customer(
            account_id, operation.customer_id, operation.user_id, operation.verifier, operation.amount_minor
        )
        self._customers[customer.user_id] = customer
        self._opened_customer_ids.add(customer.customer_id)
        self.changes.opened.append(customer)
        return AccountOutcome.OPENED

    def _open_merchant(self, operation: OpenMerchant) -> AccountOutcome:
        if self._merchant(operation.merchant_id):
            return AccountOutcome.KNOWN
        account_id = self._open_account(operation.amount_minor)
        if account_id is None:
            return AccountOutcome.TOO_MUCH
        merchant = Merchant(account_id, operation.merchant_id, operation.name, operation.amount_minor)
        self.changed_merchants[merchant.merchant_id] = merchant
        self.changes.opened.append(merchant)
        return AccountOutcome.OPENED

    def _open_account(self, amount_minor: int) -> int | None:
        """Open balances are postings too: from equity, which so says what was ever paid in."""
        changes = self.changes
        equity_minor = self._balance(EQUITY_ID) - amount_minor
        if equity_minor < -BALANCE_MINOR_MAX:
            return None
        account_id = self.head.account_count + len(changes.opened) + 1
        changes.balances[EQUITY_ID] = equity_minor
        changes.balances[account_id] = amount_minor
        number = self.head.posting_count + len(changes.postings) + 1
        changes.postings += (
            (number, None, EQUITY_ID, -amount_minor),
            (number + 1, None, account_id, amount_minor),
        )
        return account_id

    # -- reading ---------------------------------------------------------------------------------------

    def _customer(self, user_id: str) -> Customer | None:
        if user_id not in self._customers:
            self._customers[user_id] = find_user(self._connection, user_id, self._balances)
        return self._customers[user_id]

    def _merchant(self, merchant_id: str) -> Merchant | None:
        merchant = self.changed_merchants.get(merchant_id) or self._merchants.get(merchant_id)
        if merchant is None:
            merchant = find_merchant(self._connection, merchant_id, self._balances)
            if merchant is not None:
                self._merchants[merchant_id] = merchant
        return merchant

    def _token_is_paid(self, terms: Terms) -> bool:
        token = (terms.gateway_id, terms.transaction_id)
        if token not in self._tokens:
            self._tokens[token] = is_token_posted(self._connection, token)
        return self._tokens[token]

    def _balance(self, account_id: int) -> int:
        for balances in (self.changes.balances, self._balances):
            if account_id in balances:
                return balances[account_id]
        query = "SELECT balance_minor FROM account WHERE account_id = ?"
        return int(self._connection.execute(query, (account_id,)).get)

    # -- writing ---------------------------------------------------------------------------------------

    def write(self, receipts: Sequence[bytes]) -> None:
        """Write what was decided, with a receipt for each statement; a batch that changed nothing writes nothing."""
        if not (self.statements or self.changes.opened):
            return
        self._receipts = receipts
        counters = (self._bank_time_ms, self._utr_sequence, self._lock_time_ms)
        self.head = ledger_rows.write(
            self._connection, self.head, counters, self.statements, receipts, self.changes, self._balances
        )


_TAKES: Final[dict[type, Callable[[Batch, Any], _Answer]]] = {
    FindPayment: Batch._find,
    Transfer: Batch._transfer,
    Resolve: Batch._resolve,
    OpenCustomer: Batch._open_customer,
    OpenMerchant: Batch._open_merchant,
}


def _payment_of(statement: ReceiptStatement) -> Payment:
    """A payment of this batch, which has no receipt yet."""
    return Payment(
        statement.terms, statement.envelope_hash, statement.outcome, statement.reason, statement.utr, receipt=b""
    )
