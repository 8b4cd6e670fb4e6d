"""Signal policies, in processes of their own, with real signals."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from paygate.net.signals import CONTROLLABLE, FAULTS

WAIT_S = 20

# An echo server under the policy. It says its port, then what happens to it.
SERVER = """
import sys
from paygate.net.listen import Listener
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals

class Echo:
    def data_received(self, conn, data): conn.send(data)
    def eof_received(self, conn): conn.close_after_flush()
    def connection_closed(self, conn, reason, detail): pass

loop, ends = Loop(), []
def drain():
    print("drain", flush=True)
    listener.close()
    ends.append(True)
signals = ServerSignals(loop, drain, ignore_sigterm="strict" in sys.argv)
listener = Listener(loop, "127.0.0.1", 0, Echo(), on_accept=lambda conn: None, on_refused=print)
print(listener.port, flush=True)
while not ends or listener.connection_count:
    loop.run_once()
    with signals.blocked():
        loop.flush()
signals.close()
"""


class Server:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.client = socket.create_connection(("127.0.0.1", int(self.read_line())), WAIT_S)

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def receives(self, data: bytes) -> bool:
        received = b""
        while len(received) < len(data):
            part = self.client.recv(len(data) - len(received))
            assert part, "the server hung up"
            received += part
        return received == data

    def echoes(self, data: bytes) -> bool:
        self.client.sendall(data)
        return self.receives(data)


@contextmanager
def python(script: str, *args: str) -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [sys.executable, "-c", script, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[Server]]:
    @contextmanager
    def serve(*args: str) -> Iterator[Server]:
        with python(SERVER, *args) as process:
            server = Server(process)
            with server.client:
                yield server

    return serve


def test_the_groups_are_what_the_requirement_says() -> None:
    assert set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP} == CONTROLLABLE | FAULTS
    assert {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGTSTP", "SIGPIPE", "SIGUSR1", "SIGALRM"} <= {
        signal.Signals(number).name for number in CONTROLLABLE if number < signal.SIGRTMIN
    }


def test_a_server_goes_on_answering_through_every_signal(
    serve: Callable[..., AbstractContextManager[Server]],
) -> None:
    with serve() as server:
        for number in sorted((CONTROLLABLE | FAULTS) - {signal.SIGTERM}):
            server.client.sendall(b"before ")
            server.process.send_signal(number)
            server.client.sendall(b"after")
            assert server.receives(b"before after"), signal.strsignal(number)


def test_a_stopped_server_answers_when_it_is_continued(
    serve: Callable[..., AbstractContextManager[Server]],
) -> None:
    with serve() as server:
        server.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
        server.client.sendall(b"patience")
        server.process.send_signal(signal.SIGCONT)
        assert server.receives(b"patience")


def test_sigterm_drains_once_and_what_is_connected_goes_on(
    serve: Callable[..., AbstractContextManager[Server]],
) -> None:
    with serve() as server:
        assert server.echoes(b"before")
        server.process.send_signal(signal.SIGTERM)
        assert server.read_line() == "drain"
        server.process.send_signal(signal.SIGTERM)
        assert server.echoes(b"after")
        server.client.close()
        assert server.process.wait(WAIT_S) == 0
        assert server.read_line() == ""


def test_the_strict_form_ignores_sigterm_too(serve: Callable[..., AbstractContextManager[Server]]) -> None:
    with serve("strict") as server:
        for number in sorted(CONTROLLABLE | FAULTS):
            server.process.send_signal(number)
            assert server.echoes(b"still here"), signal.strsignal(number)


# The signals come by the process's own hand while a message is handled, and must be seen only after it.
BLOCKED = """
import os, signal
from paygate.net.loop import Loop
from paygate.net.signals import CONTROLLABLE, FAULTS, ServerSignals
loop, drained = Loop(), []
signals = ServerSignals(loop, lambda: drained.append(True), ignore_sigterm=False)
with signals.blocked():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert mask == CONTROLLABLE, mask ^ CONTROLLABLE
    os.kill(os.getpid(), signal.SIGTERM)
    loop.run_once(0)
    assert signal.SIGTERM in signal.sigpending() and not drained
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert not drained
loop.run_once(0)
assert drained
assert all(signal.getsignal(number) is signal.SIG_IGN for number in FAULTS)
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
signals.close()
print("done")
"""

# SIGTERM was blocked and SIGCHLD ignored by whoever started us.
INHERITED = """
import os, signal, subprocess
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
loop, drained = Loop(), []
signals = ServerSignals(loop, lambda: drained.append(True), ignore_sigterm=False)
os.kill(os.getpid(), signal.SIGTERM)
loop.run_once(0)
assert drained
assert subprocess.run(["false"]).returncode == 1
print("done")
"""

# R10: rings once, replaced and cancelled rings stay silent, and somebody else's SIGALRM isn't ours.
ALARM = """
import os, select, signal
from paygate.net.loop import Loop
from paygate.net.signals import Alarm
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
loop, rings = Loop(), []
alarm = Alarm(loop, lambda: rings.append(True))

alarm.start(0.02)
while not rings:
    loop.run_once(5_000)
assert rings == [True]

alarm.start(0)
while len(rings) < 2:
    loop.run_once(5_000)

alarm.start(0.01)
assert select.select([alarm.fileno()], [], [], 10)[0]
alarm.cancel()
loop.run_once(0)
assert len(rings) == 2

alarm.start(0.01)
assert select.select([alarm.fileno()], [], [], 10)[0]
alarm.start(1_000)
loop.run_once(0)
os.kill(os.getpid(), signal.SIGALRM)
loop.run_once(0)
assert len(rings) == 2
alarm.close()
loop.close()
print("done")
"""


@pytest.mark.parametrize("script", [BLOCKED, INHERITED, ALARM], ids=["blocked", "inherited", "alarm"])
def test_in_a_process_of_its_own(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# A client with a payment under way. With "handlers" it records what is delivered in the end.
CLIENT = """
import resource, signal, sys
from paygate.net.loop import Loop
from paygate.net.signals import Alarm, hold_signals
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
delivered, rings = [], []
if "handlers" in sys.argv:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGABRT, signal.SIGSEGV):
        signal.signal(number, lambda number, frame: delivered.append(signal.Signals(number).name))
loop = Loop()
alarm = Alarm(loop, lambda: rings.append(True))
with hold_signals():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    refusable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert mask == refusable - {signal.SIGINT, signal.SIGALRM}, mask
    print("held", flush=True)
    sys.stdin.readline()
    alarm.start(0.01)
    while not rings:
        loop.run_once(5_000)
    print("rang", delivered, flush=True)
    sys.stdin.readline()
print("released", sorted(delivered), flush=True)
print("interruptible", signal.getsignal(signal.SIGINT) is not signal.SIG_IGN, flush=True)
"""


SENT = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGABRT, signal.SIGSEGV)


def pay_under_signals(client: "subprocess.Popen[str]") -> None:
    """Hit the client with signals while its payment is under way, and see that only SIGALRM gets through."""
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline() == "held\n"
    for number in (signal.SIGINT, *SENT, signal.SIGINT):
        client.send_signal(number)
    client.stdin.write("\n")
    client.stdin.flush()
    assert client.stdout.readline() == "rang []\n"
    client.stdin.write("\n")
    client.stdin.flush()


def test_a_client_holds_signals_until_its_payment_has_an_answer() -> None:
    with python(CLIENT, "handlers") as client:
        pay_under_signals(client)
        assert client.stdout is not None
        assert client.stdout.readline() == f"released {sorted(number.name for number in SENT)}\n"
        assert client.stdout.readline() == "interruptible True\n"
        assert client.wait(WAIT_S) == 0


def test_a_held_signal_ends_the_client_afterwards_as_it_would_have_before() -> None:
    with python(CLIENT) as client:
        pay_under_signals(client)
        assert client.stdout is not None
        assert client.stdout.readline() == ""
        assert -client.wait(WAIT_S) in SENT


@pytest.mark.parametrize("number", sorted(FAULTS))
def test_a_fault_that_somebody_sends_is_held_too(number: signal.Signals) -> None:
    with python(CLIENT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "held\n"
        client.send_signal(number)
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "rang []\n"
        client.stdin.close()
        assert client.wait(WAIT_S) == -number


@pytest.mark.parametrize(
    ("fault", "number"),
    [("os.abort()", signal.SIGABRT), ("ctypes.string_at(0)", signal.SIGSEGV)],
    ids=["abort", "segv"],
)
def test_a_fault_of_our_own_ends_the_client_at_once(fault: str, number: signal.Signals) -> None:
    script = f"""
import ctypes, os
from paygate.hardening import protect_process
from paygate.net.signals import hold_signals
protect_process()
with hold_signals():
    {fault}
    print("went on", flush=True)
"""
    with python(script) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == ""
        assert client.wait(WAIT_S) == -number
