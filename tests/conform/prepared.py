"""Starts clients with bugs without starting an interpreter for each: it is prepared once, and forked for every run.

Strategy. Importing our client costs far more than a run of one, and there are hundreds of runs. So one server has all
of it imported, and each run is a fork of it. The kit starts a program of its own all the same: `prepared_start.py`,
which imports next to nothing, hands its arguments, environment, working directory and standard descriptors over, and
ends as the fork ends.

Whoever starts it gives the path to listen at; it says `ready` once, and ends, with all its forks, at the end of its
stdin. A fork dies with the program that asked for it: that one's end of the connection is closed before anybody can
learn that it has ended, so it is seen here before whatever is asked next, and by then its fork is gone.
"""

import contextlib
import marshal
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Never

REQUEST_SIZE_MAX: Final = 131_072
"""Bytes of one request. An environment is most of it; a packet socket's buffer holds more."""
END_S: Final = 60
"""How long the server may take to end, on a busy machine."""
_STANDARD: Final = (0, 1, 2)


@dataclass
class Fork:
    """One run: the connection of the program that asked for it, and the pipe that ends with it."""

    pid: int
    asker: socket.socket
    end_fd: int


@dataclass
class Preparation:
    """The server; `run(arguments)` is the program that each fork becomes, and gives its exit code."""

    listening: socket.socket
    run: Callable[[list[str]], int]
    askers: list[socket.socket] = field(default_factory=list)
    """Those whose request has not come."""
    forks: list[Fork] = field(default_factory=list)

    def serve(self) -> None:
        """Fork whoever is asked for until stdin ends."""
        while True:
            ready = self._wait()
            # Those who have gone come first: their fork must be dead before another works on what it worked on.
            for fork in [fork for fork in self.forks if {fork.asker.fileno(), fork.end_fd} & ready]:
                self._end(fork)
            for asker in [asker for asker in self.askers if asker.fileno() in ready]:
                self._start(asker)
            if self.listening.fileno() in ready:
                self.askers.append(self.listening.accept()[0])
            if 0 in ready:
                for fork in list(self.forks):
                    self._end(fork)
                return

    def _wait(self) -> set[int]:
        with selectors.DefaultSelector() as selector:
            sockets = (self.listening, *self.askers, *(fork.asker for fork in self.forks))
            for fd in (0, *(sock.fileno() for sock in sockets), *(fork.end_fd for fork in self.forks)):
                selector.register(fd, selectors.EVENT_READ)
            return {key.fd for key, _ in selector.select()}

    def _start(self, asker: socket.socket) -> None:
        self.askers.remove(asker)
        data, fds, _flags, _address = socket.recv_fds(asker, REQUEST_SIZE_MAX, len(_STANDARD))
        if not data:
            asker.close()  # it was ended before it asked
            return
        request = marshal.loads(data)
        end_fd, its_end_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(request, fds)
        os.close(its_end_fd)
        for fd in fds:
            os.close(fd)
        self.forks.append(Fork(pid, asker, end_fd))

    def _become(self, request: dict[str, object], fds: list[int]) -> Never:
        """Be the program that was asked for, as if it had been started the ordinary way."""
        for fd, standard in zip(fds, _STANDARD, strict=True):
            os.dup2(fd, standard)
            os.close(fd)
        self.listening.close()
        for fork in self.forks:
            fork.asker.close()
            os.close(fork.end_fd)
        os.chdir(str(request["directory"]))
        environment = request["environment"]
        arguments = request["arguments"]
        assert isinstance(environment, dict)
        assert isinstance(arguments, list)
        os.environ.clear()
        os.environ.update(environment)
        random.seed()
        sys.exit(self.run(arguments))

    def _end(self, fork: Fork) -> None:
        """It has ended, or whoever asked for it has: then it ends now."""
        self.forks.remove(fork)
        # Harmless when it has ended by itself: it is not yet waited for, so the number is still its own.
        os.kill(fork.pid, signal.SIGKILL)
        _pid, status = os.waitpid(fork.pid, 0)
        os.close(fork.end_fd)
        with fork.asker, contextlib.suppress(OSError):  # it has ended itself
            fork.asker.send(str(os.waitstatus_to_exitcode(status)).encode())


def serve(path: Path, run: Callable[[list[str]], int]) -> None:
    """Serve `run` at this path until stdin ends, then be gone; a fork never returns from here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(os.fspath(path))
        listening.listen()
        print("ready", flush=True)
        Preparation(listening, run).serve()


@contextlib.contextmanager
def preparation(module: str, path: Path) -> Iterator[None]:
    """A server of a module's programs at this path, ready; the module's own program is to call `serve`."""
    command = [sys.executable, "-P", "-m", module, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.communicate(timeout=END_S)


def starting(path: Path, *arguments: str) -> tuple[str, ...]:
    """The command line of a program that the server at this path forks."""
    return (sys.executable, "-I", "-S", str(Path(__file__).with_name("prepared_start.py")), str(path), *arguments)
