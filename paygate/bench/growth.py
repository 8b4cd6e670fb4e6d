"""How a payment's cost, a start and the memory grow with what a server holds.

A payment's cost is the processor time that both servers and the decoder take for it: unlike a rate, it says nothing
about what else the machine does. A start is measured from exec until the server listens; recovery is a start after
SIGKILL under load.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import Final

from paygate.bank.keys import find_link_key, load_identity, load_pepper, load_receipt_key
from paygate.bank.ledger import Opened, PaymentOutcome, Transfer
from paygate.bank.server import LEDGER_NAME
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.bench.load import Links
from paygate.bench.measure import Shoppers
from paygate.bench.orders import Clients, Customer, Order, make_customers, suite_key_of
from paygate.bench.results import Growth, Results
from paygate.bench.system import BANK_ID, CURRENCY, CUSTOMER_COUNT, GATEWAY_ID, BenchSystem, Server, order_of, running
from paygate.bench.workers import make_workers
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.client.root import read_root
from paygate.clock import system_now
from paygate.codec import limits
from paygate.codec.codes import KemId, Role, TransferOutcome
from paygate.codec.seal import verifier_of
from paygate.codec.sealed import Terms
from paygate.gateway.settings import STORE_NAME
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import BeginPayment, SettlePayment

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
CONNECTION_COUNTS: Final = (1, 4, 16, 64, 256, 1024, 4096)
CONNECTION_COUNT: Final = 64
"""Busy connections while something else grows."""
WARM_COUNT: Final = 500
PAYMENT_COUNT: Final = 5_000
"""Payments over which a cost is measured, unless they would take longer than this."""
CLOCKED_S_MAX: Final = 10.0
SETTLE_S: Final = 1.0
"""After the last hello, until a server's memory is read."""
_HISTORY_BATCH_COUNT: Final = 1_000


class GrowthRun:
    """Measures one subject after another, each on stores of its own below `directory`."""

    def __init__(self, directory: Path, results: Results, *, size_max: int, seed: int) -> None:
        self._directory = directory
        self._results = results
        self._sizes = [size for size in SIZES if size <= size_max]
        self._seed = seed

    def step_count(self, subjects: Sequence[str]) -> int:
        """How many steps these subjects take."""
        return sum(len(CONNECTION_COUNTS if subject == "connections" else self._sizes) for subject in subjects)

    def run(self, subjects: Sequence[str], step: Callable[[str], None]) -> None:
        """Measure these subjects. Raises PaygateExit."""
        with make_workers() as executor:
            for subject in subjects:
                if subject == "connections":
                    self._connections(executor, step)
                else:
                    self._sizes_of(subject, executor, step)

    def _sizes_of(self, subject: str, executor: Executor, step: Callable[[str], None]) -> None:
        costs: list[tuple[float, float]] = []
        starts: dict[str, list[tuple[float, float]]] = {}
        for size in self._sizes:
            step(f"{size} {subject}")
            system = BenchSystem(self._directory / f"{subject}-{size}")
            system.create()
            made = make_customers(size if subject == "accounts" else CUSTOMER_COUNT, self._seed)
            system.add_accounts(made)
            # The tokens that are paid lie among the others.
            token_count = max(size if subject == "tokens" else 0, WARM_COUNT + PAYMENT_COUNT)
            system.add_orders(order_of(number, made) for number in range(token_count))
            if subject == "history":
                add_history(system, [order_of(token_count + number, made) for number in range(size)])
            stride = token_count // (WARM_COUNT + PAYMENT_COUNT)
            orders = (order_of(number * stride, made) for number in range(WARM_COUNT + PAYMENT_COUNT))
            with running(system):
                assert system.bank is not None
                assert system.gateway is not None
                for server in (system.bank, system.gateway):
                    starts.setdefault(f"start of the {server.role}", []).append((size, server.start_s))
                costs.append((size, self._cost_us(system, orders, CONNECTION_COUNT, executor)))
            for role, seconds in recovery_s(system).items():
                starts.setdefault(f"recovery of the {role}", []).append((size, seconds))
        self._keep(f"Cost of a payment against {subject}", subject, "processor us a payment", costs)
        for name, points in starts.items():
            self._keep(f"{name.capitalize()} against {subject}", subject, "s", points)

    def _connections(self, executor: Executor, step: Callable[[str], None]) -> None:
        customers = make_customers(CUSTOMER_COUNT, self._seed)
        count = (WARM_COUNT + PAYMENT_COUNT) * len(CONNECTION_COUNTS)
        system = BenchSystem(self._directory / "connections")
        system.create()
        system.add_accounts(customers)
        system.add_orders(order_of(number, customers) for number in range(count))
        orders = (order_of(number, customers) for number in range(count))
        costs: list[tuple[float, float]] = []
        memory: dict[str, list[tuple[float, float]]] = {}
        for connections in CONNECTION_COUNTS:
            step(f"{connections} connections")
            for role, size in idle_bytes(self._directory / f"idle-{connections}", connections).items():
                memory.setdefault(role, []).append((connections, size * connections / 2**20))
            with running(system):
                some = islice(orders, WARM_COUNT + PAYMENT_COUNT)
                costs.append((connections, self._cost_us(system, some, connections, executor)))
        self._keep("Cost of a payment against connections", "connections", "processor us a payment", costs)
        for role, points in memory.items():
            self._keep(f"Memory of the {role} against idle connections", "connections", "MiB more than without", points)

    def _cost_us(self, system: BenchSystem, orders: Iterator[Order], connections: int, executor: Executor) -> float:
        assert system.bank is not None
        assert system.gateway is not None
        pids = [system.gateway.process.pid, system.bank.process.pid, *_children(system.bank.process.pid)]
        links = Links(system.gateway.address, connections)
        before_ns = 0

        def before_clock() -> None:
            nonlocal before_ns
            before_ns = sum(map(processor_ns, pids))

        try:
            shoppers = Shoppers(
                links,
                orders,
                executor,
                bank_id=BANK_ID,
                root_key=read_root(system.root_key_path).public_key,
                choose=lambda key_list: suite_key_of(key_list, KemId.X25519),
                clients=Clients.PREPARED,
                before_clock=before_clock,
            )
            rate = shoppers.pay(WARM_COUNT).rate
            count = min(PAYMENT_COUNT, max(WARM_COUNT, int(rate * CLOCKED_S_MAX)))
            shoppers.pay(count)
            return (sum(map(processor_ns, pids)) - before_ns) / 1000 / count
        finally:
            links.close()

    def _keep(self, name: str, x_label: str, y_label: str, points: list[tuple[float, float]]) -> None:
        self._results.growth.append(Growth(name, x_label, y_label, points))


# -- what a system is made to hold -----------------------------------------------------------------------


def add_history(system: BenchSystem, orders: Sequence[Order]) -> None:
    """Pay these orders in both stores, while no server runs, as if it had been done before. Raises StoreError."""
    system.add_orders(orders)
    bank = system.root / "bank"
    pepper = load_pepper(bank)
    ledger = SqliteLedger(bank / LEDGER_NAME, load_identity(bank), load_receipt_key(bank))
    tokens = SqliteTokens(system.root / "gateway" / STORE_NAME)
    with contextlib.closing(ledger), contextlib.closing(tokens):
        for start in range(0, len(orders), _HISTORY_BATCH_COUNT):
            batch = orders[start : start + _HISTORY_BATCH_COUNT]
            now = system_now()
            paid = [(_terms(order, now.wall_ms), os.urandom(limits.HASH_SIZE), order.customer) for order in batch]
            tokens.apply([BeginPayment(terms, envelope_hash) for terms, envelope_hash, _ in paid], now)
            transfers = [
                Transfer(terms, envelope_hash, _opened(pepper, customer), now.mono_ms + limits.SESSION_MS)
                for terms, envelope_hash, customer in paid
            ]
            outcomes = ledger.apply(transfers, now)
            settled = []
            for (terms, _, _), outcome in zip(paid, outcomes, strict=True):
                assert isinstance(outcome, PaymentOutcome)
                assert outcome.outcome is TransferOutcome.POSTED
                settled.append(
                    SettlePayment(terms.payment_id, outcome.outcome, outcome.reason, outcome.utr, outcome.receipt)
                )
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


# -- what is read off a process --------------------------------------------------------------------------


def recovery_s(system: BenchSystem) -> dict[str, float]:
    """How long each server's start takes after both were killed. Raises PaygateExit."""
    system.start()
    system.kill()
    with running(system):
        assert system.bank is not None
        assert system.gateway is not None
        return {server.role: server.start_s for server in (system.bank, system.gateway)}


def idle_bytes(directory: Path, connections: int) -> dict[str, float]:
    """What each server's memory grows by for each of so many connections that said hello and ask nothing.

    On servers of their own that hold nothing: what a start needs and gives back would be used again, and hide the
    growth. Raises PaygateExit.
    """
    system = BenchSystem(directory)
    system.create()
    with running(system):
        return _idle_bytes_of(system, connections)


def _idle_bytes_of(system: BenchSystem, connections: int) -> dict[str, float]:
    bank, gateway = system.bank, system.gateway
    assert bank is not None
    assert gateway is not None
    link_key = find_link_key(system.root / "bank", GATEWAY_ID)
    return {
        "gateway": _idle_bytes(gateway, lambda: Links(gateway.address, connections)),
        "bank": _idle_bytes(
            bank,
            lambda: Links(bank.address, connections, role=Role.GATEWAY, party_id=GATEWAY_ID, link_key=link_key),
        ),
    }


def _idle_bytes(server: Server, connect: Callable[[], Links]) -> float:
    before = resident_bytes(server.process.pid)
    links = connect()
    try:
        time.sleep(SETTLE_S)
        return (resident_bytes(server.process.pid) - before) / len(links)
    finally:
        links.close()


def resident_bytes(pid: int) -> int:
    """The memory of a process that it shares with no other (Linux)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) * 1024


def processor_ns(pid: int) -> int:
    """The processor time of a process's one thread so far (Linux)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0])


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
