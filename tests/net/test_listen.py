"""Listeners: ports, limits, and running out of descriptors."""

import errno
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from paygate.net.addresses import Address
from paygate.net.conn import CloseReason, Connection
from paygate.net.limits import ListenLimits
from paygate.net.listen import Listener, ListenError, RefuseReason
from paygate.net.loop import Loop

TickUntil = Callable[[Loop, Callable[[], bool]], None]


class Server:
    """Keeps what it accepts and echoes what it hears."""

    def __init__(self, loop: Loop, limits: ListenLimits, host: str = "127.0.0.1") -> None:
        self.conns: list[Connection] = []
        self.closes_after_first = False
        self.refused: list[tuple[Address, RefuseReason]] = []
        self.closed: list[Connection] = []
        self.listener = Listener(
            loop,
            host,
            0,
            self,
            on_accept=self.accepted,
            on_refused=lambda address, reason: self.refused.append((address, reason)),
            limits=limits,
        )

    def accepted(self, conn: Connection) -> None:
        self.conns.append(conn)
        if self.closes_after_first:
            self.listener.close()

    def data_received(self, conn: Connection, data: bytes) -> None:
        conn.send(data)

    def eof_received(self, conn: Connection) -> None:
        conn.close_after_flush()

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        self.closed.append(conn)

    def close(self) -> None:
        self.listener.close()
        for conn in self.conns:
            conn.abort()


class World:
    def __init__(self, loop: Loop, stack: ExitStack) -> None:
        self.loop = loop
        self.stack = stack

    def server(self, limits: ListenLimits | None = None, host: str = "127.0.0.1") -> Server:
        server = Server(self.loop, limits or ListenLimits(), host)
        self.stack.callback(server.close)
        return server

    def client(self, server: Server, source_host: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection((server.listener.host, server.listener.port), 10, (source_host, 0))
        return self.stack.enter_context(client)


@pytest.fixture
def world(loop: Loop) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(loop, stack)


def test_port_0_gives_a_real_port_and_accepts_on_it(world: World, tick_until: TickUntil) -> None:
    server = world.server()
    client = world.client(server)
    client.sendall(b"echo")
    tick_until(world.loop, lambda: len(server.conns) == 1)
    assert server.conns[0].peer_address == client.getsockname()
    assert server.listener.connection_count == 1
    for _ in range(3):
        world.loop.run_once(20)
        world.loop.flush()
    assert client.recv(10) == b"echo"
    client.close()
    tick_until(world.loop, lambda: len(server.closed) == 1)
    assert server.listener.connection_count == 0


def test_ipv6_is_served_as_well(world: World, tick_until: TickUntil) -> None:
    try:
        server = world.server(host="::1")
    except ListenError:
        pytest.skip("this machine has no IPv6 loopback")
    client = world.stack.enter_context(socket.create_connection(("::1", server.listener.port), 10))
    tick_until(world.loop, lambda: len(server.conns) == 1)
    assert server.conns[0].peer_address == client.getsockname()[:2]


def test_a_port_in_use_is_said_in_words(world: World) -> None:
    port = world.server().listener.port
    with pytest.raises(ListenError) as caught:
        Listener(world.loop, "127.0.0.1", port, Server.__new__(Server), on_accept=print, on_refused=print)
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port}: address already in use"
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_closed_listener_frees_its_port_and_keeps_its_connections(world: World, tick_until: TickUntil) -> None:
    server = world.server()
    client = world.client(server)
    tick_until(world.loop, lambda: len(server.conns) == 1)
    server.listener.close()
    server.listener.close()
    with pytest.raises(ConnectionRefusedError):
        world.client(server)
    client.sendall(b"still here")
    client.shutdown(socket.SHUT_WR)
    tick_until(world.loop, lambda: len(server.closed) == 1)
    assert client.recv(100) == b"still here"


def test_at_most_so_many_accepts_a_tick(world: World) -> None:
    server = world.server(ListenLimits(accept_count_per_tick=3))
    for _ in range(7):
        world.client(server)
    counts = []
    for _ in range(3):
        world.loop.run_once(1_000)
        counts.append(len(server.conns))
    assert counts == [3, 6, 7]


def test_a_paused_listener_leaves_connections_waiting(world: World, tick_until: TickUntil) -> None:
    server = world.server()
    server.listener.pause()
    world.client(server)
    world.loop.run_once(0)
    assert server.conns == []
    server.listener.resume()
    tick_until(world.loop, lambda: len(server.conns) == 1)


def test_a_callback_may_stop_the_listener_in_the_middle_of_the_queue(world: World) -> None:
    server = world.server()
    server.closes_after_first = True
    for _ in range(3):
        world.client(server)
    world.loop.run_once(1_000)
    assert len(server.conns) == 1


@pytest.mark.pg("PG-ERR-9")
def test_one_address_gets_its_share_and_others_theirs(world: World, tick_until: TickUntil) -> None:
    server = world.server(ListenLimits(connection_count_per_address_max=2))
    clients = [world.client(server, "127.0.0.2") for _ in range(3)]
    world.client(server, "127.0.0.3")
    tick_until(world.loop, lambda: len(server.conns) == 3)
    assert server.refused == [(clients[2].getsockname(), RefuseReason.TOO_MANY_FROM_ADDRESS)]
    assert clients[2].recv(1) == b""
    # A place that is given back can be taken again.
    clients[0].close()
    tick_until(world.loop, lambda: len(server.closed) == 1)
    world.client(server, "127.0.0.2")
    tick_until(world.loop, lambda: len(server.conns) == 4)
    assert set(server.listener._count_by_group) == {"127.0.0.2", "127.0.0.3"}


def test_the_whole_has_a_limit_too(world: World, tick_until: TickUntil) -> None:
    server = world.server(ListenLimits(connection_count_max=2))
    for last_byte in range(1, 4):
        world.client(server, f"127.0.0.{last_byte}")
    tick_until(world.loop, lambda: len(server.refused) == 1)
    assert server.refused[0][1] is RefuseReason.TOO_MANY
    assert server.listener.connection_count == 2


# In a process of its own, since the limit holds for the whole process. It counts its ticks: T25 says no spinning.
# A busy machine may make the pauses longer, never shorter, and adds no ticks.
EXHAUSTED = """
import os, resource, socket
from paygate.net.limits import ListenLimits
from paygate.net.listen import Listener, RefuseReason
from paygate.net.loop import Loop

class Handler:
    def data_received(self, conn, data): pass
    def eof_received(self, conn): conn.close_after_flush()
    def connection_closed(self, conn, reason, detail): pass

loop, accepted, refused = Loop(), [], []
listener = Listener(loop, "127.0.0.1", 0, Handler(), on_accept=accepted.append,
                    on_refused=lambda address, reason: refused.append(reason), limits=ListenLimits(pause_ms=100))
clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(5)]
limit = len(os.listdir("/proc/self/fd")) + 3
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
hoard = []
while True:
    try:
        hoard.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
start_ms, tick_count = loop.now_ms(), 0
while len(refused) < 4:
    loop.run_once(5_000)
    tick_count += 1
assert not accepted
assert refused == [RefuseReason.NO_DESCRIPTORS] * 4, refused
assert loop.now_ms() >= start_ms + 300, loop.now_ms() - start_ms
assert tick_count < 12, tick_count
for fd in hoard:
    os.close(fd)
while not accepted:
    loop.run_once(5_000)
assert len(accepted) + len(refused) == len(clients)
print("served again")
"""


def test_out_of_descriptors_it_pauses_without_spinning_and_recovers() -> None:
    done = subprocess.run([sys.executable, "-c", EXHAUSTED], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "served again\n", "")
