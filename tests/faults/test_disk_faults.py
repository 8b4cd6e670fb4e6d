"""A seeded sample of the campaign of file faults, and proof that it can fail; all of it: `make faults`."""

import subprocess
import sys

import pytest
from faults.shim import SOURCE

CASE_COUNT = 16
SECONDS_MAX = 12


def run_campaign(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "faults", "disk", *arguments]
    return subprocess.run(command, cwd=SOURCE.parents[1], capture_output=True, text=True, timeout=300, check=False)


def test_a_sample_of_file_faults_loses_nothing() -> None:
    ran = run_campaign("--seed", "1", "--count", str(CASE_COUNT), "--seconds", str(SECONDS_MAX), "--story", "serve")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 failed" in ran.stdout, ran.stdout
    assert "of which 0 had" not in ran.stdout, ran.stdout


@pytest.mark.parametrize("store", ["bank/ledger.sqlite-wal", "gateway/tokens.sqlite-wal"])
def test_a_failed_fsync_ends_a_server_at_once(store: str) -> None:
    """T31: nothing is sent after it, that file is not fsynced again, and the next start finds out."""
    program = store.partition("/")[0]
    ran = run_campaign("--case", f"serve/{program}/fdatasync {store} 2 EIO once")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 had their fault" in ran.stdout, ran.stdout


def test_an_fsync_that_is_done_again_is_found() -> None:
    """T31: the mutant goes on after a failed fsync, as a program that retries it does."""
    case = "serve/bank/fdatasync bank/ledger.sqlite-wal 1 EIO once"
    ran = run_campaign("--case", case, "--bug", "fsync retried")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "T31: bank" in ran.stdout, ran.stdout


def test_a_payment_that_is_acknowledged_without_room_for_it_is_found() -> None:
    """T30, I3: the mutant says that it committed, and did not."""
    case = "serve/gateway/pwrite gateway/tokens.sqlite-wal 3 ENOSPC always"
    ran = run_campaign("--case", case, "--bug", "full is fine")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "Broken: " in ran.stdout, ran.stdout
