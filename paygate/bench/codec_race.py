"""The compiled codec against `struct` code written by hand and against interpreted construct, kind by kind.

All three encode and decode the same messages in turn, round after round, each shorter than a time slice; ratios are
formed within a round, and their medians count. Each message is encoded once, as an object that the codec has not seen
before.

The compiled codec remembers texts that are declared to recur (parties, merchants, currencies), and code written by hand
does not. So every kind races twice: with the same texts in all messages, as in a server's life, and with texts that no
message before had, so that nothing remembered is of use.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any, Final

from paygate.bench.codec_messages import MESSAGES_BY_KIND, copied, renamed
from paygate.bench.peers.hand_codec import BY_HAND
from paygate.codec.codes import Kind
from paygate.codec.messages import Message
from paygate.codec.record_codec import WAYS
from paygate.codec.remembered import kept

ROUND_COUNT: Final = 101
MESSAGE_COUNT: Final = 100
"""Messages of a round, of each way but construct: that one has fewer, so that its rounds are as long."""
_CONSTRUCT_SHARE: Final = 25
TEXTS: Final = ("recurring", "distinct")


@dataclass(frozen=True, slots=True)
class CodecTimes:
    """Microseconds for one encode and one decode of a kind's message, one a round."""

    kind: str
    texts: str
    """One of TEXTS."""
    compiled_us: list[float]
    construct_us: list[float]
    by_hand_us: list[float]
    """Empty for kinds that don't travel on a socket."""

    @property
    def to_hand(self) -> list[float]:
        """How many times as fast as by hand the compiled codec is, by round."""
        return [theirs / ours for theirs, ours in zip(self.by_hand_us, self.compiled_us, strict=False)]

    @property
    def to_construct(self) -> list[float]:
        """The same for construct."""
        return [theirs / ours for theirs, ours in zip(self.construct_us, self.compiled_us, strict=True)]


def race(kinds: Iterable[Kind] = Kind, round_count: int = ROUND_COUNT) -> list[CodecTimes]:
    """Every kind with each sort of texts. All of it takes some ten seconds."""
    return [_race(kind, texts, round_count) for kind in kinds for texts in TEXTS]


def _race(kind: Kind, texts: str, round_count: int) -> CodecTimes:
    message = MESSAGES_BY_KIND[kind]
    cls = type(message)
    compiled, construct = WAYS["compiled"], WAYS["construct"]
    numbers = count()
    ways: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], object], int]] = {
        "compiled": (compiled.encode, lambda data: compiled.decode(cls, data, 0), MESSAGE_COUNT),
        "construct": (construct.encode, lambda data: construct.decode(cls, data, 0), MESSAGE_COUNT // _CONSTRUCT_SHARE),
    }
    if kind in BY_HAND:
        ways["by hand"] = *BY_HAND[kind], MESSAGE_COUNT
    found: dict[str, list[float]] = {name: [] for name in ("compiled", "construct", "by hand")}
    for encode, decode, _ in ways.values():
        decode(encode(message))  # the codec is compiled at a kind's first use
    for _ in range(round_count):
        messages = list(_messages(message, texts, numbers))
        for name, (encode, decode, size) in ways.items():
            found[name].append(_round_us(encode, decode, messages[:size]))
    return CodecTimes(kind.name, texts, found["compiled"], found["construct"], found["by hand"])


def _messages(message: Message, texts: str, numbers: Iterator[int]) -> Iterator[Message]:
    for _ in range(MESSAGE_COUNT):
        yield copied(message) if texts == "recurring" else renamed(message, next(numbers))


def _round_us(encode: Callable[[Any], bytes], decode: Callable[[bytes], object], messages: Sequence[Message]) -> float:
    kept.clear()  # no encoding is found that another way, or the round before, has made
    began_ns = time.perf_counter_ns()
    for message in messages:
        decode(encode(message))
    return (time.perf_counter_ns() - began_ns) / 1000 / len(messages)


# -- what follows ----------------------------------------------------------------------------------------


def mean_of_kinds(ratios: Sequence[Sequence[float]]) -> list[float]:
    """The geometric mean of the kinds' ratios, by round: of twice and half as fast, the mean is as fast."""
    return [math.exp(math.fsum(map(math.log, a_round)) / len(a_round)) for a_round in zip(*ratios, strict=True)]


def slowest_of(ratios: Sequence[Sequence[float]]) -> list[float]:
    """The ratios of the kind whose median is the lowest."""
    return list(min(ratios, key=median))
