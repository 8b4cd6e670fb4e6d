"""`python -m power`: the power-cut campaign from the command line; see `make power-cuts`."""

import argparse
import sys
from collections.abc import Callable
from itertools import count
from time import monotonic, process_time

from power.bank_story import bank_story
from power.cuts import Counts, cut_story
from power.story import Story, Violation
from power.token_story import token_story

STORIES: dict[str, Callable[[int], Story]] = {"ledger": bank_story, "tokens": token_story}


def main() -> int:
    """Cuts whole stories until there are enough; 1 at the first violation."""
    parser = argparse.ArgumentParser(prog="power", description="cut the power of the two stores at every point")
    parser.add_argument(
        "--seed", type=int, default=1, help="the first story's; the others follow (default %(default)s)"
    )
    parser.add_argument("--cuts", type=int, default=10_000, help="end after the story that reaches so many")
    parser.add_argument("--store", choices=STORIES, help="this one alone")
    parser.add_argument("--point", type=int, help="of the first story of --store, this point alone")
    options = parser.parse_args()
    if options.point is not None and options.store is None:
        parser.error("--point is one of a store's story: give --store too")
    if options.cuts < 1:
        parser.error("--cuts: at least 1")
    names = [options.store] if options.store else list(STORIES)
    counts = {name: Counts() for name in names}
    start_s, start_cpu_s = monotonic(), process_time()
    try:
        for seed in count(options.seed):
            for name in names:
                cut_story(STORIES[name](seed), counts[name], None if options.point is None else {options.point})
            if options.point is not None or sum(c.cuts for c in counts.values()) >= options.cuts:
                break
    except Violation as violation:
        print(violation, file=sys.stderr)
        return 1
    finally:
        for name, counted in counts.items():
            print(f"{name}: {counted}")
    cut_count = sum(c.cuts for c in counts.values())
    print(
        f"{cut_count} cuts and no violation, seeds {options.seed} to {seed}, "
        f"{monotonic() - start_s:.0f} s ({process_time() - start_cpu_s:.0f} s of one processor)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
