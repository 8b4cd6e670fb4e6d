"""Measures what a payment costs and makes it the ceilings; the commit says why they changed.

PYTHONPATH=tests python -m costs.update
"""

import sys
import tempfile
from pathlib import Path

from costs.ceilings import PATH, load, problems, save
from costs.measure import BATCHES, PROGRAMS, measure


def main() -> int:
    """The program."""
    with tempfile.TemporaryDirectory() as directory:
        measured = measure(Path(directory))
    before = load()
    if before is not None:
        for program in PROGRAMS:
            for size in BATCHES:
                for text in problems(program, size, measured.counts(program, size), before.payment[program][str(size)]):
                    print(text)
    save(measured)
    print(f"wrote {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
