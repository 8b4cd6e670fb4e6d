"""Containers and link types: the packets and segments are those that tshark reads from the same file.

tshark is right in all of these.
"""

import gzip
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from dump.builders import ETHERNET, Captured, pcap_bytes, pcapng_bytes
from dump.reading import packets_in
from dump.test_packets import LINKS, LONG, LONG_SEGMENT, V4, V6, as_ipv4, as_ipv6, cut
from outside_tools import unavailable

from paygate.dump.model import Segment
from paygate.dump.packets import Decapsulator

FIELDS: Final = ("frame.number", "frame.time_epoch", "frame.cap_len", "frame.len")
TCP_FIELDS: Final = ("tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.payload")
UNKNOWN_TO_TSHARK: Final = "Ethernet, QinQ of a few switches"
LEFT_OUT: Final = {"raw IP of BSD", "raw IP of OpenBSD", "IPv4 or IPv6 by link type", UNKNOWN_TO_TSHARK}
"""Link types that Linux numbers otherwise, what `test_packets` only needs as a placeholder, and tags 0x9200, 0x9300."""


def told_by_tshark(data: bytes, tmp_path: Path) -> list[list[str]]:
    if shutil.which("tshark") is None:
        unavailable("tshark is missing")
    path = tmp_path / "capture"
    path.write_bytes(data)
    options = [option for name in (*FIELDS, *TCP_FIELDS) for option in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *options]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def told_by_us(data: bytes) -> list[list[str]]:
    decapsulator = Decapsulator(count(1))
    rows = []
    for packet in packets_in(data):
        second, rest_ns = divmod(packet.time_ns or 0, 1_000_000_000)
        row = [str(packet.number), f"{second}.{rest_ns:09}", str(len(packet.data)), str(packet.original_size)]
        found = decapsulator.receive_packet(packet)
        if isinstance(found, Segment):
            size = len(found.payload) + found.lost_size
            ports = str(found.source.port), str(found.target.port)
            row += [*ports, str(found.sequence), str(found.acknowledged), str(size), found.payload.hex()]
        rows.append(row + [""] * (len(FIELDS) + len(TCP_FIELDS) - len(row)))
    return rows


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_nanosecond", [False, True])
def test_pcap_is_read_as_tshark_reads_it(order: str, is_nanosecond: bool, tmp_path: Path) -> None:
    packets: list[bytes | Captured] = [
        Captured(V4, 1_767_225_600_123_456_789),
        V6,
        Captured(V4[:50], original_size=len(V4)),
    ]
    data = pcap_bytes(packets, order=order, is_nanosecond=is_nanosecond)
    told = told_by_tshark(gzip.compress(data) if is_nanosecond else data, tmp_path)
    assert len(told) == 3
    assert told_by_us(data) == told


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("resolution", [None, 0x80 | 20])
def test_pcapng_is_read_as_tshark_reads_it(order: str, resolution: int | None, tmp_path: Path) -> None:
    wraps = [LINKS["Ethernet"], LINKS["Linux SLL2"], LINKS["raw IP"]]
    packets = [Captured(wraps[n % 3][1](V6 if n % 2 else V4), interface=n % 3, direction=n % 3) for n in range(6)]
    kinds = [link_type for link_type, _ in wraps]
    data = pcapng_bytes(packets, link_types=kinds, order=order, resolution=resolution)
    data += pcapng_bytes([LINKS["Ethernet"][1](V4)], link_types=(ETHERNET,), order="<>"[order == "<"])
    told = told_by_tshark(data, tmp_path)
    assert len(told) == 7
    assert told_by_us(data) == told


def test_link_layers_are_taken_off_as_tshark_does(tmp_path: Path) -> None:
    layers = [layer for name, layer in LINKS.items() if name not in LEFT_OUT]
    packets = [Captured(wrap(ip), interface=n) for n, (_, wrap) in enumerate(layers) for ip in (V4, V6)]
    data = pcapng_bytes(packets, link_types=[link_type for link_type, _ in layers])
    told = told_by_tshark(data, tmp_path)
    assert [row[4] for row in told] == ["40000"] * len(packets)
    assert told_by_us(data) == told


def test_vlan_tags_of_a_few_switches_are_taken_off_where_tshark_stops(tmp_path: Path) -> None:
    link_type, wrap = LINKS[UNKNOWN_TO_TSHARK]
    data = pcapng_bytes([wrap(V4)], link_types=[link_type])
    assert [row[4] for row in told_by_tshark(data, tmp_path)] == [""]
    assert [row[4] for row in told_by_us(data)] == ["40000"]


@pytest.mark.parametrize("build", [as_ipv4, as_ipv6])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 0, 1]])
def test_fragments_are_put_together_as_tshark_does(build: object, order: list[int], tmp_path: Path) -> None:
    assert callable(build)
    pieces = cut(LONG_SEGMENT, [64, 256])
    data = pcap_bytes([build(pieces[n]) for n in order])
    told = told_by_tshark(data, tmp_path)
    assert [row[-1] for row in told] == [""] * (len(order) - 1) + [LONG.hex()]
    assert told_by_us(data) == told
