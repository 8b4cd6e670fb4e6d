"""A store's story: what it is made to do, drawn from a seed, and what it must hold after each step of it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Protocol

from builders import NOW_MS
from disk_model import Image

from paygate.clock import Now

CHECKPOINT_PAGE_COUNTS = (1_000, 60, 25, 8)
"""Pages of the log after which it is copied: as in service, and so few that it happens again and again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Operations of one transaction."""

    operations: tuple[Any, ...]
    now: Now


@dataclass(frozen=True, slots=True)
class SkipUtrs:
    """The bank has found UTRs in its records that its ledger does not know (T7)."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The store is closed as at the end of service, and opened again."""


Step = Batch | SkipUtrs | Restart


State = tuple[Hashable, Hashable]
"""What a store holds: all that the model speaks of, and the evidence that no model could make up (receipts)."""


class Model(Protocol):
    """What a store must hold, worked out without a line of the code that is under test."""

    def take(self, step: Step) -> None:
        """The step was done."""

    def state(self) -> Hashable:
        """What the store must hold now, in the form of a State's first half."""


@dataclass
class Clock:
    """Both clocks of the machine, which run alike."""

    ms: int = 0

    def advance(self, ms: int) -> Now:
        """Let time pass."""
        self.ms += ms
        return Now(1_000_000 + self.ms, NOW_MS + self.ms)


@dataclass
class Story:
    """One story of a store. `image` is what is on the disk at first: nothing, or the database of an older paygate."""

    store_name: ClassVar[str]
    seed: int
    steps: Sequence[Step] = field(default_factory=list)
    image: Image | None = None
    limits: Sequence[tuple[Any, str, int]] = ()
    """Limits of the code that are lower in this story: module, name, value."""
    model: Model | None = None
    """None if the story begins with an older database, which the model knows nothing of."""

    @property
    def command(self) -> str:
        """What cuts this story again."""
        return f"make power-cuts STORE={self.store_name} SEED={self.seed}"

    def open(self, vfs: str) -> Any:
        """The store on this disk."""
        raise NotImplementedError

    def do(self, store: Any, step: Step) -> Any:
        """Do a step that is no restart; gives what the store answers, which the disk must hold by then."""
        raise NotImplementedError

    def look(self, store: Any) -> State:
        """What the store holds."""
        raise NotImplementedError


class Violation(AssertionError):
    """A store lost, tore or made up something; the text says where, and how to see it again."""


def weighted(randomness: Random, weights: dict[str, int]) -> str:
    """One of the names, as often as its weight says."""
    return randomness.choices(list(weights), list(weights.values()))[0]
