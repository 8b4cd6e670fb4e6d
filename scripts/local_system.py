"""A whole paygate on this machine: a bank, a gateway and clients as real processes, on ports of their own.

Used by the demo and by the end-to-end tests. Everything lies below one directory:
`bank/`, `gateway/`, `client/` (state directories), `bank-root.txt`, `link.key`, `bank.log`, `gateway.log`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paygate.files.text_records import WRITE_DELAY_MS

DATA = Path(__file__).parent.parent / "data"
BANK_ID = "DEMOBANK"
GATEWAY_ID = "demo-gateway"
START_TIMEOUT_S = 20
RECORDS_BEHIND_S = 6 * WRITE_DELAY_MS / 1000
"""How far the text records may be behind, and some more for a machine that is busy with other tests."""
COMMAND_TIMEOUT_S = 300
STOP_TIMEOUT_S = 40


class StartFailed(Exception):
    """A server ended, or said nothing, before it listened. The text has its exit code and what it wrote."""


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Look again and again until it holds. Raises TimeoutError naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout_s} s for {what}")
        time.sleep(0.02)


def program(name: str) -> list[str]:
    """The command of one of the three programs, under this Python."""
    # -P: the directory that somebody starts us in must not lend the programs its modules.
    return [sys.executable, "-P", "-m", f"paygate.{name}"]


@dataclass
class ServerProcess:
    """A running server."""

    popen: subprocess.Popen[str]
    address: str
    log_path: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM, timeout_s: float = COMMAND_TIMEOUT_S) -> int:
        """Send a signal, wait for the end, and give the exit code (negative: the signal that killed it)."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(timeout_s)


@dataclass(frozen=True)
class ClientRun:
    """What one run of the client came to."""

    command: list[str]
    exit_code: int
    output: str
    errors: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object that `--json` printed."""
        answer = json.loads(self.output)
        assert isinstance(answer, dict)
        return answer


@dataclass
class LocalSystem:
    """State directories and processes below one directory."""

    root: Path
    data: Path = DATA
    bank: ServerProcess | None = None
    gateway: ServerProcess | None = None
    bank_options: list[str] = field(default_factory=list)
    gateway_options: list[str] = field(default_factory=list)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)
    """Every server and client, so that `stop` leaves none behind."""

    def create(self) -> None:
        """Make keys, state directories and records from the demo's data."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.command(
            "bank", "init", "--bank-id", BANK_ID, "--bank-code", "DEMO", "--currency", "INR", "--from", str(self.data)
        )
        self.command("bank", "add-gateway", GATEWAY_ID, "--key-out", str(self.root / "link.key"))
        root_key = self.command("bank", "show-root-key").stdout
        (self.root / "bank-root.txt").write_text(root_key, encoding="ascii")
        self.command(
            "gateway",
            "init",
            *("--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID),
            *("--link-key", str(self.root / "link.key"), "--from", str(self.data)),
        )

    def command(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the bank's or the gateway's program on its state directory."""
        command = [*program(name), arguments[0], "--state", str(self.root / name), *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        if check and done.returncode != 0:
            raise StartFailed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def start_bank(self, port: int = 0) -> ServerProcess:
        """Start the bank and wait until it listens."""
        self.bank = self._start("bank", "--port", str(port), *self.bank_options)
        return self.bank

    def start_gateway(self, port: int = 0, bank_port: int | None = None) -> ServerProcess:
        """Start the gateway, linked to our bank, and wait until clients can pay: it has the keys of the bank."""
        if bank_port is None:
            assert self.bank is not None
            bank_port = self.bank.port
        options = ["--port", str(port), "--bank", f"127.0.0.1:{bank_port}", *self.gateway_options]
        log_path = self.root / "gateway.log"
        said_before = log_path.stat().st_size if log_path.exists() else 0
        self.gateway = self._start("gateway", *options)
        try:
            wait_until(
                lambda: b"has the keys of bank" in log_path.read_bytes()[said_before:],
                "the gateway to have the bank's keys",
                START_TIMEOUT_S,
            )
        except TimeoutError as error:
            raise StartFailed(f"{error}: {log_path.read_text(encoding='utf-8')}") from None
        return self.gateway

    def _start(self, name: str, *options: str) -> ServerProcess:
        log_path = self.root / f"{name}.log"
        with log_path.open("ab") as log:
            popen = subprocess.Popen(
                [*program(name), "serve", "--state", str(self.root / name), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.started.append(popen)
        assert popen.stdout is not None
        # A server that hangs before it listens is killed, so that the read below ends.
        guard = threading.Timer(START_TIMEOUT_S, popen.kill)
        guard.start()
        line = popen.stdout.readline()
        guard.cancel()
        if " listening on " not in line:
            code = popen.wait(START_TIMEOUT_S)
            raise StartFailed(f"{name} ended with {code}: {log_path.read_text(encoding='utf-8').strip()}")
        return ServerProcess(popen, line.split(" listening on ")[1].strip(), log_path)

    def client_command(self, *arguments: str, state: str = "client") -> list[str]:
        """The command line of the client, against our gateway and bank root."""
        assert self.gateway is not None
        return [
            *program("client"),
            arguments[0],
            *("--gateway", self.gateway.address, "--bank-root", str(self.root / "bank-root.txt")),
            *("--state", str(self.root / state), *arguments[1:]),
        ]

    def pay(
        self,
        transaction: str,
        passcode: str,
        user: str,
        password: str,
        *options: str,
        state: str = "client",
        is_json: bool = True,
    ) -> ClientRun:
        """One payment by the client program; secrets go through file descriptors, never argv."""
        with start_client(self, transaction, passcode, user, password, *options, state=state, is_json=is_json) as popen:
            output, errors = popen.communicate(timeout=COMMAND_TIMEOUT_S)
        assert isinstance(popen.args, list)
        return ClientRun([str(a) for a in popen.args], popen.returncode, output, errors)

    def status(self, *arguments: str, state: str = "client") -> ClientRun:
        """`paygate-client status`."""
        command = self.client_command("status", *arguments, "--json", state=state)
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        return ClientRun(command, done.returncode, done.stdout, done.stderr)

    def record(self, server: str, name: str) -> list[list[str]]:
        """The rows of a record file, comments left out; a running server has had the time to bring it up to date."""
        time.sleep(RECORDS_BEHIND_S)
        lines = (self.root / server / name).read_text(encoding="utf-8").splitlines()
        return [[f.strip() for f in line.split("|")] for line in lines if line.strip() and not line.startswith("#")]

    def stop(self) -> None:
        """End what runs, gently if it will: the gateway first, so that its payments find the bank still there."""
        for popen in reversed(self.started):
            if popen.poll() is None:
                popen.send_signal(signal.SIGCONT)
                popen.send_signal(signal.SIGTERM)
                try:
                    popen.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    popen.kill()
                    popen.wait()
            for stream in (popen.stdout, popen.stderr):
                if stream is not None:
                    stream.close()

    def remove(self) -> None:
        """Forget an earlier run."""
        shutil.rmtree(self.root, ignore_errors=True)


def start_client(
    system: LocalSystem,
    transaction: str,
    passcode: str,
    user: str,
    password: str,
    *options: str,
    state: str = "client",
    is_json: bool = True,
) -> subprocess.Popen[str]:
    """Start `paygate-client pay` and give it its secrets through pipes."""
    with_json: Sequence[str] = ("--json",) if is_json else ()
    passcode_fd, password_fd = _pipe_with(passcode), _pipe_with(password)
    command = system.client_command(
        "pay",
        *("--transaction", transaction, "--passcode-fd", str(passcode_fd)),
        *("--user", user, "--password-fd", str(password_fd), "--yes", *with_json, *options),
        state=state,
    )
    try:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(passcode_fd, password_fd),
        )
        system.started.append(popen)
        return popen
    finally:
        os.close(passcode_fd)
        os.close(password_fd)


def _pipe_with(text: str) -> int:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, f"{text}\n".encode())
    os.close(write_fd)
    return read_fd
