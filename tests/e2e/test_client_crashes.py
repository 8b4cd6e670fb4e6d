"""A client that is killed at each step of its life, and what it says afterwards (issue: never lost, never twice)."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from e2e.dying_client import STEPS
from local_system import COMMAND_TIMEOUT_S, ClientRun, LocalSystem, start_client, wait_until

from paygate.cli import ExitCode

ASHA: Final = ("asha", "correct horse battery")
SAFE: Final = "Asking, `retry` and paying this token again are safe"
LAUNCHER: Final = Path(__file__).with_name("dying_client.py")
TOKENS: Final = ("TX-IN-FLIGHT", "TX-AGAIN", "TX-DAMAGED", *(f"TX-{step}" for step in STEPS))


@pytest.fixture(scope="module")
def shop(created: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One running system for all cases, with a token for each."""
    root = tmp_path_factory.mktemp("crashes") / "system"
    shutil.copytree(created, root)
    system = LocalSystem(root)
    with (root / "gateway" / "PaymentTokensData.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{token} | 2468 | unpaid | 10.00 | M-100 | INR | | | Books\n" for token in TOKENS)
    for name, text in (("passcode", "2468"), ("password", ASHA[1])):
        (root / name).write_text(f"{text}\n", encoding="utf-8")
        (root / name).chmod(0o600)
    system.start_bank()
    system.start_gateway()
    yield system
    system.stop()


def client(system: LocalSystem, state: str, command: str, *arguments: str) -> ClientRun:
    """One command of the client, as text."""
    line = system.client_command(command, *arguments, state=state)
    done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    return ClientRun(line, done.returncode, done.stdout, done.stderr)


def paying(system: LocalSystem, token: str) -> list[str]:
    return [
        *("--transaction", token, "--passcode-file", str(system.root / "passcode")),
        *("--user", ASHA[0], "--password-file", str(system.root / "password"), "--yes"),
    ]


def pay_and_die(system: LocalSystem, step: str, token: str = "") -> str:
    """Pay a token by a client that dies at a step; gives the token, which also names the client's state."""
    token = token or f"TX-{step}"
    line = system.client_command("pay", *paying(system, token), state=token)
    line[: line.index("pay")] = [sys.executable, str(LAUNCHER), step]
    done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return token


def records(system: LocalSystem, state: str) -> list[Path]:
    return [p for p in (system.root / state / "payments").iterdir() if not p.name.startswith(".")]


def state_of(path: Path) -> tuple[str, bool]:
    """What a payment's record says, and whether it still has the envelope."""
    fields = json.loads(path.read_bytes())
    return fields["state"], bool(fields["envelope"])


def utr_count(system: LocalSystem, token: str) -> int:
    return sum(row[5] == token for row in system.record("bank", "TransactionID.txt"))


def token_state(system: LocalSystem, token: str) -> str:
    """What the gateway's text record says of a token."""
    return {row[0]: row[2] for row in system.record("gateway", "PaymentTokensData.txt")}[token]


@pytest.mark.parametrize("step", ["before-the-record", "in-the-record"])
def test_killed_before_the_payment_is_written_down_nothing_was_sent(shop: LocalSystem, step: str) -> None:
    token = pay_and_die(shop, step)
    assert records(shop, token) == []
    status = client(shop, token, "status")
    assert (status.exit_code, status.errors) == (ExitCode.OK, "")
    assert "No payment waits for an outcome." in status.output
    assert "was never sent" in status.output
    again = client(shop, token, "pay", *paying(shop, token))
    assert (again.exit_code, again.errors) == (ExitCode.OK, "")
    assert utr_count(shop, token) == 1


@pytest.mark.pg("PG-CLI-2", "PG-PAY-1")
def test_killed_before_the_credentials_left_it_is_pending_and_retry_pays_it(shop: LocalSystem) -> None:
    token = pay_and_die(shop, "before-the-credentials")
    (record,) = records(shop, token)
    assert state_of(record) == ("pending", True)
    status = client(shop, token, "status")
    assert status.exit_code == ExitCode.OUTCOME_UNKNOWN
    assert f"paygate-client status --state {shop.root / token} {record.stem}" in status.output
    assert "The gateway does not know the payment yet; it may still be on its way until" in status.output
    assert SAFE in status.output
    assert utr_count(shop, token) == 0
    # The same payment ID, as often as one likes: one debit.
    for _ in range(2):
        retry = client(shop, token, "retry", record.stem)
        assert retry.exit_code == ExitCode.OK, retry.output + retry.errors
        assert f"{record.stem}: Paid 10.00 INR" in retry.output
    assert state_of(record) == ("paid", False)
    assert len(list((shop.root / token / "receipts").iterdir())) == 1
    assert utr_count(shop, token) == 1


def test_a_record_that_was_damaged_besides_keeps_no_crashed_payment_from_its_answer(shop: LocalSystem) -> None:
    token = pay_and_die(shop, "behind-the-credentials", "TX-DAMAGED")
    (record,) = records(shop, token)
    damaged = record.with_name(f"{'ab' * 16}.json")
    damaged.touch(mode=0o600)
    wait_until(lambda: utr_count(shop, token) == 1, "the bank to post it")
    told: list[ClientRun] = []

    def is_paid() -> bool:
        told.append(client(shop, token, "status"))
        return f"{record.stem}: Paid 10.00 INR" in told[-1].output

    wait_until(is_paid, "the gateway to know")
    assert state_of(record) == ("paid", False)
    for status in told:
        assert status.exit_code == ExitCode.BAD_STATE
        assert f"{damaged} was changed or damaged: the object: expected JSON; restore it from a backup" in status.errors
    damaged.unlink()
    assert client(shop, token, "status").exit_code == ExitCode.OK


def test_killed_behind_the_credentials_the_payment_goes_on_and_status_has_the_receipt(shop: LocalSystem) -> None:
    token = pay_and_die(shop, "behind-the-credentials")
    (record,) = records(shop, token)
    assert state_of(record) == ("pending", True)
    wait_until(lambda: utr_count(shop, token) == 1, "the bank to post it")
    wait_until(lambda: client(shop, token, "status").exit_code == ExitCode.OK, "the gateway to know")
    assert state_of(record) == ("paid", False)
    assert client(shop, token, "retry", record.stem).exit_code == ExitCode.OK
    assert client(shop, token, "pay", *paying(shop, token)).exit_code == ExitCode.ALREADY_PAID
    assert utr_count(shop, token) == 1


@pytest.mark.parametrize("step", ["before-the-outcome", "before-the-receipt-file"])
def test_killed_with_the_answer_in_hand_status_has_it_again(shop: LocalSystem, step: str) -> None:
    token = pay_and_die(shop, step)
    (record,) = records(shop, token)
    status = client(shop, token, "status", record.stem)
    assert status.exit_code == ExitCode.OK, status.output
    assert "proven by the bank's receipt" in status.output
    (receipt,) = (shop.root / token / "receipts").iterdir()
    root = str(shop.root / "bank-root.txt")
    verify = [sys.executable, "-P", "-m", "paygate.client", "verify", str(receipt), "--bank-root", root]
    assert subprocess.run(verify, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False).returncode == 0
    assert utr_count(shop, token) == 1


def test_killed_while_the_bank_is_silent_it_is_pending_until_the_bank_speaks(shop: LocalSystem) -> None:
    token = "TX-IN-FLIGHT"
    assert shop.bank is not None
    os.kill(shop.bank.popen.pid, signal.SIGSTOP)
    try:
        popen = start_client(shop, token, "2468", *ASHA, state=token)
        wait_until(lambda: token_state(shop, token) == "in-flight", "the payment to reach the gateway")
        popen.kill()
        popen.communicate(timeout=COMMAND_TIMEOUT_S)
        (record,) = records(shop, token)
        status = client(shop, token, "status")
        assert status.exit_code == ExitCode.OUTCOME_UNKNOWN
        assert "the bank has not answered the gateway yet. Money may have moved." in status.output
        assert SAFE in status.output
        # Who tries again meanwhile is told of the first one, before anything is typed, and moves nothing.
        again = client(shop, token, "pay", *paying(shop, token))
        assert again.exit_code == ExitCode.TOKEN_REFUSED
        earlier, refusal = again.errors.splitlines()
        assert f"an earlier payment of this token is pending: {record.stem}, 10.00 INR" in earlier
        assert "paying again can't pay it twice" in earlier
        assert "being paid right now" in refusal
    finally:
        os.kill(shop.bank.popen.pid, signal.SIGCONT)
    retry = client(shop, token, "retry", record.stem)  # asks until the answer is there
    assert retry.exit_code == ExitCode.OK, retry.output
    assert utr_count(shop, token) == 1


def test_paying_again_settles_the_payment_that_was_left_open(shop: LocalSystem) -> None:
    token = pay_and_die(shop, "before-the-credentials", "TX-AGAIN")
    (first,) = records(shop, token)
    again = client(shop, token, "pay", *paying(shop, token))
    assert again.exit_code == ExitCode.OK, again.errors
    assert f"an earlier payment of this token is pending: {first.stem}" in again.errors
    status = client(shop, token, "status", first.stem)
    assert status.exit_code == ExitCode.REFUSED
    assert "This payment was not made; no money has moved by it, nor will it" in status.output
    assert state_of(first) == ("not-posted", False)
    assert client(shop, token, "status").output.startswith("No payment waits")
    assert utr_count(shop, token) == 1
