"""Writes captures of TCP connections, and reads what tshark says of them.

The file is classic pcap with raw IPv4 packets: a header of 24 bytes, then each packet behind one of 16.
"""

import json
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_LINK_TYPE_RAW_IP: Final = 101
_SNAP_SIZE: Final = 0x40000
_LOOPBACK: Final = bytes([127, 0, 0, 1])
_PUSH_ACK: Final = 0x18
_SEGMENT_SIZES: Final = (1, 3, 19, 20, 21, 60, 300, 1_460, 1_460, 8_000)
"""Bytes; around a header's 20, and so large that a segment holds many frames."""


@dataclass
class Capture:
    """Packets in the order in which they are added; they are numbered from 1, as tshark does."""

    packets: list[bytes] = field(default_factory=list)
    _sent: dict[tuple[int, int], int] = field(default_factory=dict)

    def send(self, from_port: int, to_port: int, data: bytes, *, captured_size: int | None = None) -> int:
        """Add one TCP segment and return its number; the capture holds all of its data, or `captured_size` bytes."""
        sequence = self._sent.get((from_port, to_port), 1)
        acknowledged = self._sent.get((to_port, from_port), 1)
        self._sent[from_port, to_port] = sequence + len(data)
        number = len(self.packets) + 1
        tcp = struct.pack(">HHIIBBHHH", from_port, to_port, sequence, acknowledged, 5 << 4, _PUSH_ACK, 0xFFFF, 0, 0)
        size = 20 + len(tcp) + len(data)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, number & 0xFFFF, 0, 64, 6, 0, _LOOPBACK, _LOOPBACK)
        kept = (ip + tcp + data)[: 40 + captured_size if captured_size is not None else size]
        head = struct.pack("<IIII", number // 1_000, number % 1_000 * 1_000, len(kept), size)
        self.packets.append(head + kept)
        return number

    def send_split(self, from_port: int, to_port: int, frames: list[bytes], rng: random.Random) -> list[int]:
        """Send frames one after the other in segments cut at random; return the packet that ends each frame."""
        stream = b"".join(frames)
        ends, end = [], 0
        for frame in frames:
            end += len(frame)
            ends.append(end)
        numbers: list[int] = []
        at = 0
        while at < len(stream):
            size = rng.choice(_SEGMENT_SIZES)
            number = self.send(from_port, to_port, stream[at : at + size])
            at += size
            numbers += [number] * (sum(e <= at for e in ends) - len(numbers))
        return numbers

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAP_SIZE, _LINK_TYPE_RAW_IP)
        path.write_bytes(head + b"".join(self.packets))
        return path


@dataclass
class Dissected:
    """One frame as tshark showed it."""

    number: int
    """The packet that it was shown in: the one that holds its last byte."""
    fields: list[tuple[str, str]] = field(default_factory=list)
    """Name and value of everything that is shown, in order, down to the innermost fields."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """The expert items: name and text."""

    def value(self, name: str) -> str:
        """The value of a field that is shown once."""
        (found,) = [v for n, v in self.fields if n == name]
        return found


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its entries: tshark repeats a name where a packet holds a field twice."""


def dissected(printed: str) -> list[Dissected]:
    """Every paygate frame in the output of `tshark -T json -J paygate`, in order."""
    found = []
    for number, packet in enumerate(json.loads(printed, object_pairs_hook=_Pairs), start=1):
        layers = dict(dict(packet)["_source"])["layers"]
        for name, layer in layers:
            if name == "paygate" and isinstance(layer, _Pairs):
                shown = Dissected(number)
                _collect(layer, shown)
                found.append(shown)
    return found


def _collect(entries: _Pairs, shown: Dissected) -> None:
    for name, value in entries:
        if name == "_ws.expert":
            item = dict(value)
            (fault,) = [n for n in item if n.startswith("paygate.")]
            shown.faults.append((fault.removeprefix("paygate.expert."), item["_ws.expert.message"]))
        elif isinstance(value, _Pairs):
            _collect(value, shown)
        elif name != "_ws.malformed":  # Wireshark's own word beside such an expert item
            shown.fields.append((name, value))
