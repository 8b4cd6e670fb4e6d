"""The bank's program: its commands, and a server process of its own with a gateway's end of a link."""

import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from builders import build_terms

from paygate.bank.keys import find_link_key, load_key_list
from paygate.bank.ledger_check import read_head
from paygate.bank.ledger_rows import write_head
from paygate.cli import ExitCode
from paygate.clock import system_now
from paygate.codec.codes import Reason, Role, TransferOutcome
from paygate.codec.messages import BankKeys, BankKeysQuery, Message, TransferRequest, TransferResult
from paygate.codec.seal import (
    choose_suite_key,
    envelope_hash,
    match_receipt,
    password_key,
    seal_credentials,
    verify_key_list,
    verify_receipt,
)
from paygate.codec.sealed import KeyList, Terms
from paygate.link import Link
from paygate.link_events import ReplyReceived

BANK = [sys.executable, "-m", "paygate.bank"]
DATA = Path(__file__).parents[2] / "data"
ASHA_PASSWORD = "correct horse battery"
CANARY = "canary-password"
WAIT_S = 20.0


def run_bank(*arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BANK, *arguments], input=password, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("made") / "bank"
    made = run_bank("init", "--state", str(state), "--bank-id", "BANK1", "--bank-code", "PGBK", "--from", str(DATA))
    assert made.returncode == 0, made.stderr
    return state


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    state = tmp_path / "bank"
    subprocess.run(["cp", "-a", str(made), str(state)], check=True)
    return state


# -- commands --------------------------------------------------------------------------------------------


def test_init_takes_the_demo_accounts_in_and_keeps_no_password(made: Path) -> None:
    users = (made / "NetbankingUsers.txt").read_text()
    assert re.search(r"^C-1001 +\| asha +\| verifier:[0-9a-f]{64} +\| +50000\.00$", users, re.MULTILINE)
    assert "M-100" in (made / "Merchant.txt").read_text()
    for path in made.rglob("*"):
        assert not path.is_file() or ASHA_PASSWORD.encode() not in path.read_bytes(), path
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_second_init_is_refused(made: Path) -> None:
    again = run_bank("init", "--state", str(made), "--bank-id", "BANK1", "--bank-code", "PGBK")
    assert again.returncode == ExitCode.BAD_STATE
    assert "already" in again.stderr
    assert again.stderr.count("\n") == 1


def test_the_demo_has_a_customer_who_can_not_afford_the_first_token(made: Path) -> None:
    assert re.search(r"\| ravi +\|.*\| +900\.00$", (made / "NetbankingUsers.txt").read_text(), re.MULTILINE)


def test_accounts_are_added_while_no_server_runs(state: Path) -> None:
    added = run_bank(
        *("add-account", "--state", str(state), "--customer", "C-9", "--user", "nina", "--amount", "12.5"),
        *("--password-fd", "0"),
        password=f"{CANARY}\n",
    )
    assert (added.returncode, added.stdout) == (0, "customer C-9 has an account\n"), added.stderr
    users = (state / "NetbankingUsers.txt").read_text()
    assert re.search(r"^C-9 +\| nina +\| verifier:[0-9a-f]{64} +\| +12\.50$", users, re.MULTILINE)
    merchant = run_bank("add-merchant", "--state", str(state), "--merchant", "M-9", "--name", "Nine | Sons")
    assert merchant.returncode == 0, merchant.stderr
    assert "Nine \\x7c Sons" in (state / "Merchant.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--customer", "C-1001", "--user", "x", "--amount", "1"], "there is customer C-1001 already"),
        (["--customer", "C-9", "--user", "asha", "--amount", "1"], "there is a customer with this user ID already"),
        (["--customer", "C 9", "--user", "x", "--amount", "1"], "customer ID: expected"),
        (["--customer", "C-9", "--user", "x", "--amount", "-1"], "amount available: expected a decimal"),
        (["--customer", "C-9", "--user", "x", "--amount", "1.005"], "amount available: expected at most 2 decimals"),
    ],
)
def test_a_bad_account_is_refused_before_anything_is_written(state: Path, arguments: list[str], told: str) -> None:
    before = (state / "NetbankingUsers.txt").read_bytes()
    refused = run_bank("add-account", "--state", str(state), *arguments, "--password-fd", "0", password=CANARY)
    assert refused.returncode == ExitCode.USAGE
    assert told in refused.stderr
    assert CANARY not in refused.stderr
    assert (state / "NetbankingUsers.txt").read_bytes() == before


def test_an_empty_password_is_refused(state: Path) -> None:
    refused = run_bank("add-account", "--state", str(state), "--customer", "C-9", "--user", "x", "--amount", "1")
    assert refused.returncode == ExitCode.USAGE
    assert "password: expected 1 to 255 bytes" in refused.stderr


def test_keys_are_shown_rotated_and_retired(state: Path) -> None:
    old = [key.key_id.hex() for key in load_key_list(state).suite_keys]
    rotated = run_bank("rotate-keys", "--state", str(state))
    assert rotated.stdout.startswith("bank BANK1, key list 2, valid from ")
    retired = run_bank("retire-keys", "--state", str(state), *old)
    assert retired.returncode == 0, retired.stderr
    shown = run_bank("show-keys", "--state", str(state)).stdout
    assert shown == retired.stdout
    assert not any(key_id in shown for key_id in old)
    assert run_bank("retire-keys", "--state", str(state), "xyz").returncode == ExitCode.USAGE
    signed_hex = run_bank("show-key-list", "--state", str(state)).stdout.strip()
    bank_id, root_hex = run_bank("show-root-key", "--state", str(state)).stdout.split()
    now_ms = system_now().wall_ms
    key_list = verify_key_list(bytes.fromhex(signed_hex), bytes.fromhex(root_hex), bank_id, now_ms)
    assert key_list.serial == 4


def test_export_writes_the_records(state: Path, tmp_path: Path) -> None:
    exported = run_bank("export", "--state", str(state), str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Merchant.txt",
        "NetbankingUsers.txt",
        "TransactionID.txt",
    ]


def test_no_state_is_told_with_what_mends_it(tmp_path: Path) -> None:
    for command in ("serve", "show-keys", "rotate-keys"):
        refused = run_bank(command, "--state", str(tmp_path / "none"))
        assert refused.returncode == ExitCode.BAD_STATE
        assert refused.stderr.count("\n") == 1


def test_only_loopback_is_listened_on(state: Path) -> None:
    refused = run_bank("serve", "--state", str(state), "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == ExitCode.USAGE
    assert "loopback" in refused.stderr


# -- a server --------------------------------------------------------------------------------------------


# Says on stderr which files the server itself opens; its children are other programs and don't have the hook.
_WATCHED = """
import sys
sys.addaudithook(lambda event, args: event == "open" and sys.stderr.write(f"opened {args[0]}\\n"))
from paygate.bank.__main__ import main
sys.exit(main())
"""


class RunningBank:
    """A server process, and links to it as gateway GW1."""

    def __init__(self, state: Path, program: list[str]) -> None:
        self.state = state
        self._links: list[BankLink] = []
        with (state.parent / "bank.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*program, "serve", "--state", str(state), "--port", "0"], stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        line = self.process.stdout.readline().decode() if ready else ""
        match = re.fullmatch(r"paygate-bank: listening on 127\.0\.0\.1:([0-9]+)\n", line)
        self.port = int(match[1]) if match else 0

    @property
    def log(self) -> str:
        return (self.state.parent / "bank.log").read_text()

    def link(self) -> "BankLink":
        self._links.append(BankLink(self.port, find_link_key(self.state, "GW1")))
        return self._links[-1]

    def wait_until(self, text: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while text not in self.log:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        for link in self._links:
            link.sock.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(WAIT_S)


class BankLink:
    """A gateway's end of a link over a blocking socket."""

    def __init__(self, port: int, link_key: bytes | None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.link = Link(Role.GATEWAY, "GW1", Role.BANK, is_caller=True, now_ms=system_now().mono_ms, link_key=link_key)
        while not self.link.is_open:
            self._step()

    def ask(self, message: Message) -> Message:
        self.link.send_request(message)
        while True:
            for event in self._step():
                if isinstance(event, ReplyReceived):
                    return event.message

    def _step(self) -> list[object]:
        self.sock.sendall(self.link.data_to_send())
        data = self.sock.recv(65_536)
        assert data, "the bank closed the link"
        return list(self.link.receive_data(data, system_now().mono_ms))


Start = Callable[..., RunningBank]


@pytest.fixture
def start(state: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a server on the state; all are ended."""
    added = run_bank("add-gateway", "--state", str(state), "GW1", "--key-out", str(tmp_path / "gw.key"))
    assert added.returncode == 0, added.stderr
    started: list[RunningBank] = []

    def start(program: list[str] = BANK) -> RunningBank:
        started.append(RunningBank(state, program))
        assert started[-1].port, started[-1].log
        return started[-1]

    yield start
    for bank in started:
        bank.end()


@pytest.fixture
def bank(start: Start) -> RunningBank:
    return start()


def transfer(key_list: KeyList, password: str, **changes: object) -> TransferRequest:
    terms = build_terms(
        **{
            "payment_id": os.urandom(16),
            "authorised_at_ms": system_now().wall_ms,
            "transaction_id": f"TX-{os.urandom(4).hex()}",
            **changes,
        }
    )
    key = choose_suite_key(key_list)
    secret = password_key(key_list.password_key, terms.bank_id, "asha", password)
    return TransferRequest(terms, 20_000, key.key_id, seal_credentials(key, terms, "asha", secret, bytes(16)))


def pay(link: BankLink, request: TransferRequest) -> TransferResult:
    reply = link.ask(request)
    assert isinstance(reply, TransferResult)
    return reply


def check_receipt(reply: TransferResult, terms: Terms, envelope: bytes, key_list: KeyList) -> None:
    match_receipt(verify_receipt(reply.receipt, key_list), terms, envelope_hash(envelope))


def test_a_payment_from_envelope_to_records(bank: RunningBank, start: Start) -> None:
    key_list = load_key_list(bank.state)
    link = bank.link()
    keys = link.ask(BankKeysQuery("BANK1"))
    assert isinstance(keys, BankKeys)
    request = transfer(key_list, ASHA_PASSWORD)
    paid = pay(link, request)
    assert paid.outcome is TransferOutcome.POSTED
    check_receipt(paid, request.terms, request.envelope, key_list)
    assert pay(link, request) == paid
    users = bank.state / "NetbankingUsers.txt"
    deadline = time.monotonic() + WAIT_S
    # Soon after the answer, without anything else that happens, the records say it.
    while not re.search(r"^C-1001 .* 48750\.00$", users.read_text(), re.MULTILINE):
        assert time.monotonic() < deadline, users.read_text()
        time.sleep(0.02)
    assert paid.utr in (bank.state / "TransactionID.txt").read_text()
    assert pay(link, transfer(key_list, "a wrong guess")).reason is Reason.CREDENTIALS
    assert bank.end() == ExitCode.OK
    assert "drained" in bank.log
    # What was final stays so over a restart.
    assert pay(start().link(), request) == paid


@pytest.mark.pg("PG-TRF-2")
def test_a_kill_loses_nothing_that_was_answered(bank: RunningBank, start: Start) -> None:
    request = transfer(load_key_list(bank.state), ASHA_PASSWORD)
    paid = pay(bank.link(), request)
    assert bank.end(signal.SIGKILL) == -signal.SIGKILL
    assert pay(start().link(), request) == paid


def test_a_running_bank_takes_accounts_gateways_and_keys_over(bank: RunningBank, tmp_path: Path) -> None:
    added = run_bank(
        *("add-account", "--state", str(bank.state), "--customer", "C-9", "--user", "nina", "--amount", "1"),
        password=CANARY,
    )
    assert added.returncode == 0, added.stderr + bank.log
    with (bank.state / "NetbankingUsers.txt").open("a") as file:
        file.write(f"C-10 | tara | {CANARY} | 1.00\n")
    deadline = time.monotonic() + WAIT_S
    while CANARY in (bank.state / "NetbankingUsers.txt").read_text():
        assert time.monotonic() < deadline, bank.log
        time.sleep(0.02)
    old = load_key_list(bank.state)
    link = bank.link()
    assert run_bank("rotate-keys", "--state", str(bank.state)).returncode == 0
    new = load_key_list(bank.state)
    # The old key is as good as the new one; retired, it gets a definite answer (T12).
    assert pay(link, transfer(old, ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    assert pay(link, transfer(new, ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    old_ids = [key.key_id.hex() for key in old.suite_keys]
    assert run_bank("retire-keys", "--state", str(bank.state), *old_ids).returncode == 0
    assert pay(link, transfer(old, ASHA_PASSWORD)).reason is Reason.KEY_RETIRED
    assert pay(link, transfer(new, ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    bank.wait_until("key list 4 is served now")
    assert run_bank("add-gateway", "--state", str(bank.state), "GW2", "--key-out", str(tmp_path / "2")).returncode == 0
    assert find_link_key(bank.state, "GW2") is not None


def test_a_clock_that_was_wrong_by_years_is_told_and_stops_no_payment(start: Start, state: Path) -> None:
    connection = apsw.Connection(str(state / "ledger.sqlite"))
    head = read_head(connection)
    write_head(connection, head._replace(bank_time_ms=head.bank_time_ms + 10 * 365 * 86_400_000))
    connection.close()
    bank = start()
    assert pay(bank.link(), transfer(load_key_list(state), ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    assert "set it right" in bank.log


@pytest.mark.parametrize("name", ["root.key", "ledger.sqlite"])
def test_a_loose_secret_or_ledger_is_refused_at_start(state: Path, name: str) -> None:
    (state / name).chmod(0o644)
    refused = run_bank("serve", "--state", str(state), "--port", "0")
    assert refused.returncode == ExitCode.BAD_STATE
    assert f"chmod 600 {state / name}" in refused.stderr


def test_a_killed_decoder_is_replaced(bank: RunningBank) -> None:
    key_list = load_key_list(bank.state)
    link = bank.link()
    assert pay(link, transfer(key_list, ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    children = Path(f"/proc/{bank.process.pid}/task/{bank.process.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    assert pay(link, transfer(key_list, ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    assert "the decoder ended with -9" in bank.log


def test_the_process_that_faces_the_network_never_opens_the_decoders_secrets(start: Start) -> None:
    bank = start([sys.executable, "-c", _WATCHED])
    assert pay(bank.link(), transfer(load_key_list(bank.state), ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
    assert bank.end() == ExitCode.OK
    opened = [line for line in bank.log.splitlines() if line.startswith("opened ")]
    assert any(line.endswith("receipt.key") for line in opened)
    assert not [line for line in opened if "/decoder/" in line or "root.key" in line]


def test_a_second_server_on_the_same_state_is_refused(bank: RunningBank) -> None:
    second = run_bank("serve", "--state", str(bank.state), "--port", "0")
    assert second.returncode == ExitCode.STATE_IN_USE
    export = run_bank("export", "--state", str(bank.state), str(bank.state.parent / "out"))
    assert export.returncode == ExitCode.STATE_IN_USE


def test_a_port_that_is_taken_is_told(bank: RunningBank, made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", str(made), str(other)], check=True)
    refused = run_bank("serve", "--state", str(other), "--port", str(bank.port))
    assert refused.returncode == ExitCode.PORT_IN_USE
    assert "--port" in refused.stderr


def test_signals_other_than_sigterm_change_nothing(bank: RunningBank) -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM, signal.SIGPIPE):
        os.kill(bank.process.pid, number)
    assert pay(bank.link(), transfer(load_key_list(bank.state), ASHA_PASSWORD)).outcome is TransferOutcome.POSTED
