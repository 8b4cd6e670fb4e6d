"""Bytes of one direction that came before their turn: kept apart, in order, each byte once, with its packet.

Strategy: pieces never overlap, and what a segment brings anew is one piece, so that a search is a bisection and a
repeated piece is compared as a whole. A segment costs at most what it holds and what it makes disappear: nothing is
joined to its neighbours, or many small segments would copy a large piece again and again.
"""

from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

PIECE_COST: Final = 256
"""What a piece takes beside its bytes: three objects, what they hold, and their places in three lists. So a byte a
piece is bounded too."""


class At(NamedTuple):
    """The packet that caused something."""

    time_ns: int | None
    number: int


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

    __slots__ = ("_pieces", "_received", "cost", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        """Where each piece begins, ascending; not for others to change."""
        self.cost = 0
        """What the pieces take, in bytes."""
        self._pieces: list[bytes] = []
        self._received: list[At] = []
        """The packet that each piece came in."""

    @property
    def end(self) -> int:
        """Where the last piece ends; there must be one."""
        return self.starts[-1] + len(self._pieces[-1])

    def insert(self, start: int, data: bytes, received: At) -> Repeat:
        """Add a packet's bytes; those that are held already stay as they are. Returns what was repeated."""
        starts, pieces = self.starts, self._pieces
        repeated = NO_REPEAT
        place, end = start, start + len(data)
        index = bisect_right(starts, start)
        if index and starts[index - 1] + len(pieces[index - 1]) > start:
            index -= 1
        # Pieces with nothing new before them owe this packet nothing: they stay apart, with the packet they came in.
        while place < end and index < len(starts) and starts[index] <= place:
            known = pieces[index][place - starts[index] : end - starts[index]]
            again = data[place - start : place - start + len(known)]
            repeated = both(repeated, repeat(place, known, again))
            place += len(known)
            index += 1
        data = data[place - start :]
        last = bisect_left(starts, end, index)
        if last > index:
            data, repeated = self._lay_over(index, last, place, data, repeated)
        if data:
            self.cost += len(data) + PIECE_COST
            starts.insert(index, place)
            pieces.insert(index, data)
            self._received.insert(index, received)
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

    def take(self, start: int) -> list[tuple[bytes, At]]:
        """Remove and return the pieces that follow each other from `start` on, and the packet that each came in."""
        starts, pieces = self.starts, self._pieces
        count = 0
        while count < len(starts) and starts[count] == start:
            start += len(pieces[count])
            count += 1
        taken = list(zip(pieces[:count], self._received, strict=False))
        self._remove(0, count)
        return taken

    def move(self, by: int) -> None:
        """Count offsets from another place; what is then before 0 is removed."""
        self.starts = [start + by for start in self.starts]
        count = bisect_left(self.starts, 0)
        if not count:
            return
        tail, received = self._pieces[count - 1][-self.starts[count - 1] :], self._received[count - 1]
        self._remove(0, count)
        if tail:
            self.insert(0, tail, received)

    def _remove(self, begin: int, end: int) -> None:
        if begin < end:
            self.cost -= sum(map(len, self._pieces[begin:end])) + PIECE_COST * (end - begin)
            del self.starts[begin:end], self._pieces[begin:end], self._received[begin:end]
