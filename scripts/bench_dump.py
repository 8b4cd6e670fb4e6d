"""Compare the speed of `paygate-dump` with that of tshark and our dissector, on one capture of 100,000 frames.

The capture: payments on many client connections, each with its handshake and its end, at once with others, and one
long link to the bank; Ethernet, and an acknowledgement without bytes for every other frame. Both programs read it in
turn, several times, and print what they print by default; the medians count, and their ratio is what holds on another
machine. Run it as `.venv/bin/python scripts/bench_dump.py`; `--all` compares whole trees and JSON as well.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from dump.builders import ACK, FIN, PSH, SYN, ethernet, pcap_bytes, tcp_packet
from specgen.vector_fixtures import LINK_KEY
from specgen.vector_session import PAID, Step, steps_of

from paygate.codec.codes import Role
from paygate.codec.frame import encode_frame

ROOT: Final = Path(__file__).parent.parent
GOAL: Final = 3.0
"""Times the speed of tshark, in the default output."""
AT_ONCE: Final = 40
"""Payments that overlap."""
ETHERNET: Final = 1
BANK_PORT: Final = 15_001
CLIENT_PORT: Final = 15_000


class Connection:
    """One TCP connection of the capture, and where both of its streams are."""

    def __init__(self, caller: tuple[str, int], answerer: tuple[str, int], rng: Random) -> None:
        self._ends = caller, answerer
        self._next = [rng.randrange(1 << 32), rng.randrange(1 << 32)]

    def send(self, side: int, data: bytes = b"", flags: int = ACK) -> bytes:
        """The packet with the next bytes of the caller (0) or the answerer (1)."""
        packet = tcp_packet(
            data,
            source=self._ends[side],
            target=self._ends[1 - side],
            sequence=self._next[side],
            acknowledged=self._next[1 - side] if flags & ACK else 0,
            flags=flags | (PSH if data else 0),
        )
        self._next[side] += len(data) + bool(flags & (SYN | FIN))
        return ethernet(packet)

    def open(self) -> list[bytes]:
        """The handshake."""
        return [self.send(0, flags=SYN), self.send(1, flags=SYN | ACK), self.send(0)]

    def close(self) -> list[bytes]:
        """FIN by the caller, FIN by the answerer."""
        return [self.send(0, flags=FIN | ACK), self.send(1, flags=FIN | ACK), self.send(0)]


def payment(number: int, bank: Connection, rng: Random) -> Iterator[list[bytes]]:
    """Packets of one payment, frame by frame, with identifiers of its own."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    client = Connection((address, 32_768 + number % 28_000), ("10.255.0.1", CLIENT_PORT), rng)
    transaction_id = f"TX-{number:06}"
    terms = replace(
        PAID.terms, transaction_id=transaction_id, payment_id=rng.randbytes(16), session_id=rng.randbytes(16)
    )
    own = {"terms": terms, "transaction_id": transaction_id, "payment_id": terms.payment_id}
    own["session_id"] = terms.session_id
    yield client.open()
    for step in _BY_PAYMENT:
        message: Any = step.message
        message = replace(message, **{name: value for name, value in own.items() if hasattr(message, name)})
        is_on_bank = step.link == "bank"
        # On the bank's long link a correlation ID is never used twice.
        frame = encode_frame(
            message, 2 + number if is_on_bank else step.correlation_id, LINK_KEY if is_on_bank else None
        )
        connection = bank if is_on_bank else client
        side = int(step.sender is (Role.BANK if is_on_bank else Role.GATEWAY))
        packets = [connection.send(side, frame)]
        if rng.random() < 0.5:
            packets.append(connection.send(1 - side))
        yield packets
    yield client.close()


_BY_PAYMENT: Final[list[Step]] = [s for s in steps_of(PAID) if s.link == "client" or s.correlation_id > 2]


def capture(frame_count: int, seed: int = 1) -> bytes:
    """A capture file of so many frames, or a few more."""
    rng = Random(seed)
    bank = Connection(("10.255.0.1", 50_000), ("10.255.0.2", BANK_PORT), rng)
    packets = bank.open()
    for step in steps_of(PAID):
        if step.link == "bank" and step.correlation_id <= 2:
            packets.append(bank.send(int(step.sender is Role.BANK), step.frame))
    payment_count = -(-frame_count // len(_BY_PAYMENT))
    running = [payment(number, bank, rng) for number in range(1, min(AT_ONCE, payment_count) + 1)]
    begun = len(running)
    while running:
        index = rng.randrange(len(running))
        sent = next(running[index], None)
        if sent is not None:
            packets += sent
        elif begun < payment_count:
            begun += 1
            running[index] = payment(begun, bank, rng)
        else:
            del running[index]
    return pcap_bytes(packets, link_type=ETHERNET)


class Run(NamedTuple):
    """One run of one program."""

    seconds: float
    cpu_seconds: float
    """What it took of a processor: less at the mercy of what else runs."""
    memory_mib: float
    """The largest resident set."""


def run(words: list[str]) -> Run:
    """Run a program with its output thrown away."""
    began = time.perf_counter()
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr
        complaint = process.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        sys.exit(f"{words[0]} ended with {process.returncode}: {complaint[-2_000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1_024)


def compare(name: str, path: Path, frame_count: int, rounds: int, ours: list[str], theirs: list[str]) -> float:
    """Run both in turn, print their figures, and return how many times faster ours is."""
    commands = {
        "paygate-dump": [sys.executable, "-m", "paygate.dump", *ours, str(path)],
        "tshark": ["tshark", "-n", "-X", f"lua_script:{ROOT / 'spec' / 'paygate.lua'}", *theirs, "-r", str(path)],
    }
    runs: dict[str, list[Run]] = {program: [] for program in commands}
    for _ in range(rounds):
        for program, words in commands.items():
            runs[program].append(run(words))
    size_mb = path.stat().st_size / 1e6
    medians = {program: statistics.median(r.seconds for r in done) for program, done in runs.items()}
    print(f"{name}:")
    for program, seconds in medians.items():
        memory_mib = max(r.memory_mib for r in runs[program])
        all_seconds = ", ".join(f"{r.seconds:.2f}" for r in runs[program])
        print(
            f"  {program:12} {seconds:7.2f} s  {frame_count / seconds:9,.0f} frames/s  {size_mb / seconds:6.1f} MB/s"
            f"  {memory_mib:5.0f} MiB at most  (runs: {all_seconds})"
        )
    ratio = medians["tshark"] / medians["paygate-dump"]
    cpu = {program: statistics.median(r.cpu_seconds for r in done) for program, done in runs.items()}
    cpu_ratio = cpu["tshark"] / cpu["paygate-dump"]
    print(
        f"  paygate-dump is {ratio:.1f} times as fast; of processors it takes {cpu['paygate-dump']:.2f} s"
        f" and tshark {cpu['tshark']:.2f} s, {cpu_ratio:.1f} times as much"
    )
    return ratio


def main() -> int:
    """Make the capture, compare, and fail below the goal."""
    parser = argparse.ArgumentParser(description="paygate-dump against tshark")
    parser.add_argument("--frames", type=int, default=100_000, help="frames in the capture (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="compare whole trees and JSON too")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the capture here, and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "bench.pcap"
        path.write_bytes(capture(options.frames))
        print(f"{options.frames:,} frames, {path.stat().st_size / 1e6:.1f} MB")
        ratio = compare("one line a frame", path, options.frames, options.rounds, [], [])
        if options.all:
            compare("whole trees", path, options.frames, options.rounds, ["-v"], ["-V"])
            compare("JSON", path, options.frames, options.rounds, ["--json"], ["-T", "json"])
    if ratio < GOAL:
        print(f"the goal is {GOAL:.1f} times")
    return int(ratio < GOAL)


if __name__ == "__main__":
    sys.exit(main())
