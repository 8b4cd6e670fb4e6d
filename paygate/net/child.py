"""Child programs over pipes (R23): the client's encoder and the bank's decoders.

Strategy. A child is started by `os.posix_spawnp` and not by `subprocess`: a server ignores nearly every signal
(R12), ignored signals and the blocked mask pass through exec, and only posix_spawn sets both back in the child
without running Python code between fork and exec.

A child ends when its parent does, however the parent dies, because its stdin then ends: every descriptor here is
close-on-exec, so nobody but the parent holds the other end. It needs no code between fork and exec, and, unlike
PR_SET_PDEATHSIG, doesn't depend on the thread that started it. So a child must exit at the end of its stdin.
"""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from paygate.net.limits import CHILD_OUTPUT_SIZE_MAX, CHILD_PIPE_SIZE, CHILD_POLL_MS
from paygate.net.loop import EVENT_READ, EVENT_WRITE, Loop, Timer
from paygate.net.signals import CONTROLLABLE, FAULTS, sigint_ignored


class OutputFullError(Exception):
    """Our own misuse: more was sent to a child than `output_size_max`. Look at `output_size` before sending."""


class Child:
    """A running child program.

    `on_data(data)` hears its stdout. `on_exit(returncode)` is called exactly once, after all that the child wrote
    was delivered; the code is its exit status, or minus the number of the signal that ended it. Both are called
    from the loop. The child's stderr is ours, or with `takes_stderr` goes where its stdout does. `pass_fds` are open
    in the child under the same numbers, and no other descriptor is.

    Raises OSError when the program can't be started.
    """

    def __init__(
        self,
        loop: Loop,
        argv: Sequence[str],
        *,
        on_data: Callable[[bytes], None],
        on_exit: Callable[[int], None],
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        takes_stderr: bool = False,
        output_size_max: int = CHILD_OUTPUT_SIZE_MAX,
    ) -> None:
        self._loop = loop
        self._on_data = on_data
        self._on_exit = on_exit
        self._output = bytearray()
        self._output_size_max = output_size_max
        self._closes_stdin = False
        self._kill_timer: Timer | None = None
        self._poll_timer: Timer | None = None
        self._is_over = False
        self.returncode: int | None = None
        self.pid, stdin_fd, stdout_fd = _start(
            argv, os.environ if env is None else env, pass_fds, takes_stderr=takes_stderr
        )
        self._stdin_fd: int | None = stdin_fd
        self._stdout_fd: int | None = stdout_fd
        self._pidfd = _open_pidfd(self.pid)
        loop.watch(stdin_fd, 0, self._stdin_ready)
        loop.watch(stdout_fd, EVENT_READ, self._stdout_ready)
        if self._pidfd is None:
            self._poll_timer = loop.call_later(CHILD_POLL_MS, self._poll)
        else:
            loop.watch(self._pidfd, EVENT_READ, self._exited)

    @property
    def output_size(self) -> int:
        """Bytes sent by us and not yet taken by the pipe."""
        return len(self._output)

    @property
    def is_running(self) -> bool:
        """Whether the child has not been seen to exit."""
        return self.returncode is None

    def send(self, data: bytes) -> None:
        """Queue bytes for the child's stdin, written at `Loop.flush`. Dropped once its stdin is closed.

        Raises OutputFullError.
        """
        if self._stdin_fd is None or self._closes_stdin or not data:
            return
        if len(self._output) + len(data) > self._output_size_max:
            raise OutputFullError(f"more than {self._output_size_max} bytes wait for child {self.pid}")
        self._output += data
        self._loop.mark_dirty(self)

    def close_stdin(self) -> None:
        """Let the child see the end of its input, after all that was sent. A well-behaved child then exits."""
        self._closes_stdin = True
        self._loop.mark_dirty(self)

    def terminate(self, grace_ms: int) -> None:
        """Send SIGTERM, and SIGKILL after `grace_ms` if the child is still there. Unsent input is lost."""
        if self.returncode is not None or self._kill_timer is not None:
            return
        self._drop_stdin()
        # Not yet waited for, so the number is still this child's.
        os.kill(self.pid, signal.SIGTERM)
        self._kill_timer = self._loop.call_later(grace_ms, partial(os.kill, self.pid, signal.SIGKILL))

    def flush_output(self) -> None:
        """One write, at the end of the tick. For `Loop.flush` only."""
        if self._stdin_fd is None:
            return
        if self._output:
            try:
                size = os.write(self._stdin_fd, self._output)
            except BlockingIOError:
                size = 0
            except OSError:
                # The child closed its stdin or died; its exit tells the rest.
                self._drop_stdin()
                return
            del self._output[:size]
        if self._output:
            self._loop.rewatch(self._stdin_fd, EVENT_WRITE)
        elif self._closes_stdin:
            self._drop_stdin()
        else:
            self._loop.rewatch(self._stdin_fd, 0)

    def _stdin_ready(self, _events: int) -> None:
        # Not written here: nothing leaves outside the flush.
        self._loop.mark_dirty(self)

    def _stdout_ready(self, _events: int) -> None:
        self._read_once()

    def _read_once(self) -> bool:
        """Deliver one read. False when there is nothing to read now."""
        if self._stdout_fd is None:
            return False
        buffer = self._loop.read_buffer
        try:
            size = os.readv(self._stdout_fd, [buffer])
        except BlockingIOError:
            return False
        if size:
            self._on_data(bytes(buffer[:size]))
        else:
            self._loop.unwatch(self._stdout_fd)
            os.close(self._stdout_fd)
            self._stdout_fd = None
            self._maybe_finish()
        return True

    # The end

    def _exited(self, _events: int) -> None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return
        self.returncode = os.waitstatus_to_exitcode(status)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if self._pidfd is not None:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
        self._drop_stdin()
        self._deliver_rest()

    def _poll(self) -> None:
        self._exited(EVENT_READ)
        if self.returncode is None:
            self._poll_timer = self._loop.call_later(CHILD_POLL_MS, self._poll)

    def _deliver_rest(self) -> None:
        # All that the child wrote is in the pipe now. The pipe need not end: a grandchild may hold it open, and
        # must not keep us waiting. One read a tick, as ever.
        if self._read_once():
            if not self._is_over:
                self._loop.call_soon(self._deliver_rest)
        elif not self._is_over:
            self._finish()

    def _maybe_finish(self) -> None:
        if self.returncode is not None and not self._is_over:
            self._finish()

    def _finish(self) -> None:
        self._is_over = True
        if self._stdout_fd is not None:
            self._loop.unwatch(self._stdout_fd)
            os.close(self._stdout_fd)
            self._stdout_fd = None
        assert self.returncode is not None
        self._on_exit(self.returncode)

    def _drop_stdin(self) -> None:
        self._output.clear()
        if self._stdin_fd is not None:
            self._loop.unwatch(self._stdin_fd)
            os.close(self._stdin_fd)
            self._stdin_fd = None


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that is readable when the child has exited, where the system has such."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _start(
    argv: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int], *, takes_stderr: bool
) -> tuple[int, int, int]:
    """Start the program; returns its process ID and our ends of its stdin and stdout, non-blocking."""
    child_stdin, stdin_fd = os.pipe()
    stdout_fd, child_stdout = os.pipe()
    _enlarge(stdin_fd)
    file_actions: list[tuple[int, int, int] | tuple[int, int]] = [
        (os.POSIX_SPAWN_DUP2, child_stdin, 0),
        (os.POSIX_SPAWN_DUP2, child_stdout, 1),
        *([(os.POSIX_SPAWN_DUP2, child_stdout, 2)] if takes_stderr else []),
        # Onto itself: this takes close-on-exec off, in the child only.
        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in pass_fds),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_fds() if fd not in pass_fds),
    ]
    try:
        pid = _spawn(argv, env, file_actions)
    except BaseException:
        os.close(stdin_fd)
        os.close(stdout_fd)
        raise
    finally:
        os.close(child_stdin)
        os.close(child_stdout)
    os.set_blocking(stdin_fd, False)
    os.set_blocking(stdout_fd, False)
    return pid, stdin_fd, stdout_fd


def _enlarge(pipe_fd: int) -> None:
    """Let a pipe hold what a tick may have for a child, where the system can and this user has pages left for it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, CHILD_PIPE_SIZE)


def _spawn(
    argv: Sequence[str], env: Mapping[str, str], file_actions: list[tuple[int, int, int] | tuple[int, int]]
) -> int:
    # Ignoring SIGCHLD, inherited from whoever started us, would lose the exit status.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Ctrl-C goes to every process of the terminal, and must not take the decoder from a bank that ignores it: the
    # child inherits SIGINT as ignored. Blocked meanwhile, so that one that comes now is not lost to us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CONTROLLABLE)
    try:
        with sigint_ignored():
            return os.posix_spawnp(
                argv[0],
                [*argv],
                env,
                file_actions=file_actions,
                setsigmask=(),
                setsigdef=(CONTROLLABLE | FAULTS) - {signal.SIGINT},
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _inheritable_fds() -> list[int]:
    """Descriptors above stderr that exec would hand down; Python makes none, a library may."""
    fds = []
    for path in Path("/dev/fd").iterdir():
        fd = int(path.name)
        try:
            if fd > 2 and os.get_inheritable(fd):
                fds.append(fd)
        except OSError:
            continue  # the listing's own descriptor, closed by now
    return fds
