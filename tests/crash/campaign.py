"""Plays cases side by side in forks of this process, and says what died where, and what did not hold."""

import json
import os
import random
import re
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from crash.cases import Case
from crash.hooks import Hits
from crash.play import Round
from crash.system import Death, System, Violation
from crash.template import Template
from crash.zygote import WRITE_CALLS, Hang

WORKER_COUNT: Final = 8
"""Systems side by side: most of a round is waiting."""
_CAPTURE_SHARE: Final = 0.25
_INDEX_SIZE: Final = 4
_TRACED: Final = re.compile(r"^(\w+)\(", re.MULTILINE)


@dataclass(slots=True)
class Result:
    """What a case came to."""

    case: str
    killed: list[list[str]] = field(default_factory=list)
    """By round: the deaths that came."""
    missed: list[str] = field(default_factory=list)
    """Deaths that did not come."""
    round_count: int = 0
    payment_count: int = 0
    question_count: int = 0
    final_s: float = 0.0
    """The longest that anything took to be final, once everything ran again."""
    seconds: float = 0.0
    violation: str = ""
    root: str = ""
    """Where the state is, if something did not hold."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """Plays cases below a directory, on copies of a template."""

    directory: Path
    template: Template
    mutant: str = ""
    is_exec: bool = False
    worker_count: int = WORKER_COUNT

    def play_all(self, cases: Sequence[Case]) -> list[Result]:
        """Play all, some at a time; in their order."""
        results = self.directory / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        read_fd, write_fd = os.pipe()
        sys.stdout.flush()
        workers = []
        for number in range(min(self.worker_count, len(cases))):
            pid = os.fork()
            if pid == 0:
                os.close(write_fd)
                self._work(number, read_fd, cases)
            workers.append(pid)
        os.close(read_fd)
        for index in range(len(cases)):
            os.write(write_fd, index.to_bytes(_INDEX_SIZE))
        os.close(write_fd)
        failed = [pid for pid in workers if os.waitpid(pid, 0)[1] != 0]
        if failed:
            raise RuntimeError(f"workers {failed} failed; what they said is above")
        return [Result(**json.loads((results / f"{index}.json").read_bytes())) for index in range(len(cases))]

    def _work(self, worker: int, read_fd: int, cases: Sequence[Case]) -> None:
        code = 1
        try:
            while index := os.read(read_fd, _INDEX_SIZE):
                number = int.from_bytes(index)
                result = self.play(cases[number], number, self.host_of(worker))
                path = self.directory / "results" / f"{number}.json"
                path.write_text(json.dumps(asdict(result)), encoding="utf-8")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def host_of(self, worker: int) -> str:
        """A loopback address that no other worker of any campaign on this machine has."""
        pid = os.getppid()
        return f"127.{64 + (pid >> 8) % 64}.{pid & 255}.{worker + 1}"

    def play(
        self, case: Case, number: int, host: str, hits_directory: Path | None = None, *, traces: bool = False
    ) -> Result:
        """Play one case. What does not hold is in the result, and its directory is kept."""
        begun_s = time.monotonic()
        root = self.directory / f"case-{number}"
        books = self.template.copy_to(root)
        drawn = random.Random(case.seed)
        captures = drawn.random() < _CAPTURE_SHARE
        system = System(root, host, self.mutant, hits_directory, self.is_exec, captures, traces)
        fresh, numbers = self.template.fresh_tokens(), count()
        result = Result(str(case))
        try:
            for round_number, deaths in enumerate(case.rounds):
                killed_before = len(system.killed)
                randomness = random.Random(f"{case.seed} {round_number}")
                one = Round(system, books, deaths, randomness, fresh, numbers)
                try:
                    one.endure() if case.is_endured else one.play()
                finally:
                    killed = system.killed[killed_before:]
                    result.killed.append([str(death) for death in killed])
                    result.round_count += 1
                    result.payment_count += one.paid_count
                    result.question_count += one.asked_count
                    result.final_s = max(result.final_s, one.final_s)
                if round_number == len(case.rounds) - 1:
                    one.audit()
                result.missed += [str(death) for death in set(deaths) - set(killed)]
        except (Violation, Hang) as error:
            result.violation = f"round {result.round_count}: {error}"
        except Exception:
            result.violation = f"round {result.round_count}: {traceback.format_exc()}"
        finally:
            system.kill_all()
        if result.violation:
            result.root = str(root)
        elif not traces:
            shutil.rmtree(root)
        result.seconds = time.monotonic() - begun_s
        return result

    # -- what there is to hit --------------------------------------------------------------------------

    def record(self) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """Hits of each point, and calls of each kind by program, in a round without deaths (the second of two)."""
        hits_directory = self.directory / "hits"
        hits_directory.mkdir(exist_ok=True)
        case = Case(1, ((), ()))
        host = f"127.{64 + (os.getpid() >> 8) % 64}.{os.getpid() & 255}.1"
        result = self.play(case, 0, host, hits_directory)
        if result.violation:
            raise Violation(f"without any death: {result.violation}; state in {result.root}")
        hits: Counter[str] = Counter()
        for path in hits_directory.iterdir():
            found = Hits(path)
            # Of two rounds; a client's are of all clients.
            runs = result.payment_count if path.name.startswith("client-pay") else len(case.rounds)
            hits.update({name: max(1, number // runs) for name, number in found.counts().items()})
            found.close()
        return dict(hits), self._record_calls(host) if shutil.which("strace") else {}

    def _record_calls(self, host: str) -> dict[tuple[str, str], int]:
        result = self.play(Case(1, ((),)), 0, host, traces=True)
        if result.violation:
            raise Violation(f"without any death, traced: {result.violation}; state in {result.root}")
        calls: dict[tuple[str, str], int] = {}
        for program, pattern in (
            ("bank", "*bank-serve.trace"),
            ("gateway", "*gateway-serve.trace"),
            ("client", "*client-pay.trace"),
        ):
            # Of clients the first: it pays, and writes its receipt.
            path = min((self.directory / "case-0" / "logs").glob(pattern))
            found = Counter(_TRACED.findall(path.read_text(encoding="ascii", errors="replace")))
            calls |= {(program, call): number for call, number in found.items() if call in WRITE_CALLS}
        shutil.rmtree(self.directory / "case-0")
        return calls


def summary(results: Sequence[Result]) -> dict[str, object]:
    """Counts of all results."""
    deaths = [Death.parse(text) for result in results for one in result.killed for text in one]
    return {
        "kills": len(deaths),
        "by_program": dict(Counter(d.program for d in deaths)),
        "by_point": dict(sorted(Counter(d.point for d in deaths if d.system_call is None).items())),
        "by_system_call": dict(sorted(Counter(f"{d.program} {d.point[5:]}" for d in deaths if d.system_call).items())),
        "rounds": sum(result.round_count for result in results),
        "payments": sum(result.payment_count for result in results),
        "questions": sum(result.question_count for result in results),
        "longest_until_final_s": round(max((result.final_s for result in results), default=0.0), 2),
        "violations": sum(bool(result.violation) for result in results),
    }
