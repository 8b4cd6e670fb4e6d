"""A customer's machine and the client programs on it: the real core, and the pending records that outlive a program.

A program performs effects as `client/session.py` does, and may be killed before each of them. What `Save` wrote is
there after a kill and after a power cut, as `PendingStore` promises (its own power-cut tests hold it to that).
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sim.agenda import MS, Event, MachineClock
from sim.faults import FaultKind
from sim.invariants import Invariant, Violation
from sim.keys import ROOT, seal
from sim.network import End
from sim.plan import CustomerPlan, ShoppingPlan
from sim.server import ProcessDied

from paygate.client.core import Core
from paygate.client.effects import Connect, Disconnect, Effect, KeepSerial, Save, Seal, Send, StartSession
from paygate.client.payment import Payment
from paygate.client.payment_file import payment_from_json, payment_to_json
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.client.states import State
from paygate.codec.messages import Message

if TYPE_CHECKING:
    from sim.world import World

SEAL_US: Final = 40 * MS
"""What the encoder takes for an Argon2id and an envelope, and up to as much again."""


_payment_of = lru_cache(maxsize=256)(payment_from_json)
"""What a record says, read once, however often its customer looks."""


class WatchedCore(Core):
    """The real core, with somebody listening to what the gateway says."""

    on_reply: Callable[[Message], None]

    @property
    def transaction_id(self) -> str:
        """Of the token that it is about."""
        return self._order.transaction_id

    def _replied(self, message: Message, now: "object") -> list[Effect]:
        self.on_reply(message)
        return super()._replied(message, now)  # type: ignore[arg-type]


class CustomerMachine:
    """What stays when a customer's program dies: clocks and the state directory."""

    def __init__(self, world: "World", plan: CustomerPlan, wall_wrong_ms: int) -> None:
        self.world = world
        self.plan = plan
        self.source: random.Random = world.randomness(f"customer {plan.name}")
        self.clock = MachineClock(world.agenda, self.source.randrange(1, 10**9), wall_wrong_ms)
        self.files: dict[bytes, bytes] = {}
        """The pending records by payment ID, as they are on disk."""
        self.serial_min = 0
        self._deaths: list[int] = []

    def record(self, payment_id: bytes) -> Payment:
        """What is on disk of a payment."""
        return _payment_of(self.files[payment_id])

    def save(self, payment: Payment) -> None:
        """As `PendingStore.save`: what is settled stays."""
        if payment.payment_id not in self.files or not self.record(payment.payment_id).is_settled:
            self.files[payment.payment_id] = payment_to_json(payment)

    def die_after(self, steps: int) -> None:
        """Have the program that does the n-th step from now on killed at it."""
        self._deaths.append(steps)

    def step(self) -> None:
        """One of the places where a program may die. Raises ProcessDied."""
        if self._deaths:
            self._deaths[0] -= 1
            if self._deaths[0] < 0:
                self._deaths.pop(0)
                raise ProcessDied

    def heal(self) -> None:
        """Nothing fails here any more."""
        self._deaths.clear()
        self.clock.wall_wrong_ms = 0


class ClientProgram:
    """One run of `paygate-client`: `pay`, or `status` for one payment."""

    def __init__(
        self,
        machine: CustomerMachine,
        core: WatchedCore,
        gateway_id: str,
        on_end: Callable[["ClientProgram", bool], None],
        shopping: ShoppingPlan | None = None,
        password: str = "",
    ) -> None:
        """`on_end(program, was_killed)` is called once. `shopping` and `password`: for one that pays."""
        self.name = machine.plan.name
        self.machine = machine
        self.core = core
        self.payment_id = b""
        """Of the payment that it made, from its authorisation on."""
        self.is_over = False
        self._gateway_id = gateway_id
        self._on_end = on_end
        self._shopping = shopping
        self._password = password
        self._end: End | None = None
        self._timer: Event | None = None
        self._timer_ms: int | None = None
        self._alarm: Event | None = None
        self._is_thinking = False
        self._serial_min = machine.serial_min
        judge = machine.world.judge
        core.on_reply = lambda message: judge.gateway_told(gateway_id, message, core.transaction_id)

    def start(self) -> None:
        """Run it."""
        self._do(lambda: self.core.start(self.machine.clock()))

    # -- the node --------------------------------------------------------------------------------------

    def on_connected(self, end: End) -> None:
        """Node."""
        if end is self._end:
            self._do(lambda: self.core.connected(self.machine.clock()))
        else:
            end.close_after_flush()

    def on_data(self, end: End, data: bytes) -> None:
        """Node."""
        if end is self._end:
            self._do(lambda: self.core.receive_data(data, self.machine.clock()))

    def on_eof(self, end: End) -> None:
        """Node."""
        if end is self._end:
            self._do(lambda: self.core.receive_eof(self.machine.clock()))
        end.close_after_flush()

    def on_closed(self, end: End, reason: str) -> None:
        """Node."""
        if end is self._end:
            self._end = None
            text = f"the connection to the gateway ended: {reason}"
            self._do(lambda: self.core.connection_lost(text, self.machine.clock()))

    # -- effects ---------------------------------------------------------------------------------------

    def _do(self, act: Callable[[], Sequence[Effect]]) -> None:
        """Have the core do something, and perform what comes of it; the program may be killed at each step."""
        if self.is_over:
            return
        try:
            queue = deque(act())
            while queue:
                self.machine.step()
                queue.extend(self._perform(queue.popleft()))
        except ProcessDied:
            self._finish(was_killed=True)
            return
        if self.core.state is State.ENDED:
            self._finish(was_killed=False)
            return
        if self.core.state is State.ACKNOWLEDGED and not self._is_thinking and self._shopping is not None:
            self._is_thinking = True
            self._later(self._shopping.think_ms * MS, self._authorise)
        self._set_timer()

    def _perform(self, effect: Effect) -> Sequence[Effect]:
        world, now = self.machine.world, self.machine.clock()
        match effect:
            case Connect():
                self._end = world.network.connect(self, self._gateway_id)
            case Send(data):
                if self._end is not None:
                    self._end.send(data)
            case Disconnect():
                if self._end is not None:
                    self._end.close_after_flush()
                    self._end = None
            case StartSession(left_ms):
                if self._alarm is not None:
                    self._alarm.cancel()
                self._alarm = self._later(left_ms * MS, self._time_up)
            case KeepSerial(serial=serial):
                self.machine.serial_min = max(self.machine.serial_min, serial)
            case Seal(request):
                envelope = seal(request, self.machine.source)
                delay_us = SEAL_US + self.machine.source.randrange(SEAL_US)
                self._later(delay_us, lambda: self._do(lambda: self._sealed(envelope)))
            case Save(payment):
                self.machine.save(payment)
                self.machine.step()
                return self.core.saved(now)
        return []

    def _sealed(self, envelope: bytes) -> Sequence[Effect]:
        effects = self.core.sealed(envelope, self.machine.clock())
        payment, shopping = self.core.payment, self._shopping
        if effects and payment is not None and shopping is not None:
            if (serial := payment.key_list().serial) < self._serial_min:
                # T10: whoever got hold of a retired key could read what is sealed for it.
                text = f"{self.name} sealed for key list {serial}, and had one of {self._serial_min}"
                raise Violation(Invariant.I7, text)
            is_right = self._password == shopping.customer.password
            self.machine.world.authorised(
                self.name, payment.terms, shopping.customer.user_id, is_right, payment.envelope_hash
            )
        return effects

    def _authorise(self) -> None:
        if self.core.state is not State.ACKNOWLEDGED or self._shopping is None:
            return
        now = self.machine.clock()
        self.payment_id = make_payment_id(now.wall_ms, self.machine.source.randbytes(RANDOMNESS_SIZE))
        user_id, password = self._shopping.customer.user_id, self._password
        self._do(lambda: self.core.authorise(user_id, password, self.payment_id, now))

    def _time_up(self) -> None:
        self._do(lambda: self.core.time_up(self.machine.clock()))

    # -- time ------------------------------------------------------------------------------------------

    def _later(self, delay_us: int, act: Callable[[], None]) -> Event:
        return self.machine.world.agenda.later(delay_us, lambda: None if self.is_over else act())

    def _set_timer(self) -> None:
        deadline_ms = self.core.next_deadline_ms()
        if self._timer is not None:
            if deadline_ms == self._timer_ms:
                return
            self._timer.cancel()
        self._timer_ms = deadline_ms
        if deadline_ms is None:
            self._timer = None
        else:
            self._timer = self.machine.world.agenda.at(self.machine.clock.true_us(deadline_ms), self._timer_due)

    def _timer_due(self) -> None:
        self._timer = self._timer_ms = None
        self._do(lambda: self.core.receive_timer(self.machine.clock()))

    def _finish(self, *, was_killed: bool) -> None:
        self.is_over = True
        for event in (self._timer, self._alarm):
            if event is not None:
                event.cancel()
        world = self.machine.world
        if was_killed:
            world.count(FaultKind.CLIENT_KILL.value)
            world.network.vanish(self, is_silent=False, source=self.machine.source)
        self._on_end(self, was_killed)


def pay_core(machine: CustomerMachine, shopping: ShoppingPlan, passcode: str) -> WatchedCore:
    """The core of a program that pays."""
    return WatchedCore(
        root=ROOT,
        gateway=gateway_address(shopping.token.gateway_id),
        transaction_id=shopping.token.token.transaction_id,
        passcode=passcode,
        serial_min=machine.serial_min,
        randomness=machine.source,
    )


def question_core(machine: CustomerMachine, payment: Payment, *, sends_again: bool) -> WatchedCore:
    """The core of a program that asks what became of a payment, or goes on with it (`paygate-client retry`)."""
    make = WatchedCore.again if sends_again else WatchedCore.question
    core = make(payment, serial_min=machine.serial_min, randomness=machine.source)
    assert isinstance(core, WatchedCore)
    return core


def gateway_address(gateway_id: str) -> str:
    """What is written down of a gateway; the records want a host and a port."""
    return f"{gateway_id.lower()}.example:15000"
