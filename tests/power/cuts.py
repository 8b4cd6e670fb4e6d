"""The campaign: the power goes before each operation of a recorded story, and the store is opened again.

At every point of the trace there are several tearings; one death of the process alone; and at some points the power
goes a second time, at each point of the recovery. In each step a sync fails once. After each of these the store must
open, and hold exactly what it held after the last step that was answered, or after the one that was under way: so
whatever was answered is there whole, and what was not is there wholly or not at all. It must then go on and answer the
next step as it was answered when nothing happened: so nothing is forgotten that decides, no UTR is given out twice and
a fence stays.

Whoever opened the store has seen what is in it, and may have told. So a cut after that takes nothing back.
"""

from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from disk_model import CutReport, Files, Image, Operation
from memory_disk import MemoryDisk
from power.recording import Recording, limits_of, record
from power.story import Restart, State, Story, Violation

from paygate.files.sqlite import StoreError

TEARING_COUNT = 3
"""Cuts at each point; each draws what is kept, lost and torn."""
RECOVERY_EVERY = 16
"""At one of so many points the power goes again in the recovery."""
WHOLE_REST_EVERY = 32
"""After one of so many cuts the rest of the story is told to its end, instead of one step."""


@dataclass
class Counts:
    """What one store went through."""

    stories: int = 0
    points: int = 0
    """Operations of the disk before which the power went; one more a story, for its end."""
    cuts: int = 0
    recovery_cuts: int = 0
    """Of these, second ones, while the store was being opened after the first."""
    kills: int = 0
    """Deaths of the process alone, each followed by a cut once it was opened again."""
    failed_syncs: int = 0
    """Syncs that failed while a step was done, after which the store must stop (T31)."""
    unanswered_kept: int = 0
    """Times that a step which nobody had been answered was there, whole."""
    report: CutReport = field(default_factory=CutReport)

    def __str__(self) -> str:
        r = self.report
        return (
            f"{self.stories} stories, {self.points} points, {self.cuts} cuts ({self.recovery_cuts} in recovery), "
            f"{self.kills} kills, {self.failed_syncs} failed syncs; "
            f"writes {r.kept} kept, {r.lost} lost, {r.torn} torn; names {r.names_kept} kept, "
            f"{r.names_lost} lost; {r.sizes_wrong} sizes wrong; {self.unanswered_kept} unanswered steps kept"
        )


class Campaign:
    """Cuts of one story."""

    def __init__(self, recording: Recording, counts: Counts) -> None:
        """The caller sees to the story's limits."""
        self._recording = recording
        self._story = recording.story
        self._counts = counts
        self._disk = MemoryDisk("cut")
        self._point = 0
        self._case = ""

    def close(self) -> None:
        """When it is over."""
        self._disk.close()

    def run(self, points: Container[int] | None = None) -> None:
        """All points, or some of them. Raises Violation."""
        files = Files(self._recording.image)
        trace = self._recording.trace
        for self._point in range(len(trace) + 1):
            if points is None or self._point in points:
                self._counts.points += 1
                self._at_point(files)
            if self._point < len(trace):
                files.do(trace[self._point])

    def _at_point(self, files: Files) -> None:
        answered_count = self._recording.answered_count(self._point)
        # The store was being opened: then what was held at first is all that can be.
        first = max(0, answered_count - 1)
        last = min(answered_count, len(self._recording.states) - 1)
        for tearing in range(TEARING_COUNT):
            image = self._cut(files, f"tearing {tearing}")
            self._check(image, first, last)
        image = files.image()
        self._counts.kills += 1
        self._case = "kill"
        found = self._check(image, first, last)
        self._check(self._cut(Files(self._last_image), "kill, cut"), found, found)
        if self._point % RECOVERY_EVERY == self._story.seed % RECOVERY_EVERY:
            self._cut_recovery(image, "after a kill", first, last)
            self._cut_recovery(self._cut(files, "first"), "after a cut", first, last)

        if self._point in self._recording.ends and answered_count <= len(self._story.steps):
            self._fail_sync(image, answered_count - 1)

    def _fail_sync(self, image: Image, number: int) -> None:
        """T31: one of the first syncs of the step after this one fails. Then nothing is answered, and nothing asked.

        What the step wrote can be seen from then on, and isn't on disk.
        """
        step = self._story.steps[number]
        if isinstance(step, Restart):
            return
        self._case = "failed sync"
        failing = left = Random(f"{self._story.seed} {self._point}").randrange(1, 4)
        self._disk.restore(image)
        store = self._open()

        def fail_one(operation: Operation) -> None:
            nonlocal left
            left -= operation.kind == "sync"
            self._disk.fsync_fails = operation.kind == "sync" and left == 0

        self._disk.on_operation = fail_one
        with suppress(StoreError):
            self._story.do(store, step)
            if left > 0:
                failing = 0  # it needed fewer
            number += 1
        self._disk.on_operation, self._disk.fsync_fails = None, False
        if failing:
            self._counts.failed_syncs += 1
            self._case += f" {failing}"
            image = self._disk.image()
            last = min(number + 1, len(self._story.steps))
            for tearing in range(TEARING_COUNT):
                self._check(self._cut(Files(image), f"failed sync {failing}, {tearing}"), number, last)
            found = self._check(image, number, last)
            self._check(self._cut(Files(self._last_image), f"failed sync {failing}, seen"), found, found)
        self._disk.kill()
        store.close()

    def _cut_recovery(self, image: Image, name: str, first: int, last: int) -> None:
        """The power goes at each point of opening the store on this image."""
        self._case = f"recovery {name}"
        trace: list[Operation] = []
        self._disk.restore(image)
        self._disk.on_operation = trace.append
        store = self._open()
        self._disk.on_operation = None
        told = self._match(self._story.look(store), first, last)
        self._disk.kill()
        store.close()
        files = Files(image)
        for number in range(len(trace) + 1):
            self._counts.recovery_cuts += 1
            is_over = number == len(trace)
            second = self._cut(files, f"recovery {name}, {number}")
            self._check(second, told if is_over else first, told if is_over else last)
            if not is_over:
                files.do(trace[number])

    def _cut(self, files: Files, case: str) -> Image:
        self._case = case
        self._counts.cuts += 1
        story = self._story
        image, report = files.after_cut(Random(f"{story.store_name} {story.seed} {self._point} {case}"))
        self._counts.report.add(report)
        return image

    def _check(self, image: Image, first: int, last: int) -> int:
        """Open the store on these files; gives the number of the step after which it was as it is now."""
        self._disk.restore(image)
        store = self._open()
        number = self._match(self._story.look(store), first, last)
        self._last_image = self._disk.image()
        self._counts.unanswered_kept += number > first
        if self._counts.cuts % WHOLE_REST_EVERY == 0:
            store = self._go_on(store, number, len(self._story.steps))
            self._match(self._story.look(store), len(self._story.steps), len(self._story.steps))
            store.close()
        else:
            store = self._go_on(store, number, number + 1)
            # As if it were killed: what closing asks of the disk is part of the story.
            self._disk.kill()
            store.close()
        return number

    def _go_on(self, store: Any, number: int, end: int) -> Any:
        recording = self._recording
        for index, step in enumerate(self._story.steps[number:end], number + 1):
            if isinstance(step, Restart):
                store.close()
                store = self._open()
                continue
            answer = self._story.do(store, step)
            if answer != recording.answers[index]:
                raise self._violation(f"step {index} was answered {answer}, not {recording.answers[index]}")
        return store

    def _open(self) -> Any:
        try:
            return self._story.open(self._disk.name)
        except StoreError as error:
            raise self._violation(f"the store does not open: {error}") from error

    def _match(self, state: State, first: int, last: int) -> int:
        states = self._recording.states
        for number in range(first, last + 1):
            if states[number] == state:
                return number
        known = [number for number, other in enumerate(states) if other == state]
        found = f"as after step {known[0]}" if known else "what it never held"
        raise self._violation(f"the store holds {found}; steps up to {first} were answered, and {last} was asked")

    def _violation(self, text: str) -> Violation:
        story, trace = self._story, self._recording.trace
        before = trace[self._point] if self._point < len(trace) else None
        where = f"before {before.kind} {before.file} {before.offset} {before.size}" if before else "at the end"
        point = f"{story.store_name} story {story.seed}, point {self._point} of {len(trace)} ({where})"
        return Violation(f"{point}, {self._case}: {text}\nagain: {story.command} POINT={self._point}")


def cut_story(story: Story, counts: Counts, points: Container[int] | None = None) -> None:
    """All cuts of one story, or those at some points. Raises Violation."""
    with limits_of(story):
        campaign = Campaign(record(story), counts)
        try:
            counts.stories += 1
            campaign.run(points)
        finally:
            campaign.close()
