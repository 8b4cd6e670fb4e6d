"""How a payment's cost, a start and the memory grow with what a server holds.

A payment's cost is the processor time that both servers and the decoder take for it: unlike a rate, it says nothing
about what else the machine does. It is the median of several rounds on the same servers. Clients seal as they pay, so
each token is queried once, and read from the database then, as a shopper's is.

A start is measured from exec until the server listens; recovery is a start after SIGKILL of both servers with payments
in flight.

What grows with payments that were made, and with connections that came and went, are text files too: their length is
told beside the rows.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Final

from paygate.bench.footprint import children, idle_bytes, processor_ns, text_bytes
from paygate.bench.holdings import add_connections, add_history, days_ago, days_of
from paygate.bench.load import Links, LoadFailed
from paygate.bench.measure import READ_TEXT, Shoppers
from paygate.bench.orders import Clients, Order, make_customers, suite_key_of
from paygate.bench.results import Growth, Results
from paygate.bench.system import BANK_ID, CUSTOMER_COUNT, BenchSystem, order_of, running
from paygate.bench.trend import trend_of
from paygate.bench.workers import make_workers
from paygate.client.root import read_root
from paygate.codec.codes import KemId

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SIZE_MAX: Final = {"tokens": 10_000_000, "accounts": 10_000_000, "history": 1_000_000, "connections-log": 1_000_000}
"""Largest number of rows, by subject. A payment of the history has a real receipt, and a log of more lines than that
should have been moved away."""
CONNECTION_COUNTS: Final = (1, 4, 16, 64, 256, 1024, 4096)
CONNECTION_COUNT: Final = 64
"""Busy connections while something else grows."""
WARM_COUNT: Final = 500
ROUND_COUNT: Final = 5
"""Rounds of which a cost is the median."""
PAYMENT_COUNT: Final = 1_000
"""Payments of a round, or a few for each connection; fewer where there are fewer tokens."""
START_COUNT: Final = 3
"""Starts, and recoveries, of which the median is told, unless one takes longer than this."""
REPEATED_S_MAX: Final = 10.0
KILLED_LINK_COUNT: Final = 16
KILLED_AFTER_COUNT: Final = 20
KILLED_COUNT: Final = 50
"""Payments on the way to a crash: so many are begun on so many links until both servers are killed."""
_COST_LABEL: Final = "processor us a payment"


@dataclass(frozen=True, slots=True)
class _Plan:
    """How many payments are made of a size's tokens."""

    token_count: int
    warm_count: int
    payment_count: int
    """Of a round."""

    def numbers(self) -> Iterator[int]:
        """The numbers of the tokens that are paid, which lie among the others."""
        paid_count = self.warm_count + ROUND_COUNT * self.payment_count + START_COUNT * KILLED_COUNT
        stride = self.token_count // paid_count
        return iter(range(0, paid_count * stride, stride))


def plan_of(token_count: int | None) -> _Plan:
    """The plan for a store of so many tokens, or of as many as are needed. A plan pays no more than there are."""
    killed_count = START_COUNT * KILLED_COUNT
    if token_count is None:
        token_count = WARM_COUNT + ROUND_COUNT * PAYMENT_COUNT + killed_count
    warm_count = min(WARM_COUNT, token_count // 5)
    payment_count = min(PAYMENT_COUNT, (token_count - warm_count - killed_count) // ROUND_COUNT)
    return _Plan(token_count, warm_count, payment_count)


@dataclass(slots=True)
class _Points:
    """What was measured of one subject, by what it is of; each with the size."""

    cost_us: list[tuple[float, float]] = field(default_factory=list)
    text_mb: list[tuple[float, float]] = field(default_factory=list)
    """The text files' length, and the cost beside it."""
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Starts and recoveries."""


class GrowthRun:
    """Measures one subject after another, each on stores of its own below `directory`, one at a time."""

    def __init__(self, directory: Path, results: Results, *, size_max: int, seed: int) -> None:
        self._directory = directory
        self._results = results
        self._size_max = size_max
        self._seed = seed

    def step_count(self, subjects: Sequence[str]) -> int:
        """How many steps these subjects take."""
        return sum(len(CONNECTION_COUNTS if subject == "connections" else self._sizes(subject)) for subject in subjects)

    def run(self, subjects: Sequence[str], step: Callable[[str], None]) -> None:
        """Measure these subjects. Raises PaygateExit."""
        self._results.options["token queries"] = READ_TEXT
        with make_workers() as executor:
            for subject in subjects:
                if subject == "connections":
                    self._connections(executor, step)
                else:
                    self._sizes_of(subject, executor, step)

    def _sizes(self, subject: str) -> list[int]:
        return [size for size in SIZES if size <= min(self._size_max, SIZE_MAX[subject])]

    # -- subjects of which a store holds many ----------------------------------------------------------

    def _sizes_of(self, subject: str, executor: Executor, step: Callable[[str], None]) -> None:
        points = _Points()
        for size in self._sizes(subject):
            step(f"{size} {subject}")
            system = BenchSystem(self._directory / f"{subject}-{size}")
            plan = plan_of(size if subject == "tokens" else None)
            orders = self._fill(system, subject, size, plan)
            self._measure(system, orders, size, plan, executor, points)
            shutil.rmtree(system.root)
        self._keep_costs(f"Cost of a payment against {subject}", subject, points.cost_us)
        if subject in ("history", "connections-log"):
            by_day = [(float(days_of(int(size))), cost) for size, cost in points.cost_us]
            self._keep_costs(f"Cost of a payment against days of {subject}", "days", by_day)
        # Without a verdict: the files of accounts are there from the first size on, so the length grows otherwise.
        name = f"Cost of a payment against text records of {subject}"
        self._keep(name, "MB of text records", _COST_LABEL, points.text_mb)
        for name, seconds in points.seconds.items():
            self._keep(f"{name.capitalize()} against {subject}", subject, "s", seconds)

    def _fill(self, system: BenchSystem, subject: str, size: int, plan: _Plan) -> Iterator[Order]:
        """Make the system hold what is asked for, and the tokens that are going to be paid: those it gives."""
        system.create()
        customers = make_customers(size if subject == "accounts" else CUSTOMER_COUNT, self._seed)
        # Opened before the first of the days, since the bank's time never goes back.
        system.add_accounts(customers, days_ago(days_of(size) + 1) if subject == "history" else None)
        if subject == "history":
            add_history(system, customers, plan.token_count, size)
        elif subject == "connections-log":
            add_connections(system, size)
        system.add_orders(order_of(number, customers) for number in range(plan.token_count))
        return (order_of(number, customers) for number in plan.numbers())

    def _measure(
        self,
        system: BenchSystem,
        orders: Iterator[Order],
        size: int,
        plan: _Plan,
        executor: Executor,
        points: _Points,
    ) -> None:
        starts: list[dict[str, float]] = []
        with running(system):
            starts.append(_starts_s(system))
            text_mb = text_bytes(system.root) / 1e6
            cost = _cost_us(system, orders, plan.warm_count, plan.payment_count, CONNECTION_COUNT, executor)
        points.cost_us.append((size, cost))
        points.text_mb.append((text_mb, cost))
        repeated_count = START_COUNT if sum(starts[0].values()) <= REPEATED_S_MAX else 1
        while len(starts) < repeated_count:
            with running(system):
                starts.append(_starts_s(system))
        recoveries = [recovery_s(system, orders, executor) for _ in range(repeated_count)]
        for name, measured in (("start", starts), ("recovery", recoveries)):
            for role in measured[0]:
                second = median(one[role] for one in measured)
                points.seconds.setdefault(f"{name} of the {role}", []).append((size, second))

    # -- connections -----------------------------------------------------------------------------------

    def _connections(self, executor: Executor, step: Callable[[str], None]) -> None:
        customers = make_customers(CUSTOMER_COUNT, self._seed)
        numbers = count()
        costs: list[tuple[float, float]] = []
        memory: dict[str, list[tuple[float, float]]] = {}
        for connections in CONNECTION_COUNTS:
            step(f"{connections} connections")
            idle = self._directory / f"idle-{connections}"
            for role, size in idle_bytes(idle, connections).items():
                memory.setdefault(role, []).append((connections, size * connections / 2**20))
            shutil.rmtree(idle)
            warm_count, payment_count = max(WARM_COUNT, connections), max(PAYMENT_COUNT, 2 * connections)
            some = islice(numbers, warm_count + ROUND_COUNT * payment_count)
            orders = [order_of(number, customers) for number in some]
            system = BenchSystem(self._directory / f"connections-{connections}")
            system.create()
            system.add_accounts(customers)
            system.add_orders(orders)
            with running(system):
                cost = _cost_us(system, iter(orders), warm_count, payment_count, connections, executor)
                costs.append((connections, cost))
            shutil.rmtree(system.root)
        self._keep_costs("Cost of a payment against connections", "connections", costs)
        for role, points in memory.items():
            self._keep(f"Memory of the {role} against idle connections", "connections", "MiB more than without", points)

    # -- results ---------------------------------------------------------------------------------------

    def _keep_costs(self, name: str, x_label: str, points: list[tuple[float, float]]) -> None:
        self._results.growth.append(Growth(name, x_label, _COST_LABEL, points, trend_of(points, "us")))

    def _keep(self, name: str, x_label: str, y_label: str, points: list[tuple[float, float]]) -> None:
        self._results.growth.append(Growth(name, x_label, y_label, points))


# -- one measurement -------------------------------------------------------------------------------------


def recovery_s(system: BenchSystem, orders: Iterator[Order], executor: Executor) -> dict[str, float]:
    """How long each server's start takes after both were killed while they had payments in flight.

    Raises PaygateExit.
    """
    paid = count(1)

    def on_paid() -> None:
        if next(paid) == KILLED_AFTER_COUNT:
            system.kill()

    with running(system):
        links, shoppers = _shoppers(system, orders, KILLED_LINK_COUNT, executor, on_paid=on_paid)
        try:
            shoppers.drive(KILLED_COUNT)
        except LoadFailed:
            if system.gateway is not None:
                raise
        finally:
            links.close()
        assert system.gateway is None, "more payments were made than it takes to be killed"
    with running(system):
        return _starts_s(system)


def _starts_s(system: BenchSystem) -> dict[str, float]:
    assert system.bank is not None
    assert system.gateway is not None
    return {server.role: server.start_s for server in (system.bank, system.gateway)}


def _cost_us(
    system: BenchSystem,
    orders: Iterator[Order],
    warm_count: int,
    payment_count: int,
    connections: int,
    executor: Executor,
) -> float:
    assert system.bank is not None
    assert system.gateway is not None
    pids = [system.gateway.process.pid, system.bank.process.pid, *children(system.bank.process.pid)]
    costs: list[float] = []
    links, shoppers = _shoppers(system, orders, connections, executor)
    try:
        shoppers.drive(warm_count)
        for _ in range(ROUND_COUNT):
            before_ns = sum(map(processor_ns, pids))
            shoppers.drive(payment_count)
            costs.append((sum(map(processor_ns, pids)) - before_ns) / 1000 / payment_count)
    finally:
        links.close()
    return median(costs)


def _shoppers(
    system: BenchSystem,
    orders: Iterator[Order],
    connections: int,
    executor: Executor,
    *,
    on_paid: Callable[[], None] = lambda: None,
) -> tuple[Links, Shoppers]:
    """Who pays, and their links, which are for the caller to close."""
    assert system.gateway is not None
    links = Links(system.gateway.address, connections)
    try:
        return links, Shoppers(
            links,
            orders,
            executor,
            bank_id=BANK_ID,
            root_key=read_root(system.root_key_path).public_key,
            choose=lambda key_list: suite_key_of(key_list, KemId.X25519),
            clients=Clients.SEALING,
            on_paid=on_paid,
        )
    except BaseException:
        links.close()
        raise
