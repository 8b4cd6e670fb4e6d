"""Frames on a socket, as far as somebody needs to know them who only plays the other end of a server."""

import socket
from typing import Final

from paygate.codec import limits

_READ_SIZE: Final = 65_536


class Unsteady(Exception):
    """A tick saw only a part of its batch, since the kernel handed the rest over late. Measure again."""


def frame_size(header: bytes) -> int:
    """The whole size of a frame, in bytes, from its header."""
    has_mac = bool(header[5] & 1)
    return limits.HEADER_SIZE + int.from_bytes(header[6:8]) + (limits.MAC_SIZE if has_mac else 0)


def read_frame(sock: socket.socket) -> bytes:
    """One frame that must be there already, on a non-blocking socket. Raises Unsteady."""
    data = b""
    while len(data) < limits.HEADER_SIZE or len(data) < frame_size(data):
        try:
            piece = sock.recv(_READ_SIZE)
        except BlockingIOError:
            raise Unsteady("an answer did not come with its tick") from None
        assert piece, "a server closed a link"
        data += piece
    return data
