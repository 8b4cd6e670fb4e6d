"""Our own client passes every case of the kit, and each bug that a client can have fails the cases that are for it."""

import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from conform.client_faults import FAULTS, VARIANTS
from conform.prepared import preparation, starting

from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import Case
from paygate.conform.client_cases import CLIENT
from paygate.conform.client_options import DEFAULT_EXIT_CODES
from paygate.conform.report import result_lines
from paygate.conform.runner import Outcome, Result, Run
from paygate.conform.trial import Settings
from paygate.conform.world import WORLD_NAME, KeyFiles, World, default_world, read_world, write_world
from paygate.net.loop import Loop

OWN: Final = "our own client"
STARTED: Final = "our own client, started anew for each run"
OWN_PROGRAM: Final = (sys.executable, "-P", "-m", "paygate.client")
PAY: Final = (
    *("pay", "--gateway", "{address}", "--bank-root", "{bank_root_file}", "--state", "{state_dir}"),
    *("--transaction", "{transaction}", "--passcode-file", "{passcode_file}"),
    *("--user", "{user}", "--password-file", "{password_file}", "--yes"),
)
STATUS: Final = ("status", "{payment_id}", "--gateway", "{address}", "--state", "{state_dir}")
HOST: Final = "127.0.0.2"
"""Loopback, and no other test's: who looks for a server of theirs that is gone must not find our port by chance."""
RUNS_AT_ONCE: Final = 10
JOBS_OF_OWN: Final = 4
"""Cases at once, of the client whose slow ones wait longest."""
JOBS: Final = 2
"""Cases at once in each run. A client with a bug costs next to no time, and is waited for most of the time."""
PATIENCE_OF_RIGHT_MS: Final = 10_000
PATIENCE_MS: Final = 2_500
"""A client with a bug is mostly waited for in vain."""
LIMIT_MS: Final = 900_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with keys of the bank that the kit plays."""
    directory = tmp_path_factory.mktemp("world")
    made = default_world(b"tests of clients")
    write_world(directory, made, PlayedBankKeys.key_files(made))
    return read_world(directory / WORLD_NAME, KeyFiles())


def cases_of(fault: str) -> list[Case]:
    """Those that our client, one with a bug, or another right one is run through; nobody but ours waits for long."""
    if fault == OWN:
        return list(CLIENT)
    if fault == STARTED:
        return list({_group(case): case for case in CLIENT if not case.is_slow}.values())
    names = [f"client.{name}" for name in (FAULTS | VARIANTS)[fault].cases]
    chosen = CLIENT.select(names)
    return [case for case in chosen if case.case_id in names or not case.is_slow]


def _group(case: Case) -> str:
    """What a case is about: the second word of its name."""
    return case.case_id.split(".")[1]


@dataclass
class Campaign:
    """Many runs on one loop, a few at a time, so that what waits in one is time for another."""

    world: World
    own: Path
    """Where our client is prepared."""
    broken: Path
    """Where clients with bugs are."""
    loop: Loop = field(default_factory=Loop)
    results: dict[str, dict[str, Result]] = field(default_factory=dict)

    def run(self, faults: list[str]) -> None:
        """Run our client, or one with a bug, through its cases."""
        waiting, running = deque(faults), list[Run]()
        deadline_ms = self.loop.now_ms() + LIMIT_MS
        while waiting or running:
            while waiting and len(running) < RUNS_AT_ONCE:
                running.append(self._start(waiting.popleft()))
            self.loop.run_once()
            self.loop.flush()
            running = [run for run in running if not run.is_over]
            assert self.loop.now_ms() < deadline_ms
        self.loop.close()

    def _start(self, fault: str) -> Run:
        cases = cases_of(fault)
        options: dict[str, Any] = {
            "run": (*self._program(fault), *PAY),
            "status_run": (*self._program(fault), *STATUS),
            "exit_codes": DEFAULT_EXIT_CODES,
        }
        is_right = fault in {OWN, STARTED} or fault in VARIANTS
        settings = Settings((HOST, 0), self.world, PATIENCE_OF_RIGHT_MS if is_right else PATIENCE_MS, options)
        results = self.results[fault] = {}

        def told(result: Result) -> None:
            results[result.case.case_id] = result

        return Run(self.loop, CLIENT.prepare, cases, settings, told, jobs=JOBS_OF_OWN if fault == OWN else JOBS)

    def _program(self, fault: str) -> tuple[str, ...]:
        """The command of our client, or of one with a bug."""
        if fault == OWN:
            return starting(self.own, "client")
        return OWN_PROGRAM if fault == STARTED else starting(self.broken, fault)


@pytest.fixture(scope="module")
def campaign(world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Campaign:
    """All runs that the selected tests need."""
    selected = (item for item in request.session.items if isinstance(item, pytest.Function))
    wanted = dict.fromkeys(
        str(item.callspec.params["fault"])
        for item in selected
        if item.module is request.module and request.fixturename in item.fixturenames
    )
    prepared = tmp_path_factory.mktemp("prepared")
    campaign = Campaign(world, prepared / "own", prepared / "broken")
    with preparation("conform.own_client", campaign.own), preparation("conform.broken_client", campaign.broken):
        # The longest first: its slow cases wait while the others run.
        campaign.run(sorted(wanted, key=lambda fault: fault != OWN))
    return campaign


def told(result: Result) -> str:
    """What the kit says of a case, to be read when a test fails."""
    return "\n".join(result_lines(result))


@pytest.mark.parametrize("fault", [OWN, STARTED])
def test_our_client_passes_every_case(campaign: Campaign, fault: str) -> None:
    results = campaign.results[fault]
    cases = list(CLIENT) if fault == OWN else cases_of(STARTED)
    assert len(cases) == len(CLIENT) or {_group(case) for case in cases} == {_group(case) for case in CLIENT}
    assert [case.case_id for case in cases if case.case_id not in results] == []
    assert [told(result) for result in results.values() if result.outcome is not Outcome.PASSED] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_client_with_a_bug_fails_the_cases_that_are_for_it(campaign: Campaign, fault: str) -> None:
    results = campaign.results[fault]
    assert len(results) == len(FAULTS[fault].cases) > 0
    assert [case_id for case_id, result in results.items() if result.outcome is not Outcome.FAILED] == []
    reasons = [result.reason for result in results.values()]
    # Neither a kit nor a made-up bug that breaks proves anything of a case.
    broken = ("the kit itself failed", "internal error")
    assert [reason for reason in reasons if any(word in reason for word in broken)] == []


@pytest.mark.parametrize("fault", VARIANTS)
def test_another_right_client_fails_no_case(campaign: Campaign, fault: str) -> None:
    results = campaign.results[fault]
    assert [told(result) for result in results.values() if result.outcome is Outcome.FAILED] == []
    # What it can't be tested in is skipped, and said.
    assert sum(result.outcome is Outcome.PASSED for result in results.values()) > len(results) * 3 // 4


def test_no_case_is_without_a_bug_that_fails_it() -> None:
    failed = {f"client.{name}" for fault in FAULTS.values() for name in fault.cases}
    known = {case.case_id for case in CLIENT}
    assert failed - known == set()
    assert known - failed == set()
