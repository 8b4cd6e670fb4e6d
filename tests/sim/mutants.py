"""Bugs put into the real code on purpose: the simulator must catch each within its budget of seeds (Deliver 5).

`MUTANTS` is the table: what is broken (`bugs.py`), the seed that kills it, what breaks then, and in how many seeds a
search from nothing must find it. `python -m sim.hunt` searches; `test_mutants.py` runs each with its seed, and the same
seed without it. A bug that only a few kinds of faults can show is hunted in runs that have no others.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest
from sim import bugs
from sim.evil import make_evil
from sim.faults import Conditions, FaultKind, _draw, fair
from sim.invariants import Invariant as I
from sim.model import Model
from sim.plan import BANK, draw_plan
from sim.runner import new_world
from sim.shrink import Failure, failure_of
from sim.world import World, _empty_stores

FAULT_COUNT_EACH: Final = 8
"""Of each kind in runs that have certain kinds only."""
Kinds = tuple[FaultKind, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug, and how it is caught."""

    name: str
    what: str
    put_in: Callable[[pytest.MonkeyPatch], None]
    seed: int
    """Its quickest killer known; `python -m sim.hunt --update` writes it."""
    breaks: I
    budget: int
    """Seeds in which a search must find it."""
    only: Kinds = ()
    """The kinds of faults that its runs have; none for whatever a seed brings."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The code with the bug in it."""
        with pytest.MonkeyPatch.context() as patch:
            self.put_in(patch)
            _empty_stores.cache_clear()  # databases that were made with the right schema
            try:
                yield
            finally:
                _empty_stores.cache_clear()

    def run(self, seed: int) -> Failure | None:
        """A seed with the bug; how it failed."""
        with self.applied():
            return self.run_without(seed)

    def run_without(self, seed: int) -> Failure | None:
        """The same seed with the code as it is."""
        return failure_of(world_of(seed, self.only))


def world_of(seed: int, only: Kinds = ()) -> World:
    """The world of a seed, or one with the same people and a few faults of these kinds."""
    if not only:
        return new_world(seed)
    plan = draw_plan(random.Random(f"{seed}/plan"))
    source = random.Random(f"{seed}/{'/'.join(kind.name for kind in only)}")
    servers = [BANK, *(gateway.gateway_id for gateway in plan.gateways if not gateway.is_evil)]
    customers = [customer.name for customer in plan.customers]
    drawn = sorted((source.randrange(plan.active_ms), kind.name) for kind in only for _ in range(FAULT_COUNT_EACH))
    faults = tuple(
        _draw(source, index, at_ms, FaultKind[name], servers, customers) for index, (at_ms, name) in enumerate(drawn)
    )
    return World(seed, Model(), make_evil=make_evil, plan=plan, conditions=Conditions(faults, fair, 2_000))


F = FaultKind
MUTANTS: Final = (
    Mutant("synchronous-normal", "SQLite's PRAGMA synchronous is NORMAL", bugs.synchronous_normal, 10, I.I3, 200),
    Mutant("reply-before-commit", "a tick sends its replies, then commits", bugs.reply_before_commit, 7, I.I3, 200),
    Mutant(
        "fsync-retried",
        "a failed fsync is asked for again",
        bugs.fsync_retried,
        7,
        I.I3,
        500,
        (F.FSYNC_ERROR, F.POWER_CUT),
    ),
    Mutant(
        "log-taken-as-it-is",
        "a start trusts an unsynced log",
        bugs.log_taken_as_it_is,
        3,
        I.I3,
        500,
        (F.FSYNC_ERROR, F.POWER_CUT),
    ),
    Mutant("token-not-unique", "no unique index on posted tokens, and no check", bugs.token_not_unique, 1, I.I2, 200),
    Mutant("payment-id-not-unique", "no UNIQUE on payment IDs, and no check", bugs.payment_id_not_unique, 1, I.I2, 200),
    Mutant("hash-not-in-receipt", "the envelope's hash is not in the receipt", bugs.hash_not_in_receipt, 1, I.I6, 10),
    Mutant("hash-not-matched", "the client does not match the envelope's hash", bugs.hash_not_matched, 44, I.I6, 500),
    Mutant("fence-not-durable", "a fence is answered and not kept", bugs.fence_not_durable, 4, I.I3, 50),
    Mutant("attempts-later", "a wrong password is counted after its answer", bugs.attempts_counted_later, 1, I.I3, 50),
    Mutant("utrs-anew", "UTRs begin anew after a restart", bugs.utrs_begin_anew, 7, I.I5, 50),
    Mutant("balance-not-checked", "a balance may be overdrawn", bugs.balance_not_checked, 26, I.I1, 100),
    Mutant("lock-not-asked", "a locked account takes the right password", bugs.lock_not_asked, 24, I.AUTHORITY, 200),
    Mutant("window-not-checked", "an old envelope counts", bugs.window_not_checked, 17, I.AUTHORITY, 200),
    Mutant("balances-unwritten", "a batch's balances are lost", bugs.balances_left_unwritten, 4, I.I1, 50),
    Mutant("read-ahead-blind", "repeats are taken for new", bugs.read_ahead_finds_nothing, 133, I.I2, 200),
    Mutant("passcode-lock-not-asked", "a lock is opened", bugs.passcode_lock_not_asked, 13, I.AUTHORITY, 50),
    Mutant("withdrawn-begun", "a withdrawn token is paid", bugs.withdrawn_token_begun, 7, I.AUTHORITY, 500),
    Mutant("expiry-not-asked", "a token is paid after its time", bugs.expiry_not_asked, 7, I.AUTHORITY, 500),
    Mutant("other-name", "another merchant is shown", bugs.other_merchants_name, 6, I.AUTHORITY, 10),
    Mutant("released-unresolved", "a token is free at a timeout", bugs.released_without_resolving, 19, I.I4, 50),
    Mutant("matched-by-socket", "a result settles what waits longest", bugs.matched_by_socket, 7, I.I4, 50),
    Mutant("flights-forgotten", "payments in flight are not taken up at a start", bugs.flights_forgotten, 4, I.I9, 50),
    Mutant("expiry-not-kept", "that a token is over is not kept", bugs.expiry_not_kept, 55, I.I3, 500, (F.CLOCK_JUMP,)),
    Mutant("tries-not-kept", "wrong passcodes are not counted", bugs.passcode_tries_not_kept, 1, I.I3, 50),
    Mutant("key-list-goes-back", "an older key list is taken", bugs.key_list_goes_back, 24, I.I7, 500),
    Mutant("other-terms", "the client believes a receipt of other terms", bugs.receipt_of_other_terms, 38, I.I6, 200),
    Mutant("receipt-not-verified", "the client believes a forged receipt", bugs.receipt_not_verified, 6, I.I6, 200),
    Mutant(
        "saved-after-sending",
        "credentials leave before their record",
        bugs.saved_after_sending,
        54,
        I.I6,
        500,
        (F.CLIENT_KILL,),
    ),
)
