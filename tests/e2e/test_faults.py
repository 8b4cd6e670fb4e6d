"""Signals, crashes and silence, with three real processes (R10 to R12; T1, T22, T28)."""

import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from e2e.relay import Relay
from local_system import ClientRun, LocalSystem, start_client, wait_until

from paygate.cli import ExitCode

ASHA = ("asha", "correct horse battery")
WAIT_S = 40


def attempts(system: LocalSystem) -> list[str]:
    return [row[6] for row in system.record("gateway", "GatewayTransaction.txt")]


def token_state(system: LocalSystem, transaction: str) -> str:
    return {row[0]: row[2] for row in system.record("gateway", "PaymentTokensData.txt")}[transaction]


def start_paying(system: LocalSystem, *options: str) -> "subprocess.Popen[str]":
    return start_client(system, "TX-1001", "4711", *ASHA, *options)


def ended(popen: "subprocess.Popen[str]") -> ClientRun:
    with popen:
        output, errors = popen.communicate(timeout=WAIT_S)
    return ClientRun([], popen.returncode, output, errors)


@pytest.fixture
def relay(stopped_system: LocalSystem) -> Iterator[Relay]:
    """A started system whose bank link passes through a relay."""
    system = stopped_system
    bank = system.start_bank()
    relay = Relay(bank.port)
    system.start_gateway(bank_port=relay.port)
    yield relay
    system.stop()
    relay.close()


def test_sigint_is_ignored_while_a_payment_is_under_way(system: LocalSystem) -> None:
    assert system.bank is not None
    system.bank.popen.send_signal(signal.SIGSTOP)
    client = start_paying(system)
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    for _ in range(3):
        client.send_signal(signal.SIGINT)
    system.bank.popen.send_signal(signal.SIGCONT)
    run = ended(client)
    assert run.exit_code == ExitCode.OK, run.errors


def test_other_signals_are_held_until_the_payment_has_its_answer(system: LocalSystem) -> None:
    assert system.bank is not None
    system.bank.popen.send_signal(signal.SIGSTOP)
    client = start_paying(system)
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    client.send_signal(signal.SIGTERM)
    system.bank.popen.send_signal(signal.SIGCONT)
    wait_until(lambda: attempts(system) == ["paid"], "the payment to be paid")
    ended(client)
    # Held, not lost: it was delivered after the answer was on disk.
    (kept,) = (system.root / "client" / "payments").glob("*.json")
    assert '"paid"' in kept.read_text(encoding="utf-8")


def test_the_alarm_ends_a_session_before_anything_was_sent(stopped_system: LocalSystem) -> None:
    system = stopped_system
    system.gateway_options = ["--session-seconds", "3"]
    system.start_bank()
    system.start_gateway()
    command = system.client_command("pay", "--transaction", "TX-1001")
    leader, follower = pty.openpty()
    with os.fdopen(leader, "wb", buffering=0):  # closed whatever fails below
        client = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
        try:
            os.close(follower)
            os.write(leader, b"4711\n")
            shown = _read_terminal(leader, client)
            assert client.wait(WAIT_S) == ExitCode.SESSION_TIMED_OUT, shown
        finally:
            client.kill()
            client.wait()
    assert "no money" in shown.lower()
    assert attempts(system) == []


def _read_terminal(leader: int, client: "subprocess.Popen[bytes]") -> str:
    shown = b""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 0.2)
        if ready:
            try:
                shown += os.read(leader, 4096)
            except OSError:  # the terminal's other end is gone
                break
        elif client.poll() is not None:
            break
    return shown.decode(errors="replace")


def test_a_silent_bank_is_pending_and_status_brings_the_answer(stopped_system: LocalSystem) -> None:
    system = stopped_system
    system.gateway_options = ["--session-seconds", "12"]  # sealing must fit in
    bank = system.start_bank()
    system.start_gateway()
    assert system.bank is not None
    system.bank.popen.send_signal(signal.SIGSTOP)
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.OUTCOME_UNKNOWN, run.errors
    assert run.answer["money_may_have_moved"] is True
    assert token_state(system, "TX-1001") == "in-flight"
    # R9: meanwhile nobody else can pay it.
    other = system.pay("TX-1001", "4711", "meera", "seven brass lamps", state="other")
    assert other.exit_code == ExitCode.TOKEN_REFUSED
    bank.popen.send_signal(signal.SIGCONT)
    wait_until(lambda: token_state(system, "TX-1001") != "in-flight", "the payment to be resolved")
    status = system.status("all")
    final = token_state(system, "TX-1001")
    assert final in ("paid", "unpaid")
    assert status.exit_code == (ExitCode.OK if final == "paid" else ExitCode.DECLINED), status.output
    assert len(system.record("bank", "TransactionID.txt")) == (1 if final == "paid" else 0)


def test_sigterm_drains_the_gateway_and_the_payment_in_flight_ends(system: LocalSystem) -> None:
    assert system.bank is not None
    assert system.gateway is not None
    system.bank.popen.send_signal(signal.SIGSTOP)
    client = start_paying(system)
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    system.gateway.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: not _listens(system.gateway.port if system.gateway else 0), "the gateway to stop listening")
    system.bank.popen.send_signal(signal.SIGCONT)
    run = ended(client)
    assert run.exit_code == ExitCode.OK, run.errors
    assert system.gateway.end(0, timeout_s=WAIT_S) == 0
    assert token_state(system, "TX-1001") == "paid"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        return True  # it stood in the queue of the listener that is just being closed
    return True


def test_a_gateway_killed_after_the_transfer_left_resolves_it_at_restart(system: LocalSystem) -> None:
    assert system.bank is not None
    assert system.gateway is not None
    port = system.gateway.port
    system.bank.popen.send_signal(signal.SIGSTOP)
    client = start_paying(system)
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    system.gateway.end(signal.SIGKILL)
    system.bank.popen.send_signal(signal.SIGCONT)
    wait_until(lambda: len(system.record("bank", "TransactionID.txt")) == 1, "the bank to post it")
    system.start_gateway(port=port)
    run = ended(client)
    assert run.exit_code == ExitCode.OK, run.errors
    assert token_state(system, "TX-1001") == "paid"
    assert attempts(system) == ["paid"]
    assert [row[0] for row in system.record("bank", "TransactionID.txt")] == [run.answer["utr"]]
    # T22: the crash's orphans were closed in the log.
    events = [row[1] for row in system.record("gateway", "LogFiles.txt")]
    wait_until(lambda: _log_balances(system), "connects and disconnects to balance")
    assert events.count("connected") >= 2


def _log_balances(system: LocalSystem) -> bool:
    events = [row[1] for row in system.record("gateway", "LogFiles.txt")]
    return events.count("connected") == events.count("disconnected")


def test_a_bank_killed_after_its_commit_gives_the_same_receipt(stopped_system: LocalSystem, relay: Relay) -> None:
    system = stopped_system
    assert system.bank is not None
    relay.swallows_answers = True
    client = start_paying(system)
    wait_until(lambda: len(system.record("bank", "TransactionID.txt")) == 1, "the bank to commit")
    assert relay.swallowed.wait(WAIT_S)
    system.bank.end(signal.SIGKILL)
    first = system.record("bank", "TransactionID.txt")
    relay.swallows_answers = False
    relay.target_port = system.start_bank().port
    run = ended(client)
    assert run.exit_code == ExitCode.OK, run.errors
    assert system.record("bank", "TransactionID.txt") == first
    assert run.answer["utr"] == first[0][0]
    # Byte for byte: what the bank swore before it was killed is what the client holds.
    assert bytes(relay.seen).count(bytes.fromhex(run.answer["receipt"])) >= 2


def test_a_bank_killed_before_it_answers_leads_to_a_definite_answer(system: LocalSystem) -> None:
    assert system.bank is not None
    port = system.bank.port
    system.bank.popen.send_signal(signal.SIGSTOP)
    client = start_paying(system)
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    system.bank.end(signal.SIGKILL)
    system.start_bank(port)
    run = ended(client)
    # The transfer was in the dead bank's socket: the new one has never seen it and fences it.
    assert run.exit_code == ExitCode.DECLINED, run.errors
    assert token_state(system, "TX-1001") == "unpaid"
    assert system.record("bank", "TransactionID.txt") == []
    assert system.pay("TX-1001", "4711", *ASHA).exit_code == ExitCode.OK


@pytest.mark.pg("PG-LNK-15")
def test_garbage_and_strangers_disturb_nobody(system: LocalSystem) -> None:
    assert system.bank is not None
    assert system.gateway is not None
    garbage = [b"GET / HTTP/1.1\r\n\r\n", b"PG\x01\x10", b"\x00" * 64, b"PG\x01\x01\x00\x00\xff\xff" + b"\x00" * 12]
    for server in (system.bank, system.gateway):
        for data in garbage:
            with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.OK, run.errors


def test_every_catchable_signal_under_payment_loses_nothing(system: LocalSystem) -> None:
    assert system.bank is not None
    assert system.gateway is not None
    uncatchable = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM}
    client = start_paying(system)
    for number in sorted(signal.valid_signals() - uncatchable):
        system.gateway.popen.send_signal(number)
        system.bank.popen.send_signal(number)
    run = ended(client)
    assert run.exit_code == ExitCode.OK, run.errors
    assert (system.gateway.end(), system.bank.end()) == (0, 0)
