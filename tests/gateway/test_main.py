"""`paygate-gateway` as people meet it: real processes, real files, real signals."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import (
    BANK_ID,
    FIXED_ENVELOPE,
    GATEWAY_ID,
    LINK_KEY,
    PASSCODE,
    TRANSACTION_ID,
    UTR,
    build_receipt,
    build_signed_key_list,
)
from gateway.programs import BankEnd, Caller, Serving, make_state, mode_of, run_gateway, wait_until
from gateway.world import payment_id

from paygate.cli import ExitCode, PaygateExit
from paygate.clock import system_now
from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    Message,
    PaymentAck,
    TokenAck,
    TokenQuery,
    TransferResult,
)
from paygate.gateway.server import take_in_now

CANARY = "hunter2-canary"
LINE = f"{TRANSACTION_ID} | {PASSCODE} | unpaid | 1250.00 | M-100 | INR\n"
Serve = Callable[..., Serving]
Connect = Callable[[tuple[str, int]], Caller]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make_state(tmp_path)


@pytest.fixture
def serve(state: Path) -> Iterator[Serve]:
    """Starts a gateway with further arguments; the default is any port, and no hurry about the bank."""
    started: list[Serving] = []

    def serve(*arguments: object) -> Serving:
        started.append(Serving(state, *(arguments or ("--port", 0, "--bank", "127.0.0.1:1", "--bank-wait", "forever"))))
        return started[-1]

    yield serve
    for serving in started:
        serving.kill()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects clients; all of them are closed at the end."""
    callers: list[Caller] = []

    def connect(address: tuple[str, int]) -> Caller:
        callers.append(Caller(address))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.close()


@pytest.fixture
def bank() -> Iterator[BankEnd]:
    bank = BankEnd()
    yield bank
    bank.close()


def serve_with_bank(serve: Serve, bank: BankEnd, *arguments: object) -> Serving:
    serving = serve("--port", 0, "--bank", f"127.0.0.1:{bank.port}", *arguments)
    bank.accept()
    serving.wait_for_address()
    return serving


def one_line(result: tuple[int, str], code: ExitCode, *words: str) -> None:
    """The exit code, and words of the last line on stderr, with no traceback before it."""
    assert result[0] == code, result[1]
    last = result[1].splitlines()[-1]
    assert last.startswith("paygate-gateway: ")
    for word in words:
        assert word in last
    assert "Traceback" not in result[1]


def refused(arguments: tuple[object, ...], code: ExitCode, *words: str) -> None:
    done = run_gateway(*arguments)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    one_line((done.returncode, done.stderr), code, *words)


# -- init ------------------------------------------------------------------------------------------------


def test_init_makes_a_private_directory(state: Path) -> None:
    assert mode_of(state) == 0o700
    assert {mode_of(path) for path in state.iterdir()} == {0o600}
    assert json.loads((state / "gateway.json").read_text()) == {"gateway_id": GATEWAY_ID, "bank_id": BANK_ID}
    assert (state / "link.key").read_text() == LINK_KEY.hex() + "\n"


def test_init_does_not_overwrite_a_gateway(state: Path) -> None:
    before = {path.name: path.read_bytes() for path in state.iterdir() if path.name != "lock"}
    key = state.parent / "gw.link-key"
    again = ("init", "--state", state, "--gateway-id", "OTHER", "--bank-id", BANK_ID, "--link-key", key)
    refused(again, ExitCode.BAD_STATE, "exists")
    assert {path.name: path.read_bytes() for path in state.iterdir() if path.name != "lock"} == before


@pytest.mark.parametrize("point", ["gateway.init.secret.before", "gateway.init.secret.after"])
def test_a_killed_init_leaves_no_gateway_and_can_be_run_again(tmp_path: Path, point: str) -> None:
    make_state(tmp_path)
    data, state = tmp_path / "data", tmp_path / "second"
    data.mkdir()
    (data / "PaymentTokensData.txt").write_text(LINE)
    init = ["init", "--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", str(tmp_path / "gw.link-key")]
    init += ["--state", str(state), "--from", str(data)]
    command = [sys.executable, "-m", "crash.launch", "gateway", "--die-at", point, "--", *init]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (state / "gateway.json").exists()
    done = run_gateway(*init)
    assert (done.returncode, done.stderr) == (0, "")
    assert TRANSACTION_ID in run_gateway("list", "--state", state).stdout


def test_init_copies_a_folders_tokens(tmp_path: Path) -> None:
    make_state(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "PaymentTokensData.txt").write_text("# demo\n" + LINE)
    init = ("init", "--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", tmp_path / "gw.link-key")
    done = run_gateway(*init, "--state", tmp_path / "second", "--from", data)
    assert done.returncode == 0, done.stderr
    assert mode_of(tmp_path / "second" / "PaymentTokensData.txt") == 0o600
    assert TRANSACTION_ID in run_gateway("list", "--state", tmp_path / "second").stdout


@pytest.mark.parametrize(
    ("key", "mode", "words"),
    [
        (LINK_KEY.hex(), 0o644, "chmod 600"),
        ("hunter2", 0o600, "64 hexadecimal digits"),
        (LINK_KEY.hex()[:-2], 0o600, "64 hexadecimal digits"),
        (None, 0, "No such file"),
    ],
)
def test_init_refuses_a_bad_link_key_and_leaves_nothing(tmp_path: Path, key: str | None, mode: int, words: str) -> None:
    path = tmp_path / "key"
    if key is not None:
        path.write_text(key)
        path.chmod(mode)
    init = ("init", "--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", path, "--state", tmp_path / "s")
    refused(init, ExitCode.BAD_STATE, words)
    assert not (tmp_path / "s").exists()


def test_init_with_a_folder_that_is_not_there_leaves_nothing(state: Path, tmp_path: Path) -> None:
    init = ("init", "--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", tmp_path / "gw.link-key")
    refused((*init, "--state", tmp_path / "s", "--from", tmp_path / "none"), ExitCode.BAD_STATE, "none")
    assert not (tmp_path / "s").exists()


# -- issue, list, cancel, without a server ---------------------------------------------------------------


def issue(state: Path, *arguments: object) -> tuple[object, ...]:
    return ("issue", "--state", state, "--transaction", TRANSACTION_ID, "--amount", "1250.00", *arguments)


def test_a_token_from_issue_to_cancel(state: Path) -> None:
    issued = run_gateway(*issue(state, "--merchant", "M-100", "--merchant-name", "Books", "--expires", "2030-01-01"))
    assert (issued.returncode, issued.stderr) == (0, "")
    passcode = issued.stdout.split()[-1]
    assert (len(passcode), passcode.isdigit()) == (8, True)

    hidden = run_gateway("list", "--state", state).stdout
    assert passcode not in hidden
    assert hidden.startswith(f"{TRANSACTION_ID}  (hidden)  unpaid  1250.00  INR  M-100")
    shown = json.loads(run_gateway("list", "--state", state, "--json", "--show-passcodes").stdout)
    assert shown == {
        "transaction_id": TRANSACTION_ID,
        "passcode": passcode,
        "state": "unpaid",
        "amount": "1250.00",
        "currency": "INR",
        "merchant_id": "M-100",
        "merchant_name": "Books",
        "utr": None,
        "expires": "2030-01-01T00:00:00.000Z",
    }
    refused(issue(state, "--merchant", "M-100"), ExitCode.USAGE, "a token for transaction TX-1001 already")

    cancelled = run_gateway("cancel", TRANSACTION_ID, "--state", state)
    assert (cancelled.returncode, cancelled.stderr) == (0, "")
    assert json.loads(run_gateway("list", "--state", state, "--json").stdout)["state"] == "cancelled"
    refused(("cancel", TRANSACTION_ID, "--state", state), ExitCode.TOKEN_REFUSED, "is cancelled")
    refused(("cancel", "TX-none", "--state", state), ExitCode.USAGE, "no token")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--merchant", "M-100", "--amount", "0"), "--amount: expected"),
        (("--merchant", "M-100", "--amount", "1.234"), "--amount: expected"),
        (("--merchant", "M 100"), "--merchant: expected"),
        (("--merchant", "M-100", "--currency", "rupees"), "--currency: expected"),
        (("--merchant", "M-100", "--expires", "soon"), "--expires: expected"),
        (("--merchant", "M-100", "--expires", "2020-01-01"), "--expires: 2020-01-01T00:00:00.000Z is over"),
        (("--merchant", "M-100", "--passcode", f"{CANARY} x"), "--passcode: expected"),
        (("--merchant", "M-100", "--merchant-name", "two\nlines"), "--merchant-name: expected"),
    ],
)
def test_issue_says_what_is_wrong(state: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run_gateway(*issue(state, *arguments))
    one_line((done.returncode, done.stderr), ExitCode.USAGE, words)
    assert CANARY not in done.stdout + done.stderr
    assert run_gateway("list", "--state", state).stdout == ""


@pytest.mark.parametrize("command", [("list",), ("cancel", "TX-1"), ("serve", "--port", 0)])
def test_a_missing_state_is_named(tmp_path: Path, command: tuple[object, ...]) -> None:
    refused((*command, "--state", tmp_path / "none"), ExitCode.BAD_STATE, str(tmp_path / "none"))


def test_a_line_without_its_end_is_not_added_to(state: Path) -> None:
    with (state / "PaymentTokensData.txt").open("a") as file:
        file.write(LINE.rstrip())
    refused(
        ("issue", "--state", state, "--transaction", "TX-2", "--amount", "1", "--merchant", "M-1"),
        ExitCode.BAD_STATE,
        "its last line has no end",
    )


# -- serve: what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("serve", "--port", "65536"),
        ("serve", "--port", "-1"),
        ("serve", "--bank", "nowhere"),
        ("serve", "--bank-wait", "soon"),
        ("serve", "--session-seconds", "2"),
        ("serve", "--session-seconds", "31"),
        ("init", "--gateway-id", "a b", "--bank-id", "B", "--link-key", "k"),
        ("issue",),
        ("list", "--show"),
        ("nonsense",),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...]) -> None:
    done = run_gateway(*arguments)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "usage: paygate-gateway" in done.stderr


def test_no_address_but_loopback(state: Path) -> None:
    serve = ("serve", "--state", state, "--port", 0)
    refused((*serve, "--host", "0.0.0.0"), ExitCode.USAGE, "will not listen on 0.0.0.0")
    refused((*serve, "--bank", "192.0.2.1:15001"), ExitCode.USAGE, "will not connect to a bank at 192.0.2.1")


def test_a_port_in_use(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(("serve", "--state", state, "--port", port), ExitCode.PORT_IN_USE, str(port), "--port")


def test_a_state_in_use(serve: Serve, state: Path) -> None:
    first = serve()
    first.wait_for_address()
    refused(("serve", "--state", state, "--port", 0), ExitCode.STATE_IN_USE, f"process {first.process.pid} uses")


@pytest.mark.parametrize(("name", "mode"), [(".", 0o755), ("link.key", 0o640)])
def test_loose_modes_are_refused_with_the_command_that_mends_them(state: Path, name: str, mode: int) -> None:
    (state / name).chmod(mode)
    mend = f"chmod {0o700 if name == '.' else 0o600:o}"
    refused(("serve", "--state", state, "--port", 0), ExitCode.BAD_STATE, mend)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"gateway_id": 1, "bank_id": "B"}', '{"gateway_id": "a b", "bank_id": "B"}']
)
def test_damaged_settings_are_named(state: Path, text: str) -> None:
    (state / "gateway.json").write_text(text)
    refused(("serve", "--state", state, "--port", 0), ExitCode.BAD_STATE, "gateway.json")


def test_a_directory_that_is_no_gateways_state(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    refused(("serve", "--state", tmp_path, "--port", 0), ExitCode.BAD_STATE, "paygate-gateway init")


@pytest.mark.parametrize("name", ["PaymentTokensData.txt", "GatewayTransaction.txt", "LogFiles.txt"])
def test_a_record_that_is_no_file_is_named(state: Path, name: str) -> None:
    (state / name).unlink(missing_ok=True)
    (state / name).mkdir()
    words = (f"could not use {state / name}: Is a directory; move it away",)
    refused(("serve", "--state", state, "--port", 0), ExitCode.BAD_STATE, *words)
    if name == "PaymentTokensData.txt":
        refused(("list", "--state", state), ExitCode.BAD_STATE, *words)
        refused(("cancel", "TX-1", "--state", state), ExitCode.BAD_STATE, *words)


def test_a_full_disk_at_the_start_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # One is built anew, since its header is not ours; the other is made.
    (state / "PaymentTokensData.txt").write_text("# a header of another version\n")
    for place, name in (("durable", "PaymentTokensData.txt"), ("append_file", "GatewayTransaction.txt")):
        (state / "GatewayTransaction.txt").unlink(missing_ok=True)
        with monkeypatch.context() as full:
            full.setattr(f"paygate.files.{place}.write_all", no_room)
            with pytest.raises(PaygateExit) as caught:
                take_in_now(state)
        assert caught.value.code is ExitCode.STORE_FAILED
        assert str(caught.value) == f"no room on the disk for {state / name}; free some"


@pytest.mark.parametrize("is_held_open", [True, False])
@pytest.mark.parametrize("end", ["port", "bank", "kill"])
def test_a_last_line_without_its_end_outlives_a_short_run(
    state: Path, serve: Serve, end: str, *, is_held_open: bool
) -> None:
    path = state / "PaymentTokensData.txt"
    last = LINE.rstrip()
    with path.open("a") as writer, socket.create_server(("127.0.0.1", 0)) as taken:
        writer.write(last)
        writer.flush()
        if not is_held_open:
            writer.close()
        if end == "port":
            assert serve("--port", taken.getsockname()[1]).end()[0] == ExitCode.PORT_IN_USE
        elif end == "bank":
            assert serve("--port", 0, "--bank", "127.0.0.1:1", "--bank-wait", 1).end()[0] == ExitCode.NO_BANK
        else:
            serving = serve()
            serving.wait_for_address()
            serving.kill()
        text = path.read_text()
        if is_held_open:
            # It may be half a line, and stays where its writer goes on with it.
            assert text.endswith(f"\n{last}")
        else:
            assert TRANSACTION_ID in run_gateway("list", "--state", state).stdout
            assert last not in text


def test_no_bank(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    serving = serve("--port", 0, "--bank", f"127.0.0.1:{port}", "--bank-wait", 1)
    one_line(serving.end(), ExitCode.NO_BANK, f"127.0.0.1:{port}", "connection refused", "start the bank")


def test_a_bank_that_accepts_and_says_nothing_is_no_bank(serve: Serve, bank: BankEnd) -> None:
    serving = serve("--port", 0, "--bank", f"127.0.0.1:{bank.port}", "--bank-wait", 1)
    one_line(serving.end(), ExitCode.NO_BANK, "no answer yet")


# -- serve: at work --------------------------------------------------------------------------------------


def query(caller: Caller) -> TokenAck:
    ack = caller.ask(TokenQuery(TRANSACTION_ID, PASSCODE))
    assert isinstance(ack, TokenAck)
    return ack


def add_line(state: Path) -> None:
    with (state / "PaymentTokensData.txt").open("a") as file:
        file.write(LINE)


def start_payment(caller: Caller, bank: BankEnd) -> tuple[int, int, TransferResult]:
    """A payment on its way to the bank: the client's question, the bank's, and the answer it has for it."""
    session = query(caller).session_id
    credentials = EncryptedCredentials(
        session, payment_id("first"), system_now().wall_ms, bytes(range(8)), FIXED_ENVELOPE
    )
    question = caller.send(credentials)
    correlation_id, transfer = bank.wait_for_transfer()
    result = TransferResult(transfer.terms.payment_id, TransferOutcome.POSTED, Reason.NONE, UTR, build_receipt())
    return question, correlation_id, result


def test_a_line_that_a_merchant_adds_is_taken_in_while_the_gateway_runs(
    serve: Serve, state: Path, connect: Connect
) -> None:
    caller = connect(serve().wait_for_address())
    assert query(caller).status is TokenStatus.INVALID
    add_line(state)
    wait_until(lambda: LINE not in (state / "PaymentTokensData.txt").read_text(), "line taken in")
    assert query(caller).status is TokenStatus.VALID


def test_issue_and_cancel_beside_a_running_gateway(serve: Serve, state: Path, connect: Connect) -> None:
    caller = connect(serve().wait_for_address())
    done = run_gateway(*issue(state, "--merchant", "M-100", "--passcode", PASSCODE))
    assert (done.returncode, done.stderr) == (0, "")
    assert query(caller).status is TokenStatus.VALID
    assert run_gateway("cancel", TRANSACTION_ID, "--state", state).returncode == 0
    assert query(caller).status is TokenStatus.EXPIRED


def test_a_payment_and_its_records(serve: Serve, state: Path, bank: BankEnd, connect: Connect) -> None:
    add_line(state)
    serving = serve_with_bank(serve, bank)
    caller = connect(serving.address)
    keys = caller.ask(BankKeysQuery(BANK_ID))
    assert isinstance(keys, BankKeys)
    assert keys.signed_key_list == build_signed_key_list()
    question, correlation_id, result = start_payment(caller, bank)
    bank.reply(correlation_id, result)
    ack = caller.wait_for(question)
    assert ack == PaymentAck(payment_id("first"), PaymentStatus.PAID, Reason.NONE, UTR, build_receipt())
    # Soon after the answer, without anything else that happens, the records say it.
    wait_until(lambda: UTR in (state / "PaymentTokensData.txt").read_text(), "UTR of the token")
    assert payment_id("first").hex() in (state / "GatewayTransaction.txt").read_text()
    bank.close()
    caller.close()
    wait_until(lambda: "end of stream" in (state / "LogFiles.txt").read_text(), "disconnection in the log")
    code, err = serving.terminate()
    assert code == ExitCode.OK, err
    log = (state / "LogFiles.txt").read_text()
    assert log.count("| connected") == log.count("| disconnected") == 1
    for path in state.iterdir():
        assert FIXED_ENVELOPE not in path.read_bytes()  # R4


# -- serve: signals (R12, T28) ---------------------------------------------------------------------------


def test_sigterm_ends_an_idle_gateway(serve: Serve, state: Path, connect: Connect) -> None:
    serving = serve()
    caller = connect(serving.wait_for_address())
    serving.process.send_signal(signal.SIGTERM)
    caller.wait_for_close()
    code, err = serving.end()
    assert code == ExitCode.OK
    assert err.splitlines()[-1].endswith("paygate-gateway: drained")
    log = (state / "LogFiles.txt").read_text()
    assert "shutting down" in log.splitlines()[-1]


def test_sigterm_waits_for_the_payment_in_flight(serve: Serve, state: Path, bank: BankEnd, connect: Connect) -> None:
    add_line(state)
    serving = serve_with_bank(serve, bank)
    caller = connect(serving.address)
    question, correlation_id, result = start_payment(caller, bank)
    serving.process.send_signal(signal.SIGTERM)
    wait_until(lambda: is_refused(serving.address), "end of listening")
    bank.reply(correlation_id, result)
    ack: Message = caller.wait_for(question)
    assert isinstance(ack, PaymentAck)
    assert ack.status is PaymentStatus.PAID
    caller.wait_for_close()
    bank.close()
    assert serving.end()[0] == ExitCode.OK


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it stood in the queue of the listener that was just being closed
    return False


def test_every_other_signal_is_ignored(serve: Serve, connect: Connect) -> None:
    serving = serve()
    caller = connect(serving.wait_for_address())
    sent = signal.valid_signals() - {signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP}
    for number in sorted(sent):
        serving.process.send_signal(number)
    assert query(caller).status is TokenStatus.INVALID
    caller.close()
    assert serving.terminate()[0] == ExitCode.OK


def test_sigterm_can_be_ignored_too(serve: Serve, connect: Connect) -> None:
    serving = serve("--port", 0, "--bank", "127.0.0.1:1", "--bank-wait", "forever", "--ignore-sigterm")
    caller = connect(serving.wait_for_address())
    for _ in range(3):
        serving.process.send_signal(signal.SIGTERM)
    assert query(caller).status is TokenStatus.INVALID
    serving.process.kill()
    assert serving.end()[0] == -signal.SIGKILL


# -- serve: a bank that comes and goes -------------------------------------------------------------------


def test_a_wrong_link_key_is_told_once_with_what_mends_it(serve: Serve, bank: BankEnd) -> None:
    serving = serve("--port", 0, "--bank", f"127.0.0.1:{bank.port}", "--bank-wait", 8)
    for _ in range(3):  # at any of its attempts
        bank.turn_away()
    code, err = serving.end()
    one_line((code, err), ExitCode.NO_BANK, "bad_mac", "link.key", "paygate-bank add-gateway")
    assert err.count("no link to bank BANK1: peer says: bad_mac") == 1


def test_a_bank_that_goes_after_it_was_there_does_not_end_the_gateway(
    serve: Serve, bank: BankEnd, connect: Connect
) -> None:
    serving = serve_with_bank(serve, bank, "--bank-wait", 5)
    caller = connect(serving.address)
    # Away at the moment when the wait for the first link would have ended, and back some time later.
    bank.cut()
    bank.listener.close()
    started_ms = system_now().mono_ms
    wait_until(lambda: system_now().mono_ms >= started_ms + 5_300, "time")
    assert query(caller).status is TokenStatus.INVALID
    caller.close()
    assert serving.terminate()[0] == ExitCode.OK


def test_a_killed_gateway_leaves_its_log_to_the_next_one(serve: Serve, state: Path, connect: Connect) -> None:
    first = serve()
    connect(first.wait_for_address())
    log = state / "LogFiles.txt"
    wait_until(lambda: "| connected" in log.read_text(), "connection in the log")
    first.process.kill()
    first.end()
    second = serve()
    second.wait_for_address()
    assert "the gateway ended without closing it" in log.read_text()
    assert second.terminate()[0] == ExitCode.OK
