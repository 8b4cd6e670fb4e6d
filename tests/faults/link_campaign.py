"""Every byte of every frame of a payment is cut or altered, on the client's link and on the bank's.

The servers are forks of this process, so real processes; customers and relays run in this one, many at once. Each case
has a token of its own: whatever happens to its link, the token is debited once and once only in the end, and client,
gateway and bank agree.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.books import Broken, check_bank, check_client, check_gateway
from faults.disk_campaign import shared_memory
from faults.forked import Forked, Hang, Setting, start
from faults.house import BANK_ID, MERCHANT, House
from faults.link_cases import (
    AGAIN,
    BANK_LINK,
    CLIENT_LINK,
    FIRST,
    LinkCase,
    Recorded,
    all_cases,
    drawn,
    parse_link_case,
    table,
)
from faults.relay import FLIP, FORGE, TO_CALLER, Harm, Joined, Relay
from faults.shoppers import Order, Shoppers, Steps, write_tokens
from faults.stories import OPENING_MINOR

from paygate.client.payment import Outcome, PaymentResult
from paygate.clock import system_now
from paygate.net.loop import Loop

SHOPPER_COUNT: Final = 16
"""Payments under way at once on the client's link."""
LANE_COUNT: Final = 6
"""Gateways, each with its own link to the bank, on which one case follows another."""
CASE_COUNT_PER_LANE_MIN: Final = 8
"""For fewer cases, another gateway is not worth its start."""
SESSION_S: Final = 8
"""Of the gateways: long enough for a busy machine, short enough for answers that never come."""
LINK_MS_MAX: Final = 120_000
"""How long a gateway may take to link again, on a machine that is busy with all else."""
CASE_COUNT_MAX: Final = 60_000
CASE_RATE_MAX: Final = 40
"""Cases in all, and in a second: so many tokens are made before it is known how many bytes there are."""


@dataclass(slots=True)
class LinkOutcome:
    """What a campaign came to."""

    done: list[LinkCase] = field(default_factory=list)
    """Cases whose harm was done."""
    missed_count: int = 0
    """Cases whose byte never came, because that connection had fewer."""
    left_count: int = 0
    """Cases for which there was no time."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """What did not hold: the case and the trouble."""


class Lane:
    """One gateway and its link to the bank through a relay."""

    def __init__(self, house: House, loop: Loop, number: int, bank_port: int) -> None:
        self.number = number
        self.state = house.root / f"gateway-{number}"
        self._setting = house.setting
        key = house.root / f"link-{number}.key"
        house.command("bank", "add-gateway", f"gateway-{number}", "--key-out", str(key)).check()
        ids = ("--gateway-id", f"gateway-{number}", "--bank-id", BANK_ID, "--link-key", str(key))
        made = start(self._setting, "gateway", "init", "--state", str(self.state), *ids, label=f"init-{number}")
        assert made.wait() == 0, made.errors
        self.relay = Relay(loop, bank_port)
        self.process: Forked | None = None
        self.port = 0

    def start(self) -> None:
        """Start the gateway; its port is known once it listens."""
        options = ("--port", "0", "--bank", f"127.0.0.1:{self.relay.port}", "--session-seconds", str(SESSION_S))
        arguments = ("serve", "--state", str(self.state), *options, "--bank-wait", "60")
        process = self.process = start(self._setting, "gateway", *arguments, label=f"gateway-{self.number}")
        assert process.wait_for(lambda: " listening on " in process.output, "listening"), process.errors
        self.port = int(process.output.strip().rpartition(":")[2])


class LinkBench:
    """A bank, gateways, and customers."""

    def __init__(self, directory: Path, seed: int, lane_count: int, patch: Callable[[], None] | None = None) -> None:
        self.loop = Loop()
        self.house = House(directory, Setting(directory / "system", directory / "logs", patch=patch))
        self.house.create()
        self.house.remember_passwords()
        assert self.house.start_bank(), self.house.servers()[-1].errors
        self.lanes = [Lane(self.house, self.loop, number, self.house.bank_port) for number in range(lane_count)]
        self.shoppers = Shoppers(self.house, self.loop, seed)
        self.outcome = LinkOutcome()
        self.recorded: dict[tuple[str, str], Recorded] = {}
        self._randomness = random.Random(seed)
        self._orders: list[Order] = []
        self._claims: list[tuple[LinkCase, Order, PaymentResult]] = []

    # -- making ----------------------------------------------------------------------------------------

    def make_orders(self, count: int) -> None:
        """Tokens for so many cases a lane, before the gateways start; and have them linked."""
        for lane in self.lanes:
            orders = [
                Order(f"G{lane.number}-{number:05}", f"{self._randomness.randrange(10**8):08}", number % 2)
                for number in range(count)
            ]
            write_tokens(lane.state / "PaymentTokensData.txt", orders, MERCHANT)
            self._orders += orders
            lane.start()

    def order(self, lane: Lane, number: int) -> Order:
        """The token of this number at a lane's gateway."""
        return self._orders[lane.number * (len(self._orders) // len(self.lanes)) + number]

    def record(self, numbers: Sequence[int]) -> None:
        """One payment through relays that do nothing, and one whose answer is cut off, on each link."""
        lane = self.lanes[0]
        trouble: list[str] = []
        self.shoppers.run(iter([_told(self._record(lane, numbers), trouble)]), 1)
        if trouble:
            raise Broken(f"without any harm: {trouble[0]}")

    def _record(self, lane: Lane, numbers: Sequence[int]) -> Steps:
        yield from self._until_linked(lane, 0)
        relay = Relay(self.loop, lane.port)
        results: list[PaymentResult] = []
        yield from self.shoppers.pay(self.order(lane, numbers[0]), relay.port, results)
        _require_paid(results[-1])
        client, bank = Recorded.of(relay.connections[0]), Recorded.of(lane.relay.connections[0])
        self.recorded[CLIENT_LINK, FIRST], self.recorded[BANK_LINK, FIRST] = client, bank

        relay.harms = [client.no_answer(), None]
        yield from self.shoppers.pay(self.order(lane, numbers[1]), relay.port, results)
        _require_paid(results[-1])
        self.recorded[CLIENT_LINK, AGAIN] = Recorded.of(relay.connections[-1])
        relay.close()

        yield from self._link_again(lane, [bank.no_answer(), None])
        yield from self.shoppers.pay(self.order(lane, numbers[2]), lane.port, results)
        _require_paid(results[-1])
        self.recorded[BANK_LINK, AGAIN] = Recorded.of(lane.relay.connections[-1])

    # -- running ---------------------------------------------------------------------------------------

    def run(self, cases: Sequence[LinkCase], seconds: float) -> None:
        """Run cases, as many as there is time for, and check all books at the end. Raises Broken."""
        deadline = time.monotonic() + seconds
        self.outcome.left_count = len(cases)
        of_lane: list[list[tuple[int, LinkCase]]] = [[] for _ in self.lanes]
        for number, case in enumerate(cases):
            of_lane[number % len(self.lanes)].append((number // len(self.lanes), case))
        lanes = list(zip(self.lanes, of_lane, strict=True))

        def of_client() -> Iterator[Steps]:
            for lane, numbered in lanes:
                for number, case in numbered:
                    if case.link == CLIENT_LINK:
                        yield self._case(case, lane, self.order(lane, number), self._cut_client)

        def of_bank() -> Iterator[Steps]:
            for lane, numbered in lanes:
                yield self._lane(lane, [one for one in numbered if one[1].link == BANK_LINK], is_over)

        def is_over() -> bool:
            return time.monotonic() >= deadline

        began = time.monotonic()
        share = sum(case.link == CLIENT_LINK for case in cases) / max(1, len(cases))
        self.shoppers.run(of_client(), SHOPPER_COUNT, lambda: time.monotonic() >= began + share * seconds)
        self.shoppers.run(of_bank(), len(self.lanes))
        self._check()

    def _lane(self, lane: Lane, numbered: Sequence[tuple[int, LinkCase]], is_over: Callable[[], bool]) -> Steps:
        for number, case in numbered:
            if is_over():
                return
            yield from self._case(case, lane, self.order(lane, number), self._cut_bank)

    def _case(
        self, case: LinkCase, lane: Lane, order: Order, cut: Callable[[LinkCase, Lane, Order], Iterator[None]]
    ) -> Steps:
        trouble: list[str] = []
        yield from _told(cut(case, lane, order), trouble)
        self.outcome.left_count -= 1
        self.outcome.failures += [(case.text, text) for text in trouble]

    def _cut_client(self, case: LinkCase, lane: Lane, order: Order) -> Steps:
        relay = Relay(self.loop, lane.port)
        relay.harms = self._harms(case)
        try:
            yield from self._pay(case, order, relay.port, lane.port)
            self._note_harm(case, relay.connections)
        finally:
            relay.close()

    def _cut_bank(self, case: LinkCase, lane: Lane, order: Order) -> Steps:
        before = len(lane.relay.connections)
        yield from self._link_again(lane, self._harms(case))
        yield from self._pay(case, order, lane.port, lane.port)
        lane.relay.harms.clear()
        connections = lane.relay.connections[before:]
        self._note_harm(case, connections)
        if case.harm.how in (FLIP, FORGE) and any(joined.is_harmed and joined.is_open for joined in connections):
            raise Broken("a frame that was altered between gateway and bank did not end their link")

    def _harms(self, case: LinkCase) -> list[Harm | None]:
        if case.connection == FIRST:
            return [case.harm]
        first = self.recorded[case.link, FIRST]
        return [first.no_answer(), case.harm]

    def _note_harm(self, case: LinkCase, connections: Sequence[Joined]) -> None:
        if any(joined.is_harmed and joined.harm == case.harm for joined in connections):
            self.outcome.done.append(case)
        else:
            self.outcome.missed_count += 1

    def _pay(self, case: LinkCase, order: Order, port: int, port_that_holds: int) -> Steps:
        """A payment under harm; then by a link that holds: its outcome, and the token paid."""
        results: list[PaymentResult] = []
        yield from self.shoppers.pay(order, port, results)
        result = results[0]
        self._claims.append((case, order, result))
        if case.link == BANK_LINK or case.harm.how not in (FLIP, FORGE):
            yield from self.shoppers.resolve(result, port_that_holds)
        elif result.payment_id:
            # Who alters what a client sends can keep it from a proof, and from nothing else.
            yield from self.shoppers.ask(result.payment_id, port_that_holds, [])
        yield from self.shoppers.pay_at_last(order, port_that_holds)

    def _link_again(self, lane: Lane, harms: list[Harm | None]) -> Steps:
        """Cut the lane's link to the bank, and wait until the next one is harmed or open."""
        lane.relay.harms = harms
        number = len(lane.relay.connections)
        if number:
            lane.relay.cut(lane.relay.connections[-1])
        yield from self._until_linked(lane, number)

    def _until_linked(self, lane: Lane, number: int) -> Steps:
        first = self.recorded.get((BANK_LINK, FIRST))
        open_size = first.start_of_last(TO_CALLER) if first else 1_000  # a hello and the bank's keys
        until_ms = system_now().mono_ms + LINK_MS_MAX
        while True:
            connections = lane.relay.connections[number:]
            if any(joined.is_harmed or len(joined.passed[TO_CALLER]) >= open_size for joined in connections):
                return
            if system_now().mono_ms > until_ms:
                raise Broken(f"gateway {lane.number} did not link again within {LINK_MS_MAX} ms")
            yield

    # -- afterwards ------------------------------------------------------------------------------------

    def _check(self) -> None:
        """End all, and hold the books, and what was told to customers, against each other. Raises Broken."""
        for lane in self.lanes:
            assert lane.process is not None
            code = lane.process.end()
            if code != 0:
                raise Broken(f"gateway {lane.number} ended with {code}: {lane.process.errors[-500:]}")
        codes = self.house.stop()
        if codes != [0]:
            raise Broken(f"the bank ended with {codes}")
        bank = self.house.root / "bank"
        postings = check_bank(bank, OPENING_MINOR)
        for lane in self.lanes:
            check_gateway(lane.state, [p for p in postings if p.transaction_id.startswith(f"G{lane.number}-")])
        check_client(self.house.root / "client", bank, is_healed=False)
        count = Counter(posting.transaction_id for posting in postings)
        utr_of = {posting.transaction_id: posting.utr for posting in postings}
        broken = {case for case, _ in self.outcome.failures}
        for case, order, result in self._claims:
            if count[order.transaction_id] != 1 and case.text not in broken:
                self.outcome.failures.append((case.text, f"I2: {count[order.transaction_id]} debits of its token"))
            if result.outcome is Outcome.PAID and result.utr != utr_of.get(order.transaction_id):
                self.outcome.failures.append((case.text, f"I6: the client holds a receipt of {result.utr}"))

    def close(self) -> None:
        """End whatever runs."""
        for lane in self.lanes:
            if lane.process is not None:
                lane.process.kill()
            lane.relay.close()
        self.house.kill()
        self.loop.close()


def _told(steps: Steps, trouble: list[str]) -> Steps:
    """A story whose end is noted, and not raised."""
    try:
        yield from steps
    except (Broken, Hang) as error:
        trouble.append(str(error))


def _require_paid(result: PaymentResult) -> None:
    if result.outcome is not Outcome.PAID:
        raise Broken(f"a payment was not paid: {result.text}")


def run_campaign(
    *,
    seed: int,
    count: int | None,
    seconds: float,
    only: str | None = None,
    matching: str = "",
    patch: Callable[[], None] | None = None,
) -> LinkOutcome:
    """Run all cases, a seeded sample of `count`, or the one named; prints what it did."""
    began = time.monotonic()
    randomness = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="paygate-links-", dir=shared_memory()) as directory:
        case_count_max = 1 if only else min(count or CASE_COUNT_MAX, int(seconds * CASE_RATE_MAX))
        lane_count = min(LANE_COUNT, 1 + case_count_max // CASE_COUNT_PER_LANE_MIN)
        bench = LinkBench(Path(directory), seed, lane_count, patch)
        try:
            per_lane = 3 + -(-case_count_max // lane_count)  # three are recorded
            bench.make_orders(per_lane)
            bench.record([per_lane - 1, per_lane - 2, per_lane - 3])
            cases = [case for case in all_cases(bench.recorded, randomness) if matching in case.text]
            print(f"link faults: {len(cases)} cases; seed {seed}")
            cases = [parse_link_case(only)] if only else drawn(cases, case_count_max, randomness)
            bench.run(cases, seconds)
        finally:
            bench.close()
        outcome = bench.outcome
    for line in table(outcome.done):
        print(line)
    told = f"{len(outcome.done)} harmed in {time.monotonic() - began:.0f} s"
    told += f", {outcome.missed_count} whose byte never came"
    print(f"link faults: {told}; {outcome.left_count} left out for want of time; {len(outcome.failures)} failed")
    for name, trouble in outcome.failures:
        print(f"FAILED {name}\n    {trouble}\n    again: make faults CASE='{name}'")
    return outcome
