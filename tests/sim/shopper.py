"""What a customer does about one token: pays, asks after a doubt until it ends, tries again when that is sensible."""

from typing import TYPE_CHECKING, Final

from sim.agenda import MS, SECOND
from sim.client import ClientProgram, CustomerMachine, pay_core, question_core
from sim.plan import ShoppingPlan

from paygate.client.payment import Outcome, Payment, PaymentState
from paygate.client.verdict import IN_FLIGHT_MS_MAX
from paygate.codec.codes import TokenStatus
from paygate.codec.limits import SESSION_MS

if TYPE_CHECKING:
    from sim.world import World

ASK_MS_MAX: Final = 10_000
"""The longest that a customer in doubt waits before asking again."""
RETRY_SHARE: Final = 0.2
"""Of the questions: the customer goes on with the payment instead, which sends the same bytes again if need be."""
WRONG_PASSCODE: Final = "wrong-passcode"
_DONE: Final = frozenset({Outcome.PAID, Outcome.ALREADY_PAID})


class Shopper:
    """One `ShoppingPlan` being carried out."""

    def __init__(self, world: "World", machine: CustomerMachine, plan: ShoppingPlan) -> None:
        self.plan = plan
        self._world = world
        self._machine = machine
        self._wrong_passcode_count = plan.wrong_passcode_count
        self._payment_count = 0
        self._try_count = 0
        self._ask_count = 0
        world.agenda.at(plan.start_ms * MS, self._pay)

    # -- paying ----------------------------------------------------------------------------------------

    def _pay(self) -> None:
        world, plan, machine = self._world, self.plan, self._machine
        if world.agenda.now_us > world.last_pay_us:
            return
        self._try_count += 1
        passcode = plan.token.token.passcode
        if self._wrong_passcode_count > 0:
            self._wrong_passcode_count -= 1
            passcode = WRONG_PASSCODE
        is_mistyped = self._payment_count < plan.wrong_password_count
        password = plan.customer.wrong_password if is_mistyped else plan.customer.password
        core = pay_core(machine, plan, passcode)
        ClientProgram(machine, core, plan.token.gateway_id, self._paid, plan, password).start()

    def _paid(self, program: ClientProgram, was_killed: bool) -> None:
        """A program that was to pay has ended."""
        payment_id = program.payment_id
        if payment_id in self._machine.files:
            self._payment_count += 1
        if not was_killed:
            self._told(program)
            result = program.core.result
            token = program.core.token
            is_over = token is not None and token.status is TokenStatus.EXPIRED
            if is_over or (result is not None and result.outcome in _DONE):
                return
        if payment_id in self._machine.files and was_killed:
            self._ask_later(payment_id)  # whatever the record says, nobody was told
            return
        if payment_id in self._machine.files:
            self._follow(self._machine.record(payment_id))
            return
        if payment_id in self._world.authorised_us:
            self._world.never_sent(payment_id)
        self._pay_later()

    def _pay_later(self) -> None:
        # Without a payment made, a few tries more: a token may be in flight, or a link broken.
        if self._payment_count < self.plan.payment_count_max and self._try_count < 2 * self.plan.payment_count_max + 3:
            self._world.agenda.later(self._machine.source.randrange(500, 16_000) * MS, self._pay)

    # -- asking ----------------------------------------------------------------------------------------

    def _follow(self, record: Payment) -> None:
        """Go on from what is written down of the last payment."""
        if record.state is PaymentState.PAID:
            return
        if record.is_settled or self._is_refused(record):
            self._ask_count = 0
            if not record.is_settled:
                # T8: it was the gateway's word, so it is asked again when all is well.
                again_us = self._world.healed_us + self._machine.source.randrange(ASK_MS_MAX) * MS
                if self._world.agenda.now_us < again_us:
                    self._world.agenda.at(again_us, lambda: self._ask(record.payment_id))
            self._pay_later()
            return
        self._ask_later(record.payment_id)

    def _ask_later(self, payment_id: bytes) -> None:
        wait_ms = min(500 << min(self._ask_count, 8), ASK_MS_MAX)
        self._ask_count += 1
        self._world.agenda.later(wait_ms * MS, lambda: self._ask(payment_id))

    def _is_refused(self, record: Payment) -> bool:
        """Whether the gateway said that it did not forward it, when nothing could be on its way any more.

        Some customers do not wait for so long.
        """
        over_us = self._world.authorised_us[record.payment_id] + (SESSION_MS + IN_FLIGHT_MS_MAX) * MS
        asked_us = self._world.refused_us.get(record.payment_id, 0)
        return record.state is PaymentState.REFUSED and (asked_us > over_us or self.plan.is_hasty)

    def _ask(self, payment_id: bytes) -> None:
        if self._world.agenda.now_us > self._world.last_ask_us:
            return
        is_early = self._world.agenda.now_us < self._world.healed_us
        sends_again = is_early and self._machine.source.random() < RETRY_SHARE
        if sends_again:
            self._world.count("retries")
        core = question_core(self._machine, self._machine.record(payment_id), sends_again=sends_again)
        ClientProgram(self._machine, core, self.plan.token.gateway_id, self._answered).start()

    def _answered(self, program: ClientProgram, was_killed: bool) -> None:
        assert program.core.payment is not None
        payment_id = program.core.payment.payment_id
        if was_killed:
            self._ask_later(payment_id)
            return
        self._told(program)
        result = program.core.result
        if result is not None and result.outcome is Outcome.REFUSED:
            self._world.refused_us[payment_id] = self._world.agenda.now_us
        self._follow(self._machine.record(payment_id))

    def _told(self, program: ClientProgram) -> None:
        result = program.core.result
        assert result is not None
        self._world.told(self._machine.plan.name, result)


LAST_PAY_AFTER_HEAL_US: Final = 5 * SECOND
