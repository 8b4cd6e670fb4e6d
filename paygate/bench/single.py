"""One load on one gateway: the bench's own, or somebody's whose tokens and customers are given."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from paygate.bank.record_lines import USERS_LAYOUT, parse_customer
from paygate.bench.load import Links
from paygate.bench.measure import (
    SESSION_NS_MAX,
    WAVE_COUNT_MIN,
    Round,
    Shoppers,
    ask_key_list,
    poisson_schedule_ns,
)
from paygate.bench.orders import Clients, Customer, Order, make_customers, suite_key_of
from paygate.bench.system import CUSTOMER_COUNT, BenchSystem, order_of, running
from paygate.bench.workers import make_workers
from paygate.cli import ExitCode, PaygateExit
from paygate.client.root import read_root
from paygate.codec.codes import KemId
from paygate.codec.seal import password_key
from paygate.files.text_records import FieldProblem, Layout
from paygate.gateway.record_lines import TOKENS_LAYOUT, parse_token
from paygate.gateway.tokens import TokenState
from paygate.net.addresses import Address


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What load to put on."""

    connection_count: int
    payment_count: int
    rate: float | None
    """Payments a second in an open loop; None for a closed one."""
    clients: Clients
    suite: KemId
    seed: int


@dataclass(frozen=True, slots=True)
class Target:
    """A running gateway that is not ours, and what to pay there."""

    gateway: Address
    bank_root: Path
    tokens: Path
    """Lines as in PaymentTokensData.txt; the unpaid ones are paid, in order."""
    customers: Path
    """Lines as in NetbankingUsers.txt, with plain passwords; they pay in turn."""


def load_own(directory: Path, options: LoadOptions) -> Round:
    """Start servers of our own, put the load on them, and end them. Raises PaygateExit."""
    check_load(options)
    system = BenchSystem(directory)
    system.create()
    customers = make_customers(CUSTOMER_COUNT, options.seed)
    system.add_accounts(customers)
    orders = [order_of(number, customers) for number in range(options.payment_count)]
    system.add_orders(orders)
    others = system.add_others()
    with running(system), make_workers() as executor:
        assert system.gateway is not None
        return _load(system.gateway.address, system.root_key_path, orders, options, executor, others)


def load_target(target: Target, options: LoadOptions) -> Round:
    """Put the load on somebody's gateway. Raises PaygateExit."""
    check_load(options)
    lines = list(_customer_lines(target.customers))
    with make_workers() as executor:
        root = read_root(target.bank_root)
        links = Links(target.gateway, 1)
        try:
            parameters = ask_key_list(links, root.bank_id, root.public_key).password_key
        finally:
            links.close()
        users, passwords = [user for user, _ in lines], [password for _, password in lines]
        count = len(lines)
        keys = executor.map(password_key, [parameters] * count, [root.bank_id] * count, users, passwords)
        customers = [Customer(user, key) for user, key in zip(users, keys, strict=True)]
        orders = list(islice(_token_orders(target.tokens, customers), options.payment_count))
        if len(orders) < options.payment_count:
            raise PaygateExit(
                f"{target.tokens} has {len(orders)} unpaid tokens, and {options.payment_count} payments need as many: "
                "issue more, or ask for fewer with --payments",
                ExitCode.USAGE,
            )
        return _load(target.gateway, target.bank_root, orders, options, executor)


def check_load(options: LoadOptions) -> None:
    """Raises PaygateExit for a load that would measure nothing, or is bound to fail."""
    count, connections, rate = options.payment_count, options.connection_count, options.rate
    if rate is None and count < WAVE_COUNT_MIN * connections:
        raise PaygateExit(
            f"{count} payments on {connections} connections are over before the load is whole: ask for "
            f"{WAVE_COUNT_MIN * connections} payments or more, or for fewer connections",
            ExitCode.USAGE,
        )
    session_s = SESSION_NS_MAX / 1e9
    if rate is not None and options.clients is Clients.PREPARED and count / rate > session_s:
        raise PaygateExit(
            f"{count} payments at {rate:g} a second take longer than the {session_s:g} s for which credentials can be "
            f"sealed in advance: ask for at most {int(rate * session_s)} payments, or for --clients sealing",
            ExitCode.USAGE,
        )


def _load(
    gateway: Address,
    bank_root: Path,
    orders: Sequence[Order],
    options: LoadOptions,
    executor: Executor,
    others: Iterator[bytes] | None = None,
) -> Round:
    root = read_root(bank_root)
    links = Links(gateway, options.connection_count)
    try:
        shoppers = Shoppers(
            links,
            iter(orders),
            executor,
            bank_id=root.bank_id,
            root_key=root.public_key,
            choose=lambda key_list: suite_key_of(key_list, options.suite),
            clients=options.clients,
            others=others,
        )
        schedule_ns = None
        if options.rate is not None:
            schedule_ns = poisson_schedule_ns(options.rate, options.payment_count, options.seed)
        return shoppers.pay(options.payment_count, schedule_ns)
    finally:
        links.close()


def _token_orders(path: Path, customers: Sequence[Customer]) -> Iterator[Order]:
    for number, fields in _records(path, TOKENS_LAYOUT):
        try:
            token = parse_token(fields)
        except FieldProblem as bad:
            raise _bad_line(path, TOKENS_LAYOUT, number, bad) from None
        if token.state is TokenState.UNPAID:
            customer = customers[number % len(customers)]
            yield Order(token.transaction_id, token.passcode, token.merchant_id, token.amount_minor, customer)


def _customer_lines(path: Path) -> Iterator[tuple[str, str]]:
    found = False
    for number, fields in _records(path, USERS_LAYOUT):
        try:
            # The amount is the bank's business; its currency only says how many decimals it has.
            customer = parse_customer((*fields[:3], "0"), "INR")
            if customer.password is None:
                raise FieldProblem("password", "the plain password: nobody can pay with a verifier", "")
        except FieldProblem as bad:
            raise _bad_line(path, USERS_LAYOUT, number, bad) from None
        found = True
        yield customer.user_id, customer.password
    if not found:
        raise PaygateExit(f"{path} has no customers", ExitCode.USAGE)


def _records(path: Path, layout: Layout) -> Iterator[tuple[int, tuple[str, ...]]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise PaygateExit(f"could not read {path}: {error.strerror}", ExitCode.USAGE) from None
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith(b"#"):
            try:
                yield number, layout.parse(line)
            except FieldProblem as bad:
                raise _bad_line(path, layout, number, bad) from None


def _bad_line(path: Path, layout: Layout, number: int, bad: FieldProblem) -> PaygateExit:
    return PaygateExit(f"{path}: {layout.problem(number, bad)}", ExitCode.USAGE)
