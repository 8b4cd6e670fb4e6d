"""The client role of the kit itself: its options, how it starts programs, and how it leads a person."""

import argparse
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from conform.test_client import HOST, PAY

from paygate.cli import ExitCode
from paygate.conform import client_options
from paygate.conform.client_options import DEFAULT_EXIT_CODES, PLACEHOLDERS, Said, exit_codes
from paygate.conform.programs import BadCommand, command_words, fill_in

PROGRAM: Final = [sys.executable, "-P", "-m", "paygate.conform"]
CLIENT_COMMAND: Final = f"{sys.executable} -P -m paygate.client"
RUN: Final = f"{CLIENT_COMMAND} {' '.join(PAY)}"
TIMEOUT_S: Final = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world as the program makes it, for clients."""
    directory = tmp_path_factory.mktemp("kit") / "world"
    run([*PROGRAM, "world", str(directory), "--played-bank"])
    return directory / "world.json"


def run(command: list[str], timeout_s: int = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def conform(
    world: Path, *arguments: str, address: str = f"{HOST}:0", timeout_s: int = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    return run([*PROGRAM, "client", address, "--world", str(world), *arguments], timeout_s)


# -- command lines ---------------------------------------------------------------------------------------


def test_words_are_split_first_so_that_values_need_no_quoting() -> None:
    words = command_words("pay --user '{user} x' {passcode}", ("user", "passcode"))
    assert fill_in(words, {"user": "a b'c", "passcode": "{user}"}) == ("pay", "--user", "a b'c x", "{user}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("pay {pasword}", r"\{pasword\} is no placeholder"), ("pay 'x", "can't be split"), ("  ", "empty")],
)
def test_a_command_that_can_not_be_run_is_told_why(text: str, expected: str) -> None:
    with pytest.raises(BadCommand, match=expected):
        command_words(text, PLACEHOLDERS)


def test_exit_codes_are_read_over_the_defaults() -> None:
    codes = exit_codes("paid=40,unknown=41,untrusted=41")
    assert codes == {**DEFAULT_EXIT_CODES, Said.PAID: 40, Said.UNKNOWN: 41, Said.UNTRUSTED: 41}


@pytest.mark.parametrize("text", ["", "paid", "paid=x", "paid=256", "payed=0", "paid=0,", "paid=4", "unknown=1"])
def test_exit_codes_that_say_nothing_or_two_things_are_refused(text: str) -> None:
    # Paid and declined need codes that nothing else has: their proof is what most cases are about.
    with pytest.raises(argparse.ArgumentTypeError):
        exit_codes(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"address": ("127.0.0.1", 0), "run": ("pay",), "jobs": None}, client_options.JOBS),
        ({"address": ("127.0.0.1", 0), "run": ("pay",), "jobs": 9}, 9),
        ({"address": ("127.0.0.1", 15000), "run": ("pay",), "jobs": None}, 1),
        ({"address": ("127.0.0.1", 15000), "run": None, "jobs": None}, 1),
    ],
)
def test_cases_share_a_port_only_one_after_another(options: dict[str, object], expected: int) -> None:
    assert client_options.jobs_of(argparse.Namespace(**options)) == expected


# -- the program -----------------------------------------------------------------------------------------


def test_a_client_is_started_for_each_case(world: Path) -> None:
    done = conform(world, "client.paid", "client.declined.funds", "--json", "--run", RUN)
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["role"], report["passed"], report["skipped"]) == ("client", 2, 0)
    assert not done.stderr


def test_cases_at_one_port_follow_each_other(world: Path) -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    sections = ("client.paid", "client.declined.funds", "client.hello.error_instead")
    done = conform(world, *sections, "--run", RUN, address=f"{HOST}:{port}")
    assert done.returncode == ExitCode.OK, done.stdout
    assert "3 passed" in done.stdout


def test_a_client_is_judged_by_its_own_exit_codes(world: Path) -> None:
    ends_with_40 = f'sh -c \'"$0" "$@"; test $? = 0 && exit 40\' {RUN}'
    done = conform(world, "client.paid", "--run", ends_with_40, "--exit-codes", "paid=40")
    assert done.returncode == ExitCode.OK, done.stdout
    done = conform(world, "client.paid", "--run", ends_with_40)
    assert done.returncode == 1
    assert "exit code 40 (not in --exit-codes), having said" in done.stdout


def test_secrets_are_in_the_environment_too(world: Path) -> None:
    told = "sh -c 'echo \"$PAYGATE_CONFORM_USER $PAYGATE_CONFORM_PASSWORD $PAYGATE_CONFORM_TRANSACTION\"'"
    done = conform(world, "client.paid", "--run", told)
    assert re.search(r"exit code 0 \(paid\), having said 'payer-1 payer-1 [0-9a-f]+ TX-", done.stdout)


@pytest.mark.parametrize("exit_code", [ExitCode.OK, ExitCode.DECLINED, ExitCode.NO_CONNECTION])
def test_a_program_that_does_nothing_passes_no_case(world: Path, exit_code: int) -> None:
    nothing = f"sh -c 'exit {int(exit_code)}'"
    # Whatever is neither paid nor declined is said by one code, so three programs say all that there is.
    same = ",".join(f"{said.option}=5" for said in Said if said not in (Said.PAID, Said.DECLINED))
    options = ("--exit-codes", same, "--jobs", "8", "--no-slow", "--json")
    done = conform(world, "--run", nothing, "--status-run", nothing, *options)
    report = json.loads(done.stdout)
    assert [case["id"] for case in report["cases"] if case["outcome"] == "passed"] == []
    assert report["failed"] > 100


def test_what_needs_a_command_that_is_not_given_is_skipped_with_the_reason(world: Path) -> None:
    done = conform(world, "client.status", "--run", RUN)
    assert done.returncode == ExitCode.OK
    assert "give --status-run" in done.stdout
    assert "0 passed, 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--run", "no-such-client"], ExitCode.USAGE, "there is no program 'no-such-client'"),
        (["--run", "pay {nothing}"], ExitCode.USAGE, "no placeholder"),
        ([], ExitCode.USAGE, "only --run can be told of"),
    ],
)
def test_what_can_not_be_run_is_told_in_one_line(
    world: Path, options: list[str], code: ExitCode, expected: str
) -> None:
    done = conform(world, "client.paid", *options)
    assert done.returncode == code
    assert expected in done.stderr.splitlines()[-1]


def test_a_port_in_use_is_told_in_one_line(world: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        done = conform(world, "client.paid", "--run", RUN, address=f"{HOST}:{taken.getsockname()[1]}")
    assert done.returncode == ExitCode.NO_CONNECTION
    assert "cannot listen on" in done.stderr


def test_nothing_is_left_behind(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert Path(tempfile.gettempdir()) != tmp_path  # ours is not changed, the program's is
    pid_file = tmp_path / "pid"
    # A client that says no hello, and does not end by itself.
    script = (
        "import os, socket, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); "
        "s = socket.create_connection((sys.argv[2], int(sys.argv[3]))); s.sendall(b'GET / HTTP/1.0'); time.sleep(600)"
    )
    stray = f"{sys.executable} -c {shlex.quote(script)} {pid_file} {{host}} {{port}}"
    done = conform(world, "client.paid", "--run", stray, "--patience", "1000")
    assert done.returncode == 1
    assert "a frame or the end of the connection within 1000 ms" in done.stdout
    assert not Path(f"/proc/{pid_file.read_text(encoding='ascii').strip()}").exists()
    assert [path for path in tmp_path.iterdir() if path != pid_file] == []


@contextmanager
def started(world: Path, directory: Path, *arguments: str) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    """The kit with a client that never ends and ignores SIGTERM; gives the kit, and the client's process ID."""
    pid_file = directory / "pid"
    script = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1]); "
        "time.sleep(600)"
    )
    stray = f"{sys.executable} -c {shlex.quote(script)} {pid_file}"
    command = [*PROGRAM, "client", f"{HOST}:0", "client.paid", "client.declined.funds", "client.hello.first"]
    command += ["--world", str(world), "--run", stray, "--jobs", "1", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as kit:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not pid_file.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield kit, int(pid_file.read_text(encoding="ascii"))
        finally:
            kit.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_broken_off_leaves_nothing_and_tells_what_it_knows(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    junit = tmp_path / "junit.xml"
    with started(world, tmp_path, "--junit", str(junit)) as (kit, pid):
        kit.send_signal(number)
        output, errors = kit.communicate(timeout=TIMEOUT_S)
    assert kit.returncode == ExitCode.CANCELLED
    assert errors == ""
    assert output.count(": cancelled\n") == 3
    assert "0 passed, 0 failed, 3 skipped" in output.splitlines()[-1]
    assert junit.read_text(encoding="utf-8").count('<skipped message="cancelled"') == 3
    assert not Path(f"/proc/{pid}").exists()
    assert list(temporary.iterdir()) == []


def test_output_that_nobody_takes_is_told_once_and_ends_the_run(world: Path) -> None:
    command = [*PROGRAM, "client", f"{HOST}:0", "client", "--world", str(world), "--run", "true", "--patience", "100"]
    with Path("/dev/full").open("w", encoding="ascii") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == ExitCode.INTERNAL
    assert done.stderr.count("\n") == 1
    assert "the output is incomplete: no space left on device" in done.stderr


# -- with a person ---------------------------------------------------------------------------------------


def led(world: Path, passcode: str | None) -> tuple[int, str]:
    """Run one case without --run, do what it says, and give exit code and output."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    command = [*PROGRAM, "client", f"{HOST}:{port}", "client.hello.first", "--world", str(world)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
        guard = threading.Timer(TIMEOUT_S, popen.kill)
        guard.start()
        assert popen.stderr is not None
        lines = [popen.stderr.readline() for _ in range(4)]
        root = re.search(r"also in (\S+):", lines[0])
        token = re.search(r"Pay token (\S+) with passcode (\S+) at (\S+),", lines[2])
        user = re.search(r"as user (\S+) with password .* \(also in (\S+)\), state in (\S+)$", lines[3])
        assert root is not None, lines
        assert token is not None, lines
        assert user is not None, lines
        passcode_file = Path(user[3]).parent / "passcode.txt"
        if passcode is not None:
            passcode_file.write_text(f"{passcode}\n", encoding="ascii")
        values = {
            "address": token[3],
            "bank_root_file": root[1],
            "state_dir": user[3],
            "transaction": token[1],
            "passcode_file": str(passcode_file),
            "user": user[1],
            "password_file": user[2],
        }
        run([sys.executable, "-P", "-m", "paygate.client", *fill_in(PAY, values)])
        output, _errors = popen.communicate(timeout=TIMEOUT_S)
        guard.cancel()
    return popen.returncode, output


def test_a_person_is_told_what_to_type_and_only_the_bytes_are_judged(world: Path) -> None:
    code, output = led(world, None)
    assert code == ExitCode.OK
    assert "what the client told its customer is seen only with --run" in output


def test_a_fault_in_the_bytes_fails_the_case_without_run_too(world: Path) -> None:
    code, output = led(world, "mistyped")
    assert code == 1
    assert "with its passcode, as they were given" in output
