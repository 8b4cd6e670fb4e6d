"""The machine's limits, each measured for a moment, and the closed loop against servers that misbehave."""

import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from paygate.bench import machine
from paygate.bench.machine import echo_rate, hpke_open_rate, measure_limits, sync_rate
from paygate.bench.peers import loopback
from paygate.bench.peers.child import Child
from paygate.bench.peers.loopback import READY, ClosedLoop, framed
from paygate.bench.peers.peer import PeerFailed
from paygate.children import child_argv, child_env
from paygate.codec.codes import KemId


def test_every_limit_is_measured_and_leaves_no_large_file(tmp_path: Path) -> None:
    found = measure_limits(tmp_path, 0.05)
    assert len(found) == 2 + 2 * len(KemId)
    assert all(rate > 10 for rate in found.values())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4096


def test_a_rate_is_per_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock on which every append takes 10 ms.
    class Clock:
        now_s = 0.0

        def perf_counter(self) -> float:
            return self.now_s

    clock = Clock()

    def sync(_: int) -> None:
        clock.now_s += 0.010

    monkeypatch.setattr(machine, "time", clock)
    monkeypatch.setattr("os.fdatasync", sync)
    assert sync_rate(tmp_path, 0.5) == pytest.approx(100)


def test_a_child_that_opens_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = (sys.executable, "-c", "print('ready'); input(); print('nothing')")
    monkeypatch.setattr(machine, "child_argv", lambda *_: silent)
    with pytest.raises(PeerFailed, match=r"said .*nothing"):
        hpke_open_rate(tmp_path, KemId.X25519, 1, 0.05)


def test_echoes_of_many_connections_are_counted(tmp_path: Path) -> None:
    assert echo_rate(tmp_path, connection_count=64, size=20_000, seconds=0.1) > 100


def test_a_server_ends_when_its_stdin_does(tmp_path: Path) -> None:
    server = Child(child_argv("paygate.bench.machine", "echo"), tmp_path / "log", READY)
    try:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(10) == 0
    finally:
        server.stop()


def test_a_server_outlives_a_client_that_leaves_before_its_answer(tmp_path: Path) -> None:
    slow = (
        "import time; from paygate.bench.peers.loopback import serve; serve(lambda d: (time.sleep(0.3), (d, b''))[1])"
    )
    with Child((sys.executable, "-c", slow), tmp_path / "log", READY) as server:
        address = ("127.0.0.1", int(server.ready_match[1]))
        with socket.create_connection(address) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
            leaving.sendall(b"hello")
            time.sleep(0.1)  # it is read, and being answered
        with socket.create_connection(address, timeout=10) as staying:
            staying.sendall(b"hello")
            assert staying.recv(16) == b"hello"


def test_the_module_without_a_task_says_what_it_is_for() -> None:
    argv = child_argv("paygate.bench.machine", "nothing")
    done = subprocess.run(argv, env=child_env(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "machine hpke SUITE SECONDS" in done.stderr


# -- the closed loop -------------------------------------------------------------------------------------


def test_a_wrong_answer_gives_no_figure(tmp_path: Path) -> None:
    with Child(child_argv("paygate.bench.machine", "echo"), tmp_path / "log", READY) as server:
        load = ClosedLoop(int(server.ready_match[1]), [framed(b"0200 please")], b"0210")
        with pytest.raises(PeerFailed, match=r"the peer answered .*0200 please"):
            load.measure(1, 0.1)


def test_requests_are_taken_in_turn_by_all_connections(tmp_path: Path) -> None:
    sent = [framed(bytes([65 + n]) * 8) for n in range(3)]
    with Child(child_argv("paygate.bench.machine", "echo"), tmp_path / "log", READY) as server:
        load = ClosedLoop(int(server.ready_match[1]), sent, b"")
        found = load.measure(5, 0.1)
    assert found.client_count == 5
    assert found.done_count > 5


def test_a_server_that_is_not_there_gives_no_figure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerFailed, match=r"a connection to the peer broke: .*refused"):
        ClosedLoop(port, [framed(b"x")], b"").measure(1, 0.1)


def one_answer(listener: socket.socket, pieces: list[bytes], release: threading.Event) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1024)
        for piece in pieces:
            connection.sendall(piece)
        release.wait(10)


@pytest.mark.parametrize("pieces", [[], [b"\0"], [b"\0\3ab"]])
@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_server_that_stops_gives_no_figure(
    pieces: list[bytes], hangs_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback, "SILENCE_S_MAX", 0.3)
    release = threading.Event()
    if hangs_up:
        release.set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=one_answer, args=(listener, pieces, release))
        server.start()
        try:
            with pytest.raises(PeerFailed, match="hung up" if hangs_up else r"no answer for 0\.3 s"):
                ClosedLoop(listener.getsockname()[1], [framed(b"x")], b"").measure(1, 0.1)
        finally:
            release.set()
            server.join()
