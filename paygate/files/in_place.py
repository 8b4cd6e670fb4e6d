"""Changes some columns of rows where they stand: every payment does it, so it is to cost little.

Each row is read right before it is written and must be the one that is meant, since people may have edited the file:
nothing is ever written into somebody's line. Rows that stand side by side are read with one call and written with one.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from paygate.escape import escape_field
from paygate.files.layout import ROW_SIZE_MAX, Column, Layout

RUN_SIZE_MAX: Final = 1 << 16
"""Bytes of rows side by side that are changed at once."""
_BAR: Final = ord("|")


def _untold(_offset: int, _old: bytes, _new: bytes) -> None:
    """Nobody wants to be told."""


class RowChange(NamedTuple):
    """One row that is to say something else."""

    offset: int
    """Where it begins, in bytes."""
    key: str
    """Its first field; if that is not there, the row is not changed."""
    texts: Sequence[str]
    """What its columns are to say, in the order of `ChangingColumns.names`."""


class ChangingColumns:
    """Some columns of a layout that change together, with their places in a row that is as wide as the layout."""

    def __init__(self, layout: Layout, *names: str) -> None:
        """`names` in the layout's order. The first column is never among them: it is the key."""
        self.layout = layout
        self.names = names
        columns = layout.columns
        starts = [sum(column.width + 3 for column in columns[:index]) for index in range(len(columns))]
        indexes = [[column.name for column in columns].index(name) for name in names]
        assert indexes == sorted(indexes), "in the layout's order"
        assert indexes[0] > 0, "the first column is the key, and a key is never changed"
        self._columns = [columns[index] for index in indexes]
        self._row_size = starts[-1] + columns[-1].width + 1
        self._key_size = starts[1]
        self._key_template = f"%-{columns[0].width}s | "
        self._bar_count = len(columns) - 1
        self._cells = [slice(starts[index], starts[index] + columns[index].width) for index in indexes]
        bars = {place for cell in self._cells for place in (cell.start - 2, cell.stop + 1)}
        self._bars = sorted(place for place in bars if place < self._row_size)
        # What is kept: before, between and behind the cells.
        edges = [0, *(edge for cell in self._cells for edge in (cell.start, cell.stop)), self._row_size]
        self._kept = [slice(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True)]

    def apply(
        self,
        read_fd: int,
        write_fd: int,
        changes: Iterable[RowChange],
        will_write: Callable[[int, bytes, bytes], None] = _untold,
    ) -> set[int]:
        """Make these changes; gives the offsets at which the row was not there, or had no room.

        `will_write(offset, old, new)` is told of every write before it. Raises OSError; ValueError if a text is wider
        than its column.
        """
        ordered = sorted(changes)
        missing: set[int] = set()
        index = 0
        while index < len(ordered):
            first = index
            start = end = ordered[index].offset
            while index < len(ordered) and ordered[index].offset == end and end - start < RUN_SIZE_MAX:
                end += self._row_size
                index += 1
            run = ordered[first:index]
            old = os.pread(read_fd, end - start, start)
            new = self._changed(old, run)
            if new is not None:
                low, high = self._cells[0].start, len(new) - (self._row_size - self._cells[-1].stop)
                will_write(start + low, old[low:high], new[low:high])
                if os.pwrite(write_fd, new[low:high], start + low) == high - low:
                    continue
            missing.update(c.offset for c in run if not self._apply_to_any(read_fd, write_fd, c, will_write))
        return missing

    def _changed(self, data: bytes, run: Sequence[RowChange]) -> bytes | None:
        """The rows of a run with the changes in them; None if one isn't exactly as the layout has it."""
        pieces: list[bytes] = []
        start = 0
        for change in run:
            row = data[start : start + self._row_size]
            start += self._row_size
            if (
                row[: self._key_size] != (self._key_template % change.key).encode()
                or row.find(b"\n") != self._row_size - 1
                or row.count(b"|") != self._bar_count
            ):
                return None
            for bar in self._bars:
                if row[bar] != _BAR:
                    return None
            for kept, column, text in zip(self._kept, self._columns, change.texts, strict=False):
                cell = self._cell(column, text)
                if len(cell) != column.width:  # it has characters of more than one byte
                    return None
                pieces += (row[kept], cell)
            pieces.append(row[self._kept[-1]])
        return b"".join(pieces)

    def _cell(self, column: Column, text: str) -> bytes:
        text = escape_field(text)
        width = column.width
        if len(text) > width:
            raise ValueError(f"{self.layout.file_name}: {len(text)} characters for column {column.name}")
        return (text.rjust(width) if column.align == "right" else text.ljust(width)).encode()

    def _apply_to_any(
        self, read_fd: int, write_fd: int, change: RowChange, will_write: Callable[[int, bytes, bytes], None]
    ) -> bool:
        """A row that may be as wide as it likes; False if it isn't there or has no room."""
        old = os.pread(read_fd, ROW_SIZE_MAX, change.offset)
        new = self.layout.change(old, change.key, dict(zip(self.names, change.texts, strict=True)))
        if new is None:
            return False
        will_write(change.offset, old[: len(new)], new)
        return os.pwrite(write_fd, new, change.offset) == len(new)
