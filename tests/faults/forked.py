"""The three programs in forks of this process: real processes with real files and sockets, there in milliseconds.

A program that is started the usual way spends most of a second on its imports. A fork of a process that has them runs
the same `main` at once. Its children (decoder, encoder), which paygate starts by `posix_spawn`, are forks as well.
Only three things differ from a program of its own: an Argon2id is remembered, servers look at their files ten times a
second, and whatever `patch` does.
"""

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from faults import shim
from faults.shim import Plan
from forking import prepare_forks

import paygate.bank.__main__
import paygate.bank.decoder
import paygate.bank.server
import paygate.client.__main__
import paygate.client.encoder
import paygate.codec.seal
import paygate.gateway.__main__
import paygate.gateway.server
import paygate.net.child
from paygate.cli import run

HANG_S: Final = 45
"""Nothing here takes a second; who takes so long hangs. A session is shorter than that."""
POLL_MS: Final = 100
_FD_COUNT: Final = 512
_CHILDREN: Final[dict[str, tuple[str, Callable[[], int]]]] = {
    "paygate.bank.decoder": ("decoder", lambda: run(paygate.bank.decoder.PROGRAM, paygate.bank.decoder.main)),
    "paygate.client.encoder": ("encoder", lambda: run(paygate.client.encoder.PROGRAM, paygate.client.encoder.main)),
}
_MAINS: Final[dict[str, Callable[[], int]]] = {
    "bank": paygate.bank.__main__.main,
    "gateway": paygate.gateway.__main__.main,
    "client": paygate.client.__main__.main,
}


class Hang(Exception):
    """A program did not end, or did not say what it was to say, in HANG_S; it was killed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to go wrong in which program."""

    program: str
    """bank, decoder, gateway or client."""
    plan: Plan


@dataclass(frozen=True, slots=True)
class Setting:
    """Where programs run."""

    root: Path
    """Below it lie the state directories."""
    logs: Path
    """For what programs write, and traces: not below the root."""
    fault: Fault | None = None
    is_traced: bool = False
    patch: Callable[[], None] | None = None
    """Called in each program before it runs: puts a bug in."""


@dataclass(slots=True)
class Forked:
    """A running program."""

    name: str
    pid: int
    output_path: Path
    errors_path: Path
    exit_code: int | None = None
    _pidfd: int = field(default=-1, repr=False)

    @property
    def output(self) -> str:
        """What it wrote to stdout so far."""
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return self.errors_path.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float = HANG_S) -> int:
        """Its exit code; minus the number of the signal that ended it. Raises Hang."""
        if self.exit_code is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(timeout_s * 1_000):
                self.kill()
                raise Hang(f"{self.name} did not end within {timeout_s} s; it said: {self.errors.strip()[-300:]}")
            self._reap()
        assert self.exit_code is not None
        return self.exit_code

    def has_ended(self) -> bool:
        """Whether it has ended."""
        if self.exit_code is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(0):
                self._reap()
        return self.exit_code is not None

    def wait_for(self, says: Callable[[], bool], what: str, timeout_s: float = HANG_S) -> bool:
        """Look again and again until it says so; False if it has ended before. Raises Hang."""
        deadline = time.monotonic() + timeout_s
        while not says():
            if self.has_ended():
                return says()
            if time.monotonic() >= deadline:
                self.kill()
                raise Hang(f"{self.name}: no {what} within {timeout_s} s; it said: {self.errors.strip()[-300:]}")
            time.sleep(0.004)
        return True

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for its end. Raises Hang."""
        if not self.has_ended():
            os.kill(self.pid, number)
        return self.wait()

    def kill(self) -> None:
        """End it now, and wait for that; harmless when it has ended."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.exit_code = -signal.SIGKILL
            os.close(self._pidfd)

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        os.close(self._pidfd)


def start(
    setting: Setting, program: str, *arguments: str, label: str = "", inputs: Mapping[str, str] | None = None
) -> Forked:
    """Start a program. `inputs`: options that take a descriptor, and the line to be read from it."""
    name = label or program
    output, errors = setting.logs / f"{name}.out", setting.logs / f"{name}.err"
    given = {option: _pipe_with(text) for option, text in (inputs or {}).items()}
    for path in (output, errors):
        path.write_bytes(b"")  # whoever looks sees nothing of an earlier run
    sys.stdout.flush()  # what waits here is not to be written twice
    pid = os.fork()
    if pid == 0:
        options = [word for option, fd in given.items() for word in (option, str(fd))]
        _be(setting, program, [*arguments, *options], output, errors, set(given.values()), label=name)
    for fd in given.values():
        os.close(fd)
    return Forked(name, pid, output, errors, _pidfd=os.pidfd_open(pid))


def _pipe_with(text: str) -> int:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, f"{text}\n".encode())
    os.close(write_fd)
    return read_fd


def _be(
    setting: Setting, program: str, arguments: Sequence[str], output: Path, errors: Path, kept: set[int], *, label: str
) -> NoReturn:
    """In the fork: become the program."""
    code = 70
    try:
        _take_fds(
            {
                0: os.open(os.devnull, os.O_RDONLY),
                1: os.open(output, os.O_WRONLY | os.O_APPEND),
                2: os.open(errors, os.O_WRONLY | os.O_APPEND),
            },
            kept,
        )
        _speed_up()
        paygate.net.child._spawn = lambda argv, env, file_actions: _fork_child(setting, argv, file_actions)
        if setting.patch is not None:
            setting.patch()
        sys.argv = [f"paygate-{program}", *arguments]
        _begin_faults(setting, program, label)
        code = _exit_code_of(_MAINS[program])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code_of(main: Callable[[], int]) -> int:
    try:
        return int(main())
    except SystemExit as ended:  # argparse
        return ended.code if isinstance(ended.code, int) else 1


def _begin_faults(setting: Setting, program: str, label: str) -> None:
    fault = setting.fault
    plan = fault.plan if fault is not None and fault.program == program else None
    trace = setting.logs / f"{label}.trace" if setting.is_traced or plan else None
    shim.begin(setting.root, trace, plan)


def _take_fds(places: Mapping[int, int], kept: set[int]) -> None:
    """Put descriptors in their places, and close all others."""
    for place, fd in places.items():
        os.dup2(fd, place)
    for fd in range(3, _FD_COUNT):
        if fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def _fork_child(setting: Setting, argv: Sequence[str], file_actions: Sequence[tuple[int, ...]]) -> int:
    """In the place of posix_spawn: `python -P -m MODULE ARGUMENTS`."""
    name, main = _CHILDREN[argv[argv.index("-m") + 1]]
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.setitimer(signal.ITIMER_REAL, 0)
        _take_fds({action[2]: action[1] for action in file_actions if action[0] == os.POSIX_SPAWN_DUP2}, set())
        sys.argv = [name, *argv[argv.index("-m") + 2 :]]
        _begin_faults(setting, name, name)
        code = _exit_code_of(main)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@cache
def _speed_up() -> None:
    """See the top of this file; done before the forks where they all share it."""
    real = paygate.codec.seal.password_key
    remembered = cache(real)
    module: Any
    for module in (paygate.codec.seal, paygate.bank.decoder):
        module.password_key = remembered
    paygate.bank.server.POLL_MS = POLL_MS  # type: ignore[misc]
    paygate.gateway.server.RECORDS_POLL_MS = POLL_MS  # type: ignore[misc]


def remember_password_keys(keys: Sequence[tuple[Any, str, str, str]]) -> None:
    """Derive password keys here, and do all of `prepare_forks`, so that no fork has to.

    Each of `keys`: parameters, bank ID, user ID, password.
    """
    _speed_up()
    for parameters, bank_id, user_id, password in keys:
        paygate.codec.seal.password_key(parameters, bank_id, user_id, password)
    prepare_forks()
