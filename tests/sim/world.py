"""One run: everybody in it, what goes wrong, and the time that passes, all from one seed.

    world = World(seed, judge)
    world.run()             raises Violation, or whatever a core or store raised

No wall clock, no randomness of the system, no order of a set: the same seed is the same run on any machine.
`world.digest()` is a hash over all that happened.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from disk_model import CutReport, Image
from memory_disk import MemoryDisk
from sim.agenda import MS, SECOND, Agenda
from sim.bank import OVERLAP_US_MAX, BankMachine
from sim.client import CustomerMachine
from sim.faults import Conditions, Fault, FaultKind, draw_conditions
from sim.gateway import GatewayMachine
from sim.judge import Judge
from sim.keys import remembering_signatures, secrets_of, verifier
from sim.network import End, Network
from sim.plan import BANK, Plan, draw_plan
from sim.server import Machine, Process
from sim.shopper import LAST_PAY_AFTER_HEAL_US, Shopper
from sim.small_limits import small_limits

from paygate.bank.ledger import OpenCustomer, OpenMerchant
from paygate.client.payment import Outcome, PaymentResult
from paygate.codec.codes import Kind
from paygate.codec.sealed import Terms
from paygate.gateway.tokens import CancelToken, IssueToken

HEAL_AFTER_US_MIN: Final = 5 * SECOND
HEAL_AFTER_US_MAX: Final = 60 * SECOND
"""After the last payment may have begun nothing fails any more from some time in between these."""
FINAL_AFTER_US: Final = 110 * SECOND
"""From the healing to the last question: I9's minute after the last session, and what a question takes."""
QUIET_US: Final = 120 * SECOND
"""Then nobody asks anything, and what is left in memory must go."""
CLOCK_SKEW_MS_MAX: Final = 2_000
"""By so much everybody's clock may be wrong without a fault."""
EVIL: Final = "evil"
"""What the names of liars that hear the links begin with."""
KIND_PLACE: Final = 3
"""Of a frame's kind in its header."""
_COUNTED_AT_ONCE: Final = (FaultKind.UNREACHABLE, FaultKind.DISK_FULL, FaultKind.CLOCK_JUMP)
SHOPPER_INDEX: Final = 10_000
"""Beyond the indexes of all faults: by this and his place a shopper is left out of a run."""
_FAULT_AT_SERVERS: Final = (FaultKind.KILL, FaultKind.POWER_CUT, FaultKind.LONG_OUTAGE)
_DEFINITE: Final = (Outcome.PAID, Outcome.DECLINED, Outcome.NOT_FORWARDED, Outcome.REFUSED)
MakeEvil = Callable[["World"], None]
"""Adds the malicious nodes that the plan asks for: the gateways with `is_evil`, and the evil client."""


@dataclass(frozen=True, slots=True)
class SentBytes:
    """What somebody put on the wire: a line of the ladder."""

    at_us: int
    link_name: str
    sender: str
    receiver: str
    data: bytes = field(repr=False)


@cache
def _empty_stores() -> tuple[Image, Image]:
    """Both databases as they are when they were just made: bank's and gateway's."""
    images = []
    for machine in (BankMachine, GatewayMachine):
        disk = MemoryDisk(f"sim-template-{machine.__name__}")
        machine.open_empty(disk.name).close()
        images.append(Image.of(disk.files))
        disk.close()
    return images[0], images[1]


class World:
    """Everybody, and what happens to them."""

    def __init__(
        self,
        seed: int,
        judge: Judge,
        *,
        disabled: frozenset[int] = frozenset(),
        make_evil: MakeEvil | None = None,
        plan: Plan | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        """`disabled`: indexes of faults that do not happen, all else being drawn the same.

        The n-th of the plan's shoppers stays at home if SHOPPER_INDEX + n is among them.
        """
        self.seed = seed
        self.judge = judge
        self.disabled = disabled
        self.agenda = Agenda()
        self.counts: Counter[str] = Counter()
        """How often what happened."""
        self.sent: list[SentBytes] = []
        """The ladder: all that was sent."""
        self.happened: list[Fault] = []
        """Faults that were put in, in order."""
        self.authorised_us: dict[bytes, int] = {}
        """By payment ID, when the customer's envelope was sealed."""
        self.refused_us: dict[bytes, int] = {}
        """By payment ID, when a gateway last answered a question with REFUSED."""
        self._in_doubt: set[bytes] = set()
        self._counted: set[tuple[str, bytes]] = set()
        self._hash = hashlib.blake2b(digest_size=16)
        self.plan = plan or draw_plan(self.randomness("plan"))
        self.conditions = conditions or draw_conditions(
            self.randomness("faults"),
            [BANK, *(gateway.gateway_id for gateway in self.plan.gateways if not gateway.is_evil)],
            [customer.name for customer in self.plan.customers],
            self.plan.active_ms,
        )
        source = self.randomness("world")
        self.healed_us = self.plan.active_ms * MS + source.randint(HEAL_AFTER_US_MIN, HEAL_AFTER_US_MAX)
        """From then on nothing fails."""
        self.last_pay_us = self.healed_us + LAST_PAY_AFTER_HEAL_US
        self.last_ask_us = self.healed_us + FINAL_AFTER_US
        self.end_us = self.last_ask_us + QUIET_US
        self.network = Network(self.agenda, self.randomness, self.conditions.weather, self._sent, self.count)
        bank_image, gateway_image = _empty_stores()
        self.bank = BankMachine(self, bank_image, _skew(source))
        self.gateway_of: dict[str, GatewayMachine] = {}
        """The honest gateways, by ID."""
        for gateway in self.plan.gateways:
            if not gateway.is_evil:
                self.gateway_of[gateway.gateway_id] = GatewayMachine(self, gateway, gateway_image, _skew(source))
        self.customers: dict[str, CustomerMachine] = {
            customer.name: CustomerMachine(self, customer, _skew(source)) for customer in self.plan.customers
        }
        self.shoppers = [
            Shopper(self, self.customers[one.customer.name], one)
            for index, one in enumerate(self.plan.shopping, SHOPPER_INDEX)
            if index not in disabled
        ]
        if make_evil is not None:
            make_evil(self)

    @property
    def gateways(self) -> list[GatewayMachine]:
        """The honest ones."""
        return list(self.gateway_of.values())

    @property
    def is_faultless(self) -> bool:
        """Whether nothing fails, nobody lies and no token ends: then what is authorised rightly is paid."""
        return self.conditions.is_calm and self.plan.is_honest and not self.plan.has_ending_tokens

    def randomness(self, name: str) -> random.Random:
        """A source of its own for each name, so that one who draws more changes nothing for the others."""
        return random.Random(f"{self.seed}/{name}")

    # -- the run ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it, judged. Raises Violation, or what a core or store raised."""
        try:
            with remembering_signatures(), small_limits(self.randomness("limits")):
                self._begin()
                self.agenda.run_until(self.healed_us)
                self._heal()
                self.agenda.run_until(self.end_us)
                self.judge.finish(self)
        finally:
            self.close()

    def close(self) -> None:
        """Free what SQLite holds."""
        for machine in self.machines():
            machine.close()

    def machines(self) -> list[Machine]:
        """All servers' machines."""
        return [self.bank, *self.gateway_of.values()]

    def digest(self) -> str:
        """A hash over all that happened up to now."""
        return self._hash.hexdigest()

    def _begin(self) -> None:
        plan, judge = self.plan, self.judge
        for machine in self.machines():
            machine.start()
        assert self.bank.store is not None
        self.bank.store.apply(
            [
                *(
                    OpenCustomer(c.name, c.user_id, verifier(c.user_id, c.password), c.amount_minor)
                    for c in plan.customers
                ),
                *(OpenMerchant(m.merchant_id, m.name, m.amount_minor) for m in plan.merchants),
            ],
            self.bank.clock(),
        )
        for customer in plan.customers:
            judge.account_opened(customer.name, customer.user_id, customer.amount_minor)
            for what, secret in secrets_of(customer.user_id, customer.password, customer.wrong_password):
                judge.secret(f"{customer.name}'s {what}", secret)
        for merchant in plan.merchants:
            judge.merchant_opened(merchant.merchant_id, merchant.amount_minor)
        for token in plan.tokens:
            gateway = self.gateway_of.get(token.gateway_id)
            if gateway is None:
                judge.token_issued(token.gateway_id, token.token)
                continue
            line = IssueToken(token.token)
            self.agenda.at(token.issued_ms * MS, lambda gateway=gateway, line=line: gateway.add_line(line))  # type: ignore[misc]
            if token.cancelled_ms is not None:
                end = CancelToken(token.token)
                at_us = max(token.cancelled_ms, token.issued_ms) * MS
                self.agenda.at(at_us, lambda gateway=gateway, end=end: gateway.add_line(end))  # type: ignore[misc]
        for fault in self.conditions.faults:
            if fault.index not in self.disabled:
                self.agenda.at(fault.at_ms * MS, lambda fault=fault: self._inject(fault))  # type: ignore[misc]

    def _heal(self) -> None:
        self.network.heal()
        for machine in self.machines():
            machine.heal()
        for customer in self.customers.values():
            customer.heal()
        self.judge.healed(self.agenda.now_us)

    # -- faults ----------------------------------------------------------------------------------------

    def _inject(self, fault: Fault) -> None:
        self.happened.append(fault)
        self.note(str(fault))
        kind, duration_us = fault.kind, fault.duration_ms * MS
        if kind in _COUNTED_AT_ONCE:
            self.count(kind.value)  # The others are counted when they have found somebody.
        machine = self._machine(fault.target)
        if kind in _FAULT_AT_SERVERS:
            loses_power = kind is FaultKind.POWER_CUT
            at_disk = fault.share < 0.7
            machine.die_after(fault.steps, kind, loses_power=loses_power, down_us=duration_us, at_disk=at_disk)
        elif kind is FaultKind.CUT_LIVE:
            if (end := self._live_end(fault)) is not None:
                end.cut_after(fault.steps, kind.value)
        elif kind is FaultKind.CUT_NEXT:
            self.network.cut_next(fault.target, is_to_caller=fault.share < 0.5, after=fault.steps, why=kind.value)
        elif kind is FaultKind.STALL:
            if (end := self._live_end(fault)) is not None:
                self.count(kind.value)
                end.stall(self.agenda.now_us + duration_us)
        elif kind is FaultKind.UNREACHABLE:
            self.network.make_unreachable(fault.target, self.agenda.now_us + duration_us)
        elif kind is FaultKind.DISK_FULL:
            machine.fill_disk(None if fault.share < 0.5 else fault.steps * 512, duration_us)
        elif kind is FaultKind.FSYNC_ERROR:
            machine.fail_fsync()
        elif kind is FaultKind.CLOCK_JUMP:
            self._jump(fault)
        elif kind is FaultKind.DECODER_CRASH:
            if self.bank.process is not None:
                self.bank.process.decoder_crash_count = 1 if fault.share < 0.5 else 2
        elif kind is FaultKind.DRAIN:
            if machine.process is not None:
                self.count(kind.value)
                machine.run(machine.process, machine.process.begin_drain)
        elif kind is FaultKind.CLIENT_KILL:
            self.customers[fault.target].die_after(fault.steps)
        elif kind is FaultKind.ROTATE_KEYS:
            self.bank.rotate_keys(int(fault.share * OVERLAP_US_MAX))

    def _machine(self, target: str) -> Machine:
        return self.gateway_of.get(target, self.bank)

    def _live_end(self, fault: Fault) -> End | None:
        """One end of a connection that is up with the target."""
        suffix = f">{fault.target}"
        callers = [e for e in self.network.live.values() if e.link_name.partition("#")[0].endswith(suffix)]
        if not callers:
            return None
        place = fault.share * len(callers)
        caller = callers[int(place)]
        return caller if place % 1 < 0.5 else caller.peer

    def _jump(self, fault: Fault) -> None:
        # Seconds, minutes or days, forward or back; later it is set right.
        ms = fault.duration_ms * (1, 60, 10_000)[fault.steps % 3]
        is_forward, is_customers = fault.share < 0.5, fault.steps % 2
        clock = (self.customers[self._customer_of(fault)] if is_customers else self._machine(fault.target)).clock
        before_ms = clock.wall_wrong_ms
        clock.wall_wrong_ms += ms if is_forward else -ms

        def set_right() -> None:
            clock.wall_wrong_ms = before_ms

        self.agenda.later(int(fault.share * 60 * SECOND), set_right)

    def _customer_of(self, fault: Fault) -> str:
        names = list(self.customers)
        return names[int(fault.share * len(names))]

    # -- what others tell ------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something happened: it goes into the digest."""
        self._hash.update(f"{self.agenda.now_us} {text}\n".encode())

    def count(self, name: str, number: int = 1) -> None:
        """Something happened that the summary counts."""
        self.counts[name] += number

    def count_once(self, name: str, payment_id: bytes) -> None:
        """The same, of a payment that it may be told of again."""
        if (name, payment_id) not in self._counted:
            self._counted.add((name, payment_id))
            self.counts[name] += 1

    def authorised(self, client_name: str, terms: Terms, user_id: str, is_right: bool, envelope_hash: bytes) -> None:
        """A customer said yes, and the envelope is sealed."""
        self.counts["payments authorised"] += 1
        self.authorised_us[terms.payment_id] = self.agenda.now_us
        self.note(f"{client_name} authorised {terms.payment_id.hex()}")
        self.judge.authorised(client_name, terms, user_id, is_right, envelope_hash)

    def told(self, client_name: str, result: PaymentResult) -> None:
        """A client's program ended."""
        self.counts[f"told {result.outcome.value}"] += 1
        self._count_doubt(result)
        self.note(f"{client_name} {result.outcome.value} {result.payment_id.hex()} {result.utr} {result.text}")
        self.judge.told(client_name, result.payment_id, result.outcome, result.receipt, result.utr, result.text)

    def _count_doubt(self, result: PaymentResult) -> None:
        is_definite = result.outcome in _DEFINITE
        if is_definite and result.payment_id in self._in_doubt:
            self._in_doubt.remove(result.payment_id)
            self.counts["doubts ended"] += 1
        elif not is_definite and result.payment_id and result.payment_id not in self._in_doubt:
            self._in_doubt.add(result.payment_id)
            self.counts["doubts"] += 1

    def never_sent(self, payment_id: bytes) -> None:
        """A program died before its payment was written down."""
        self.counts["payments never sent"] += 1
        self.judge.never_sent(payment_id)

    def note_cut(self, name: str, report: CutReport) -> None:
        """What a power cut did to a disk."""
        self.note(f"{name} {report}")
        for what in ("kept", "lost", "torn"):
            self.counts[f"writes {what}"] += getattr(report, what)

    def _sent(self, end: End, data: bytes) -> None:
        node = end.node
        if isinstance(node, Process):
            node.machine.step()
        receiver = end.peer.node.name if end.peer is not None else ""
        self.sent.append(SentBytes(self.agenda.now_us, end.link_name, node.name, receiver, data))
        self._hash.update(b"%d %s %s %s\n" % (self.agenda.now_us, end.link_name.encode(), node.name.encode(), data))
        self.judge.frame(end.link_name, node.name, data)
        if node.name.startswith(EVIL):
            self._look_for_meddling(data)

    def _look_for_meddling(self, data: bytes) -> None:
        if data[KIND_PLACE : KIND_PLACE + 1] == bytes([Kind.STATUS_QUERY]):
            return
        for payment_id in self.authorised_us:
            if payment_id in data:
                self.judge.meddled(payment_id)


def _skew(source: random.Random) -> int:
    return source.randint(-CLOCK_SKEW_MS_MAX, CLOCK_SKEW_MS_MAX)
