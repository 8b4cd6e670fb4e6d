"""Captures: what this program sent and received at its sockets, as a pcapng file (R24; draft-ietf-opsawg-pcapng).

Strategy. A captured connection's socket is a `CapturedSocket`, which writes down what the kernel took from us and gave
us. Nothing else knows of it: without a capture the socket is a plain one, so that capturing costs nothing when it is
off. It needs no root, since it looks at our own calls and not at the network.

TCP and IP headers are made up around the bytes (LINKTYPE_RAW), so that Wireshark, tshark, tcpdump and `paygate-dump`
open the file as it is, follow its connections and check its checksums; with LINKTYPE_USER0 every reader would have to
be told what the bytes are, and none would know the connections. What is real: addresses, ports, the bytes, their order
and times, who connected, who closed or reset when. What is made up: the first sequence numbers, how the bytes are cut
into segments (one for each read or write), and that a byte is acknowledged when the next segment goes the other way.

A capture never harms a payment. Each packet is one unbuffered write to a regular file, which waits for nobody who
reads it; whoever watches it live, sees each packet at once. If the file can't take one, the capture ends there, whole
up to then, and the connections go on. A program that is killed loses at most the packet of the call it was in.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from paygate.net.addresses import Address

SEGMENT_SIZE_MAX: Final = 0xFFFF - 20 - 20
"""Bytes of the stream in one packet: IPv4's length field counts the two headers too. IPv6 would take 20 more."""

_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_TCP: Final = 6
_HOP_COUNT: Final = 64
_DO_NOT_FRAGMENT: Final = 0x4000
_SYN_OPTIONS: Final = bytes([2, 4, *SEGMENT_SIZE_MAX.to_bytes(2), 1, 3, 3, 14])
"""Largest segment, a blank, and the largest window scale (RFC 7323): the window below then means 1 GiB, since a reader
would take a program that reads late for one whose window is full."""
_WINDOW: Final = 0xFFFF

_LINK_TYPE_RAW_IP: Final = 101
_INBOUND, _OUTBOUND = 1, 2
_COMMENT, _IF_NAME, _PACKET_FLAGS, _USER_APPLICATION, _IF_TIME_RESOLUTION = 1, 2, 2, 4, 9
_NANOSECONDS: Final = b"\x09"


class CaptureFile:
    """A capture under way, of all connections that it is asked to take.

    `program` is written into it as the name of who captures. `on_failed(text)` hears, at most once, that the file
    could not be written to any more. `clock` gives nanoseconds since 1970.

    Raises OSError: FileExistsError for any file that is there, since a capture is never overwritten and never mixed
    with another, and a named pipe's reader could hold up a payment by not reading.
    """

    def __init__(
        self,
        path: Path,
        program: str,
        *,
        on_failed: Callable[[str], None],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.now_ns = clock
        self._path = path
        self._on_failed = on_failed
        self._size = 0
        # Passcodes are in it, so nobody else may read it. O_EXCL follows no link.
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.add(_section_header(program) + _interface(program))

    def accepted(self, sock: socket.socket, peer: Address) -> socket.socket:
        """Take over a socket that `peer` connected to, and give the one to use instead."""
        return CapturedSocket(sock, _Stream(self, sock, peer, is_caller=False))

    def connected(self, sock: socket.socket, peer: Address) -> socket.socket:
        """Take over a socket that we connected to `peer`, and give the one to use instead."""
        return CapturedSocket(sock, _Stream(self, sock, peer, is_caller=True))

    def add(self, blocks: bytes) -> None:
        """Write whole blocks, at once; what its sockets call, and so must raise nothing."""
        if self._fd is None:
            return
        try:
            done = os.write(self._fd, blocks)
            while done < len(blocks):
                done += os.write(self._fd, blocks[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self.close()
            reason = (error.strerror or type(error).__name__).lower()
            self._on_failed(
                f"the capture {self._path} ends here: {reason}; what it holds is whole, and all else goes on"
            )
        else:
            self._size += len(blocks)

    def close(self) -> None:
        """End the capture; what its sockets do later is not in it. Harmless when repeated."""
        fd, self._fd = self._fd, None
        if fd is not None:
            # Close may report that an earlier write failed (NFS); for a payment that is no news.
            with contextlib.suppress(OSError):
                os.close(fd)


class CapturedSocket(socket.socket):
    """A connected stream socket that writes down what it does, in the four calls by which a Connection does it."""

    def __init__(self, sock: socket.socket, stream: "_Stream") -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self._stream = stream

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As socket.socket's."""
        try:
            size = super().recv_into(buffer, nbytes, flags)
        except OSError as error:
            self._stream.failed(error)
            raise
        self._stream.received(bytes(memoryview(buffer)[:size]))
        return size

    def send(self, data: Any, flags: int = 0) -> int:
        """As socket.socket's; what the kernel did not take was not sent."""
        try:
            size = super().send(data, flags)
        except OSError as error:
            self._stream.send_failed(error)
            raise
        self._stream.sent(bytes(memoryview(data)[:size]))
        return size

    def shutdown(self, how: int) -> None:
        """As socket.socket's."""
        super().shutdown(how)
        if how != socket.SHUT_RD:
            self._stream.sent_end()

    def close(self) -> None:
        """As socket.socket's."""
        if self.fileno() >= 0:
            self._stream.closed(has_unread=self._has_unread())
        super().close()

    def _has_unread(self) -> bool:
        """Whether bytes wait, for which the kernel resets the connection instead of ending it (RFC 2525 2.17)."""
        try:
            return bool(self.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError as error:
            self._stream.failed(error)
            return False


class _End:
    """One end of a connection, as headers show it."""

    __slots__ = ("host", "port", "sequence")

    def __init__(self, host: bytes, port: int, sequence: int) -> None:
        self.host = host
        self.port = port
        self.sequence = sequence
        """Of the byte that it sends next."""


class _Stream:
    """The TCP of one connection, from the three packets that open it to those that end it."""

    def __init__(self, capture: CaptureFile, sock: socket.socket, peer: Address, *, is_caller: bool) -> None:
        self._capture = capture
        self._family = sock.family
        # As RFC 9293 (3.4.1) would have it, so that readers tell a connection from the next one on the same ports.
        sequence = capture.now_ns() // 4_000 & 0xFFFFFFFF
        self._us = _End(*_packed(sock.family, sock.getsockname()), sequence)
        self._peer = _End(*_packed(sock.family, peer), sequence)
        self._peer_has_reset = False
        self._we_ended = False
        self._peer_ended = False
        self._is_over = False
        for is_outbound, flags in ((is_caller, _SYN), (not is_caller, _SYN | _ACK), (is_caller, _ACK)):
            self._put(flags, is_outbound=is_outbound)

    def sent(self, data: bytes) -> None:
        """The kernel took these bytes from us."""
        self._put_data(data, is_outbound=True)

    def received(self, data: bytes) -> None:
        """The kernel gave us these bytes; none means the end of the peer's stream."""
        if data:
            self._put_data(data, is_outbound=False)
        elif self._peer_has_reset:
            self._reset(is_outbound=False)
        elif not self._peer_ended and not self._is_over:
            self._peer_ended = True
            self._put(_FIN | _ACK, is_outbound=False)

    def sent_end(self) -> None:
        """We send no more."""
        if not self._we_ended and not self._is_over:
            self._we_ended = True
            self._put(_FIN | _ACK, is_outbound=True)

    def send_failed(self, error: OSError) -> None:
        """The kernel took nothing."""
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            # What the peer sent before its reset may still be read, and comes before it.
            self._peer_has_reset = True
        else:
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """The connection has broken, or there is only nothing to do now."""
        if isinstance(error, BlockingIOError):
            return
        # Of a peer that is gone or out of reach nothing came, so that the end is ours.
        self._reset(is_outbound=not isinstance(error, ConnectionResetError | BrokenPipeError))

    def closed(self, *, has_unread: bool) -> None:
        """We let go of the socket."""
        if self._peer_has_reset:
            self._reset(is_outbound=False)
        elif has_unread:
            self._reset(is_outbound=True)
        else:
            self.sent_end()
        self._is_over = True

    def _reset(self, *, is_outbound: bool) -> None:
        if not self._is_over:
            self._is_over = True
            self._put(_RST | _ACK, is_outbound=is_outbound)

    def _put_data(self, data: bytes, *, is_outbound: bool) -> None:
        for start in range(0, len(data), SEGMENT_SIZE_MAX):
            self._put(_PSH | _ACK, data[start : start + SEGMENT_SIZE_MAX], is_outbound=is_outbound)

    def _put(self, flags: int, payload: bytes = b"", *, is_outbound: bool) -> None:
        """Write one packet."""
        sender, receiver = (self._us, self._peer) if is_outbound else (self._peer, self._us)
        segment = _segment(sender, receiver, flags, payload)
        sender.sequence = sender.sequence + len(payload) + bool(flags & (_SYN | _FIN)) & 0xFFFFFFFF
        packet = _ip_header(self._family, sender.host, receiver.host, len(segment)) + segment
        self._capture.add(_enhanced_packet(self._capture.now_ns(), packet, is_outbound=is_outbound))


def _packed(family: int, address: tuple[Any, ...]) -> tuple[bytes, int]:
    """Host and port of an address as a header has them."""
    return socket.inet_pton(family, address[0].partition("%")[0]), address[1]


# -- TCP/IP ----------------------------------------------------------------------------------------------


def _segment(sender: _End, receiver: _End, flags: int, payload: bytes) -> bytes:
    """A TCP segment with its checksum (RFC 9293 3.1)."""
    options = _SYN_OPTIONS if flags & _SYN else b""
    size = 20 + len(options)
    acknowledged = receiver.sequence if flags & _ACK else 0
    head = struct.pack(
        ">HHIIBBH", sender.port, receiver.port, sender.sequence, acknowledged, size // 4 << 4, flags, _WINDOW
    )
    # The same sum for IPv4's pseudo-header as for IPv6's: zeros don't count.
    pseudo = sender.host + receiver.host + struct.pack(">II", _TCP, size + len(payload))
    tail = options + payload
    return head + struct.pack(">HH", _checksum(pseudo + head + tail), 0) + tail


def _ip_header(family: int, source: bytes, target: bytes, payload_size: int) -> bytes:
    if family == socket.AF_INET6:
        return struct.pack(">IHBB", 6 << 28, payload_size, _TCP, _HOP_COUNT) + source + target
    head = struct.pack(">BBHHHBB", 0x45, 0, 20 + payload_size, 0, _DO_NOT_FRAGMENT, _HOP_COUNT, _TCP)
    return head + struct.pack(">H", _checksum(head + source + target)) + source + target


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of `data`, whose own field is left out as the zeros it counts for.

    A ones' complement sum of 16-bit words is the whole number modulo 65,535, which the interpreter has at once.
    """
    return -(int.from_bytes(data) << 8 * (len(data) % 2)) % 0xFFFF


# -- pcapng (draft-ietf-opsawg-pcapng, sections 3 and 4) -------------------------------------------------


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


_NO_MORE_OPTIONS: Final = bytes(4)


def _section_header(program: str) -> bytes:
    comment = (
        f"What {program} sent and received at its sockets; TCP and IP headers are made up around it. "
        "Nothing is masked: payment tokens' passcodes are readable in it."
    )
    options = _option(_COMMENT, comment.encode()) + _option(_USER_APPLICATION, program.encode())
    return _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options + _NO_MORE_OPTIONS)


def _interface(program: str) -> bytes:
    options = _option(_IF_NAME, program.encode()) + _option(_IF_TIME_RESOLUTION, _NANOSECONDS)
    # No snap length: nothing is cut off.
    return _block(1, struct.pack("<HHI", _LINK_TYPE_RAW_IP, 0, 0) + options + _NO_MORE_OPTIONS)


def _enhanced_packet(time_ns: int, packet: bytes, *, is_outbound: bool) -> bytes:
    head = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(packet), len(packet))
    flags = _option(_PACKET_FLAGS, struct.pack("<I", _OUTBOUND if is_outbound else _INBOUND))
    return _block(6, head + packet + bytes(-len(packet) % 4) + flags + _NO_MORE_OPTIONS)
