"""One transaction of the ledger in the making: what its operations find, what is decided, and the rows that follow.

Later operations of a batch see what earlier ones decided, so a payment that comes twice in one batch is decided once.
Each row that the batch needs is read once, each account's final balance is written once.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw

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
    Posting,
    Resolve,
    Situation,
    Transfer,
    decide,
    replay,
    utr_of,
)
from paygate.bank.ledger_chain import Head, chained, next_payment_chain, next_posting_chain
from paygate.bank.ledger_tables import (
    find_customer,
    find_merchant,
    find_payment,
    find_user,
    find_users,
    is_token_posted,
    known_payments,
    posted_tokens,
)
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.frame import encode_record
from paygate.codec.sealed import ReceiptStatement, Terms
from paygate.making import maker_of

READ_AHEAD_COUNT_MIN: Final = 8
"""Operations from which on their rows are read together; for fewer, one by one is as fast."""

_EQUITY_ID: Final = 1
_NOBODY_ID: Final = 0

_make_customer: Final = maker_of(Customer)
_make_merchant: Final = maker_of(Merchant)
_make_outcome: Final = maker_of(PaymentOutcome)
_make_payment: Final = maker_of(Payment)
_make_posted: Final = maker_of(Posted)
_make_posting: Final = maker_of(Posting)
_make_situation: Final = maker_of(Situation)
_make_statement: Final = maker_of(ReceiptStatement)


@dataclass(slots=True)
class _New:
    """A payment decided in this batch; its receipt comes when the batch is signed."""

    payment: Payment
    posted: Posted | None = None
    receipt: bytes = b""


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A payment of this very batch came again: it moves nothing itself, and gets the same receipt once signed."""

    of: _New


_Answer = Outcome | _New | _Repeat


class Batch:
    """One transaction, open meanwhile: `take` all operations, sign the `statements`, `write`."""

    def __init__(
        self,
        path: Path,
        connection: apsw.Connection,
        identity: BankIdentity,
        head: Head,
        now: Now,
        lock_time_ms: int,
        absent: set[tuple[str, bytes]],
    ) -> None:
        """`absent`: payments known not to be there, by gateway and payment ID; kept up to date here."""
        self.head = head
        """The counters as they are once the batch is written."""
        self._path = path
        self._connection = connection
        self._identity = identity
        self._now = now
        self._lock_time_ms = lock_time_ms
        self._bank_time_ms = bank_time(now.wall_ms, head.bank_time_ms)
        self._utr_sequence = head.utr_sequence
        self._answers: list[_Answer] = []
        # What this batch has read or decided; None stands for a row that is not there.
        self._absent = absent
        self._payments: dict[tuple[str, bytes], _New] = {}
        self._tokens: dict[tuple[str, str], bool] = {}  # whether one is paid, by gateway and transaction ID
        self._customers: dict[str, Customer | None] = {}  # by user ID
        self._merchants: dict[str, Merchant | None] = {}
        # What is to be written.
        self._balances: dict[int, int] = {}
        self._attempts: list[tuple[int, int, int]] = []
        self._postings: list[tuple[int | None, int, int]] = []
        self._opened: list[Customer | Merchant] = []

    # -- deciding --------------------------------------------------------------------------------------

    def take(self, operations: Sequence[Operation]) -> None:
        """Decide the operations, in order."""
        if len(operations) >= READ_AHEAD_COUNT_MIN:
            self._read_ahead(operations)
        self._answers += [_TAKES[operation.__class__](self, operation) for operation in operations]

    def outcomes(self) -> list[Outcome]:
        """What became of them, once the batch is written."""
        return [_outcome_of(answer) for answer in self._answers]

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
            self._customers = find_users(connection, user_ids)
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

    def _known(self, operation: PaymentOperation) -> PaymentOutcome | _Repeat | None:
        terms = operation.terms
        key = (terms.gateway_id, terms.payment_id)
        new = self._payments.get(key)
        if new is not None:
            return MISMATCH if replay(new.payment, operation) is MISMATCH else _Repeat(new)
        # Every transfer is looked for before its envelope is opened, and found here when it is to be decided.
        if key in self._absent:
            return None
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
        token_is_paid = self._token_is_paid(terms)
        situation = _make_situation(
            self._now.wall_ms, self._lock_time_ms, self._identity.currency, token_is_paid, merchant, customer
        )
        decision = decide(operation, situation, self._now.mono_ms)
        reason, decided = decision.reason, decision.customer
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
        self._merchants[merchant.merchant_id] = _make_merchant(
            merchant.account_id, merchant.merchant_id, merchant.name, merchant_minor
        )
        self._balances[customer.account_id] = customer_minor
        self._balances[merchant.account_id] = merchant_minor
        self._tokens[(terms.gateway_id, terms.transaction_id)] = True
        self._utr_sequence += 1
        utr = utr_of(self._identity.bank_code, self._bank_time_ms, self._utr_sequence)
        new = self._add(operation, TransferOutcome.POSTED, Reason.NONE, utr)
        payment_number = self.head.payment_count + len(self._payments)
        self._postings.append((payment_number, customer.account_id, -amount_minor))
        self._postings.append((payment_number, merchant.account_id, amount_minor))
        posting = posting_of(utr, customer.customer_id, terms, self._bank_time_ms)
        new.posted = _make_posted(posting, customer_minor, merchant_minor)
        return new

    def _add(self, operation: Transfer | Resolve, outcome: TransferOutcome, reason: Reason, utr: str = "") -> _New:
        terms = operation.terms
        key = (terms.gateway_id, terms.payment_id)
        new = _New(_make_payment(terms, operation.envelope_hash, outcome, reason, utr, b""))
        self._absent.discard(key)
        self._payments[key] = new
        return new

    def _keep_attempt(self, customer: Customer | None) -> None:
        if customer is None:
            # An unknown user costs the same statement, for a row that is not there (T17).
            self._attempts.append((1, self._lock_time_ms, _NOBODY_ID))
        else:
            self._customers[customer.user_id] = customer
            self._attempts.append((customer.failure_count, customer.locked_until_ms, customer.account_id))

    def _open_customer(self, operation: OpenCustomer) -> AccountOutcome:
        opened = [c.customer_id for c in self._opened if isinstance(c, Customer)]
        if operation.customer_id in opened or find_customer(self._connection, operation.customer_id):
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
        self._opened.append(customer)
        return AccountOutcome.OPENED

    def _open_merchant(self, operation: OpenMerchant) -> AccountOutcome:
        if self._merchant(operation.merchant_id):
            return AccountOutcome.KNOWN
        account_id = self._open_account(operation.amount_minor)
        if account_id is None:
            return AccountOutcome.TOO_MUCH
        merchant = Merchant(account_id, operation.merchant_id, operation.name, operation.amount_minor)
        self._merchants[merchant.merchant_id] = merchant
        self._opened.append(merchant)
        return AccountOutcome.OPENED

    def _open_account(self, amount_minor: int) -> int | None:
        """Open balances are postings too: from equity, which so says what was ever paid in."""
        equity_minor = self._balance(_EQUITY_ID) - amount_minor
        if equity_minor < -BALANCE_MINOR_MAX:
            return None
        account_id = self.head.account_count + len(self._opened) + 1
        self._balances[_EQUITY_ID] = equity_minor
        self._balances[account_id] = amount_minor
        self._postings.append((None, _EQUITY_ID, -amount_minor))
        self._postings.append((None, account_id, amount_minor))
        return account_id

    # -- reading ---------------------------------------------------------------------------------------

    def _customer(self, user_id: str) -> Customer | None:
        if user_id not in self._customers:
            self._customers[user_id] = find_user(self._connection, user_id)
        return self._customers[user_id]

    def _merchant(self, merchant_id: str) -> Merchant | None:
        if merchant_id not in self._merchants:
            self._merchants[merchant_id] = find_merchant(self._connection, merchant_id)
        return self._merchants[merchant_id]

    def _token_is_paid(self, terms: Terms) -> bool:
        token = (terms.gateway_id, terms.transaction_id)
        if token not in self._tokens:
            self._tokens[token] = is_token_posted(self._connection, token)
        return self._tokens[token]

    def _balance(self, account_id: int) -> int:
        if account_id not in self._balances:
            query = "SELECT balance_minor FROM account WHERE account_id = ?"
            return int(self._connection.execute(query, (account_id,)).get)
        return self._balances[account_id]

    # -- signing and writing ---------------------------------------------------------------------------

    def statements(self, receipt_key_id: bytes) -> list[ReceiptStatement]:
        """What the receipts of the new outcomes state, for `write` in the same order."""
        return [
            _make_statement(receipt_key_id, p.outcome, p.reason, p.terms, p.utr, self._bank_time_ms, p.envelope_hash)
            for p in [new.payment for new in self._payments.values()]
        ]

    def write(self, receipts: Sequence[bytes]) -> None:
        """Write what was decided, with a receipt for each statement; a batch that changed nothing writes nothing."""
        if not (self._payments or self._opened):
            return
        for new, receipt in zip(self._payments.values(), receipts, strict=True):
            new.receipt = receipt
        head = self.head
        self._write_opened()
        payment_rows, payment_chain = chained(self._payment_rows(), head.payment_chain, next_payment_chain)
        self._write("INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", payment_rows)
        numbered = [(number, *posting) for number, posting in enumerate(self._postings, head.posting_count + 1)]
        posting_rows, posting_chain = chained(numbered, head.posting_chain, next_posting_chain)
        self._write("INSERT INTO posting VALUES (?, ?, ?, ?, ?)", posting_rows)
        self._write(
            "UPDATE account SET balance_minor = ?2 WHERE account_id = ?1",
            # In the order of the table, since so neighbours are found on the page that is at hand.
            sorted(self._balances.items()),
        )
        self._write("UPDATE customer SET failure_count = ?, locked_until_ms = ? WHERE account_id = ?", self._attempts)
        self.head = Head(
            self._bank_time_ms,
            self._utr_sequence,
            head.account_count + len(self._opened),
            head.payment_count + len(payment_rows),
            payment_chain,
            head.posting_count + len(posting_rows),
            posting_chain,
            self._lock_time_ms,
        )
        self._connection.execute(
            "UPDATE bank SET bank_time_ms = ?, utr_sequence = ?, account_count = ?, payment_count = ?, "
            "payment_chain = ?, posting_count = ?, posting_chain = ?, lock_time_ms = ?",
            self.head,
        )

    def _write_opened(self) -> None:
        opened = self._opened
        customers = [c for c in opened if isinstance(c, Customer)]
        merchants = [m for m in opened if isinstance(m, Merchant)]
        self._write("INSERT INTO account VALUES (?, ?)", [(o.account_id, o.balance_minor) for o in opened])
        self._write(
            "INSERT INTO customer VALUES (?, ?, ?, ?, 0, 0)",
            [(c.account_id, c.customer_id, c.user_id, c.verifier) for c in customers],
        )
        self._write("INSERT INTO merchant VALUES (?, ?, ?)", [(m.account_id, m.merchant_id, m.name) for m in merchants])

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._connection.executemany(statement, rows)

    def _payment_rows(self) -> list[tuple[Any, ...]]:
        return [
            (
                number,
                new.payment.terms.gateway_id,
                new.payment.terms.payment_id,
                new.payment.terms.transaction_id,
                encode_record(new.payment.terms),
                new.payment.envelope_hash,
                int(new.payment.outcome),
                int(new.payment.reason),
                new.payment.utr or None,
                self._bank_time_ms,
                new.receipt,
            )
            for number, new in enumerate(self._payments.values(), self.head.payment_count + 1)
        ]


_TAKES: Final[dict[type, Callable[[Batch, Any], _Answer]]] = {
    FindPayment: Batch._find,
    Transfer: Batch._transfer,
    Resolve: Batch._resolve,
    OpenCustomer: Batch._open_customer,
    OpenMerchant: Batch._open_merchant,
}


def posting_of(utr: str, customer_id: str, terms: Terms, bank_time_ms: int) -> Posting:
    """What `TransactionID.txt` says of a payment that moved money."""
    return _make_posting(
        utr, customer_id, terms.merchant_id, terms.amount_minor, terms.currency, terms.transaction_id, bank_time_ms
    )


def _outcome_of(answer: _Answer) -> Outcome:
    if isinstance(answer, _New):
        return _outcome_of_new(answer, answer.posted)
    if isinstance(answer, _Repeat):
        return _outcome_of_new(answer.of, None)
    return answer


def _outcome_of_new(new: _New, posted: Posted | None) -> PaymentOutcome:
    payment = new.payment
    return _make_outcome(payment.outcome, payment.reason, payment.utr, new.receipt, posted)
