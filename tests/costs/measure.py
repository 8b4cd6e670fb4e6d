"""Measures what a payment costs at each server, in counts: see `Counts`.

The same batches are paid in two runs, one that counts calls and one that counts memory. What comes before and after
them (start, hello, key lists, the first payments, which fill caches) is not counted.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from costs.faults import FAULTS, NO_FAULT
from costs.lockstep import Decoder, Lockstep, Program, Shoppers, Tick, create, idle_clients, idle_gateways
from costs.wire import Unsteady

from paygate.bench.orders import Order

BATCHES: Final = {64: 8, 1: 24}
"""The sizes of batches, and how many of each are counted.

So few that the stores' logs (write-ahead) stay below the thousand pages at which they are copied into the databases: a
count in which that falls into one tick or another would not be exact. The pages themselves are counted.
"""
FAULTY_SIZE: Final = 8
"""So few that TCP lets a send for each go at once: it lets ten packets wait for an acknowledgement at first."""
IDLE_COUNT: Final = 500
"""Connections that are open and silent."""
PROGRAMS: Final = ("gateway", "bank", "decoder")
TICKS_PER_BATCH: Final = {"gateway": 4, "bank": 3, "decoder": 1}
"""gateway: token queries, credentials, results, records; bank: requests, opened envelopes, records."""
ATTEMPT_COUNT: Final = 3
PATH_SIZE: Final = 120
"""Paths are padded to this: they are copied too, so that a longer one would be dearer."""

MAPPINGS: Final = frozenset({"brk", "mmap", "mremap", "munmap", "madvise"})
READS: Final = frozenset({"read", "readv", "pread64", "preadv", "recvfrom", "recvmsg"})
WRITES: Final = frozenset({"write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg"})
FSYNCS: Final = frozenset({"fsync", "fdatasync", "sync_file_range", "msync"})

Counts = Mapping[str, float]
"""What a program does for one payment, by name.

system calls            all of them, and each by its own name; those that map memory together
fsyncs                  fsync and its like
bytes read, written     by system calls, sockets and files alike
SQL statements          as SQLite runs them, and by their first word
SQL steps               instructions of SQLite's virtual machine: grow if an index is not used
signatures              Ed25519
function calls          of functions in Python, and by Python in C: what the interpreter has to do
allocations             calls of malloc and its like, and bytes allocated; see `counting.c`
bytes copied            by memcpy and memmove
"""


@dataclass(slots=True)
class Batch:
    """The ticks that one batch took, by program."""

    size: int
    ticks: dict[str, list[Tick]] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """All batches of one run."""

    batches: list[Batch]
    with_idle: list[Batch]
    """Of one payment each, while many connections are idle."""
    faulty: dict[bytes, Batch]
    """By the fault that was in the programs; NO_FAULT for the same without one."""
    descriptors: dict[str, dict[int, str]]
    """By program: what it had open."""

    def of_size(self, size: int) -> list[Batch]:
        """The batches of a size."""
        return [batch for batch in self.batches if batch.size == size]


@dataclass(frozen=True, slots=True)
class Measured:
    """Both runs."""

    calls: Run
    memory: Run

    def counts(self, program: str, size: int) -> Counts:
        """What a payment costs a program, in batches of this size."""
        return _together(self.calls.of_size(size), self.memory.of_size(size), program)

    def counts_with(self, fault: bytes, program: str) -> Counts:
        """What it costs with a fault, in a batch of FAULTY_SIZE."""
        return _together([self.calls.faulty[fault]], [self.memory.faulty[fault]], program)


def _together(calls: list[Batch], memory: list[Batch], program: str) -> Counts:
    return {**_per_payment(memory, program), **_per_payment(calls, program)}


def _per_payment(batches: list[Batch], program: str) -> dict[str, float]:
    total: Counter[str] = Counter()
    for batch in batches:
        for tick in batch.ticks[program]:
            total.update(counts_of(tick))
    count = sum(batch.size for batch in batches)
    return {name: value / count for name, value in total.items()}


def counts_of(tick: Tick) -> Counter[str]:
    """What one tick did."""
    found = Counter(tick.counted)
    for call in tick.calls:
        found["system calls"] += 1
        found["memory mapping" if call.name in MAPPINGS else call.name] += 1
        if call.name in FSYNCS:
            found["fsyncs"] += 1
        elif call.name in READS:
            found["bytes read"] += max(call.result, 0)
        elif call.name in WRITES:
            found["bytes written"] += max(call.result, 0)
    return found


# -- running ---------------------------------------------------------------------------------------------


def measure(directory: Path) -> Measured:
    """Measure, in an empty directory. Takes some ten seconds on a machine that does nothing else."""
    padding = PATH_SIZE - len(str(directory))
    assert padding > 0, f"choose a TMPDIR with a shorter path than {directory}"
    directory /= "p" * padding
    directory.mkdir()
    warm_count = 1 + max(BATCHES.values())
    order_count = sum(size * (count + 1) for size, count in BATCHES.items()) + warm_count
    orders = create(directory / "created", order_count + FAULTY_SIZE * (1 + len(FAULTS)))

    def run_in_copy(name: str, library: Path | None) -> Run:
        for number in range(ATTEMPT_COUNT):
            copied = directory / f"{name}-{number}"
            shutil.copytree(directory / "created", copied)
            try:
                return run(copied, orders, library)
            except Unsteady:
                if number == ATTEMPT_COUNT - 1:
                    raise
        raise AssertionError("an attempt returns or raises")

    return Measured(run_in_copy("calls", None), run_in_copy("memory", compile_counter(directory)))


def compile_counter(directory: Path) -> Path:
    """The shared library of `counting.c`."""
    path = directory / "counting.so"
    options = ["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fno-builtin"]
    options += ["-fno-tree-loop-distribute-patterns"]  # a loop that copies must not become a call of memcpy
    source = Path(__file__).with_name("counting.c")
    subprocess.run(["cc", *options, "-o", str(path), str(source)], check=True, timeout=60)
    return path


def run(root: Path, orders: list[Order], library: Path | None) -> Run:
    """One run; `library` if memory is to be counted. Raises Unsteady."""
    lockstep = Lockstep(root, orders, library)
    with lockstep.held():
        programs = {"gateway": lockstep.gateway, "bank": lockstep.bank}
        shoppers = Shoppers(lockstep, max(BATCHES))
        batches = _batches(programs, shoppers.pay)
        faulty = {fault: _with_fault(fault, programs, shoppers.pay) for fault in (NO_FAULT, *FAULTS)}
        idle = [*idle_clients(lockstep, IDLE_COUNT), *idle_gateways(lockstep, IDLE_COUNT)]
        shoppers.pay(1)
        with_idle = [_batch(1, programs, shoppers.pay) for _ in range(BATCHES[1])]
        for sock in idle:
            sock.close()
        shoppers.close()
    decoder = Decoder(root, library)
    with decoder.held():
        its = {"decoder": decoder.program}
        for batch, alone in zip(batches, _batches(its, decoder.open), strict=True):
            batch.ticks |= alone.ticks
        for fault, batch in faulty.items():
            batch.ticks |= _with_fault(fault, its, decoder.open).ticks
    programs |= its
    return Run(batches, with_idle, faulty, {name: program.descriptors for name, program in programs.items()})


def _batches(programs: dict[str, Program], pay: Callable[[int], None]) -> list[Batch]:
    found = []
    for size, count in BATCHES.items():
        pay(size)
        found += [_batch(size, programs, pay) for _ in range(count)]
    return found


def _batch(size: int, programs: dict[str, Program], pay: Callable[[int], None]) -> Batch:
    before = {name: len(program.ticks) for name, program in programs.items()}
    pay(size)
    return Batch(size, {name: program.ticks[before[name] :] for name, program in programs.items()})


def _with_fault(fault: bytes, programs: dict[str, Program], pay: Callable[[int], None]) -> Batch:
    for program in programs.values():
        program.put_in(fault)
    batch = _batch(FAULTY_SIZE, programs, pay)
    for program in programs.values():
        program.put_in(NO_FAULT)
    return batch
