"""A client in another language, written from `spec/` alone, against the vectors and against the real servers.

`node/` was written by somebody who saw nothing of this project but `spec/`; `questions.md` says what they had to ask.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from local_system import BANK_ID, LocalSystem
from outside_tools import unavailable

from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import Receipt

NODE_CLIENT: Final = Path(__file__).parent / "node"
NODE_VERSION_MIN: Final = 20
TIMEOUT_S: Final = 60
PASSWORDS: Final = {"asha": "correct horse battery", "ravi": "monsoon-in-mumbai", "meera": "seven brass lamps"}
PASSCODES: Final = {"TX-1001": "4711", "TX-1002": "8086", "TX-1003": "6502", "TX-1004": "68000"}


@cache
def node() -> str:
    """The Node.js that can run the client, with its packages in place."""
    found = shutil.which("node")
    if found is None:
        unavailable("Node.js is missing")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE_VERSION_MIN:
        unavailable(f"Node.js {NODE_VERSION_MIN} or later is missing; there is {version}")
    if not (NODE_CLIENT / "node_modules" / "hash-wasm").is_dir():
        unavailable("the npm packages of tests/interop/node are missing")
    return found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """Bank and gateway as real processes, with the demo's customers and tokens."""
    node()
    system = LocalSystem(tmp_path_factory.mktemp("node") / "system")
    system.create()
    try:
        system.start_bank()
        system.start_gateway()
        yield system
    finally:
        system.stop()


class NodeClient:
    """The client program with a pending file of its own."""

    def __init__(self, system: LocalSystem, directory: Path) -> None:
        assert system.gateway is not None
        self.gateway = system.gateway.address
        self.bank_root = system.root / "bank-root.txt"
        self._directory = directory
        self.output = ""

    def pay(self, transaction: str, user: str = "asha", *, password: str = "", passcode: str = "") -> tuple[int, Any]:
        """Exit code and the JSON object of one payment; the secrets go through files."""
        return self.run(
            *("--transaction", transaction, "--user", user),
            *("--password-file", self._secret("password", password or PASSWORDS[user])),
            *self.with_passcode(passcode or PASSCODES[transaction]),
        )

    def status(self, transaction: str) -> tuple[int, Any]:
        """What became of the last payment."""
        return self.run("status", *self.with_passcode(PASSCODES[transaction]))

    def with_passcode(self, passcode: str) -> list[str]:
        return ["--passcode-file", self._secret("passcode", passcode)]

    def run(self, *arguments: str) -> tuple[int, Any]:
        pending = str(self._directory / "pending.jsonl")
        first, rest = (arguments[:1], arguments[1:]) if arguments[:1] == ("status",) else ((), arguments)
        command = [node(), str(NODE_CLIENT / "pay.mjs"), *first, "--gateway", self.gateway]
        command += ["--bank-root", str(self.bank_root), "--pending", pending, "--json", *rest]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        self.output = done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def _secret(self, name: str, text: str) -> str:
        path = self._directory / name
        path.write_text(f"{text}\n", encoding="utf-8")
        return str(path)


@pytest.fixture
def client(system: LocalSystem, tmp_path: Path) -> NodeClient:
    return NodeClient(system, tmp_path)


@pytest.mark.pg("PG-ENV-2", "PG-CRY-1")
def test_it_passes_the_vectors() -> None:
    done = subprocess.run(
        [node(), "--test", "--test-reporter=tap", str(NODE_CLIENT / "vectors.test.mjs")],
        env={name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    assert done.returncode == 0, done.stdout[-5_000:]
    # It implements the suite that PG-ENV-2 demands, so the hybrid envelope is the one that it leaves out.
    assert (counts["fail"], counts["cancelled"], counts["skipped"]) == (0, 0, 1)
    assert counts["pass"] == counts["tests"] - 1 > 1_000


def test_it_pays_and_the_bank_has_the_utr_that_it_tells(system: LocalSystem, client: NodeClient) -> None:
    exit_code, answer = client.pay("TX-1001")
    assert (exit_code, answer["status"], answer["proven"]) == (0, "PAID", True)
    statement = decode_record(Receipt, bytes.fromhex(answer["receipt"])).statement
    assert (statement.utr, statement.terms.bank_id) == (answer["utr"], BANK_ID)
    assert answer["utr"] in [row[0] for row in system.record("bank", "TransactionID.txt")]
    assert PASSWORDS["asha"] not in client.output

    assert client.status("TX-1001")[1]["receipt"] == answer["receipt"]

    exit_code, refused = client.pay("TX-1001")
    assert (exit_code, refused["token"]["status"], refused["token"]["utr"]) == (6, "PAID", answer["utr"])


@pytest.mark.parametrize(
    ("transaction", "user", "password", "reason"),
    [("TX-1002", "ravi", "", "FUNDS"), ("TX-1003", "meera", "not her password", "CREDENTIALS")],
)
def test_it_proves_a_decline(client: NodeClient, transaction: str, user: str, password: str, reason: str) -> None:
    exit_code, answer = client.pay(transaction, user, password=password)
    assert (exit_code, answer["status"], answer["reason"], answer["proven"]) == (1, "DECLINED", reason, True)


def test_it_sends_nothing_for_a_wrong_passcode(client: NodeClient) -> None:
    exit_code, answer = client.pay("TX-1004", passcode="wrong")
    assert (exit_code, answer["token"]["status"]) == (6, "INVALID")
    assert "nothing was sent" in answer["message"]


def test_it_trusts_no_other_root(client: NodeClient, tmp_path: Path) -> None:
    client.bank_root = tmp_path / "other-root.txt"
    client.bank_root.write_text(f"{BANK_ID} {'11' * 32}\n", encoding="ascii")
    exit_code, answer = client.pay("TX-1004")
    assert exit_code == 9
    assert "not signed by the bank" in answer["message"]


def test_without_a_gateway_it_says_so(client: NodeClient) -> None:
    client.gateway = "127.0.0.1:1"
    exit_code, answer = client.pay("TX-1004")
    assert exit_code == 5
    assert "no money has moved" in answer["message"]


def test_wrong_usage_is_one_line(client: NodeClient) -> None:
    exit_code, answer = client.run("--transaction", "TX-1004")
    assert (exit_code, answer) == (2, None)
    assert client.output == "pay: --passcode-file is missing\n"
