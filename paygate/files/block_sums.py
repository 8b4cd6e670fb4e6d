"""Checksums of the part of a file that was read, to find out whether somebody edited it in place."""

import os
from array import array
from typing import Final
from zlib import crc32

BLOCK_SIZE: Final = 1024
"""Bytes under one checksum: a change of our own costs what is behind it in its block, and 4 bytes of memory a block."""
_READ_SIZE: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK_SIZE)
_ZERO_SUMS: Final = tuple(crc32(_ZEROS[:size]) for size in range(BLOCK_SIZE + 1))


class BlockSums:
    """One CRC-32 for each block. Against accidents and people in a hurry; whoever may write the file needs no trick."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the file that are under a checksum."""
        self._sums = array("I")

    def append(self, data: bytes) -> None:
        """These bytes follow."""
        start = 0
        while start < len(data):
            used = self.size % BLOCK_SIZE
            part = data[start : start + BLOCK_SIZE - used]
            if used:
                self._sums[-1] = crc32(part, self._sums[-1])
            else:
                self._sums.append(crc32(part))
            self.size += len(part)
            start += len(part)

    def change(self, offset: int, old: bytes, new: bytes) -> None:
        """We are about to write `new` in place over `old`, which is as long and was just read there.

        A block that somebody edited before keeps a checksum that it doesn't have, so the edit is still found: CRC is
        linear, so what our own bytes change of it is known without the block's other bytes.
        """
        index = offset // BLOCK_SIZE
        behind = (index + 1) * BLOCK_SIZE - offset - len(old)
        if behind >= 0 and index < self.size // BLOCK_SIZE:
            self._change(index, behind, old, new)
            return
        end = min(offset + len(old), self.size)
        if offset >= end:
            return
        for start in range(index * BLOCK_SIZE, end, BLOCK_SIZE):
            block_end = min(start + BLOCK_SIZE, self.size)
            part = slice(max(start - offset, 0), min(block_end, end) - offset)
            self._change(start // BLOCK_SIZE, max(block_end - end, 0), old[part], new[part])

    def _change(self, index: int, behind: int, old: bytes, new: bytes) -> None:
        # Carried over the bytes behind it in the block, whatever they are: their difference is zeros.
        self._sums[index] ^= crc32(_ZEROS[:behind], crc32(old) ^ crc32(new)) ^ _ZERO_SUMS[behind]

    def differ(self, fd: int, tail_size: int | None = None) -> bool:
        """Whether the file says something else now; only its last blocks with `tail_size` (bytes). Raises OSError."""
        first = 0 if tail_size is None else max(0, self.size - tail_size) // BLOCK_SIZE * BLOCK_SIZE
        for start in range(first, self.size, _READ_SIZE):
            size = min(_READ_SIZE, self.size - start)
            data = os.pread(fd, size, start)
            if len(data) < size:
                return True
            for offset in range(0, size, BLOCK_SIZE):
                if crc32(data[offset : offset + BLOCK_SIZE]) != self._sums[(start + offset) // BLOCK_SIZE]:
                    return True
        return False
