"""A text file that only this server adds to: LogFiles.txt, GatewayTransaction.txt, TransactionID.txt.

It is not what recovery trusts, so nothing is fsynced when lines are added.
"""

import contextlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from paygate.files.durable import WRITE_SIZE, replace_file, write_all
from paygate.files.file_errors import check_regular, file_named, names_its_file
from paygate.files.in_place import ChangingColumns, RowChange
from paygate.files.layout import FieldProblem, Layout, LineProblem


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it was read."""

    line_number: int
    """Counted from 1."""
    offset: int
    """Where its line begins, in bytes; what `AppendFile.update` takes."""
    fields: tuple[str, ...]


class AppendFile:
    """A log of rows. Rows go in at the end; fields of a row may be filled in later, in place.

    Every OSError names the file.
    """

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Opens the file, making it with its header if there is none. Raises OSError."""
        self.layout = layout
        self.path = directory / layout.file_name
        self._open()

    @names_its_file
    def append(self, rows: Iterable[Sequence[str]]) -> list[int]:
        """Adds all rows of a tick with one write; gives the offset of each.

        Raises OSError (a full disk, say), and then none of the rows is in the file; ValueError as
        `Layout.format` does.
        """
        lines = self.layout.format_all(list(rows))
        if not lines:
            return []
        self._append(b"".join(lines))
        # With O_APPEND the system chose the place, and the descriptor's position now tells it.
        end = self._size = os.lseek(self._append_fd, 0, os.SEEK_CUR)
        *offsets, _ = accumulate(map(len, lines), initial=end - sum(map(len, lines)))
        return offsets

    @names_its_file
    def update(self, columns: ChangingColumns, changes: Iterable[RowChange]) -> set[int]:
        """Changes columns of rows in place; gives the offsets at which the row is not there any more.

        Then the file was edited or replaced. Raises OSError; ValueError if a text is wider than its column.
        """
        # Not through the O_APPEND descriptor: Linux appends there, whatever offset pwrite is given.
        return columns.apply(self._write_fd, self._write_fd, changes)

    @names_its_file
    def check(self) -> bool:
        """True if the file was removed, replaced or cut since the last call; it is open again then.

        Offsets got earlier are stale after that, and `update` notices. Costs one stat; meant for once a
        second, so rows that are added in between go to the file that somebody moved away.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            status = None
        if status and (status.st_dev, status.st_ino) == self._identity and status.st_size >= self._size:
            return False
        self.close()
        self._open()
        return True

    def rows(self, on_problem: Callable[[LineProblem], None] = lambda _: None) -> Iterator[Row]:
        """Every record in the file; lines that are none go to `on_problem`."""
        for number, offset, line in self.lines():
            try:
                yield Row(number, offset, self.layout.parse(line))
            except FieldProblem as bad:
                on_problem(self.layout.problem(number, bad))

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, offset and bytes of every line that is no comment, as it is; without its newline."""
        number, offset, rest = 0, 0, b""
        while data := self._read_at(offset + len(rest)):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                number += 1
                if line.strip() and not line.lstrip().startswith(b"#"):
                    yield number, offset, line
                offset += len(line) + 1

    @names_its_file
    def rewrite(self, rows: Iterable[Sequence[str]]) -> Sequence[int]:
        """Rebuilds the file in one step, from the database for instance; gives the offset of each row.

        A crash leaves the old file or the new one, whole. Raises as `append` does.
        """
        offsets = array("Q")

        def chunks() -> Iterator[bytes]:
            yield self.layout.header
            offset = len(self.layout.header)
            for _, line in self.layout.formatted(rows):
                offsets.append(offset)
                offset += len(line)
                yield line

        replace_file(self.path, chunks())
        self.close()
        self._open()
        return offsets

    def close(self) -> None:
        """Closes the descriptors; everything was written long ago."""
        os.close(self._append_fd)
        os.close(self._write_fd)

    def _read_at(self, offset: int) -> bytes:
        with file_named(self.path):
            return os.pread(self._write_fd, WRITE_SIZE, offset)

    @names_its_file
    def _open(self) -> None:
        check_regular(self.path)
        self._append_fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._write_fd = os.open(self.path, os.O_RDWR)
        except OSError:
            os.close(self._append_fd)
            raise
        status = os.fstat(self._append_fd)
        self._identity = (status.st_dev, status.st_ino)
        self._size = status.st_size
        if self._size == 0:
            self._append(self.layout.header)
        elif os.pread(self._write_fd, 1, self._size - 1) != b"\n":
            # A row that a crash cut short stays a line of its own, so that the next row is whole.
            self._append(b"\n")
        self._size = os.fstat(self._append_fd).st_size

    def _append(self, data: bytes) -> None:
        start = os.fstat(self._append_fd).st_size
        try:
            write_all(self._append_fd, data)
        except OSError:
            # Half a row would spoil the next one. Nobody else adds to this file, so the end is ours.
            with contextlib.suppress(OSError):
                os.ftruncate(self._append_fd, start)
            raise
