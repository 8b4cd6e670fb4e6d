"""A relay that passes on exactly so many bytes of a connection and cuts it then, or alters one byte of it."""

import contextlib
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from paygate.codec.codes import Kind
from paygate.net.loop import EVENT_READ, Loop

FIN: Final = "fin"
RST: Final = "rst"
FLIP: Final = "flip"
"""One bit of a byte is turned over."""
FORGE: Final = "forge"
"""The same, and the frame gets the checksum that it then needs: what somebody does who knows the format."""
TO_SERVER: Final = "to server"
TO_CALLER: Final = "to caller"
_READ_SIZE: Final = 65_536
_HEAD: Final = struct.Struct(">2sBBHHQI")
_CHECKSUM_SIZE: Final = 4
_MAC_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Harm:
    """What is done to one connection."""

    direction: str
    offset: int
    """How many bytes of the direction pass before: a cut comes after them, an altered byte is the next one."""
    how: str
    """FIN, RST, FLIP or FORGE."""
    bit: int = 0


@dataclass(frozen=True, slots=True)
class Framed:
    """Where a frame was in one direction of a connection."""

    kind: Kind
    start: int
    end: int

    def is_checksum(self, offset: int) -> bool:
        """Whether the byte at an offset of the direction is of the frame's checksum."""
        return self.start + _HEAD.size - _CHECKSUM_SIZE <= offset < self.start + _HEAD.size


@dataclass(eq=False, slots=True)
class Joined:
    """One connection through the relay, both ways."""

    caller: socket.socket
    server: socket.socket
    harm: Harm | None
    passed: dict[str, bytearray] = field(default_factory=lambda: {TO_SERVER: bytearray(), TO_CALLER: bytearray()})
    """What came from the other end, in each direction, before any harm."""
    held: bytearray = field(default_factory=bytearray)
    """Of the direction that is altered: the piece of a frame that waits for the rest."""
    is_harmed: bool = False
    is_open: bool = True


class Relay:
    """Listens on a port of its own and joins each connection to a server's. Raises OSError.

    `harms`: what is done to the next connections, in order; None, or none left: nothing.
    """

    def __init__(self, loop: Loop, target_port: int, on_joined: Callable[["Joined"], None] = lambda _: None) -> None:
        self.harms: list[Harm | None] = []
        self.connections: list[Joined] = []
        self._loop = loop
        self._target_port = target_port
        self._on_joined = on_joined
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        loop.watch(self._listener.fileno(), EVENT_READ, self._accept)

    def close(self) -> None:
        """Cut everything, and listen no more."""
        for joined in self.connections:
            self.cut(joined)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()

    def cut(self, joined: Joined, how: str = FIN) -> None:
        """End a connection both ways; harmless when it has ended."""
        if not joined.is_open:
            return
        joined.is_open = False
        for sock in (joined.caller, joined.server):
            self._loop.unwatch(sock.fileno())
            if how == RST:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            caller, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            except OSError:
                caller.close()
                return
            joined = Joined(caller, server, self.harms.pop(0) if self.harms else None)
            self.connections.append(joined)
            for sock in (caller, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._loop.watch(caller.fileno(), EVENT_READ, partial(self._ready, joined, TO_SERVER))
            self._loop.watch(server.fileno(), EVENT_READ, partial(self._ready, joined, TO_CALLER))
            self._on_joined(joined)
            if joined.harm is not None and joined.harm.offset == 0 and joined.harm.how in (FIN, RST):
                joined.is_harmed = True
                self.cut(joined, joined.harm.how)

    def _ready(self, joined: Joined, direction: str, _events: int) -> None:
        source, sink = joined.caller, joined.server
        if direction == TO_CALLER:
            source, sink = sink, source
        try:
            data = source.recv(_READ_SIZE)
            if not data:
                self.cut(joined)
                return
            joined.passed[direction] += data
            harm = joined.harm
            if harm is None or harm.direction != direction or joined.is_harmed:
                sink.sendall(data)
            elif harm.how in (FIN, RST):
                self._cut_after(joined, harm, sink, data)
            else:
                self._alter(joined, harm, sink, data)
        except OSError:
            self.cut(joined)

    def _cut_after(self, joined: Joined, harm: Harm, sink: socket.socket, data: bytes) -> None:
        before = len(joined.passed[harm.direction]) - len(data)
        room = harm.offset - before
        sink.sendall(data[:room])
        if len(data) >= room:
            joined.is_harmed = True
            self.cut(joined, harm.how)

    def _alter(self, joined: Joined, harm: Harm, sink: socket.socket, data: bytes) -> None:
        """Frames pass whole, so that the one with the byte can get its checksum."""
        joined.held += data
        start = len(joined.passed[harm.direction]) - len(joined.held)
        done = 0
        for framed in frames_of(bytes(joined.held)):
            frame = bytes(joined.held[framed.start : framed.end])
            place = harm.offset - start - framed.start
            if 0 <= place < len(frame):
                frame = altered(frame, place, harm.bit, is_forged=harm.how == FORGE)
                joined.is_harmed = True
            sink.sendall(frame)
            done = framed.end
        del joined.held[:done]
        if joined.is_harmed and joined.held:
            sink.sendall(joined.held)
            joined.held.clear()


def frames_of(data: bytes) -> Iterator[Framed]:
    """The whole frames that a stream begins with, by their headers alone."""
    start = 0
    while start + _HEAD.size <= len(data):
        _, _, kind, flags, size, _, _ = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + size + (_MAC_SIZE if flags else 0)
        if end > len(data):
            return
        yield Framed(Kind(kind), start, end)
        start = end


def altered(frame: bytes, place: int, bit: int, *, is_forged: bool) -> bytes:
    """A frame with one bit turned over; forged, with the checksum of what it says then."""
    changed = bytearray(frame)
    changed[place] ^= 1 << bit
    if is_forged:
        size = int.from_bytes(frame[6:8])
        head_end = _HEAD.size - _CHECKSUM_SIZE
        body = changed[_HEAD.size : _HEAD.size + size]
        changed[head_end : _HEAD.size] = zlib.crc32(changed[:head_end] + body).to_bytes(_CHECKSUM_SIZE)
    return bytes(changed)
