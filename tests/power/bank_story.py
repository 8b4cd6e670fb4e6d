"""A bank's ledger: accounts, transfers, repeats, fences, wrong passwords, and what it must hold after each."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from bank_books import ENVELOPE_HASH, IDENTITY, VERIFIER, WRONG_VERIFIER, build_transfer, payment_id
from builders import GATEWAY_ID, RECEIPT_KEY
from power.older_stores import of_older_version
from power.story import CHECKPOINT_PAGE_COUNTS, Batch, Clock, Restart, SkipUtrs, State, Step, Story, weighted

from paygate.bank import ledger_rows
from paygate.bank.ledger import FindPayment, OpenCustomer, Opened, OpenMerchant, Operation, Resolve, Transfer
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.files import sqlite

LEDGER_PATH = Path("ledger.sqlite")
_WEIGHTS = {
    "pay": 30,
    "wrong password": 8,
    "repeat": 8,
    "fence": 5,
    "resolve": 3,
    "same token": 4,
    "find": 4,
    "unknown user": 2,
    "unknown merchant": 2,
    "too much": 2,
    "not opened": 2,
    "late": 2,
    "open": 2,
}


@dataclass
class BankStory(Story):
    """The story of a ledger."""

    store_name: ClassVar[str] = "ledger"

    def open(self, vfs: str) -> SqliteLedger:
        return SqliteLedger(LEDGER_PATH, IDENTITY, RECEIPT_KEY, vfs=vfs)

    def do(self, store: SqliteLedger, step: Step) -> Any:
        if isinstance(step, SkipUtrs):
            return store.skip_utrs(step.sequence)
        assert isinstance(step, Batch)
        return store.apply(step.operations, step.now)

    def look(self, store: SqliteLedger) -> State:
        columns = "gateway_id, payment_id, outcome, reason, ifnull(utr, ''), receipt"
        rows = store._connection.execute(f"SELECT {columns} FROM payment ORDER BY payment_number").fetchall()
        held = (
            frozenset(
                (c.customer_id, c.user_id, c.balance_minor, c.failure_count, c.locked_until_ms)
                for c in store.customers()
            ),
            frozenset((m.merchant_id, m.balance_minor) for m in store.merchants()),
            tuple(row[:5] for row in rows),
            tuple((p.utr, p.customer_id, p.merchant_id, p.amount_minor, p.transaction_id) for p in store.postings()),
            store.utr_sequence,
        )
        return held, (store.bank_time_ms, tuple(row[5] for row in rows))


def bank_story(seed: int) -> BankStory:
    """The story that this seed tells."""
    randomness = Random(f"bank story {seed}")
    teller = _Teller(randomness)
    limits = (
        (sqlite, "CHECKPOINT_PAGE_COUNT", randomness.choice(CHECKPOINT_PAGE_COUNTS)),
        (ledger_rows, "BALANCE_COUNT_MAX", randomness.choice((1_000, 4, 0))),
    )
    story = BankStory(seed, limits=limits, model=Books())
    steps: list[Step] = [Batch((), teller.clock.advance(0)), *teller.accounts()]
    sequence = 0
    for _ in range(randomness.randrange(10, 18)):
        chance = randomness.random()
        if chance < 0.06:
            steps.append(Restart())
        elif chance < 0.1:
            sequence += randomness.randrange(100)
            steps.append(SkipUtrs(sequence))
        else:
            now = teller.clock.advance(randomness.choice((0, 10, 1_000, 20_000, 70_000)))
            size = randomness.choice((1, 1, 2, 3, 5, 12))
            steps.append(Batch(tuple(teller.operation(now) for _ in range(size)), now))
    story.steps = steps
    return of_older_version(story, LEDGER_PATH)


class _Teller:
    """Makes up what the bank is asked."""

    def __init__(self, randomness: Random) -> None:
        self.clock = Clock()
        self.asked: list[Transfer | Resolve | FindPayment] = []
        self._randomness = randomness
        self._users: list[str] = []
        self._merchants: list[str] = []

    def accounts(self) -> list[Step]:
        """Some customers and merchants, in one batch or in several."""
        customers = [self._open() for _ in range(self._randomness.randrange(3, 9))]
        operations: list[Operation] = [*customers, self._open_merchant(), self._open_merchant()]
        size = self._randomness.choice((1, 3, 20))
        return [
            Batch(tuple(operations[start : start + size]), self.clock.advance(1))
            for start in range(0, len(operations), size)
        ]

    def operation(self, now: Now) -> Operation:
        """Any operation at all."""
        kind = weighted(self._randomness, _WEIGHTS)
        if kind == "open":
            return self._open() if self._randomness.random() < 0.7 else self._open_merchant()
        asked = self._question(kind, now)
        self.asked.append(asked)
        return asked

    def _question(self, kind: str, now: Now) -> Transfer | Resolve | FindPayment:
        randomness = self._randomness
        fresh = build_transfer(
            user_id=randomness.choice(self._users),
            payment_id=payment_id(100 + len(self.asked)),
            transaction_id=f"TX-{100 + len(self.asked)}",
            gateway_id=randomness.choice((GATEWAY_ID, GATEWAY_ID, "GW2")),
            merchant_id=randomness.choice(self._merchants),
            amount_minor=randomness.randrange(1, 40_000),
            authorised_at_ms=now.wall_ms,
        )
        earlier = randomness.choice(self.asked) if self.asked else fresh
        match kind:
            case "wrong password":
                return replace(fresh, opened=Opened(randomness.choice(self._users[:2]), WRONG_VERIFIER))
            case "unknown user":
                return replace(fresh, opened=Opened("nobody", VERIFIER))
            case "not opened":
                return replace(fresh, opened=randomness.choice((Reason.KEY_RETIRED, Reason.TERMS)))
            case "repeat":
                return replace(fresh, terms=earlier.terms)
            case "fence":
                return Resolve(fresh.terms, ENVELOPE_HASH)
            case "resolve":
                return Resolve(earlier.terms, ENVELOPE_HASH)
            case "find":
                return FindPayment(earlier.terms, ENVELOPE_HASH)
            case "same token":
                terms, other = fresh.terms, earlier.terms
                changed = replace(terms, gateway_id=other.gateway_id, transaction_id=other.transaction_id)
                return replace(fresh, terms=changed)
            case "unknown merchant":
                return replace(fresh, terms=replace(fresh.terms, merchant_id="M-999"))
            case "too much":
                return replace(fresh, terms=replace(fresh.terms, amount_minor=10**9))
            case "late":
                return replace(fresh, deadline_mono_ms=now.mono_ms)
        assert kind == "pay", kind
        return fresh

    def _open(self) -> OpenCustomer:
        number = self._randomness.randrange(30)
        self._users.append(f"user-{number}")
        amount_minor = self._randomness.choice((0, 1_000, 200_000, 5_000_000))
        return OpenCustomer(f"C-{number}", f"user-{number}", VERIFIER, amount_minor)

    def _open_merchant(self) -> OpenMerchant:
        number = self._randomness.randrange(9)
        self._merchants.append(f"M-{number}")
        return OpenMerchant(f"M-{number}", f"Shop {number}", self._randomness.choice((0, 77)))


@dataclass
class _Account:
    user_id: str
    minor: int
    failure_count: int = 0
    locked_until_ms: int = 0


class Books:
    """A ledger by the requirements alone: R5 to R9, T1 to T6, T15."""

    def __init__(self) -> None:
        self.customers: dict[str, _Account] = {}
        self.merchants: dict[str, int] = {}
        self.payments: dict[tuple[str, bytes], tuple[TransferOutcome, Reason, str]] = {}
        self.postings: list[tuple[str, str, str, int, str]] = []
        self.paid_tokens: set[tuple[str, str]] = set()
        self.sequence = 0

    def take(self, step: Step) -> None:
        """The step was done."""
        if isinstance(step, SkipUtrs):
            self.sequence = max(self.sequence, step.sequence)
        elif isinstance(step, Batch):
            for operation in step.operations:
                self._take(operation, step.now)

    def state(self) -> Hashable:
        """As `BankStory.look`."""
        return (
            frozenset(
                (name, a.user_id, a.minor, a.failure_count, a.locked_until_ms) for name, a in self.customers.items()
            ),
            frozenset(self.merchants.items()),
            tuple((*key, *final) for key, final in self.payments.items()),
            tuple(self.postings),
            self.sequence,
        )

    def _take(self, operation: Operation, now: Now) -> None:
        if isinstance(operation, OpenCustomer):
            self.customers.setdefault(operation.customer_id, _Account(operation.user_id, operation.amount_minor))
        elif isinstance(operation, OpenMerchant):
            self.merchants.setdefault(operation.merchant_id, operation.amount_minor)
        elif not isinstance(operation, FindPayment):
            key = (operation.terms.gateway_id, operation.terms.payment_id)
            if key in self.payments:
                return  # T1: final, whatever is asked now
            if isinstance(operation, Resolve):
                self.payments[key] = TransferOutcome.FENCED, Reason.FENCED, ""
                return
            reason = self._refusal(operation, now)
            outcome = TransferOutcome.DECLINED if reason else TransferOutcome.POSTED
            self.payments[key] = outcome, reason, "" if reason else self._post(operation, now)

    def _refusal(self, transfer: Transfer, now: Now) -> Reason:
        terms, opened = transfer.terms, transfer.opened
        if now.mono_ms >= transfer.deadline_mono_ms or abs(terms.authorised_at_ms - now.wall_ms) > 300_000:
            return Reason.LATE
        if isinstance(opened, Reason):
            return opened
        if (terms.gateway_id, terms.transaction_id) in self.paid_tokens:
            return Reason.TOKEN_ALREADY_PAID
        if terms.merchant_id not in self.merchants:
            return Reason.MERCHANT_UNKNOWN
        account = self._account_of(opened.user_id)
        if account is None or now.wall_ms < account.locked_until_ms:
            return Reason.CREDENTIALS
        if opened.verifier != VERIFIER:
            account.failure_count += 1
            lock_s = 0 if account.failure_count < 3 else min(3_600, 30 * 2 ** (account.failure_count - 3))
            account.locked_until_ms = now.wall_ms + lock_s * 1_000
            return Reason.CREDENTIALS
        account.failure_count = account.locked_until_ms = 0
        return Reason.FUNDS if account.minor < terms.amount_minor else Reason.NONE

    def _post(self, transfer: Transfer, now: Now) -> str:
        terms = transfer.terms
        assert isinstance(transfer.opened, Opened)
        name, account = next((n, a) for n, a in self.customers.items() if a.user_id == transfer.opened.user_id)
        account.minor -= terms.amount_minor
        self.merchants[terms.merchant_id] += terms.amount_minor
        self.paid_tokens.add((terms.gateway_id, terms.transaction_id))
        self.sequence += 1
        utr = f"PGBKP120260102{self.sequence:08d}"  # no story lasts until the next day
        self.postings.append((utr, name, terms.merchant_id, terms.amount_minor, terms.transaction_id))
        return utr

    def _account_of(self, user_id: str) -> _Account | None:
        return next((a for a in self.customers.values() if a.user_id == user_id), None)
