"""A bank, a gateway and a client in forks, on state directories that are copied for each case."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from faults.forked import Forked, Setting, remember_password_keys, start

from paygate.bank.keys import load_key_list
from paygate.bank.server import LEDGER_NAME
from paygate.cli import ExitCode
from paygate.client.client import PaygateClient
from paygate.clock import Now, system_now
from paygate.gateway.settings import STORE_NAME

BANK_ID: Final = "FAULTBANK"
GATEWAY_ID: Final = "fault-gateway"
CUSTOMERS: Final = (("C-1", "asha", "correct horse battery"), ("C-2", "ravi", "monsoon-in-mumbai"))
MERCHANT: Final = "M-1"
PASSCODE: Final = "4711"
OPENING: Final = "50000.00"
TOKENS: Final = ("TX-1", "TX-2", "TX-3")
SESSION_S: Final = 6
"""A session's length: nothing takes a second, and a payment whose answer got lost is asked for so long."""
BANK_WAIT_S: Final = 5
PATIENT_S: Final = 30
LATER_MS: Final = 90_000
"""I9: a session and sixty seconds more, in which every payment becomes final."""


@dataclass(frozen=True, slots=True)
class ClientRun:
    """What a run of the client came to."""

    exit_code: int
    output: str
    errors: str

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The JSON objects that it printed."""
        return [json.loads(line) for line in self.output.splitlines()]


class House:
    """State directories `system/bank`, `system/gateway`, `system/client`, and what runs on them."""

    def __init__(self, directory: Path, setting: Setting | None = None) -> None:
        self.directory = directory
        self.root = directory / "system"
        self.setting = setting or Setting(self.root, directory / "logs")
        self.bank: Forked | None = None
        self.gateway: Forked | None = None
        self._bank_port = 0
        self._gateway_port = 0
        self._run_count = 0

    def without_fault(self) -> None:
        """From now on programs are started without a fault."""
        self.setting = replace(self.setting, fault=None, is_traced=False)

    # -- making ----------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make keys, accounts and tokens, and have both servers run once."""
        data = self.directory / "data"
        for directory in (self.root, self.setting.logs, data):
            directory.mkdir(parents=True)
        users = "".join(f"{customer} | {user} | {word} | {OPENING}\n" for customer, user, word in CUSTOMERS)
        (data / "NetbankingUsers.txt").write_text(users, encoding="utf-8")
        (data / "Merchant.txt").write_text(f"{MERCHANT} | Faulty Goods | 0\n", encoding="utf-8")
        tokens = "".join(f"{token} | {PASSCODE} | unpaid | 10.00 | {MERCHANT} | INR\n" for token in TOKENS)
        (data / "PaymentTokensData.txt").write_text(tokens, encoding="utf-8")
        ids = ("--bank-id", BANK_ID)
        self.command("bank", "init", *ids, "--bank-code", "FLTB", "--from", str(data)).check()
        link_key = self.root / "link.key"
        self.command("bank", "add-gateway", GATEWAY_ID, "--key-out", str(link_key)).check()
        self.command("bank", "show-root-key").check()
        self.root_key_path.write_text(self.last.output, encoding="ascii")
        given = ("--gateway-id", GATEWAY_ID, *ids, "--link-key", str(link_key), "--from", str(data))
        self.command("gateway", "init", *given).check()
        assert self.start_bank()
        assert self.start_gateway()
        self.stop()

    def remember_passwords(self) -> None:
        """Spare every fork the customers' Argon2id."""
        parameters = load_key_list(self.root / "bank").password_key
        remember_password_keys([(parameters, BANK_ID, user, word) for _, user, word in CUSTOMERS])

    def copy(self, directory: Path, setting: Setting) -> "House":
        """The same, at rest, somewhere else."""
        shutil.copytree(self.root, setting.root)
        setting.logs.mkdir(parents=True)
        return House(directory, setting)

    @property
    def root_key_path(self) -> Path:
        """The bank's root key, as clients are given it."""
        return self.root / "bank-root.txt"

    @property
    def ledger_path(self) -> Path:
        """The bank's database."""
        return self.root / "bank" / LEDGER_NAME

    @property
    def tokens_path(self) -> Path:
        """The gateway's database."""
        return self.root / "gateway" / STORE_NAME

    @property
    def bank_port(self) -> int:
        """Where the bank listens."""
        return self._bank_port

    # -- running ---------------------------------------------------------------------------------------

    def command(self, program: str, command: str, *arguments: str, **inputs: str) -> "House":
        """Run a command of the bank or the gateway to its end; `inputs` by option, `_` for `-`."""
        given = {f"--{name.replace('_', '-')}": text for name, text in inputs.items()}
        state = ("--state", str(self.root / program))
        self._run_count += 1
        label = f"{program}-{command}-{self._run_count}"
        self.last = start(self.setting, program, command, *state, *arguments, label=label, inputs=given)
        self.last.wait()
        return self

    def check(self) -> None:
        """Raise AssertionError unless the last command did what it was to do."""
        assert self.last.exit_code == 0, f"{self.last.name} ended with {self.last.exit_code}: {self.last.errors}"

    def start_bank(self) -> bool:
        """Start the bank, on the port of the last time; False if it ended before it listened."""
        arguments = ("serve", "--state", str(self.root / "bank"), "--port", str(self._bank_port))
        bank = self.bank = start(self.setting, "bank", *arguments)
        if not bank.wait_for(lambda: " listening on " in bank.output, "listening"):
            return False
        self._bank_port = _port_of(bank)
        return True

    def start_gateway(self, bank_port: int | None = None) -> bool:
        """Start the gateway; False if it ended before it had the bank's keys."""
        bank = f"127.0.0.1:{bank_port or self._bank_port}"
        # Under a fault answers may never come; without one a busy machine is waited for.
        session_s, wait_s = (PATIENT_S, PATIENT_S) if self.setting.fault is None else (SESSION_S, BANK_WAIT_S)
        options = ("--port", str(self._gateway_port), "--bank", bank, "--session-seconds", str(session_s))
        arguments = ("serve", "--state", str(self.root / "gateway"), *options, "--bank-wait", str(wait_s))
        gateway = self.gateway = start(self.setting, "gateway", *arguments)
        if not gateway.wait_for(lambda: "has the keys of bank" in gateway.errors, "keys of the bank"):
            return False
        self._gateway_port = _port_of(gateway)
        return True

    def pay(self, token: str, customer: int = 0) -> ClientRun:
        """`paygate-client pay`."""
        _, user, password = CUSTOMERS[customer]
        options = ("--transaction", token, "--user", user, "--yes", "--json")
        return self._client("pay", *options, inputs={"--passcode-fd": PASSCODE, "--password-fd": password})

    def status(self) -> ClientRun:
        """`paygate-client status all`."""
        return self._client("status", "all", "--json")

    def status_later(self) -> ClientRun:
        """The same, by a clock that says that every session is over."""
        patch = self.setting.patch

        def later() -> None:
            if patch is not None:
                patch()
            defaults = PaygateClient.__init__.__kwdefaults__
            assert defaults is not None
            defaults["clock"] = _later

        before = self.setting
        self.setting = replace(before, patch=later)
        try:
            return self.status()
        finally:
            self.setting = before

    def _client(self, command: str, *arguments: str, inputs: dict[str, str] | None = None) -> ClientRun:
        common = ["--state", str(self.root / "client"), "--gateway", f"127.0.0.1:{self._gateway_port}"]
        common += ["--bank-root", str(self.root_key_path)]
        self._run_count += 1
        label = f"client-{command}-{self._run_count}"
        ran = start(self.setting, "client", command, *common, *arguments, label=label, inputs=inputs)
        ran.wait()
        assert ran.exit_code is not None
        return ClientRun(ran.exit_code, ran.output, ran.errors)

    def stop(self) -> list[int]:
        """Drain what runs, the gateway first; gives the exit codes of both. Raises Hang."""
        codes = [server.end() for server in (self.gateway, self.bank) if server is not None]
        self.gateway = self.bank = None
        return codes

    def kill(self) -> None:
        """End what runs."""
        for server in (self.gateway, self.bank):
            if server is not None:
                server.kill()
        self.gateway = self.bank = None

    def servers(self) -> Sequence[Forked]:
        """What was started and not stopped since."""
        return [server for server in (self.bank, self.gateway) if server is not None]


def _later() -> Now:
    now = system_now()
    return Now(now.mono_ms, now.wall_ms + LATER_MS)


def _port_of(server: Forked) -> int:
    return int(server.output.split(" listening on ")[1].strip().rpartition(":")[2])


SERVER_CODES: Final = frozenset({ExitCode.PORT_IN_USE, ExitCode.STATE_IN_USE, ExitCode.BAD_STATE, ExitCode.NO_BANK,
                                 ExitCode.STORE_FAILED})  # fmt: skip
"""With which a server may end when its files fail (20 to 24)."""
