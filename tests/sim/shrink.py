"""Makes a failing run small: which of its faults are needed, and what went over the wire when only those happened.

`ddmin` (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the indexes of the
faults: whole halves are left out first, single faults last, and a run counts as the same failure only if the same
invariant breaks. All else of the run stays drawn as it was, so the seed and the faults left out replay it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sim.faults import Fault
from sim.judge import Judge, Violation
from sim.world import MakeEvil, SentBytes, World

from paygate.codec.buffer import FrameBuffer
from paygate.codec.describe import describe
from paygate.codec.errors import RemoteProtocolError

RUN_COUNT_MAX: Final = 120
"""Runs that a shrink takes at most: at some 50 ms each a few seconds."""
LADDER_LINE_COUNT_MAX: Final = 400
"""Of a longer ladder the end is printed, where it broke."""
_LINE_SIZE_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run ended that should not have."""

    kind: str
    """The invariant's name, or the class of the exception that came out of a core or store."""
    text: str
    at_us: int
    faults: tuple[Fault, ...]
    """Those that happened, in order."""
    sent: Sequence[SentBytes] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


Try = Callable[[frozenset[int]], Failure | None]
"""Runs the seed with some faults left out."""


def failure_of(world: World) -> Failure | None:
    """Run a world; how it failed, or None."""
    try:
        world.run()
    except Violation as violation:
        kind, text = str(violation.invariant), violation.text
    except Exception as error:  # whatever a core or store raises is what we are looking for
        kind, text = type(error).__name__, str(error)
    else:
        return None
    return Failure(kind, text, world.agenda.now_us, tuple(world.happened), world.sent)


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What is left of a failing run."""

    seed: int
    failure: Failure
    disabled: frozenset[int]
    """Faults that it fails without."""
    run_count: int

    def lines(self) -> Iterator[str]:
        """The minimal schedule, one line a fault, and the ladder of frames."""
        yield f"seed {self.seed}: {self.failure}"
        count = len(self.failure.faults)
        yield f"minimal schedule after {self.run_count} runs: {count} faults" if count else "no fault is needed:"
        yield from (f"  {fault}" for fault in self.failure.faults)
        yield "ladder:"
        yield from ladder(self.failure.sent)


def shrink(seed: int, failure: Failure, attempt: Try, *, run_count_max: int = RUN_COUNT_MAX) -> Shrunk:
    """The same failure with as few faults as can be found within so many runs."""
    every = [fault.index for fault in failure.faults]
    everything = frozenset(every)
    needed = every
    part_count = 2
    run_count = 0
    while needed and run_count < run_count_max:
        parts = _parts(needed, min(part_count, len(needed)))
        for part in parts:
            rest = [index for index in needed if index not in part]
            run_count += 1
            found = attempt(everything - frozenset(rest))
            if found is not None and found.kind == failure.kind:
                failure, needed = found, rest
                part_count = max(2, part_count - 1)
                break
            if run_count >= run_count_max:
                break
        else:
            if part_count >= len(needed):
                break
            part_count *= 2
    return Shrunk(seed, failure, everything - frozenset(needed), run_count)


def shrink_seed(
    seed: int, make_judge: Callable[[], Judge], *, make_evil: MakeEvil | None = None, run_count_max: int = RUN_COUNT_MAX
) -> Shrunk | None:
    """Run a seed, and make it small if it fails."""

    def attempt(disabled: frozenset[int]) -> Failure | None:
        return failure_of(World(seed, make_judge(), disabled=disabled, make_evil=make_evil))

    failure = attempt(frozenset())
    return None if failure is None else shrink(seed, failure, attempt, run_count_max=run_count_max)


def _parts(items: list[int], count: int) -> list[list[int]]:
    return [items[len(items) * n // count : len(items) * (n + 1) // count] for n in range(count)]


def ladder(sent: Sequence[SentBytes]) -> Iterator[str]:
    """A line a frame: when, who to whom, and what, with its secrets masked."""
    buffers: dict[tuple[str, str], FrameBuffer | None] = {}
    lines = [line for one in sent for line in _lines_of(one, buffers)]
    if len(lines) > LADDER_LINE_COUNT_MAX:
        yield f"  ({len(lines) - LADDER_LINE_COUNT_MAX} lines before these)"
    yield from lines[-LADDER_LINE_COUNT_MAX:]


def _lines_of(one: SentBytes, buffers: dict[tuple[str, str], FrameBuffer | None]) -> Iterator[str]:
    head = f"  {one.at_us / 1e6:10.6f} {one.link_name:>14} {one.sender:>6} > {one.receiver:<6}"
    buffer = buffers.setdefault((one.link_name, one.sender), FrameBuffer())
    if buffer is None:
        yield f"{head} {len(one.data)} bytes more of what was no frame"
        return
    try:
        buffer.receive_data(one.data)
        while buffer.next_head() is not None and (frame := buffer.next_frame()) is not None:
            yield f"{head} #{frame.correlation_id} {describe(frame.message())[:_LINE_SIZE_MAX]}"
    except RemoteProtocolError as error:
        buffers[(one.link_name, one.sender)] = None
        yield f"{head} {len(one.data)} bytes that are no frame ({error.text})"
