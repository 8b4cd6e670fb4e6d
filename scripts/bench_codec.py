"""Compare the compiled codec with hand-written `struct` code and with interpreted construct, kind by kind.

All three encode and decode the same message in turn, round after round within one run, so that whatever else the
machine does meets all of them. Each message is encoded once, as an object that the codec has not seen before; texts
that are declared to recur do. Rounds are shorter than a time slice, and of each way the fastest round counts: that
is the one that nobody got in the way of. Ratios are what holds on another machine; above 1, the compiled codec is the
faster one. Run it as `.venv/bin/python scripts/bench_codec.py`.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from builders import example
from hand_codec import BY_HAND

from paygate.codec.codes import Kind
from paygate.codec.messages import MESSAGES
from paygate.codec.record_codec import WAYS
from paygate.codec.remembered import kept

ROUNDS: Final = 300
GOAL_MEAN: Final = 0.8
GOAL_EACH: Final = 0.6
GOAL_CONSTRUCT: Final = 25


class Figures(NamedTuple):
    """Seconds for one encode and one decode of a kind's example; by hand only for kinds that travel on a socket."""

    compiled: float
    by_hand: float | None
    construct: float


def measure(kind: Kind, rounds: int = ROUNDS, count: int = 100) -> Figures:
    """The fastest of several rounds each, taken in turn; a round encodes and decodes `count` times."""
    cls = MESSAGES[kind]
    # A round's messages are different objects, so that what the codec keeps of one serves no other.
    data = WAYS["construct"].encode(example(kind))
    messages = [WAYS["construct"].decode(cls, data, 0) for _ in range(count)]
    ways = {}
    for name in ("compiled", "construct"):
        encode, decode = WAYS[name]
        ways[name] = _round_of(lambda data, decode=decode: decode(cls, data, 0), encode, messages)  # type: ignore[misc]
    if kind in BY_HAND:
        encode_by_hand, decode_by_hand = BY_HAND[kind]
        ways["by_hand"] = _round_of(decode_by_hand, encode_by_hand, messages)
    # construct's rounds are as long with fewer messages.
    counts = {"compiled": count, "by_hand": count, "construct": max(count // 25, 1)}
    fastest = dict.fromkeys(ways, math.inf)
    for _ in range(rounds):
        for name, run in ways.items():
            fastest[name] = min(fastest[name], run(counts[name]) / counts[name])
    return Figures(fastest["compiled"], fastest.get("by_hand"), fastest["construct"])


def _round_of(
    decode: Callable[[bytes], object], encode: Callable[[Any], bytes], messages: list[Any]
) -> Callable[[int], float]:
    def run(count: int) -> float:
        sent = messages[:count]
        kept.clear()
        began = time.perf_counter()
        for message in sent:
            decode(encode(message))
        return time.perf_counter() - began

    return run


def mean(ratios: list[float]) -> float:
    """The geometric mean: two kinds of which one is twice as fast and one half as fast come out even."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def main() -> int:
    """Print the table and the goals; exit code 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each way and kind (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"{'encode + decode':24}{'compiled':>10}{'by hand':>10}{'construct':>11}{'/ by hand':>11}{'/ construct':>13}")
    to_hand, to_construct = [], []
    for kind in Kind:
        found = measure(kind, arguments.rounds)
        to_construct.append(found.construct / found.compiled)
        by_hand, ratio = f"{'-':>10}", f"{'-':>11}"
        if found.by_hand is not None:
            to_hand.append(found.by_hand / found.compiled)
            by_hand, ratio = f"{found.by_hand * 1e6:7.2f} µs", f"{to_hand[-1]:10.2f}x"
        print(
            f"{kind.name:24}{found.compiled * 1e6:7.2f} µs{by_hand}{found.construct * 1e6:8.1f} µs{ratio}"
            f"{to_construct[-1]:12.1f}x"
        )
    goals = [
        ("compiled against by hand, mean", mean(to_hand), GOAL_MEAN),
        ("compiled against by hand, each kind", min(to_hand), GOAL_EACH),
        ("compiled against construct, mean", mean(to_construct), GOAL_CONSTRUCT),
    ]
    for name, reached, goal in goals:
        print(f"{name:40}{reached:8.2f}x  goal {goal}x  {'reached' if reached >= goal else 'MISSED'}")
    print(f"{'compiled against construct, lowest kind':40}{min(to_construct):8.2f}x")
    return 0 if all(reached >= goal for _, reached, goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
