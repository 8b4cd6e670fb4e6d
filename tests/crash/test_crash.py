"""The failpoints are where they should be; a short campaign holds; and one with a bug put in is found out."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from crash.__main__ import main
from crash.cases import Case, all_pairs
from crash.hooks import find
from crash.points import DISK, DISK_OPERATIONS, POINTS, SQL, points_of
from crash.system import Death

TESTS = Path(__file__).parent.parent
CAMPAIGN_S_MAX = 240
"""What takes ten seconds on a machine of its own, beside a dozen of busy programs."""


def run_crash(*arguments: str) -> "subprocess.CompletedProcess[str]":
    # A process of its own: one that forks should have no threads, and pytest's workers have some.
    return subprocess.run(
        [sys.executable, "-m", "crash", *arguments],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=CAMPAIGN_S_MAX,
        check=False,
    )


def test_every_failpoint_is_at_a_function_that_is_there() -> None:
    for point in POINTS.values():
        for target in filter(None, (point.target, point.within)):
            if target.startswith(f"{DISK}:"):
                assert target.removeprefix(f"{DISK}:") in DISK_OPERATIONS
            elif not target.startswith(f"{SQL}:"):
                assert callable(find(target)[2])
        assert point.meaning


def test_every_program_dies_before_and_after_what_it_does() -> None:
    by_program = Counter(point.program for point in POINTS.values())
    assert len(POINTS) >= 60
    assert min(by_program[name] for name in ("bank", "gateway", "client")) >= 20
    for point in POINTS.values():
        if not point.is_after and not point.target.startswith(f"{SQL}:"):
            assert point.name.replace(".before", ".after") in POINTS


def test_all_pairs_of_two_programs_are_there_once() -> None:
    pairs = list(all_pairs())
    bank, gateway, client = points_of("bank", "serve"), points_of("gateway", "serve"), points_of("client", "pay")
    assert len(pairs) == len(bank) * len(gateway) + (len(bank) + len(gateway)) * len(client)
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    "text", ["7/-/bank@bank.commit.before:2,gateway@call:pwrite64:3", "7/endure/client@client.pay.save.after:1"]
)
def test_a_case_is_replayed_by_its_text(text: str) -> None:
    assert str(Case.parse(text)) == text


def test_a_case_that_names_no_point_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--case", "7/bank@bank.nothing:1"])
    assert ended.value.code == 2
    assert "there is no point bank.nothing" in capsys.readouterr().err


def test_a_launched_program_dies_at_its_failpoint_and_nowhere_else() -> None:
    command = [sys.executable, "-m", "crash.launch", "client", "--die-at", "client.pay.told.before", "--", "list"]
    done = subprocess.run(
        [*command, "--state", "/nonexistent"],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"there is no state directory" in done.stderr) == (22, True)
    assert Death.parse("client@client.pay.told.before:1").deaths == {"client.pay.told.before": 1}


def test_a_short_campaign_holds(tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    done = run_crash("--seed", "3", "--sample", "16", "--workers", "4", "--json", str(counts))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(counts.read_text(encoding="utf-8"))
    assert told["kills"] >= 16
    assert told["violations"] == 0
    assert told["payments"] > 20


@pytest.mark.parametrize(
    ("mutant", "case", "invariant"),
    [
        # Before the payment is on record: what is missing from a ledger beside that, a start refuses by itself.
        ("reply-before-commit", "1/bank@bank.records.before:3", "I3"),
        ("release-without-asking", "1/gateway@gateway.begun.after:3", "I"),
        ("send-before-saving", "1/client@client.pay.send.after:3", "I6"),
        ("other-payer-on-record", "1/bank@bank.records.after:2", "I8"),
    ],
)
def test_a_bug_that_is_put_in_is_found(mutant: str, case: str, invariant: str) -> None:
    done = run_crash("--mutant", mutant, "--case", case)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"FAILED round 1: {invariant}" in done.stdout
    assert f"--mutant {mutant} --case '{case}'" in done.stdout
