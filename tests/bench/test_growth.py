"""Growth, end to end on the smallest sizes: what is kept, what days gone by leave, and what a crash leaves running."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paygate.bench import footprint, growth
from paygate.bench.growth import ROUND_COUNT, GrowthRun, plan_of, recovery_s
from paygate.bench.holdings import add_history, days_ago, days_of
from paygate.bench.measure import READ_TEXT
from paygate.bench.orders import make_customers
from paygate.bench.report import report
from paygate.bench.results import Results
from paygate.bench.system import BenchSystem, Server, order_of, running
from paygate.cli import PaygateExit
from paygate.clock import utc_text

CUSTOMERS = make_customers(20, seed=1)


def test_a_plan_pays_no_more_tokens_than_there_are() -> None:
    for token_count in (1_000, 10_000, 10_000_000):
        plan = plan_of(token_count)
        numbers = list(plan.numbers())
        assert plan.token_count == token_count
        assert len(numbers) >= plan.warm_count + ROUND_COUNT * plan.payment_count
        assert numbers == sorted(set(numbers))
        assert numbers[-1] < token_count
        assert plan.payment_count >= 100


def test_what_grows_is_kept_for_each_size_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SIZES", (1_000,))
    monkeypatch.setattr(growth, "CONNECTION_COUNTS", (4,))
    monkeypatch.setattr(growth, "PAYMENT_COUNT", 60)
    monkeypatch.setattr(growth, "WARM_COUNT", 50)
    monkeypatch.setattr(growth, "START_COUNT", 1)
    monkeypatch.setattr(growth, "CUSTOMER_COUNT", 100)
    results = Results({}, {})
    steps: list[str] = []
    run = GrowthRun(tmp_path, results, size_max=1_000, seed=1)
    monkeypatch.setattr(footprint, "SETTLE_S", 0.1)
    subjects = ["connections-log", "connections"]
    run.run(subjects, steps.append)
    assert len(steps) == run.step_count(subjects) == 2
    assert list(tmp_path.iterdir()) == []  # each size is removed before the next
    points = {one.name: one.points for one in results.growth}
    ((size, cost),) = points["Cost of a payment against connections-log"]
    assert size == 1_000
    assert cost > 0
    for name in ("Start of the bank", "Start of the gateway", "Recovery of the bank", "Recovery of the gateway"):
        ((size, seconds),) = points[f"{name} against connections-log"]
        assert 0 < seconds < 60
    assert points["Cost of a payment against days of connections-log"][0][0] == 1
    assert points["Cost of a payment against text records of connections-log"][0][0] > 0.1  # MB
    assert [x for x, _ in points["Cost of a payment against connections"]] == [4]
    assert results.options["token queries"] == READ_TEXT
    assert "Cost of a payment against connections-log" in report(results)


def test_history_lies_on_days_gone_by(tmp_path: Path) -> None:
    system = BenchSystem(tmp_path / "system")
    system.create()
    system.add_accounts(CUSTOMERS, days_ago(days_of(2_500) + 1))
    add_history(system, CUSTOMERS, 0, 2_500)
    with running(system):
        pass
    for path, column in (("bank/TransactionID.txt", -1), ("gateway/GatewayTransaction.txt", 0)):
        rows = [line.split("|") for line in (system.root / path).read_text().splitlines() if not line.startswith("#")]
        assert len(rows) == 2_500, path
        days = {row[column].strip()[:10] for row in rows}
        assert days == {_day(ago) for ago in (3, 2, 1)}, path


def _day(ago: int) -> str:
    return utc_text(days_ago(ago).wall_ms)[:10]


class _Watched(BenchSystem):
    """A system that remembers what it started, and does something when a gateway is started."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.started: list[Server] = []
        self.in_gateway: Callable[[], None] = lambda: None

    def _start(self, role: str, argv: Sequence[str], *options: str) -> Server:
        if role == "gateway":
            self.in_gateway()
        server = super()._start(role, argv, *options)
        self.started.append(server)
        return server


@pytest.fixture
def system(tmp_path: Path) -> _Watched:
    system = _Watched(tmp_path / "system")
    system.create()
    system.add_accounts(CUSTOMERS)
    system.add_orders(order_of(number, CUSTOMERS) for number in range(100))
    return system


def test_servers_are_killed_with_payments_in_flight(system: _Watched) -> None:
    orders = (order_of(number, CUSTOMERS) for number in range(100))
    with ThreadPoolExecutor(1) as executor:
        seconds = recovery_s(system, orders, executor)
    assert set(seconds) == {"bank", "gateway"}
    assert [server.process.returncode for server in system.started] == [-9, -9, 0, 0]
    rows = (system.root / "gateway" / "GatewayTransaction.txt").read_text().splitlines()
    begun = [row for row in rows if not row.startswith("#")]
    assert len(begun) < growth.KILLED_COUNT
    # Those in flight have an outcome since, or will have one: they are in the file because recovery found them.
    assert len(begun) > growth.KILLED_AFTER_COUNT


def test_a_recovery_that_is_interrupted_leaves_no_server_running(system: _Watched) -> None:
    def interrupted() -> None:
        if len(system.started) == 3:  # the bank, after both were killed
            raise SystemExit(143)

    system.in_gateway = interrupted
    orders = (order_of(number, CUSTOMERS) for number in range(100))
    with ThreadPoolExecutor(1) as executor, pytest.raises(SystemExit):
        recovery_s(system, orders, executor)
    assert len(system.started) == 3
    assert all(server.process.poll() is not None for server in system.started)


def test_a_gateway_that_does_not_start_leaves_no_bank_running(system: _Watched) -> None:
    system.gateway_argv = [sys.executable, "-c", "raise SystemExit(3)"]
    no_orders: Any = iter(())
    with ThreadPoolExecutor(1) as executor, pytest.raises(PaygateExit, match="the gateway did not start"):
        recovery_s(system, no_orders, executor)
    assert [server.process.poll() for server in system.started] == [0]
