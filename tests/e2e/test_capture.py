"""`--capture` of the three programs: what tshark finds in it, what is not in it, and what can't harm it."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from e2e.relay import Relay
from local_system import LocalSystem, program, start_client, wait_until
from spec.capture import dissected
from spec.dissectors import tshark

from paygate.cli import ExitCode
from paygate.client.client import PaygateClient
from paygate.client.payment import Outcome
from paygate.codec.codes import Kind
from paygate.net.capture import CaptureFile

ASHA = ("asha", "correct horse battery")
CANARY_USER = "canary-user-71d3aa"
CANARY_PASSWORD = "canary-password-0be55d"  # made up for this test
PROGRAMS = ("bank", "gateway", "client")
# One payment, in the order in which its frames pass.
BANK_LINK_OPENS = [Kind.HELLO, Kind.HELLO_ACK, Kind.BANK_KEYS_QUERY, Kind.BANK_KEYS]
CLIENT_ASKS = [
    *(Kind.HELLO, Kind.HELLO_ACK),
    *(Kind.BANK_KEYS_QUERY, Kind.TOKEN_QUERY, Kind.BANK_KEYS, Kind.TOKEN_ACK),
    Kind.ENCRYPTED_CREDENTIALS,
]
BANK_PAYS = [Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT]
CLIENT_HEARS = [Kind.PAYMENT_ACK]
KINDS = {
    "bank": BANK_LINK_OPENS + BANK_PAYS,
    "gateway": BANK_LINK_OPENS + CLIENT_ASKS + BANK_PAYS + CLIENT_HEARS,
    "client": CLIENT_ASKS + CLIENT_HEARS,
}


def capture_of(system: LocalSystem, name: str) -> Path:
    return system.root / f"{name}.pcapng"


def with_captures(system: LocalSystem) -> LocalSystem:
    """Have both servers capture."""
    system.bank_options = ["--capture", str(capture_of(system, "bank"))]
    system.gateway_options = ["--capture", str(capture_of(system, "gateway"))]
    return system


def streams_of(path: Path) -> list[list[tuple[bool, bytes]]]:
    """The bytes of each connection as tshark follows them, in turns: whether the answerer sends, and what."""
    numbers = set(tshark("-r", path, "-T", "fields", "-e", "tcp.stream").split())
    found = []
    for number in range(len(numbers)):
        printed = tshark("-r", path, "-q", "-z", f"follow,tcp,raw,{number}")
        lines = re.findall(r"^(\t?)([0-9a-f]+)$", printed, re.MULTILINE)
        found.append([(bool(tab), bytes.fromhex(text)) for tab, text in lines])
    return found


def joined(stream: list[tuple[bool, bytes]], *, of_answerer: bool) -> bytes:
    return b"".join(data for is_answerer, data in stream if is_answerer == of_answerer)


def kinds_of(path: Path) -> list[Kind]:
    """The kinds of all frames that the dissector finds, in order; it must find no fault in any."""
    frames = dissected(tshark("-r", path, "-T", "json", "-J", "paygate"))
    assert [fault for frame in frames for fault in frame.faults] == []
    return [Kind(int(frame.value("paygate.header.kind"), 16)) for frame in frames]


def without_link_tests(path: Path) -> list[Kind]:
    """The same without the Echoes of a link that nothing passes for a while, as on a slow machine."""
    return [kind for kind in kinds_of(path) if kind not in (Kind.ECHO, Kind.ECHO_REPLY)]


def check_packets(path: Path) -> None:
    """tshark checks every checksum and sequence number, and has nothing to complain of."""
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    bad = "!(tcp.checksum.status == 1) || (ip && !(ip.checksum.status == 1)) || _ws.expert.severity >= 0x600000"
    assert tshark("-r", path, *checks, "-Y", bad) == ""
    assert tshark("-r", path, *checks, "-Y", "tcp.analysis.flags") == ""


# -- what it holds ---------------------------------------------------------------------------------------


def test_each_program_captures_the_payment_and_all_three_agree(stopped_system: LocalSystem) -> None:
    system = with_captures(stopped_system)
    bank = system.start_bank()
    bank_wire = Relay(bank.port)
    gateway = system.start_gateway(bank_port=bank_wire.port)
    client_wire = Relay(gateway.port)
    gateway.address = f"127.0.0.1:{client_wire.port}"
    run = system.pay("TX-1001", "4711", *ASHA, "--capture", str(capture_of(system, "client")))
    assert run.exit_code == ExitCode.OK, run.errors
    assert (gateway.end(), bank.end()) == (0, 0)
    client_wire.close()
    bank_wire.close()

    for name in PROGRAMS:
        path = capture_of(system, name)
        check_packets(path)
        assert path.stat().st_mode & 0o7777 == 0o600
    (by_client,) = streams_of(capture_of(system, "client"))
    (by_bank,) = streams_of(capture_of(system, "bank"))
    to_bank, from_client = streams_of(capture_of(system, "gateway"))
    for of_answerer in (False, True):
        assert joined(by_client, of_answerer=of_answerer) == joined(from_client, of_answerer=of_answerer)
        assert joined(by_bank, of_answerer=of_answerer) == joined(to_bank, of_answerer=of_answerer)
    # Peers take turns, so that the order of the bytes is one at every place that they pass.
    assert b"".join(data for _, data in by_client) == client_wire.seen
    assert b"".join(data for _, data in by_bank) == bank_wire.seen

    assert {name: kinds_of(capture_of(system, name)) for name in PROGRAMS} == KINDS

    for name in PROGRAMS:
        lines = dumped("--json", str(capture_of(system, name)))
        told = [json.loads(line) for line in lines]
        assert [line["kind_code"] for line in told if line["type"] == "frame"] == KINDS[name]
        assert told[-1]["counts"] == {
            "frames": len(KINDS[name]),
            "findings": 0,
            "connections": len(told) - len(KINDS[name]) - 1,
        }
    # The gateway's capture alone tells a payment from end to end.
    utr = run.answer["utr"]
    told = [json.loads(line) for line in dumped("--json", "--follow", utr, str(capture_of(system, "gateway")))]
    story = [line["kind_code"] for line in told if line["type"] == "frame"]
    assert story[-4:] == [Kind.ENCRYPTED_CREDENTIALS, *BANK_PAYS, *CLIENT_HEARS]


def dumped(*arguments: str) -> list[str]:
    """The lines that paygate-dump prints."""
    command = [*program("dump"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_capture_under_way_is_read_frame_by_frame(stopped_system: LocalSystem) -> None:
    system = with_captures(stopped_system)
    system.start_bank()
    system.start_gateway()
    with (
        subprocess.Popen(["tail", "-c", "+1", "-f", capture_of(system, "gateway")], stdout=subprocess.PIPE) as tail,
        subprocess.Popen([*program("dump"), "--json", "-"], stdin=tail.stdout, stdout=subprocess.PIPE) as dump,
    ):
        assert dump.stdout is not None
        # What is not told in time is not waited for: without its input the dump ends.
        guard = threading.Timer(60, tail.kill)
        guard.start()
        try:
            run = system.pay("TX-1001", "4711", *ASHA)
            assert run.exit_code == ExitCode.OK, run.errors
            kinds = []
            for line in dump.stdout:
                kinds.append(json.loads(line).get("kind_code"))
                if kinds[-1] == Kind.PAYMENT_ACK:
                    break
        finally:
            guard.cancel()
            tail.kill()
            dump.kill()
    assert [kind for kind in kinds if kind is not None] == KINDS["gateway"]


def test_status_is_captured_too(system: LocalSystem) -> None:
    assert system.bank is not None
    system.bank.popen.send_signal(signal.SIGSTOP)
    # A client that is killed before it has its answer has something to ask about.
    client = start_client(system, "TX-1001", "4711", *ASHA)
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    client.kill()
    client.communicate()
    system.bank.popen.send_signal(signal.SIGCONT)
    wait_until(lambda: attempts(system) == ["paid"], "the payment to be paid")
    run = system.status("--capture", str(capture_of(system, "client")))
    assert run.exit_code == ExitCode.OK, run.errors
    check_packets(capture_of(system, "client"))
    kinds = kinds_of(capture_of(system, "client"))
    assert kinds[:2] == [Kind.HELLO, Kind.HELLO_ACK]
    assert kinds[-2:] == [Kind.STATUS_QUERY, Kind.STATUS_ACK]


def attempts(system: LocalSystem) -> list[str]:
    return [row[6] for row in system.record("gateway", "GatewayTransaction.txt")]


def test_no_capture_shows_credentials_and_each_warns_of_what_it_shows(stopped_system: LocalSystem) -> None:
    """Sockets are captured and pipes are not: those to the encoder and the decoder carry passwords."""
    system = with_captures(stopped_system)
    with (system.root / "bank" / "NetbankingUsers.txt").open("a", encoding="utf-8") as file:
        file.write(f"C-CANARY | {CANARY_USER} | {CANARY_PASSWORD} | 5000.00\n")
    bank, gateway = system.start_bank(), system.start_gateway()
    run = system.pay("TX-1001", "4711", CANARY_USER, CANARY_PASSWORD, "--capture", str(capture_of(system, "client")))
    assert run.exit_code == ExitCode.OK, run.errors
    assert (gateway.end(), bank.end()) == (0, 0)
    needles = [CANARY_USER.encode(), CANARY_PASSWORD.encode()]
    needles += [needle.hex().encode() for needle in needles]
    for name in PROGRAMS:
        data = capture_of(system, name).read_bytes()
        assert b"TX-1001" in data
        assert [needle for needle in needles if needle in data] == [], name
        assert (b"\x044711" in data) == (name != "bank")
    told = [run.errors, *(server.log_path.read_text(encoding="utf-8") for server in (gateway, bank))]
    for name, text in zip(("client", "gateway", "bank"), told, strict=True):
        (line,) = [line for line in text.splitlines() if "captur" in line]
        assert str(capture_of(system, name)) in line
        assert "nothing masked" in line


# -- what it can't harm ----------------------------------------------------------------------------------


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """As a full disk, for programs that are started meanwhile: no file of theirs grows beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def send_junk(port: int, size: int) -> None:
    """Connections that a server reads and then drops."""
    for _ in range(-(-size // 60_000)):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(os.urandom(60_000))
            sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while sock.recv(60_000):
                    pass


def test_servers_whose_captures_have_no_more_room_go_on_paying(stopped_system: LocalSystem) -> None:
    system = with_captures(stopped_system)
    # Junk fills the captures, while the stores, of less than a tenth of this, have room.
    size = 2_000_000
    with files_end_at(size):
        servers = [system.start_bank(), system.start_gateway()]
    for server in servers:
        send_junk(server.port, size + 500_000)
    for server in servers:
        wait_until(lambda server=server: b"ends here" in server.log_path.read_bytes(), "the capture's end")  # type: ignore[misc]
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.OK, run.errors
    assert [server.end() for server in reversed(servers)] == [0, 0]
    for name, server in zip(("bank", "gateway"), servers, strict=True):
        assert server.log_path.read_text(encoding="utf-8").count("ends here") == 1
        assert size - 70_000 < capture_of(system, name).stat().st_size < size
        check_packets(capture_of(system, name))


def test_a_client_whose_capture_has_no_more_room_pays(system: LocalSystem) -> None:
    assert system.gateway is not None
    failures: list[str] = []
    capture = CaptureFile(capture_of(system, "client"), "a shop", on_failed=failures.append)
    root = (system.root / "bank-root.txt").read_text(encoding="ascii").strip()
    with PaygateClient(
        system.gateway.address, bank_root=root, state_dir=system.root / "client", capture=capture
    ) as client:
        assert client.query("TX-1001", "4711").is_valid
        assert failures == []
        # The file is swapped for a device that is full.
        full = os.open("/dev/full", os.O_WRONLY)
        assert capture._fd is not None
        os.dup2(full, capture._fd)
        os.close(full)
        result = client.pay(*ASHA)
    assert result.outcome is Outcome.PAID
    assert len(failures) == 1
    kinds = kinds_of(capture_of(system, "client"))
    assert kinds == CLIENT_ASKS[:-1]


def test_a_gateway_killed_in_a_payment_leaves_every_frame_up_to_then(stopped_system: LocalSystem) -> None:
    system = with_captures(stopped_system)
    bank, gateway = system.start_bank(), system.start_gateway()
    # Before it has the bank's keys, a gateway can't be paid at.
    wait_until(lambda: without_link_tests(capture_of(system, "gateway")) == BANK_LINK_OPENS, "the bank's keys")
    bank.popen.send_signal(signal.SIGSTOP)
    client = start_client(system, "TX-1001", "4711", *ASHA, "--capture", str(capture_of(system, "client")))
    wait_until(lambda: attempts(system) == ["in-flight"], "the payment to reach the gateway")
    # The record is brought up to date before the frame leaves, so its own packet is waited for.
    sent = capture_of(system, "gateway")
    wait_until(lambda: without_link_tests(sent)[-1:] == [Kind.TRANSFER_REQUEST], "the transfer to leave")
    gateway.end(signal.SIGKILL)
    assert without_link_tests(sent) == BANK_LINK_OPENS + CLIENT_ASKS + [Kind.TRANSFER_REQUEST]
    check_packets(sent)
    client.kill()
    client.communicate()
    (by_client,) = streams_of(capture_of(system, "client"))
    assert joined(streams_of(sent)[1], of_answerer=False) == joined(by_client, of_answerer=False)
    bank.popen.send_signal(signal.SIGCONT)

    system.gateway_options = ["--capture", str(system.root / "gateway-2.pcapng")]
    system.start_gateway()
    wait_until(lambda: attempts(system) == ["paid"], "the payment to be resolved")
    assert Kind.RESOLVE_RESULT in kinds_of(system.root / "gateway-2.pcapng")


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_file_that_is_there_is_refused(stopped_system: LocalSystem, name: str) -> None:
    system = stopped_system
    path = capture_of(system, name)
    path.write_bytes(b"an earlier capture")
    run = captured(system, name, str(path))
    assert run.returncode == ExitCode.USAGE
    assert run.stderr == f"paygate-{name}: --capture {path}: the file exists; give another name\n"
    assert run.stdout == ""
    assert path.read_bytes() == b"an earlier capture"


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("path", "expected"),
    [("/nowhere/at/all", "could not write there: No such file or directory"), ("-", "tail -c +1 -f FILE")],
)
def test_a_file_that_can_not_be_made_is_refused(
    stopped_system: LocalSystem, name: str, path: str, expected: str
) -> None:
    run = captured(stopped_system, name, path)
    assert run.returncode == ExitCode.USAGE
    assert expected in run.stderr


def captured(system: LocalSystem, name: str, path: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that is to refuse its capture, before it does anything else."""
    if name == "client":
        command = [*program("client"), "pay", "--bank-root", str(system.root / "bank-root.txt"), "--capture", path]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    return system.command(name, "serve", "--port", "0", "--capture", path, check=False)
