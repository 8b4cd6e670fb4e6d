"""`python -m faults disk|links`: campaigns of faults against the real programs; `make faults` runs them.

Exit code 0 if all that must hold held, 1 if not.
"""

import argparse
import os
import sys
from typing import Final

from faults import shim

SECONDS_DEFAULT: Final = 3_600.0


def main() -> int:
    """The program."""
    options = _parser().parse_args()
    if "disk_faults" not in os.environ.get(shim.PRELOAD, ""):
        return shim.preloaded("faults", *sys.argv[1:])
    if options.campaign == "disk":
        from faults.bugs import BUGS
        from faults.disk_campaign import run_campaign

        outcome = run_campaign(
            seed=options.seed,
            count=options.count,
            seconds=options.seconds,
            only=options.case,
            story=options.story,
            matching=options.matching,
            patch=BUGS[options.bug] if options.bug else None,
        )
        return bool(outcome.failures)
    from faults.link_campaign import run_campaign as run_links

    cut = run_links(
        seed=options.seed,
        count=options.count,
        seconds=options.seconds,
        only=options.case,
        matching=options.matching,
    )
    return bool(cut.failures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("campaign", choices=("disk", "links"))
    parser.add_argument("--seed", type=int, default=1, help="which cases are drawn, and in which order (1)")
    parser.add_argument("--count", type=int, help="how many cases (all)")
    parser.add_argument("--seconds", type=float, default=SECONDS_DEFAULT, help="end after so long (3600)")
    parser.add_argument("--case", help="only this one, as a failure names it")
    parser.add_argument("--story", help="only this one: `serve`, or a command such as `bank init`")
    parser.add_argument("--bug", help="put this one of faults/bugs.py into the programs, to see that it is found")
    parser.add_argument("--matching", default="", help="only cases whose name has this text in it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
