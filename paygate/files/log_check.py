"""Whether SQLite's write-ahead log has lost commits that were on disk (T32).

SQLite takes a frame whose checksum is wrong, and all behind it, for what a power cut left of a commit, and goes on
without them. That is right for the last commit only: each is synced before the next is begun. So a frame that follows a
commit, by its own checksum, says that this commit was on disk, and what SQLite passed over before it is damage. In
the last commit nothing tells the two apart. A disk keeps or loses whole sectors, so a power cut can make a frame look
like a commit's end if its header lies in two of them; such a one must be whole to say so. Layout: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">4s4xI4x8s8s")  # magic, page size, salts, checksum
_FRAME: Final = struct.Struct(">4xI8s8s")  # size of the database behind a commit or 0, salts, checksum
_SUMMED_SIZE: Final = 8
"""Bytes of a frame's header that its checksum is over, with its page."""
_SECTOR_SIZE: Final = 512
"""Bytes that a disk writes wholly or not at all; no disk has smaller sectors."""
_BYTE_ORDERS: Final = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}


class _Frame(NamedTuple):
    is_commit: bool
    has_salts: bool
    """Whether it was written since the log was last begun anew."""
    checksum: bytes
    summed: bytes


def damaged_frame(read: Callable[[int, int], bytes], size: int, kept_count: int) -> int | None:
    """The number (from 1) of a frame that is not what was written, before a commit that was on disk; None if none is.

    `read(size, offset)` gives bytes of a log of `size` bytes, of which SQLite keeps the first `kept_count` frames.
    """
    if size < _HEADER.size:
        return None
    magic, page_size, salts, checksum = _HEADER.unpack(read(_HEADER.size, 0))
    if magic not in _BYTE_ORDERS or not page_size:
        return None
    order = _BYTE_ORDERS[magic]

    def frame(number: int) -> _Frame:
        data = read(frame_size, _HEADER.size + (number - 1) * frame_size)
        commit_size, frame_salts, frame_checksum = _FRAME.unpack_from(data)
        return _Frame(commit_size != 0, frame_salts == salts, frame_checksum, data[:_SUMMED_SIZE] + data[_FRAME.size :])

    frame_size = _FRAME.size + page_size
    before = _Frame(False, True, checksum, b"") if kept_count == 0 else frame(kept_count)
    ends_commit = False  # whether the frame before was certainly written as a commit's end
    damaged = None
    for number in range(kept_count + 1, (size - _HEADER.size) // frame_size + 1):
        this = frame(number)
        # Frames from before the log was begun anew are of no matter, and a checksum takes time.
        is_whole = this.has_salts and _checksum(order, before.checksum, this.summed) == this.checksum
        if is_whole and damaged is not None and ends_commit:
            return damaged
        if not is_whole and damaged is None:
            damaged = number
        is_in_one_sector = (_HEADER.size + (number - 1) * frame_size) % _SECTOR_SIZE <= _SECTOR_SIZE - _FRAME.size
        ends_commit = this.is_commit and this.has_salts and (is_whole or is_in_one_sector)
        before = this
    return None


def _checksum(order: str, before: bytes, data: bytes) -> bytes:
    """SQLite's, over 32-bit words in this byte order, going on from another."""
    first, second = struct.unpack(">2I", before)
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return struct.pack(">2I", first, second)
