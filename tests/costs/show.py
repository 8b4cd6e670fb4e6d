"""Shows what each tick of a batch did, to find out why a count grew.

PYTHONPATH=tests python -m costs.show [SIZE]        SIZE: how many payments at once (1)
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from costs.measure import BATCHES, PROGRAMS, Measured, measure
from costs.system_calls import SystemCall


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="Shows what each tick of a batch did.")
    parser.add_argument("size", nargs="?", type=int, choices=tuple(BATCHES), default=1, metavar="SIZE")
    size = parser.parse_args().size
    with tempfile.TemporaryDirectory() as directory:
        measured = measure(Path(directory))
    for program in PROGRAMS:
        _show(measured, program, size)
    return 0


def _show(measured: Measured, program: str, size: int) -> None:
    calls, memory = measured.calls.of_size(size)[0], measured.memory.of_size(size)[0]
    descriptors = measured.calls.descriptors[program]
    both = zip(calls.ticks[program], memory.ticks[program], strict=True)
    for number, (tick, its_memory) in enumerate(both, 1):
        print(f"\n{program}, tick {number} of a batch of {size}")
        for name, count in (tick.counted | its_memory.counted).items():
            print(f"{count:10} {name}")
        for text, count in Counter(_text(call, descriptors) for call in tick.calls).items():
            print(f"{count:10} {text}")


def _text(call: SystemCall, descriptors: dict[int, str]) -> str:
    if call.fd is None:
        return call.name
    return f"{call.name} {Path(descriptors.get(call.fd, 'a link that came later')).name}"


if __name__ == "__main__":
    sys.exit(main())
