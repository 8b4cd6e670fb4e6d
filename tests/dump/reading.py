"""Reads inputs as `paygate-dump` does, from bytes that come at once or one by one."""

import io
from itertools import count
from typing import Final

from dump.builders import (
    CLIENT,
    SERVER,
    Captured,
    ethernet,
    linux_sll2,
    pcap_bytes,
    pcapng_bytes,
    tcp_packet,
)

from paygate.dump.model import Finding, Packet, StreamData
from paygate.dump.source import read_source

Read = Packet | StreamData | Finding

PACKETS: Final = [
    tcp_packet(b"PG first"),
    tcp_packet(b"", source=SERVER, target=CLIENT),
    tcp_packet(b"second, of another length", sequence=9),
    tcp_packet(b"third" * 20, sequence=34),
]
SMALL_CAPTURES: Final = {
    "pcap": pcap_bytes(PACKETS),
    "pcap of a big-endian machine, in nanoseconds": pcap_bytes(PACKETS, order=">", is_nanosecond=True),
    "pcapng": pcapng_bytes(PACKETS),
    "pcapng of a big-endian machine, two interfaces": pcapng_bytes(
        [
            Captured(ethernet(PACKETS[0], size_min=60), direction=1),
            Captured(linux_sll2(PACKETS[1]), interface=1, direction=2),
            Captured(linux_sll2(PACKETS[2]), interface=1),
        ],
        link_types=(1, 276),
        order=">",
        resolution=None,
    ),
    "pcapng of two sections": pcapng_bytes(PACKETS[:2]) + pcapng_bytes(PACKETS[2:], order=">"),
}


class Trickle(io.RawIOBase):
    """Gives `size` bytes at a read, as a slow pipe does."""

    def __init__(self, data: bytes, size: int = 1) -> None:
        self._rest = data
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        given = self._rest[: min(self._size, len(buffer))]
        buffer[: len(given)] = given
        self._rest = self._rest[len(given) :]
        return len(given)


def read_all(data: bytes, *, read_size: int | None = None) -> list[Read]:
    """Everything that an input holds; with `read_size`, so many bytes come at a time."""
    stream = io.BytesIO(data) if read_size is None else Trickle(data, read_size)
    return list(read_source(stream, count(1)))  # type: ignore[arg-type]


def packets_in(data: bytes) -> list[Packet]:
    """The packets of an input that has nothing else in it."""
    found = read_all(data)
    packets = [p for p in found if isinstance(p, Packet)]
    assert len(packets) == len(found), found
    return packets


def findings_in(data: bytes) -> list[Finding]:
    """The findings of an input."""
    return [f for f in read_all(data) if isinstance(f, Finding)]


def plain(read: list[Read]) -> list[tuple[object, ...]]:
    """For comparing two readings: flows are compared by identity, so a stream's bytes stand without theirs."""
    return [tuple(r[1:]) if isinstance(r, StreamData) else (r,) for r in read]


def stream_bytes(read: list[Read]) -> bytes:
    """All bytes of the one stream, whose offsets go on one from the other."""
    joined = b""
    for r in read:
        if isinstance(r, StreamData):
            assert r.offset == len(joined)
            joined += r.data
    return joined
