"""Checksums of the part of a file that was read, to find out whether somebody edited it in place."""

import os
from typing import Final
from zlib import crc32

BLOCK_SIZE: Final = 4096
"""Bytes under one checksum: little to read again for a change of our own, and 1 % of the file in memory."""
_READ_SIZE: Final = 1 << 20


class BlockSums:
    """One CRC-32 for each block. Against accidents and people in a hurry; whoever may write the file needs no trick."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the file that are under a checksum."""
        self._sums: list[int] = []

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

    def change(self, fd: int, offset: int, data: bytes) -> None:
        """We are about to write these bytes in place. Raises OSError.

        A block that somebody edited before keeps its old checksum, so the edit is still found.
        """
        end = min(offset + len(data), self.size)
        if end <= offset:
            return
        for start in range(offset // BLOCK_SIZE * BLOCK_SIZE, end, BLOCK_SIZE):
            index = start // BLOCK_SIZE
            block = bytearray(os.pread(fd, min(BLOCK_SIZE, self.size - start), start))
            if crc32(block) != self._sums[index]:
                continue
            low, high = max(offset, start), min(end, start + len(block))
            block[low - start : high - start] = data[low - offset : high - offset]
            self._sums[index] = crc32(block)

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
