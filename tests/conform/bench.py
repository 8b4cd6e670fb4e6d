"""Runs the kit in this process against a real bank, many doubles at once, all on one loop."""

import json
import secrets
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conform.bugs import Bug
from conform.double import Double, Fault, Secrets
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from local_system import BANK_ID, GATEWAY_ID, LocalSystem

from paygate.bank.keys import load_receipt_key
from paygate.conform.bank_cases import BANK
from paygate.conform.bank_side import BankShared, open_till
from paygate.conform.bank_spenders import Spenders
from paygate.conform.cases import Case
from paygate.conform.runner import Outcome, Result, Run, turn_until
from paygate.conform.trial import Settings, Trial
from paygate.conform.world import KeyFiles, Use, World, WorldCustomer, default_world, read_world, write_world
from paygate.net.addresses import Address
from paygate.net.listen import raise_descriptor_limit
from paygate.net.loop import Loop

SECOND_GATEWAY_ID = "second-gateway"
GUESSED_COUNT = 40
SPENDING_COUNT = 60
PATIENCE_MS = 5_000
BUG_PATIENCE_MS = 1_500
"""How long the kit waits for a bank with a bug: most of them show in what never comes."""
PATIENT_MS = 10_000
"""Where a bug must be found by what it does with money, and not by a machine that is slow just then."""
WARM_UP_MS = 60_000
AT_ONCE_COUNT = 40
GUESSING_CASES = {
    f"bank.decline.{name}"
    for name in ("credentials_alike", "user_id_exact", "locked", "lock_ends", "failures_forgotten", "guess_burst")
} | {"bank.decline.wrong_password_not_looked_at", "bank.restart.lock"}
SPENDING_CASES = {f"bank.transfer.{name}" for name in ("balance", "one_debit", "overdraft_burst", "token_burst")} | {
    case.case_id for case in BANK if case.case_id.startswith("bank.no_debit_by.")
}
OWN_CUSTOMER_COUNT = {Use.PAYING: 1, Use.GUESSED: 8, Use.SPENDING: len(SPENDING_CASES)}
"""What one run of all cases is given of the world's customers, so that runs at the same time disturb each other not."""


def make_world(directory: Path) -> LocalSystem:
    """A bank that is set up for the kit, not started, with customers enough for several runs; and its world."""
    world = default_world(secrets.token_bytes(8))
    world["bank"] |= {"bank_id": BANK_ID, "bank_code": "DEMO", "root_public_key": "system/bank-root.txt"}
    world["gateway"] = {"gateway_id": GATEWAY_ID, "link_key": "system/link.key"}
    world["second_gateway"] = {"gateway_id": SECOND_GATEWAY_ID, "link_key": "system/second.key"}
    of_use = {use: [c for c in world["customers"] if c["use"] == use.name] for use in Use}
    world["customers"] = [
        *of_use[Use.PAYING],
        *_more(of_use[Use.GUESSED][0], GUESSED_COUNT),
        *_more(of_use[Use.SPENDING][0], SPENDING_COUNT),
    ]
    write_world(directory, world)
    system = LocalSystem(directory / "system", data=directory)
    system.create()
    system.command("bank", "add-gateway", SECOND_GATEWAY_ID, "--key-out", str(system.root / "second.key"))
    return system


def _more(customer: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [customer | {"user_id": f"{customer['user_id']}-{number}"} for number in range(count)]


@dataclass
class Bench:
    """A running bank, and the kit on a loop."""

    system: LocalSystem
    world: World
    loop: Loop = field(default_factory=Loop)
    password_keys: dict[Any, bytes] = field(default_factory=dict)
    """An Argon2id each, so they are made once for all runs."""

    def __post_init__(self) -> None:
        raise_descriptor_limit(4_096)
        self._customers = {use: deque(self.world.customers_for(use)) for use in Use}
        self._runs: list[Run] = []
        self._doubles: list[Double] = []
        bank = self.system.root / "bank"
        keys = {p.gateway_id: p.link_key for p in (self.world.gateway, self.world.second_gateway) if p is not None}
        root_key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((bank / "root.key").read_text().strip()))
        self.secrets = Secrets(keys, load_receipt_key(bank), root_key)

    def warm_up(self) -> None:
        """Make the password keys of all customers, right and wrong: an Argon2id in a run would stop all the others."""

        async def make(t: Trial) -> None:
            till = await open_till(t)
            for customer in t.world.customers:
                till.payment(customer)
            for customer in t.world.customers_for(Use.GUESSED):
                till.guess(customer)

        results: list[Result] = []
        case = Case("warm_up", ("8.3",), (), "keys", make, waits_ms=WARM_UP_MS, is_exclusive=False)
        self.turn_until(self.start([case], results, world=self.world, patience_ms=WARM_UP_MS))
        assert [result.outcome for result in results] == [Outcome.PASSED], results

    @property
    def bank_address(self) -> Address:
        """Where the real bank listens."""
        assert self.system.bank is not None
        return "127.0.0.1", self.system.bank.port

    def own_world(self) -> World:
        """The world with customers that no other run is given."""
        customers = [c for use, count in OWN_CUSTOMER_COUNT.items() for c in self._taken(use, count)]
        return replace(self.world, customers=tuple(customers))

    def _taken(self, use: Use, count: int) -> Iterator[WorldCustomer]:
        for _ in range(count):
            customer = self._customers[use].popleft()
            if use is Use.PAYING:
                self._customers[use].append(customer)  # everybody may pay
            yield customer

    def write_own_world(self, path: Path) -> None:
        """The same as a file, for the program; keys are named relative to it."""
        data = json.loads((path.parent / "world.json").read_bytes())
        own = {customer.user_id for customer in self.own_world().customers}
        data["customers"] = [c for c in data["customers"] if c["user_id"] in own]
        path.write_text(json.dumps(data))

    def start(
        self,
        cases: Iterable[Case],
        results: list[Result],
        fault: Fault | None = None,
        *,
        world: World,
        patience_ms: int = PATIENCE_MS,
        options: dict[str, Any] | None = None,
        connection_count_max: int = 10_000,
    ) -> Run:
        """Begin a run against the bank, or with a fault against a double before it; turn the loop to end it."""
        address = self.bank_address
        if fault is not None:
            double = Double(self.loop, address, self.secrets, fault, connection_count_max)
            self._doubles.append(double)
            address = double.address

        async def prepare(t: Trial) -> BankShared:
            return BankShared(Spenders(t.world.customers_for(Use.SPENDING)), self.password_keys)

        settings = Settings(address, world, patience_ms, options or {})
        return Run(self.loop, prepare, cases, settings, results.append, jobs=16)

    def turn_until(self, *runs: Run) -> None:
        """Turn the loop until all these runs are over."""
        turn_until(self.loop, lambda: all(run.is_over for run in runs))

    def run_bugs(self, bugs: Iterable[Bug], *others: Run) -> dict[str, Result]:
        """Run the case of each bug against a double that has it, and let the other runs end meanwhile.

        The results are found by the bug's text.
        """
        results: dict[str, list[Result]] = {}
        running: dict[Run, bool] = {}
        # The slow ones wait most of their time, so they begin first and take nobody's place.
        waiting = deque(sorted(bugs, key=lambda bug: -BANK[bug.case_id].waits_ms))

        def is_over() -> bool:
            for run in [run for run in running if run.is_over]:
                del running[run]
            while waiting and (BANK[waiting[0].case_id].waits_ms or sum(running.values()) < AT_ONCE_COUNT):
                bug = waiting.popleft()
                case = BANK[bug.case_id]
                run = self.start(
                    [case],
                    results.setdefault(str(bug), []),
                    bug.fault(),
                    world=self._bug_world(bug),
                    patience_ms=PATIENT_MS if bug.case_id in SPENDING_CASES else BUG_PATIENCE_MS,
                    options=bug.options,
                )
                running[run] = not case.waits_ms
            return not running and not waiting and all(run.is_over for run in others)

        turn_until(self.loop, is_over)
        return {name: found[0] for name, found in results.items()}

    def _bug_world(self, bug: Bug) -> World:
        needs = {Use.PAYING: 1, Use.GUESSED: 0, Use.SPENDING: 0}
        if bug.case_id in GUESSING_CASES:
            needs[Use.GUESSED] = 1
        if bug.case_id in SPENDING_CASES:
            needs[Use.SPENDING] = 1
        customers = [c for use, count in needs.items() for c in self._taken(use, count)]
        return replace(self.world, customers=tuple(customers))

    def close(self) -> None:
        """Cut everything."""
        for double in self._doubles:
            double.close()
        for _ in range(3):
            self.loop.run_once(0)
            self.loop.flush()
        self.loop.close()


def read_own_world(directory: Path) -> World:
    """The world that `make_world` wrote."""
    return read_world(directory / "world.json", KeyFiles())


def copied(system: LocalSystem, target: Path) -> LocalSystem:
    """The same bank, not started, in a directory of its own."""
    shutil.copytree(system.root.parent, target)
    return LocalSystem(target / "system", data=target)
