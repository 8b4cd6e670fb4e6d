"""Reads the lines that others append to a file while we append blocks of our own to it."""

import fcntl
import os
import signal
from collections import deque
from dataclasses import dataclass, field

from paygate.files.block_sums import BlockSums

READ_SIZE = 1 << 20
TAIL_SIZE = 4096
"""Bytes before the reading position in which an edit is looked for when nobody but us seems to have written."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as somebody wrote it. It may hold a plain password, so `repr` doesn't show it."""

    number: int
    """Counted from 1; 0 if the line is no longer in the file that has the name."""
    offset: int | None
    """Where it begins, in bytes; None if it is no longer in the file that has the name."""
    raw: bytes = field(repr=False)
    """With its newline."""


class LineStream:
    """One file read from some place on, in whole lines, leaving out our own blocks.

    Leaving those out by their place (and not by looking for our lines) is what keeps a stranger's line whole
    when our block landed between two writes of his: what he wrote before it and after it is joined.
    """

    def __init__(self, fd: int, *, read_to: int = 0, line_count: int = 0) -> None:
        self.fd = fd
        """Open for reading; whoever made the stream closes it."""
        self.read_to = read_to
        """Offset of the first byte that is not yet read."""
        self.line_count = line_count
        self.unfinished = b""
        """The start of a line whose newline hasn't come yet."""
        self._own: deque[tuple[int, int]] = deque()
        self._sums = BlockSums()
        while self._sums.size < read_to and (data := os.pread(fd, READ_SIZE, self._sums.size)):
            self._sums.append(data[: read_to - self._sums.size])

    def leave_out(self, start: int, end: int) -> None:
        """Bytes from `start` up to `end` are ours."""
        if start >= self.read_to:  # or the file was cut meanwhile, and is read from its start anyway
            self._own.append((start, end))

    def read(self, limit: int) -> list[RawLine]:
        """The whole lines up to offset `limit`; comments and blank lines too. Raises OSError."""
        lines: list[RawLine] = []
        while self.read_to < limit:
            start, end = self._own[0] if self._own else (limit, limit)
            ours = start <= self.read_to
            stop = min(limit, self.read_to + READ_SIZE, end if ours else start)
            data = os.pread(self.fd, stop - self.read_to, self.read_to)
            if not data:
                break
            if ours:
                self.line_count += data.count(b"\n")
            else:
                self._split(data, lines)
            self.read_to += len(data)
            self._sums.append(data)
            if self._own and self.read_to >= self._own[0][1]:
                self._own.popleft()
        return lines

    def pass_over(self, data: bytes) -> None:
        """These bytes, whole lines, are what follows: their reader has dealt with them."""
        assert not self.unfinished
        self.line_count += data.count(b"\n")
        self.read_to += len(data)
        self._sums.append(data)

    def will_write_at(self, offset: int, old: bytes, new: bytes) -> None:
        """We are about to write `new` in place over `old`, which we just read, so `is_edited` is to expect it."""
        self._sums.change(offset, old, new)

    def is_edited(self, *, everywhere: bool) -> bool:
        """Whether what was read is no longer what it was: somebody edited in place. Raises OSError.

        Everywhere, all that was read is read again; else TAIL_SIZE bytes, where an edit that moved lines shows.
        """
        return self._sums.differ(self.fd, None if everywhere else TAIL_SIZE)

    def _split(self, data: bytes, lines: list[RawLine]) -> None:
        start = 0
        while end := data.find(b"\n", start) + 1:
            self.line_count += 1
            offset = self.read_to + start - len(self.unfinished)
            lines.append(RawLine(self.line_count, offset, self.unfinished + data[start:end]))
            self.unfinished = b""
            start = end
        self.unfinished += data[start:]


def has_writers(fd: int) -> bool:
    """Whether anybody may still have the file of this read-only descriptor open for writing.

    A read lease is given only when nobody has. True where the question can't be asked.
    """
    try:
        # If somebody opens the file just now, the system says so by a signal: one that is ignored by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return True
    return False
