"""`python -m sim.hunt --seed N`: for each mutant, seeds from N on until one catches it or its budget is spent.

Prints a line a mutant: how many seeds it took, what broke and when. Exit code 1 if one is not caught. With `--update`
it looks at a few seeds more for the quickest, and writes them into the table of `mutants.py`.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sim import mutants
from sim.mutants import MUTANTS, Mutant
from sim.shrink import Failure

KILLER_COUNT: Final = 3
"""Among so many killers `--update` takes the quickest."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search. Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim.hunt", description="Searches for seeds that catch mutants.")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (1)")
    parser.add_argument("--update", action="store_true", help="write quick seeds into the table")
    parser.add_argument("names", nargs="*", metavar="MUTANT", help="these mutants only")
    options = parser.parse_args(arguments)
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"there is no mutant {unknown[0]}; there are {', '.join(known)}")
    wanted = [known[name] for name in options.names] or list(MUTANTS)
    caught_count = sum(_hunt(mutant, options.seed, is_updating=options.update) for mutant in wanted)
    print(f"{caught_count} of {len(wanted)} mutants caught within their budgets")
    return 0 if caught_count == len(wanted) else 1


def _hunt(mutant: Mutant, first_seed: int, *, is_updating: bool) -> bool:
    started_s = time.monotonic()
    killers: list[tuple[float, int]] = []
    for seed, failure, took_s in _killers(mutant, first_seed):
        if not killers:
            count = f"{seed - first_seed + 1} of {mutant.budget} seeds"
            elapsed_s = time.monotonic() - started_s
            print(f"{mutant.name:<24} seed {seed:<6} {count:<18} {elapsed_s:6.1f} s  {failure}"[:160], flush=True)
        killers.append((took_s, seed))
        if not is_updating or len(killers) == KILLER_COUNT:
            break
    if not killers:
        print(f"{mutant.name:<24} NOT CAUGHT in {mutant.budget} seeds", flush=True)
    elif is_updating:
        _write(mutant.name, min(killers)[1])
    return bool(killers)


def _killers(mutant: Mutant, first_seed: int) -> Iterator[tuple[int, Failure, float]]:
    for seed in range(first_seed, first_seed + mutant.budget):
        started_s = time.process_time()
        failure = mutant.run(seed)
        if failure is not None and failure.kind == mutant.breaks:
            clean = mutant.run_without(seed)
            assert clean is None, f"seed {seed} fails without any mutant: {clean}"
            yield seed, failure, time.process_time() - started_s


def _write(name: str, seed: int) -> None:
    path = Path(mutants.__file__)
    row = re.compile(rf'(Mutant\(\s*"{name}",.*?bugs\.\w+,\s*)\d+', re.DOTALL)
    text, count = row.subn(rf"\g<1>{seed}", path.read_text(), count=1)
    assert count == 1, f"the table has no row of {name}"
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
