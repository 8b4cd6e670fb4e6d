"""The comparison: paygate and its peers in turn, round by round, on one machine in one run.

The machine's speed drifts, so a ratio is formed of measurements that lie side by side: each round measures every peer
and every way of paying once, and the median of the rounds' ratios counts.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol

from paygate.bench.codec_race import race
from paygate.bench.footprint import idle_bytes
from paygate.bench.load import Links
from paygate.bench.machine import measure_limits
from paygate.bench.measure import (
    READ_TEXT,
    ROUND_COUNT_MAX,
    WAVE_COUNT_MIN,
    Round,
    Shoppers,
    poisson_schedule_ns,
)
from paygate.bench.orders import Clients, Order, make_customers, suite_key_of, suite_name, variant_of
from paygate.bench.peers.catalogue import make_peers
from paygate.bench.peers.peer import Missing, Peer, PeerFailed
from paygate.bench.results import PAYGATE, SEARCH_ROUND, Results, Sample, fastest_client_counts, median_rate, of
from paygate.bench.stages import Staging
from paygate.bench.system import BANK_ID, CUSTOMER_COUNT, BenchSystem, order_of, running
from paygate.bench.workers import make_workers
from paygate.client.root import read_root
from paygate.codec.codes import KemId

WARM_COUNT_MAX: Final = 2_000
"""Payments before the first round of each kind: they tell how large a round must be. Fewer with few connections, more
with more than a few hundred."""
ROUND_COUNT_MIN: Final = 500
ROUND_COUNT_MIN_OPEN: Final = 20
OPEN_S_MAX: Final = 20
"""An open-loop round takes no longer, since its sessions end."""
CURVE_SHARES: Final = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
"""At which parts of the highest rate the throughput-latency curve is measured."""
TAIL_SHARE: Final = 0.7
IDLE_COUNT: Final = 4_096
PEER_COUNT_MAX: Final = 3
"""Client counts of a peer in each round: its fastest two of the search, and 1."""


class Progress(Protocol):
    """Hears how far a run is."""

    def step(self, text: str) -> None:
        """A step begins; the one before is done."""

    def drop(self, count: int) -> None:
        """So many steps will not come."""


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """What to compare, and how long."""

    connection_counts: tuple[int, ...] = (1, 64, 256)
    suites: tuple[KemId, ...] = (KemId.X25519, KemId.MLKEM768_X25519)
    round_count: int = 5
    second: float = 3.0
    """How long each measurement lasts."""
    seed: int = 1
    peers: tuple[str, ...] | None = None
    """Names; None for all."""


class Campaign:
    """One run of the comparison, on servers and peers of its own below a directory."""

    def __init__(self, directory: Path, options: CampaignOptions, results: Results) -> None:
        """`directory` must be empty; it belongs on the disk that is to be measured."""
        self._directory = directory
        self._options = options
        self._results = results
        self._step: Callable[[str], None] = lambda _: None
        self._drop: Callable[[int], None] = lambda _: None
        self._peers = [p for p in make_peers() if options.peers is None or p.name in options.peers]
        self._rounds = range(1, options.round_count + 1)
        self._system = BenchSystem(directory / "paygate")
        self._customers = make_customers(CUSTOMER_COUNT, options.seed)
        self._order_numbers = count()
        self._orders: Iterator[Order] = iter(())
        self._others: Iterator[bytes] = iter(())
        self._round_sizes: dict[tuple[KemId, int], int] = {}

    @property
    def step_count(self) -> int:
        """How many steps a run has if no peer is missing."""
        options, peers = self._options, self._peers
        kinds = len(options.suites) * len(options.connection_counts)
        sweep = sum(len(peer.client_counts) for peer in peers)
        curve = 1 + len(options.suites) * (len(CURVE_SHARES) + options.round_count)
        a_round = PEER_COUNT_MAX * len(peers) + kinds + 1  # the memory
        return 3 + len(peers) + sweep + 1 + kinds + 1 + options.round_count * a_round + curve + 3 * len(options.suites)

    def run(self, progress: Progress) -> None:
        """Measure everything. Raises PaygateExit; a peer that is missing is noted in the results."""
        self._step, self._drop = progress.step, progress.drop
        self._results.is_comparison = True
        with contextlib.ExitStack() as stack:
            executor = stack.enter_context(make_workers())
            self._step("the machine's limits")
            self._results.limits |= measure_limits(self._directory, self._options.second)
            peers = self._start_peers(stack)
            self._step("accounts and keys")
            self._system.create()
            self._system.add_accounts(self._customers)
            self._others = self._system.add_others()
            self._results.options["token queries"] = READ_TEXT
            self._sweep(peers)
            self._calibrate(executor)
            self._compare(peers, executor)
            self._curve(executor)
            for suite in self._options.suites:
                self._stages(suite, executor)
        self._memory()
        self._step("the codec")
        self._results.codec = race()

    # -- peers -----------------------------------------------------------------------------------------

    def _start_peers(self, stack: contextlib.ExitStack) -> list[Peer]:
        started = []
        for peer in self._peers:
            self._results.titles[peer.name] = peer.title
            self._step(f"start {peer.name}")
            directory = self._directory / peer.name.replace(" ", "-")
            directory.mkdir()
            try:
                peer.start(directory)
            except (Missing, PeerFailed) as missing:
                self._results.missing[peer.name] = str(missing)
                self._drop(len(peer.client_counts) + PEER_COUNT_MAX * self._options.round_count)
                continue
            stack.callback(peer.stop)
            self._results.versions[peer.name] = peer.version
            self._results.settings[peer.name] = dict(peer.settings)
            started.append(peer)
        return started

    def _sweep(self, peers: Sequence[Peer]) -> None:
        """Every client count of every peer, to find the one with which it is fastest."""
        for peer in peers:
            for client_count in peer.client_counts:
                self._measure_peer(peer, client_count, SEARCH_ROUND)

    def _measure_peer(self, peer: Peer, client_count: int, round_number: int) -> None:
        self._step(f"{peer.name}, {client_count} clients")
        run = peer.measure(client_count, self._options.second)
        self._results.samples.append(Sample(peer.name, "", client_count, round_number, run.rate, dict(run.latency_us)))

    # -- paygate ---------------------------------------------------------------------------------------

    def _calibrate(self, executor: Executor) -> None:
        """Warm up, and find out how many payments a round of the wished length has."""
        options = self._options
        kinds = [(suite, connections) for suite in options.suites for connections in options.connection_counts]
        with self._paying(sum(_warm_count(connections) for _, connections in kinds)):
            for suite, connections in kinds:
                rate = self._pay(executor, suite, connections, _warm_count(connections), SEARCH_ROUND).rate
                size = max(int(rate * options.second), ROUND_COUNT_MIN, WAVE_COUNT_MIN * connections)
                self._round_sizes[suite, connections] = min(size, ROUND_COUNT_MAX)

    def _compare(self, peers: Sequence[Peer], executor: Executor) -> None:
        with self._paying(sum(self._round_sizes.values()) * len(self._rounds)):
            for number in self._rounds:
                for peer in peers:
                    best = fastest_client_counts(self._results.samples, peer.name)
                    asked = sorted({1, *best} & set(peer.client_counts))
                    self._drop(PEER_COUNT_MAX - len(asked))
                    for client_count in asked:
                        self._measure_peer(peer, client_count, number)
                for (suite, connections), size in self._round_sizes.items():
                    self._pay(executor, suite, connections, size, number)

    def _curve(self, executor: Executor) -> None:
        """Open loop: latency against the rate that is offered; at 70 % of the highest as often as there are rounds."""
        options, samples = self._options, self._results.samples
        plan: list[tuple[KemId, int, float, int]] = []  # suite, connections, rate, round number
        for suite in options.suites:
            ours = [of(samples, PAYGATE, c, variant_of(suite, Clients.PREPARED)) for c in options.connection_counts]
            best = max((o for o in ours if o), key=median_rate)
            highest, connections = median_rate([s for s in best if s.round_number > SEARCH_ROUND]), best[0].client_count
            plan += [(suite, connections, highest * share, SEARCH_ROUND) for share in CURVE_SHARES]
            plan += [(suite, connections, highest * TAIL_SHARE, number) for number in self._rounds]
        sizes = [open_round_size(rate, options.second) for _, _, rate, _ in plan]
        with self._paying(sum(sizes)):
            for (suite, connections, rate, number), size in zip(plan, sizes, strict=True):
                schedule_ns = poisson_schedule_ns(rate, size, options.seed + number)
                self._pay(executor, suite, connections, size, number, schedule_ns)

    def _pay(
        self,
        executor: Executor,
        suite: KemId,
        connections: int,
        size: int,
        number: int | None,
        schedule_ns: Sequence[int] | None = None,
        before_clock: Callable[[], None] = lambda: None,
        after_clock: Callable[[], None] = lambda: None,
    ) -> Round:
        """One round, kept as a sample unless it has no number."""
        how = "closed loop" if schedule_ns is None else "open loop"
        self._step(f"paygate, {suite_name(suite)}, {connections} connections, {how}")
        links = Links(self._gateway_address, connections)
        try:
            shoppers = Shoppers(
                links,
                self._orders,
                executor,
                bank_id=BANK_ID,
                root_key=read_root(self._system.root_key_path).public_key,
                choose=lambda key_list: suite_key_of(key_list, suite),
                clients=Clients.PREPARED,
                others=self._others,
                before_clock=before_clock,
                after_clock=after_clock,
            )
            paid = shoppers.pay(size, schedule_ns)
        finally:
            links.close()
        if number is not None:
            self._results.samples.append(paid.as_sample(suite, Clients.PREPARED, number))
        return paid

    @contextlib.contextmanager
    def _paying(self, order_count: int) -> Iterator[None]:
        """The servers, with so many new tokens."""
        self._step(f"{order_count} tokens")
        orders = [order_of(next(self._order_numbers), self._customers) for _ in range(order_count)]
        self._system.add_orders(orders)
        self._orders = iter(orders)
        with running(self._system):
            yield

    @property
    def _gateway_address(self) -> tuple[str, int]:
        assert self._system.gateway is not None
        return self._system.gateway.address

    # -- memory and stages -----------------------------------------------------------------------------

    def _memory(self) -> None:
        for number in self._rounds:
            self._step(f"memory of {IDLE_COUNT} idle connections")
            for role, size in idle_bytes(self._directory / f"idle-{number}", IDLE_COUNT).items():
                self._results.memory_bytes.setdefault(role, []).append(size)

    def _stages(self, suite: KemId, executor: Executor) -> None:
        """The stage profile: the same servers under stopwatches, with as many connections as there may be."""
        directory = self._directory / f"stages-{suite_name(suite)}"
        directory.mkdir()
        staging = Staging(directory)
        connections = max(self._options.connection_counts)
        size = self._round_sizes[suite, connections]
        plain = self._system.bank_argv, self._system.gateway_argv
        self._system.bank_argv, self._system.gateway_argv = staging.argv("bank"), staging.argv("gateway")
        warm_count = _warm_count(connections)
        with self._paying(warm_count + size):
            self._pay(executor, suite, connections, warm_count, None)
            self._pay(executor, suite, connections, size, None, before_clock=staging.begin, after_clock=staging.end)
        self._system.bank_argv, self._system.gateway_argv = plain
        profile = staging.profile(size)
        self._results.stages[f"{suite_name(suite)}, {connections} connections"] = profile


def open_round_size(rate: float, second: float) -> int:
    """How many payments an open-loop round of this rate has.

    As many as tell a percentile, also where that takes longer than was asked for; but not longer than a session.
    """
    size = max(int(rate * second), ROUND_COUNT_MIN)
    return max(ROUND_COUNT_MIN_OPEN, min(size, int(rate * OPEN_S_MAX), ROUND_COUNT_MAX))


def _warm_count(connections: int) -> int:
    return max(min(WARM_COUNT_MAX, ROUND_COUNT_MIN + 10 * connections), WAVE_COUNT_MIN * connections)
