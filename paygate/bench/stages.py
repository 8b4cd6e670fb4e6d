"""Where the time of a payment goes: the stages, the functions that make them up, and the profile of a run.

`staged.py` runs a server with a stopwatch around the functions that are named here, and writes what each took; this
reads it. The servers themselves hold no line of this.

A stage's time is exclusive: what another stage takes within it is the other's. It is processor time. Where a process
gives its processor away, because it waits or because it wakes another, that is measured; its wait for the disk is told
apart, and its wait for input is no payment's. All other stages are timed by the wall clock, which costs a tenth. That
is the same unless the process was preempted, so they are scaled by the share of their time in which it really ran.
"""

import json
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from paygate.children import child_argv
from paygate.cli import PaygateExit
from paygate.files.text_records import WRITE_DELAY_MS

Targets = tuple[str, ...]
"""Functions and methods as `module:qualified.name`."""

REST: Final = "rest"
"""What no stage takes: above all the shell's tick."""
WAIT: Final = "wait"
FSYNC: Final = "fsync"
YIELDING: Final = (WAIT, FSYNC, "socket", "pipe")
"""Stages whose functions wait for something or wake another process: their processor time is measured besides."""

MEANINGS: Final = {
    "socket": "system calls that read and write sockets",
    "pipe": "reading and writing the pipes between bank and decoder",
    "split": "bytes to frames and their messages, all of a read in one loop: header checks, checksum, bodies",
    "decode": "what an envelope held to a record",
    "MAC": "HMAC of frames, made and checked",
    "link": "the link's state: correlation, deadlines, output",
    "HPKE": "opening the envelope, info included",
    "verifier": "HMAC of the password key",
    "core": "the role's decisions about requests and answers",
    "store": "decisions about tokens, payments and balances, and their rows",
    "SQL": "SQLite without its fsync",
    FSYNC: "SQLite's fsync",
    "receipts": "Merkle tree and signature of receipts",
    "chain": "the hash chain over the ledger's rows",
    "records": "the text records",
    "encode": "messages to frames, and terms to bytes",
    WAIT: "waiting for input: epoll; the decoder's read",
    "loop": "the event loop and the connections' state",
    REST: "the shell's tick, and what is in no other stage",
}
"""All stages, in the order of the table."""

# A library's functions, whichever of them the servers use; a connection's own go through its cursors' too.
_SQL: Final = (
    "apsw:Cursor.execute",
    "apsw:Cursor.executemany",
    "apsw:Cursor.fetchone",
    "apsw:Cursor.fetchall",
    "apsw:Cursor.__next__",
)
_SHARED: Final[dict[str, Targets]] = {
    WAIT: ("selectors:EpollSelector.select",),
    "socket": ("socket:socket.recv_into", "socket:socket.send"),
    "loop": ("paygate.net.loop:Loop.run_once", "paygate.net.loop:Loop.flush", "paygate.net.conn:Connection.send"),
    "split": ("paygate.codec.frame:decode_frames",),
    "link": (
        "paygate.links:LinkTable.receive_data",
        "paygate.links:LinkTable.effects",
        "paygate.link:Link.receive_data",
        "paygate.links:LinkTable.send_reply",
    ),
    "MAC": ("paygate.codec.frame:frame_mac",),
    "encode": ("paygate.codec.frame:encode_frame", "paygate.codec.frame:encode_record"),
    "SQL": _SQL,
    FSYNC: ("apsw:VFSFile.xSync",),
}
STAGES: Final[dict[str, dict[str, Targets]]] = {
    "gateway": {
        **_SHARED,
        "link": (*_SHARED["link"], "paygate.links:LinkTable.send_request"),
        "core": ("paygate.gateway.core:GatewayCore.receive_data", "paygate.gateway.core:GatewayCore.committed"),
        "store": ("paygate.gateway.sqlite_tokens:SqliteTokens.apply",),
        "records": ("paygate.gateway.records:GatewayRecords.note", "paygate.gateway.records:GatewayRecords.write"),
    },
    "bank": {
        **_SHARED,
        "pipe": ("os:readv", "paygate.net.child:Child.flush_output"),
        "core": (
            "paygate.bank.core:BankCore.receive_data",
            "paygate.bank.core:BankCore.committed",
            "paygate.bank.core:BankCore.decoded",
            "paygate.bank.decoding:DecoderProcess.open_envelope",
        ),
        "store": ("paygate.bank.sqlite_ledger:SqliteLedger.apply",),
        "receipts": ("paygate.codec.seal:sign_receipts",),
        "chain": ("paygate.audit.row_hash:chained",),
        "records": ("paygate.bank.records:BankRecords.note", "paygate.bank.records:BankRecords.write"),
    },
    "decoder": {
        WAIT: ("os:read",),
        "pipe": ("paygate.files.durable:write_all",),
        "split": _SHARED["split"],
        "decode": ("paygate.codec.frame:decode_record",),
        "HPKE": ("paygate.codec.seal:decrypt_envelope",),
        "core": ("paygate.bank.decoder:Decoder.answers",),
        "verifier": ("paygate.codec.seal:verifier_of",),
        "encode": ("paygate.codec.frame:encode_frame", "paygate.codec.frame:encode_record"),
    },
}
"""Each program's stages, the rest apart: every one of these functions is called for a payment."""
RUNS: Final = {
    "gateway": "paygate.shell:Server.run",
    "bank": "paygate.shell:Server.run",
    "decoder": "paygate.bank.decoder:serve_frames",
}
"""The function of each program that is the run: start and end are not counted."""
PROGRAMS: Final = tuple(STAGES)

BEGIN_SIGNAL: Final = signal.SIGUSR2
"""Has a staged program forget what it has counted so far."""
END_SIGNAL: Final = signal.SIGUSR1
"""Has it count no more."""
RECORDS_S: Final = 2 * WRITE_DELAY_MS / 1000
"""After the last answer, until the text records have what the payments changed: that too is a payment's time."""
DECODERS_S_MAX: Final = 5
"""A decoder ends when it sees that its bank has; then its times are there."""
_POLL_S: Final = 0.02


class NoStages(PaygateExit):
    """A staged program left no times: it was killed, or did not run long enough to begin."""


# -- what a staged program writes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageTime:
    """What one stage took in one process's run."""

    ns: int
    """Wall time, exclusive of other stages and of the timing itself."""
    cpu_ns: int
    """Processor time, of yielding stages only; 0 for the others."""
    calls: int


@dataclass(frozen=True, slots=True)
class ProgramTimes:
    """What a staged program wrote at its end. Several decoders of one bank add up to one."""

    program: str
    stages: dict[str, StageTime]
    wall_ns: int
    """The run's: from its begin to its end."""
    cpu_ns: int
    """The process's processor time in the run, timing included."""
    timer_ns: int
    """What the timing cost, by its calls and the cost of one that was measured at the start."""
    ticks: int
    """How often it waited for input."""

    @property
    def scale(self) -> float:
        """Which share of the time in all but the yielding stages the process really ran: 1 with a core of its own."""
        ran_ns = self.cpu_ns - self.timer_ns - sum(self.stages[s].cpu_ns for s in YIELDING if s in self.stages)
        busy_ns = sum(time.ns for stage, time in self.stages.items() if stage not in YIELDING)
        return ran_ns / busy_ns if busy_ns else 1.0


def times_of(written: Mapping[str, Any]) -> ProgramTimes:
    """The times out of a staged program's JSON. Raises KeyError if it is none."""
    stages = {stage: StageTime(time["ns"], time["cpu_ns"], time["calls"]) for stage, time in written["stages"].items()}
    return ProgramTimes(
        *(written["program"], stages),
        *(written["wall_ns"], written["cpu_ns"], written["timer_ns"], written["ticks"]),
    )


def sum_of(times: Sequence[ProgramTimes]) -> ProgramTimes:
    """Several processes of one program as one, which waited when they did."""
    first = times[0]
    stages = {
        stage: StageTime(
            sum(t.stages[stage].ns for t in times),
            sum(t.stages[stage].cpu_ns for t in times),
            sum(t.stages[stage].calls for t in times),
        )
        for stage in first.stages
    }
    return ProgramTimes(
        first.program,
        stages,
        max(t.wall_ns for t in times),
        sum(t.cpu_ns for t in times),
        sum(t.timer_ns for t in times),
        sum(t.ticks for t in times),
    )


# -- the profile -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProgramProfile:
    """One program's part in a payment, in microseconds a payment."""

    stages_us: dict[str, float]
    """Processor time of each stage, scaled where the process was preempted; in the order of MEANINGS."""
    calls: dict[str, float]
    """Calls of each stage's functions; the rest has none."""
    fsync_wait_us: float
    """How long it waited for the disk: a part of a tick's time that a payment shares with others."""
    timer_us: float
    """What the timing cost; in no stage."""
    cpu_us: float
    """Processor time of the process as the system measured it, by which the stages are scaled: all, and the timing."""
    scale: float
    """See `ProgramTimes.scale`."""
    ticks: float
    idle_share: float
    """Which share of the run's wall time it waited for input."""

    @property
    def total_us(self) -> float:
        """All stages: what the program takes of a processor for a payment when it isn't timed."""
        return sum(self.stages_us.values())


@dataclass(frozen=True, slots=True)
class StageProfile:
    """Where the time of a payment went, in each program that had a part in it."""

    payment_count: int
    programs: dict[str, ProgramProfile]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for reports and plots."""
        programs = {name: {**asdict(p), "total_us": p.total_us} for name, p in self.programs.items()}
        return {"payment_count": self.payment_count, "programs": programs}

    def table(self) -> str:
        """As text: a row for each stage, a column for each program, in microseconds a payment.

        The rows below the stages tell how they came about: the timing that was taken off, and which share of its busy
        time a process had a core, by which the stages are scaled.
        """
        columns = list(self.programs.values())
        used = [stage for stage in MEANINGS if any(stage in p.stages_us for p in columns)]
        rows = [_row("us a payment", list(self.programs))]
        rows += [_row(stage, [_us(p.stages_us.get(stage)) for p in columns]) for stage in used]
        rows.append(_row("= processor time", [_us(p.total_us) for p in columns]))
        rows.append(_row("waiting for fsync", [_us(p.fsync_wait_us or None) for p in columns]))
        rows.append(_row("(timing, left out)", [_us(p.timer_us) for p in columns]))
        rows.append(_row("payments a tick", [f"{1 / p.ticks:.1f}" if p.ticks else "-" for p in columns]))
        rows.append(_row("had its core", [f"{p.scale:.0%}" for p in columns]))
        rows.append(_row("idle", [f"{p.idle_share:.0%}" for p in columns]))
        return "".join(f"{row}\n" for row in rows)


def profile_of(times: Iterable[ProgramTimes], payment_count: int) -> StageProfile:
    """The profile of a run of so many payments."""
    return StageProfile(payment_count, {t.program: _program_profile(t, payment_count) for t in times})


def _program_profile(times: ProgramTimes, payment_count: int) -> ProgramProfile:
    def us(ns: float) -> float:
        return ns / 1e3 / payment_count

    scale = times.scale
    stages_us = {
        stage: us(times.stages[stage].cpu_ns if stage in YIELDING else times.stages[stage].ns * scale)
        for stage in MEANINGS
        if stage in times.stages
    }
    fsync = times.stages.get(FSYNC, StageTime(0, 0, 0))
    wait = times.stages[WAIT]
    return ProgramProfile(
        stages_us=stages_us,
        calls={stage: times.stages[stage].calls / payment_count for stage in stages_us},
        fsync_wait_us=us(fsync.ns - fsync.cpu_ns),
        timer_us=us(times.timer_ns),
        cpu_us=us(times.cpu_ns),
        scale=scale,
        ticks=times.ticks / payment_count,
        idle_share=(wait.ns - wait.cpu_ns) / times.wall_ns,
    )


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:<20}" + "".join(f"{cell:>10}" for cell in cells)


# -- a run -----------------------------------------------------------------------------------------------


class Staging:
    """The staged programs of one run, which write into one directory."""

    def __init__(self, directory: Path) -> None:
        """The directory must exist, and hold nothing of another run."""
        self._directory = directory

    def argv(self, program: str) -> list[str]:
        """The command of a server's program, to which its own arguments are added."""
        return [*staged_argv(program, self._directory / f"{program}.json")]

    def begin(self) -> None:
        """Have the programs, which run and are idle, forget what they have counted so far."""
        self._send(BEGIN_SIGNAL)

    def end(self) -> None:
        """Have the programs, whose last answer has come, count no more once the text records are written.

        What comes then, links that are closed and the time until the servers are stopped, is no payment's.
        """
        time.sleep(RECORDS_S)
        self._send(END_SIGNAL)

    def _send(self, number: signal.Signals) -> None:
        for path in self._directory.glob("*.json"):
            pid = json.loads(path.read_bytes()).get("pid")
            if pid is not None:  # It has not ended.
                os.kill(pid, number)
        time.sleep(_POLL_S)

    def profile(self, payment_count: int) -> StageProfile:
        """The profile, once the servers have ended. Raises NoStages."""
        deadline_s = time.monotonic() + DECODERS_S_MAX
        while True:
            written = {path.name: json.loads(path.read_bytes()) for path in self._directory.glob("*.json")}
            waited_for = [name for name, one in written.items() if "stages" not in one]
            if not waited_for:
                break
            if time.monotonic() > deadline_s:
                raise NoStages(f"no stage times in {', '.join(waited_for)}: was the program killed?")
            time.sleep(_POLL_S)
        by_program: dict[str, list[ProgramTimes]] = {program: [] for program in PROGRAMS}
        for name, one in written.items():
            times = times_of(one)
            if not times.wall_ns:
                raise NoStages(f"no stage times in {name}: did the program fail to start?")
            # A decoder that opened nothing only made the verifiers of new passwords.
            if times.program != "decoder" or times.stages["HPKE"].calls:
                by_program[times.program].append(times)
        return profile_of((sum_of(times) for times in by_program.values() if times), payment_count)


def staged_argv(program: str, path: Path, *arguments: str) -> tuple[str, ...]:
    """The command that runs a program with these arguments staged, and writes its times to `path`."""
    return child_argv("paygate.bench.staged", program, "--stages-out", str(path), "--", *arguments)
