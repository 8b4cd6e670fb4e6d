"""Check the formal model of a payment, `spec/model/payment.pml`, with Spin: every run of it, exhaustively.

First the model as it is, with growing budgets of losses, repetitions and crashes: nothing may be found. Then with each
rule taken out: what is expected must be found, or the rule is not what keeps the promise, or the model is blind. Run it
as `make model`; it needs `spin` and a C compiler (`make test-tools` installs them). Exit code 0 if all came out as
expected.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).parent.parent / "spec" / "model" / "payment.pml"
DEPTH_MAX: Final = 10_000
"""Steps in one run; runs are some hundred steps long, and a longer one would be told as an error."""
SECONDS_MAX: Final = 600


@dataclass(frozen=True, slots=True)
class Case:
    """One way to check the model."""

    name: str
    defines: tuple[str, ...] = ()
    finds: str | None = None
    """The promise that must be found broken, as the model writes it; None if nothing may be found."""


AS_IT_IS: Final = (
    Case("a loss, a repetition, a crash"),
    Case("two of each", ("LOSSES=2", "REPEATS=2", "CRASHES=2")),
    Case("someone has the gateway's key", ("HOSTILE",)),
)
WITHOUT_A_RULE: Final = (
    Case("no fence", ("NO_FENCE",), "told[1]==decided[1]"),
    Case("no unique token at the bank", ("HOSTILE", "NO_UNIQUE"), "(debits[0]+debits[1])<=1"),
    Case("the bank replies before its commit", ("BANK_FIRST",), "(debits[0]+debits[1])==1"),
    Case("the gateway sends before its commit", ("SEND_FIRST",), "(token==2)==((debits[0]+debits[1])==1)"),
    Case("the gateway tells before its commit", ("TELL_FIRST",), "token==2"),
    Case("a token is freed without a fence", ("RELEASE",), "told[1]==decided[1]"),
    Case("what is in flight is not resumed", ("NO_RESUME",), "token!=1"),
    Case("a result is matched by its link", ("BY_LINK",), "told[1]==decided[1]"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What Spin said of one case."""

    state_count: int
    error: str | None
    """The first that it found: a promise that was broken, or a run that got stuck."""
    seconds: float
    schedule: str
    """The steps that lead there; empty without an error."""

    def is_as_expected(self, case: Case) -> bool:
        """Whether it found what it should, and nothing else."""
        if case.finds is None or self.error is None:
            return case.finds is None and self.error is None
        return case.finds in self.error


def check(case: Case) -> Finding:
    """Look at every run of the model in this way. Raises RuntimeError if Spin or the compiler fails."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(MODEL, directory)
        defines = [f"-D{define}" for define in case.defines]
        _run(directory, "spin", "-a", *defines, MODEL.name)
        _run(directory, "cc", "-w", "-DSAFETY", "-o", "pan", "pan.c")
        started_s = time.monotonic()
        said = _run(directory, "./pan", "-b", f"-m{DEPTH_MAX}", "-w24")
        seconds = time.monotonic() - started_s
        error = re.search(r"^pan:\d+: (.*) \(at depth", said, re.MULTILINE)
        count = re.search(r"^\s*(\d+) states, stored", said, re.MULTILINE)
        errors = re.search(r"errors: (\d+)", said)
        if count is None or errors is None or (int(errors[1]) > 0) is not (error is not None):
            raise RuntimeError(f"what the model checker says can't be read:\n{said}")
        schedule = _run(directory, "spin", "-t", "-p", "-g", *defines, MODEL.name) if error else ""
        return Finding(int(count[1]), error[1] if error else None, seconds, schedule)


def _run(directory: str, *words: str) -> str:
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    if done.returncode != 0 and words[0] != "./pan":
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _lines() -> Iterator[tuple[Case, Finding]]:
    for title, cases in (("as it is", AS_IT_IS), ("without a rule", WITHOUT_A_RULE)):
        print(f"{MODEL.name} {title}")
        for case in cases:
            finding = check(case)
            found = finding.error or "nothing is broken"
            mark = "ok" if finding.is_as_expected(case) else "NOT AS EXPECTED"
            print(f"  {mark:2}  {case.name:36} {finding.state_count:>9,} states {finding.seconds:5.1f} s  {found}")
            yield case, finding


def main() -> int:
    """Check all of it. Returns the exit code."""
    if missing := [program for program in ("spin", "cc") if shutil.which(program) is None]:
        print(f"check_model: {' and '.join(missing)} missing; install with: make test-tools", file=sys.stderr)
        return 2
    wrong = [(case, finding) for case, finding in _lines() if not finding.is_as_expected(case)]
    for case, finding in wrong:
        print(f"\n{case.name}: expected {case.finds or 'nothing'}, found {finding.error or 'nothing'}")
        print(finding.schedule)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
