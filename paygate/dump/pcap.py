"""Reads pcap files (draft-ietf-opsawg-pcap), whole or damaged."""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from paygate.dump.model import NANOSECONDS_PER_SECOND, Direction, Finding, Packet
from paygate.dump.window import Window

MAGICS: Final[dict[bytes, tuple[str, int]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
"""The first four bytes: the byte order, and the unit of the times' second half in nanoseconds."""

PACKET_SIZE_MAX: Final = 0x40000
"""Bytes captured of one packet: what tcpdump and Wireshark hold for possible. A larger size is damage."""
SEARCH_SIZE_MAX: Final = 0x80000
"""Bytes behind a damaged record that are searched for the next one: the largest packet twice over, so that no one
record's damage is the end."""
SEARCH_TIME_S: Final = 86_400
"""How far in time a record may be from the one before the damage, to be believed: a day, since captures have pauses,
and random bytes are seldom that close."""

CAPTURE_TRUNCATED: Final = "CAPTURE_TRUNCATED"
CAPTURE_DAMAGED: Final = "CAPTURE_DAMAGED"

_FILE_HEAD_SIZE: Final = 24
_HEAD_SIZE: Final = 16
_UNKNOWN: Final = Direction.UNKNOWN


def read_pcap(window: Window) -> Iterator[Packet | Finding]:
    """All packets of a file whose magic stands at the window's beginning; what is wrong with it are findings."""
    order, unit_ns = MAGICS[window.data[window.at : window.at + 4]]
    if not window.need(_FILE_HEAD_SIZE):
        yield truncated(window, "a file header of 24 bytes", 0)
        return
    # The upper half holds the size of the frame check sequence; IP's own length leaves that out.
    (link_type,) = struct.unpack_from(order + "I", window.data, window.at + 20)
    link_type &= 0xFFFF
    window.at += _FILE_HEAD_SIZE

    unpack_head = struct.Struct(order + "IIII").unpack_from
    parts_max = NANOSECONDS_PER_SECOND // unit_ns
    make = tuple.__new__  # what Packet(...) ends in; it takes a third of the time
    number = 0
    time_min, time_max = 0, -1  # so that the first record is looked at closely, which sets them
    # This loop sees every packet, so it keeps the window's state in variables; `window.at` is right when it reads.
    data, at, end = window.data, window.at, len(window.data)
    while True:
        body = at + _HEAD_SIZE
        if body > end:
            window.at = at
            is_there = window.need(_HEAD_SIZE)
            data, at, end = window.data, window.at, len(window.data)
            if not is_there:
                break
            body = at + _HEAD_SIZE
        second, part, size, original_size = unpack_head(data, at)
        stop = body + size
        if stop > end or size > original_size or part >= parts_max or not time_min <= second <= time_max:
            window.at = at
            # Of the first record nothing is known but what it says itself.
            near_second = second if time_max < 0 else time_max - SEARCH_TIME_S
            doubtful = _DoubtfulRecord(window, unpack_head, parts_max, near_second)
            fault = doubtful.fault()
            if fault is not None:
                offset = window.offset
                has_next = doubtful.find_next()
                yield _finding(fault, offset, window.offset - offset if has_next else None, number)
                if not has_next:
                    return
            data, at, end = window.data, window.at, len(window.data)
            body = at + _HEAD_SIZE
            second, part, size, original_size = unpack_head(data, at)
            stop = body + size
            time_min, time_max = second - SEARCH_TIME_S, second + SEARCH_TIME_S
        number += 1
        yield make(
            Packet,
            (number, second * 1_000_000_000 + part * unit_ns, 0, link_type, data[body:stop], original_size, _UNKNOWN),
        )
        at = stop
    if at < end:
        yield truncated(window, "a packet's header of 16 bytes", number)


def truncated(window: Window, expected: str, number: int) -> Finding:
    """The input ends within what was expected at the window's beginning, behind packet `number`."""
    got = f"{len(window.data) - window.at} bytes, then the end of the input"
    return Finding(CAPTURE_TRUNCATED, expected, got, "", number, None, offset=window.offset)


class _Fault(NamedTuple):
    name: str
    expected: str
    got: str


def _finding(fault: _Fault, offset: int, skipped_size: int | None, number: int) -> Finding:
    then = "no packet found behind it" if skipped_size is None else f"the next packet is {skipped_size} bytes later"
    return Finding(fault.name, fault.expected, f"{fault.got}; {then}", "", number, None, offset=offset)


class _DoubtfulRecord:
    """A packet's record at the window's beginning that can't be what it says, or that ends behind the input's end."""

    def __init__(
        self,
        window: Window,
        unpack_head: Callable[[bytes, int], tuple[int, ...]],
        parts_max: int,
        near_second: int,
    ) -> None:
        self._window = window
        self._unpack_head = unpack_head
        self._parts_max = parts_max
        self._near_second = near_second

    def fault(self) -> _Fault | None:
        """What is wrong with it; None if it only had to be read, or is odd but whole."""
        window = self._window
        second, part, size, original_size = self._unpack_head(window.data, window.at)
        if size > PACKET_SIZE_MAX:
            return _Fault(CAPTURE_DAMAGED, f"a packet of at most {PACKET_SIZE_MAX} bytes", f"a size of {size}")
        if not window.need(_HEAD_SIZE + size):
            there = len(window.data) - window.at - _HEAD_SIZE
            return _Fault(CAPTURE_TRUNCATED, f"a packet of {size} bytes", f"{there} bytes, then the end of the input")
        is_near = abs(second - self._near_second) <= SEARCH_TIME_S
        if is_near and part < self._parts_max and size <= original_size:
            return None
        # A capture may have a long pause, and some writers get times or original sizes wrong; whether another record
        # follows tells that from damage.
        if size and self._is_followed(_HEAD_SIZE + size, second):
            return None
        if not is_near:
            expected = f"a time within {SEARCH_TIME_S} s of the packet before, or another packet behind it"
            return _Fault(CAPTURE_DAMAGED, expected, f"{second - self._near_second} s")
        if part >= self._parts_max:
            return _Fault(CAPTURE_DAMAGED, f"a part of a second below {self._parts_max}", str(part))
        return _Fault(CAPTURE_DAMAGED, f"an original size of at least the {size} bytes captured", str(original_size))

    def find_next(self) -> bool:
        """Move the window to the next record that can be one, and is followed by another or the input's end."""
        window = self._window
        for distance in range(1, SEARCH_SIZE_MAX):
            if not window.need(distance + _HEAD_SIZE):
                break
            if self._is_plausible(distance):
                second, _, size, _ = self._unpack_head(window.data, window.at + distance)
                if self._is_followed(distance + _HEAD_SIZE + size, second):
                    window.at += distance
                    return True
        return False

    def _is_plausible(self, distance: int, near_second: int | None = None) -> bool:
        second, part, size, original_size = self._unpack_head(self._window.data, self._window.at + distance)
        return (
            0 < size <= original_size
            and size <= PACKET_SIZE_MAX
            and part < self._parts_max
            and (
                abs(second - self._near_second) <= SEARCH_TIME_S
                or (near_second is not None and abs(second - near_second) <= SEARCH_TIME_S)
            )
        )

    def _is_followed(self, distance: int, second: int) -> bool:
        """Whether a record near in time to one of `second`, or the input's end, is there."""
        if self._window.need(distance + _HEAD_SIZE):
            return self._is_plausible(distance, second)
        return len(self._window.data) - self._window.at == distance
