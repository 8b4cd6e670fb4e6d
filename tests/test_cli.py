"""How the programs end and what they say on stderr."""

import os
import subprocess
import sys

import pytest

from paygate.cli import ExitCode, PaygateExit, log, run
from paygate.files.sqlite import StoreCorrupt, StoreError
from paygate.files.state_dir import StateError, StateInUse


def raises(error: BaseException) -> int:
    raise error


def test_the_result_of_main_is_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("paygate-bank", lambda: ExitCode.ALREADY_PAID) == 7
    assert capfd.readouterr().err == ""


def test_a_known_ending_is_one_line_and_its_code(capfd: pytest.CaptureFixture[str]) -> None:
    ending = PaygateExit("no bank at localhost:15001; start it", ExitCode.NO_BANK)
    assert run("paygate-gateway", lambda: raises(ending)) == ExitCode.NO_BANK
    assert capfd.readouterr().err == "paygate-gateway: no bank at localhost:15001; start it\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StateError("x"), ExitCode.BAD_STATE),
        (StateInUse("x"), ExitCode.STATE_IN_USE),
        (StoreError("x"), ExitCode.STORE_FAILED),
        (StoreCorrupt("x"), ExitCode.BAD_STATE),
        (StoreError("x", ExitCode.STATE_IN_USE), ExitCode.STATE_IN_USE),
        (PaygateExit("x"), ExitCode.INTERNAL),
        (KeyboardInterrupt(), ExitCode.CANCELLED),
    ],
)
def test_each_error_has_its_code(error: BaseException, code: ExitCode, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("p", lambda: raises(error)) == code
    assert capfd.readouterr().err.count("\n") == 1


def test_an_unexpected_error_shows_neither_its_text_nor_its_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAYGATE_DEBUG", raising=False)
    assert run("p", lambda: raises(ValueError("password hunter2"))) == ExitCode.INTERNAL
    shown = capfd.readouterr().err
    assert "ValueError in raises" in shown
    assert "hunter2" not in shown
    assert shown.count("\n") == 1


def test_a_debugger_may_ask_for_the_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYGATE_DEBUG", "1")
    assert run("p", lambda: raises(ValueError("boom"))) == ExitCode.INTERNAL
    assert "Traceback" in capfd.readouterr().err


def test_a_file_that_fails_is_named_with_the_systems_own_words(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("p", lambda: raises(OSError(5, "Input/output error", "keys"))) == ExitCode.BAD_STATE
    expected = "p: could not use keys: Input/output error; check the disk, and that this user may use it\n"
    assert capfd.readouterr().err == expected


def test_the_systems_own_words_on_anything_else_are_shown_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("p", lambda: raises(OSError(24, "Too many open files"))) == ExitCode.INTERNAL
    assert "internal error: [Errno 24] Too many open files (" in capfd.readouterr().err


def test_usage_errors_of_argparse_pass_through() -> None:
    with pytest.raises(SystemExit):
        run("p", lambda: raises(SystemExit(2)))


def test_a_reader_that_goes_away_is_no_success() -> None:
    program = "import sys; from paygate.cli import run; sys.exit(run('p', lambda: print('paid') or 0))"
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    done = subprocess.run([sys.executable, "-c", program], stdout=write_fd, stderr=subprocess.PIPE, check=False)
    os.close(write_fd)
    assert done.returncode == ExitCode.INTERNAL
    assert done.stderr == b"p: the reader of the output went away, so the output is incomplete\n"


def test_a_log_line_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    log("paygate-gateway", "hello from evil\n2026-11-22 paygate-gateway: paid \x1b[31m\u2028\ud800")
    shown = capfd.readouterr().err
    assert shown.endswith(
        r"paygate-gateway: hello from evil\x0a2026-11-22 paygate-gateway: paid \x1b[31m\u2028\ud800" + "\n"
    )
    assert shown.count("\n") == 1
    assert shown[4] == "-"
    assert shown[23] == "Z"


def test_a_lost_stderr_ends_nothing() -> None:
    program = "import os; from paygate.cli import log; os.close(2); log('p', 'x'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9


def test_a_stderr_that_nobody_reads_costs_lines_and_no_time() -> None:
    script = """
import os, sys
from paygate.cli import log
for number in range(5_000):
    log("test", f"line {number}")
print("done", flush=True)
sys.stdin.readline()
log("test", "the last line")
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "done\n"  # and nobody has read a line of stderr yet
        kept = os.read(process.stderr.fileno(), 1 << 20).decode()
        _, errors = process.communicate("go on\n", timeout=30)
    lines = (kept + errors).splitlines()
    written = sum(" test: line " in line for line in lines)
    assert 0 < written < 5_000
    assert lines[-1].endswith("test: the last line")
    assert f"{5_000 - written} lines before this one were dropped" in lines[-2]
