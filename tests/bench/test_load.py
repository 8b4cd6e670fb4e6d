"""The load generator against real servers: every payment paid and checked, stalls seen, wrong answers refused."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from local_system import wait_until

from paygate.bench.load import Links, LoadFailed
from paygate.bench.measure import Shoppers, ask_key_list
from paygate.bench.orders import Clients, Order, WrongAnswer, make_customers, suite_key_of
from paygate.bench.system import BANK_ID, BenchSystem, order_of, running
from paygate.cli import PaygateExit
from paygate.client.root import read_root
from paygate.codec.codes import KemId

CUSTOMERS = make_customers(50, seed=1)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchSystem]:
    system = BenchSystem(tmp_path_factory.mktemp("bench"))
    system.create()
    system.add_accounts(CUSTOMERS)
    system.add_orders(order_of(number, CUSTOMERS) for number in range(1000))
    with running(system):
        yield system


def shoppers(system: BenchSystem, links: Links, orders: list[Order], clients: Clients, suite: KemId) -> Shoppers:
    return Shoppers(
        links,
        iter(orders),
        ThreadPoolExecutor(1),
        bank_id=BANK_ID,
        root_key=read_root(system.root_key_path).public_key,
        choose=lambda key_list: suite_key_of(key_list, suite),
        clients=clients,
    )


@pytest.fixture
def links(system: BenchSystem) -> Iterator[Links]:
    assert system.gateway is not None
    links = Links(system.gateway.address, 8)
    yield links
    links.close()


@pytest.mark.parametrize(
    ("clients", "suite", "numbers"),
    [
        (Clients.PREPARED, KemId.X25519, range(100)),
        (Clients.SEALING, KemId.MLKEM768_X25519, range(100, 200)),
    ],
)
def test_every_order_is_paid_with_a_receipt_that_verifies(
    system: BenchSystem, links: Links, clients: Clients, suite: KemId, numbers: range
) -> None:
    orders = [order_of(number, CUSTOMERS) for number in numbers]
    paid = shoppers(system, links, orders, clients, suite).pay(100)
    assert paid.payment_count == 100
    assert paid.rate > 0
    records = system.root / "bank" / "TransactionID.txt"
    # The text files follow the commits within WRITE_DELAY_MS.
    wait_until(lambda: all(f" {order.transaction_id} " in records.read_text() for order in orders), "the records")


def test_a_customer_with_a_wrong_password_key_stops_the_run(system: BenchSystem, links: Links) -> None:
    orders = [order_of(number, CUSTOMERS) for number in range(200, 300)]
    orders[57] = replace(orders[57], customer=replace(orders[57].customer, password_key=bytes(32)))
    with pytest.raises(WrongAnswer, match="DECLINED"):
        shoppers(system, links, orders, Clients.PREPARED, KemId.X25519).pay(100)


def test_a_token_that_is_paid_already_stops_the_run(system: BenchSystem, links: Links) -> None:
    orders = [order_of(number, CUSTOMERS) for number in range(300, 400)]
    shoppers(system, links, orders, Clients.PREPARED, KemId.X25519).pay(100)
    with pytest.raises(WrongAnswer, match="is PAID, not VALID"):
        shoppers(system, links, orders, Clients.PREPARED, KemId.X25519).pay(100)


def test_a_gateway_that_stands_still_is_seen_by_all_who_should_have_begun_meanwhile(
    system: BenchSystem, links: Links
) -> None:
    assert system.gateway is not None
    pid = system.gateway.process.pid
    orders = [order_of(number, CUSTOMERS) for number in range(400, 700)]
    held_s = 0.5

    def stall() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(held_s)
        os.kill(pid, signal.SIGCONT)

    # Before the clock there are queries and sealing; the stall is to come in the middle of the clocked second.
    timer = threading.Timer(0.5, stall)
    customers = shoppers(system, links, orders, Clients.PREPARED, KemId.X25519)
    customers._before_clock = timer.start
    paid = customers.pay(300, [n * 5_000_000 for n in range(1, 301)])  # 200 a second
    timer.join()
    # Some 100 of the 270 that are counted should have begun in the half second, evenly spread over it.
    waited_us = [paid.latencies.percentile_us(percent) for percent in (75, 90, 99)]
    assert waited_us[0] > 50_000
    assert waited_us[1] > 200_000
    assert waited_us[2] > 350_000


def test_keys_that_another_root_key_signed_are_refused(links: Links) -> None:
    with pytest.raises(PaygateExit, match="is it the root key of this gateway's bank"):
        ask_key_list(links, BANK_ID, bytes(32))


def test_a_port_where_nobody_listens_is_told() -> None:
    with pytest.raises(LoadFailed, match="could not connect"):
        Links(("127.0.0.1", 1), 1)
