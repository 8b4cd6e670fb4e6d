"""Our own gateway passes every case of the kit, and each bug that a gateway can have fails the case that is for it."""

import contextlib
import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conform.bench import make_world as make_real_world
from conform.double import Fault
from conform.gateway_bank_faults import ByToken, ToBank
from conform.gateway_bench import GatewayBench, GatewayProcess, ReservedPort, make_world
from conform.gateway_bugs import BUGS, LEGAL, PATIENT_MS, STATION_BUGS, GatewayBug, StationBug

from paygate.cli import ExitCode
from paygate.conform.gateway_cases import GATEWAY
from paygate.conform.runner import Outcome, Result, Run, turn_until

PROGRAM = [sys.executable, "-P", "-m", "paygate.conform", "gateway"]
RUN_TIMEOUT_S = 400
AT_ONCE_COUNT = 24
PLAIN_TOKEN_COUNT = 300
NEEDS_OPTION = {"gateway.outage.restart", "gateway.outage.shutting_down", "gateway.restart.keeps"}
_SHARED, _PLAIN = "shared", "plain"
"""The station of all bugs that are no station's own, and that of a gateway without a bug."""


@dataclass
class Found:
    """What one long run of everything came to: each slow case waits while all others are at work."""

    reports: list[dict[str, Any]]
    """Of the program, against two gateways: the cases that run alone, and all others."""
    with_real_bank: dict[str, Any]
    """Against a gateway whose bank is our own, so that no case leads it by hand."""
    exit_codes: list[int]
    with_bug: dict[str, Result]
    without_bug: dict[str, Result]
    """Of doubles that have no bug."""


@contextlib.contextmanager
def program_run(directory: Path, name: str, case_ids: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """`paygate-conform gateway` against a gateway of its own, behind which it plays the bank."""
    bank, listening = ReservedPort(), ReservedPort()
    gateway = GatewayProcess.start(directory, name, bank.port, listening.port)
    command = [*PROGRAM, f"127.0.0.1:{listening.port}", *case_ids, "--world", str(directory / "world.json"), "--json"]
    command += ["--patience", str(PATIENT_MS), "--bank-listen", f"127.0.0.1:{bank.port}"]
    command += ["--restart-command", gateway.restart_command, "--drain-command", gateway.drain_command]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
            try:
                yield popen
            finally:
                popen.kill()
    finally:
        gateway.end()
        bank.close()
        listening.close()


@contextlib.contextmanager
def real_bank_run(directory: Path) -> "Iterator[subprocess.Popen[str]]":
    """`paygate-conform gateway` against our gateway and bank."""
    system = make_real_world(directory)
    try:
        system.start_bank()
        gateway = system.start_gateway()
        command = [*PROGRAM, gateway.address, "--world", str(directory / "world.json"), "--no-slow", "--json"]
        command += ["--patience", str(PATIENT_MS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
            try:
                yield popen
            finally:
                popen.kill()
    finally:
        system.stop()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Everything that is to be run, at the same time."""
    directory = tmp_path_factory.mktemp("conform")
    bench = GatewayBench(directory, make_world(directory))
    alone = [case.case_id for case in GATEWAY if case.is_exclusive]
    others = [case.case_id for case in GATEWAY if not case.is_exclusive]
    with (
        contextlib.closing(bench),
        program_run(directory, "others", others) as first,
        program_run(directory, "alone", alone) as second,
        real_bank_run(directory / "real") as third,
    ):
        without_bug: dict[str, Result] = {}
        with_bug = run_bugs(bench, without_bug)
        told = [popen.communicate(timeout=RUN_TIMEOUT_S) for popen in (first, second, third)]
        codes = [popen.returncode for popen in (first, second, third)]
    for output, errors in told:
        assert output, errors
    *reports, with_real_bank = (json.loads(output) for output, _ in told)
    return Found(reports, with_real_bank, codes, with_bug, without_bug)


def run_bugs(bench: GatewayBench, without_bug: dict[str, Result]) -> dict[str, Result]:
    """Run the case of each bug against a gateway that has it; gives the results by bug and case.

    Meanwhile `without_bug` is filled with those of doubles that have none.
    """
    faults = {bug.name: bug.to_bank() for bug in (*STATION_BUGS, *LEGAL)}
    stations = bench.open_stations({_SHARED: ByToken(), _PLAIN: ToBank(), **faults})
    bench.wait_until_ready(stations[name] for name in (_SHARED, _PLAIN, *(bug.name for bug in LEGAL)))
    shared = stations[_SHARED]
    results: dict[str, Result] = {}
    running: dict[Run, bool] = {}

    def keep_plain(result: Result) -> None:
        without_bug[result.case.case_id] = result

    for station, is_exclusive in ((shared, False), (stations[_PLAIN], True)):
        cases = [c for c in GATEWAY if c.is_exclusive is is_exclusive and c.case_id not in NEEDS_OPTION]
        tokens = bench.tokens(PLAIN_TOKEN_COUNT)
        running[bench.start(station, cases, keep_plain, Fault(), tokens=tokens, patience_ms=PATIENT_MS)] = False

    def keep(name: str) -> Any:
        return lambda result: results.__setitem__(f"{name}-{result.case.case_id}", result)

    for bug in (*STATION_BUGS, *LEGAL):
        cases = [GATEWAY[case_id] for case_id in bug.case_ids]
        fault = None if bug.to_clients is None else bug.to_clients()
        tokens = bench.tokens(4 * len(cases))
        run = bench.start(
            stations[bug.name],
            cases,
            keep(bug.name),
            fault,
            tokens=tokens,
            patience_ms=bug.patience_ms,
            options=bug.options,
        )
        running[run] = False
    # The slow ones wait most of their time, so they begin first and take nobody's place.
    waiting = deque(sorted(BUGS, key=lambda bug: -GATEWAY[bug.case_id].waits_ms))

    def is_over() -> bool:
        for run in [run for run in running if run.is_over]:
            del running[run]
        while waiting and (GATEWAY[waiting[0].case_id].waits_ms or sum(running.values()) < AT_ONCE_COUNT):
            bug = waiting.popleft()
            case = GATEWAY[bug.case_id]
            tokens = bench.tokens(bug.token_count)
            if bug.to_bank is not None:
                bench.watch_token(shared, tokens, bug.to_bank())
            fault = None if bug.to_clients is None else bug.to_clients()
            running[bench.start(shared, [case], keep(bug.name), fault, tokens=tokens)] = not case.waits_ms
        return not running and not waiting

    turn_until(bench.loop, is_over)
    return results


def test_our_gateway_passes_every_case(found: Found) -> None:
    cases = {case["id"]: case for report in found.reports for case in report["cases"]}
    assert cases.keys() == {case.case_id for case in GATEWAY}
    not_passed = {i: (c["expected"], c["reason"]) for i, c in cases.items() if c["outcome"] != "passed"}
    assert not_passed == {}
    assert found.exit_codes == [ExitCode.OK] * 3
    assert sum(report["passed"] for report in found.reports) == len(GATEWAY)


@pytest.mark.parametrize("case_id", [c.case_id for c in GATEWAY if c.case_id not in NEEDS_OPTION])
def test_doubles_without_a_bug_pass(found: Found, case_id: str) -> None:
    result = found.without_bug[case_id]
    assert result.outcome is Outcome.PASSED, (result.expected, result.reason)


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_bug_fails_its_case(found: Found, bug: GatewayBug) -> None:
    _require_failed(found.with_bug[str(bug)])


@pytest.mark.parametrize(
    ("bug", "case_id"), [(bug, case_id) for bug in STATION_BUGS for case_id in bug.case_ids], ids=str
)
def test_a_bug_of_the_bank_link_fails_its_case(found: Found, bug: StationBug, case_id: str) -> None:
    _require_failed(found.with_bug[f"{bug.name}-{case_id}"])


@pytest.mark.parametrize(("legal", "case_id"), [(one, case_id) for one in LEGAL for case_id in one.case_ids], ids=str)
def test_what_the_spec_allows_passes(found: Found, legal: StationBug, case_id: str) -> None:
    result = found.with_bug[f"{legal.name}-{case_id}"]
    assert result.outcome is Outcome.PASSED, (result.expected, result.reason)


def _require_failed(result: Result) -> None:
    assert result.outcome is Outcome.FAILED, result.reason
    # A kit that breaks proves nothing of the gateway.
    assert "the kit itself failed" not in result.reason, result.reason


def test_every_case_has_a_bug_that_fails_it() -> None:
    with_bug = {bug.case_id for bug in BUGS} | {case_id for bug in STATION_BUGS for case_id in bug.case_ids}
    assert {case.case_id for case in GATEWAY} == with_bug


def test_a_gateway_of_a_real_bank_passes_what_needs_no_played_one(found: Found) -> None:
    cases = {case["id"]: case for case in found.with_real_bank["cases"]}
    failed = {i: (c["expected"], c["reason"]) for i, c in cases.items() if c["outcome"] == "failed"}
    assert failed == {}
    skipped = {case_id: case["reason"] for case_id, case in cases.items() if case["outcome"] == "skipped"}
    assert all("--bank-listen" in why or "--no-slow" in why or "-command" in why for why in skipped.values()), skipped
    # Payments end to end, tokens, and all of the link are held without a played bank too.
    groups = {case_id.split(".")[1] for case_id in cases.keys() - skipped.keys()}
    assert groups >= {"pay", "repeat", "mismatch", "status", "token", "passcode", "session", "hello", "value", "stream"}
