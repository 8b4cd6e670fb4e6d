"""Our own bank passes every case of the kit, and each bug that a bank can have fails the case that is for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conform.bench import Bench, copied, make_world, read_own_world
from conform.bugs import BUGS, Bug
from conform.double import Fault
from local_system import LocalSystem, ServerProcess, program

from paygate.cli import ExitCode
from paygate.conform.bank_cases import BANK
from paygate.conform.runner import Outcome, Result

PROGRAM = [sys.executable, "-P", "-m", "paygate.conform"]
NEEDS_OPTION = {"bank.limit.connections", "bank.limit.shutting_down", "bank.restart.answers", "bank.restart.lock"}
RUN_TIMEOUT_S = 400


@dataclass
class Found:
    """What one long run of everything came to: each slow case waits while all others are at work."""

    report: dict[str, Any]
    """Of the program, run against the bank itself."""
    junit: bytes
    exit_code: int
    without_bug: dict[str, Result]
    """Of the double that has no bug."""
    with_bug: dict[str, Result]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> LocalSystem:
    """A bank that is made, not started."""
    return make_world(tmp_path_factory.mktemp("conform"))


@contextmanager
def running(system: LocalSystem) -> Iterator[ServerProcess]:
    """Its bank, started, and ended whatever fails meanwhile."""
    try:
        yield system.start_bank()
    finally:
        system.stop()


@pytest.fixture(scope="module")
def found(system: LocalSystem) -> Found:
    """Everything that is to be run, at the same time."""
    directory = system.root.parent
    own, junit = directory / "own.json", directory / "junit.xml"
    with running(system) as bank, closing(Bench(system, read_own_world(directory))) as bench:
        bench.warm_up()
        bench.write_own_world(own)
        command = [*PROGRAM, "bank", bank.address, "--world", str(own), "--json", "--junit", str(junit)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
            try:
                without_bug: list[Result] = []
                cases = [case for case in BANK if case.case_id not in NEEDS_OPTION]
                plain = bench.start(cases, without_bug, Fault(), world=bench.own_world())
                with_bug = bench.run_bugs(BUGS, plain)
                output, errors = popen.communicate(timeout=RUN_TIMEOUT_S)
            finally:
                popen.kill()
    assert output, errors
    return Found(
        json.loads(output),
        junit.read_bytes(),
        popen.returncode,
        {result.case.case_id: result for result in without_bug},
        with_bug,
    )


def test_our_bank_passes_every_case(found: Found) -> None:
    cases = {case["id"]: case for case in found.report["cases"]}
    assert cases.keys() == {case.case_id for case in BANK}
    failed = {name: (c["expected"], c["reason"]) for name, c in cases.items() if c["outcome"] == "failed"}
    assert failed == {}
    # What may be skipped is only what an option is missing for.
    skipped = {name: case["reason"] for name, case in cases.items() if case["outcome"] == "skipped"}
    assert skipped.keys() <= NEEDS_OPTION
    assert all("it needs --" in reason for reason in skipped.values())
    assert found.exit_code == ExitCode.OK
    assert found.report["passed"] == len(BANK) - len(NEEDS_OPTION)


def test_junit_says_the_same(found: Found) -> None:
    suites = ElementTree.fromstring(found.junit)
    (suite,) = suites
    named = {f"{case.get('classname')}.{case.get('name')}": case for case in suite}
    assert named.keys() == {case.case_id for case in BANK}
    assert suite.get("tests") == str(len(BANK))
    assert suite.get("failures") == "0"
    assert suite.get("skipped") == str(sum(case.find("skipped") is not None for case in named.values()))


@pytest.mark.parametrize("case_id", [c.case_id for c in BANK if c.case_id not in NEEDS_OPTION])
def test_a_double_without_a_bug_passes(found: Found, case_id: str) -> None:
    result = found.without_bug[case_id]
    assert result.outcome is Outcome.PASSED, (result.expected, result.reason)


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_bug_fails_its_case(found: Found, bug: Bug) -> None:
    result = found.with_bug[str(bug)]
    assert result.outcome is Outcome.FAILED, result.reason
    # A kit that breaks proves nothing of the bank.
    assert "the kit itself failed" not in result.reason, result.reason
    if bug.name.startswith("a debit by"):
        # All answers are right; what is missing shows when the rest is paid out.
        assert (result.expected, "reason=FUNDS" in result.reason) == ("POSTED", True), result


def test_every_case_has_a_bug_that_fails_it() -> None:
    assert {case.case_id for case in BANK} == {bug.case_id for bug in BUGS}


def test_connections_beyond_the_limit_are_turned_away(system: LocalSystem, tmp_path: Path) -> None:
    mine = copied(system, tmp_path / "flood")
    results: list[Result] = []
    case = BANK["bank.limit.connections"]
    options = {"flood": 20}
    with running(mine), closing(Bench(mine, read_own_world(tmp_path / "flood"))) as bench:
        run = bench.start([case], results, Fault(), world=bench.own_world(), options=options, connection_count_max=10)
        bench.turn_until(run)
    assert [result.outcome for result in results] == [Outcome.PASSED], results


def test_our_bank_knows_after_a_restart_what_it_answered(system: LocalSystem, tmp_path: Path) -> None:
    mine = copied(system, tmp_path / "restart")
    bank = mine.start_bank()
    pid_path = mine.root / "bank.pid"
    pid_path.write_text(str(bank.popen.pid))
    again = [*program("bank"), "serve", "--state", str(mine.root / "bank"), "--port", str(bank.port)]
    serve = f"{' '.join(again)} >/dev/null 2>&1 & echo $! >{pid_path}"
    command = [*PROGRAM, "bank", bank.address, "bank.restart", "--world", str(tmp_path / "restart" / "world.json")]
    command += ["--restart-command", f"sh -c 'kill -KILL $(cat {pid_path}); sleep 0.3; {serve}'", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    finally:
        bank.popen.kill()
        if (pid := int(pid_path.read_text())) != bank.popen.pid:
            os.kill(pid, signal.SIGKILL)
        mine.stop()
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"]) == (ExitCode.OK, 2), done.stdout


def test_our_bank_shuts_down_as_it_should(system: LocalSystem, tmp_path: Path) -> None:
    mine = copied(system, tmp_path / "drain")
    world = str(tmp_path / "drain" / "world.json")
    with running(mine) as bank:
        command = [*PROGRAM, "bank", bank.address, "bank.limit.shutting_down", "--world", world]
        command += ["--drain-command", f"kill -TERM {bank.popen.pid}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
        assert done.returncode == ExitCode.OK, done.stdout
        assert bank.popen.wait(RUN_TIMEOUT_S) == 0
