"""Every operation of the disk below a store fails in each way, once and from then on: in this process, so by thousands.

The stories are those that power cuts hit, each recorded when nothing happened. With a fault, each step either does and
answers what it did then, or is refused for want of room and done once there is some, or ends the process; the next one
then finds what was held before the step or after it, and goes on to the same end.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import apsw
from disk_model import Image, Operation
from faults.books import Broken
from memory_disk import MemoryDisk, seed_sqlite
from power.bank_story import bank_story
from power.recording import Recording, limits_of, record
from power.story import Restart, Story
from power.token_story import token_story

from paygate.cli import PaygateExit
from paygate.files.sqlite import StoreFsyncFailed, StoreFull

FULL: Final = "full"
QUOTA: Final = "quota"
ERRORS: Final[dict[str, tuple[str, ...]]] = {
    "create": ("CANTOPEN",),
    "open": ("CANTOPEN",),
    "read": ("IOERR_READ",),
    "write": ("IOERR_WRITE", FULL, QUOTA),
    "sync": ("IOERR_FSYNC",),
    "sync names": ("IOERR_DIR_FSYNC",),
    "truncate": ("IOERR_TRUNCATE",),
    "delete": ("IOERR_DELETE",),
    "file size": ("IOERR_FSTAT",),
    "lock": ("IOERR_LOCK",),
    "access": ("IOERR_ACCESS",),
}
"""What SQLite's own VFS says when an operation fails. QUOTA: IOERR_WRITE, of which the system says EDQUOT."""
_EDQUOT: Final = 122
_STARTS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class StoreFault:
    """The n-th operation that the disk is asked fails, and with `is_lasting` all later ones of its kind."""

    number: int
    kind: str
    error: str
    is_lasting: bool


class FaultyDisk(MemoryDisk):
    """Counts what it is asked, and fails by plan. Operations are not counted and do not fail while it `rests`."""

    def __init__(self, name: str, image: Image, fault: StoreFault | None) -> None:
        self.fault = fault
        self.done: list[tuple[str, str]] = []
        """Kind and file of each operation."""
        self.rests = False
        self.has_failed = False
        super().__init__(name, image)
        self.on_operation = self._before_change

    def heal(self) -> None:
        """Nothing fails from now on."""
        self.fault = None

    def note(self, kind: str, name: str) -> None:
        """It is asked something. Raises the plan's error."""
        if self.rests:
            return
        number = len(self.done)
        self.done.append((kind, name))
        fault = self.fault
        if fault is None or not (
            number == fault.number or (fault.is_lasting and self.has_failed and kind == fault.kind)
        ):
            return
        assert kind == fault.kind, (
            f"operation {number} is {kind} and was {fault.kind}: the story is not the recorded one"
        )
        self.has_failed = True
        if fault.error == FULL:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        code = "IOERR_WRITE" if fault.error == QUOTA else fault.error
        raise apsw.exception_for(getattr(apsw, f"SQLITE_{code}"))

    def _before_change(self, operation: Operation) -> None:
        try:
            self.note(operation.kind, operation.file)
        except apsw.Error:
            if operation.kind == "sync":
                self._model.names[operation.file].fail_to_sync()
            raise

    def xGetLastError(self) -> tuple[int, str | None]:
        """SQLite's name for it."""
        return (_EDQUOT if self.fault is not None and self.fault.error == QUOTA else 5), None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:
        """SQLite's name for it."""
        self.note("open", "")
        handle = super().xOpen(name, flags)
        for method, kind in (("xRead", "read"), ("xFileSize", "file size"), ("xLock", "lock")):
            setattr(handle, method, self._noted(getattr(handle, method), kind, handle.name))
        return handle

    def xAccess(self, pathname: str, flags: int) -> bool:
        """SQLite's name for it."""
        self.note("access", "")
        return super().xAccess(pathname, flags)

    def _noted(self, method: Any, kind: str, name: str) -> Any:
        def noted(*arguments: Any) -> Any:
            self.note(kind, name)
            return method(*arguments)

        return noted


def faults_of(recording: Recording) -> list[StoreFault]:
    """Every fault of a story."""
    run = _Run(recording, None, Random(0))
    run.go()
    return [
        StoreFault(number, kind, error, is_lasting)
        for number, (kind, _) in enumerate(run.disk.done)
        for error in ERRORS.get(kind, ())
        for is_lasting in (False, True)
    ]


def play(recording: Recording, fault: StoreFault, randomness: Random) -> bool:
    """The story with a fault; gives whether it came. Raises Broken."""
    run = _Run(recording, fault, randomness)
    run.go()
    return run.disk.has_failed


class _Run:
    def __init__(self, recording: Recording, fault: StoreFault | None, randomness: Random) -> None:
        self._recording = recording
        self._story: Story = recording.story
        self._randomness = randomness
        seed_sqlite(f"{self._story.store_name} {self._story.seed}".encode())
        self.disk = FaultyDisk("faulty", recording.image, fault)
        self._store: Any = None

    def go(self) -> None:
        """All steps, whatever happens in between."""
        try:
            self._start((0,))
            for number, step in enumerate(self._story.steps, 1):
                self._step(number, step)
            self._close()
        finally:
            self.disk.kill()
            self.disk.close()

    def _step(self, number: int, step: Any) -> None:
        if isinstance(step, Restart):
            self._close()
            self._start((number - 1, number))
            return
        try:
            answer = self._story.do(self._store, step)
        except StoreFull:
            self._require_state((number - 1,), "after it was refused for want of room")
            self.disk.heal()
            answer = self._story.do(self._store, step)
        except PaygateExit as error:
            self._end(error)
            if self._start((number - 1, number)) == number:
                return
            answer = self._story.do(self._store, step)
        if answer != self._recording.answers[number]:
            raise Broken(f"step {number} answers {answer} and not {self._recording.answers[number]}")
        self._require_state((number,), "after its step")

    def _end(self, error: PaygateExit) -> None:
        """The process ends, as the shell has it end; T31: what is closed then asks the disk for nothing."""
        before = len(self.disk.done)
        self._close()
        if isinstance(error, StoreFsyncFailed):
            written = [done for done in self.disk.done[before:] if done[0] in ("write", "sync", "truncate")]
            if written:
                raise Broken(f"T31: after a failed fsync the disk was asked for {written}")
        self._die()

    def _close(self) -> None:
        # SQLite takes no error of its last checkpoint for one: the log stays. Only apsw tells of errors that Python
        # raised below SQLite.
        with contextlib.suppress(apsw.Error):
            self._store.close()

    def _die(self) -> None:
        if self._randomness.random() < 0.5:
            self.disk.cut_power(self._randomness)
        else:
            self.disk.kill()
        self.disk.heal()

    def _start(self, numbers: tuple[int, ...]) -> int:
        """Open the store, again once the disk is healed if it can't be; gives which step's state it holds."""
        for _ in range(_STARTS_MAX):
            try:
                self._store = self._story.open(self.disk.name)
            except (PaygateExit, apsw.Error) as error:
                # See `_close`, which a store that can't be opened does too.
                if isinstance(error, apsw.Error) and not isinstance(error.__context__, PaygateExit):
                    raise
                if self.disk.fault is None:
                    raise Broken("the store does not open once the fault is gone") from None
                self._die()
                continue
            return self._require_state(numbers, "at its start")
        raise AssertionError("a healed disk was tried")

    def _require_state(self, numbers: tuple[int, ...], when: str) -> int:
        self.disk.rests = True
        try:
            state = self._story.look(self._store)
        finally:
            self.disk.rests = False
        # The latest first: a step may change nothing.
        for number in reversed(numbers):
            if state == self._recording.states[number]:
                return number
        raise Broken(
            f"{when} the store holds {state}, and not what it held after step {' or '.join(map(str, numbers))}"
        )


# -- campaigns -------------------------------------------------------------------------------------------

STORES: Final[dict[str, Callable[[int], Story]]] = {"bank": bank_story, "gateway": token_story}


@dataclass(slots=True)
class StoreOutcome:
    """What a campaign came to."""

    counts: Counter[tuple[str, str, str]]
    """By store, kind and error: faults that came."""
    story_count: int
    failures: list[tuple[str, str]]
    """What did not hold: the case and the trouble."""


def run_campaign(
    *, seed: int, count: int | None, seconds: float, only: str | None = None, seed_count: int | None = None
) -> StoreOutcome:
    """All faults of one story after the other, of both stores, until the time is over; prints what it did.

    `count`: at most so many faults of each story. `seed_count`: no more seeds than these. `only`:
    `stores/STORE/SEED/NUMBER/ERROR/once|always`.
    """
    began = time.monotonic()
    outcome = StoreOutcome(Counter(), 0, [])
    _, store, seed_text, *_ = only.split("/") if only else ("", "", str(seed))
    story_seed = int(seed_text)
    while True:
        names = [store] if only else list(STORES)
        for number, name in enumerate(names):
            now_s = time.monotonic()
            share_s = (began + seconds - now_s) / (len(names) - number)  # so that short runs see both stores
            story = STORES[name](story_seed)
            with limits_of(story):
                _play_all(name, record(story), count, only, now_s + share_s, outcome)
            outcome.story_count += 1
        story_seed += 1
        if only or story_seed - seed == seed_count or time.monotonic() - began >= seconds:
            break
    rows: dict[tuple[str, str], list[str]] = {}
    for (name, kind, error), times in sorted(outcome.counts.items()):
        rows.setdefault((name, kind), []).append(f"{error} {times}")
    for (name, kind), told in rows.items():
        print(f"  {name:8} {kind:10} {', '.join(told)}")
    told_s = f"{sum(outcome.counts.values())} faults below the stores in {time.monotonic() - began:.0f} s"
    print(f"store faults: {told_s}, in {outcome.story_count} stories; {len(outcome.failures)} failed")
    for case, trouble in outcome.failures:
        print(f"FAILED {case}\n    {trouble}\n    again: make faults CASE='{case}'")
    return outcome


def _play_all(
    name: str, recording: Recording, count: int | None, only: str | None, until_s: float, outcome: StoreOutcome
) -> None:
    faults = faults_of(recording)
    seed = recording.story.seed
    Random(seed).shuffle(faults)
    for fault in faults[:count]:
        case = f"stores/{name}/{seed}/{fault.number}/{fault.error}/{'always' if fault.is_lasting else 'once'}"
        if only not in (None, case):
            continue
        if time.monotonic() >= until_s:
            return
        try:
            has_come = play(recording, fault, Random(case))
        except Exception as error:
            outcome.failures.append((case, f"{type(error).__name__}: {error}"))
            has_come = True
        outcome.counts[name, fault.kind, fault.error] += has_come
