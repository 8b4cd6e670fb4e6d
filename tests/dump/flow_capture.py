"""One flow's bytes, gaps and notes, and what the frames' step makes of them: for the tests of that step."""

import struct
import zlib
from collections.abc import Iterable
from typing import Final

from builders import example

from paygate.codec.codes import Kind
from paygate.codec.frame import encode_frame
from paygate.dump.frames import FrameReader
from paygate.dump.model import (
    Endpoint,
    Finding,
    Flow,
    FlowKind,
    Item,
    SeenFrame,
    Side,
    StreamData,
    StreamEvent,
    StreamGap,
    StreamNote,
)

PORT: Final = 15_000
OTHER_PORT: Final = 40_001


class Capture:
    """One flow's items in order, and what the reader makes of them."""

    def __init__(
        self,
        *,
        port: int = PORT,
        kind: FlowKind = FlowKind.TCP,
        knows_sides: bool = True,
        link_keys: tuple[bytes, ...] = (),
        reader: FrameReader | None = None,
    ) -> None:
        self.flow = Flow(1, kind, Endpoint("10.0.0.1", 50_000), Endpoint("10.0.0.2", port), knows_sides)
        self.reader = reader or FrameReader(ports=frozenset({PORT}), link_keys=link_keys)
        self.offsets = [0, 0]
        self.number = 0
        self.items: list[Item] = []

    def send(self, data: bytes, side: Side = Side.CALLER) -> "Capture":
        """The next packet."""
        self.number += 1
        item = StreamData(self.flow, side, self.offsets[side], data, 1_000 * self.number, self.number)
        self.offsets[side] += len(data)
        self.items += self.reader.receive(item)
        return self

    def lose(self, size: int, side: Side = Side.CALLER) -> "Capture":
        """Bytes that the capture lacks."""
        self.number += 1
        self.items += self.reader.receive(
            StreamGap(self.flow, side, self.offsets[side], size, 1_000 * self.number, self.number)
        )
        self.offsets[side] += size
        return self

    def note(self, event: StreamEvent, side: Side = Side.CALLER, *, size: int = 0) -> "Capture":
        self.number += 1
        self.items += self.reader.receive(
            StreamNote(self.flow, side, event, self.offsets[side], size, 1_000 * self.number, self.number)
        )
        return self

    def end(self) -> "Capture":
        """The input's end."""
        self.items += self.reader.finish()
        return self

    @property
    def frames(self) -> list[SeenFrame]:
        return [item for item in self.items if isinstance(item, SeenFrame)]

    @property
    def findings(self) -> list[Finding]:
        """Those that come by themselves, and those of frames."""
        found: list[Finding] = []
        for item in self.items:
            if isinstance(item, SeenFrame):
                found += item.findings
            elif isinstance(item, Finding):
                found.append(item)
        return found

    @property
    def skipped(self) -> list[tuple[int, int]]:
        """Offset and size of each region that was no frame."""
        return [
            (item.offset, item.size)
            for item in self.items
            if isinstance(item, StreamNote) and item.event is StreamEvent.SKIPPED
        ]

    def seen(self) -> list[bytes]:
        return [frame.data for frame in self.frames]


def frame_of(kind: Kind, correlation_id: int = 7) -> bytes:
    return encode_frame(example(kind), correlation_id)


def frame_around(kind: int, body: bytes) -> bytes:
    """A frame with a right checksum around any body, by `struct` and not by the code under test."""
    header = struct.pack(">2sBBHHQ", b"PG", 1, kind, 0, len(body), 7)
    return header + struct.pack(">I", zlib.crc32(header + body)) + body


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def told(items: Iterable[Item]) -> list[tuple[object, ...]]:
    """What was told, without objects: for comparisons."""
    rows: list[tuple[object, ...]] = []
    for item in items:
        if isinstance(item, SeenFrame):
            names = tuple(finding.name for finding in item.findings)
            rows.append(("frame", item.index, item.side, item.offset, item.time_ns, item.number, item.data, names))
        elif isinstance(item, Finding):
            rows.append((item.name, item.expected, item.got, item.section, item.offset, item.path, item.frame_offset))
        else:
            rows.append((item.event, item.side, item.offset, item.size))
    return rows


BEFORE: Final = frame_of(Kind.ECHO, 1)
AFTER: Final = [frame_of(Kind.BANK_KEYS_QUERY, 2), frame_of(Kind.TOKEN_QUERY, 3), frame_of(Kind.ECHO, 4)]
