"""Kills the real programs with SIGKILL at named failpoints and system calls: `make crashes`.

Every kill is followed by the same command again, by the customers' `status` until each payment has a definite answer,
and by a look at stores, text records, clients' records and all that was written (I1 to I10).
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crash.campaign import WORKER_COUNT, Campaign, Result, summary
from crash.cases import (
    ENDURED_COUNT,
    Case,
    Drawing,
    all_pairs,
    all_points,
    rounds_of_all_pairs,
    rounds_of_calls,
    rounds_of_pairs,
    system_call_deaths,
)
from crash.mutants import MUTANTS
from crash.points import POINTS
from crash.system import Death, Violation
from crash.template import Template

KILL_COUNT: Final = 500
CALL_COUNT: Final = 60
_TRY_COUNT: Final = 6
"""How often a point that was not come past is tried again."""
_TOLD_SIZE: Final = 1_500
_TOLD_COUNT: Final = 6
"""Failures that are told; more of them are mostly the same."""
_IN_MEMORY: Final = Path("/dev/shm")  # a kill takes nothing from a disk, so the fastest will do


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. 0 if everything held and every point was hit."""
    options = _parser().parse_args(arguments)
    parent = options.directory or (_IN_MEMORY if _IN_MEMORY.is_dir() else None)
    directory = Path(tempfile.mkdtemp(prefix="paygate-crashes-", dir=parent))
    begun_s = time.monotonic()
    template = Template(directory)
    template.make()
    campaign = Campaign(directory, template, options.mutant, options.is_exec, options.workers)
    try:
        results, unreached = _play(campaign, options)
    except Violation as error:
        print(f"{error}")
        return 1
    bad = [result for result in results if result.violation]
    _tell(results, unreached, time.monotonic() - begun_s)
    if options.json is not None:
        told = {**summary(results), "unreached": unreached, "violated": [r.violation for r in bad]}
        options.json.write_text(json.dumps(told), encoding="utf-8")
    for result in bad[:_TOLD_COUNT]:
        mutant = f" --mutant {options.mutant}" if options.mutant else ""
        print(f"\nFAILED {result.violation[:_TOLD_SIZE]}\n  state: {result.root}")
        print(f"  again: PYTHONPATH=tests .venv/bin/python -m crash{mutant} --case '{result.case}'")
    if not bad:
        shutil.rmtree(directory)
    return 1 if bad or unreached else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crash", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="what is drawn (1)")
    parser.add_argument("--kills", type=int, default=KILL_COUNT, metavar="N", help=f"at least so many ({KILL_COUNT})")
    parser.add_argument("--points", action="append", metavar="POINT", help="only these failpoints, each once")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only so many failpoints, each once")
    parser.add_argument(
        "--pairs", choices=["all"], help="all pairs of failpoints across two programs, and nothing else"
    )
    parser.add_argument(
        "--calls", default=str(CALL_COUNT), metavar="N|all", help=f"kills at system calls, by strace ({CALL_COUNT})"
    )
    text = f"clients killed beside servers that live on ({ENDURED_COUNT})"
    parser.add_argument("--endured", type=int, default=ENDURED_COUNT, metavar="N", help=text)
    parser.add_argument("--case", type=_case, metavar="CASE", help="this case only, as a failure told it")
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="put a bug in, to see that it is found")
    parser.add_argument("--exec", dest="is_exec", action="store_true", help="start programs by exec, not by fork")
    parser.add_argument("--workers", type=int, default=WORKER_COUNT, metavar="N", help=f"at a time ({WORKER_COUNT})")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where to keep the state (memory, if there is)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    return parser


def _case(text: str) -> Case:
    try:
        return Case.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a case as a failure tells it: {error}") from None


def _play(campaign: Campaign, options: argparse.Namespace) -> tuple[list[Result], list[str]]:
    """The results, and what was to be hit and was not."""
    if options.case is not None:
        return campaign.play_all([options.case]), []
    hits, calls = campaign.record()
    drawing = Drawing(random.Random(options.seed), hits)
    if options.pairs:
        return _play_pairs(campaign, drawing)
    names = options.points or all_points()
    if options.sample:
        names = drawing.randomness.sample(names, options.sample)
    if unknown := sorted(set(names) - POINTS.keys()):
        raise Violation(f"there is no point {unknown[0]}; 'python -m crash.launch --list' tells all")
    rounds, cases = drawing.rounds_for(names), []
    is_whole = not (options.points or options.sample)
    if is_whole:
        if not calls:
            _miss_strace()
        count = None if options.calls == "all" else int(options.calls)
        rounds += rounds_of_calls(drawing, system_call_deaths(calls, count))
        cases += drawing.endured(options.endured)
        rounds += drawing.fill_up(options.kills - options.endured - sum(map(len, rounds)))
    results = campaign.play_all([*cases, *drawing.cases(rounds)])
    for _ in range(_TRY_COUNT):
        missing = [name for name in names if name not in _points_hit(results)]
        more = drawing.cases(drawing.rounds_for(missing, is_sure=True), 1)
        if is_whole:  # Some deaths that were drawn do not come.
            killed_count = sum(len(one) for result in results for one in result.killed)
            more += drawing.cases(drawing.fill_up(options.kills - killed_count - len(missing)))
        if not more or any(result.violation for result in results):
            break
        results += campaign.play_all(more)
    return results, [name for name in names if name not in _points_hit(results)]


def _miss_strace() -> None:
    """A campaign that can't kill at system calls says so, and fails in CI. Raises Violation."""
    text = "strace is not there, so nothing is killed at system calls; install it with: make test-tools"
    if os.environ.get("CI"):
        raise Violation(text)
    print(text)


def _play_pairs(campaign: Campaign, drawing: Drawing) -> tuple[list[Result], list[str]]:
    results: list[Result] = []
    missing = list(all_pairs())
    for attempt in range(_TRY_COUNT):
        rounds = rounds_of_pairs(drawing, missing) if attempt else rounds_of_all_pairs(drawing)
        results += campaign.play_all(drawing.cases(rounds))
        hit = _pairs_hit(results)
        missing = [pair for pair in missing if pair not in hit]
        print(f"pairs: {len(hit)} hit, {len(missing)} missing", flush=True)
        if not missing or any(result.violation for result in results):
            break
    return results, [" and ".join(pair) for pair in missing]


def _points_hit(results: Sequence[Result]) -> set[str]:
    return {Death.parse(text).point for result in results for one in result.killed for text in one}


def _pairs_hit(results: Sequence[Result]) -> set[tuple[str, str]]:
    wanted = set(all_pairs())
    found = set()
    for result in results:
        for one in result.killed:
            points = [Death.parse(text).point for text in one]
            found |= {(left, right) for left in points for right in points if (left, right) in wanted}
    return found


def _tell(results: Sequence[Result], unreached: Sequence[str], seconds: float) -> None:
    told = summary(results)
    by_point: dict[str, int] = told["by_point"]  # type: ignore[assignment]
    print(f"{told['kills']} SIGKILLs in {told['rounds']} rounds of {len(results)} systems, {seconds:.0f} s")
    print(f"  {told['payments']} payments tried, {told['questions']} questions asked of their status")
    print(f"  longest until all was final, once everything ran again: {told['longest_until_final_s']} s")
    print(f"  by program: {told['by_program']}")
    print(
        f"  failpoints hit: {len(by_point)} of {len(POINTS)}, the most often {max(by_point.values(), default=0)} times"
    )
    print(f"  by system call: {told['by_system_call']}")
    for name in unreached[:_TOLD_COUNT]:
        print(f"  NOT REACHED: {name}")
    if len(unreached) > _TOLD_COUNT:
        print(f"  NOT REACHED: {len(unreached) - _TOLD_COUNT} more")
    print(f"  violations: {told['violations']}")


if __name__ == "__main__":
    sys.exit(main())
