"""`python -m faults disk|links|stores`: campaigns of faults against the real programs; `make faults` runs them.

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
    from faults import disk_campaign, link_campaign, store_faults
    from faults.bugs import BUGS
    from faults.link_cases import BANK_LINK, CLIENT_LINK

    patch = BUGS[options.bug] if options.bug else None
    wanted = {"seed": options.seed, "count": options.count, "seconds": options.seconds, "matching": options.matching}
    campaigns = ("disk", "links", "stores") if options.campaign == "all" else (options.campaign,)
    if options.case:
        is_link = options.case.startswith((BANK_LINK, CLIENT_LINK))
        campaigns = ("stores",) if options.case.startswith("stores/") else ("links",) if is_link else ("disk",)
    wanted["seconds"] /= len(campaigns)
    failure_count = 0
    if "disk" in campaigns:
        outcome = disk_campaign.run_campaign(**wanted, only=options.case, story=options.story, patch=patch)
        failure_count += len(outcome.failures)
    if "links" in campaigns:
        failure_count += len(link_campaign.run_campaign(**wanted, only=options.case, patch=patch).failures)
    if "stores" in campaigns:
        del wanted["matching"]
        failure_count += len(store_faults.run_campaign(**wanted, only=options.case).failures)
    return failure_count > 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("campaign", choices=("disk", "links", "stores", "all"), nargs="?", default="all")
    parser.add_argument("--seed", type=int, default=1, help="which cases are drawn, and in which order (1)")
    parser.add_argument("--count", type=int, help="how many cases of each campaign (all)")
    parser.add_argument("--seconds", type=float, default=SECONDS_DEFAULT, help="end after so long (3600)")
    parser.add_argument("--case", help="only this one, as a failure names it")
    parser.add_argument("--story", help="of the disk: only this one: `serve`, or a command such as `bank init`")
    parser.add_argument("--bug", help="put this one of faults/bugs.py into the programs, to see that it is found")
    parser.add_argument("--matching", default="", help="only cases whose name has this text in it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
