"""The model's own books of the bank: what each payment moved, who was locked, which UTRs are out.

Nothing is decided with the bank's code. Rows are read with SELECTs of its own from the ledger's tables and judged by
what customers authorised; a lock of an account is counted by the rule in words of threat T15.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sim.invariants import Invariant, Violation

from paygate.bank.ledger import PaymentOutcome
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import Receipt, Terms

LOCKING_FAILURE_COUNT: Final = 3
"""T15: the first wrong password in a row that locks."""
LOCK_MS_MIN: Final = 30_000
LOCK_MS_MAX: Final = 3_600_000
AUTHORISED_MS_MAX: Final = 300_000
"""T6: so far from the bank's clock an authorisation counts."""
LOOK_AT_BALANCES_EVERY: Final = 8
"""Debits after which all balances are looked at; after a recovery and at the end they are looked at anyway."""

PaymentKey = tuple[str, bytes]
"""Gateway ID and payment ID."""
TokenKey = tuple[str, str]
"""Gateway ID and transaction ID."""

_PAYMENTS: Final = (
    "SELECT payment_number, gateway_id, payment_id, transaction_id, terms, envelope_hash, outcome, reason, utr, "
    "receipt FROM payment WHERE payment_number > ? ORDER BY payment_number"
)
_POSTINGS: Final = (
    "SELECT posting_number, payment_number, account_id, amount_minor FROM posting WHERE posting_number > ? "
    "ORDER BY posting_number"
)
_ACCOUNTS: Final = "SELECT account_id, customer_id FROM customer UNION ALL SELECT account_id, merchant_id FROM merchant"
_FAILURES: Final = "SELECT customer_id, failure_count, locked_until_ms FROM customer"


class PaymentRow(NamedTuple):
    """A payment as it stands in the ledger."""

    number: int
    gateway_id: str
    payment_id: bytes
    transaction_id: str
    terms: bytes
    envelope_hash: bytes
    outcome: int
    reason: int
    utr: str | None
    receipt: bytes

    @property
    def key(self) -> PaymentKey:
        """What names it."""
        return self.gateway_id, self.payment_id

    @property
    def token(self) -> TokenKey:
        """What it paid or would have paid."""
        return self.gateway_id, self.transaction_id

    @property
    def is_posted(self) -> bool:
        """Whether money moved."""
        return self.outcome == TransferOutcome.POSTED


class PostingRow(NamedTuple):
    """Half of what a payment moved."""

    number: int
    payment_number: int | None
    account_id: int
    amount_minor: int


@dataclass(slots=True)
class Authorisation:
    """What a customer said yes to: one envelope."""

    client_name: str
    terms: Terms
    user_id: str
    password_is_right: bool


@dataclass(slots=True)
class _Customer:
    customer_id: str
    failure_count: int = 0
    locked_until_ms: int = 0


class LedgerModel:
    """The bank, as it must be."""

    def __init__(self) -> None:
        self.authorised: dict[bytes, Authorisation] = {}
        """By envelope hash."""
        self.rows: dict[PaymentKey, PaymentRow] = {}
        """Every payment that the ledger was seen to hold, as it was then."""
        self.receipts: dict[bytes, PaymentKey] = {}
        self.debits: dict[TokenKey, PaymentRow] = {}
        """The one payment that debited a token."""
        self.utrs: dict[str, PaymentKey] = {}
        """Every UTR that stands in the ledger or was told to anybody."""
        self._by_number: dict[int, PaymentRow] = {}
        self._balances: dict[str, int] = {}  # by customer or merchant ID, which differ
        self._customers: dict[str, _Customer] = {}  # by user ID
        self._opened_minor = 0
        self._posting_number = 0
        self._debited: dict[int, PostingRow] = {}  # the negative posting of each payment, by payment number
        self._debit_count = 0
        self._names: dict[int, str] = {}  # of accounts
        self._lock_ahead_ms: int | None = None  # of the monotonic clock of this run of the bank
        self._lock_time_ms = 0

    # -- what is told of the world ---------------------------------------------------------------------

    def open_customer(self, customer_id: str, user_id: str, amount_minor: int) -> None:
        """A customer's account with its opening balance."""
        self._open(customer_id, amount_minor)
        self._customers[user_id] = _Customer(customer_id)

    def open_merchant(self, merchant_id: str, amount_minor: int) -> None:
        """A merchant's account with its opening balance."""
        self._open(merchant_id, amount_minor)

    def _open(self, name: str, amount_minor: int) -> None:
        self._balances[name] = amount_minor
        self._opened_minor += amount_minor

    # -- a life of the bank ----------------------------------------------------------------------------

    def started(self, now: Now) -> None:
        """T7: a wall clock that is set from here on neither ends a lock early nor makes one longer."""
        self._lock_ahead_ms = max(now.wall_ms, self._lock_time_ms) - now.mono_ms

    def applied(self, ledger: Any, outcomes: Sequence[Any], now: Now) -> list[PaymentRow]:
        """A batch was applied: its rows are judged, its outcomes are held against them. Gives the new rows."""
        if self._lock_ahead_ms is None:
            self.started(now)
        assert self._lock_ahead_ms is not None
        told = [o.receipt for o in outcomes if isinstance(o, PaymentOutcome) and o.receipt]
        # What is told again was judged when it was new; most batches only ask.
        new = [] if self.receipts.keys() >= set(told) else list(_payments(ledger, len(self._by_number)))
        if new:
            self._lock_time_ms = now.mono_ms + self._lock_ahead_ms
        for row in new:
            self._take(row)
            self._check_in_time(row, now)
            self._count_attempt(row)
        for receipt in told:
            self.check_final(receipt, "an outcome of the ledger")
        if any(row.reason == Reason.CREDENTIALS for row in new):
            self.check_attempts(ledger)
        posted_count = sum(row.is_posted for row in new)
        if posted_count:
            self._take_postings(ledger)
            self._debit_count += posted_count
            if self._debit_count >= LOOK_AT_BALANCES_EVERY:
                self.check_balances(ledger)
        return new

    def recovered(self, ledger: Any) -> list[PaymentRow]:
        """The bank died and its ledger was opened anew. Gives rows of a batch that nobody had heard of."""
        there = {row.number: row for row in _payments(ledger, 0)}
        for number, row in self._by_number.items():
            if there.get(number) != row:
                found = "another stands there" if number in there else "it is gone"
                raise Violation(Invariant.I3, f"{_name(row)} was acknowledged, and after the recovery {found}")
        new = [row for number, row in there.items() if number not in self._by_number]
        for row in new:
            self._take(row)
        self._posting_number = 0
        self._debited.clear()
        self._take_postings(ledger)
        self._settle_attempts(ledger, new)
        self.check_balances(ledger)
        self._lock_ahead_ms = None
        return new

    def check_final(self, receipt: bytes, by_whom: str) -> PaymentRow:
        """A receipt was told by somebody: the ledger must hold it. Gives its row."""
        key = self.receipts.get(receipt)
        if key is None:
            raise Violation(Invariant.I3, f"{by_whom} tells a final outcome that the ledger does not hold")
        return self.rows[key]

    def note_utr(self, utr: str, key: PaymentKey) -> None:
        """A UTR was seen with a payment."""
        before = self.utrs.setdefault(utr, key)
        if before != key:
            text = f"UTR {utr} of payment {before[1].hex()} was given out again, to payment {key[1].hex()}"
            raise Violation(Invariant.I5, text)

    # -- rows ------------------------------------------------------------------------------------------

    def _take(self, row: PaymentRow) -> None:
        if row.key in self.rows:
            raise Violation(Invariant.I2, f"{_name(row)} stands in the ledger twice")
        statement = decode_record(Receipt, row.receipt).statement
        stated = (
            encode_record(statement.terms),
            statement.envelope_hash,
            int(statement.outcome),
            int(statement.reason),
            statement.utr or None,
        )
        if stated != (row.terms, row.envelope_hash, row.outcome, row.reason, row.utr):
            raise Violation(Invariant.I6, f"the receipt of {_name(row)} states something else than its row")
        authorisation = self.authorised.get(row.envelope_hash)
        if row.is_posted:
            self._take_posted(row, statement.terms, authorisation)
        elif row.outcome == TransferOutcome.DECLINED:
            self._check_cause(row, statement.terms, authorisation)
        self.rows[row.key] = row
        self.receipts[row.receipt] = row.key
        self._by_number[row.number] = row

    def _take_posted(self, row: PaymentRow, terms: Terms, authorisation: Authorisation | None) -> None:
        assert row.utr is not None
        if authorisation is None or authorisation.terms != terms:
            raise Violation(Invariant.AUTHORITY, f"{_name(row)} is posted under terms that nobody authorised")
        if not authorisation.password_is_right:
            raise Violation(Invariant.AUTHORITY, f"{_name(row)} is posted with a wrong password")
        customer = self._customers.get(authorisation.user_id)
        if customer is None:
            raise Violation(Invariant.AUTHORITY, f"{_name(row)} is posted for a user whom the bank does not know")
        before = self.debits.setdefault(row.token, row)
        if before is not row:
            raise Violation(Invariant.I2, f"token {row.transaction_id} is debited by {_name(before)} and {_name(row)}")
        self.note_utr(row.utr, row.key)
        self._balances[customer.customer_id] -= terms.amount_minor
        self._balances[terms.merchant_id] += terms.amount_minor
        if self._balances[customer.customer_id] < 0:
            raise Violation(Invariant.I1, f"{_name(row)} debits customer {customer.customer_id} more than there is")

    def _check_in_time(self, row: PaymentRow, now: Now) -> None:
        """T6, T7: whoever holds an envelope back has minutes for it, by the bank's clock as it is at the commit."""
        authorisation = self.authorised.get(row.envelope_hash)
        if row.is_posted and authorisation is not None:
            apart_ms = abs(now.wall_ms - authorisation.terms.authorised_at_ms)
            if apart_ms > AUTHORISED_MS_MAX:
                text = f"{_name(row)} is posted, and was authorised {apart_ms} ms from the bank's time"
                raise Violation(Invariant.AUTHORITY, text)

    def _check_cause(self, row: PaymentRow, terms: Terms, authorisation: Authorisation | None) -> None:
        """An honest payment is not declined without the cause that its reason names."""
        if authorisation is None or authorisation.terms != terms:
            return  # Somebody else made or changed it, and whatever the bank says of it moves nothing.
        customer = self._customers.get(authorisation.user_id)
        has_cause = True
        if row.reason == Reason.FUNDS:
            assert customer is not None
            has_cause = self._balances[customer.customer_id] < terms.amount_minor
        elif row.reason == Reason.TOKEN_ALREADY_PAID:
            has_cause = row.token in self.debits
        elif row.reason == Reason.TERMS:
            has_cause = False
        if not has_cause:
            raise Violation(Invariant.CAUSE, f"{_name(row)} is declined as {Reason(row.reason).name} without cause")

    # -- postings and balances -------------------------------------------------------------------------

    def _take_postings(self, ledger: Any) -> None:
        for values in _rows(ledger, _POSTINGS, self._posting_number):
            posting = PostingRow(*values)
            self._posting_number = posting.number
            if posting.payment_number is None or posting.amount_minor > 0:
                continue
            row = self._by_number.get(posting.payment_number)
            if row is None or not row.is_posted:
                raise Violation(Invariant.I1, f"posting {posting.number} moves money of no posted payment")
            before = self._debited.setdefault(posting.payment_number, posting)
            if before is not posting:
                raise Violation(Invariant.I2, f"{_name(row)} is debited by postings {before.number}, {posting.number}")
            self._check_debit(ledger, row, posting)

    def _check_debit(self, ledger: Any, row: PaymentRow, posting: PostingRow) -> None:
        authorisation = self.authorised[row.envelope_hash]
        if posting.account_id not in self._names:
            self._names = dict(_rows(ledger, _ACCOUNTS))
        customer_id = self._customers[authorisation.user_id].customer_id
        if self._names.get(posting.account_id) != customer_id:
            raise Violation(Invariant.AUTHORITY, f"{_name(row)} debits somebody else than customer {customer_id}")
        if posting.amount_minor != -authorisation.terms.amount_minor:
            raise Violation(Invariant.I1, f"{_name(row)} moves another amount than its terms say")

    def check_balances(self, ledger: Any) -> None:
        """I1: what the ledger says of every account is what the books say, and the sum is what was paid in."""
        self._debit_count = 0
        found = {c.customer_id: c.balance_minor for c in ledger.customers()}
        found |= {m.merchant_id: m.balance_minor for m in ledger.merchants()}
        for name, balance_minor in found.items():
            if balance_minor < 0:
                raise Violation(Invariant.I1, f"{name} has a balance of {balance_minor}")
        if sum(found.values()) != self._opened_minor:
            text = f"all accounts hold {sum(found.values())}, and {self._opened_minor} was paid in"
            raise Violation(Invariant.I1, text)
        for name, balance_minor in self._balances.items():
            if found.get(name) != balance_minor:
                raise Violation(Invariant.I1, f"{name} should have {balance_minor}, and has {found.get(name)}")

    # -- wrong passwords (T15) -------------------------------------------------------------------------

    def _count_attempt(self, row: PaymentRow) -> None:
        authorisation = self.authorised.get(row.envelope_hash)
        customer = self._customers.get(authorisation.user_id) if authorisation else None
        if authorisation is None or customer is None:
            return
        if row.is_posted or row.reason == Reason.FUNDS:
            if self._lock_time_ms < customer.locked_until_ms:
                raise Violation(Invariant.AUTHORITY, f"{_name(row)}: a locked account's password was accepted")
            customer.failure_count = customer.locked_until_ms = 0
        elif row.reason == Reason.CREDENTIALS and self._lock_time_ms >= customer.locked_until_ms:
            if authorisation.password_is_right:
                raise Violation(Invariant.CAUSE, f"{_name(row)}: the right password is declined")
            customer.failure_count += 1
            customer.locked_until_ms = self._lock_time_ms + _lock_ms(customer.failure_count)

    def check_attempts(self, ledger: Any) -> None:
        """I3: a wrong password that was answered is counted."""
        found = {customer_id: count for customer_id, count, _ in _rows(ledger, _FAILURES)}
        for customer in self._customers.values():
            count = found.get(customer.customer_id)
            if count != customer.failure_count:
                text = f"{customer.failure_count} wrong passwords of {customer.customer_id} were answered"
                raise Violation(Invariant.I3, f"{text}, and {count} are counted")

    def _settle_attempts(self, ledger: Any, unheard: Sequence[PaymentRow]) -> None:
        """Whoever tried in a batch that nobody heard of is taken as the ledger has him; all others stay."""
        tried = {a.user_id for row in unheard if (a := self.authorised.get(row.envelope_hash))}
        found = {customer_id: (count, until_ms) for customer_id, count, until_ms in _rows(ledger, _FAILURES)}
        for user_id in tried & self._customers.keys():
            customer = self._customers[user_id]
            customer.failure_count, customer.locked_until_ms = found[customer.customer_id]
        if unheard:
            self._lock_time_ms = next(iter(_rows(ledger, "SELECT lock_time_ms FROM bank")))[0]
        self.check_attempts(ledger)


def _lock_ms(failure_count: int) -> int:
    if failure_count < LOCKING_FAILURE_COUNT:
        return 0
    return min(LOCK_MS_MIN << min(failure_count - LOCKING_FAILURE_COUNT, 20), LOCK_MS_MAX)


def _name(row: PaymentRow) -> str:
    return f"payment {row.payment_id.hex()} of {row.gateway_id}"


def _rows(ledger: Any, query: str, *values: Any) -> Any:
    # The ledger's own connection, since it has the file for itself; only ever read.
    return ledger._connection.execute(query, values).fetchall()


def _payments(ledger: Any, after_number: int) -> Iterator[PaymentRow]:
    return (PaymentRow(*values) for values in _rows(ledger, _PAYMENTS, after_number))
