"""Which bytes of which frames of which link are cut or altered: the cases of the link campaign."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final

from faults.relay import FIN, FLIP, FORGE, RST, TO_CALLER, TO_SERVER, Framed, Harm, Joined, frames_of

CLIENT_LINK: Final = "client-gateway"
BANK_LINK: Final = "gateway-bank"
FIRST: Final = "pay"
"""The connection on which a payment begins."""
AGAIN: Final = "ask"
"""The connection after that, on which is asked what became of it: the one before was cut where the answer begins."""
HOWS: Final = (FIN, RST, FLIP, FORGE)


@dataclass(frozen=True, slots=True)
class LinkCase:
    """One harm to one connection of one payment."""

    link: str
    connection: str
    frame: str
    """The frame that is cut or altered; `end` for a cut behind the last one."""
    harm: Harm

    @property
    def text(self) -> str:
        """As `--case` takes it."""
        harm = self.harm
        return f"{self.link}/{self.connection}/{self.frame}/{harm.direction}/{harm.offset}/{harm.how}/{harm.bit}"


def parse_link_case(text: str) -> LinkCase:
    """A case as its text says it. Raises ValueError."""
    words = text.split("/")
    if len(words) != 7 or words[5] not in HOWS or words[0] not in (CLIENT_LINK, BANK_LINK):
        raise ValueError(f"a case is LINK/CONNECTION/FRAME/DIRECTION/OFFSET/HOW/BIT, not {text!r}")
    link, connection, frame, direction, offset, how, bit = words
    return LinkCase(link, connection, frame, Harm(direction, int(offset), how, int(bit)))


@dataclass(frozen=True, slots=True)
class Recorded:
    """The frames of a connection that nothing happened to."""

    frames: dict[str, tuple[Framed, ...]]
    """By direction."""

    @classmethod
    def of(cls, joined: Joined) -> "Recorded":
        """What passed on it."""
        return cls({direction: tuple(frames_of(bytes(data))) for direction, data in joined.passed.items()})

    def start_of_last(self, direction: str) -> int:
        """Where the last frame of a direction begins: on a payment's connection, the answer."""
        return self.frames[direction][-1].start

    def no_answer(self) -> Harm:
        """What lets one byte of the answer pass, so that it is certain that there was one, and no more."""
        return Harm(TO_CALLER, self.start_of_last(TO_CALLER) + 1, FIN)

    def size(self, direction: str) -> int:
        """How many bytes passed."""
        return self.frames[direction][-1].end


def all_cases(recorded: dict[tuple[str, str], Recorded], randomness: random.Random) -> list[LinkCase]:
    """Every byte of every frame, cut and altered in each way, by link and connection."""
    found: list[LinkCase] = []
    for (link, connection), of_link in recorded.items():
        for direction in (TO_SERVER, TO_CALLER):
            for framed in of_link.frames[direction]:
                for offset in range(framed.start, framed.end):
                    for how in HOWS:
                        if how == FORGE and framed.is_checksum(offset):
                            continue  # it would get the checksum that it has
                        harm = Harm(direction, offset, how, randomness.randrange(8))
                        found.append(LinkCase(link, connection, framed.kind.name, harm))
            size = of_link.size(direction)
            found += [LinkCase(link, connection, "end", Harm(direction, size, how)) for how in (FIN, RST)]
    return found


def drawn(cases: Sequence[LinkCase], count: int | None, randomness: random.Random) -> list[LinkCase]:
    """So many cases, as many of each frame and each harm as there are: small frames whole before large ones' rest."""
    groups: dict[tuple[str, ...], list[LinkCase]] = {}
    for case in cases:
        key = (case.link, case.connection, case.frame, case.harm.direction, case.harm.how)
        groups.setdefault(key, []).append(case)
    order = list(groups.values())
    randomness.shuffle(order)
    for group in order:
        randomness.shuffle(group)
    rounds: Iterable[tuple[LinkCase | None, ...]] = zip_longest(*order)
    return [case for case in chain.from_iterable(rounds) if case is not None][:count]


def table(cases: Iterable[LinkCase]) -> list[str]:
    """Lines with the counts by link, connection and frame, and how each was harmed."""
    counts = Counter((case.link, case.connection, case.harm.direction, case.frame, case.harm.how) for case in cases)
    rows: dict[tuple[str, ...], list[str]] = {}
    for (*place, how), count in sorted(counts.items()):
        rows.setdefault(tuple(place), []).append(f"{how} {count}")
    return [
        f"  {link:14} {connection:3} {direction:9} {frame:21} {', '.join(told)}"
        for (link, connection, direction, frame), told in rows.items()
    ]
