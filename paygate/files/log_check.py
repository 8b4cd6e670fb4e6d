"""Whether SQLite's write-ahead log has lost commits that were on disk (T32).

SQLite takes a frame whose checksum is wrong, and all behind it, for what a power cut left of a commit, and goes on
without them. That is right for the last commit only: each is synced before the next is begun. So a frame that follows a
commit, by its own checksum, says that this commit was on disk, and what SQLite passed over before it is damage. In
the last commit nothing tells the two apart. A disk keeps or loses whole sectors, so a power cut can make a frame look
like a commit's end if its header lies in two of them; such a one must be whole to say so.

With a log header whose checksum is wrong SQLite passes over the whole log. The header lies in one sector and is synced
before the first frame behind it is written, so a power cut leaves a wrong one only where there is no frame yet. A disk
that fails in the middle of writing it leaves one before frames that are all in the database by then, or the log would
not be begun anew. So commits whose pages the database does not have say that the header is damaged.
Layout: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">4s4xI4x8s8s")  # magic, page size, salts, checksum
_HEADER_SUMMED_SIZE: Final = 24
"""Bytes of the header that its checksum is over."""
_FRAME: Final = struct.Struct(">II8s8s")  # page number, size of the database behind a commit or 0, salts, checksum
_SUMMED_SIZE: Final = 8
"""Bytes of a frame's header that its checksum is over, with its page."""
_SECTOR_SIZE: Final = 512
"""Bytes that a disk writes wholly or not at all; no disk has smaller sectors."""
_BYTE_ORDERS: Final = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}
_NO_CHECKSUM: Final = bytes(8)
"""What a header's checksum goes on from."""

_Read = Callable[[int, int], bytes]


class _Frame(NamedTuple):
    page_number: int
    is_commit: bool
    salts: bytes
    """The header's when the frame was written: it has others each time that the log is begun anew."""
    checksum: bytes
    summed: bytes


def log_damage(
    read: _Read, size: int, kept_count: int, page_size: int, read_page: Callable[[int], bytes]
) -> str | None:
    """What is damaged before a commit that was on disk, such as `frame 3` or `its header`; None if nothing is.

    `read(size, offset)` gives bytes of a log of `size` bytes, of which SQLite keeps the first `kept_count` frames;
    `read_page` a page of the database, whose pages have `page_size` bytes.
    """
    if size < _HEADER.size:
        return None
    header = read(_HEADER.size, 0)
    magic, log_page_size, salts, checksum = _HEADER.unpack(header)
    order = _BYTE_ORDERS.get(magic)
    if order is None or checksum != _checksum(order, _NO_CHECKSUM, header[:_HEADER_SUMMED_SIZE]):
        commits = (_committed(read, size, page_size, header, order) for order in _BYTE_ORDERS.values())
        is_lost = any(page != read_page(number) for pages in commits for number, page in pages.items())
        return "its header" if is_lost else None
    number = _damaged_frame(_frames(read, size, log_page_size, kept_count), kept_count, order, salts, checksum)
    return None if number is None else f"frame {number}"


def _frames(read: _Read, size: int, page_size: int, first: int) -> Iterator[tuple[int, _Frame]]:
    """The frames from this one on, counted from 1, each with its offset."""
    frame_size = _FRAME.size + page_size
    for offset in range(_HEADER.size + (max(first, 1) - 1) * frame_size, size - frame_size + 1, frame_size):
        data = read(frame_size, offset)
        page_number, commit_size, salts, checksum = _FRAME.unpack_from(data)
        summed = data[:_SUMMED_SIZE] + data[_FRAME.size :]
        yield offset, _Frame(page_number, commit_size != 0, salts, checksum, summed)


def _committed(read: _Read, size: int, page_size: int, header: bytes, order: str) -> dict[int, bytes]:
    """The pages, by number, as the frames left them that were written last, whatever their header says.

    Each frame is whole by the checksum before it: the header's own, that which it should have, or a frame's.
    """
    befores = {header[_HEADER_SUMMED_SIZE:], _checksum(order, _NO_CHECKSUM, header[:_HEADER_SUMMED_SIZE])}
    salts = None
    pages: dict[int, bytes] = {}
    uncommitted: dict[int, bytes] = {}
    for _, frame in _frames(read, size, page_size, 1):
        if salts is not None and frame.salts != salts:
            break  # from before the log was begun anew
        # A frame of nothing but zeros has a checksum of zeros, and no page.
        if frame.page_number and frame.checksum in {_checksum(order, before, frame.summed) for before in befores}:
            salts = frame.salts
            uncommitted[frame.page_number] = frame.summed[_SUMMED_SIZE:]
            if frame.is_commit:
                pages |= uncommitted
                uncommitted = {}
        befores = {frame.checksum}
    return pages


def _damaged_frame(
    frames: Iterator[tuple[int, _Frame]], kept_count: int, order: str, salts: bytes, checksum: bytes
) -> int | None:
    """The number of a damaged frame; `frames` begin with the last that is kept, if any is."""
    if kept_count:
        checksum = next(frames)[1].checksum
    ends_commit = False  # whether the frame before was certainly written as a commit's end
    damaged = None
    for number, (offset, frame) in enumerate(frames, kept_count + 1):
        # Frames from before the log was begun anew are of no matter, and a checksum takes time.
        has_salts = frame.salts == salts
        is_whole = has_salts and _checksum(order, checksum, frame.summed) == frame.checksum
        if is_whole and damaged is not None and ends_commit:
            return damaged
        if not is_whole and damaged is None:
            damaged = number
        is_in_one_sector = offset % _SECTOR_SIZE <= _SECTOR_SIZE - _FRAME.size
        ends_commit = frame.is_commit and has_salts and (is_whole or is_in_one_sector)
        checksum = frame.checksum
    return None


def _checksum(order: str, before: bytes, data: bytes) -> bytes:
    """SQLite's, over 32-bit words in this byte order, going on from another."""
    first, second = struct.unpack(">2I", before)
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return struct.pack(">2I", first, second)
