"""`python -m sim --seed N --runs M`: runs of the simulator from seed N on, judged against the model.

A failure prints its seed, the faults that it needs, the ladder of frames and the command that replays it. Exit code 0
if all held, 1 if anything was violated, 130 after Ctrl-C (with what was done so far).
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from typing import Final

from sim.runner import Report, Totals, make_small, run_seed, run_seeds

TOLD_EVERY_S: Final = 10.0
"""How often a campaign says how far it is."""
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign. Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="Runs simulated worlds and judges them.")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (1)")
    parser.add_argument("--runs", type=int, default=1, metavar="M", help="how many seeds from there on (1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes to share them out to (1)")
    parser.add_argument("--without", default="", metavar="F,F,...", help="with one run: leave these faults out")
    parser.add_argument("--digest", action="store_true", help="print a hash over all that happened in each run")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure, and name them all")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.runs < 1 or options.jobs < 1:
        parser.error("--seed takes 0 or more, --runs and --jobs 1 or more")
    if options.without and options.runs != 1:
        parser.error("--without names the faults of one seed, so it goes with --runs 1")
    return _Campaign(options).run()


class _Campaign:
    """One call of the program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._totals = Totals()
        self._digests: dict[int, str] = {}
        self._started_s = self._told_s = time.monotonic()

    def run(self) -> int:
        """All seeds, then the summary."""
        options = self._options
        is_interrupted = False
        last = options.seed + options.runs - 1
        print(
            f"seeds {options.seed} to {last}, by {options.jobs} process{'es' if options.jobs > 1 else ''}", flush=True
        )
        try:
            if options.without:
                self._take(run_seed(options.seed, _indexes(options.without)))
            else:
                run_seeds(range(options.seed, options.seed + options.runs), options.jobs, self._take)
        except KeyboardInterrupt:
            is_interrupted = True
        if options.digest:
            self._print_digests()
        for line in self._totals.lines(time.monotonic() - self._started_s):
            print(line)
        if self._totals.failures and not options.without and not is_interrupted:
            self._explain(min(report.seed for report in self._totals.failures))
        return INTERRUPTED if is_interrupted else bool(self._totals.failures)

    def _take(self, report: Report) -> bool:
        self._totals.add(report)
        self._digests[report.seed] = report.digest
        if report.failure:
            print(f"seed {report.seed} failed: {report.failure}", flush=True)
        now_s = time.monotonic()
        if now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            print(f"{self._totals.seed_count:,} of {self._options.runs:,} seeds", file=sys.stderr, flush=True)
        return self._options.keep_going or not report.failure

    def _print_digests(self) -> None:
        whole = hashlib.blake2b(digest_size=16)
        for seed, digest in sorted(self._digests.items()):
            whole.update(f"{seed} {digest}\n".encode())
            if len(self._digests) <= 100:
                print(f"seed {seed}: {digest}")
        print(f"digest of {len(self._digests)} runs: {whole.hexdigest()}")

    def _explain(self, seed: int) -> None:
        small = make_small(seed)
        for line in small.lines():
            print(line)
        without = ",".join(map(str, sorted(small.disabled)))
        print(f"replay: make sim SEED={seed} RUNS=1" + (f" WITHOUT={without}" if without else ""))


def _indexes(text: str) -> frozenset[int]:
    try:
        return frozenset(int(word) for word in text.split(","))
    except ValueError:
        raise SystemExit(f"--without {text}: expected numbers of faults with commas between, such as 3,7") from None


if __name__ == "__main__":
    sys.exit(main())
