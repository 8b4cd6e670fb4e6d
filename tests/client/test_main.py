"""The program `paygate-client` as a process: its command line, its output, its signals, its terminal."""

import json
import os
import pty
import re
import shlex
import signal
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import PASSCODE, PASSWORD, TRANSACTION_ID, USER_ID, UTR, build_token_ack
from client_program import PROGRAM, Shop, run
from scripted_gateway import proven, unproven

from paygate.cli import ExitCode
from paygate.client.show import RESULT_KEYS
from paygate.codec.codes import Kind, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import Message, StatusAck
from paygate.net.signals import FAULTS

# -- without a terminal


def test_a_payment_without_a_terminal_then_list_and_verify(shop: Shop) -> None:
    done = shop.run(shop.full_command())
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout.startswith("Pay to   Bücher & Töchter (M-100)\nAmount   1250.00 INR\nOrder    TX-1001\n")
    assert UTR in done.stdout
    receipt = shop.state / "receipts" / f"{UTR}.json"
    assert str(receipt) in done.stdout
    listed = run("list", "--state", str(shop.state))
    assert listed.stdout.split()[2:5] == ["paid", "1250.00", "INR"]
    verified = run("verify", str(receipt), "--bank-root", str(shop.root), "--json")
    assert verified.returncode == ExitCode.OK
    assert json.loads(verified.stdout)["utr"] == UTR
    receipt.write_text(receipt.read_text(encoding="utf-8").replace("125000", "125001"), encoding="utf-8")
    altered = run("verify", str(receipt), "--bank-root", str(shop.root))
    assert altered.returncode == ExitCode.UNTRUSTED
    assert "amount_minor" in altered.stderr


def test_json_has_always_the_same_keys_and_no_secret(shop: Shop) -> None:
    receipt = shop.directory / "receipt.json"
    paid = shop.run(shop.full_command("--json", "--receipt", str(receipt)))
    ack = build_token_ack(status=TokenStatus.PAID, session_id=bytes(16), session_left_ms=0, utr=UTR)
    shop.server.script[Kind.TOKEN_QUERY] = lambda _: ack
    again = shop.run(shop.full_command("--json"))
    assert (paid.returncode, again.returncode) == (ExitCode.OK, ExitCode.ALREADY_PAID)
    for done in (paid, again):
        answer = json.loads(done.stdout)
        assert tuple(answer) == RESULT_KEYS
        assert answer["exit_code"] == done.returncode
        assert answer["utr"] == UTR
        for secret in (PASSCODE, PASSWORD, USER_ID):
            assert secret not in done.stdout + done.stderr
    assert json.loads(paid.stdout)["receipt_file"] == str(receipt)
    assert receipt.stat().st_mode & 0o777 == 0o600
    assert paid.stderr == ""
    assert len(again.stderr.splitlines()) == 1


def test_a_merchants_name_can_not_write_lines_of_its_own(shop: Shop) -> None:
    # The codec lets no control character through; a no-break space is legal text and shown as what it is.
    shop.server.script[Kind.TOKEN_QUERY] = lambda _: build_token_ack(merchant_name="Good\u00a0Shop")
    done = shop.run(shop.full_command())
    assert "Good\\xa0Shop" in done.stdout


@pytest.mark.parametrize("missing", ["--transaction", "--passcode-fd", "--user", "--password-fd"])
def test_what_is_missing_is_named_by_its_flag(shop: Shop, missing: str) -> None:
    command = shop.full_command()
    index = command.index(missing)
    done = shop.run(command[:index] + command[index + 2 :])
    assert done.returncode == ExitCode.USAGE
    assert f"there is no terminal to ask on: give {missing}" in done.stderr


def test_there_is_no_password_option_and_no_abbreviation() -> None:
    for option in ("--password", "--pass", "--passcode", "--bank"):
        done = run("pay", "--bank-root", "x", option, "hunter2")
        assert done.returncode == ExitCode.USAGE
        assert "unrecognized" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["pay"], "--bank-root"),
        (["pay", "--bank-root", "no-such-file"], "could not read the bank's root key"),
        (["status", "xyz"], "32 hexadecimal digits"),
        (["retry", "all"], "32 hexadecimal digits"),
        (["retry"], "PAYMENT_ID"),
        (["status", "--gateway", "foo"], "--gateway: 'foo' is not host:port"),
        (["verify", "no-such-file", "--bank-root", "no-such-file"], "root key"),
        ([], "COMMAND"),
    ],
)
def test_usage_errors_are_one_sentence(tmp_path: Path, arguments: list[str], word: str) -> None:
    options = ["--state", str(tmp_path / "state")] if arguments[:1] in (["pay"], ["status"], ["retry"]) else []
    done = run(*arguments, *options)
    assert done.returncode == ExitCode.USAGE
    assert word in done.stderr


@pytest.mark.parametrize(
    ("gateway", "word"), [("nowhere", "host:port"), ("192.0.2.1:15000", "only loopback addresses")]
)
def test_a_gateway_must_be_near(shop: Shop, gateway: str, word: str) -> None:
    done = shop.run(shop.full_command("--gateway", gateway))
    assert done.returncode == ExitCode.USAGE
    assert word in done.stderr


def test_a_password_file_must_be_private_and_may_come_from_the_environment(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop.directory / "password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    path.chmod(0o644)
    command = shop.full_command()[:-2]
    loose = shop.run([*command, "--password-file", str(path)])
    assert loose.returncode == ExitCode.BAD_STATE
    assert f"chmod 600 {path}" in loose.stderr
    assert loose.stderr.startswith("paygate-client: --password-file: ")
    monkeypatch.setenv("PAYGATE_PASSWORD_FILE", str(path))
    assert shop.run(command).stderr.startswith("paygate-client: PAYGATE_PASSWORD_FILE: ")
    path.chmod(0o600)
    assert shop.run(command).returncode == ExitCode.OK


def test_an_existing_receipt_file_is_not_overwritten(shop: Shop) -> None:
    receipt = shop.directory / "receipt.json"
    receipt.touch()
    done = shop.run(shop.full_command("--receipt", str(receipt)))
    assert done.returncode == ExitCode.USAGE
    assert receipt.read_bytes() == b""


def test_a_receipt_that_can_not_be_written_is_told_before_anything_is_sent(shop: Shop) -> None:
    receipt = shop.directory / "nowhere" / "x.json"
    done = shop.run(shop.full_command("--receipt", str(receipt)))
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == f"paygate-client: --receipt {receipt}: could not write there: No such file or directory\n"
    assert shop.server.payment is None


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_receipt_that_can_not_be_written_any_more_is_kept_in_the_state(shop: Shop, form: str) -> None:
    directory = shop.directory / "stick"
    directory.mkdir()

    def pull_out(message: Message) -> Message:
        directory.rmdir()
        return shop.server.paid(message)

    shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = pull_out
    options = ["--receipt", str(directory / "x.json"), *(["--json"] if form == "json" else [])]
    done = shop.run(shop.full_command(*options))
    assert done.returncode == ExitCode.OK, done.stderr
    kept = shop.state / "receipts" / f"{UTR}.json"
    (line,) = done.stderr.splitlines()
    assert f"could not write the receipt to {directory / 'x.json'}" in line
    assert f"it is in {kept} instead" in line
    if form == "json":
        assert json.loads(done.stdout)["receipt_file"] == str(kept)
    else:
        assert f"Receipt: {kept}\n" in done.stdout
    assert run("verify", str(kept), "--bank-root", str(shop.root)).returncode == ExitCode.OK


@pytest.mark.parametrize("command", ["list", "receipts", "status"])
def test_a_mistyped_state_directory_reassures_nobody(tmp_path: Path, command: str) -> None:
    state = tmp_path / "nope"
    done = run(command, "--state", str(state))
    assert done.returncode == ExitCode.BAD_STATE
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"there is no state directory {state}" in line
    assert not state.exists()


def test_receipts_are_those_of_the_bank_and_have_files(shop: Shop) -> None:
    elsewhere = shop.directory / "elsewhere.json"
    assert shop.run(shop.full_command("--receipt", str(elsewhere))).returncode == ExitCode.OK

    def decline(message: Message) -> Message:
        shop.server.paid(message)
        assert shop.server.payment is not None
        return proven(shop.server.payment, outcome=TransferOutcome.DECLINED, reason=Reason.FUNDS, utr="")

    def refuse(message: Message) -> Message:
        shop.server.paid(message)
        assert shop.server.payment is not None
        return unproven(shop.server.payment, PaymentStatus.REFUSED, Reason.SESSION)

    for script, code in ((decline, ExitCode.DECLINED), (refuse, ExitCode.REFUSED)):
        shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = script
        assert shop.run(shop.full_command()).returncode == code
    listed = run("list", "--state", str(shop.state), "--json").stdout.splitlines()
    assert [json.loads(line)["state"] for line in listed] == ["paid", "declined", "refused"]
    done = run("receipts", "--state", str(shop.state), "--json")
    receipts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["state"] for r in receipts] == ["paid", "declined"]
    texts = run("receipts", "--state", str(shop.state)).stdout.splitlines()
    for receipt, text in zip(receipts, texts, strict=True):
        assert text.endswith(f"  {receipt['receipt_file']}")
        verified = run("verify", receipt["receipt_file"], "--bank-root", str(shop.root), "--json")
        assert verified.returncode == ExitCode.OK, verified.stderr
        assert json.loads(verified.stdout)["payment_id"] == receipt["payment_id"]


def test_the_help_names_every_exit_code_that_the_client_has() -> None:
    text = run("pay", "--help").stdout
    for code in ExitCode:
        if code <= ExitCode.REFUSED:
            assert f"\n  {int(code):>2}  " in text, code


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ("status", {0, 1, 2, 4, 5, 8, 9, 10, 22, 70}),
        ("retry", {0, 1, 2, 4, 5, 8, 9, 10, 22, 70}),
        ("list", {0, 2, 8, 22, 70}),
        ("receipts", {0, 2, 8, 22, 70}),
        ("verify", {0, 2, 8, 9, 70}),
    ],
)
def test_a_commands_help_names_the_exit_codes_that_it_can_give(command: str, codes: set[int]) -> None:
    text = run(command, "--help").stdout
    assert {int(line.split()[0]) for line in text.splitlines() if re.match(r"  [ \d]\d  ", line)} == codes


# -- a gateway's word (T8)


def test_a_refusal_is_the_gateways_word_and_the_banks_proof_wins_later(shop: Shop) -> None:
    def lie(message: Message) -> Message:
        shop.server.paid(message)  # the bank has posted it
        assert shop.server.payment is not None
        return unproven(shop.server.payment, PaymentStatus.REFUSED, Reason.SESSION)

    shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = lie
    refused = shop.run(shop.full_command("--json"))
    assert refused.returncode == ExitCode.REFUSED
    answer = json.loads(refused.stdout)
    assert answer["money_may_have_moved"] is True
    assert answer["reason"] == "SESSION"
    assert "The gateway says that it did not forward this payment" in refused.stderr
    assert f"paygate-client status --state {shop.state} {answer['payment_id']}" in refused.stderr
    listed = run("list", "--state", str(shop.state), "--json")
    assert json.loads(listed.stdout)["money_may_have_moved"] is True

    def does_not_know(_message: Message) -> Message:
        assert shop.server.payment is not None
        return unproven(shop.server.payment, PaymentStatus.UNKNOWN, cls=StatusAck)

    shop.server.script[Kind.STATUS_QUERY] = does_not_know
    status = [*PROGRAM, "status", "--state", str(shop.state)]
    again = shop.run(status)
    assert again.returncode == ExitCode.REFUSED
    (line,) = again.stdout.splitlines()
    assert f"{answer['payment_id']}: still refused, by the gateway's word (SESSION)" in line
    assert "Ask again with" in shop.run([*status, answer["payment_id"]]).stdout
    shop.server.script[Kind.STATUS_QUERY] = shop.server.paid
    found = shop.run(status)
    assert found.returncode == ExitCode.OK, found.stdout
    assert UTR in found.stdout
    assert (shop.state / "receipts" / f"{UTR}.json").exists()


def test_the_help_claims_nothing_for_a_refusal() -> None:
    texts = {
        line.split()[0]: line for line in run("pay", "--help").stdout.splitlines() if re.match(r"  [ \d]\d  ", line)
    }
    assert "no money moved" not in texts["10"]
    assert "status" in texts["10"]


# -- signals (R10, R11)


def in_flight(shop: Shop) -> None:
    """Credentials are taken in and not answered."""

    def left_open(message: Message) -> None:
        shop.server.paid(message)

    shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = left_open


def test_sigint_is_ignored_and_sigterm_held_until_the_answer_is_out(shop: Shop) -> None:
    in_flight(shop)
    process = shop.start(shop.full_command("--json"))
    with process:
        shop.serve_until(lambda: shop.server.payment is not None)
        assert shop.server.payment is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGINT, *FAULTS):
            process.send_signal(number)
        asked = next(e for gateway in shop.server.connections.values() for e in gateway.asked)
        shop.server.reply_later(shop.server.paid(asked.message))
        shop.serve_until(lambda: process.poll() is not None)
        output, _ = process.communicate()
    assert json.loads(output)["outcome"] == "paid"
    assert -process.returncode in (signal.SIGTERM, signal.SIGHUP, *FAULTS)


def test_the_alarm_ends_a_session_after_sending_and_status_asks_again(shop: Shop) -> None:
    in_flight(shop)
    shop.server.script[Kind.TOKEN_QUERY] = lambda _: build_token_ack(session_left_ms=10_000)  # sealing must fit in
    done = shop.run(shop.full_command())
    assert done.returncode == ExitCode.OUTCOME_UNKNOWN
    assert "Money may have moved. Ask with: paygate-client status" in done.stderr
    shop.server.script[Kind.STATUS_QUERY] = shop.server.paid
    status = [*PROGRAM, "status", "--state", str(shop.state)]
    refused = shop.run([*status, "--bank-root", str(_other_root(shop))])
    assert refused.returncode == ExitCode.UNTRUSTED
    found = shop.run([*status, "--json"])
    assert found.returncode == ExitCode.OK
    assert json.loads(found.stdout)["utr"] == UTR
    assert "No payment waits" in shop.run(status).stdout


def _other_root(shop: Shop) -> Path:
    path = shop.directory / "other-root.txt"
    path.write_text(f"BANK1 {'ab' * 32}\n", encoding="ascii")
    return path


# -- on a terminal


class Customer:
    """The program on a terminal of its own, as a person has it."""

    def __init__(self, shop: Shop, *options: str) -> None:
        self._start(shop, shop.command(*options))

    @classmethod
    def under_a_shell(cls, shop: Shop, script: str) -> "Customer":
        """As from a shell with job control; `CLIENT` in the script stands for the program."""
        customer = cls.__new__(cls)
        customer._start(shop, ["/bin/sh", "-c", script.replace("CLIENT", shlex.join(shop.command()))])
        return customer

    def _start(self, shop: Shop, command: list[str]) -> None:
        self.shop = shop
        self.shown = ""
        # Our own descriptor of its end outlives the process, so the mode can be looked at afterwards.
        self.leader, self.fd = pty.openpty()
        self.mode = termios.tcgetattr(self.fd)
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(os.dup(self.fd))
            os.execv(command[0], command)
        os.set_blocking(self.leader, False)
        self.returncode: int | None = None

    def sees(self, text: str) -> None:
        """Serve the gateway until the text is shown."""
        self.shop.serve_until(lambda: text in self._look())

    def types(self, text: str) -> None:
        os.write(self.leader, text.encode())

    def ends(self) -> int:
        """The exit code, or minus the signal."""
        self.shop.serve_until(self._has_ended)
        assert self.returncode is not None
        return self.returncode

    def has_terminal_back(self) -> bool:
        return termios.tcgetattr(self.fd) == self.mode

    def _has_ended(self) -> bool:
        self._look()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
            self._look()
        return bool(pid)

    def _look(self) -> str:
        try:
            while data := os.read(self.leader, 4096):
                self.shown += data.decode(errors="replace")
        except OSError:
            pass  # nothing now, or nobody has the terminal open any more
        return self.shown

    def leave(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        os.close(self.leader)


@pytest.fixture
def customer(shop: Shop) -> Iterator[Customer]:
    customer = Customer(shop)
    yield customer
    customer.leave()


def reach_password(customer: Customer) -> None:
    customer.sees("Transaction ID: ")
    customer.types(f"{TRANSACTION_ID}\n")
    customer.sees("Passcode: ")
    customer.types(f"{PASSCODE}\n")
    customer.sees("User ID: ")
    customer.types(f"{USER_ID}\n")
    customer.sees("Password: ")


def test_a_person_pays(customer: Customer) -> None:
    reach_password(customer)
    assert "Amount   1250.00 INR" in customer.shown
    assert customer.shown.index("Amount") < customer.shown.index("User ID: ")
    assert "s] User ID: asha" in customer.shown
    customer.types(f"{PASSWORD}\n")
    assert customer.ends() == ExitCode.OK, customer.shown
    assert UTR in customer.shown
    for secret in (PASSWORD, PASSCODE):
        assert secret not in customer.shown
    assert customer.has_terminal_back()


def test_a_transaction_id_that_is_none_is_told_before_a_passcode_is_asked_for(customer: Customer) -> None:
    customer.sees("Transaction ID: ")
    customer.types("no blanks\n")
    assert customer.ends() == ExitCode.USAGE
    assert "transaction ID: expected" in customer.shown
    assert "Passcode" not in customer.shown
    assert customer.has_terminal_back()


def test_the_countdown_runs_while_a_person_types(shop: Shop, customer: Customer) -> None:
    reach_password(customer)
    customer.types("half")
    shop.serve_until(lambda: len(set(re.findall(r"\[\d\d s\] Password: ", customer._look()))) >= 3)
    assert "half" not in customer.shown
    customer.types("\x03")
    assert customer.ends() == ExitCode.CANCELLED
    assert "Cancelled. Nothing was sent" in customer.shown
    assert customer.has_terminal_back()


def test_the_alarm_rings_while_a_person_types(shop: Shop, customer: Customer) -> None:
    shop.server.script[Kind.TOKEN_QUERY] = lambda _: build_token_ack(session_left_ms=5_000)
    customer.sees("Transaction ID: ")
    customer.types(f"{TRANSACTION_ID}\n{PASSCODE}\n")
    customer.sees("User ID: ")
    customer.types("half a us")
    assert customer.ends() == ExitCode.SESSION_TIMED_OUT, customer.shown
    assert "no money has moved" in customer.shown
    assert customer.has_terminal_back()


@pytest.mark.parametrize("keys", ["\x04", "\n"])
def test_giving_no_password_cancels(customer: Customer, keys: str) -> None:
    reach_password(customer)
    customer.types(keys)
    assert customer.ends() == ExitCode.CANCELLED
    assert customer.has_terminal_back()


def test_a_signal_that_ends_us_leaves_the_terminal_as_it_was(customer: Customer) -> None:
    reach_password(customer)
    os.kill(customer.pid, signal.SIGTERM)
    assert customer.ends() == -signal.SIGTERM
    assert customer.has_terminal_back()


def test_a_suspended_program_gives_the_terminal_back_and_takes_it_again(shop: Shop) -> None:
    before, meanwhile = shop.directory / "before", shop.directory / "meanwhile"
    script = f"set -m; stty -g > {before}; CLIENT; stty -g > {meanwhile}; echo stopped; fg; exit $?"
    customer = Customer.under_a_shell(shop, script)
    reach_password(customer)
    customer.types("\x1a")
    customer.sees("stopped")
    assert meanwhile.read_bytes() == before.read_bytes() != b""
    shown_size = len(customer.shown)
    shop.serve_until(lambda: "Password: " in customer._look()[shown_size:])
    customer.types(f"{PASSWORD}\n")
    assert customer.ends() == ExitCode.OK, customer.shown
    assert PASSWORD not in customer.shown
    customer.leave()


def test_a_gateway_that_goes_away_while_a_person_types_is_told(shop: Shop, customer: Customer) -> None:
    reach_password(customer)
    shop.server.cut()
    assert customer.ends() == ExitCode.NO_CONNECTION
    assert "Nothing was sent" in customer.shown
    assert customer.has_terminal_back()


def test_when_all_is_given_a_person_is_still_asked_whether_to_pay(shop: Shop) -> None:
    path = shop.directory / "password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    path.chmod(0o600)
    given = ["--transaction", TRANSACTION_ID, "--user", USER_ID, "--password-file", str(path)]
    for options, answer, code in (
        ([], "n\n", ExitCode.CANCELLED),
        ([], "y\n", ExitCode.OK),
        (["--yes"], "", ExitCode.OK),
    ):
        customer = Customer(shop, *given, *options)
        customer.sees("Passcode: ")
        customer.types(f"{PASSCODE}\n")
        if answer:
            customer.sees("Pay this? [y/N] ")
            customer.types(answer)
        assert customer.ends() == code, customer.shown
        assert ("Pay this?" in customer.shown) is bool(answer)
        customer.leave()
