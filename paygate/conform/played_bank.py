"""The bank that the kit plays behind a gateway: honest by itself, and led by hand where a case watches a token.

One story serves each link that the gateway opens. A request for the payment of a token that a case watches waits for
the case (`Desk`); all others are decided as a bank must, so that nothing stays in doubt when a case ends.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeVar

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Reason, Role, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Echo,
    EchoReply,
    Error,
    Hello,
    HelloAck,
    Message,
    ResolveRequest,
    ResolveResult,
    TransferAnswer,
    TransferRequest,
    TransferResult,
)
from paygate.codec.seal import NotOpened, envelope_hash, password_key
from paygate.codec.sealed import KeyList, Terms
from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import Failed, require
from paygate.conform.trial import Trial
from paygate.conform.wire import Reply, Wire
from paygate.conform.world import WorldToken
from paygate.net.addresses import Address

FOREVER_MS: Final = 1_000_000_000
"""Longer than any run."""
RELINK_MS: Final = 10_000
"""How long a gateway may take to come back after its link broke; ours tries at once, and then less and less often."""

SETTLED_MS: Final = 250
"""A link that is that old has not broken at once."""

R = TypeVar("R", TransferRequest, ResolveRequest)


class BankLink:
    """One link that the gateway opened to us."""

    def __init__(self, wire: Wire, number: int, t: Trial) -> None:
        self.wire = wire
        self.number = number
        self.hello: Reply | None = None
        self.is_open = False
        self.opened_ms = 0
        self.is_over = False
        """Whether the gateway, or we, ended it, and all that it said before was taken."""
        self.errors: list[Reply] = []
        self.tests: list[Reply] = []
        """Echos of the gateway that were not answered by the wire itself."""
        self.asked_echo_ids: set[int] = set()
        """Correlation IDs of our own Echos that wait for their replies."""
        self.echo_data = b""
        """What the last EchoReply carried."""
        self.changed = t.new_signal()
        self._t = t

    def ended(self) -> None:
        """It is over."""
        self.is_over = True
        self.changed.notify()

    def cut(self) -> None:
        """End it at once, as a bank does that crashes."""
        self.wire.abort()
        self.ended()

    async def echo(self) -> None:
        """Have an Echo of ours answered: the gateway's end is open too."""
        data, correlation_id = self._t.random_bytes(8), int.from_bytes(self._t.random_bytes(8))
        self.asked_echo_ids.add(correlation_id)
        self.wire.send(Echo(data), correlation_id)
        deadline_ms = self._t.now_ms + self._t.settings.patience_ms
        while correlation_id in self.asked_echo_ids and not self.is_over and await self.changed.wait_until(deadline_ms):
            pass
        how = f"the link ended: {self.wire.closed}" if self.is_over else "nothing"
        require(correlation_id not in self.asked_echo_ids, "an EchoReply of the gateway", how)
        require(self.echo_data == data, "the Echo's data", self.echo_data.hex())

    async def expect_test(self, within_ms: int) -> Reply:
        """The gateway tests the link with an Echo; without `Wire.answers_echo` nobody answers it."""
        deadline_ms = self._t.now_ms + within_ms
        while not self.tests and not self.is_over and await self.changed.wait_until(deadline_ms):
            pass
        if not self.tests:
            how = f"the link ended: {self.wire.closed}" if self.is_over else "nothing"
            raise Failed(f"an Echo from the gateway within {within_ms} ms", how)
        return self.tests[-1]

    async def expect_refused(self, code: ErrorCode, within_ms: int | None = None) -> None:
        """The gateway says an Error of this code, with all that belongs to it, and closes."""
        patience_ms = self._t.settings.patience_ms if within_ms is None else within_ms
        deadline_ms = self._t.now_ms + patience_ms
        while not self.errors and not self.is_over and await self.changed.wait_until(deadline_ms):
            pass
        if not self.errors:
            how = f"the link ended: {self.wire.closed}" if self.is_over else "nothing"
            raise Failed(f"an Error {code.name} from the gateway within {patience_ms} ms", how)
        reply = self.errors[0]
        error = reply.message
        require(isinstance(error, Error) and error.code is code, f"an Error {code.name}", reply)
        require(isinstance(error, Error) and error.closes, "closes=1", reply)
        require(reply.correlation_id == 0, "correlation 0 in an Error that closes (spec 5.2)", reply)
        await self.expect_end()

    async def expect_end(self, within_ms: int | None = None) -> None:
        """The gateway closes the link."""
        patience_ms = self._t.settings.patience_ms if within_ms is None else within_ms
        deadline_ms = self._t.now_ms + patience_ms
        while not self.is_over and await self.changed.wait_until(deadline_ms):
            pass
        require(self.is_over, f"the gateway to close its link within {patience_ms} ms", "it is still open")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a payment, as it came."""

    link: BankLink
    message: TransferRequest | ResolveRequest
    correlation_id: int
    at_ms: int
    """By the clock of `Trial.now_ms`."""

    @property
    def terms(self) -> Terms:
        """Whose payment it is."""
        return self.message.terms

    @property
    def envelope_hash(self) -> bytes:
        """Of the envelope that was sent, or is asked for."""
        message = self.message
        return envelope_hash(message.envelope) if isinstance(message, TransferRequest) else message.envelope_hash


class Desk:
    """Where the requests for one token's payments wait for the case that watches it."""

    def __init__(self, t: Trial, bank: "PlayedBank", transaction_id: str) -> None:
        self.trial = t
        self.asked: list[Asked] = []
        """All that came, in their order."""
        self.record = t.new_record(f"bank link, payments of {transaction_id}")
        self._bank = bank
        self._waiting: deque[Asked] = deque()
        self._changed = t.new_signal()

    def came(self, asked: Asked, raw: bytes) -> None:
        """A request came."""
        self.record.note("received", raw)
        self.asked.append(asked)
        self._waiting.append(asked)
        self._changed.notify()

    async def next(self, cls: type[R], within_ms: int | None = None) -> tuple[Asked, R]:
        """The next request, which must be of this kind; with its message once more, under its own type."""
        patience_ms = self.trial.settings.patience_ms if within_ms is None else within_ms
        deadline_ms = self.trial.now_ms + patience_ms
        while not self._waiting and await self._changed.wait_until(deadline_ms):
            pass
        if not self._waiting:
            told = self._bank.trouble or "nothing"
            raise Failed(f"a {cls.kind.name} at the bank within {patience_ms} ms", told)
        asked = self._waiting.popleft()
        if not isinstance(asked.message, cls):
            raise Failed(f"a {cls.kind.name} at the bank", asked.message)
        return asked, asked.message

    def take_all(self) -> list[Asked]:
        """All that wait now."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    async def expect_none(self, for_ms: int) -> None:
        """No request comes for so long."""
        deadline_ms = self.trial.now_ms + for_ms
        while not self._waiting and await self._changed.wait_until(deadline_ms):
            pass
        if self._waiting:
            raise Failed(f"no request at the bank for {for_ms} ms", self._waiting[0].message)

    def answer(self, asked: Asked, outcome: TransferOutcome, reason: Reason = Reason.NONE) -> TransferAnswer:
        """Answer under the request's own correlation ID, with a receipt if the outcome is final. Gives the answer."""
        answer = self._bank.answer_to(asked, outcome, reason)
        self.send(asked, answer)
        return answer

    def send(self, asked: Asked, message: Message) -> None:
        """Answer with any message."""
        self.record.note(f"sent (correlation {asked.correlation_id}): {message.kind.name}")
        asked.link.wire.send(message, asked.correlation_id)


Greeting = Callable[[BankLink], Awaitable[bool]]


class PlayedBank:
    """The bank, its links and its books. Its stories belong to the trial that prepares the run."""

    def __init__(self, t: Trial, address: Address) -> None:
        """Listen. Raises ListenError."""
        self.keys = PlayedBankKeys.of(t.world)
        self.signed_key_lists = [self.keys.sign(self.keys.key_list(t.wall_ms()))]
        """All that were served, the latest last."""
        self.links: list[BankLink] = []
        self.trouble = ""
        """What the gateway first did wrong on any bank link, apart from what a case provoked."""
        self.greeting: Greeting = self.say_hello
        """How a new link is met once its Hello is there; gives whether it is open now."""
        self._t = t
        self._changed = t.new_signal()
        self._desks: dict[str, Desk] = {}
        self._books: dict[bytes, tuple[Terms, bytes, TransferAnswer]] = {}
        self._posted: set[str] = set()
        self._utrs = self.keys.utrs(t.wall_ms())
        self._numbers = count(1)
        self._verifiers: dict[str, bytes] = {}
        door = t.listen(address, link_key=t.world.gateway.link_key)
        self.address = door.address

        async def accept() -> None:
            while True:
                wire = await door.accept(within_ms=FOREVER_MS)
                link = BankLink(wire, next(self._numbers), t)
                self.links.append(link)
                t.spawn(self._serve(link))
                self._changed.notify()

        t.spawn(accept())

    @property
    def key_list(self) -> KeyList:
        """The list that is served now."""
        return self.keys.read(self.signed_key_lists[-1])

    async def ready_link(self) -> BankLink:
        """The link that is open, or will be: a case before may have ended one."""
        last = self.links[-1]
        return await self.open_link_after(last.number - 1 + last.is_over)

    async def open_link_after(self, number: int, within_ms: int = RELINK_MS) -> BankLink:
        """A link with a higher number that is open at both ends."""
        deadline_ms = self._t.now_ms + within_ms
        while True:
            link = self.links[-1] if self.links else None
            if link is not None and link.number > number and link.is_open and not link.is_over:
                await link.echo()
                # Who backs off after links that broke at once must see one that stays.
                await self._t.sleep(max(0, link.opened_ms + SETTLED_MS - self._t.now_ms))
                return link
            if not await self._changed.wait_until(deadline_ms):
                raise Failed(f"a new open link to the bank within {within_ms} ms", self.trouble or "none")

    async def link_after(self, number: int, within_ms: int = RELINK_MS) -> BankLink:
        """The next connection with a higher number; perhaps nothing was said on it yet."""
        deadline_ms = self._t.now_ms + within_ms
        while True:
            for link in self.links:
                if link.number > number:
                    return link
            if not await self._changed.wait_until(deadline_ms):
                raise Failed(f"a connection of the gateway to its bank within {within_ms} ms", "none")

    def watch(self, t: Trial, token: WorldToken) -> Desk:
        """From now on, until the case ends, requests for this token's payments wait for the case."""
        desk = self._desks[token.transaction_id] = Desk(t, self, token.transaction_id)
        return desk

    # -- what a bank says ------------------------------------------------------------------------------

    def answer_to(self, asked: Asked, outcome: TransferOutcome, reason: Reason = Reason.NONE) -> TransferAnswer:
        """The answer to a request, entered in the books if it is final: what was final before is said again."""
        cls = TransferResult if isinstance(asked.message, TransferRequest) else ResolveResult
        payment_id = asked.terms.payment_id
        if not outcome.is_final:
            return cls(payment_id, outcome, reason, "", b"")
        if payment_id not in self._books:
            is_posted = outcome is TransferOutcome.POSTED
            utr = next(self._utrs) if is_posted else ""
            now_ms = self._t.wall_ms()
            statement = self.keys.statement(asked.terms, asked.envelope_hash, outcome, now_ms, reason=reason, utr=utr)
            # Among others in their tree, so that a receipt with a path is what passes.
            others = [
                self.keys.statement(asked.terms, bytes([n]) * 32, outcome, now_ms, reason=reason, utr=utr)
                for n in (1, 2)
            ]
            receipt = self.keys.receipts(others[0], statement, others[1])[1]
            final = TransferResult(payment_id, outcome, reason, utr, receipt)
            self._books[payment_id] = (asked.terms, asked.envelope_hash, final)
            if is_posted:
                self._posted.add(asked.terms.transaction_id)
        said = self._books[payment_id][2]
        return cls(said.payment_id, said.outcome, said.reason, said.utr, said.receipt)

    def _decide(self, asked: Asked) -> TransferAnswer:
        known = self._books.get(asked.terms.payment_id)
        if known is not None:
            is_same = known[:2] == (asked.terms, asked.envelope_hash)
            return self.answer_to(asked, known[2].outcome if is_same else TransferOutcome.MISMATCH)
        if isinstance(asked.message, ResolveRequest):
            return self.answer_to(asked, TransferOutcome.FENCED, Reason.FENCED)
        reason = self._reason_against(asked.message)
        outcome = TransferOutcome.POSTED if reason is Reason.NONE else TransferOutcome.DECLINED
        return self.answer_to(asked, outcome, reason)

    def _reason_against(self, request: TransferRequest) -> Reason:
        if not any(key.key_id == request.key_id for key in self.key_list.suite_keys):
            return Reason.KEY_RETIRED
        try:
            found = self.keys.open(request.key_id, request.terms, request.envelope)
        except NotOpened:
            return Reason.TERMS
        if request.terms.transaction_id in self._posted:
            return Reason.TOKEN_ALREADY_PAID
        return (
            Reason.NONE if self._verifiers_of_world().get(found.user_id) == found.password_key else Reason.CREDENTIALS
        )

    def _verifiers_of_world(self) -> dict[str, bytes]:
        if not self._verifiers:
            parameters, bank_id = self.key_list.password_key, self.keys.bank_id
            for who in self._t.world.customers:
                self._verifiers[who.user_id] = password_key(parameters, bank_id, who.user_id, who.password)
        return self._verifiers

    # -- links -----------------------------------------------------------------------------------------

    async def _serve(self, link: BankLink) -> None:
        try:
            if await self._meet(link):
                while True:
                    self._take(link, await link.wire.receive(FOREVER_MS))
        except Failed as error:
            # The end of a link is no trouble; a frame that is not as it should be is.
            if link.wire.closed is None:
                self.trouble = self.trouble or f"on {link.wire.name} {error}"
                link.wire.abort()
        link.ended()
        self._changed.notify()

    async def _meet(self, link: BankLink) -> bool:
        hello = await link.wire.receive(FOREVER_MS)
        link.hello = hello
        if not isinstance(hello.message, Hello):
            raise Failed("a Hello as the first frame of a link", hello)
        link.is_open = link.wire.is_open = await self.greeting(link)
        link.opened_ms = self._t.now_ms
        link.changed.notify()
        self._changed.notify()
        return link.is_open

    async def say_hello(self, link: BankLink) -> bool:
        """Open the link, as a bank does that knows the gateway."""
        self.acknowledge(link)
        return True

    def acknowledge(self, link: BankLink, **changes: Any) -> None:
        """Send HelloAck, with changes."""
        assert link.hello is not None
        usual: dict[str, Any] = {
            "role": Role.BANK,
            "party_id": self._t.world.bank_id,
            "version": limits.PROTOCOL_VERSION,
            "frame_size_max": limits.FRAME_SIZE_MAX,
        }
        link.wire.send(HelloAck(**(usual | changes)), link.hello.correlation_id)

    def _take(self, link: BankLink, reply: Reply) -> None:
        message = reply.message
        if isinstance(message, Error):
            link.errors.append(reply)
            link.changed.notify()
        elif isinstance(message, Echo):
            link.tests.append(reply)
            link.changed.notify()
        elif isinstance(message, EchoReply) and reply.correlation_id in link.asked_echo_ids:
            link.asked_echo_ids.remove(reply.correlation_id)
            link.echo_data = message.echo_data
            link.changed.notify()
        elif isinstance(message, BankKeysQuery):
            is_own = message.bank_id == self.keys.bank_id
            status = KeysStatus.AVAILABLE if is_own else KeysStatus.UNKNOWN_BANK
            link.wire.send(BankKeys(status, self.signed_key_lists[-1] if is_own else b""), reply.correlation_id)
        elif isinstance(message, TransferRequest | ResolveRequest):
            asked = Asked(link, message, reply.correlation_id, self._t.now_ms)
            desk = self._desks.get(message.terms.transaction_id)
            if desk is not None and not desk.trial.is_over:
                desk.came(asked, reply.raw)
            else:
                link.wire.send(self._decide(asked), reply.correlation_id)
        else:
            raise Failed("a request that a gateway may ask a bank", reply)
