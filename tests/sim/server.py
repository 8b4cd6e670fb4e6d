"""A server in a run: its machine, with disk and clocks, and the process on it, which dies and starts again.

The process is the real tick over the run's network. It may die at any step: before an operation of its disk, before a
tick, between two sends. An error that the disk was told to make ends it as it would end a real one.
"""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import apsw
from memory_disk import MemoryDisk
from sim.agenda import MS, SECOND, Event, MachineClock
from sim.faults import FaultKind
from sim.network import End

from paygate.codec.codes import Role
from paygate.effects import Effect
from paygate.files.sqlite import StoreError, StoreFull
from paygate.tick import Core, Tick

if TYPE_CHECKING:
    from sim.world import World

ADDRESS: Final = ("192.0.2.7", 40_001)
"""Of every peer, as the cores are told."""
START_AGAIN_US: Final = SECOND
"""What starts servers waits so long after one that ended by itself."""


class ProcessDied(BaseException):
    """The process is killed here. No error of paygate's, so nothing in it may catch and go on."""


@dataclass(slots=True)
class _Death:
    """How a process is to die."""

    steps: int
    """Until then."""
    kind: FaultKind
    loses_power: bool
    down_us: int
    at_disk: bool


class ClosableStore(Protocol):
    """Either store."""

    def apply(self, operations: Any, now: Any) -> Any:
        """One durable transaction."""

    def close(self) -> None:
        """Close the database."""


class Process(Tick[End]):
    """One life of a server's process."""

    def __init__(
        self,
        machine: "Machine",
        core: Core,
        store: ClosableStore,
        perform: Callable[[list[Effect]], None],
    ) -> None:
        super().__init__(machine.name, core, store, perform, machine.clock)
        self.name = machine.name
        self.machine = machine
        self.core = core
        self._source = machine.source
        self._tick_event: Event | None = None
        self._timer: Event | None = None
        self._timer_us = 0

    @property
    def is_alive(self) -> bool:
        """Whether it is the one that runs."""
        return self.machine.process is self

    def tell(self, text: str) -> None:
        """Nobody reads it."""

    # -- the node --------------------------------------------------------------------------------------

    def on_connected(self, end: End) -> None:
        """Node: somebody called."""
        self.defer(partial(self._core.link_connected, self._add(end), ADDRESS))
        self.wake()

    def on_data(self, end: End, data: bytes) -> None:
        """Node."""
        self._inbox.append((self._link_ids[end], data))
        self.wake()

    def on_eof(self, end: End) -> None:
        """Node."""
        self.defer(partial(self._core.receive_eof, self._link_ids[end]))
        self.wake()

    def on_closed(self, end: End, reason: str) -> None:
        """Node."""
        self._remove(end, reason)
        self.wake()

    # -- ticks -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to handle: a tick comes when the one before has had its time."""
        if self._tick_event is None:
            delay_us = self._source.randrange(self.machine.world.conditions.tick_us_max)
            self._tick_event = self.machine.world.agenda.later(delay_us, lambda: self.machine.run(self, self._tick))

    def begin_drain(self) -> None:
        """R12: SIGTERM."""
        self.machine.world.network.stop_listening(self.name)
        super().begin_drain()
        self.wake()

    def _tick(self) -> None:
        self._tick_event = None
        self.machine.step()
        self._handle()
        self.after_tick()
        if self._has_ended():
            self.machine.drained()
        else:
            self._set_timer()

    def after_tick(self) -> None:
        """What the role's server looks after."""

    def _set_timer(self) -> None:
        wait_ms = self._wait_ms()
        if wait_ms is None:
            return
        if wait_ms == 0:
            self.wake()
            return
        agenda = self.machine.world.agenda
        # To the full millisecond, or the clock would show one less then.
        due_us = (agenda.now_us // MS + wait_ms) * MS
        if self._timer is not None and self._timer.act is not None:
            if agenda.now_us < self._timer_us <= due_us:
                return  # It looks again then.
            self._timer.cancel()
        self._timer_us = due_us
        self._timer = agenda.at(due_us, lambda: self.machine.run(self, self._tick_by_timer))

    def _tick_by_timer(self) -> None:
        if self._tick_event is None:
            self._tick()


class Machine:
    """What stays when a server's process dies; a role says how to start one."""

    role: Role
    process: Process | None
    store: Any

    def __init__(self, world: "World", name: str, image: Any, wall_wrong_ms: int) -> None:
        self.world = world
        self.name = name
        self.source: random.Random = world.randomness(f"machine {name}")
        self.clock = MachineClock(world.agenda, self.source.randrange(1, 10**9), wall_wrong_ms)
        self.disk = MemoryDisk(f"sim-{name}", image)
        self.process = None
        self.store = None
        self.is_down = False
        """Whether it is kept from starting for a time."""
        self._deaths: list[_Death] = []
        self._disk_fails = False
        self._was_started = False

    # -- faults ----------------------------------------------------------------------------------------

    def die_after(self, steps: int, kind: FaultKind, *, loses_power: bool, down_us: int, at_disk: bool) -> None:
        """Die at a later step of the process; `at_disk`: only operations of its disk are counted."""
        self._deaths.append(_Death(steps, kind, loses_power, down_us, at_disk))
        self.disk.on_operation = lambda operation: self._step(at_disk=True)

    def step(self) -> None:
        """One of the places where a process may die that is no operation of its disk. Raises ProcessDied."""
        if self._deaths:
            self._step(at_disk=False)

    def _step(self, *, at_disk: bool) -> None:
        death = self._deaths[0]
        if at_disk or not death.at_disk:
            death.steps -= 1
            if death.steps < 0:
                raise ProcessDied

    def fill_disk(self, room_size: int | None, duration_us: int) -> None:
        """No room on the disk for a time (T30), at once or after so many bytes more."""
        if room_size is None:
            self.disk.is_full = True
        else:
            self.disk.room_size = room_size

        def free() -> None:
            self.disk.is_full, self.disk.room_size = False, None
            self.start()

        self.world.agenda.later(duration_us, free)

    def fail_fsync(self) -> None:
        """The next sync fails (T31)."""
        self.disk.fsync_fails = self._disk_fails = True

    def heal(self) -> None:
        """Nothing fails here any more."""
        self._deaths.clear()
        self.disk.on_operation = None
        self.disk.fsync_fails = self.disk.is_full = self._disk_fails = False
        self.disk.room_size = None
        self.clock.wall_wrong_ms = 0
        self.is_down = False
        if self.process is None:
            self.start()

    # -- life ------------------------------------------------------------------------------------------

    def run(self, process: Process, act: Callable[[], None]) -> None:
        """Have a process do something, which it may not survive."""
        if process.is_alive:
            self._survive(act)

    def start(self) -> None:
        """Start a process, if none is there."""
        if self.process is None and not self.is_down:
            self._survive(self._start)

    def close(self) -> None:
        """The run is over: let go of store and disk."""
        self.disk.on_operation = None
        self.disk.is_full = self.disk.fsync_fails = False
        if self.store is not None:
            self.store.close()
            self.store = None
        self.disk.close()

    def drained(self) -> None:
        """The process ended by itself, in order."""
        process, self.process = self.process, None
        assert process is not None
        self.world.network.stop_listening(self.name)
        self.world.network.vanish(process, is_silent=False, source=self.source)
        # SQLite passes over a disk that fails while it copies its log at the close; a VFS in Python shows it.
        with contextlib.suppress(apsw.Error):
            self.store.close()
        self.store = None
        self.world.agenda.later(START_AGAIN_US, self.start)

    def _start(self) -> None:
        self.store = None
        self.store = self.open_store()
        if self._was_started:
            self.world.count("restarts")
            self.world.judge.restarted(self.role, self.name, self.store)
        self._was_started = True
        self.process = process = self.make_process()
        self.world.network.listen(self.name, process)
        process.wake()

    def open_store(self) -> Any:
        """Open the store on the disk, or recover it."""
        return self.open_empty(self.disk.name)

    @staticmethod
    def open_empty(vfs: str) -> Any:
        """Open the store on a disk, or make it there."""
        raise NotImplementedError

    def make_process(self) -> Process:
        """A new life over the store that is open."""
        raise NotImplementedError

    def _survive(self, act: Callable[[], None]) -> None:
        try:
            act()
        except ProcessDied:
            death = self._deaths.pop(0)
            if not self._deaths:
                self.disk.on_operation = None
            self.world.count(death.kind.value)
            self._died(death.loses_power, death.down_us)
        except (StoreError, apsw.Error) as error:
            # As at the close, when a store could not be opened and its connection is closed.
            first = error.__context__ if isinstance(error, apsw.Error) else error
            is_full = isinstance(first, StoreFull) and (self.disk.is_full or self.disk.room_size is not None)
            is_failed = isinstance(first, StoreError) and self._disk_fails
            if not (is_failed or is_full):
                raise
            self.world.count(FaultKind.FSYNC_ERROR.value if is_failed else "starts refused for a full disk")
            # T31: it stops at once. Whoever mends the disk does so before it is started again.
            self.disk.fsync_fails = self._disk_fails = False
            self._died(False, START_AGAIN_US)

    def _died(self, loses_power: bool, down_us: int) -> None:
        process, self.process = self.process, None
        network = self.world.network
        network.stop_listening(self.name)
        if process is not None:
            network.vanish(process, is_silent=loses_power, source=self.source)
        if loses_power:
            report = self.disk.cut_power(self.source)
            self.world.note_cut(self.name, report)
            self.clock.reboot(self.source.randrange(1, 10**6))
        else:
            self.disk.kill()
        if self.store is not None:
            with contextlib.suppress(StoreError):
                self.store.close()
            self.store = None
        self.is_down = True
        self.world.note(f"{self.name} died{' with its machine' if loses_power else ''}")
        self.world.agenda.later(down_us, self._may_start)

    def _may_start(self) -> None:
        self.is_down = False
        self.start()
