"""A bank and a gateway of the bench's own: the real programs, on state directories filled beforehand.

The stores are filled through their own `apply`, before the servers start: a bench of ten thousand customers and a
hundred thousand tokens would otherwise wait for the once-a-second look at new lines.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Final, TypeVar

from paygate.bank.keys import load_identity, load_pepper, load_receipt_key
from paygate.bank.ledger import AccountOutcome, OpenCustomer, OpenMerchant, Operation
from paygate.bank.server import LEDGER_NAME
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.bench.orders import Customer, Order
from paygate.cli import PaygateExit
from paygate.clock import Now, system_now
from paygate.codec.seal import verifier_of
from paygate.gateway.settings import STORE_NAME
from paygate.gateway.sqlite_tokens import HELD_TOKEN_COUNT_MAX, SqliteTokens
from paygate.gateway.tokens import IssueToken, Token, TokenTaken

BANK_ID: Final = "BENCHBANK"
GATEWAY_ID: Final = "bench-gateway"
CURRENCY: Final = "INR"
BALANCE_MINOR: Final = 10**9
"""What each customer has at first: more than any run spends; of 10^7 customers, what the bank's books can count."""
OTHER_COUNT: Final = 2 * HELD_TOKEN_COUNT_MAX
"""Tokens that nobody pays: two sets by turns, each as many as a gateway holds in memory, so that none of those that are
queried is held and each that comes in drives an older one out."""
MERCHANT_COUNT: Final = 100
CUSTOMER_COUNT: Final = 10_000
START_S_MAX: Final = 600
"""A start checks and rebuilds everything; with 10^7 rows that takes minutes."""
STOP_S_MAX: Final = 60
_BATCH_COUNT: Final = 10_000
_NOBODY: Final = Customer("", b"")
_POLL_S: Final = 0.01

T = TypeVar("T")


def program(role: str) -> list[str]:
    """The command of a server's program under this Python, without its arguments."""
    return [sys.executable, "-P", "-m", f"paygate.{role}"]


@dataclass(slots=True)
class Server:
    """A running server."""

    role: str
    process: "subprocess.Popen[bytes]"
    address: tuple[str, int]
    start_s: float
    """From its exec until it listened; for a gateway, until it had the bank's keys."""

    def stop(self) -> None:
        """Let it drain and end; kill it if it does not. Raises PaygateExit if it ended in any other way."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise PaygateExit(f"the {self.role} did not end within {STOP_S_MAX} s of SIGTERM") from None
        if code != 0:
            raise PaygateExit(f"the {self.role} ended with {code}; its log says why")


class BenchSystem:
    """State directories `bank/` and `gateway/` below one directory, and the two servers on them."""

    def __init__(self, root: Path) -> None:
        """`root` must not exist yet, or be empty."""
        self.root = root
        self.bank: Server | None = None
        self.gateway: Server | None = None
        self.bank_argv = program("bank")
        """How a bank is started; a stage profile puts its own in this place."""
        self.gateway_argv = program("gateway")

    # -- filling ---------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make keys and empty state directories. Raises PaygateExit."""
        self.root.mkdir(parents=True, exist_ok=True)
        bank, gateway, link_key = self.root / "bank", self.root / "gateway", self.root / "link.key"
        identity = ("--bank-id", BANK_ID, "--bank-code", "BNCH", "--currency", CURRENCY)
        _command("bank", "init", "--state", str(bank), *identity)
        _command("bank", "add-gateway", "--state", str(bank), GATEWAY_ID, "--key-out", str(link_key))
        root_key = _command("bank", "show-root-key", "--state", str(bank))
        self.root_key_path.write_bytes(root_key)
        ids = ("--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID)
        _command("gateway", "init", "--state", str(gateway), *ids, "--link-key", str(link_key))

    @property
    def root_key_path(self) -> Path:
        """The bank's root key, as clients are given it."""
        return self.root / "bank-root.txt"

    def add_accounts(self, customers: Iterable[Customer], at: Now | None = None) -> None:
        """Open the merchants' and the customers' accounts while no bank runs, now or at a time. Raises StoreError."""
        directory = self.root / "bank"
        pepper = load_pepper(directory)
        ledger = SqliteLedger(directory / LEDGER_NAME, load_identity(directory), load_receipt_key(directory))
        with contextlib.closing(ledger):
            merchants: Iterator[Operation] = (
                OpenMerchant(merchant_id(n), f"Merchant {n}", 0) for n in range(MERCHANT_COUNT)
            )
            opened = (
                OpenCustomer(f"C{c.user_id}", c.user_id, verifier_of(pepper, c.password_key), BALANCE_MINOR)
                for c in customers
            )
            for batch in _batches(chain(merchants, opened)):
                outcomes = ledger.apply(batch, at or system_now())
                assert all(o in (AccountOutcome.OPENED, AccountOutcome.KNOWN) for o in outcomes)

    def add_orders(self, orders: Iterable[Order]) -> None:
        """Issue tokens while no gateway runs. Raises StoreError."""
        store = SqliteTokens(self.root / "gateway" / STORE_NAME)
        with contextlib.closing(store):
            for batch in _batches(IssueToken(_token(order)) for order in orders):
                outcomes = store.apply(batch, system_now())
                assert all(isinstance(o, TokenTaken) and o.is_changed for o in outcomes)

    def add_others(self) -> Iterator[bytes]:
        """Issue tokens that nobody pays; gives their queries, over and over (`Shoppers`). Raises StoreError."""
        others = [Order(f"O{n:08}", "1234", merchant_id(0), 100, _NOBODY) for n in range(OTHER_COUNT)]
        self.add_orders(others)
        return cycle([order.query_frame() for order in others])

    # -- running ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the bank and the gateway; on return clients can pay. Raises PaygateExit."""
        bank = self.bank = self._start("bank", self.bank_argv)
        host, port = bank.address
        started_s = time.monotonic()
        self.gateway = self._start("gateway", self.gateway_argv, "--bank", f"{host}:{port}")
        _wait_for(self.gateway, self.root / "gateway.log", b"has the keys of bank")
        self.gateway.start_s = time.monotonic() - started_s

    def stop(self) -> None:
        """Let both drain, the gateway first. Raises PaygateExit if one did not end well."""
        servers = [server for server in (self.gateway, self.bank) if server is not None]
        self.gateway = self.bank = None
        with contextlib.ExitStack() as stack:
            for server in reversed(servers):
                stack.callback(server.stop)

    def kill(self) -> None:
        """End both as a power cut would end them, but for what the system itself still writes."""
        servers = [server for server in (self.gateway, self.bank) if server is not None]
        for server in servers:
            server.process.kill()
        for server in servers:
            server.process.wait()
        self.gateway = self.bank = None

    def _start(self, role: str, argv: Sequence[str], *options: str) -> Server:
        log_path = self.root / f"{role}.log"
        command = [*argv, "serve", "--state", str(self.root / role), "--port", "0", *options]
        started_s = time.monotonic()
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        server = Server(role, process, ("", 0), 0.0)
        try:
            server.address = _address_of(server, log_path)
        except BaseException:
            process.kill()
            process.wait()
            raise
        server.start_s = time.monotonic() - started_s
        return server


@contextlib.contextmanager
def running(system: BenchSystem) -> Iterator[BenchSystem]:
    """The system's servers, for the time of a with block. Raises PaygateExit."""
    try:
        system.start()
        yield system
    finally:
        system.stop()


def order_of(number: int, customers: Sequence[Customer]) -> Order:
    """The order of this number; another number, another token."""
    return Order(
        transaction_id=f"B{number:08}",
        passcode=f"{1000 + number % 9000}",
        merchant_id=merchant_id(number % MERCHANT_COUNT),
        amount_minor=100 + number % 1000,
        customer=customers[number * 7919 % len(customers)],  # a prime, so that neighbours differ
    )


def merchant_id(number: int) -> str:
    """The ID of one of the bench's merchants."""
    return f"M{number:03}"


def _token(order: Order) -> Token:
    return Token(
        order.transaction_id, order.passcode, order.merchant_id, "Bench merchant", order.amount_minor, CURRENCY, None
    )


def _command(role: str, *arguments: str) -> bytes:
    command = [*program(role), *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=STOP_S_MAX, check=False)
    if done.returncode != 0:
        raise PaygateExit(f"'{role} {arguments[0]}' ended with {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


def _address_of(server: Server, log_path: Path) -> tuple[str, int]:
    """Where a server that was just started listens: it prints it, once it does."""
    stdout = server.process.stdout
    assert stdout is not None
    line = b""
    os.set_blocking(stdout.fileno(), False)
    deadline_s = time.monotonic() + START_S_MAX
    with stdout:
        while not line.endswith(b"\n"):
            line += stdout.read() or b""
            if server.process.poll() is not None and not line.endswith(b"\n"):
                raise PaygateExit(f"the {server.role} did not start: {_tail(log_path)}")
            if time.monotonic() > deadline_s:
                raise PaygateExit(f"the {server.role} did not listen within {START_S_MAX} s: {_tail(log_path)}")
            time.sleep(_POLL_S)
    host, _, port = line.decode().strip().rpartition(" ")[2].rpartition(":")
    return host, int(port)


def _wait_for(server: Server, log_path: Path, text: bytes) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while text not in log_path.read_bytes():
        if server.process.poll() is not None or time.monotonic() > deadline_s:
            raise PaygateExit(f"the {server.role} never said {text.decode()!r}: {_tail(log_path)}")
        time.sleep(_POLL_S)


def _tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()[-500:] or "it said nothing"


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH_COUNT)):
        yield batch
