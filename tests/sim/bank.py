"""The bank in a run: the real core, ledger and decoder, without sockets, files and children."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builders import RECEIPT_KEY
from sim.agenda import MS, SECOND
from sim.faults import FaultKind
from sim.keys import MemoryDecoder, signed_key_list, suite_key_of
from sim.plan import BANK, CURRENCY
from sim.server import Machine, Process

from paygate.bank.core import BankCore, Decode
from paygate.bank.ledger import BankIdentity, Operation, Outcome, PaymentOutcome, Resolve, Transfer
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now
from paygate.codec.codes import Role, TransferOutcome
from paygate.codec.messages import OpenedEnvelope
from paygate.effects import Effect

if TYPE_CHECKING:
    from sim.world import World

IDENTITY: Final = BankIdentity(BANK, "PGBK", CURRENCY)
LEDGER_PATH: Final = Path("ledger.sqlite")
_COUNTED_AS: Final = {
    TransferOutcome.DECLINED: "payments declined",
    TransferOutcome.FENCED: "payments fenced",
}
DECODE_US_MAX: Final = 2 * MS
DECODER_RESTART_US: Final = 300 * MS


class _WatchedLedger:
    """The ledger, with the judge looking at what it gives."""

    def __init__(self, world: "World", ledger: SqliteLedger) -> None:
        self._world = world
        self._ledger = ledger

    def apply(self, operations: Sequence[Operation], now: Now) -> list[Outcome]:
        outcomes = self._ledger.apply(operations, now)
        for operation, outcome in zip(operations, outcomes, strict=True):
            self._count(operation, outcome)
        self._world.judge.bank_applied(self._ledger, outcomes, now)
        return outcomes

    def close(self) -> None:
        self._ledger.close()

    def _count(self, operation: Operation, outcome: Outcome) -> None:
        if isinstance(outcome, PaymentOutcome) and isinstance(operation, Transfer | Resolve):
            if outcome.posted is not None:
                self._world.count("payments posted")
            elif outcome.outcome in _COUNTED_AS:
                # Both are told again and again.
                self._world.count_once(_COUNTED_AS[outcome.outcome], operation.terms.payment_id)


class BankProcess(Process):
    """One life of the bank, with its decoder."""

    core: BankCore
    machine: "BankMachine"

    def __init__(self, machine: "BankMachine", core: BankCore, store: _WatchedLedger) -> None:
        super().__init__(machine, core, store, self._perform_effects)
        self._to_open: list[Decode] = []
        self.decoder_crash_count = 0
        """How often the decoder dies before it answers next."""

    def _perform_effects(self, effects: list[Effect]) -> None:
        asked = [effect for effect in effects if isinstance(effect, Decode)]
        if not asked:
            return
        if not self._to_open:
            self._decode_later(self._source.randrange(DECODE_US_MAX))
        self._to_open += asked

    def _decode_later(self, delay_us: int) -> None:
        self.machine.world.agenda.later(delay_us, lambda: self.machine.run(self, self._decode))

    def _decode(self) -> None:
        if self.decoder_crash_count:
            self.machine.world.count(FaultKind.DECODER_CRASH.value)
        # As `bank/decoding.py`: what a decoder owed when it died is asked of the next, once.
        if self.decoder_crash_count == 1:
            self.decoder_crash_count = 0
            self._decode_later(DECODER_RESTART_US)
            return
        asked, self._to_open = self._to_open, []
        answers: list[Any] = [None] * len(asked)
        if self.decoder_crash_count == 0:
            answers = self.machine.decoder.answers([one.request for one in asked])
        self.decoder_crash_count = 0
        found: list[tuple[int, OpenedEnvelope | None]] = [
            (one.tag, answer) for one, answer in zip(asked, answers, strict=True)
        ]

        def handle(now: Now) -> list[Effect]:
            effects: list[Effect] = []
            for tag, opened in found:
                effects += self.core.decoded(tag, opened, now)
            return effects

        self.defer(handle)
        self.wake()


class BankMachine(Machine):
    """The bank's machine."""

    role = Role.BANK
    process: BankProcess | None
    store: SqliteLedger | None

    def __init__(self, world: "World", image: Any, wall_wrong_ms: int) -> None:
        super().__init__(world, BANK, image, wall_wrong_ms)
        self.generation = 0
        """Of the newest sealing key."""
        self._has_older = False
        self.decoder = MemoryDecoder([suite_key_of(0)])

    def rotate_keys(self, overlap_us: int) -> None:
        """T12: a new key beside the old one, which goes away later."""
        if self._has_older:
            return
        self.world.count(FaultKind.ROTATE_KEYS.value)
        self.generation += 1
        self._has_older = True
        self.decoder.hold([suite_key_of(self.generation), suite_key_of(self.generation - 1)])
        self._publish()
        self.world.agenda.later(overlap_us, self._retire)

    def _retire(self) -> None:
        self._has_older = False
        self.decoder.hold([suite_key_of(self.generation)])
        self._publish()

    def _publish(self) -> None:
        if self.process is not None:
            self.process.core.signed_key_list = self._signed_key_list()

    def _signed_key_list(self) -> bytes:
        return signed_key_list(self.generation, with_older=self._has_older)

    @staticmethod
    def open_empty(vfs: str) -> SqliteLedger:
        return SqliteLedger(LEDGER_PATH, IDENTITY, RECEIPT_KEY, vfs=vfs)

    def make_process(self) -> BankProcess:
        assert self.store is not None
        now = self.clock()
        self.store.start_clock(now)
        self.world.judge.bank_started(now)
        key_of = {gateway.gateway_id: gateway.link_key for gateway in self.world.plan.gateways}.get
        core = BankCore(BANK, self._signed_key_list(), key_of)
        return BankProcess(self, core, _WatchedLedger(self.world, self.store))


OVERLAP_US_MAX: Final = 120 * SECOND
