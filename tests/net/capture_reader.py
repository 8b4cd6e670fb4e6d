"""A reader of the captures that our programs write, slow and plain: whatever is not as it should be fails a test.

It knows pcapng, IP and TCP as far as those captures have them, and shares nothing with the writer.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
INBOUND, OUTBOUND = "in", "out"


@dataclass(frozen=True)
class Seen:
    """One packet as it stands in the file."""

    direction: str
    time_ns: int
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    acknowledged: int
    flags: int
    payload: bytes


def blocks_of(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and body of each block. The file must end with a whole one."""
    found = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert len(data) >= size, "the last block is cut off"
        assert struct.unpack_from("<I", data, size - 4) == (size,)
        found.append((kind, data[8 : size - 4]))
        data = data[size:]
    return found


def options_of(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while True:
        code, size = struct.unpack_from("<HH", data)
        if code == 0:
            assert (size, len(data)) == (0, 4)
            return found
        found[code] = data[4 : 4 + size]
        data = data[4 + size + -size % 4 :]


def words_sum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packet_of(body: bytes) -> Seen:
    interface, high, low, size, original_size = struct.unpack_from("<IIIII", body)
    assert (interface, size) == (0, original_size)
    packet = body[20 : 20 + size]
    options = options_of(body[20 + size + -size % 4 :])
    assert list(options) == [2]
    direction = {1: INBOUND, 2: OUTBOUND}[struct.unpack("<I", options[2])[0]]
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45
        assert int.from_bytes(packet[2:4]) == size
        assert words_sum(packet[:20]) == 0xFFFF
        protocol, hosts, segment = packet[9], packet[12:20], packet[20:]
    else:
        assert packet[0] == 0x60
        assert int.from_bytes(packet[4:6]) == size - 40
        protocol, hosts, segment = packet[6], packet[8:40], packet[40:]
    assert protocol == 6
    assert words_sum(hosts + struct.pack(">II", len(segment), 6) + segment) == 0xFFFF
    source, target, sequence, acknowledged, offset, flags, window, _, urgent = struct.unpack_from(">HHIIBBHHH", segment)
    assert (window, urgent) == (0xFFFF, 0)
    head_size = offset >> 4 << 2
    assert head_size == (28 if flags & SYN else 20)
    half = len(hosts) // 2
    return Seen(
        direction,
        high << 32 | low,
        (str(ip_address(hosts[:half])), source),
        (str(ip_address(hosts[half:])), target),
        sequence,
        acknowledged,
        flags,
        segment[head_size:],
    )


def packets_of(path: Path) -> list[Seen]:
    """The packets of a file, whose head must be what ours is."""
    (section, head), (interface, description), *others = blocks_of(path.read_bytes())
    assert (section, interface) == (0x0A0D0D0A, 1)
    assert struct.unpack_from("<IHHq", head) == (0x1A2B3C4D, 1, 0, -1)
    assert b"passcodes" in options_of(head[16:])[1]
    assert options_of(head[16:])[4] == b"paygate-test"
    assert struct.unpack_from("<HHI", description) == (101, 0, 0)
    assert options_of(description[8:]) == {2: b"paygate-test", 9: b"\x09"}
    assert {kind for kind, _ in others} <= {6}
    return [packet_of(body) for _, body in others]


def story(path: Path) -> list[tuple[str, int, bytes]]:
    """Who did what, in order: direction, flags without ACK and PSH, bytes. Sequence numbers must be right."""
    expected: dict[str, int] = {}
    told = []
    for packet in packets_of(path):
        other = OUTBOUND if packet.direction == INBOUND else INBOUND
        if packet.flags & SYN:
            expected[packet.direction] = packet.sequence
        assert packet.sequence == expected[packet.direction]
        assert packet.acknowledged == (expected[other] if packet.flags & ACK else 0)
        grown = len(packet.payload) + bool(packet.flags & (SYN | FIN))
        expected[packet.direction] = (expected[packet.direction] + grown) % (1 << 32)
        told.append((packet.direction, packet.flags & ~(ACK | PSH), packet.payload))
    return told
