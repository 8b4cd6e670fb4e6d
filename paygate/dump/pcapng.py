"""Reads pcapng files (draft-ietf-opsawg-pcapng), whole or damaged.

Blocks of kinds that hold no packets are skipped. A damaged block is a finding, and the reading goes on at the next
block that can be one.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from paygate.dump.model import NANOSECONDS_PER_SECOND, Direction, Finding, Packet
from paygate.dump.pcap import CAPTURE_DAMAGED, CAPTURE_TRUNCATED, PACKET_SIZE_MAX, SEARCH_SIZE_MAX, truncated
from paygate.dump.window import Window

MAGIC: Final = b"\x0a\x0d\x0d\x0a"
"""A section header's type, the same in both byte orders."""
BLOCK_SIZE_MAX: Final = 0x1000000
"""Bytes of a block that is skipped: 16 MiB, as in Wireshark. Blocks hold lists of names or keys; a larger size is
damage."""
READ_BLOCK_SIZE_MAX: Final = PACKET_SIZE_MAX + 0x40000
"""Bytes of a block that is read: the largest packet, and room for four comments of the largest size."""
INTERFACE_COUNT_MAX: Final = 1_024
"""Interfaces in one section: more than a machine has, and little memory."""

_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_KNOWN: Final = {_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, 4, 5, _ENHANCED_PACKET}
"""What is believed to be a block behind damage: those that every writer makes."""
_READ: Final = {_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET}
_HEAD_SIZE: Final = 12
"""Type, size and size again: the smallest block; also what a section header's byte order needs."""
_OPTION_TIME_RESOLUTION, _OPTION_TIME_OFFSET, _OPTION_PACKET_FLAGS = 9, 14, 2
_DIRECTIONS: Final = (Direction.UNKNOWN, Direction.INBOUND, Direction.OUTBOUND, Direction.UNKNOWN)


class _Interface(NamedTuple):
    number: int
    link_type: int
    snap_size: int
    multiplier: int
    divisor: int
    offset_ns: int
    """A packet's time in nanoseconds is its stamp * multiplier // divisor + offset_ns."""


class _Order:
    """How numbers are read in one byte order."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.word: Callable[[bytes, int], tuple[Any, ...]] = struct.Struct(order + "I").unpack_from
        self.head: Callable[[bytes, int], tuple[Any, ...]] = struct.Struct(order + "II").unpack_from
        self.enhanced: Callable[[bytes, int], tuple[Any, ...]] = struct.Struct(order + "IIIIIII").unpack_from
        """Type and size of the block, then interface, time (high, low), captured and original size."""
        self.old: Callable[[bytes, int], tuple[Any, ...]] = struct.Struct(order + "HHIIII").unpack_from
        self.option: Callable[[bytes, int], tuple[Any, ...]] = struct.Struct(order + "HH").unpack_from


_LITTLE: Final = _Order("<")
_ORDERS: Final = {b"\x4d\x3c\x2b\x1a": _LITTLE, b"\x1a\x2b\x3c\x4d": _Order(">")}


def read_pcapng(window: Window) -> Iterator[Packet | Finding]:
    """All packets of a file that begins with a section header; what is wrong with it are findings."""
    return _Reader(window).read()


class _Reader:
    def __init__(self, window: Window) -> None:
        self._window = window
        self._order = _LITTLE
        self._interfaces: list[_Interface] = []
        self._interface_count = 0
        self._number = 0
        self._has_ended = False
        self._readers: dict[int, Callable[[bytes], Packet | Finding | None]] = {
            _SECTION: self._read_section,
            _INTERFACE: self._read_interface,
            _OLD_PACKET: self._read_old_packet,
            _SIMPLE_PACKET: self._read_simple_packet,
            _ENHANCED_PACKET: self._read_enhanced_packet,
        }

    def read(self) -> Iterator[Packet | Finding]:
        window = self._window
        make = tuple.__new__  # what Packet(...) ends in; it takes a third of the time
        # This loop sees every packet, so it keeps the window's state in variables; `window.at` is right when it reads.
        data, at, end = window.data, window.at, len(window.data)
        while True:
            # The usual block: an enhanced packet, all there, without anything odd.
            order = self._order
            while at + 32 <= end:
                kind, size, interface_index, high, low, captured_size, original_size = order.enhanced(data, at)
                body, after = at + 28, at + size
                stop = body + captured_size
                if (
                    kind != _ENHANCED_PACKET
                    or after > end
                    or size & 3
                    or stop + 4 > after
                    or captured_size > PACKET_SIZE_MAX
                    or interface_index >= len(self._interfaces)
                    or order.word(data, after - 4)[0] != size
                ):
                    break
                direction = Direction.UNKNOWN
                if after - stop >= 12:  # as many as an option of four bytes and the size at the end take
                    direction = self._direction(data[stop : after - 4], -captured_size % 4)
                self._number += 1
                interface, link_type, _, multiplier, divisor, offset_ns = self._interfaces[interface_index]
                time_ns = (high << 32 | low) * multiplier // divisor + offset_ns
                yield make(
                    Packet,
                    (self._number, time_ns, interface, link_type, data[body:stop], original_size, direction),
                )
                at = after
            window.at = at
            if not window.need(_HEAD_SIZE):
                break
            yield from self._read_block()
            if self._has_ended:
                return
            data, at, end = window.data, window.at, len(window.data)
        if len(window.data) > window.at:
            yield truncated(window, "a block of at least 12 bytes", self._number)

    def _read_block(self) -> list[Packet | Finding]:
        """Read any block, and move behind it; where it can't be one, to the next that can."""
        window = self._window
        order = self._order_of(0)
        if order is None:
            magic = window.data[window.at + 8 : window.at + 12].hex(" ")
            return [self._lost(CAPTURE_DAMAGED, "the byte-order magic 1a 2b 3c 4d or 4d 3c 2b 1a", magic)]
        kind, size = order.head(window.data, window.at)
        size_max = READ_BLOCK_SIZE_MAX if kind in _READ else BLOCK_SIZE_MAX
        if size < _HEAD_SIZE or size & 3 or size > size_max:
            expected = f"a block size of 12 to {size_max}, a multiple of 4"
            return [self._lost(CAPTURE_DAMAGED, expected, str(size))]
        if size > READ_BLOCK_SIZE_MAX:
            return self._skip_large(size)
        if not window.need(size):
            there = len(window.data) - window.at
            got = f"{there} bytes, then the end of the input"
            return [self._lost(CAPTURE_TRUNCATED, f"a block of {size} bytes", got)]
        found: list[Packet | Finding] = []
        (size_again,) = order.word(window.data, window.at + size - 4)
        if size_again != size:
            expected, got = f"the block's size {size} again at its end", str(size_again)
            is_followed = self._is_plausible(size) or not window.need(size + 1)
            if not is_followed:
                return [self._lost(CAPTURE_DAMAGED, expected, got)]
            found.append(self._finding(CAPTURE_DAMAGED, expected, got))
        reader = self._readers.get(kind)
        if reader is not None:
            self._order = order
            # A copy, so that nothing that its numbers say leads out of it.
            read = reader(window.data[window.at : window.at + size - 4])
            if read is not None:
                found.append(read)
        window.at += size
        return found

    def _skip_large(self, size: int) -> list[Packet | Finding]:
        begin = self._window.offset
        if not self._window.skip(size - 4) or not self._window.need(4):
            self._has_ended = True
            got = f"{self._window.offset - begin} bytes, then the end of the input"
            return [self._finding(CAPTURE_TRUNCATED, f"a block of {size} bytes", got, offset=begin)]
        (size_again,) = self._order.word(self._window.data, self._window.at)
        if size_again != size:
            return [self._lost(CAPTURE_DAMAGED, f"the block's size {size} again at its end", str(size_again))]
        self._window.at += 4
        return []

    # -- blocks: each without the size at its end ----------------------------------------------------------

    def _read_section(self, block: bytes) -> Finding | None:
        self._interfaces = []
        if len(block) < 24:
            return self._finding(CAPTURE_DAMAGED, "a section header of at least 28 bytes", str(len(block) + 4))
        major, minor = self._order.option(block, 12)
        if major != 1:
            return self._finding(CAPTURE_DAMAGED, "version 1 of pcapng", f"{major}.{minor}")
        return None

    def _read_interface(self, block: bytes) -> Finding | None:
        if len(block) < 16:
            return self._finding(CAPTURE_DAMAGED, "an interface description of at least 20 bytes", str(len(block) + 4))
        if len(self._interfaces) >= INTERFACE_COUNT_MAX:
            return self._finding(CAPTURE_DAMAGED, f"at most {INTERFACE_COUNT_MAX} interfaces", "one more")
        link_type, _ = self._order.option(block, 8)
        (snap_size,) = self._order.word(block, 12)
        per_second, offset_s = 1_000_000, 0
        for code, value in self._options(block, 16):
            if code == _OPTION_TIME_RESOLUTION and len(value) == 1:
                per_second = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
            elif code == _OPTION_TIME_OFFSET and len(value) == 8:
                (offset_s,) = struct.unpack(self._order.order + "q", value)
        multiplier, rest = divmod(NANOSECONDS_PER_SECOND, per_second)
        divisor = 1
        if rest:
            multiplier, divisor = NANOSECONDS_PER_SECOND, per_second
        offset_ns = offset_s * NANOSECONDS_PER_SECOND
        self._interfaces.append(_Interface(self._interface_count, link_type, snap_size, multiplier, divisor, offset_ns))
        self._interface_count += 1
        return None

    def _read_enhanced_packet(self, block: bytes) -> Packet | Finding:
        if len(block) < 28:
            return self._finding(CAPTURE_DAMAGED, "an enhanced packet of at least 32 bytes", str(len(block) + 4))
        _, _, index, high, low, size, original_size = self._order.enhanced(block, 0)
        return self._packet(block, 28, index, high << 32 | low, size, original_size)

    def _read_old_packet(self, block: bytes) -> Packet | Finding:
        if len(block) < 28:
            return self._finding(CAPTURE_DAMAGED, "a packet block of at least 32 bytes", str(len(block) + 4))
        index, _, high, low, size, original_size = self._order.old(block, 8)
        return self._packet(block, 28, index, high << 32 | low, size, original_size)

    def _read_simple_packet(self, block: bytes) -> Packet | Finding:
        if len(block) < 12:
            return self._finding(CAPTURE_DAMAGED, "a simple packet of at least 16 bytes", str(len(block) + 4))
        (original_size,) = self._order.word(block, 8)
        # It is on the first interface, whose snap length says how much of it is there.
        snap_size = self._interfaces[0].snap_size if self._interfaces else 0
        size = min(original_size, snap_size or original_size, len(block) - 12)
        return self._packet(block, 12, 0, None, size, original_size)

    def _packet(
        self, block: bytes, body: int, index: int, stamp: int | None, size: int, original_size: int
    ) -> Packet | Finding:
        self._number += 1
        stop = body + size
        if size > PACKET_SIZE_MAX or stop > len(block):
            size_max = min(len(block) - body, PACKET_SIZE_MAX)
            return self._finding(CAPTURE_DAMAGED, f"a packet of at most {size_max} bytes", f"a size of {size}")
        if index >= len(self._interfaces):
            return self._finding(CAPTURE_DAMAGED, f"an interface below {len(self._interfaces)}", str(index))
        interface = self._interfaces[index]
        time_ns = None if stamp is None else stamp * interface.multiplier // interface.divisor + interface.offset_ns
        direction = Direction.UNKNOWN
        if stamp is not None:
            direction = self._direction(block, stop + -size % 4)
        data = block[body:stop]
        return Packet(self._number, time_ns, interface.number, interface.link_type, data, original_size, direction)

    def _direction(self, block: bytes, at: int) -> Direction:
        for code, value in self._options(block, at):
            if code == _OPTION_PACKET_FLAGS and len(value) == 4:
                return _DIRECTIONS[self._order.word(value, 0)[0] & 3]
        return Direction.UNKNOWN

    def _options(self, block: bytes, at: int) -> Iterator[tuple[int, bytes]]:
        while at + 4 <= len(block):
            code, size = self._order.option(block, at)
            stop = at + 4 + size
            if code == 0 or stop > len(block):
                return
            yield code, block[at + 4 : stop]
            at = stop + -size % 4

    # -- damage ---------------------------------------------------------------------------------------------

    def _lost(self, name: str, expected: str, got: str) -> Finding:
        """What stands here is no block: look for the next one. The finding says how far that was."""
        window = self._window
        offset = window.offset
        for distance in range(1, SEARCH_SIZE_MAX):
            if not window.need(distance + _HEAD_SIZE):
                break
            if self._is_plausible(distance):
                window.at += distance
                return self._finding(name, expected, f"{got}; the next block is {distance} bytes later", offset=offset)
        self._has_ended = True
        return self._finding(name, expected, f"{got}; no block found behind it", offset=offset)

    def _is_plausible(self, distance: int) -> bool:
        """Whether a block may begin there: of a kind that every writer makes, with the same size at both ends."""
        window = self._window
        if not window.need(distance + _HEAD_SIZE):
            return False
        kind, size = self._order.head(window.data, window.at + distance)
        if kind not in _KNOWN:
            return False
        order = self._order_of(distance)
        if order is None:
            return False
        kind, size = order.head(window.data, window.at + distance)
        if size < _HEAD_SIZE or size & 3 or size > READ_BLOCK_SIZE_MAX or not window.need(distance + size):
            return False
        return bool(order.word(window.data, window.at + distance + size - 4)[0] == size)

    def _order_of(self, distance: int) -> _Order | None:
        """The byte order of the block there: a section header has its own; None if that is none."""
        at = self._window.at + distance
        if self._window.data[at : at + 4] != MAGIC:
            return self._order
        return _ORDERS.get(self._window.data[at + 8 : at + 12])

    def _finding(self, name: str, expected: str, got: str, *, offset: int | None = None) -> Finding:
        at = self._window.offset if offset is None else offset
        return Finding(name, expected, got, "", self._number, None, offset=at)
