"""The simulator: one seed is one run, faults happen and are survived, and what fails is told with how to replay it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import build_terms
from sim.__main__ import main
from sim.faults import Fault, FaultKind, draw_conditions, fair
from sim.keys import ROOT, MemoryDecoder, key_of_password, seal, signed_key_list, suite_key_of, verifier
from sim.model import Model
from sim.plan import draw_plan
from sim.runner import Report, Totals, run_seed, run_seeds
from sim.world import World

from paygate.codec.codes import SealStatus
from paygate.codec.messages import OpenedEnvelope, OpenEnvelope, SealCredentials
from paygate.codec.seal import open_envelope, verify_key_list

ROOT_DIR = Path(__file__).parent.parent.parent
SEED_COUNT = 40


def run_program(*arguments: str, hash_seed: str = "0") -> subprocess.Popen[str]:
    """The program in a process of its own."""
    path = os.pathsep.join(str(ROOT_DIR / name) for name in (".", "tests", "scripts"))
    return subprocess.Popen(
        [sys.executable, "-m", "sim", *arguments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(*arguments: str, hash_seed: str = "0") -> tuple[int, str]:
    """How the program ends, and all that it prints."""
    process = run_program(*arguments, hash_seed=hash_seed)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


# -- campaigns -------------------------------------------------------------------------------------------


def test_all_invariants_hold_and_everything_that_can_happen_does() -> None:
    totals = Totals()

    def take(report: Report) -> bool:
        totals.add(report)
        return True

    run_seeds(range(1, SEED_COUNT + 1), 1, take)
    assert [f"{report.seed}: {report.failure}" for report in totals.failures] == []
    counts = totals.counts
    for name in ("posted", "declined", "fenced"):
        assert counts[f"payments {name}"] > 0, name
    assert counts["payments authorised"] >= 5 * SEED_COUNT
    assert counts["doubts ended"] > SEED_COUNT / 4
    assert counts["restarts"] > SEED_COUNT
    assert counts["writes lost"] + counts["writes torn"] > 0
    assert {kind.value for kind in FaultKind if not counts[kind.value]} == set()
    text = "\n".join(totals.lines(1.0))
    assert f"{SEED_COUNT} seeds" in text
    assert "violations: 0" in text


def test_where_nothing_fails_every_shopper_pays() -> None:
    seed = next(seed for seed in range(1_000) if is_calm_and_plain(seed))
    world = World(seed, Model())
    world.run()
    assert world.is_faultless
    tokens = {(one.token.gateway_id, one.token.token.transaction_id) for one in world.plan.shopping}
    assert world.counts["payments posted"] == len(tokens) > 0
    assert world.happened == []


def is_calm_and_plain(seed: int) -> bool:
    """Whether nothing goes wrong in this world, and nobody is poor or clumsy."""
    world = World(seed, Model())
    world.close()
    is_plain = all(
        one.wrong_passcode_count == one.wrong_password_count == 0 and one.customer.amount_minor > 10**7
        for one in world.plan.shopping
    )
    return world.is_faultless and is_plain


# -- one seed, one run -----------------------------------------------------------------------------------


def test_a_seed_is_the_same_run_in_another_process_with_other_hashes() -> None:
    arguments = ("--seed", "5", "--runs", "4", "--digest")
    (code, first), (other_code, second) = (output_of(*arguments, hash_seed=seed) for seed in ("1", "2"))
    assert code == other_code == 0, first

    def digests(output: str) -> list[str]:
        return [line for line in output.splitlines() if line.startswith(("seed ", "digest "))]

    assert digests(first) == digests(second)
    assert len({line.split()[-1] for line in digests(first)}) == 5  # each run its own, and all together
    assert run_seed(6).digest in first


def test_faults_that_are_left_out_leave_the_others_where_they_were() -> None:
    seed = next(seed for seed in range(100) if len(conditions_of(seed)) > 5)
    every = conditions_of(seed)
    left_out = frozenset(fault.index for fault in every[::2])
    world = World(seed, Model(), disabled=left_out)
    world.run()
    assert world.happened == [fault for fault in every if fault.index not in left_out]
    nothing = World(seed, Model(), disabled=frozenset(fault.index for fault in every))
    nothing.run()
    assert nothing.happened == []
    assert nothing.digest() != world.digest()


def conditions_of(seed: int) -> Sequence[Fault]:
    """What goes wrong with this seed."""
    world = World(seed, Model())
    world.close()
    return world.conditions.faults


def test_some_seeds_are_calm_some_extreme_and_most_in_between() -> None:
    drawn = [draw_conditions(random.Random(f"{n}"), ["A", "B"], ["C"], 60_000) for n in range(300)]
    calm = [conditions for conditions in drawn if conditions.is_calm]
    assert 10 <= len(calm) <= 60
    assert all(not conditions.faults and conditions.weather is fair for conditions in calm)
    kinds = [len({fault.kind for fault in conditions.faults}) for conditions in drawn]
    assert kinds.count(len(FaultKind)) >= 10
    assert sum(2 <= count <= 9 for count in kinds) > 150
    for conditions in drawn:
        assert [fault.index for fault in conditions.faults] == list(range(len(conditions.faults)))
        assert [fault.at_ms for fault in conditions.faults] == sorted(fault.at_ms for fault in conditions.faults)


def test_plans_differ_and_hold_what_is_wanted() -> None:
    plans = [draw_plan(random.Random(f"{n}")) for n in range(200)]
    assert all(2 <= len(plan.customers) <= 6 and 1 <= len(plan.merchants) <= 3 for plan in plans)
    assert all(4 <= len(plan.tokens) <= 18 and len(plan.shopping) >= len(plan.tokens) for plan in plans)
    assert 0.1 < sum(plan.has_evil_client for plan in plans) / len(plans) < 0.35
    assert 0.1 < sum(any(g.is_evil for g in plan.gateways) for plan in plans) / len(plans) < 0.4
    assert any(len(plan.shopping) > len(plan.tokens) for plan in plans)
    assert any(plan.has_ending_tokens for plan in plans)


# -- keys ------------------------------------------------------------------------------------------------


def test_the_bank_opens_what_a_customer_seals_here() -> None:
    key = suite_key_of(3)
    suite_key = key.public_suite_key()
    key_list = verify_key_list(signed_key_list(3, with_older=True), ROOT.public_key, ROOT.bank_id, None)
    assert [k.key_id for k in key_list.suite_keys] == [k.public_suite_key().key_id for k in (key, suite_key_of(2))]
    request = SealCredentials(suite_key, key_list.password_key, build_terms(), "asha", "correct horse")
    envelope = seal(request, random.Random(1))
    assert envelope == seal(request, random.Random(1)) != seal(request, random.Random(2))
    opened = open_envelope(key, suite_key.key_id, build_terms(), envelope)
    assert (opened.user_id, opened.password_key) == ("asha", key_of_password("asha", "correct horse"))
    decoder = MemoryDecoder([key])
    question = OpenEnvelope(suite_key.key_id, build_terms(), envelope)
    expected = OpenedEnvelope(SealStatus.DONE, "asha", verifier("asha", "correct horse"))
    assert decoder.answer(question) == expected
    decoder.hold([suite_key_of(4)])
    answer = decoder.answer(question)
    assert isinstance(answer, OpenedEnvelope)
    assert answer.status is SealStatus.KEY_RETIRED


# -- the program -----------------------------------------------------------------------------------------


def test_a_failure_is_told_with_its_faults_its_ladder_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Only a rotation of keys is needed for this.
    seed = next(s for s in range(100) if any(f.kind is FaultKind.ROTATE_KEYS for f in conditions_of(s)))

    def fail(self: object, *arguments: object) -> None:
        raise RuntimeError("keys must not change")

    monkeypatch.setattr("sim.bank.BankMachine.rotate_keys", fail)
    assert main(["--seed", str(seed), "--runs", "1"]) == 1
    output = capsys.readouterr().out
    assert f"seed {seed} failed: RuntimeError: keys must not change" in output
    assert "violations: 1" in output
    assert "1 faults" in output
    assert "ROTATE_KEYS" in output
    assert "HELLO" in output.upper().split("LADDER:")[1]
    replay = output.splitlines()[-1]
    assert replay.startswith(f"replay: make sim SEED={seed} RUNS=1")
    without = replay.partition("WITHOUT=")[2]
    arguments = ["--without", without] if without else []
    assert main(["--seed", str(seed), *arguments]) == 1


def test_jobs_share_the_seeds_out_and_come_to_the_same() -> None:
    arguments = ("--seed", "40", "--runs", "8", "--digest")
    code, alone = output_of(*arguments)
    assert code == 0, alone
    _, shared = output_of(*arguments, "--jobs", "2")
    assert [line for line in alone.splitlines() if "digest" in line] == [
        line for line in shared.splitlines() if "digest" in line
    ]


def test_an_interrupt_tells_what_was_done_so_far() -> None:
    process = run_program("--runs", "1000000", "--jobs", "2")
    assert process.stdout is not None
    assert process.stdout.readline() == "seeds 1 to 1000000, by 2 processes\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "simulated hours" in output


@pytest.mark.parametrize(
    "arguments", [["--runs", "0"], ["--seed", "-1"], ["--without", "3", "--runs", "2"], ["--without", "x"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code not in (0, None)
    assert "--" in f"{capsys.readouterr().err}{caught.value.code}"
