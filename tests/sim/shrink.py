"""Makes a failing run small: which of its faults and shoppers are needed, and what went over the wire with only those.

`ddmin` (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the indexes of the
faults, then over the shoppers: whole halves are left out first, single ones last, and a run counts as the same failure
only if the same invariant breaks. All else stays drawn as it was, so the seed and what is left out replay it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sim.faults import Fault
from sim.judge import Violation
from sim.world import SHOPPER_INDEX, SentBytes, World

from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind
from paygate.codec.describe import describe
from paygate.codec.errors import RemoteProtocolError

RUN_COUNT_MAX: Final = 120
"""Runs that a shrink takes at most: at some 50 ms each a few seconds."""
LADDER_LINE_COUNT_MAX: Final = 400
"""Of a longer ladder the end is printed, where it broke."""
_LINE_SIZE_MAX: Final = 200
_LINK_TESTS: Final = frozenset({Kind.ECHO, Kind.ECHO_REPLY})


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
    shopper_count: int = 0
    """How many shoppers the plan has."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class _Small(NamedTuple):
    """What is left of one kind of what can be left out."""

    failure: Failure
    disabled: frozenset[int]
    run_count: int


Try = Callable[[frozenset[int]], Failure | None]
"""Runs the seed with some faults and shoppers left out."""


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
    return Failure(kind, text, world.agenda.now_us, tuple(world.happened), world.sent, len(world.plan.shopping))


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What is left of a failing run."""

    seed: int
    failure: Failure
    disabled: frozenset[int]
    """Faults that it fails without, and shoppers by their places from SHOPPER_INDEX on."""
    run_count: int
    shopper_count: int
    """How many shoppers there were at first."""

    def lines(self) -> Iterator[str]:
        """The minimal schedule, one line a fault, and the ladder of frames."""
        yield f"seed {self.seed}: {self.failure}"
        count = len(self.failure.faults)
        yield f"minimal schedule after {self.run_count} runs: {count} faults" if count else "no fault is needed:"
        yield from (f"  {fault}" for fault in self.failure.faults)
        absent_count = sum(index >= SHOPPER_INDEX for index in self.disabled)
        yield f"{self.shopper_count - absent_count} of {self.shopper_count} shoppers; ladder:"
        yield from ladder(self.failure.sent)


def shrink(seed: int, failure: Failure, attempt: Try, *, run_count_max: int = RUN_COUNT_MAX) -> Shrunk:
    """The same failure with as few faults, and then shoppers, as can be found within so many runs."""
    faults = [fault.index for fault in failure.faults]
    shoppers = [SHOPPER_INDEX + place for place in range(failure.shopper_count)]
    disabled: frozenset[int] = frozenset()
    run_count = 0
    for every in (faults, shoppers):
        small = _minimise(every, disabled, failure, attempt, run_count_max - run_count)
        failure, disabled = small.failure, small.disabled
        run_count += small.run_count
    return Shrunk(seed, failure, disabled, run_count, len(shoppers))


def _minimise(
    every: list[int], disabled: frozenset[int], failure: Failure, attempt: Try, run_count_max: int
) -> "_Small":
    everything = disabled | frozenset(every)
    needed = every
    part_count = 2
    run_count = 0
    while needed and run_count < run_count_max:
        for part in _parts(needed, min(part_count, len(needed))):
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
    return _Small(failure, everything - frozenset(needed), run_count)


def _parts(items: list[int], count: int) -> list[list[int]]:
    return [items[len(items) * n // count : len(items) * (n + 1) // count] for n in range(count)]


def ladder(sent: Sequence[SentBytes]) -> Iterator[str]:
    """A line a frame but for link tests: when, who to whom, and what, with its secrets masked."""
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
            if frame.kind not in _LINK_TESTS:
                yield f"{head} #{frame.correlation_id} {describe(frame.message())[:_LINE_SIZE_MAX]}"
    except RemoteProtocolError as error:
        buffers[(one.link_name, one.sender)] = None
        yield f"{head} {len(one.data)} bytes that are no frame ({error.text})"
