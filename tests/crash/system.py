"""One bank, one gateway and their customers on a directory of their own: started, killed, started again.

Each system has a loopback address of its own (127.0.0.0/8 is all this machine), so that a server that was killed gets
the same port again, and many systems run side by side.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crash.launch import Plan
from crash.zygote import HANG_S, Hang, Started, SystemCallDeath, start

BANK_ID: Final = "CRASHBANK"
GATEWAY_ID: Final = "crash-gateway"
BANK_PORT: Final = 15_001
GATEWAY_PORT: Final = 15_000
"""Below the ports that the system gives to those who connect, so nobody has them by chance."""
SESSION_S: Final = 4
"""Long enough for a busy machine, as short as waiting for its end asks for; the program's shortest is 3."""
AT_END: Final = ("drain", "close", "unlock", "records-close", "store-close", "wal-delete")
"""Points of the servers that only SIGTERM leads to."""
POLL_S: Final = 0.004
PORT_IN_USE: Final = 20
STATE_IN_USE: Final = 21
RESTART_COUNT_MAX: Final = 30
"""Starts of one server in one round, that for a busy port or state among them; more are a loop."""


class Violation(Exception):
    """What must hold does not. The text begins with the invariant."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process that is to die: which, and at what."""

    program: str
    """bank, gateway, client or operator, in which a decoder's or an encoder's point is armed too."""
    point: str
    """A failpoint's name, or a system call's behind `call:`."""
    count: int

    def __str__(self) -> str:
        return f"{self.program}@{self.point}:{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Death":
        """What `str` gave. Raises ValueError."""
        program, _, rest = text.partition("@")
        point, _, count = rest.rpartition(":")
        return cls(program, point, int(count))

    @property
    def system_call(self) -> SystemCallDeath | None:
        """The system call at which to die, if it is one."""
        return SystemCallDeath(self.point.removeprefix("call:"), self.count) if self.point[:5] == "call:" else None

    @property
    def is_at_end(self) -> bool:
        """Whether only SIGTERM leads there."""
        return self.system_call is None and self.point.split(".")[1] in AT_END

    @property
    def is_childs(self) -> bool:
        """Whether it is a child of the program that dies."""
        return self.point.startswith(("decoder.", "encoder."))

    @property
    def deaths(self) -> Mapping[str, int]:
        """For a plan."""
        return {} if self.system_call else {self.point: self.count}


@dataclass(slots=True)
class Server:
    """A server of a system, dead or alive."""

    name: str
    started: Started | None = None
    death: Death | None = None
    """What it was armed with at its last start."""
    later: list[Death] = field(default_factory=list)
    """What it is armed with at its next starts in this round."""
    start_count: int = 0
    """In this round."""
    is_stopping: bool = False
    is_told: bool = False
    """Whether SIGTERM was sent since its last start: not before it listens, when it would be killed by it."""
    resources: tuple[int, int] | None = None
    """Descriptors and private memory in bytes, when the round began."""


@dataclass(slots=True)
class System:
    """See the top of this file."""

    root: Path
    host: str
    mutant: str = ""
    hits_directory: Path | None = None
    """Where each program's hits of points are counted, in a file by program and command."""
    is_exec: bool = False
    captures: bool = False
    """Whether both servers capture their links, into a new file at each start."""
    traces: bool = False
    """Whether the system calls of each program are noted, into a file below `logs`."""
    servers: dict[str, Server] = field(default_factory=lambda: {name: Server(name) for name in ("bank", "gateway")})
    killed: list[Death] = field(default_factory=list)
    """Every process that died as it was to."""
    healed_at_s: float = 0.0
    """When the last server was started."""
    _run_count: int = 0
    _started: list[Started] = field(default_factory=list)

    # -- servers ---------------------------------------------------------------------------------------

    def start_servers(self, deaths: Sequence[Death]) -> None:
        """Start both, each armed with its first death, and with the next ones as it is started again.

        They are ready once `wait_until_ready` returns.
        """
        for server in self.servers.values():
            server.start_count = 0
            server.is_stopping = False
            server.resources = None
            server.later = [death for death in deaths if death.program == server.name]
            self._start_next(server)

    def _start_next(self, server: Server) -> None:
        self._start(server, server.later.pop(0) if server.later else None)

    def _start(self, server: Server, death: Death | None) -> None:
        name = server.name
        server.start_count += 1
        if server.start_count > RESTART_COUNT_MAX:
            raise Violation(f"the {name} had to be started {server.start_count} times in one round")
        arguments = ["serve", "--state", str(self.root / name), "--host", self.host]
        if name == "bank":
            arguments += ["--port", str(BANK_PORT)]
        else:
            arguments += ["--port", str(GATEWAY_PORT), "--bank", f"{self.host}:{BANK_PORT}", "--bank-wait", "forever"]
            arguments += ["--session-seconds", str(SESSION_S)]
        if self.captures:
            arguments += ["--capture", str(self.root / "logs" / f"{self._run_count:04}-{name}.pcapng")]
        server.death = death
        server.is_told = False
        server.started = self._launch(name, arguments, death)
        self.healed_at_s = time.monotonic()

    def tend(self) -> None:
        """Start again, with the same command, whoever was killed; anybody else's end is a violation."""
        for server in self.servers.values():
            started = server.started
            if started is None:
                continue
            if not started.has_ended():
                if server.is_stopping and not server.is_told and "listening on" in started.output:
                    server.is_told = True
                    started.terminate()
                continue
            server.started = None
            if server.death is not None and (started.was_killed or _died_of_its_decoder(started, server.death)):
                self.killed.append(server.death)
                self._start_next(server)
            elif started.exit_code in (PORT_IN_USE, STATE_IN_USE):
                # Its own connections of before may still be closing, or a command does a dead server's work.
                time.sleep(0.05)
                self._start(server, server.death)
            elif not (server.is_stopping and started.exit_code == 0):
                errors = started.errors[-600:].strip()
                raise Violation(f"the {server.name} ended with {started.exit_code} by itself: {errors}")

    @property
    def waits_for_work(self) -> bool:
        """Whether a server lives that is to die of what payments make it do."""
        deaths = [server.death for server in self.servers.values()]
        return any(d is not None and d.system_call is None and not d.is_at_end and not d.is_childs for d in deaths)

    def wait_until_ready(self) -> None:
        """Until clients can pay: the gateway has the bank's keys. Raises Hang, Violation."""
        self._wait(self._is_ready, "the gateway to have the bank's keys")
        for server in self.servers.values():
            if server.started is not None and server.death is None:
                server.resources = resources_of(server.started.pid)

    def _is_ready(self) -> bool:
        bank, gateway = self.servers["bank"].started, self.servers["gateway"].started
        return None not in (bank, gateway) and gateway is not None and "has the keys of bank" in gateway.errors

    def stop_servers(self) -> None:
        """Drain both, the gateway first, and start again whoever is killed on the way. Raises Hang, Violation."""
        for name in ("gateway", "bank"):
            server = self.servers[name]
            server.is_stopping = True
            self._wait(lambda server=server: server.started is None, f"the {name} to drain")  # type: ignore[misc]

    # -- other programs --------------------------------------------------------------------------------

    def run(self, program: str, arguments: Sequence[str], death: Death | None = None) -> Started:
        """Run a command to its end, while the servers are tended. Raises Hang."""
        started = self.begin(program, arguments, death)
        self.wait_for([started])
        return started

    def begin(
        self,
        program: str,
        arguments: Sequence[str],
        death: Death | None = None,
        *,
        inputs: Mapping[str, str] | None = None,
        clock_ahead_ms: int = 0,
    ) -> Started:
        """Start a command."""
        return self._launch(program, arguments, death, inputs=inputs, clock_ahead_ms=clock_ahead_ms)

    def wait_for(self, programs: Sequence[Started]) -> None:
        """Until all have ended, while the servers are tended. Raises Hang."""
        self._wait(
            lambda: all(started.has_ended() for started in programs), f"the end of {[p.program for p in programs]}"
        )

    def wait(self, seconds: float) -> None:
        """Let time pass, while the servers are tended."""
        end_s = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() >= end_s, "time to pass")

    def kill_all(self) -> None:
        """Whatever still runs is ended at once."""
        for started in self._started:
            started.kill()

    # -- inside ----------------------------------------------------------------------------------------

    def _launch(
        self,
        program: str,
        arguments: Sequence[str],
        death: Death | None,
        *,
        inputs: Mapping[str, str] | None = None,
        clock_ahead_ms: int = 0,
    ) -> Started:
        self._run_count += 1
        command = arguments[0]
        label = self.root / "logs" / f"{self._run_count:04}-{program}-{command}"
        hits = self.hits_directory / f"{program}-{command}.hits" if self.hits_directory else None
        plan = Plan(death.deaths if death else {}, hits, clock_ahead_ms, self.mutant)
        started = start(
            program,
            arguments,
            plan,
            label.with_suffix(".out"),
            label.with_suffix(".err"),
            inputs=inputs,
            dies_at=death.system_call if death else None,
            trace_path=label.with_suffix(".trace") if self.traces else None,
            is_exec=self.is_exec and not clock_ahead_ms,
        )
        self._started = [other for other in self._started if other.exit_code is None]
        self._started.append(started)
        return started

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + HANG_S
        while True:
            self.tend()
            if holds():
                return
            if time.monotonic() >= deadline_s:
                raise Hang(f"waited {HANG_S} s for {what}")
            time.sleep(POLL_S)


def _died_of_its_decoder(started: Started, death: Death) -> bool:
    """A bank that needs verifiers at its start, and whose decoder is killed as it makes them, ends with that word."""
    return death.point.startswith("decoder.") and "the decoder failed" in started.errors


def resources_of(pid: int) -> tuple[int, int] | None:
    """Open descriptors and private memory in bytes of a process; None where the system does not tell us."""
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
    return descriptors, (sizes["Private_Clean"] + sizes["Private_Dirty"]) * 1_024
