"""Compare the compiled codec with hand-written `struct` code and with interpreted construct, kind by kind.

The same as in `paygate-bench compare`, alone and with more rounds; see `paygate/bench/codec_race.py` for how. Ratios
are what holds on another machine; above 1, the compiled codec is the faster one. Run it as
`.venv/bin/python scripts/bench_codec.py`.
"""

import argparse
import sys
from typing import Final

from paygate.bench.codec_race import race
from paygate.bench.goals import judge_codec
from paygate.bench.report import codec_table, goal_table

ROUND_COUNT: Final = 301


def main() -> int:
    """Print the table and the goals; exit code 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUND_COUNT, help="rounds of each way (default: %(default)s)")
    times = race(round_count=parser.parse_args().rounds)
    judged = judge_codec(times)
    print(codec_table(times), goal_table(judged), sep="\n\n")
    return 0 if all(one.is_met for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
