"""Bytes of one direction that came before their turn: kept apart, in order, each byte once.

Strategy: pieces never overlap, and what a segment brings anew is one piece, so that a search is a bisection and a
repeated piece is compared as a whole. A segment costs at most what it holds and what it makes disappear: nothing is
joined to its neighbours, or many small segments would copy a large piece again and again.
"""

from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

PIECE_COST: Final = 128
"""What a piece takes beside its bytes: two objects and their places in two lists. So a byte a piece is bounded too."""


class Repeat(NamedTuple):
    """Bytes that had come before, in one segment."""

    offset: int
    """Of the first of them, in the stream."""
    size: int
    """How many they are; there may be new ones in between."""
    differs_offset: int
    """Of the first one that came before as another byte."""
    differs_size: int
    """From that to the last one; 0 if all are the same."""


NO_REPEAT: Final = Repeat(0, 0, 0, 0)


def repeat(offset: int, first: bytes | bytearray, again: bytes) -> Repeat:
    """Compare bytes that came twice, of one size, from `offset` on."""
    if first == again:
        return Repeat(offset, len(again), 0, 0)
    # As numbers, since a loop over bytes takes a hundred times as long.
    difference = int.from_bytes(first) ^ int.from_bytes(again)
    begin = len(again) - (difference.bit_length() + 7) // 8
    end = len(again) - ((difference & -difference).bit_length() - 1) // 8
    return Repeat(offset, len(again), offset + begin, end - begin)


def both(one: Repeat, two: Repeat) -> Repeat:
    """Two repeats of the same segment, as one."""
    if not one.size or not two.size:
        return one if one.size else two
    differing = [r for r in (one, two) if r.differs_size]
    differs_offset = min((r.differs_offset for r in differing), default=0)
    differs_end = max((r.differs_offset + r.differs_size for r in differing), default=0)
    return Repeat(min(one.offset, two.offset), one.size + two.size, differs_offset, differs_end - differs_offset)


class HeldBytes:
    """Pieces of a stream, by their offsets."""

    __slots__ = ("_pieces", "cost", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        """Where each piece begins, ascending; not for others to change."""
        self.cost = 0
        """What the pieces take, in bytes."""
        self._pieces: list[bytes] = []

    @property
    def end(self) -> int:
        """Where the last piece ends; there must be one."""
        return self.starts[-1] + len(self._pieces[-1])

    def insert(self, start: int, data: bytes) -> Repeat:
        """Add bytes; those that are held already stay as they are. Returns what was repeated."""
        starts, pieces = self.starts, self._pieces
        repeated = NO_REPEAT
        at = bisect_right(starts, start)
        if at:
            before = pieces[at - 1]
            skipped = start - starts[at - 1]
            common = min(len(before) - skipped, len(data))
            if common > 0:
                repeated = repeat(start, before[skipped : skipped + common], data[:common])
                start += common
                data = data[common:]
        last = bisect_left(starts, start + len(data), at)
        if last > at:
            data, repeated = self._lay_over(at, last, start, data, repeated)
        if data:
            self.cost += len(data) + PIECE_COST
            starts.insert(at, start)
            pieces.insert(at, data)
        return repeated

    def _lay_over(self, at: int, last: int, start: int, data: bytes, repeated: Repeat) -> tuple[bytes, Repeat]:
        """Pieces `at` to `last` begin within `data`: those that end in it become part of it."""
        starts, pieces = self.starts, self._pieces
        merged = bytearray(data)
        end = start + len(data)
        for index in range(at, last):
            piece = pieces[index]
            skipped = starts[index] - start
            again = data[skipped : skipped + len(piece)]
            repeated = both(repeated, repeat(starts[index], piece[: len(again)], again))
            if starts[index] + len(piece) > end:
                del merged[skipped:]  # The last one stays, and ends what is new.
                last = index
            else:
                merged[skipped : skipped + len(piece)] = piece
        self._remove(at, last)
        return bytes(merged), repeated

    def take(self, start: int) -> list[bytes]:
        """Remove and return the pieces that follow each other from `start` on."""
        starts, pieces = self.starts, self._pieces
        count = 0
        while count < len(starts) and starts[count] == start:
            start += len(pieces[count])
            count += 1
        taken = pieces[:count]
        self._remove(0, count)
        return taken

    def move(self, by: int) -> None:
        """Count offsets from another place; what is then before 0 is removed."""
        self.starts = [start + by for start in self.starts]
        count = bisect_left(self.starts, 0)
        tail = b""
        if count:
            tail = self._pieces[count - 1][-self.starts[count - 1] :]
        self._remove(0, count)
        if tail:
            self.insert(0, tail)

    def _remove(self, begin: int, end: int) -> None:
        if begin < end:
            self.cost -= sum(map(len, self._pieces[begin:end])) + PIECE_COST * (end - begin)
            del self.starts[begin:end], self._pieces[begin:end]
