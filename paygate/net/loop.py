"""The event loop: readiness, timers, and one flush a tick (R21).

Strategy. `run_once` is one tick and returns, because the caller has work between reading and writing: it commits
the tick's records and only then lets anything leave. So callbacks never write. Whoever has output marks itself
dirty, and `flush` gives each dirty object one write.

The loop swallows no exception. What a callback raises leaves `run_once`, the loop stays usable, and whatever was
ready and not yet handled comes up again in the next tick.

The cost of a tick grows with what is ready and due, not with what is connected.
"""

import heapq
import selectors
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

from paygate.net.limits import READ_SIZE_MAX

EVENT_READ = selectors.EVENT_READ
EVENT_WRITE = selectors.EVENT_WRITE

# Below so many cancelled timers a compaction costs more than the memory it frees.
_COMPACT_COUNT_MIN = 64


class Flushable(Protocol):
    """Something with output that waits for the end of the tick."""

    def flush_output(self) -> None:
        """Try one write. Called by the loop; must not call handlers."""


def monotonic_ms() -> int:
    """Milliseconds of a clock that never steps (T7: the wall clock may)."""
    return time.monotonic_ns() // 1_000_000


class Timer:
    """A callback that waits for its time. Made by `Loop.call_at` and `Loop.call_soon`."""

    __slots__ = ("_callback", "_in_heap", "_loop", "when_ms")

    def __init__(self, loop: "Loop", when_ms: int, callback: Callable[[], None], *, in_heap: bool) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = callback
        self._in_heap = in_heap
        self.when_ms = when_ms

    @property
    def is_pending(self) -> bool:
        """Whether it has neither fired nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never fire. Harmless when it has fired or was cancelled before."""
        if self._callback is None:
            return
        self._callback = None
        if self._in_heap:
            self._loop._timer_cancelled()

    def _leave_heap(self) -> None:
        self._in_heap = False

    def _fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _Watch:
    """What is watched on one descriptor; for no events any more once that is forgotten.

    So a descriptor number that is used again is told from the old one: it has another.
    """

    __slots__ = ("callback", "events")

    def __init__(self, events: int, callback: Callable[[int], None]) -> None:
        self.events = events
        self.callback = callback


class Loop:
    """One thread's readiness, timers and dirty outputs.

    `monotonic_ms` is the clock; a test gives its own and calls `run_once(0)`.
    """

    def __init__(self, monotonic_ms: Callable[[], int] = monotonic_ms) -> None:
        self._monotonic_ms = monotonic_ms
        self._now_ms = monotonic_ms()
        self._selector = selectors.DefaultSelector()
        self._watches: dict[int, _Watch] = {}
        self._heap: list[tuple[int, int, Timer]] = []
        self._heap_sequence = count()
        self._cancelled_count = 0
        self._ready: deque[Timer] = deque()
        self._dirty: dict[Flushable, None] = {}  # a dict, since it keeps the order
        # One buffer serves every read of every connection: an idle connection costs no buffer.
        self.read_buffer = memoryview(bytearray(READ_SIZE_MAX))

    def now_ms(self) -> int:
        """The time of this tick in ms, read once when the tick's select returned."""
        return self._now_ms

    # Descriptors

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` in each tick in which `fd` is ready. The descriptor must not be watched yet.

        No events at all is allowed and means: not now.
        """
        assert fd not in self._watches, f"descriptor {fd} is watched already"
        watch = _Watch(events, callback)
        if events:
            self._selector.register(fd, events, watch)
        self._watches[fd] = watch

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for other events on a watched descriptor."""
        watch = self._watches[fd]
        if events == watch.events:
            return
        # A descriptor without events leaves the selector: epoll would report its hang-up in every tick.
        if not events:
            self._selector.unregister(fd)
        elif not watch.events:
            self._selector.register(fd, events, watch)
        else:
            self._selector.modify(fd, events, watch)
        watch.events = events

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor; to be called before it is closed. Harmless when it isn't watched."""
        watch = self._watches.pop(fd, None)
        if watch is not None and watch.events:
            self._selector.unregister(fd)
            watch.events = 0

    # Timers

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back in the first tick at or after `when_ms`; never inside this call."""
        timer = Timer(self, when_ms, callback, in_heap=True)
        heapq.heappush(self._heap, (when_ms, next(self._heap_sequence), timer))
        return timer

    def call_later(self, delay_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back `delay_ms` from now. The clock is read, since start-up or a commit may have taken long."""
        return self.call_at(self._monotonic_ms() + delay_ms, callback)

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """Call back at the end of this tick, or of the next one if this tick's timers have begun."""
        timer = Timer(self, self._now_ms, callback, in_heap=False)
        self._ready.append(timer)
        return timer

    def _timer_cancelled(self) -> None:
        # Deadlines are mostly cancelled, since most frames arrive; without this the heap would hold them all
        # until their time.
        self._cancelled_count += 1
        if self._cancelled_count >= _COMPACT_COUNT_MIN and self._cancelled_count * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_pending]
            heapq.heapify(self._heap)
            self._cancelled_count = 0

    # The tick

    def run_once(self, timeout_ms: int | None = None) -> None:
        """One tick: wait until something is ready or due, at most `timeout_ms`; handle all of it; return.

        What a callback raises is raised here.
        """
        wait_ms = self._wait_ms(timeout_ms)
        ready = self._selector.select(None if wait_ms is None else wait_ms / 1000)
        self._now_ms = self._monotonic_ms()
        for key, events in ready:
            # An earlier callback may have closed this descriptor, or given its number to another connection.
            watch: _Watch = key.data
            watched = events & watch.events
            if watched:
                watch.callback(watched)
        if self._heap:
            self._take_due_timers()
        # Only those that wait now: a callback that calls itself again must not hold the tick.
        for _ in range(len(self._ready)):
            self._ready.popleft()._fire()

    def _wait_ms(self, timeout_ms: int | None) -> int | None:
        if self._ready:
            return 0
        while self._heap and not self._heap[0][2].is_pending:
            heapq.heappop(self._heap)
            self._cancelled_count -= 1
        if not self._heap:
            return timeout_ms
        due_in_ms = max(0, self._heap[0][0] - self._monotonic_ms())
        return due_in_ms if timeout_ms is None else min(due_in_ms, timeout_ms)

    def _take_due_timers(self) -> None:
        while self._heap and self._heap[0][0] <= self._now_ms:
            timer = heapq.heappop(self._heap)[2]
            if timer.is_pending:
                timer._leave_heap()
                self._ready.append(timer)
            else:
                self._cancelled_count -= 1

    # Output

    def mark_dirty(self, output: Flushable) -> None:
        """Have `output` flushed at the next `flush`, once, however often it is marked."""
        self._dirty[output] = None

    def flush(self) -> None:
        """Give each dirty output its one write of this tick. Call it once after each `run_once`."""
        dirty, self._dirty = self._dirty, {}
        for output in dirty:
            output.flush_output()

    def close(self) -> None:
        """Free the selector. Descriptors belong to whoever opened them and are not closed here."""
        self._selector.close()
        self._watches.clear()
        self._heap.clear()
        self._ready.clear()
        self._dirty.clear()
