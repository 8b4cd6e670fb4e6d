"""Runs the gateway role in this process: real gateways between doubles and the bank that the kit plays, on one loop."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conform.double import Double, Fault, Secrets
from conform.gateway_bank_faults import ByToken
from local_system import program

from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import Case
from paygate.conform.gateway_side import GatewayShared
from paygate.conform.played_bank import PlayedBank
from paygate.conform.runner import Result, Run, turn_until
from paygate.conform.trial import Settings, Trial
from paygate.conform.world import KeyFiles, World, WorldToken, default_world, read_world, write_world
from paygate.net.addresses import Address
from paygate.net.listen import raise_descriptor_limit
from paygate.net.loop import Loop

TOKEN_COUNT_FACTOR = 10
"""So many times the tokens of the kit's own world: each run of a bug takes some of its own."""
BUG_PATIENCE_MS = 2_000
"""How long the kit waits for a gateway with a bug: most of them show in what never comes."""
COMMAND_TIMEOUT_S = 300
JOBS = 12
"""Cases of one run at once: many runs share this process, and no case may be late because others are busy."""


def make_world(directory: Path) -> World:
    """A world whose bank is played, and below it a gateway's state, not started, that belongs to it."""
    made = default_world(secrets.token_bytes(8))
    more = [
        token | {"transaction_id": f"{token['transaction_id']}-{number}"}
        for number in range(TOKEN_COUNT_FACTOR - 1)
        for token in made["tokens"]
    ]
    made["tokens"] += more
    write_world(directory, made, PlayedBankKeys.key_files(made))
    world = read_world(directory / "world.json", KeyFiles())
    command = [*program("gateway"), "init", "--state", str(directory / "gateway")]
    command += ["--gateway-id", world.gateway.gateway_id, "--bank-id", world.bank_id]
    command += ["--link-key", str(directory / "gateway.key"), "--from", str(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    return world


@dataclass
class GatewayProcess:
    """A gateway of ours, of a state of its own."""

    popen: "subprocess.Popen[str]"
    state: Path
    command: list[str]
    address: Address = ("", 0)

    @staticmethod
    def start(directory: Path, name: str, bank_port: int, port: int = 0) -> "GatewayProcess":
        """Start one on a copy of the state; it need not be up when this returns."""
        state = directory / name
        shutil.copytree(directory / "gateway", state)
        command = [*program("gateway"), "serve", "--state", str(state), "--port", str(port)]
        command += ["--bank", f"127.0.0.1:{bank_port}", "--bank-wait", "forever"]
        with (directory / f"{name}.log").open("wb") as log:
            popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        process = GatewayProcess(popen, state, command)
        process.pid_path.write_text(f"{popen.pid}\n")
        return process

    @property
    def pid_path(self) -> Path:
        """Holds the process ID of whoever serves this state now."""
        return self.state.with_suffix(".pid")

    @property
    def restart_command(self) -> str:
        """Kills whoever serves this state, and starts another there."""
        again = f"{' '.join(self.command)} >/dev/null 2>&1 & echo $! >{self.pid_path}"
        return f"sh -c 'kill -KILL $(cat {self.pid_path}); sleep 0.5; {again}'"

    @property
    def drain_command(self) -> str:
        """Asks whoever serves this state to shut down."""
        return f"sh -c 'kill -TERM $(cat {self.pid_path})'"

    def wait_until_up(self) -> None:
        """It says where it listens."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        self.address = ("127.0.0.1", int(line.rpartition(":")[2]))

    def end(self) -> None:
        """End it, whatever it is at, and who was started in its place."""
        self.popen.kill()
        self.popen.wait(COMMAND_TIMEOUT_S)
        pid = int(self.pid_path.read_text())
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # Its number may be somebody else's by now.
            if os.fsencode(self.state) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
        if self.popen.stdout is not None:
            self.popen.stdout.close()


class ReservedPort:
    """A port of this machine that nobody else is given while this lives; who is told it can listen on it."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]

    def listen(self) -> None:
        """Take it, so that nobody else can."""
        self._sock.listen()

    def close(self) -> None:
        """Give it back."""
        self._sock.close()


@dataclass
class Station:
    """A gateway between doubles: one towards its bank, and one towards clients for each run that wants one."""

    bank: PlayedBank
    bank_fault: Fault
    process: GatewayProcess
    trial: Trial


@dataclass
class GatewayBench:
    """What all runs share: the world and its tokens, and the loop."""

    directory: Path
    world: World
    loop: Loop = field(default_factory=Loop)

    def __post_init__(self) -> None:
        raise_descriptor_limit(4_096)
        self._doubles: list[Double] = []
        self._stations: list[Station] = []
        self._password_keys: dict[tuple[str, str], bytes] = {}
        self._tokens: deque[WorldToken] = deque(self.world.tokens)
        self._expired: deque[WorldToken] = deque(self.world.expired_tokens)
        keys = PlayedBankKeys.of(self.world)
        self._of_bank_link = Secrets(
            {self.world.gateway.gateway_id: self.world.gateway.link_key}, keys.receipt_key, keys.root_key
        )
        self._of_client_link = replace(self._of_bank_link, link_keys={})

    def settings(self, address: Address, patience_ms: int, options: dict[str, Any] | None = None) -> Settings:
        """How a run is asked for."""
        return Settings(address, self.world, patience_ms, options or {})

    def open_stations(self, faults: dict[str, Fault]) -> dict[str, Station]:
        """A gateway of its own for each of these faults towards the bank, all started at once."""
        opened: dict[str, Station] = {}
        for name, fault in faults.items():
            trial = Trial(self.loop, self.settings(("127.0.0.1", 0), 5_000), self.loop.now_ms(), None)
            bank = PlayedBank(trial, ("127.0.0.1", 0))
            double = Double(self.loop, bank.address, self._of_bank_link, fault)
            self._doubles.append(double)
            process = GatewayProcess.start(self.directory, f"state-{len(self._stations)}", double.address[1])
            opened[name] = Station(bank, fault, process, trial)
            self._stations.append(opened[name])
        for station in opened.values():
            station.process.wait_until_up()
        turn_until(self.loop, lambda: all(s.bank.links and s.bank.links[-1].is_open for s in opened.values()))
        return opened

    def wait_until_ready(self, stations: Iterable[Station]) -> None:
        """Their gateways have their bank's keys: a link is open before those came, and no bug keeps them back."""
        waiting = list(stations)
        ready: list[Station] = []

        async def wait_for(station: Station) -> None:
            await station.bank.ready_link()
            ready.append(station)

        for station in waiting:
            station.trial.spawn(wait_for(station))

        def failures() -> list[Exception]:
            return [failure for station in waiting if (failure := station.trial.background_failure) is not None]

        turn_until(self.loop, lambda: len(ready) == len(waiting) or bool(failures()))
        assert failures() == []

    def tokens(self, count: int) -> deque[WorldToken]:
        """Tokens that no other run is given."""
        return deque(self._tokens.popleft() for _ in range(count))

    def start(
        self,
        station: Station,
        cases: Iterable[Case],
        on_result: Callable[[Result], None],
        fault: Fault | None = None,
        *,
        tokens: deque[WorldToken],
        patience_ms: int = BUG_PATIENCE_MS,
        options: dict[str, Any] | None = None,
    ) -> Run:
        """Begin a run against the station's gateway, or with a fault against a double before it."""
        address, chosen = station.process.address, list(cases)
        if fault is not None:
            double = Double(self.loop, address, self._of_client_link, fault)
            self._doubles.append(double)
            address = double.address
        expired = deque(self._expired.popleft() for case in chosen if case.case_id == "gateway.token.expired")

        async def prepare(_: Trial) -> GatewayShared:
            return GatewayShared(tokens, station.bank, self._password_keys, expired)

        return Run(self.loop, prepare, chosen, self.settings(address, patience_ms, options), on_result, jobs=JOBS)

    def watch_token(self, station: Station, tokens: Iterable[WorldToken], fault: Any) -> None:
        """Have the station's double do this to what is asked and answered of these tokens."""
        assert isinstance(station.bank_fault, ByToken)
        for token in tokens:
            station.bank_fault.faults[token.transaction_id] = fault

    def close(self) -> None:
        """End every gateway and cut everything."""
        for station in self._stations:
            station.process.end()
            station.trial.end()
        for double in self._doubles:
            double.close()
        for _ in range(3):
            self.loop.run_once(0)
            self.loop.flush()
        self.loop.close()
