"""Customers by the hundred in one process: the client's own sessions, sealing in this process, each led by a story."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faults.books import Broken
from faults.house import CUSTOMERS, House

from paygate.client.core import Core
from paygate.client.payment import Outcome, PaymentResult, PaymentState
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.client.pending import PendingStore
from paygate.client.root import BankRoot, read_root
from paygate.client.session import LoopAlarm, Session
from paygate.client.states import State
from paygate.clock import system_now
from paygate.codec.messages import SealCredentials
from paygate.codec.seal import seal_request
from paygate.net.loop import Loop

Steps = Iterator[None]
"""A story: it goes on whenever something may have happened."""
TRIES_MAX: Final = 20
"""How often a customer tries again, half a second apart, until a server that was cut off is linked again."""
PAUSE_MS: Final = 500
_TICK_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Order:
    """A token that a customer is to pay."""

    transaction_id: str
    passcode: str
    customer: int = 0


class _Encoder:
    """Seals in this process, whose Argon2id is remembered."""

    def __init__(self, loop: Loop, on_sealed: Callable[[bytes], None], randomness: random.Random) -> None:
        self._loop = loop
        self._on_sealed = on_sealed
        self._randomness = randomness

    def seal(self, request: SealCredentials) -> None:
        """As the encoder child does."""
        envelope = seal_request(request, self._randomness.randbytes(16))
        self._loop.call_soon(lambda: self._on_sealed(envelope))

    def close(self) -> None:
        """Nothing to end."""


class Shoppers:
    """Runs stories side by side in one loop."""

    def __init__(self, house: House, loop: Loop, seed: int) -> None:
        self.loop = loop
        self.randomness = random.Random(seed)
        self._root: BankRoot = read_root(house.root_key_path)
        self.store = PendingStore(house.root / "client")
        self.store.create()
        self._sessions: list[Session] = []

    def run(self, stories: Iterator[Steps], count_at_once: int, is_over: Callable[[], bool] = lambda: False) -> None:
        """Run stories to their ends, so many at once; none is begun any more once `is_over`."""
        running: list[Steps] = []
        while True:
            while len(running) < count_at_once and not is_over():
                story = next(stories, None)
                if story is None:
                    break
                running.append(story)
            if not running:
                return
            self._tick()
            running = [story for story in running if _goes_on(story)]

    def _tick(self) -> None:
        now_ms = system_now().mono_ms
        deadlines = [session.core.next_deadline_ms() for session in self._sessions]
        wait_ms = min([_TICK_MS, *(max(0, deadline - now_ms) for deadline in deadlines if deadline is not None)])
        self.loop.flush()
        self.loop.run_once(wait_ms)
        for session in self._sessions:
            session.feed(session.core.receive_timer(system_now()))
        self.loop.flush()

    # -- what stories are made of ----------------------------------------------------------------------

    def sleep(self, for_ms: int) -> Steps:
        """Let time pass."""
        until_ms = system_now().mono_ms + for_ms
        while system_now().mono_ms < until_ms:
            yield

    def pay(self, order: Order, port: int, results: list[PaymentResult]) -> Steps:
        """One session that pays if it can; its result goes to `results`."""
        core = Core(
            root=self._root,
            gateway=f"127.0.0.1:{port}",
            transaction_id=order.transaction_id,
            passcode=order.passcode,
            serial_min=self.store.serial_min(self._root),
            randomness=self.randomness,
        )
        session = self._session(core, port)
        while not session.is_over and core.state is not State.ACKNOWLEDGED:
            yield
        if not session.is_over:
            _, user, password = CUSTOMERS[order.customer]
            now = system_now()
            payment_id = make_payment_id(now.wall_ms, self.randomness.randbytes(RANDOMNESS_SIZE))
            session.feed(core.authorise(user, password, payment_id, now))
        yield from self._end(session, results)

    def ask(self, payment_id: bytes, port: int, results: list[PaymentResult]) -> Steps:
        """`paygate-client status` for one payment."""
        core = Core.question(
            self.store.load(payment_id), serial_min=self.store.serial_min(self._root), randomness=self.randomness
        )
        yield from self._end(self._session(core, port), results)

    def resolve(self, result: PaymentResult, port: int) -> Steps:
        """Ask by a link that holds until the payment is settled. Raises Broken if it is not."""
        for _ in range(TRIES_MAX):
            if not result.payment_id or self.is_settled(result.payment_id):
                return
            yield from self.ask(result.payment_id, port, [])
            if not self.is_settled(result.payment_id):
                yield from self.sleep(PAUSE_MS)
        raise Broken(f"I9: payment {result.payment_id.hex()} is not settled; at first: {result.text}")

    def is_settled(self, payment_id: bytes) -> bool:
        """Whether the client's own record says what became of it."""
        return self.store.load(payment_id).state is not PaymentState.PENDING

    def pay_at_last(self, order: Order, port: int) -> Steps:
        """By a link that holds: the token is paid, now or by what was before. Raises Broken if it can't be."""
        results: list[PaymentResult] = []
        for _ in range(TRIES_MAX):
            yield from self.pay(order, port, results)
            if results[-1].outcome in (Outcome.PAID, Outcome.ALREADY_PAID):
                return
            yield from self.resolve(results[-1], port)
            yield from self.sleep(PAUSE_MS)
        raise Broken(f"{order.transaction_id} can't be paid once the link holds: {results[-1].text}")

    def _session(self, core: Core, port: int) -> Session:
        made: list[Session] = []
        alarm = LoopAlarm(self.loop, lambda: made[0].time_up())  # noqa: PLW0108  # there is none yet
        session = Session(self.loop, core, self.store, ("127.0.0.1", port), alarm, system_now)
        session._encoder = _Encoder(self.loop, session._sealed, self.randomness)  # type: ignore[assignment]
        made.append(session)
        self._sessions.append(session)
        return session

    def _end(self, session: Session, results: list[PaymentResult]) -> Steps:
        while not session.is_over:
            yield
        assert session.core.result is not None
        results.append(session.core.result)
        self._sessions.remove(session)
        session.close()


def _goes_on(story: Steps) -> bool:
    try:
        next(story)
    except StopIteration:
        return False
    return True


def write_tokens(path: Path, orders: list[Order], merchant: str) -> None:
    """Add tokens as a merchant does."""
    lines = [f"{order.transaction_id} | {order.passcode} | unpaid | 1.00 | {merchant} | INR\n" for order in orders]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)
