"""The stage table against the modules, the profile against times made by hand, and real servers under stopwatches."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from paygate.bench import staged
from paygate.bench.footprint import children, processor_ns
from paygate.bench.load import Links
from paygate.bench.measure import Shoppers
from paygate.bench.orders import Clients, Order, make_customers
from paygate.bench.stages import (
    FSYNC,
    MEANINGS,
    PROGRAMS,
    RECORDS_S,
    REST,
    RUNS,
    STAGES,
    WAIT,
    YIELDING,
    NoStages,
    StageProfile,
    StageTime,
    Staging,
    profile_of,
    sum_of,
    times_of,
)
from paygate.bench.system import BANK_ID, BenchSystem, merchant_id, running
from paygate.client.root import read_root
from paygate.codec.codes import KemId

# -- the table -------------------------------------------------------------------------------------------

TARGETS = [(program, target) for program in PROGRAMS for targets in STAGES[program].values() for target in targets]


@pytest.mark.parametrize(("program", "target"), TARGETS)
def test_each_function_of_a_stage_is_there(program: str, target: str) -> None:
    owner, name, found = staged.find_target(target)
    assert getattr(owner, name) is found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_stage_means_something_and_a_function_is_in_one_stage_only(program: str) -> None:
    stages = STAGES[program]
    assert set(stages) < set(MEANINGS)
    assert REST not in stages
    assert WAIT in stages  # what is idle, and how many ticks there were
    targets = [target for targets in stages.values() for target in targets]
    assert len(targets) == len(set(targets))
    staged.find_target(RUNS[program])


def test_every_stage_that_the_issue_names_is_in_some_program() -> None:
    named = {"socket", "split", "decode", "MAC", "HPKE", "SQL", FSYNC, "records", "encode"}
    assert named <= {stage for stages in STAGES.values() for stage in stages}
    assert set(MEANINGS) == {REST}.union(*STAGES.values())
    assert set(YIELDING) <= set(MEANINGS)


@pytest.mark.parametrize(
    "target", ["paygate.codec.frame:no_such", "paygate.gone:main", "paygate.link:Link.no_such", "paygate.link:No.no"]
)
def test_a_function_that_is_gone_is_told(target: str) -> None:
    with pytest.raises(LookupError, match=f"{target} is gone"):
        staged.find_target(target)


def test_a_function_is_replaced_wherever_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def original() -> str:
        return "original"

    home, user, stranger = ModuleType("paygate.made_up"), ModuleType("paygate.user"), ModuleType("stranger")
    for module in (home, user, stranger):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(home)["original"] = vars(user)["renamed"] = vars(stranger)["original"] = original
    vars(user)["other"] = len
    staged.replace_target("paygate.made_up:original", lambda function: lambda: f"not the {function()}")
    assert vars(home)["original"]() == vars(user)["renamed"]() == "not the original"
    assert vars(user)["other"] is len
    assert vars(stranger)["original"]() == "original"


# -- the profile -----------------------------------------------------------------------------------------


def written(program: str, stages: dict[str, tuple[int, int, int]], **changes: Any) -> dict[str, Any]:
    """What a staged program writes; stages as wall ns, processor ns, calls."""
    times = {"program": program, "wall_ns": 1_000_000, "cpu_ns": 500_000, "timer_ns": 0, "ticks": 2}
    values = {stage: {"ns": ns, "cpu_ns": cpu, "calls": calls} for stage, (ns, cpu, calls) in stages.items()}
    return {**times, "stages": values, **changes}


GATEWAY = written(
    "gateway",
    {
        WAIT: (400_000, 10_000, 5),
        "socket": (60_000, 40_000, 20),
        FSYNC: (200_000, 50_000, 5),
        "decode": (300_000, 0, 30),
        REST: (40_000, 0, 0),
    },
    # Of the 340,000 ns in decode and the rest it really ran half.
    cpu_ns=10_000 + 40_000 + 50_000 + 170_000 + 7_000,
    timer_ns=7_000,
    ticks=5,
)
DECODER = written("decoder", {WAIT: (900_000, 1_000, 4), "HPKE": (499_000, 0, 10), REST: (0, 0, 0)})


def test_a_profile_is_processor_time_a_payment_with_the_fsync_told_apart() -> None:
    profile = profile_of([times_of(GATEWAY)], payment_count=10)
    gateway = profile.programs["gateway"]
    assert gateway.scale == 0.5
    assert gateway.stages_us == {"socket": 4.0, "decode": 15.0, FSYNC: 5.0, WAIT: 1.0, REST: 2.0}
    assert gateway.total_us == 27.0
    assert gateway.timer_us == 0.7
    assert gateway.cpu_us == gateway.total_us + gateway.timer_us
    assert gateway.fsync_wait_us == 15.0
    assert gateway.calls["decode"] == 3.0
    assert gateway.ticks == 0.5
    assert gateway.idle_share == 0.39


def test_the_table_has_a_row_for_each_stage_and_a_column_for_each_program() -> None:
    profile = profile_of([times_of(GATEWAY), times_of(DECODER)], payment_count=10)
    rows = {line[:20].strip(): line[20:].split() for line in profile.table().splitlines()}
    assert rows["us a payment"] == ["gateway", "decoder"]
    assert rows["decode"] == ["15.0", "-"]
    assert rows["HPKE"] == ["-", "49.9"]
    assert rows["= processor time"] == ["27.0", "50.0"]
    assert rows["waiting for fsync"] == ["15.0", "-"]
    assert rows["payments a tick"] == ["2.0", "5.0"]
    assert rows["had its core"] == ["50%", "100%"]
    assert "MAC" not in rows
    stages = [name for name in rows if name in MEANINGS]
    assert stages == [stage for stage in MEANINGS if stage in stages]


def test_a_profile_is_json() -> None:
    profile = profile_of([times_of(GATEWAY)], payment_count=10)
    value = json.loads(json.dumps(profile.to_json()))
    assert value["payment_count"] == 10
    assert value["programs"]["gateway"]["stages_us"]["decode"] == 15.0
    assert value["programs"]["gateway"]["total_us"] == 27.0


def test_several_decoders_add_up() -> None:
    both = sum_of([times_of(DECODER), times_of(DECODER)])
    assert both.stages["HPKE"] == StageTime(998_000, 0, 20)
    assert (both.cpu_ns, both.ticks, both.wall_ns) == (1_000_000, 4, 1_000_000)


def write(directory: Path, name: str, value: dict[str, Any]) -> None:
    (directory / name).write_text(json.dumps(value), encoding="ascii")


def test_a_decoder_that_opened_nothing_is_left_out(tmp_path: Path) -> None:
    idle = written("decoder", {WAIT: (900, 0, 4), "HPKE": (0, 0, 0), REST: (70_000, 0, 0)})
    write(tmp_path, "bank.decoder-1.json", idle)
    write(tmp_path, "bank.decoder-2.json", DECODER)
    write(tmp_path, "gateway.json", GATEWAY)
    profile = Staging(tmp_path).profile(10)
    assert list(profile.programs) == ["gateway", "decoder"]
    assert profile.programs["decoder"].stages_us["HPKE"] == 49.9


def test_a_decoder_that_is_still_ending_is_waited_for(tmp_path: Path) -> None:
    write(tmp_path, "bank.decoder-1.json", {"program": "decoder", "pid": os.getpid()})
    timer = threading.Timer(0.1, write, (tmp_path, "bank.decoder-1.json", DECODER))
    timer.start()
    assert Staging(tmp_path).profile(10).programs["decoder"].calls["HPKE"] == 1.0
    timer.join()


def test_a_program_that_was_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paygate.bench.stages.DECODERS_S_MAX", 0)
    write(tmp_path, "gateway.json", {"program": "gateway", "pid": os.getpid()})
    with pytest.raises(NoStages, match=r"gateway\.json: was the program killed"):
        Staging(tmp_path).profile(10)


# -- real processes --------------------------------------------------------------------------------------

PAYMENT_COUNT = 400
CONNECTION_COUNT = 32
WARM_COUNT = 100
IDLE_S = 0.5
"""What the programs live on after the last answer."""


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchSystem, Iterator[Order]]:
    """A system with accounts and orders, which is not started."""
    system = BenchSystem(tmp_path_factory.mktemp("stages") / "system")
    system.create()
    customers = make_customers(3, seed=1)
    system.add_accounts(customers)
    count = 2 * (WARM_COUNT + PAYMENT_COUNT)
    orders = [Order(f"TX{n}", "1234", merchant_id(n % 3), 100 + n, customers[n % 3]) for n in range(count)]
    system.add_orders(orders)
    return system, iter(orders)


def pay(
    system: BenchSystem,
    orders: Iterator[Order],
    before_clock: Callable[[], None],
    after_clock: Callable[[], None],
) -> None:
    """Some payments, then those that count."""
    assert system.gateway is not None
    links = Links(system.gateway.address, CONNECTION_COUNT)
    with ThreadPoolExecutor(1) as executor:
        shoppers = Shoppers(
            links,
            orders,
            executor,
            bank_id=BANK_ID,
            root_key=read_root(system.root_key_path).public_key,
            choose=lambda key_list: next(k for k in key_list.suite_keys if k.kem_id is KemId.X25519),
            clients=Clients.SEALING,
        )
        shoppers.drive(WARM_COUNT)
        shoppers._before_clock, shoppers._after_clock = before_clock, after_clock
        shoppers.drive(PAYMENT_COUNT)
    links.close()


@pytest.fixture(scope="module")
def plain_us(created: tuple[BenchSystem, Iterator[Order]]) -> dict[str, float]:
    """Processor time of a payment without stopwatches, by program, as the system says."""
    system, orders = created
    spent_ns: dict[str, int] = {}

    def look(sign: int) -> None:
        time.sleep(RECORDS_S)
        assert system.gateway is not None
        assert system.bank is not None
        bank_pid = system.bank.process.pid
        pids = {"gateway": [system.gateway.process.pid], "bank": [bank_pid], "decoder": children(bank_pid)}
        for program, of_program in pids.items():
            spent_ns[program] = spent_ns.get(program, 0) + sign * sum(map(processor_ns, of_program))

    with running(system):
        pay(system, orders, lambda: look(-1), lambda: look(1))
    return {program: ns / 1000 / PAYMENT_COUNT for program, ns in spent_ns.items()}


@pytest.fixture(scope="module")
def ended_s() -> list[float]:
    """How long the counted part of the run took, and how long the programs lived on after it."""
    return []


@pytest.fixture(scope="module")
def run(
    created: tuple[BenchSystem, Iterator[Order]], plain_us: dict[str, float], ended_s: list[float]
) -> tuple[StageProfile, dict[str, Any]]:
    """The profile of a run with some payments before it began, and all that the programs wrote."""
    system, orders = created
    directory = system.root / "stages"
    directory.mkdir()
    staging = Staging(directory)
    system.bank_argv, system.gateway_argv = staging.argv("bank"), staging.argv("gateway")
    times_s = []

    def begin() -> None:
        staging.begin()
        times_s.append(time.monotonic())

    def end() -> None:
        staging.end()
        times_s.append(time.monotonic())

    with running(system):
        pay(system, orders, begin, end)
        time.sleep(IDLE_S)
    ended_s += [times_s[1] - times_s[0], time.monotonic() - times_s[1]]
    profile = staging.profile(PAYMENT_COUNT)
    return profile, {path.stem: json.loads(path.read_bytes()) for path in sorted(directory.glob("*.json"))}


def times_by_program(files: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in files.values():
        if one["program"] != "decoder" or one["stages"]["HPKE"]["calls"]:
            yield one["program"], one


def test_a_payment_goes_through_every_function_of_every_stage(run: tuple[StageProfile, dict[str, Any]]) -> None:
    programs = []
    for program, times in times_by_program(run[1]):
        programs.append(program)
        for stage, one in times["stages"].items():
            assert one["calls"] > 0 or stage == REST, f"{program}: no call of {stage}"
            assert one["ns"] > 0, f"{program}: {stage} took no time"
            for target, spent in one["targets"].items():
                # Which of a library's functions are used is for the servers to choose.
                is_ours = target.startswith("paygate.")
                assert spent["calls"] > 0 or not is_ours, f"{program} does not call {target}: see paygate/bench/stages"
    assert sorted(programs) == sorted(PROGRAMS)


def test_only_what_came_after_the_beginning_is_counted(run: tuple[StageProfile, dict[str, Any]]) -> None:
    assert run[0].programs["decoder"].calls["HPKE"] == 1.0
    # One for each payment, and nothing of what was paid before.
    assert run[0].programs["decoder"].calls["decode"] == 1.0


def test_every_moment_of_the_run_is_in_one_stage_or_is_the_timings_own(
    run: tuple[StageProfile, dict[str, Any]],
) -> None:
    for program, times in times_by_program(run[1]):
        told_ns = sum(one["ns"] for one in times["stages"].values()) + times["timer_ns"]
        assert told_ns == times["wall_ns"], program
    for program, profile in run[0].programs.items():
        assert min(profile.stages_us.values()) > 0
        # Two clocks that know nothing of each other: wall time outside of waits, and the system's processor time.
        assert 0 < profile.scale < 1.3, program
        assert 0 < profile.idle_share < 1


def test_the_stages_are_what_the_programs_take_without_stopwatches(
    run: tuple[StageProfile, dict[str, Any]], plain_us: dict[str, float]
) -> None:
    for program, profile in run[0].programs.items():
        # Two runs on a busy machine differ by a third; what a stage counted twice would add is more.
        assert 0.6 < profile.total_us / plain_us[program] < 1.7, program


def test_what_comes_after_the_last_answer_is_no_payments(
    run: tuple[StageProfile, dict[str, Any]], ended_s: list[float]
) -> None:
    counted_s, lived_on_s = ended_s
    for program, times in times_by_program(run[1]):
        assert times["wall_ns"] / 1e9 < counted_s + lived_on_s / 2, program


def test_a_durable_payment_waits_for_the_disk(run: tuple[StageProfile, dict[str, Any]]) -> None:
    for program in ("gateway", "bank"):
        assert run[0].programs[program].calls[FSYNC] > 0
        assert run[0].programs[program].fsync_wait_us > 0
    assert FSYNC not in run[0].programs["decoder"].stages_us


def test_the_table_of_a_run_shows_every_stage(run: tuple[StageProfile, dict[str, Any]]) -> None:
    shown = {line[:20].strip() for line in run[0].table().splitlines()}
    assert set(MEANINGS) <= shown


def test_a_staged_program_that_fails_ends_as_it_would_and_says_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "bank.json"
    argv = Staging(tmp_path).argv("bank")
    done = subprocess.run(
        [*argv, "serve", "--state", str(tmp_path / "nowhere")], capture_output=True, timeout=60, check=False
    )
    plain = subprocess.run(
        [sys.executable, "-P", "-m", "paygate.bank", "serve", "--state", str(tmp_path / "nowhere")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    assert done.returncode != 0
    assert json.loads(path.read_bytes())["wall_ns"] == 0
    with pytest.raises(NoStages, match=r"bank\.json: did the program fail to start"):
        Staging(tmp_path).profile(1)
