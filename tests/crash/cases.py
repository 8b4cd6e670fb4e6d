"""Which processes die at what, in which rounds of which case: drawn from a seed, until all that is wanted is in."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from crash.points import POINTS, points_of
from crash.system import AT_END, Death

ROUND_COUNT: Final = 4
"""Rounds of one case: later ones begin with what the earlier ones left."""
ENDURED_COUNT: Final = 90
"""Customers that die while the same two servers live on; each has a token of its own."""
GROUP_SIZE: Final = 4
"""Deaths of one server in one round of pairs."""
PAIRED_CLIENT_COUNT: Final = 6
"""Deaths of clients in one round of pairs."""
PAIRED: Final = (("bank", "gateway"), ("gateway", "client"), ("bank", "client"))
ASKING: Final = ("status", "retry")
"""What a customer in doubt does."""
_ENDURE: Final = "endure"
_AT_START: Final = ("bank.rewrite", "bank.row-account", "bank.row-customer", "bank.row-merchant", "gateway.rewrite")
_EARLY: Final = 0.15
_REACH: Final = 0.7
"""Of the hits that a round without deaths has, so many are sure to come."""
_CREDENTIALS_SENT: Final = Death("client", "client.pay.send.after", 3)
"""Hello, queries, credentials: so a customer is in doubt, and asks."""


@dataclass(frozen=True, slots=True)
class Case:
    """One system's life. Its text replays it, but for the order in which processes happen to run."""

    seed: int
    rounds: tuple[tuple[Death, ...], ...]
    is_endured: bool = False
    """Whether the servers live on while customers die."""

    def __str__(self) -> str:
        words = [str(self.seed), *([_ENDURE] if self.is_endured else [])]
        return "/".join((*words, *(",".join(map(str, deaths)) or "-" for deaths in self.rounds)))

    @classmethod
    def parse(cls, text: str) -> "Case":
        """What `str` gave. Raises ValueError."""
        seed, *rounds = text.split("/")
        is_endured = rounds[:1] == [_ENDURE]
        rounds = rounds[is_endured:]
        deaths = tuple(tuple(Death.parse(word) for word in one.split(",")) if one != "-" else () for one in rounds)
        for death in (death for one in deaths for death in one):
            if death.system_call is None and death.point not in POINTS:
                raise ValueError(f"there is no point {death.point}; 'python -m crash.launch --list' tells all")
        return cls(int(seed), deaths, is_endured)


@dataclass(slots=True)
class Drawing:
    """Draws deaths and cases. `hits`: how often a round without deaths comes past each point."""

    randomness: random.Random
    hits: Mapping[str, int]

    def death(self, name: str, *, is_sure: bool = False, reach: float = _REACH) -> Death:
        """A death at a point: at any of its hits, or with `is_sure` at its first."""
        point = POINTS[name]
        who = {"decoder": "bank", "encoder": "client"}.get(point.program, point.program)
        if point.reached_by not in ("serve", "pay", *ASKING):
            who = "operator"
        count_max = max(1, int(self.hits.get(name, 1) * reach))
        return Death(who, name, 1 if is_sure else self.randomness.randint(1, count_max))

    def rounds_for(self, names: Sequence[str], *, is_sure: bool = False) -> list[tuple[Death, ...]]:
        """Rounds in which all of these points have a death: two of each server, three of clients, one command."""
        kinds = ("bank", "gateway", "client", "asking", "operator")
        waiting: dict[str, list[Death]] = {kind: [] for kind in kinds}
        for name in names:
            death = self.death(name, is_sure=is_sure)
            waiting["asking" if POINTS[name].reached_by in ASKING else death.program].append(death)
        for deaths in waiting.values():
            self.randomness.shuffle(deaths)
        rounds = []
        while any(waiting.values()):
            chosen = _in_order(
                [waiting[kind].pop() for kind in ("operator", *("bank", "gateway") * 2) if waiting[kind]]
            )
            if waiting["asking"]:
                # The first dies in doubt, the other one as it asks.
                chosen += [_CREDENTIALS_SENT, waiting["asking"].pop()]
            else:
                chosen += [waiting["client"].pop() for _ in range(min(3, len(waiting["client"])))]
            rounds.append(tuple(chosen))
        return rounds

    def _more(self, name: str) -> Death:
        """One that comes early in a server's life."""
        return self.death(name, reach=_EARLY)

    def fill_up(self, kill_count: int) -> list[tuple[Death, ...]]:
        """Rounds of random points with so many deaths in all."""
        bank, gateway = points_of("bank", "serve"), points_of("gateway", "serve")
        client = points_of("client", "pay")
        rounds = []
        while kill_count > 0:
            first = [self.death(self.randomness.choice(points)) for points in (bank, gateway)]
            later = [self._more(self.randomness.choice(points)) for points in (bank, gateway)]
            one = _in_order([*first, *later, *map(self.death, self.randomness.sample(client, 3))])
            rounds.append(tuple(one))
            kill_count -= len(one)
        return rounds

    def endured(self, kill_count: int) -> list[Case]:
        """Cases in which so many customers die and the servers live on."""
        client = points_of("client", "pay")
        cases = []
        while kill_count > 0:
            size = min(kill_count, ENDURED_COUNT)
            deaths = tuple(self.death(name) for name in self.randomness.choices(client, k=size))
            cases.append(Case(self.randomness.getrandbits(32), (deaths,), is_endured=True))
            kill_count -= size
        return cases

    def cases(self, rounds: Sequence[tuple[Death, ...]], round_count: int = ROUND_COUNT) -> list[Case]:
        """Cases of so many of these rounds, each with a seed of its own."""
        # A command that makes keys is in a case once at most, since a list holds only so many.
        shuffled = list(rounds)
        self.randomness.shuffle(shuffled)
        plain = [r for r in shuffled if not any("-keys" in d.point for d in r)]
        keys = [r for r in shuffled if any("-keys" in d.point for d in r)]
        cases = []
        while plain or keys:
            one = [plain.pop() for _ in range(min(round_count - bool(keys), len(plain)))]
            if keys:
                one.insert(self.randomness.randint(0, len(one)), keys.pop())
            cases.append(Case(self.randomness.getrandbits(32), tuple(one)))
        return cases


def all_points() -> list[str]:
    """Every point, in the order of the table."""
    return list(POINTS)


def all_pairs() -> Iterator[tuple[str, str]]:
    """Every pair of points of two different programs that run side by side: servers, and paying clients."""
    of = {
        "bank": points_of("bank", "serve"),
        "gateway": points_of("gateway", "serve"),
        "client": points_of("client", "pay"),
    }
    for left, right in PAIRED:
        yield from product(of[left], of[right])


def rounds_of_all_pairs(drawing: Drawing) -> list[tuple[Death, ...]]:
    """Rounds in which both points of each pair die: some of the bank's, one after another, with some of the gateway's.

    With each group of either server all of the clients' points come by, some in a round.
    """
    bank = _groups(drawing, points_of("bank", "serve"))
    gateway = _groups(drawing, points_of("gateway", "serve"))
    client = points_of("client", "pay")
    drawing.randomness.shuffle(client)
    rounds = []
    for left, right in product(range(len(bank)), range(len(gateway))):
        first = PAIRED_CLIENT_COUNT * (left + right)
        clients = [client[(first + number) % len(client)] for number in range(PAIRED_CLIENT_COUNT)]
        rounds.append(tuple(drawing.death(name, is_sure=True) for name in (*bank[left], *gateway[right], *clients)))
    return rounds


def rounds_of_pairs(drawing: Drawing, pairs: Sequence[tuple[str, str]]) -> list[tuple[Death, ...]]:
    """Rounds for pairs of which one did not die: each with one of them, and those that have its first point too."""
    left = dict.fromkeys(pairs)
    rounds = []
    while left:
        one = next(iter(left))[0]
        others = [other for first, other in left if first == one]
        chosen = [other for other in others if POINTS[other].program == POINTS[others[0]].program][:3]
        for other in chosen:
            del left[one, other]
        deaths = [drawing.death(name, is_sure=True) for name in (one, *chosen)]
        rounds.append(tuple(_in_order(deaths)))
    return rounds


def _groups(drawing: Drawing, names: Sequence[str]) -> list[list[str]]:
    """All of these, some at a time, in any order.

    What only the start after an edit comes past is spread and comes first, what only SIGTERM leads to comes last.
    """
    at_start = [name for name in names if name.startswith(_AT_START)]
    at_end = [name for name in names if name.split(".")[1] in AT_END]
    others = [name for name in names if name not in at_start and name not in at_end]
    for some in (at_start, others, at_end):
        drawing.randomness.shuffle(some)
    count = -(-len(names) // GROUP_SIZE)
    dealt = [*at_start, *others, *at_end]
    return [dealt[number::count] for number in range(count)]


def _in_order(deaths: Sequence[Death]) -> list[Death]:
    """What only SIGTERM leads to comes last: a server would wait for it and not die of anything else."""
    return sorted(deaths, key=lambda death: death.is_at_end or death.is_childs)


def system_call_deaths(calls: Mapping[tuple[str, str], int], count_max: int | None) -> list[Death]:
    """A death at every call that was recorded, or at so many of them. `calls`: how many, by program and call."""
    deaths = [
        Death(program, f"call:{call}", number)
        for (program, call), count in sorted(calls.items())
        for number in range(1, count + 1)
    ]
    if count_max is None or len(deaths) <= count_max:
        return deaths
    return [deaths[index * len(deaths) // count_max] for index in range(count_max)]


def rounds_of_calls(drawing: Drawing, deaths: Sequence[Death]) -> list[tuple[Death, ...]]:
    """Rounds with one of these deaths for each program."""
    waiting = {name: [d for d in deaths if d.program == name] for name in ("bank", "gateway", "client")}
    rounds = []
    for of_program in waiting.values():
        drawing.randomness.shuffle(of_program)
    while any(waiting.values()):
        rounds.append(tuple(waiting[name].pop() for name in waiting if waiting[name]))
    return rounds
