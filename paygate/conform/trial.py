"""What a case is given: connections to the implementation under test, time, randomness, and what the role prepared."""

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from paygate.clock import Now, system_now
from paygate.conform.cases import Failed, Unreachable
from paygate.conform.programs import Program
from paygate.conform.tasks import Signal, Story, Task
from paygate.conform.wire import Wire
from paygate.conform.world import World
from paygate.net.addresses import Address
from paygate.net.connect import connect
from paygate.net.listen import Listener
from paygate.net.loop import Loop

CONNECT_MS: Final = 5_000
"""How long a connection may take to come up; on loopback it is there at once."""
COMMAND_MS: Final = 30_000
"""How long a command of the tester's may run."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run was asked for."""

    address: Address
    """Where the implementation under test listens, or where we wait for it."""
    world: World
    patience_ms: int
    """How long an answer, or the end of a connection that is due, may take."""
    options: dict[str, Any] = field(default_factory=dict)
    """The role's own options of the command line, by name."""
    allowance_ms: int = 0
    """How much longer each case may take, because a person has to do something in it."""


class Trial:
    """One case being run. Its connections and background stories end with it."""

    def __init__(self, loop: Loop, settings: Settings, began_ms: int, shared: Any) -> None:
        self.settings = settings
        self.world = settings.world
        self.shared = shared
        """What the role's `prepare` returned."""
        self.wires: list[Wire] = []
        self.background_failure: Exception | None = None
        self.is_over = False
        """Whether the case has ended; for stories that outlive it."""
        self._loop = loop
        self._began_ms = began_ms
        self._never = Signal(loop)
        self._background: list[Task] = []
        self._doors: list[Door] = []
        self._programs: list[Program] = []

    # -- time and chance -------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """The loop's clock, for measuring."""
        return self._loop.now_ms()

    def wall_ms(self) -> int:
        """The time by this machine's clock, which must be within seconds of the other end's."""
        now: Now = system_now()
        return now.wall_ms

    def random_bytes(self, size: int) -> bytes:
        """Bytes that nobody has seen before."""
        return secrets.token_bytes(size)

    async def sleep(self, for_ms: int) -> None:
        """Let time pass; with 0, let what was sent leave as a segment of its own."""
        await self._never.wait_until(self._loop.now_ms() + for_ms)

    def new_signal(self) -> Signal:
        """Something to wait for that other stories make happen."""
        return Signal(self._loop)

    # -- connections -----------------------------------------------------------------------------------

    async def connect(self, name: str = "", *, link_key: bytes | None = None, address: Address | None = None) -> Wire:
        """A new connection, on which nothing was said yet; by default to the implementation under test.

        `link_key`: of the MACs on it. Raises Unreachable.
        """
        wire = self._new_wire(name, link_key)
        host, port = address or self.settings.address
        outcome: list[str] = []
        changed = Signal(self._loop)

        def ended(text: str) -> None:
            outcome.append(text)
            changed.notify()

        def connected(sock: Any) -> None:
            wire.attach_socket(sock)
            ended("")

        connecting = connect(self._loop, host, port, timeout_ms=CONNECT_MS, on_connected=connected, on_failed=ended)
        try:
            await changed.wait_until(self._loop.now_ms() + 2 * CONNECT_MS)
        finally:
            connecting.cancel()
        if outcome != [""]:
            raise Unreachable(outcome[0] if outcome else f"cannot connect to {host} port {port}: no answer")
        return wire

    def listen(self, address: Address, *, link_key: bytes | None = None) -> "Door":
        """Wait for others to connect. Raises ListenError."""
        door = Door(self._loop, address, partial(self._new_wire, link_key=link_key), self.settings.patience_ms)
        self._doors.append(door)
        return door

    def new_record(self, name: str) -> Wire:
        """A wire that is no connection: for notes of what passes elsewhere, told with the case's own connections."""
        return self._new_wire(name, None)

    def _new_wire(self, name: str, link_key: bytes | None) -> Wire:
        name = name or f"link {len(self.wires) + 1}"
        wire = Wire(self._loop, name, self._began_ms, self.settings.patience_ms, link_key)
        self.wires.append(wire)
        return wire

    async def run_command(self, argv: Sequence[str]) -> int:
        """Run a command of the tester's to its end; gives its exit code. Fails the case if it can't be started."""
        return await self.start(argv).ended(COMMAND_MS)

    def start(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Program:
        """Start a program, with more in its environment; it ends with the case at the latest. Or fail the case."""
        try:
            program = Program(self._loop, argv, environment or {})
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failed("a command that can be started", f"{argv[0]} can't be: {reason}") from None
        self._programs.append(program)
        return program

    # -- the case's end --------------------------------------------------------------------------------

    def spawn(self, story: Story) -> None:
        """Run a story beside the case, until the case ends. What it raises fails the case, at the case's end."""

        def ended(error: Exception | None, _value: Any) -> None:
            if error is not None and self.background_failure is None:
                self.background_failure = error

        self._background.append(Task(self._loop, story, ended))

    def end(self) -> None:
        """Close all that the case has opened."""
        self.is_over = True
        for task in self._background:
            task.cancel()
        for door in self._doors:
            door.close()
        for wire in self.wires:
            wire.abort()
        for program in self._programs:
            program.kill()

    @property
    def is_running(self) -> bool:
        """Whether a program that was killed has not been seen to end."""
        return any(program.exit_code is None for program in self._programs)


class Door:
    """A listening socket; each connection that comes is a Wire."""

    def __init__(self, loop: Loop, address: Address, new_wire: Callable[[str], Wire], patience_ms: int) -> None:
        self._loop = loop
        self._new_wire = new_wire
        self._patience_ms = patience_ms
        self._came: deque[Wire] = deque()
        self._changed = Signal(loop)
        self._why_nobody = ""
        # Each accepted connection gets its wire as its handler before its first byte is read.
        self._listener = Listener(
            loop, *address, _Nobody(), on_accept=self._accepted, on_refused=lambda _address, _reason: None
        )
        self.address: Address = (self._listener.host, self._listener.port)

    async def accept(self, within_ms: int | None = None) -> Wire:
        """The next connection. Fails the case if none comes in time."""
        patience_ms = self._patience_ms if within_ms is None else within_ms
        deadline_ms = self._loop.now_ms() + patience_ms
        while not self._came:
            if self._why_nobody:
                raise Failed("a connection", self._why_nobody)
            if not await self._changed.wait_until(deadline_ms) and not self._came:
                raise Failed(f"a connection within {patience_ms} ms", "nobody")
        return self._came.popleft()

    @property
    def has_come(self) -> bool:
        """Whether a connection waits to be accepted."""
        return bool(self._came)

    def expect_nobody(self, why: str) -> None:
        """Nobody will connect any more; whoever waits for it fails with this reason. An empty one takes it back."""
        self._why_nobody = why
        self._changed.notify()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _accepted(self, conn: Any) -> None:
        wire = self._new_wire("")
        wire.attach(conn)
        self._came.append(wire)
        self._changed.notify()


class _Nobody:
    """Handler of connections that have no wire yet; none ever speaks before it has one."""

    def data_received(self, conn: Any, data: bytes) -> None:
        """Never called."""
        raise AssertionError("a connection without a wire")

    def eof_received(self, conn: Any) -> None:
        """Never called."""
        raise AssertionError("a connection without a wire")

    def connection_closed(self, conn: Any, reason: Any, detail: str) -> None:
        """Never called."""
        raise AssertionError("a connection without a wire")
