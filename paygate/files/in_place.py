"""Changes some columns of rows where they stand: every payment does it, so it is to cost little.

Each row is read right before it is written and must be the one that is meant, since people may have edited the file:
nothing is ever written into somebody's line. Rows that stand side by side are read with one call and written with one.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Final, TypeAlias

from paygate.files.layout import ROW_SIZE_MAX, Layout, is_plain

RUN_COUNT_MAX: Final = 256
"""Rows side by side that are changed at once."""
TOGETHER_COUNT_MIN: Final = 6
"""Rows side by side of which it costs less to look at all together than at each. Measured."""


def _untold(_offset: int, _old: bytes, _new: bytes) -> None:
    """Nobody wants to be told."""


RowChange: TypeAlias = tuple[int, str, Sequence[str]]
"""One row that is to say something else: where it begins, in bytes; its first field, without which it is not changed;
and what the changing columns are to say, in their order."""


class ChangingColumns:
    """Some columns of a layout that change together, with their places in a row that is as wide as the layout."""

    def __init__(self, layout: Layout, *names: str) -> None:
        """`names` in the layout's order. The first column is never among them: it is the key."""
        self.layout = layout
        self.names = names
        columns = layout.columns
        indexes = [[column.name for column in columns].index(name) for name in names]
        assert indexes == sorted(indexes), "in the layout's order"
        assert indexes[0] > 0, "the first column is the key, and a key is never changed"
        starts = list(accumulate((column.width + 3 for column in columns), initial=0))
        self._row_size = starts[-1] - 2  # the last separator is a newline
        self._key_size = starts[1]
        self._key_template = f"%-{columns[0].width}s | "
        self._bar_count = len(columns) - 1
        self._bar_places = [start - 2 for start in starts[1:-1]]
        self._bars = itemgetter(*self._bar_places)
        self._bars_there = self._bars(layout.format([""] * len(columns)))
        self._low, self._high = starts[indexes[0]], starts[indexes[-1] + 1] - 3
        self._cells_template = "".join(columns[index].template for index in indexes)
        cells = list(accumulate((columns[index].width for index in indexes), initial=0))
        self._cells_size = cells[-1]
        # Where each is in a row, and where among the cells.
        self._places = [
            (starts[index], starts[index + 1] - 3, low, high)
            for index, (low, high) in zip(indexes, pairwise(cells), strict=True)
        ]

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
        are_plain = is_plain([text for _, _, texts in ordered for text in texts])
        missing: set[int] = set()
        for run in self._runs(ordered):
            start = run[0][0]
            old = os.pread(read_fd, len(run) * self._row_size, start)
            new = self._changed(old, run) if are_plain else None
            if new is not None:
                start += self._low
                will_write(start, old[self._low : self._low + len(new)], new)
                if os.pwrite(write_fd, new, start) == len(new):
                    continue
            for change in run:
                if not self._write_with_care(read_fd, write_fd, change, will_write):
                    missing.add(change[0])
        return missing

    def _runs(self, ordered: Sequence[RowChange]) -> Iterator[Sequence[RowChange]]:
        """Changes of rows that stand side by side."""
        run: list[RowChange] = []
        end = -1
        for change in ordered:
            if run and (change[0] != end or len(run) == RUN_COUNT_MAX):
                yield run
                run = []
            run.append(change)
            end = change[0] + self._row_size
        if run:
            yield run

    def _changed(self, data: bytes, run: Sequence[RowChange]) -> bytes | None:
        """The rows of a run from the first changed cell to the last one, as they are to be.

        None if one of them isn't exactly as wide as the layout.
        """
        count, size = len(run), self._row_size
        cells = self._cells_for_all(data, run) if count >= TOGETHER_COUNT_MIN else self._cells_for_each(data, run)
        if cells is None:
            return None
        if count == len(self._places) == 1:
            return cells
        pieces: list[bytes] = []
        start, cells_start, end = 0, 0, self._low
        for _ in range(count):
            for low, high, cell_low, cell_high in self._places:
                pieces += (data[end : start + low], cells[cells_start + cell_low : cells_start + cell_high])
                end = start + high
            start += size
            cells_start += self._cells_size
        return b"".join(pieces)

    def _cells_for_each(self, data: bytes, run: Sequence[RowChange]) -> bytes | None:
        """What the changing cells of all rows are to say; None if `_cells_for` says so of one."""
        if len(run) == 1:  # Mostly, where there are many rows.
            return self._cells_for(data, run[0])
        cells = b""
        for start, change in zip(range(0, len(run) * self._row_size, self._row_size), run, strict=True):
            one = self._cells_for(data[start : start + self._row_size], change)
            if one is None:
                return None
            cells += one
        return cells

    def _cells_for(self, row: bytes, change: RowChange) -> bytes | None:
        """What the changing cells are to say, padded; None if this isn't their row, exactly as wide as the layout."""
        _, key, texts = change
        cells = (self._cells_template % tuple(texts)).encode()
        if (
            row.find(b"\n") != self._row_size - 1
            or row[: self._key_size] != (self._key_template % key).encode()
            or row.count(b"|") != self._bar_count
            or self._bars(row) != self._bars_there
            or len(cells) != self._cells_size
        ):
            return None
        return cells

    def _cells_for_all(self, data: bytes, run: Sequence[RowChange]) -> bytes | None:
        """`_cells_for_each` for many rows, at less cost for each: what is asked of a row is asked of all at once."""
        count, size, key_size = len(run), self._row_size, self._key_size
        cells = (self._cells_template * count % tuple([text for _, _, texts in run for text in texts])).encode()
        keys = (self._key_template * count % tuple([key for _, key, _ in run])).encode()
        # No key and no cell is shorter than its column, so if all together have their size, each has.
        if (
            len(data) != count * size
            or len(cells) != count * self._cells_size
            or len(keys) != count * key_size
            or data.count(b"\n") != count
            or data[size - 1 :: size] != b"\n" * count
            or data.count(b"|") != count * self._bar_count
            or any(data[at::size] != b"|" * count for at in self._bar_places)
            or b"".join([data[start : start + key_size] for start in range(0, len(data), size)]) != keys
        ):
            return None
        return cells

    def _write_with_care(
        self, read_fd: int, write_fd: int, change: RowChange, will_write: Callable[[int, bytes, bytes], None]
    ) -> bool:
        """A row that may be as wide as it likes; False if it isn't there or has no room."""
        offset, key, texts = change
        old = os.pread(read_fd, ROW_SIZE_MAX, offset)
        new = self.layout.change(old, key, dict(zip(self.names, texts, strict=True)))
        if new is None:
            return False
        will_write(offset, old[: len(new)], new)
        return os.pwrite(write_fd, new, offset) == len(new)
