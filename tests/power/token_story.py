"""A gateway's tokens: issued, tried, cancelled, paid and not paid, and what the store must hold after each of it."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from bank_books import ENVELOPE_HASH
from builders import NOW_MS, PASSCODE, build_terms
from gateway.world import build_token, payment_id
from power.older_stores import of_older_version
from power.story import CHECKPOINT_PAGE_COUNTS, Batch, Clock, Restart, State, Step, Story, weighted

from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.sealed import Terms
from paygate.files import sqlite
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import (
    BeginPayment,
    CancelToken,
    CheckToken,
    FindPayment,
    IssueToken,
    Operation,
    RecallPayment,
    SettlePayment,
    Token,
    TokenState,
)

TOKENS_PATH = Path("tokens.sqlite")
_WEIGHTS = {
    "issue": 6,
    "check": 8,
    "wrong passcode": 12,
    "begin": 20,
    "settle": 18,
    "begin again": 2,
    "find": 3,
    "find with a wrong passcode": 2,
    "recall": 2,
    "cancel": 3,
    "unknown token": 1,
}
_OUTCOMES = {
    TransferOutcome.POSTED: Reason.NONE,
    TransferOutcome.DECLINED: Reason.FUNDS,
    TransferOutcome.FENCED: Reason.FENCED,
    TransferOutcome.MISMATCH: Reason.NONE,
}


@dataclass
class TokenStory(Story):
    """The story of a gateway's store."""

    store_name: ClassVar[str] = "tokens"

    def open(self, vfs: str) -> SqliteTokens:
        return SqliteTokens(TOKENS_PATH, vfs=vfs)

    def do(self, store: SqliteTokens, step: Step) -> Any:
        assert isinstance(step, Batch)
        return store.apply(step.operations, step.now)

    def look(self, store: SqliteTokens) -> State:
        tokens, payments = tuple(store.tokens()), tuple(store.payments())
        held = (
            tuple(
                (t.transaction_id, t.state, t.payment_id, t.utr, t.wrong_passcode_count, t.locked_until_ms)
                for t in tokens
            ),
            tuple(
                (p.payment_id, p.terms.transaction_id, p.outcome, p.reason, p.utr, p.begun_ms, p.ended_ms)
                for p in payments
            ),
            tuple(p.payment_id for p in store.payments_in_flight()),
        )
        return held, (tokens, payments)


def token_story(seed: int) -> TokenStory:
    """The story that this seed tells."""
    randomness = Random(f"token story {seed}")
    limits = ((sqlite, "CHECKPOINT_PAGE_COUNT", randomness.choice(CHECKPOINT_PAGE_COUNTS)),)
    story = TokenStory(seed, limits=limits, model=Desk())
    teller = _Teller(randomness)
    issued = tuple(teller.issue() for _ in range(randomness.randrange(6, 20)))
    steps: list[Step] = [Batch((), teller.clock.advance(0)), Batch(issued, teller.clock.advance(1))]
    for _ in range(randomness.randrange(16, 28)):
        if randomness.random() < 0.05:
            steps.append(Restart())
            continue
        now = teller.clock.advance(randomness.choice((0, 5, 1_000, 60_000, 500_000)))
        size = randomness.choice((1, 1, 2, 3, 8, 20))
        steps.append(Batch(tuple(teller.operation() for _ in range(size)), now))
    story.steps = steps
    return of_older_version(story, TOKENS_PATH)


class _Teller:
    """Makes up what the gateway is asked."""

    def __init__(self, randomness: Random) -> None:
        self.clock = Clock()
        self._randomness = randomness
        self._tokens: list[Token] = []
        self._begun: list[Terms] = []
        self._unknown_count = 0

    def operation(self) -> Operation:
        """Any operation at all."""
        randomness = self._randomness
        token = randomness.choice(self._tokens)
        kind = weighted(randomness, _WEIGHTS)
        terms = randomness.choice(self._begun[-6:]) if self._begun else None
        if terms is None and kind in ("settle", "begin again", "find", "find with a wrong passcode", "recall"):
            kind = "begin"
        match kind:
            case "issue":
                return self.issue()
            case "check":
                return CheckToken(token.transaction_id, PASSCODE)
            case "wrong passcode":
                # Of one of two, so that some are locked.
                return CheckToken(randomness.choice(self._tokens[:2]).transaction_id, "0000")
            case "unknown token":
                # Each is tried once: such tries are counted in memory, and a restart may forget them.
                self._unknown_count += 1
                return CheckToken(f"TX-nobody-{self._unknown_count}", PASSCODE)
            case "cancel":
                return CancelToken(token)
        if kind == "begin":
            terms = build_terms(
                payment_id=payment_id(f"power {len(self._begun)}"),
                transaction_id=token.transaction_id,
                amount_minor=token.amount_minor,
            )
            self._begun.append(terms)
        assert terms is not None
        match kind:
            case "find":
                return FindPayment(terms.payment_id, terms.transaction_id, PASSCODE)
            case "find with a wrong passcode":
                return FindPayment(terms.payment_id, terms.transaction_id, "0000")
            case "recall":
                return RecallPayment(terms.payment_id, terms.session_id, ENVELOPE_HASH)
            case "settle":
                outcome, reason = randomness.choice(list(_OUTCOMES.items()))
                utr = f"PGBKP120260102{randomness.randrange(10**8):08d}" if outcome is TransferOutcome.POSTED else ""
                return SettlePayment(terms.payment_id, outcome, reason, utr, randomness.randbytes(300))
        return BeginPayment(terms, ENVELOPE_HASH)

    def issue(self) -> IssueToken:
        """A token that is new, or, seldom, one that is there."""
        randomness = self._randomness
        if self._tokens and randomness.random() < 0.1:
            return IssueToken(randomness.choice(self._tokens))
        expires_ms = randomness.choice((None, None, NOW_MS + self.clock.ms + 100_000))
        number = len(self._tokens)
        token = build_token(transaction_id=f"TX-{100 + number}", amount_minor=1 + number, expires_ms=expires_ms)
        self._tokens.append(token)
        return IssueToken(token)


@dataclass
class _Token:
    issued: Token
    state: TokenState = TokenState.UNPAID
    payment_id: bytes | None = None
    utr: str = ""
    wrong_count: int = 0
    locked_until_ms: int = 0


@dataclass
class _Payment:
    terms: Terms
    begun_ms: int
    outcome: TransferOutcome | None = None
    reason: Reason = Reason.NONE
    utr: str = ""
    ended_ms: int | None = None


@dataclass
class Desk:
    """A gateway's tokens by the requirements alone: R1, R2, R9, T5, T16."""

    tokens: dict[str, _Token] = field(default_factory=dict)
    payments: dict[bytes, _Payment] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        """The step was done."""
        if isinstance(step, Batch):
            for operation in step.operations:
                self._take(operation, step.now)

    def state(self) -> Hashable:
        """As `TokenStory.look`."""
        return (
            tuple(
                (name, t.state, t.payment_id, t.utr, t.wrong_count, t.locked_until_ms)
                for name, t in self.tokens.items()
            ),
            tuple(
                (name, p.terms.transaction_id, p.outcome, p.reason, p.utr, p.begun_ms, p.ended_ms)
                for name, p in self.payments.items()
            ),
            tuple(name for name, p in self.payments.items() if p.outcome is None),
        )

    def _take(self, operation: Operation, now: Now) -> None:
        match operation:
            case IssueToken(token):
                self.tokens.setdefault(token.transaction_id, _Token(token))
            case CancelToken(token):
                known = self.tokens[token.transaction_id]
                if known.state is TokenState.UNPAID:
                    known.state = TokenState.CANCELLED
            case CheckToken(transaction_id, passcode):
                known_or_not = self.tokens.get(transaction_id)
                if known_or_not is not None and self._is_right(known_or_not, passcode, now):
                    self._expire(known_or_not, now)
            case FindPayment(_, transaction_id, passcode):
                self._is_right(self.tokens[transaction_id], passcode, now)
            case BeginPayment(terms, _):
                self._begin(terms, now)
            case SettlePayment(name, outcome, reason, utr, _):
                self._settle(name, outcome, reason, utr, now)

    def _is_right(self, token: _Token, passcode: str, now: Now) -> bool:
        """T16: the fifth wrong passcode locks for a quarter of an hour, and then the count begins anew."""
        if token.wrong_count == 5:
            if now.wall_ms < token.locked_until_ms:
                return False
            token.wrong_count = token.locked_until_ms = 0
        if passcode == token.issued.passcode:
            token.wrong_count = 0
            return True
        token.wrong_count += 1
        token.locked_until_ms = now.wall_ms + 900_000 if token.wrong_count == 5 else 0
        return False

    def _expire(self, token: _Token, now: Now) -> None:
        expires_ms = token.issued.expires_ms
        if token.state is TokenState.UNPAID and expires_ms is not None and now.wall_ms >= expires_ms:
            token.state = TokenState.EXPIRED

    def _begin(self, terms: Terms, now: Now) -> None:
        if terms.payment_id in self.payments:
            return
        token = self.tokens[terms.transaction_id]
        self._expire(token, now)
        if token.state is TokenState.UNPAID:
            token.state, token.payment_id = TokenState.IN_FLIGHT, terms.payment_id
            self.payments[terms.payment_id] = _Payment(terms, now.wall_ms)

    def _settle(self, name: bytes, outcome: TransferOutcome, reason: Reason, utr: str, now: Now) -> None:
        payment = self.payments.get(name)
        if payment is None or payment.outcome is not None:
            return  # a final outcome stays
        payment.outcome, payment.reason, payment.utr, payment.ended_ms = outcome, reason, utr, now.wall_ms
        token = self.tokens[payment.terms.transaction_id]
        if outcome is TransferOutcome.POSTED:
            token.state, token.payment_id, token.utr = TokenState.PAID, name, utr
        elif token.payment_id == name:
            token.state, token.payment_id = TokenState.UNPAID, None
