"""Starts the real programs as forks of this process, which has imported them: milliseconds each, not half a second.

Each fork has a process ID, session, arguments and descriptors of its own, and runs the program's real `main`. The
children that the programs start by `posix_spawn` (decoder, encoder) are forks as well, made where that call would be.
With `is_exec` a program and its children are started by exec, as people start them.

Whoever uses this has one thread only, as a process that forks should.
"""

import contextlib
import ctypes
import importlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from crash.hooks import Hooks
from crash.launch import MAINS, Plan, prepare
from forking import prepare_forks

import paygate.bank.__main__
import paygate.bank.decoder
import paygate.client.__main__
import paygate.client.encoder
import paygate.codec.seal
import paygate.gateway.__main__
import paygate.net.child
from paygate.cli import run

HANG_S: Final = 60
"""No program takes longer to end than a session and a drain: who does hangs."""
_CHILDREN: Final[dict[str, tuple[str, Callable[[], int]]]] = {
    "paygate.bank.decoder": ("decoder", lambda: run(paygate.bank.decoder.PROGRAM, paygate.bank.decoder.main)),
    "paygate.client.encoder": ("encoder", lambda: run(paygate.client.encoder.PROGRAM, paygate.client.encoder.main)),
}
_PR_SET_PTRACER: Final = 0x59616D61  # linux/prctl.h
_PTRACER_ANY: Final = ctypes.c_ulong(-1)


class Hang(Exception):
    """A program did not end or say what it was to say in time."""


@dataclass(frozen=True, slots=True)
class SystemCallDeath:
    """Dies as it enters a system call for the so-many-th time."""

    call: str
    count: int


@dataclass(slots=True)
class Started:
    """A running program."""

    program: str
    pid: int
    output_path: Path
    errors_path: Path
    exit_code: int | None = None
    """Once it has ended; minus the number of the signal that ended it."""
    tracer: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    _pidfd: int = field(default=-1, repr=False)

    @property
    def output(self) -> str:
        """What it wrote to stdout so far."""
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return self.errors_path.read_text(encoding="utf-8", errors="replace")

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.exit_code == -signal.SIGKILL

    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self.exit_code is not None or self.wait(0) is not None

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; gives its exit code, None if it runs on."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if self.exit_code is None and poll.poll(timeout_s * 1_000):
            self._reap()
        return self.exit_code

    def terminate(self) -> None:
        """Send SIGTERM, if it runs."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, at the campaign's end or where it hangs."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        os.close(self._pidfd)
        if self.tracer is not None:
            self.tracer.wait(HANG_S)


def start(
    program: str,
    arguments: Sequence[str],
    plan: Plan,
    output_path: Path,
    errors_path: Path,
    *,
    inputs: Mapping[str, str] | None = None,
    dies_at: SystemCallDeath | None = None,
    trace_path: Path | None = None,
    is_exec: bool = False,
) -> Started:
    """Start a program. `inputs`: options that take a descriptor, and the line that is to be read from it.

    `dies_at` needs strace, and so does `trace_path`, where the calls of `WRITE_CALLS` are noted. What it
    writes is added to the two files.
    """
    given = {option: _pipe_with(text) for option, text in (inputs or {}).items()}
    words = [*arguments, *(word for option, fd in given.items() for word in (option, str(fd)))]
    for path in (output_path, errors_path):
        path.touch(0o600)
    gate = os.pipe() if dies_at or trace_path else None
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        kept = {*given.values(), *((gate[0],) if gate else ())}
        _be(program, words, plan, (output_path, errors_path), kept, gate[0] if gate else None, is_exec=is_exec)
    for fd in given.values():
        os.close(fd)
    started = Started(program, pid, output_path, errors_path, _pidfd=os.pidfd_open(pid))
    if gate is not None:
        os.close(gate[0])
        started.tracer = _trace(pid, dies_at, trace_path)
        os.write(gate[1], b"g")
        os.close(gate[1])
    return started


WRITE_CALLS: Final = (
    *("write", "pwrite64", "writev", "sendto", "sendmsg", "fsync", "fdatasync", "ftruncate", "unlink", "rename"),
    *("renameat2", "link", "openat", "close"),
)
"""The system calls by which a program changes files or tells others of it, and those around them."""


def _trace(pid: int, death: SystemCallDeath | None, trace_path: Path | None) -> "subprocess.Popen[bytes]":
    calls = death.call if death else ",".join(WRITE_CALLS)
    command = ["strace", "-q", "-s0", "-e", "signal=none", "-p", str(pid), "-e", f"trace={calls}"]
    command += ["-o", str(trace_path or os.devnull)]
    if death:
        command += ["-e", f"inject={death.call}:signal=SIGKILL:when={death.count}"]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + HANG_S
    while "TracerPid:\t0\n" in status.read_text(encoding="ascii"):
        if tracer.poll() is not None or time.monotonic() > deadline:
            assert tracer.stderr is not None
            raise Hang(f"strace could not attach to {pid}: {tracer.stderr.read().decode().strip()}")
        time.sleep(0.002)
    assert tracer.stderr is not None
    tracer.stderr.close()
    return tracer


def _pipe_with(text: str) -> int:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, f"{text}\n".encode())
    os.close(write_fd)
    return read_fd


# -- in the fork -----------------------------------------------------------------------------------------


def _be(
    program: str,
    arguments: Sequence[str],
    plan: Plan,
    paths: tuple[Path, Path],
    kept: set[int],
    gate_fd: int | None,
    *,
    is_exec: bool,
) -> NoReturn:
    """Become the program."""
    code = 70
    try:
        os.setsid()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        _take_places({0: os.open(os.devnull, os.O_RDONLY), **{n: os.open(paths[n - 1], flags, 0o600) for n in (1, 2)}})
        _close_all_but(kept)
        if gate_fd is not None:
            _wait_for_tracer(gate_fd)
        if is_exec:
            _exec(program, arguments, plan, kept)
        hooks = prepare(program, arguments[0], plan)
        paygate.net.child._spawn = lambda argv, env, file_actions: _fork_child(hooks, argv, file_actions)
        sys.argv = [f"paygate-{program}", *arguments]
        main: Callable[[], int] = importlib.import_module(MAINS[program]).main
        code = _exit_code_of(main)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait_for_tracer(gate_fd: int) -> None:
    # Where only ancestors may trace, strace is none: it is our sibling.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PTRACER_ANY, 0, 0, 0)
    os.read(gate_fd, 1)
    os.close(gate_fd)


def _exec(program: str, arguments: Sequence[str], plan: Plan, kept: set[int]) -> NoReturn:
    for fd in kept:
        os.set_inheritable(fd, True)
    command = [sys.executable, "-P", "-m", "crash.launch", program]
    for name, count in plan.deaths.items():
        command += ["--die-at", f"{name}:{count}"]
    if plan.hits_path is not None:
        command += ["--hits", str(plan.hits_path)]
    os.execve(command[0], [*command, "--", *arguments], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def _exit_code_of(main: Callable[[], int]) -> int:
    try:
        return int(main())
    except SystemExit as ended:  # argparse
        return ended.code if isinstance(ended.code, int) else 1


def _take_places(places: Mapping[int, int]) -> None:
    for place, fd in places.items():
        os.dup2(fd, place)


def _close_all_but(kept: set[int]) -> None:
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 65_536)


def _fork_child(hooks: Hooks, argv: Sequence[str], file_actions: Sequence[tuple[int, ...]]) -> int:
    """In the place of posix_spawn: `python -P -m MODULE ARGUMENTS`."""
    at = argv.index("-m") + 1
    name, main = _CHILDREN[argv[at]]
    # A parent that is killed right now must not live on in a child that has its locks: it goes on once that is done.
    ready_fd, done_fd = os.pipe()
    pid = os.fork()
    if pid:
        os.close(done_fd)
        os.read(ready_fd, 1)
        os.close(ready_fd)
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _take_places({action[2]: action[1] for action in file_actions if action[0] == os.POSIX_SPAWN_DUP2})
        _close_all_but(set())
        hooks.program = name
        sys.argv = [name, *argv[at + 1 :]]
        code = _exit_code_of(main)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def warm_up(password_keys: Sequence[tuple[Any, str, str, str]]) -> None:
    """Do once here what every fork would do: all of `prepare_forks`, and the Argon2id of each customer's password.

    Each of `password_keys`: parameters, bank ID, user ID, password.
    """
    remembered = cache(paygate.codec.seal.password_key)
    for key in password_keys:
        remembered(*key)
    module: Any
    for module in (paygate.codec.seal, paygate.bank.decoder):
        module.password_key = remembered
    prepare_forks()
