"""Work that may wait a little, so that it is done once for many who ask for it."""

from collections.abc import Callable

from paygate.net.loop import Loop, Timer


class Later:
    """One piece of work, done some time after it was first asked for, however often it was asked for meanwhile."""

    def __init__(self, loop: Loop, delay_ms: int, work: Callable[[], None]) -> None:
        self._loop = loop
        self._delay_ms = delay_ms
        self._work = work
        self._timer: Timer | None = None

    def ask(self) -> None:
        """Have it done within `delay_ms`, and in no case inside this call."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._delay_ms, self._do)

    def _do(self) -> None:
        self._timer = None  # What is asked for from now on is more work.
        self._work()
