"""The program `paygate-client` as a process, and a scripted gateway for it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from builders import PASSCODE, PASSWORD, TRANSACTION_ID, USER_ID
from client_world import ROOT
from scripted_gateway import GatewayServer

from paygate.net.loop import Loop

WAIT_S = 60
PROGRAM = [sys.executable, "-m", "paygate.client"]


class Shop:
    """A gateway for one client process, and that process's files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop()
        self.server = GatewayServer(self.loop)
        self.root = directory / "root.txt"
        self.root.write_text(f"{ROOT}\n", encoding="ascii")
        self.state = directory / "state"
        self._secrets = directory / "secrets"
        self._secrets.touch()

    def command(self, *options: str) -> list[str]:
        return [
            *PROGRAM,
            *("pay", "--gateway", self.server.address),
            *("--bank-root", str(self.root), "--state", str(self.state)),
            *options,
        ]

    def full_command(self, *options: str, secrets: str = f"{PASSCODE}\n{PASSWORD}\n") -> list[str]:
        """Everything given; passcode and password come as two lines of one private file's descriptor."""
        self._secrets.write_text(secrets, encoding="utf-8")
        return self.command(
            *("--transaction", TRANSACTION_ID, "--passcode-fd", "0", "--user", USER_ID, "--password-fd", "0"), *options
        )

    def start(self, command: list[str]) -> "subprocess.Popen[str]":
        with self._secrets.open("rb") as stdin:
            return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def serve_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "nothing happened in time"
            self.loop.run_once(20)
            self.loop.flush()

    def run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        process = self.start(command)
        with process:
            self.serve_until(lambda: process.poll() is not None)
            output, errors = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
