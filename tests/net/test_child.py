"""Real child programs over pipes."""

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from paygate.net.child import Child, OutputFullError
from paygate.net.loop import Loop

TickUntil = Callable[[Loop, Callable[[], bool]], None]

ECHO = [sys.executable, "-c", "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"]


def open_fds() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


class Nursery:
    """Starts children, remembers what they say, and leaves none behind."""

    def __init__(self, loop: Loop, stack: ExitStack) -> None:
        self.loop = loop
        self.stack = stack
        self.data = bytearray()
        # The size of the data that had come when each exit was told.
        self.exits: list[tuple[int, int]] = []

    def start(
        self,
        argv: Sequence[str],
        pass_fds: Sequence[int] = (),
        output_size_max: int = 1 << 24,
        *,
        takes_stderr: bool = False,
    ) -> Child:
        child = Child(
            self.loop,
            argv,
            on_data=self.data.extend,
            on_exit=lambda code: self.exits.append((code, len(self.data))),
            pass_fds=pass_fds,
            takes_stderr=takes_stderr,
            output_size_max=output_size_max,
        )
        self.stack.callback(self._end, child)
        return child

    def _end(self, child: Child) -> None:
        if child.is_running:
            os.kill(child.pid, signal.SIGKILL)
        while not self.exits:
            self.loop.run_once(1_000)


@pytest.fixture
def nursery(loop: Loop) -> Iterator[Nursery]:
    with ExitStack() as stack:
        yield Nursery(loop, stack)


def test_what_goes_in_comes_out_and_the_end_of_input_ends_it(
    nursery: Nursery, loop: Loop, tick_until: TickUntil
) -> None:
    child = nursery.start(ECHO)
    child.send(b"frame one ")
    child.send(b"frame two")
    assert child.output_size == 19
    child.close_stdin()
    child.send(b"too late")
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.data == b"frame one frame two"
    assert nursery.exits == [(0, 19)]
    assert child.returncode == 0
    assert loop._watches == {}


def test_stderr_comes_with_stdout_where_it_is_asked_for(nursery: Nursery, loop: Loop, tick_until: TickUntil) -> None:
    nursery.start(
        [sys.executable, "-c", "import os; os.write(2, b'complaint '); os.write(1, b'answer')"], takes_stderr=True
    )
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.data == b"complaint answer"


def test_much_data_both_ways_at_once(nursery: Nursery, loop: Loop, tick_until: TickUntil) -> None:
    message = random.Random(1).randbytes(8_000_000)
    child = nursery.start(ECHO)
    for start in range(0, len(message), 100_000):
        child.send(message[start : start + 100_000])
    child.close_stdin()
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.data == message


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a pipe has the size that it has")
def test_a_tick_with_much_for_a_child_is_one_write(nursery: Nursery, loop: Loop) -> None:
    child = nursery.start([sys.executable, "-c", "import sys; sys.stdin.buffer.read()"])
    for _ in range(256):
        child.send(bytes(1_536))
    loop.flush()
    assert child.output_size == 0


def test_the_exit_code_comes_after_all_output(nursery: Nursery, loop: Loop, tick_until: TickUntil) -> None:
    nursery.start([sys.executable, "-c", "import sys; sys.stdout.write('x' * 50_000); sys.exit(7)"])
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.exits == [(7, 50_000)]


def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_exit(
    nursery: Nursery, loop: Loop, tick_until: TickUntil
) -> None:
    # The grandchild lives as long as the lifeline's other end is open.
    lifeline, other_end = os.pipe()
    script = (
        f"import os, subprocess, sys; subprocess.Popen(['cat'], stdin={lifeline});"
        "sys.stdout.write('said'); sys.stdout.flush(); os._exit(3)"
    )
    nursery.stack.callback(os.close, lifeline)
    nursery.stack.callback(os.close, other_end)
    nursery.start([sys.executable, "-c", script], pass_fds=[lifeline])
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.exits == [(3, 4)]


def test_without_pidfd_the_exit_is_found_all_the_same(
    nursery: Nursery, loop: Loop, tick_until: TickUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    nursery.start([sys.executable, "-c", "import sys; sys.stdout.write('x' * 50_000); sys.exit(7)"])
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.exits == [(7, 50_000)]


def test_a_child_that_dies_drops_what_was_meant_for_it(nursery: Nursery, loop: Loop, tick_until: TickUntil) -> None:
    child = nursery.start([sys.executable, "-c", "import os; os.close(0); os._exit(1)"])
    child.send(bytes(1_000_000))
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.exits == [(1, 0)]
    assert child.output_size == 0
    child.send(b"nobody there")
    child.close_stdin()
    loop.flush()


def test_output_is_bounded(nursery: Nursery) -> None:
    child = nursery.start(ECHO, output_size_max=1_000)
    child.send(bytes(1_000))
    with pytest.raises(OutputFullError):
        child.send(b"x")


def test_terminate_is_a_sigterm_first(nursery: Nursery, loop: Loop, tick_until: TickUntil) -> None:
    child = nursery.start(["sleep", "1000"])
    child.terminate(grace_ms=60_000)
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.exits == [(-signal.SIGTERM, 0)]
    child.terminate(grace_ms=0)


def test_terminate_is_a_sigkill_in_the_end(nursery: Nursery, loop: Loop, tick_until: TickUntil) -> None:
    script = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    child = nursery.start([sys.executable, "-c", script])
    tick_until(loop, lambda: nursery.data == b"deaf\n")
    child.terminate(grace_ms=30)
    tick_until(loop, lambda: bool(nursery.exits))
    assert nursery.exits == [(-signal.SIGKILL, 5)]


def test_a_program_that_is_not_there_is_an_error_and_leaks_nothing(loop: Loop) -> None:
    before = open_fds()
    with pytest.raises(FileNotFoundError):
        Child(loop, ["/no/such/program"], on_data=print, on_exit=print)
    assert open_fds() == before


def test_the_child_gets_default_signals_and_an_empty_mask_and_ignores_sigint(
    nursery: Nursery, loop: Loop, tick_until: TickUntil
) -> None:
    ignored = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    interrupt = signal.getsignal(signal.SIGINT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
    try:
        nursery.start(["cat", "/proc/self/status"])
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGHUP, signal.SIGTERM}
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, ignored)
    tick_until(loop, lambda: bool(nursery.exits))
    status = dict(line.split(":\t", 1) for line in nursery.data.decode().splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    ignored_bits = int(status["SigIgn"], 16)
    # The C library's own two real-time signals are left out, as they are of valid_signals.
    assert {n for n in signal.valid_signals() if ignored_bits >> (n - 1) & 1} == {signal.SIGINT}


def test_the_child_holds_the_descriptors_it_was_passed_and_no_other(
    nursery: Nursery, loop: Loop, tick_until: TickUntil
) -> None:
    passed, passed_end = os.pipe()
    stray, stray_end = os.pipe()
    os.set_inheritable(stray, True)
    script = "import os; print(*sorted(int(n) for n in os.listdir('/dev/fd')))"
    nursery.start([sys.executable, "-c", script], pass_fds=[passed])
    assert not os.get_inheritable(passed)
    tick_until(loop, lambda: bool(nursery.exits))
    listing_fd = {3, 4} - {passed}  # the listing's own, the lowest free number
    assert {int(number) for number in nursery.data.split()} - listing_fd == {0, 1, 2, passed}
    for fd in (passed, passed_end, stray, stray_end):
        os.close(fd)


PARENT = """
from paygate.net.child import Child
from paygate.net.loop import Loop
loop = Loop()
child = Child(loop, ["cat"], on_data=print, on_exit=print)
print(child.pid, flush=True)
loop.run_once()
"""


def test_the_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ready, _, _ = select.select([pidfd], [], [], 20)
    os.close(pidfd)
    assert ready == [pidfd]
