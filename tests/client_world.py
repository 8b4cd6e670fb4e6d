"""One session of the client's core in a test: its shell, its gateway and its clock."""

import random

from builders import (
    BANK_ID,
    NOW_MS,
    PASSCODE,
    PASSWORD,
    ROOT_PUBLIC_KEY,
    TRANSACTION_ID,
    USER_ID,
    build_signed_key_list,
    build_terms,
    build_token_ack,
)
from scripted_gateway import ScriptedGateway, keys

from paygate.client.core import Core
from paygate.client.effects import Effect, Save, Seal, Send
from paygate.client.payment import Outcome, Payment, PaymentResult
from paygate.client.root import BankRoot
from paygate.client.states import State
from paygate.clock import Now
from paygate.codec.codes import KemId
from paygate.codec.messages import Message, TokenAck
from paygate.codec.seal import seal_request

ROOT = BankRoot(BANK_ID, ROOT_PUBLIC_KEY)
PAYMENT_ID = build_terms().payment_id


class World:
    """One core, its gateway and its clock; performs effects in order, as a shell does."""

    def __init__(
        self, *, serial_min: int = 0, kem_id: KemId | None = None, question: Payment | None = None, seed: int = 1
    ) -> None:
        self.now = Now(1_000, NOW_MS)
        self.effects: list[Effect] = []
        self.saved: list[Payment] = []
        self.seals = True  # whether the encoder answers at once
        self.saves = True  # whether the disk answers at once
        self.gateway = ScriptedGateway()
        randomness = random.Random(seed)
        if question is not None:
            self.core = Core.question(question, serial_min=serial_min, randomness=randomness)
        else:
            self.core = Core(
                root=ROOT,
                gateway="127.0.0.1:15000",
                transaction_id=TRANSACTION_ID,
                passcode=PASSCODE,
                serial_min=serial_min,
                randomness=randomness,
                kem_id=kem_id,
            )

    # -- the shell

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            if isinstance(effect, Send):
                self.receive(self.gateway.receive(effect.data, self.now.mono_ms))
            elif isinstance(effect, Seal) and self.seals:
                self.perform(self.core.sealed(seal_request(effect.request, b"n" * 16), self.now))
            elif isinstance(effect, Save):
                self.saved.append(effect.payment)
                if self.saves:
                    self.perform(self.core.saved(self.now))

    def receive(self, data: bytes) -> None:
        if data:
            self.perform(self.core.receive_data(data, self.now))

    def pass_time(self, ms: int) -> None:
        """Time goes by; the timer is served at each deadline, as a loop would."""
        end_ms = self.now.mono_ms + ms
        while True:
            deadline_ms = self.core.next_deadline_ms()
            if deadline_ms is None or deadline_ms > end_ms:
                break
            self._set_time(max(deadline_ms, self.now.mono_ms))
            self.perform(self.core.receive_timer(self.now))
        self._set_time(end_ms)

    def _set_time(self, mono_ms: int) -> None:
        self.now = Now(mono_ms, self.now.wall_ms + mono_ms - self.now.mono_ms)

    def count(self, kind: type[Effect]) -> int:
        return sum(isinstance(effect, kind) for effect in self.effects)

    def expect_state(self, state: State) -> "World":
        assert self.core.state is state
        return self

    # -- the story

    def connect(self) -> "World":
        if not self.effects:
            self.perform(self.core.start(self.now))
        self.gateway = ScriptedGateway(self.now.mono_ms)
        self.perform(self.core.connected(self.now))
        return self

    def reply(self, message: Message) -> "World":
        self.receive(self.gateway.reply(message))
        return self

    def acknowledge(self, token: TokenAck | None = None, signed_key_list: bytes | None = None) -> "World":
        self.connect()
        self.reply(token or build_token_ack())
        return self.reply(keys(signed_key_list or build_signed_key_list()))

    def authorise(self) -> "World":
        self.perform(self.core.authorise(USER_ID, PASSWORD, PAYMENT_ID, self.now))
        return self

    def send(self) -> "World":
        self.acknowledge().authorise()
        assert self.core.state is State.SENT
        return self

    def lose_link(self) -> "World":
        self.perform(self.core.connection_lost("the connection to the gateway ended", self.now))
        return self

    def time_up(self) -> "World":
        self.perform(self.core.time_up(self.now))
        return self

    @property
    def payment(self) -> Payment:
        assert self.core.payment is not None
        return self.core.payment

    @property
    def result(self) -> PaymentResult:
        assert self.core.state is State.ENDED
        assert self.core.result is not None
        return self.core.result

    def expect(self, outcome: Outcome, *words: str) -> "World":
        """How it ended, and that nothing is left open."""
        assert self.result.outcome is outcome, self.result.text
        for word in words:
            assert word in self.result.text
        assert self.core.next_deadline_ms() is None
        return self

    def expect_unsent(self, outcome: Outcome, *words: str) -> "World":
        """It ended before anything was sent, and says so."""
        self.expect(outcome, "Nothing was sent to the bank; no money has moved.", *words)
        assert not self.result.money_may_have_moved
        return self
