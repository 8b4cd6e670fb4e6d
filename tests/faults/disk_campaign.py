"""Every file operation of every program fails once, in each way that it can fail, and from then on.

A recorded run of each story tells what there is; then each program, operation, file, n-th, error, and once or from then
on, is a case in forks of its own. Runs with the library preloaded: `python -m faults disk` sees to that.
"""

import errno
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from faults.books import Broken
from faults.forked import Fault, Hang, Setting
from faults.house import House
from faults.shim import SHORT, Plan, parse_plan
from faults.stories import checkpoint_often, read_trace, stories

from paygate.cli import PaygateExit

WORKER_COUNT: Final = 4
"""Stories at once: most of the time each waits for a timer of a program."""
_EINTR_KINDS: Final = frozenset({"read", "pread", "write", "pwrite", "open"})
_WRITE_ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT, SHORT)
ERRORS: Final[dict[str, tuple[int, ...]]] = {
    "open": (errno.EIO, errno.EMFILE),
    "create": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE),
    "read": (errno.EIO, SHORT),
    "pread": (errno.EIO, SHORT),
    "write": _WRITE_ERRORS,
    "pwrite": _WRITE_ERRORS,
    "fsync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "fdatasync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "ftruncate": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.ENOSPC),
    "link": (errno.EIO, errno.ENOSPC),
    "unlink": (errno.EIO,),
    "mkdir": (errno.EIO, errno.ENOSPC),
    "stat": (errno.EIO,),
    "fstat": (errno.EIO,),
    "lock": (errno.EIO, errno.ENOLCK),
    "lease": (errno.EIO,),
    "opendir": (errno.EIO, errno.EMFILE),
    "access": (errno.EIO,),
}
"""How each operation can fail on a disk, by read(2) and the others. `lseek` can't: nothing here seeks a pipe."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault in one story."""

    story: str
    fault: Fault

    @property
    def text(self) -> str:
        """As `--case` takes it."""
        return f"{self.story}/{self.fault.program}/{self.fault.plan}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case."""

    case: str
    has_fired: bool
    trouble: str
    """Empty if all that must hold held."""


@dataclass(slots=True)
class Outcome:
    """What a campaign came to."""

    results: list[Result] = field(default_factory=list)
    left_count: int = 0
    """Cases for which there was no time."""

    @property
    def failures(self) -> list[Result]:
        """The cases in which something did not hold."""
        return [result for result in self.results if result.trouble]

    @property
    def fired_count(self) -> int:
        """Cases whose operation came."""
        return sum(result.has_fired for result in self.results)


class Bench:
    """A place for stories, with state directories that were made once."""

    def __init__(self, directory: Path, patch: Callable[[], None] | None = None) -> None:
        """`patch`: a bug to be put into all programs."""
        self._directory = directory
        self._patch = patch
        self._stories = {name: (programs, story) for name, programs, story in stories()}
        template = directory / "template"
        self._template = House(template)
        self._template.create()
        self._template.remember_passwords()

    def cases(self, only: str | None = None) -> list[Case]:
        """All cases, of one story or of all, each from a recorded run. Raises RuntimeError if that fails."""
        names = [name for name in self._stories if only in (None, name)]
        found: list[Case] = []
        for texts in side_by_side(len(names), lambda number: self._record(names[number])):
            found += map(parse_case, texts)
        return found

    def _record(self, name: str) -> list[str]:
        programs, story = self._stories[name]
        house = self._house(f"record-{name.replace(' ', '-')}", None)
        try:
            story(house)
        finally:
            house.kill()
        found: list[Case] = []
        for program in programs:
            counts: Counter[tuple[str, str]] = Counter()
            for path in _traces(house, program):
                counts |= Counter((one.kind, one.name) for one in read_trace(path))  # a plan counts in each process
            for (kind, file), count in sorted(counts.items()):
                found += [Case(name, Fault(program, plan)) for plan in _plans(kind, file, count)]
        return [case.text for case in found]

    def run(self, case: Case, number: int) -> Result:
        """One case, in a directory of its own."""
        house = self._house(f"case-{number}", case.fault)
        trouble = ""
        try:
            self._stories[case.story][1](house)
        except (Broken, Hang, PaygateExit) as error:
            trouble = f"{type(error).__name__}: {error}"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            trouble = f"{type(error).__name__} in {place.name} of {Path(place.filename).name}: {error}"
        finally:
            house.kill()
        traces = _traces(house, case.fault.program)
        has_fired = any(done.is_fault for path in traces for done in read_trace(path))
        shutil.rmtree(house.directory, ignore_errors=True)
        return Result(case.text, has_fired, trouble)

    def _house(self, name: str, fault: Fault | None) -> House:
        directory = self._directory / name

        def patch() -> None:
            checkpoint_often()
            if self._patch is not None:
                self._patch()

        setting = Setting(directory / "system", directory / "logs", fault, is_traced=fault is None, patch=patch)
        house = self._template.copy(directory, setting)
        shutil.copytree(self._template.directory / "data", directory / "data")
        return house


def _traces(house: House, program: str) -> list[Path]:
    return sorted(house.setting.logs.glob(f"{program}*.trace"))


def _plans(kind: str, name: str, count: int) -> Iterator[Plan]:
    for nth in range(1, count + 1):
        for error in ERRORS.get(kind, ()):
            yield Plan(kind, name, nth, error, False)
            yield Plan(kind, name, nth, error, True)
        if kind in _EINTR_KINDS:
            yield Plan(kind, name, nth, errno.EINTR, False)


def parse_case(text: str) -> Case:
    """A case as its text says it. Raises ValueError."""
    story, _, rest = text.partition("/")
    program, _, plan = rest.partition("/")
    return Case(story, Fault(program, parse_plan(plan)))


def run_cases(bench: Bench, cases: Sequence[Case], seconds: float) -> Outcome:
    """Run cases side by side, as many as there is time for."""
    deadline = time.monotonic() + seconds

    def run(number: int) -> list[Any] | None:
        if time.monotonic() >= deadline:
            return None
        result = bench.run(cases[number], number)
        return [result.case, result.has_fired, result.trouble]

    results = [Result(*words) for words in side_by_side(len(cases), run) if words is not None]
    return Outcome(results, len(cases) - len(results))


def side_by_side(count: int, work: Callable[[int], Any]) -> Iterator[Any]:
    """What `work` gives for each number, in forks of this process; in any order. Raises RuntimeError if it fails."""
    workers: list[tuple[int, int]] = []
    for worker in range(WORKER_COUNT):
        read_fd, write_fd = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(read_fd)
            _work(range(worker, count, WORKER_COUNT), work, write_fd)
        os.close(write_fd)
        workers.append((pid, read_fd))
    for pid, read_fd in workers:
        with os.fdopen(read_fd, "r", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise RuntimeError(f"a worker of the campaign ended with {os.waitstatus_to_exitcode(status)}")


def _work(numbers: Sequence[int], work: Callable[[int], Any], write_fd: int) -> NoReturn:
    code = 1
    try:
        with os.fdopen(write_fd, "w", encoding="utf-8") as lines:
            for number in numbers:
                lines.write(json.dumps(work(number)) + "\n")
                lines.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


# -- what is told ----------------------------------------------------------------------------------------


def table(outcome: Outcome) -> list[str]:
    """Lines with the counts by program, operation and error."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for result in outcome.results:
        case = parse_case(result.case)
        if result.has_fired:
            counts[case.fault.program, case.fault.plan.kinds, case.fault.plan.error_name] += 1
    by_operation: dict[tuple[str, str], list[str]] = {}
    for (program, kind, error), count in sorted(counts.items()):
        by_operation.setdefault((program, kind), []).append(f"{error} {count}")
    return [f"  {program:8} {kind:10} {', '.join(errors)}" for (program, kind), errors in by_operation.items()]


def shared_memory() -> Path | None:
    """Where files cost no disk, if there is such a place: what matters here are the calls, not the disk."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


def run_campaign(
    *,
    seed: int,
    count: int | None,
    seconds: float,
    only: str | None = None,
    story: str | None = None,
    matching: str = "",
    patch: Callable[[], None] | None = None,
) -> Outcome:
    """Run all cases, a seeded sample of `count`, or the one named; prints what it did."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="paygate-faults-", dir=shared_memory()) as directory:
        bench = Bench(Path(directory), patch)
        if only is not None:
            cases = [parse_case(only)]
        else:
            cases = [case for case in bench.cases(story) if matching in case.text]
            print(f"disk faults: {len(cases)} cases; seed {seed}")
            random.Random(seed).shuffle(cases)
            cases = cases[:count]
        outcome = run_cases(bench, cases, seconds)
    took_s = time.monotonic() - began
    for line in table(outcome):
        print(line)
    ran = f"{len(outcome.results)} cases in {took_s:.0f} s, of which {outcome.fired_count} had their fault"
    print(f"disk faults: {ran}; {outcome.left_count} left out for want of time; {len(outcome.failures)} failed")
    for result in outcome.failures:
        print(f"FAILED {result.case}\n    {result.trouble}\n    again: make faults CASE='{result.case}'")
    return outcome
