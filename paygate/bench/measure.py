"""Rounds of payments against a gateway: token queries and sealing, the clocked part, and the check of every answer.

With credentials sealed in advance a round has three parts. Before the clock, every order's token is queried once, which
opens a session, and its credentials are sealed under that session. On the clock, a shopper queries the token (which
opens another session, as a shopper's second window does) and sends the credentials that are ready: the servers do all
that they do for a payment, and the machine's cores do nothing else. After the clock every answer is decoded and its
receipt verified. A session lasts 30 s, so a round's size is bounded.

A gateway holds the tokens that it read lately in memory, and those of a round would be among them by the first query.
So between sealing and the clock as many others are queried as it holds: then each query on the clock reads its token
from the database, as a shopper's first query does. A foreign gateway has no others to ask for; its results say so.

With sealing clients, seal and check are on the clock, as they are for a shopper; a token is queried once.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from paygate.bench.latency import Latencies
from paygate.bench.load import Drive, Links, LoadFailed
from paygate.bench.orders import Clients, Order, Sealed, check_all, check_paid, decode_ack, seal, seal_all, variant_of
from paygate.bench.results import PAYGATE, Sample
from paygate.cli import ExitCode, PaygateExit
from paygate.clock import system_now
from paygate.codec.codes import KemId
from paygate.codec.seal import BadKeyList, verify_key_list
from paygate.codec.sealed import KeyList, SuiteKey
from paygate.gateway.sqlite_tokens import HELD_TOKEN_COUNT_MAX

ROUND_COUNT_MAX: Final = 45_000
"""Payments in a round: what can be queried, sealed and paid within the time of one session, with some to spare."""
SESSION_NS_MAX: Final = 27_000_000_000
"""A session lasts 30 s, and in its last 2 s takes no credentials."""
RAMP_SHARE: Final = 0.1
"""The first tenth of a round's payments is not counted: until then not every link is at work."""
WAVE_COUNT_MIN: Final = 5
"""Payments on each link of a closed loop, at least: of fewer, most begin or end while others have not or are done."""
READ_TEXT: Final = "each reads its token from the database, as a first query does"
HELD_TEXT: Final = (
    "sealed in advance, so each token was queried before the clock too, and the gateway may hold it in memory"
)
"""What results say of token queries on a gateway that has no other tokens to ask for."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round came to."""

    connection_count: int
    payment_count: int
    """All that were paid, each with its receipt checked."""
    rate: float
    """Payments a second while the load was whole; in an open loop, from the tenth's intended start to the last's."""
    offered_rate: float | None
    """Payments a second that the schedule began in that time; None in a closed loop."""
    latencies: Latencies
    """From the intended start of the token query to the last byte of the payment ack."""

    def as_sample(self, suite: KemId, clients: Clients, number: int) -> Sample:
        """The round as results keep it, under its number."""
        latency_us = {name: float(value) for name, value in self.latencies.summary_us().items()}
        variant = variant_of(suite, clients)
        return Sample(
            *(PAYGATE, variant, self.connection_count, number, self.rate, latency_us, self.offered_rate),
            histogram=self.latencies.encoded(),
        )


class Shoppers:
    """Links to one gateway, orders to pay, and keys to seal with."""

    def __init__(
        self,
        links: Links,
        orders: Iterator[Order],
        executor: Executor,
        *,
        bank_id: str,
        root_key: bytes,
        choose: Callable[[KeyList], SuiteKey],
        clients: Clients,
        others: Iterator[bytes] | None = None,
        before_clock: Callable[[], None] = lambda: None,
        after_clock: Callable[[], None] = lambda: None,
        on_paid: Callable[[], None] = lambda: None,
    ) -> None:
        """`choose` picks the suite out of the bank's key list; the others are called before and after each clocked
        part, and on the clock for each payment of a sealing client.

        `others`: queries of tokens that nobody pays, without end (`BenchSystem.add_others`), for clients that don't
        seal. Raises PaygateExit.
        """
        self._links = links
        self._orders = orders
        self._executor = executor
        self._clients = clients
        self._others = others
        self._before_clock = before_clock
        self._after_clock = after_clock
        self._on_paid = on_paid
        self.key_list: KeyList = ask_key_list(links, bank_id, root_key)
        self.suite_key: SuiteKey = choose(self.key_list)

    def pay(self, count: int, schedule_ns: Sequence[int] | None = None) -> Round:
        """One round of `count` payments. Raises LoadFailed, WrongAnswer."""
        return round_of(self.drive(count, schedule_ns), len(self._links), is_open=schedule_ns is not None)

    def drive(self, count: int, schedule_ns: Sequence[int] | None = None) -> Drive:
        """As `pay`, however few they are: no rate comes of it. Raises LoadFailed, WrongAnswer."""
        orders = list(islice(self._orders, count))
        assert len(orders) == count <= ROUND_COUNT_MAX
        firsts = [order.query_frame() for order in orders]
        if self._clients is Clients.SEALING:
            return self._pay_sealing(orders, firsts, schedule_ns)
        return self._pay_prepared(orders, firsts, schedule_ns)

    def _pay_prepared(
        self, orders: Sequence[Order], firsts: Sequence[bytes], schedule_ns: Sequence[int] | None
    ) -> Drive:
        sessions_ns = time.monotonic_ns()
        acks = self._links.drive(firsts, _nothing_follows).answers
        sealed = seal_all(self._executor, orders, acks, self.suite_key)
        seconds = [one.frame for one in sealed]
        if self._others is not None:
            self._links.drive(list(islice(self._others, HELD_TOKEN_COUNT_MAX)), _nothing_follows)
        self._before_clock()
        drive = self._links.drive(firsts, lambda index, _ack: seconds[index], schedule_ns)
        self._after_clock()
        if max(drive.done_ns) - sessions_ns > SESSION_NS_MAX:
            raise LoadFailed(
                f"{len(orders)} payments took longer than the sessions under which they were sealed in advance; ask "
                "for fewer, or for clients that seal as they pay"
            )
        check_all(self._executor, drive.answers, sealed, self.key_list)
        return drive

    def _pay_sealing(
        self, orders: Sequence[Order], firsts: Sequence[bytes], schedule_ns: Sequence[int] | None
    ) -> Drive:
        waiting: dict[int, Sealed] = {}

        def following(index: int, ack: bytes) -> bytes:
            sealed = waiting[index] = seal(orders[index], decode_ack(ack), self.suite_key, system_now().wall_ms)
            return sealed.frame

        def finished(index: int, answer: bytes) -> None:
            check_paid(answer, waiting.pop(index), self.key_list)
            self._on_paid()

        self._before_clock()
        drive = self._links.drive(firsts, following, schedule_ns, finished)
        self._after_clock()
        return drive


def _nothing_follows(_index: int, _ack: bytes) -> None:
    """A token query alone."""


def ask_key_list(links: Links, bank_id: str, root_key: bytes) -> KeyList:
    """The bank's key list by way of a gateway, verified under the pinned root key (T10). Raises PaygateExit."""
    try:
        return verify_key_list(links.ask_keys(bank_id), root_key, bank_id, system_now().wall_ms)
    except BadKeyList as error:
        raise PaygateExit(f"{error}; is it the root key of this gateway's bank?", ExitCode.UNTRUSTED) from None


def poisson_schedule_ns(rate: float, count: int, seed: int) -> list[int]:
    """Intended starts of shoppers who know nothing of each other: exponential distances, the same for a seed."""
    rng = random.Random(seed)
    at_s = 0.0
    schedule = []
    for _ in range(count):
        at_s += rng.expovariate(rate)
        schedule.append(int(at_s * 1e9))
    return schedule


def round_of(drive: Drive, connection_count: int, *, is_open: bool) -> Round:
    """What a drive came to. Raises LoadFailed if it was too short for its links to be at work together."""
    count = len(drive.answers)
    ramp_count = int(count * RAMP_SHARE)
    if is_open:
        # By the schedule, since servers that answer in bursts are not to choose the moments at which they are measured.
        begin_ns, end_ns = drive.intended_ns[ramp_count], drive.intended_ns[-1]
        counted = [n for n in range(count) if drive.intended_ns[n] > begin_ns]
    else:
        begin_ns, end_ns = sorted(drive.done_ns)[ramp_count], drive.last_start_ns
        counted = [n for n in range(count) if drive.done_ns[n] > begin_ns and drive.intended_ns[n] <= end_ns]
    done_count = sum(1 for ns in drive.done_ns if begin_ns < ns <= end_ns)
    if done_count == 0:
        raise LoadFailed(
            f"{count} payments on {connection_count} connections were begun before any of them counted; ask for more "
            "payments, or for fewer connections"
        )
    second = (end_ns - begin_ns) / 1e9
    latencies = Latencies((drive.done_ns[n] - drive.intended_ns[n]) // 1000 for n in counted)
    offered_rate = len(counted) / second if is_open else None
    return Round(connection_count, count, done_count / second, offered_rate, latencies)
