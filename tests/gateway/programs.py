"""`paygate-gateway` as a real process, and a bank's end of a link for it to connect to."""

import atexit
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from builders import BANK_ID, GATEWAY_ID, LINK_KEY, build_signed_key_list

from paygate.clock import system_now
from paygate.codec.codes import KeysStatus, Role
from paygate.codec.messages import BankKeys, BankKeysQuery, Message, TransferRequest
from paygate.link import Link
from paygate.link_events import ReplyReceived, RequestReceived

WAIT_S = 60.0
"""How long anything may take before a test fails; nothing here sleeps for a fixed time."""
_LOOK_AGAIN_S = 0.02
_LISTENING = re.compile(r"listening on (\S+):(\d+)")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again, until a deadline."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {WAIT_S} s"
        time.sleep(_LOOK_AGAIN_S)


def run_gateway(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "paygate.gateway", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def make_state(directory: Path) -> Path:
    """A new gateway's state directory, and beside it the file that its link key was read from.

    Made once, since that is a program of its own, and copied for each test.
    """
    shutil.copytree(_made_once(), directory, dirs_exist_ok=True)
    return directory / "state"


@cache
def _made_once() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="gateway-"))
    atexit.register(shutil.rmtree, directory)
    key = directory / "gw.link-key"
    key.write_text(LINK_KEY.hex() + "\n")
    key.chmod(0o600)
    state = directory / "state"
    made = run_gateway("init", "--state", state, "--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", key)
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    return directory


class Serving:
    """A running gateway. Its end is waited for; a test that fails kills it."""

    def __init__(self, state: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paygate.gateway", "serve", "--state", str(state), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.address = ("", 0)
        self._is_over = False

    def wait_for_address(self) -> tuple[str, int]:
        """Read the line that says where it listens."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        line = self.process.stdout.readline().decode() if ready else ""
        match = _LISTENING.search(line)
        assert match is not None, f"it said {line!r} and {self.end()!r}"
        self.address = (match[1], int(match[2]))
        return self.address

    def terminate(self) -> tuple[int, str]:
        """SIGTERM; gives exit code and stderr."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its end; gives exit code and stderr."""
        _, err = self.process.communicate(timeout=WAIT_S)
        self._is_over = True
        return self.process.returncode, err.decode()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if not self._is_over:
            self.process.kill()
            self.end()


class Caller:
    """A client's connection to a running gateway."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=WAIT_S)
        self.link = Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=system_now().mono_ms)
        self._replies: dict[int, Message] = {}
        self.sock.sendall(self.link.data_to_send())
        while not self.link.is_open:
            self._exchange()

    def ask(self, message: Message) -> Message:
        """Ask and wait for the answer."""
        return self.wait_for(self.send(message))

    def send(self, message: Message) -> int:
        """Ask; gives what `wait_for` takes."""
        question = self.link.send_request(message)
        self.sock.sendall(self.link.data_to_send())
        return question

    def wait_for(self, question: int) -> Message:
        """The answer to a question."""
        while question not in self._replies:
            self._exchange()
        return self._replies[question]

    def wait_for_close(self) -> None:
        """Wait until the gateway ends the stream, then end it too."""
        assert self.sock.recv(1) == b""
        self.sock.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _exchange(self) -> None:
        data = self.sock.recv(65_536)
        assert data, "the gateway closed the connection"
        for event in self.link.receive_data(data, system_now().mono_ms):
            if isinstance(event, ReplyReceived):
                self._replies[event.correlation_id] = event.message


class BankEnd:
    """A listening socket whose first caller is a gateway; it gives its keys and answers nothing else by itself."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(WAIT_S)
        self.port: int = self.listener.getsockname()[1]
        self.sock: socket.socket | None = None
        self.transfers: list[tuple[int, TransferRequest]] = []

    def accept(self) -> None:
        """Take the gateway's connection, and answer until it has the keys."""
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(WAIT_S)
        self.link = Link(
            Role.BANK,
            BANK_ID,
            Role.GATEWAY,
            is_caller=False,
            now_ms=system_now().mono_ms,
            key_of={GATEWAY_ID: LINK_KEY}.get,
        )
        self._receive_until(BankKeysQuery)

    def turn_away(self) -> None:
        """Take the gateway's connection as a bank that has another key for it."""
        sock, _ = self.listener.accept()
        sock.settimeout(WAIT_S)
        link = Link(
            Role.BANK,
            BANK_ID,
            Role.GATEWAY,
            is_caller=False,
            now_ms=system_now().mono_ms,
            key_of={GATEWAY_ID: bytes(len(LINK_KEY))}.get,
        )
        while not link.is_closed:
            link.receive_data(sock.recv(65_536), system_now().mono_ms)
        sock.sendall(link.data_to_send())
        sock.close()

    def wait_for_transfer(self) -> tuple[int, TransferRequest]:
        """The next transfer, with its correlation ID."""
        self._receive_until(TransferRequest)
        return self.transfers[-1]

    def reply(self, correlation_id: int, message: Message) -> None:
        """Answer a request."""
        assert self.sock is not None
        self.link.send_reply(correlation_id, message)
        self.sock.sendall(self.link.data_to_send())

    def cut(self) -> None:
        """Reset the connection."""
        assert self.sock is not None
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()
        self.sock = None

    def close(self) -> None:
        """Free both sockets."""
        self.listener.close()
        if self.sock is not None:
            self.sock.close()

    def _receive_until(self, wanted: type[Message]) -> None:
        assert self.sock is not None
        while True:
            data = self.sock.recv(65_536)
            assert data, "the gateway closed the link"
            kinds = [type(m) for m in self._take(data)]
            self.sock.sendall(self.link.data_to_send())
            if wanted in kinds:
                return

    def _take(self, data: bytes) -> list[Message]:
        taken: list[Message] = []
        for event in self.link.receive_data(data, system_now().mono_ms):
            if isinstance(event, RequestReceived):
                taken.append(event.message)
                if isinstance(event.message, BankKeysQuery):
                    keys = BankKeys(KeysStatus.AVAILABLE, build_signed_key_list())
                    self.link.send_reply(event.correlation_id, keys)
                elif isinstance(event.message, TransferRequest):
                    self.transfers.append((event.correlation_id, event.message))
        return taken


def mode_of(path: Path) -> int:
    """Its permission bits."""
    return path.stat().st_mode & 0o777
