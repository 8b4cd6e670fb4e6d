"""Coroutines over the one loop, so that a case reads as one story while a hundred others wait (R21, R22).

A coroutine here can wait for one thing only: a signal or a time, whichever comes first (`Signal.wait_until`). What
else there is to await is made of that.
"""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from paygate.net.loop import Loop, Timer

Story = Coroutine["Wait", bool, Any]
"""A coroutine that awaits nothing but waits of this module."""


class Signal:
    """Something that may happen again and again; waking up means: look whether it is what you wait for."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waits: dict[Wait, None] = {}

    def notify(self) -> None:
        """It happened: everybody who waits now goes on, at the end of this tick."""
        waits, self._waits = self._waits, {}
        for wait in waits:
            wait.happened()

    def wait_until(self, deadline_ms: int) -> "Wait":
        """Await it: True once it happens, False if the loop's clock reaches `deadline_ms` first."""
        return Wait(self._loop, self._waits, deadline_ms)


class Wait:
    """One wait; made by `Signal.wait_until`, awaited once."""

    def __init__(self, loop: Loop, waits: "dict[Wait, None]", deadline_ms: int) -> None:
        self._loop = loop
        self._waits = waits
        self._deadline_ms = deadline_ms
        self._timer: Timer | None = None
        self._resume: Callable[[bool], None] | None = None

    def __await__(self) -> "Generator[Wait, bool, bool]":
        return (yield self)

    def begin(self, resume: Callable[[bool], None]) -> None:
        """Called by the task that waits; `resume` is called once, from the loop."""
        self._resume = resume
        self._waits[self] = None
        self._timer = self._loop.call_at(self._deadline_ms, partial(self._end, False))

    def happened(self) -> None:
        """Called by the signal, which has forgotten this wait."""
        self._cancel_timer()
        self._timer = self._loop.call_soon(partial(self._end, True))

    def cancel(self) -> None:
        """Resume nobody."""
        self._cancel_timer()
        self._waits.pop(self, None)
        self._resume = None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, has_happened: bool) -> None:
        self._waits.pop(self, None)
        resume, self._resume = self._resume, None
        if resume is not None:
            resume(has_happened)


class Task:
    """A story that runs by itself. `on_end` hears its end once, with what it raised, unless it was cancelled."""

    def __init__(self, loop: Loop, story: Story, on_end: Callable[[Exception | None, Any], None]) -> None:
        self._story = story
        self._on_end = on_end
        self._wait: Wait | None = None
        self._is_over = False
        self._start: Timer | None = loop.call_soon(partial(self._step, None))

    def cancel(self) -> None:
        """Stop where it waits; its `finally` blocks run, and must not wait. Harmless when it is over."""
        if self._is_over:
            return
        self._is_over = True
        if self._start is not None:
            self._start.cancel()
        if self._wait is not None:
            self._wait.cancel()
        self._story.close()

    def _step(self, value: bool | None) -> None:
        self._start = self._wait = None
        try:
            wait = self._story.send(value)  # type: ignore[arg-type]  # a coroutine is begun by sending None
        except StopIteration as end:
            self._finish(None, end.value)
        except Exception as error:  # whoever waits for the task tells a failed case from a bug
            self._finish(error, None)
        else:
            self._wait = wait
            wait.begin(self._step)

    def _finish(self, error: Exception | None, value: Any) -> None:
        self._is_over = True
        self._on_end(error, value)
