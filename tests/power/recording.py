"""A story as it goes when nothing happens: all that the disk was asked, when each answer came, and what was held."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from disk_model import Image, Operation
from memory_disk import MemoryDisk, seed_sqlite
from power.story import Restart, State, Story, Violation


@dataclass(frozen=True)
class Recording:
    """One undisturbed run of a story. What is numbered begins with the opening of the store, which is number 0."""

    story: Story
    image: Image
    """What was on the disk at first."""
    trace: list[Operation]
    ends: list[int]
    """How many operations the disk had been asked when each step was answered."""
    answers: list[Any]
    states: list[State]
    """What was held after each step."""

    def answered_count(self, point: int) -> int:
        """How many steps were answered before the operation of this number."""
        return sum(end <= point for end in self.ends)


@contextmanager
def limits_of(story: Story) -> Iterator[None]:
    """The code has the limits that the story gives it."""
    with ExitStack() as stack:
        for module, name, value in story.limits:
            stack.enter_context(patch.object(module, name, value))
        yield


def record(story: Story) -> Recording:
    """Let a story happen; the caller sees to its limits. Raises Violation if the model holds something else."""
    seed_sqlite(f"{story.store_name} {story.seed}".encode())  # so that one seed is one trace, to the byte
    image = story.image or Image.of({})
    disk = MemoryDisk("recording", image)
    trace: list[Operation] = []
    disk.on_operation = trace.append
    recording = Recording(story, image, trace, [], [], [])

    def keep(answer: Any) -> None:
        recording.ends.append(len(trace))
        recording.answers.append(answer)
        state = story.look(store)
        if story.model is not None:
            number = len(recording.states)
            if state[0] != story.model.state():
                raise Violation(
                    f"{story.store_name} story {story.seed}: with no cut at all, after step {number} the store holds "
                    f"{state[0]} and not {story.model.state()}\nagain: {story.command}"
                )
        recording.states.append(state)

    try:
        store = story.open(disk.name)
        keep(None)
        for step in story.steps:
            if story.model is not None:
                story.model.take(step)
            if isinstance(step, Restart):
                store.close()
                store = story.open(disk.name)
                keep(None)
            else:
                keep(story.do(store, step))
        store.close()
        return recording
    finally:
        disk.kill()
        disk.close()
