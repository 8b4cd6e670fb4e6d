"""What a payment costs in counts: against the checked-in ceilings, and the rules that hold whatever the counts are.

Ceilings are lowered, or raised on purpose, by `PYTHONPATH=tests python -m costs.update`, with the reason in the commit.
"""

import os
import shutil
from collections import Counter
from typing import NoReturn

import pytest
from costs.ceilings import SHOW, UPDATE, load, problems, this_platform, versions
from costs.faults import (
    FAULTS,
    NO_FAULT,
    Fault,
    copy_each_read,
    fsync_each_tick,
    select_each_operation,
    send_each_frame,
)
from costs.lockstep import Tick
from costs.measure import (
    BATCHES,
    FAULTY_SIZE,
    FSYNCS,
    IDLE_COUNT,
    PROGRAMS,
    TICKS_PER_BATCH,
    WRITES,
    Batch,
    Measured,
    Run,
    counts_of,
    measure,
)
from outside_tools import unavailable

LOGS_OF_ROWS = {"GatewayTransaction.txt", "TransactionID.txt", "LogFiles.txt", "PaymentTokensData.txt"}
"""Text records in which a batch's rows lie side by side: added at the end, or tokens that were issued together."""
SERVERS = ("gateway", "bank")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    for tool in ("strace", "cc"):
        if shutil.which(tool) is None:
            unavailable(f"{tool} is missing")
    return measure(tmp_path_factory.mktemp("costs"))


# -- ceilings --------------------------------------------------------------------------------------------


def no_ceilings() -> NoReturn:
    """Skip, or fail in CI: a guard that holds nothing there would go unnoticed."""
    text = f"no ceilings for {this_platform()}; measure them there: {UPDATE}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def test_a_platform_without_ceilings_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no ceilings for"):
        no_ceilings()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no ceilings for"):
        no_ceilings()


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_count_is_above_its_ceiling_or_far_below(measured: Measured, program: str, size: int) -> None:
    ceilings = load()
    if ceilings is None:
        no_ceilings()
    found = problems(program, size, measured.counts(program, size), ceilings.payment[program][str(size)])
    advice = [f"which tick, and what in it: {SHOW} {size}", f"if it is meant: {UPDATE}"]
    if ceilings.versions != versions():
        advice.append(f"the ceilings were measured with {ceilings.versions}, and these are {versions()}")
    assert not found, "\n".join(["", *found, *advice])


def test_the_ceilings_name_every_kind_of_count() -> None:
    ceilings = load()
    if ceilings is None:
        no_ceilings()
    for program in SERVERS:
        asked = {
            "system calls",
            "fsyncs",
            "bytes read",
            "bytes written",
            "SQL statements",
            "allocations",
            "bytes copied",
        }
        assert asked <= ceilings.payment[program]["64"].keys()


# -- the guard bites -------------------------------------------------------------------------------------

CAUGHT: dict[Fault, dict[str, str]] = {
    fsync_each_tick: {"gateway": "fsyncs", "bank": "fsyncs"},
    select_each_operation: {"gateway": "SQL SELECT", "bank": "SQL SELECT"},
    copy_each_read: {"gateway": "bytes copied", "bank": "bytes copied"},
    send_each_frame: {"gateway": "sendto", "bank": "sendto"},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: FAULTS[fault].__name__)
def test_a_fault_is_caught(measured: Measured, fault: bytes) -> None:
    for program, name in CAUGHT[FAULTS[fault]].items():
        before, now = measured.counts_with(NO_FAULT, program), measured.counts_with(fault, program)
        found = problems(program, FAULTY_SIZE, now, before)
        assert any(f": {name} " in text and text.endswith("grew") for text in found), found


def test_more_and_far_less_are_problems_and_slack_is_none() -> None:
    def told(now: float) -> list[str]:
        return problems("bank", 64, {"reads": now}, {"reads": 10.0})

    assert told(10.0) == told(10.007) == told(9.0) == []
    assert told(10 + 1 / 64) == ["bank, batches of 64: reads 10 -> 10.0156 a payment (640 -> 641 a batch): grew"]
    fell = "reads 10 -> 8.99 a payment (640 -> 575.4 a batch): fell; keep the gain and lower the ceiling"
    assert told(8.99) == [f"bank, batches of 64: {fell}"]


def test_one_allocation_more_a_payment_is_a_problem_and_what_runs_differ_by_is_none() -> None:
    for ceiling in (262.6, 418.5):
        assert problems("bank", 64, {"allocations": ceiling + 1}, {"allocations": ceiling})
        assert not problems("bank", 64, {"allocations": ceiling * 1.0005}, {"allocations": ceiling})
    assert not problems("gateway", 1, {"bytes allocated": 79_300.0}, {"bytes allocated": 79_241.0})


def test_two_function_calls_more_a_batch_are_a_problem_however_many_there_are() -> None:
    assert problems("gateway", 64, {"function calls": 426.83 + 2 / 64}, {"function calls": 426.83})
    assert not problems("bank", 64, {"function calls": (20_636 + 3 / 8) / 64}, {"function calls": 20_636 / 64})


def test_one_call_more_a_batch_is_a_problem_however_rare_the_call() -> None:
    assert problems("bank", 64, {"fsyncs": 2 / 64}, {"fsyncs": 1 / 64})
    assert problems("bank", 64, {"fsyncs": 1 / 64}, {})
    assert problems("bank", 1, {}, {"fsyncs": 1.0})


# -- rules that hold whatever the counts are -------------------------------------------------------------


def ticks_of(run: Run, program: str, size: int) -> list[list[Tick]]:
    """Each batch's ticks."""
    return [batch.ticks[program] for batch in run.of_size(size)]


def writes_by_descriptor(tick: Tick) -> Counter[int | None]:
    return Counter(call.fd for call in tick.calls if call.name in WRITES)


def sends(run: Run, program: str, tick: Tick) -> Counter[int | None]:
    """Writes by socket; a descriptor that is none of the first is that of a link which came later."""
    named = run.descriptors[program]
    by_descriptor = writes_by_descriptor(tick).items()
    return Counter({fd: n for fd, n in by_descriptor if fd is None or named.get(fd, "socket:").startswith("socket:")})


@pytest.mark.parametrize("size", BATCHES)
def test_a_batch_has_three_fsyncs(measured: Measured, size: int) -> None:
    """A gateway commits that a payment begins and how it ended, the bank that it is posted; nothing else waits.

    Two more in one tick are a checkpoint: the batches have come to write so many pages that BATCHES must be fewer.
    """
    for program, fsyncs in {"gateway": [0, 1, 1, 0], "bank": [0, 1, 0], "decoder": [0]}.items():
        for ticks in ticks_of(measured.calls, program, size):
            assert [sum(call.name in FSYNCS for call in tick.calls) for tick in ticks] == fsyncs


def test_a_tick_has_one_transaction_at_most(measured: Measured) -> None:
    for program in SERVERS:
        for batch in measured.calls.batches:
            for tick in batch.ticks[program]:
                assert tick.counted.get("SQL BEGIN", 0) <= 1
                assert tick.counted.get("SQL COMMIT", 0) <= 1


@pytest.mark.parametrize("size", BATCHES)
def test_a_link_has_one_send_a_tick(measured: Measured, size: int) -> None:
    run = measured.calls
    for program, link_counts in {"gateway": [size, 1, size, 0], "bank": [0, 1, 0]}.items():
        for ticks in ticks_of(run, program, size):
            found = [sends(run, program, tick) for tick in ticks]
            assert [len(by_link) for by_link in found] == link_counts
            assert all(count == 1 for by_link in found for count in by_link.values())


@pytest.mark.parametrize("size", BATCHES)
def test_a_tick_of_receipts_has_one_signature(measured: Measured, size: int) -> None:
    for program, signatures in {"gateway": [0, 0, 0, 0], "bank": [0, 1, 0], "decoder": [0]}.items():
        for ticks in ticks_of(measured.calls, program, size):
            assert [tick.counted.get("signatures", 0) for tick in ticks] == signatures


@pytest.mark.parametrize("size", BATCHES)
def test_a_record_file_has_one_write_a_tick_and_none_before_the_reply(measured: Measured, size: int) -> None:
    """A balance in the middle of a file has a write of its own: the rows of a batch's customers lie anywhere."""
    written: set[str] = set()
    for program in SERVERS:
        names = {fd: path.rpartition("/")[2] for fd, path in measured.calls.descriptors[program].items()}
        for ticks in ticks_of(measured.calls, program, size):
            for tick in ticks:
                by_file = {names[fd]: n for fd, n in writes_by_descriptor(tick).items() if fd in names}
                records = {name: n for name, n in by_file.items() if name.endswith(".txt")}
                assert not records or tick is ticks[-1]
                assert all(n <= (1 if name in LOGS_OF_ROWS else size) for name, n in records.items()), records
                written |= records.keys()
    assert {"GatewayTransaction.txt", "PaymentTokensData.txt", "TransactionID.txt", "NetbankingUsers.txt"} <= written


@pytest.mark.parametrize("size", BATCHES)
def test_envelopes_go_to_the_decoder_in_one_write_and_come_back_in_one_read(measured: Measured, size: int) -> None:
    run = measured.calls
    for ticks in ticks_of(run, "bank", size):
        pipes = [
            [call.name for call in tick.calls if run.descriptors["bank"].get(call.fd or 0, "").startswith("pipe:")]
            for tick in ticks
        ]
        assert [len(calls) for calls in pipes] == [1, 1, 0]
    for (tick,) in ticks_of(run, "decoder", size):
        assert [call.name for call in tick.calls if call.fd in (0, 1)] == ["read", "write"]


def least(batches: list[Batch], program: str, number: int) -> dict[str, int]:
    """The least of each count in the n-th ticks of batches, since a tree's page splits in some of them.

    Without what grows with the trees and with the digits of numbers: pages and bytes.
    """
    counts = [counts_of(batch.ticks[program][number]) for batch in batches]
    names = {name for name in counts[0] if "bytes" not in name} - {"pwrite64", "system calls"}
    return {name: min(count[name] for count in counts) for name in names}


@pytest.mark.parametrize("program", SERVERS)
def test_idle_connections_cost_nothing(measured: Measured, program: str) -> None:
    """Five hundred silent links change no count of any tick: no call, no function, no allocation for each."""
    for number in range(TICKS_PER_BATCH[program]):
        run = measured.calls
        assert least(run.with_idle, program, number) == least(run.of_size(1), program, number)
        run = measured.memory
        alone, among_idle = least(run.of_size(1), program, number), least(run.with_idle, program, number)
        # Not exact: numbers above 256 are objects, and the interpreter keeps what a closed link leaves for others.
        assert among_idle["allocations"] - alone["allocations"] < IDLE_COUNT / 10
