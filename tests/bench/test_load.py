"""The load generator against real servers: every payment paid and checked, stalls seen, wrong answers refused."""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_system import wait_until

from paygate.bench import measure
from paygate.bench.load import Drive, Links, LoadFailed, _Driving, _Link
from paygate.bench.measure import Shoppers, ask_key_list
from paygate.bench.orders import Clients, Order, WrongAnswer, make_customers, suite_key_of
from paygate.bench.single import LoadOptions, check_load
from paygate.bench.system import BANK_ID, BenchSystem, order_of, running
from paygate.cli import PaygateExit
from paygate.client.root import read_root
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import KemId
from paygate.gateway import sqlite_tokens
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import CheckToken, IssueToken, Token

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


def test_between_sealing_and_the_clock_as_many_other_tokens_are_queried_as_a_gateway_holds(
    system: BenchSystem, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "HELD_TOKEN_COUNT_MAX", 20)
    queries = [order_of(number, CUSTOMERS).query_frame() for number in range(900, 940)]
    asked: list[Sequence[bytes]] = []
    drive = links.drive

    def told(firsts: Sequence[bytes], *others: Any) -> Drive:
        asked.append(firsts)
        return drive(firsts, *others)

    monkeypatch.setattr(links, "drive", told)
    orders = [order_of(number, CUSTOMERS) for number in range(700, 800)]
    customers = shoppers(system, links, orders, Clients.PREPARED, KemId.X25519)
    customers._others = iter(queries)
    customers.drive(50)
    customers.drive(50)
    firsts = [order.query_frame() for order in orders]
    assert asked == [firsts[:50], queries[:20], firsts[:50], firsts[50:], queries[20:], firsts[50:]]


def test_no_token_that_was_queried_before_the_others_is_still_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_tokens, "HELD_TOKEN_COUNT_MAX", 5)
    store = SqliteTokens(tmp_path / "tokens.db")
    names = [*(f"O{n}" for n in range(10)), *(f"B{n}" for n in range(9))]
    now = Now(0, 0)
    store.apply([IssueToken(Token(name, "1234", "M", "", 1, "INR", None)) for name in names], now)

    def held_after(queried: Sequence[str]) -> set[str]:
        for name in queried:
            store.apply([CheckToken(name, "1234")], now)
        return set(store.held()[1])

    for number in range(9):  # as rounds do it, however few they pay
        held_after([f"B{number}"])
        others = names[:5] if number % 2 else names[5:10]
        assert held_after(others) == set(others)
    store.close()


def test_a_payment_begins_when_it_is_due_and_not_at_the_next_millisecond() -> None:
    ours, theirs = socket.socketpair()

    def answer() -> None:
        for _ in range(20):  # frames without a body, each at once
            theirs.sendall(theirs.recv(4096))

    echo = threading.Thread(target=answer, daemon=True)
    echo.start()
    with select.epoll() as epoll:
        link = _Link(ours)
        epoll.register(link.fd, select.EPOLLIN)
        schedule_ns = [n * 5_100_000 for n in range(1, 21)]
        driving = _Driving([link], epoll, [bytes(limits.HEADER_SIZE)] * 20, lambda *_: None, schedule_ns, None)
        driving.run()
    echo.join()
    ours.close()
    theirs.close()
    done = driving.result()
    late_us = sorted((b - a) // 1000 for a, b in zip(done.intended_ns, done.done_ns, strict=True))
    assert late_us[10] < 500


@pytest.mark.parametrize(
    ("connections", "payments", "rate", "told"),
    [
        (256, 200, None, "ask for 1280 payments or more"),
        (8, 100, 3.0, "ask for at most 81 payments"),
    ],
)
def test_a_load_that_would_measure_nothing_is_refused(
    connections: int, payments: int, rate: float | None, told: str
) -> None:
    with pytest.raises(PaygateExit, match=told):
        check_load(LoadOptions(connections, payments, rate, Clients.PREPARED, KemId.X25519, 1))


def test_keys_that_another_root_key_signed_are_refused(links: Links) -> None:
    with pytest.raises(PaygateExit, match="is it the root key of this gateway's bank"):
        ask_key_list(links, BANK_ID, bytes(32))


def test_a_port_where_nobody_listens_is_told() -> None:
    with pytest.raises(LoadFailed, match="could not connect"):
        Links(("127.0.0.1", 1), 1)
