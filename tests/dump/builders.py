"""Builds captures byte by byte, from the published formats: TCP and IP packets, link layers, pcap and pcapng files.

Checksums are left at 0: no reader in these tests checks them, since captures at a sender hold those of before offload.
"""

import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

ETHERNET, NULL, RAW, LOOP, SLL, USER0, IPV4, IPV6, SLL2 = 1, 0, 101, 108, 113, 147, 228, 229, 276
"""LINKTYPE numbers."""

CLIENT: Final = ("127.0.0.1", 40_000)
SERVER: Final = ("127.0.0.1", 15_000)
BEGIN_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: the time of a capture's first packet; the next ones come a millisecond apart."""
STEP_NS: Final = 1_000_000

SECTION_HEADER, INTERFACE, OLD_PACKET, SIMPLE_PACKET, NAME_RESOLUTION, STATISTICS, ENHANCED_PACKET = (
    0x0A0D0D0A, 1, 2, 3, 4, 5, 6,
)  # fmt: skip
"""Types of pcapng's blocks."""


class Captured(NamedTuple):
    """A packet for a capture file; what is None is filled in."""

    data: bytes
    time_ns: int | None = None
    original_size: int | None = None
    interface: int = 0
    direction: int = 0
    """pcapng's: 1 in, 2 out."""


# -- TCP/IP ----------------------------------------------------------------------------------------------


def tcp_packet(
    payload: bytes = b"",
    *,
    source: tuple[str, int] = CLIENT,
    target: tuple[str, int] = SERVER,
    sequence: int = 1,
    acknowledged: int = 1,
    flags: int = PSH | ACK,
    options: bytes = b"",
) -> bytes:
    """One TCP segment in an IPv4 or IPv6 packet (link type RAW), by its addresses."""
    segment = tcp_segment(
        payload,
        source_port=source[1],
        target_port=target[1],
        sequence=sequence,
        acknowledged=acknowledged,
        flags=flags,
        options=options,
    )
    build = ipv6 if ":" in source[0] else ipv4
    return build(segment, source=source[0], target=target[0])


def tcp_segment(
    payload: bytes = b"",
    *,
    source_port: int = CLIENT[1],
    target_port: int = SERVER[1],
    sequence: int = 1,
    acknowledged: int = 1,
    flags: int = PSH | ACK,
    options: bytes = b"",
) -> bytes:
    """A TCP header and its payload (RFC 9293 3.1); options are filled up to whole words."""
    options += bytes(-len(options) % 4)
    offset = (20 + len(options)) // 4
    return (
        struct.pack(
            ">HHIIBBHHH", source_port, target_port, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, offset << 4,
            flags, 0xFFFF, 0, 0,
        )
        + options
        + payload
    )  # fmt: skip


def ipv4(
    payload: bytes,
    *,
    source: str = CLIENT[0],
    target: str = SERVER[0],
    protocol: int = 6,
    identification: int = 0,
    fragment_offset: int = 0,
    more_fragments: bool = False,
    options: bytes = b"",
    total_size: int | None = None,
) -> bytes:
    """An IPv4 packet (RFC 791 3.1); `fragment_offset` in bytes."""
    options += bytes(-len(options) % 4)
    size = 20 + len(options)
    return (
        struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | size // 4,
            0,
            (size + len(payload) if total_size is None else total_size) & 0xFFFF,
            identification,
            more_fragments << 13 | fragment_offset // 8,
            64,
            protocol,
            0,
            ip_address(source).packed,
            ip_address(target).packed,
        )
        + options
        + payload
    )


def ipv6(
    payload: bytes, *, source: str = "::1", target: str = "::1", next_header: int = 6, payload_size: int | None = None
) -> bytes:
    """An IPv6 packet (RFC 8200 3); extension headers are part of `payload`."""
    size = len(payload) if payload_size is None else payload_size
    return (
        struct.pack(">IHBB", 6 << 28, size & 0xFFFF, next_header, 64)
        + ip_address(source).packed
        + ip_address(target).packed
        + payload
    )


def ipv6_extension(next_header: int, payload: bytes, *, size: int = 8) -> bytes:
    """A hop-by-hop, routing or destination header of `size` bytes, padded (RFC 8200 4.3), with `payload` behind it."""
    return bytes([next_header, size // 8 - 1, 1, size - 4]) + bytes(size - 4) + payload


def ipv6_fragment(
    next_header: int, payload: bytes, *, identification: int, fragment_offset: int, more_fragments: bool
) -> bytes:
    """A fragment header (RFC 8200 4.5) with `payload` behind it; `fragment_offset` in bytes."""
    return struct.pack(">BBHI", next_header, 0, fragment_offset | more_fragments, identification) + payload


def ipv6_authentication(next_header: int, payload: bytes) -> bytes:
    """An authentication header of 24 bytes (RFC 4302 2) with `payload` behind it."""
    return struct.pack(">BBHII", next_header, 4, 0, 1, 1) + bytes(12) + payload


# -- Link layers -----------------------------------------------------------------------------------------


def ether_type(packet: bytes) -> int:
    """What an IP packet is, by its version."""
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def vlan_tagged(packet: bytes, tags: Sequence[int]) -> tuple[int, bytes]:
    """The EtherType and the payload of a frame whose tags have these EtherTypes, outermost first."""
    kind, payload = ether_type(packet), packet
    for number, tag in enumerate(reversed(tags)):
        payload = struct.pack(">HH", 100 + number, kind) + payload
        kind = tag
    return kind, payload


def ethernet(packet: bytes, *, tags: Sequence[int] = (), size_min: int = 0) -> bytes:
    """An Ethernet frame, filled up to `size_min` (60 on a cable)."""
    kind, payload = vlan_tagged(packet, tags)
    return (bytes.fromhex("0200000000020200000000 01") + struct.pack(">H", kind) + payload).ljust(size_min, b"\xee")


def linux_sll(packet: bytes, *, tags: Sequence[int] = ()) -> bytes:
    """LINKTYPE_LINUX_SLL."""
    kind, payload = vlan_tagged(packet, tags)
    return struct.pack(">HHH8sH", 0, 772, 6, bytes(8), kind) + payload


def linux_sll2(packet: bytes, *, tags: Sequence[int] = ()) -> bytes:
    """LINKTYPE_LINUX_SLL2."""
    kind, payload = vlan_tagged(packet, tags)
    return struct.pack(">HHIHBB8s", kind, 0, 1, 772, 0, 6, bytes(8)) + payload


def bsd_null(packet: bytes, *, order: str = "<", family: int | None = None) -> bytes:
    """LINKTYPE_NULL; `order` is that of the machine that captured, for LOOP it is ">"."""
    if family is None:
        family = 30 if packet[0] >> 4 == 6 else 2
    return struct.pack(order + "I", family) + packet


# -- Files -----------------------------------------------------------------------------------------------


def captured(packets: Iterable[bytes | Captured]) -> list[Captured]:
    """The packets with everything filled in."""
    found = []
    for number, packet in enumerate(packets):
        p = packet if isinstance(packet, Captured) else Captured(packet)
        found.append(
            p._replace(
                time_ns=BEGIN_NS + number * STEP_NS if p.time_ns is None else p.time_ns,
                original_size=len(p.data) if p.original_size is None else p.original_size,
            )
        )
    return found


def pcap_bytes(
    packets: Iterable[bytes | Captured], *, link_type: int = RAW, order: str = "<", is_nanosecond: bool = False
) -> bytes:
    """A pcap file (draft-ietf-opsawg-pcap), in byte order "<" or ">"."""
    unit_ns = 1 if is_nanosecond else 1_000
    parts = [
        struct.pack(order + "IHHiIII", 0xA1B23C4D if is_nanosecond else 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, link_type)
    ]
    for p in captured(packets):
        second, rest_ns = divmod(p.time_ns or 0, 1_000_000_000)
        parts += [struct.pack(order + "IIII", second, rest_ns // unit_ns, len(p.data), p.original_size), p.data]
    return b"".join(parts)


def pcapng_bytes(
    packets: Iterable[bytes | Captured],
    *,
    link_types: Sequence[int] = (RAW,),
    order: str = "<",
    resolution: int | None = 9,
) -> bytes:
    """A pcapng section (draft-ietf-opsawg-pcapng) of enhanced packets, one interface for each link type.

    `resolution` is if_tsresol: a power of ten, or 0x80 and a power of two; None leaves it out (microseconds).
    """
    options = b"" if resolution is None else pcapng_option(9, bytes([resolution]), order=order)
    parts = [pcapng_section(order=order)]
    parts += [pcapng_interface(link_type, options, order=order) for link_type in link_types]
    parts += [enhanced_packet(p, order=order, resolution=resolution) for p in captured(packets)]
    return b"".join(parts)


def pcapng_block(kind: int, body: bytes, *, order: str = "<") -> bytes:
    """A block around `body`, which is filled up to whole words."""
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def pcapng_option(code: int, value: bytes, *, order: str = "<") -> bytes:
    """One option, filled up to whole words."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def pcapng_section(options: bytes = b"", *, order: str = "<") -> bytes:
    """A section header block."""
    return pcapng_block(SECTION_HEADER, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options, order=order)


def pcapng_interface(link_type: int, options: bytes = b"", *, order: str = "<", snap_size: int = 0) -> bytes:
    """An interface description block."""
    return pcapng_block(INTERFACE, struct.pack(order + "HHI", link_type, 0, snap_size) + options, order=order)


def enhanced_packet(packet: Captured, *, order: str = "<", resolution: int | None = 9) -> bytes:
    """An enhanced packet block, with epb_flags if the packet has a direction."""
    stamp = ticks(packet.time_ns or 0, resolution)
    head = struct.pack(
        order + "IIIII", packet.interface, stamp >> 32, stamp & 0xFFFFFFFF, len(packet.data), packet.original_size
    )
    options = b""
    if packet.direction:
        options = pcapng_option(2, struct.pack(order + "I", packet.direction), order=order) + bytes(4)
    data = packet.data + bytes(-len(packet.data) % 4)
    return pcapng_block(ENHANCED_PACKET, head + data + options, order=order)


def ticks(time_ns: int, resolution: int | None) -> int:
    """A time in units of if_tsresol."""
    exponent = 6 if resolution is None else resolution & 0x7F
    base = 2 if resolution is not None and resolution & 0x80 else 10
    return time_ns * int(base**exponent) // 1_000_000_000
