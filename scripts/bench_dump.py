"""Compare the speed of `paygate-dump` with that of tshark and our dissector, on one capture of 100,000 frames.

`bench_capture.py` writes it. Both programs read it in turn, several times, and print what they print by default; the
medians count, and their ratio is what holds on another machine. Run it as `.venv/bin/python scripts/bench_dump.py`;
`--all` compares whole trees and JSON as well.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
GOAL: Final = 3.0
"""Times the speed of tshark, in the default output."""


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
        # A process of its own: what this one takes would count as its children's memory (Linux hands it on).
        maker = [sys.executable, str(ROOT / "scripts" / "bench_capture.py"), str(path)]
        subprocess.run([*maker, "--frames", str(options.frames)], check=True)
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
