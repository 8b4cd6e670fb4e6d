"""Runs the cases: those that disturb nobody all at once, the others alone afterwards."""

import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final

from paygate.conform.cases import CANCELLED, Case, Failed, Prepare, Skipped, Unreachable, WorldUsedUp
from paygate.conform.tasks import Task
from paygate.conform.trial import Settings, Trial
from paygate.conform.wire import Wire
from paygate.net.listen import ListenError
from paygate.net.loop import Loop, Timer

PROGRAM_END_MS: Final = 2_000
"""How long the run waits for programs that it killed to be gone; SIGKILL takes a busy machine a moment."""
_POLL_MS: Final = 10


class Outcome(Enum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case."""

    case: Case
    outcome: Outcome
    duration_ms: int
    expected: str = ""
    """What would have been right, of a failure."""
    reason: str = ""
    """What was seen instead, of a failure; or why it was skipped."""
    wires: list[Wire] = field(default_factory=list)
    """What passed, of a failure."""
    is_used_up: bool = False
    """Whether it was skipped for want of something that the world has no more of."""


class Run:
    """One run of some cases against one implementation, on a loop that the caller turns.

    `on_result` hears each case's result as it ends. `is_over` says when all have ended; `trouble` is then why no
    case could be run at all, if so. `cancel` breaks it off: what has not ended is skipped.
    """

    def __init__(
        self,
        loop: Loop,
        prepare: Prepare,
        cases: Iterable[Case],
        settings: Settings,
        on_result: Callable[[Result], None],
        *,
        jobs: int,
    ) -> None:
        self.is_over = False
        self.trouble: Unreachable | ListenError | None = None
        self._loop = loop
        self._settings = settings
        self._on_result = on_result
        self._jobs = jobs
        chosen = list(cases)
        # The slow ones wait most of their time, so they start first and take nobody's place.
        # With one job all run alone, the slow ones too.
        together = [case for case in chosen if jobs > 1 and not case.is_exclusive]
        self._slow = [case for case in together if case.is_slow]
        self._waiting = deque(case for case in together if not case.is_slow)
        self._alone = deque(case for case in chosen if case not in together)
        self._running: dict[Case, _Running] = {}
        self._has_started = False
        self._began_ms = loop.now_ms()
        self._preparing = Trial(loop, settings, self._began_ms, None)
        self._ended_trials: list[Trial] = []
        self._is_cancelled = False
        self._task = Task(loop, prepare(self._preparing), self._prepared)

    def cancel(self) -> None:
        """Start no more cases, and end those that run; harmless when repeated or over."""
        if self._is_cancelled or self.is_over:
            return
        self._is_cancelled = True
        self._task.cancel()
        running = list(self._running)
        for case in running:
            self._running[case].task.cancel()
            self._ended(case, Skipped(CANCELLED), None)
        # Slow ones are still in their list only if nothing has started.
        left = [*(self._slow if not self._has_started else ()), *self._waiting, *self._alone]
        self._waiting.clear()
        self._alone.clear()
        for case in left:
            self._on_result(Result(case, Outcome.SKIPPED, 0, reason=CANCELLED))
        if not running:
            self._end()

    def _prepared(self, error: Exception | None, shared: Any) -> None:
        if isinstance(error, Unreachable | ListenError):
            self.trouble = error
        elif error is not None:
            raise error
        if error is not None:
            self._end()
            return
        self._shared = shared
        self._has_started = True
        for case in self._slow:
            self._start(case)
        self._go_on()

    def _go_on(self) -> None:
        if self._is_cancelled:
            if not self._running:
                self._end()
            return
        busy_count = sum(not case.is_slow for case in self._running)
        while self._waiting and busy_count < self._jobs:
            self._start(self._waiting.popleft())
            busy_count += 1
        if not self._running and self._alone:
            self._start(self._alone.popleft())
        if not self._running:
            self._end()

    def _start(self, case: Case) -> None:
        trial = Trial(self._loop, self._settings, self._began_ms, self._shared)
        task = Task(self._loop, case.body(trial), partial(self._ended, case))
        limit_ms = case.limit_ms + self._settings.allowance_ms
        limit = self._loop.call_later(limit_ms, partial(self._took_too_long, case, limit_ms))
        self._running[case] = _Running(trial, task, limit, self._loop.now_ms())

    def _took_too_long(self, case: Case, limit_ms: int) -> None:
        self._running[case].task.cancel()
        self._ended(case, Failed(f"the case to end within {limit_ms} ms", "it goes on and on"), None)

    def _ended(self, case: Case, error: Exception | None, _value: Any) -> None:
        running = self._running.pop(case)
        running.limit.cancel()
        trial = running.trial
        floods = (wire.flood for wire in trial.wires if wire.flood is not None)
        error = next(floods, None) or error or trial.background_failure
        duration_ms = self._loop.now_ms() - running.began_ms
        self._on_result(_result(case, error, duration_ms, trial.wires))
        trial.end()
        if trial.is_running:
            self._ended_trials.append(trial)
        self._go_on()

    def _end(self) -> None:
        self._end_by(self._loop.now_ms() + PROGRAM_END_MS)

    def _end_by(self, deadline_ms: int) -> None:
        # A program that still runs may write into the run's directory, which ends with what prepared the run.
        if any(trial.is_running for trial in self._ended_trials) and self._loop.now_ms() < deadline_ms:
            self._loop.call_later(_POLL_MS, partial(self._end_by, deadline_ms))
            return
        self._preparing.end()
        self.is_over = True


@dataclass(frozen=True, slots=True)
class _Running:
    trial: Trial
    task: Task
    limit: Timer
    began_ms: int


def _result(case: Case, error: Exception | None, duration_ms: int, wires: list[Wire]) -> Result:
    if error is None:
        return Result(case, Outcome.PASSED, duration_ms)
    if isinstance(error, Skipped):
        return Result(case, Outcome.SKIPPED, duration_ms, reason=str(error), is_used_up=isinstance(error, WorldUsedUp))
    if isinstance(error, Failed):
        return Result(case, Outcome.FAILED, duration_ms, error.expected, error.got, wires)
    if isinstance(error, Unreachable):
        return Result(case, Outcome.FAILED, duration_ms, "a connection", str(error), wires)
    # A bug of ours must not hide what the other cases found.
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"the kit itself failed: {type(error).__name__} in {place.name}, line {place.lineno}: {error}"
    return Result(case, Outcome.FAILED, duration_ms, "a case that works", text, wires)


def turn_until(loop: Loop, is_over: Callable[[], bool]) -> None:
    """Turn the loop until it is over; what reads and what sends are two steps of each tick."""
    while not is_over():
        loop.run_once()
        loop.flush()
