"""A real core with its real store, driven as `paygate/tick.py` drives it: no socket, a disk that can be full.

The other ends are real links too; what they are told is kept, and so measured over the wire's own bytes.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Generic, TypeVar

import apsw

from paygate.bank.core import Decode
from paygate.clock import Now
from paygate.codec.codes import PaymentStatus
from paygate.codec.messages import (
    BankKeys,
    Error,
    Message,
    PaymentAck,
    ResolveResult,
    StatusAck,
    TokenAck,
    TransferResult,
)
from paygate.effects import CloseLink, Commit, Effect, Send
from paygate.files.sqlite import StoreFull
from paygate.link import Link
from paygate.link_events import ReplyReceived, RequestReceived
from paygate.tick import Core, Store
from specgen.vector_fixtures import NOW_MS, fixed_bytes

VFS_NAME: Final = "specgen-disk"
ADDRESS: Final = ("192.0.2.7", 40_000)
OTHER_ENVELOPE: Final = fixed_bytes("another opaque envelope", 304)

C = TypeVar("C", bound=Core)

Question = tuple[int, int]
"""Link and correlation ID of what a far end asked."""


class Disk(apsw.VFS):
    """The real disk, full while told so. It syncs nothing: no plug is pulled here."""

    def __init__(self) -> None:
        self.is_full = False
        super().__init__(VFS_NAME, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":
        """SQLite's name for it."""
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.is_full:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        pass


@contextmanager
def new_disk() -> Iterator[tuple[Disk, Path]]:
    """A disk with room, registered as VFS_NAME meanwhile, and where a store on it may be."""
    disk = Disk()
    try:
        with tempfile.TemporaryDirectory() as directory:
            yield disk, Path(directory) / "store.db"
    finally:
        disk.unregister()


class DrivenCore(Generic[C]):
    """One core and its store, and the far ends of its links by their IDs."""

    def __init__(self, core: C, store: Store) -> None:
        self.core = core
        self.store = store
        self.now = Now(1_000_000, NOW_MS)
        self.links: dict[int, Link] = {}
        self.replies: dict[Question, Message] = {}
        """In the order in which they came."""
        self.requests: list[tuple[int, int, Message]] = []
        """What the core asked of the far ends: link, correlation ID, message."""
        self.decodes: list[Decode] = []

    def ask(self, link_id: int, message: Message) -> Question:
        """Have a far end ask, and wait until nothing is on its way."""
        correlation_id = self.links[link_id].send_request(message)
        self.settle()
        return link_id, correlation_id

    def settle(self) -> None:
        """Tick until nothing is on its way."""
        while sent := {link_id: data for link_id, link in self.links.items() if (data := link.data_to_send())}:
            self.perform([e for link_id, data in sent.items() for e in self.core.receive_data(link_id, data, self.now)])

    def perform(self, effects: list[Effect]) -> None:
        """As the shell does: first all commits, then what is sent."""
        others: list[Effect] = []
        while effects:
            operations = [effect.operation for effect in effects if isinstance(effect, Commit)]
            others += [effect for effect in effects if not isinstance(effect, Commit)]
            effects = self._commit(operations) if operations else []
        self.decodes += [effect for effect in others if isinstance(effect, Decode)]
        for effect in self.core.link_effects():
            assert not isinstance(effect, CloseLink), effect.reason
            if isinstance(effect, Send) and effect.link_id in self.links:
                self._receive(effect.link_id, effect.data)

    def _commit(self, operations: list[Effect]) -> list[Effect]:
        try:
            outcomes = self.store.apply(operations, self.now)
        except StoreFull:
            if len(operations) > 1:
                return [effect for operation in operations for effect in self._commit([operation])]
            return self.core.commit_failed(operations, self.now)
        return self.core.committed(outcomes, self.now)

    def _receive(self, link_id: int, data: bytes) -> None:
        for event in self.links[link_id].receive_data(data, self.now.mono_ms):
            if isinstance(event, ReplyReceived):
                self.replies[link_id, event.correlation_id] = event.message
            elif isinstance(event, RequestReceived):
                self.requests.append((link_id, event.correlation_id, event.message))


def answer_words(answer: Message | None, first: Message | None) -> str:
    """An answer in the words of the tables; empty for none. `first`: what the payment's first request was told."""
    match answer:
        case TokenAck(status=status):
            return f"TokenAck {status.name}"
        case BankKeys(status=status):
            return f"BankKeys {status.name}"
        case Error(code=code):
            return f"Error {code.name}"
        case PaymentAck(status=PaymentStatus.REFUSED) | StatusAck(status=PaymentStatus.REFUSED):
            return f"REFUSED {answer.reason.name}"
        case PaymentAck() | StatusAck():
            return answer.status.name + _same(answer, first)
        case TransferResult() | ResolveResult():
            return answer.outcome.name + _same(answer, first)
    assert answer is None
    return ""


def _same(answer: Message, first: Message | None) -> str:
    kinds = (PaymentAck, StatusAck, TransferResult, ResolveResult)
    if not isinstance(answer, kinds) or not isinstance(first, kinds) or not answer.receipt:
        return ""
    is_same = (answer.reason, answer.utr, answer.receipt) == (first.reason, first.utr, first.receipt)
    return ", the same bytes" if is_same else ""
