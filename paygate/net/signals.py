"""What signals may do (R10, R11, R12, T28).

Three groups, by what a program can sensibly decide:

    FAULTS       raised by the processor or by abort() because this process is broken, or by anybody's kill. A
                 server ignores the latter (R12), a client with a payment under way holds it (R11), and both still
                 die of the former: the kernel forces a real fault's default on a process that ignores or blocks
                 it, and abort() restores it. So nobody goes on with money in an unknown state.
    CONTROLLABLE all others, SIGKILL and SIGSTOP excepted, which nobody can refuse.
    SIGCHLD      is in neither policy: its default already does nothing to us, and ignoring it would let the
                 kernel throw away the exit statuses of our children.

No signal handler does any work. The interpreter's C handler writes the signal's number into the wake-up pipe,
which the loop reads like any other descriptor, so the reaction runs in the loop, between two callbacks.
"""

import os
import signal
from _signal import pthread_sigmask as _pthread_sigmask  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from paygate.net.loop import EVENT_READ, Loop

FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})
CONTROLLABLE = frozenset(signal.valid_signals()) - FAULTS - {signal.SIGKILL, signal.SIGSTOP}

# More than enough for one read: signals of one number that come together are one byte or a few.
_WAKEUP_READ_SIZE = 4096


class Wakeup:
    """The process's one wake-up pipe: signals as readable bytes (`signal.set_wakeup_fd`).

    `on_signals(numbers)` runs in the loop. Only one may exist at a time, in the main thread.
    """

    def __init__(self, loop: Loop, on_signals: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._on_signals = on_signals
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        # A full pipe is no news: it holds the same few numbers many times over.
        previous_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        assert previous_fd == -1, "a process has one wake-up pipe"
        loop.watch(self._read_fd, EVENT_READ, self._ready)

    def fileno(self) -> int:
        """The readable end, for a select of one's own."""
        return self._read_fd

    def catch(self, number: int) -> None:
        """Deliver this signal through the pipe, also if whoever started us had blocked or ignored it."""
        signal.signal(number, _no_work)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def close(self) -> None:
        """Give the pipe up. Caught signals do nothing from then on."""
        signal.set_wakeup_fd(-1)
        self._loop.unwatch(self._read_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _ready(self, _events: int) -> None:
        try:
            numbers = os.read(self._read_fd, _WAKEUP_READ_SIZE)
        except BlockingIOError:
            return  # a select of the owner's own was faster
        self._on_signals(numbers)


def _no_work(_number: int, _frame: FrameType | None) -> None:
    """The handler of every caught signal. The byte in the pipe is the message."""


class ServerSignals:
    """A server's policy (R12): ignore all that can be ignored; SIGTERM drains.

    `on_drain()` runs in the loop at the first SIGTERM; later ones do nothing. With `ignore_sigterm`, the strict
    form, SIGTERM is ignored too and `on_drain` is never called.
    """

    def __init__(self, loop: Loop, on_drain: Callable[[], None], *, ignore_sigterm: bool) -> None:
        self._on_drain: Callable[[], None] | None = on_drain
        # An ignored SIGCHLD, inherited from whoever started us, would lose our children's exit statuses.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (CONTROLLABLE | FAULTS) - {signal.SIGCHLD, signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
        self._wakeup = Wakeup(loop, self._signals_received)
        if ignore_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            self._wakeup.catch(signal.SIGTERM)
        self._blocked = _Blocked()

    def blocked(self) -> "_Blocked":
        """R12: block signals while messages are being handled; one block serves a whole tick's handling.

        What arrives meanwhile is delivered at the end. Blocks don't stand in each other.
        """
        return self._blocked

    def close(self) -> None:
        """Give the wake-up pipe up, before the loop closes. Signals stay ignored: we are about to exit."""
        self._wakeup.close()

    def _signals_received(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers and self._on_drain is not None:
            on_drain, self._on_drain = self._on_drain, None
            on_drain()


class _Blocked:
    """A block of code in which signals are blocked, one object for all ticks."""

    def __enter__(self) -> None:
        # Not the function of `signal`, which wraps this one: it makes an enum member of each of the sixty signals in
        # the mask that it gives back, and that takes thirty times as long as the two system calls.
        self._before = _pthread_sigmask(signal.SIG_BLOCK, CONTROLLABLE)

    def __exit__(self, *_: object) -> None:
        _pthread_sigmask(signal.SIG_SETMASK, self._before)


@contextmanager
def sigint_ignored() -> Iterator[None]:
    """Ignore SIGINT, then do again what was done before. One that came meanwhile is gone."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        # None means that it was not set from Python and can't be given back from here.
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


@contextmanager
def hold_signals() -> Iterator[None]:
    """R11: while a payment is under way, ignore SIGINT and hold every other signal, SIGALRM excepted.

    Held signals are delivered when the block ends, so a SIGTERM then ends the client as it would have before. That
    goes for FAULTS too, as far as somebody's kill sent them; a fault of our own ends us at once, held or not.
    """
    # SIGINT must not be held as well: a held signal would be delivered later and not be ignored.
    held = (CONTROLLABLE | FAULTS) - {signal.SIGINT, signal.SIGALRM}
    with sigint_ignored():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
        # R10: the session's alarm rings even if whoever started us had blocked it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Alarm:
    """The session's clock (R10): SIGALRM by `signal.setitimer`, delivered through the loop.

    `callback()` runs in the loop. Whoever selects on descriptors of their own, such as a terminal, adds `fileno()`
    and calls `Loop.run_once(0)` when it is readable. One per process.
    """

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._is_started = False
        self._wakeup = Wakeup(loop, self._signals_received)
        self._wakeup.catch(signal.SIGALRM)

    def start(self, seconds: float) -> None:
        """Ring once, `seconds` from now; a ring that was set before is replaced."""
        # setitimer(0) would switch the timer off, and a session that is over must ring.
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.000_001))
        self._is_started = True

    def cancel(self) -> None:
        """Don't ring, not even if the time is up and the loop hasn't yet heard it."""
        self._is_started = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def fileno(self) -> int:
        """Readable when a signal has come; the loop reads it."""
        return self._wakeup.fileno()

    def close(self) -> None:
        """Cancel, and give the wake-up pipe up, before the loop closes."""
        self.cancel()
        self._wakeup.close()

    def _signals_received(self, numbers: bytes) -> None:
        if signal.SIGALRM not in numbers or not self._is_started:
            return
        # With time left it isn't ours: somebody else's kill, or the byte of a ring that was replaced.
        if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            return
        self._is_started = False
        self._callback()
