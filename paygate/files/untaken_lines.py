"""What a rewrite of a shared file must keep: lines that nobody took in, and the comments of people (R13, R16, R17).

Among them are last lines without their end, as the comment `# unfinished: `, which nothing that others append can run
into. See `shared_file.py` for what becomes of them.
"""

from collections.abc import Iterable
from typing import Final

from paygate.files.layout import LINE, FieldProblem, Layout, LineProblem
from paygate.files.line_stream import RawLine
from paygate.files.own_writes import TAKEN_IN

UNFINISHED_POLL_COUNT: Final = 3
"""Polls after which a last line without newline is reported: a program between two writes is faster."""

LEFT: Final = b"# Lines that could not be used, and comments:\n"
"""Our own comment above them in a file that was built anew."""
_UNFINISHED: Final = b"# unfinished: "


class UntakenLines:
    """Each line as it was given, and as it is now: its place is None while it is in no file that has the name."""

    def __init__(self, layout: Layout) -> None:
        """`layout`: of the file, whose own header is no comment of anybody's."""
        self.told_unfinished = b""
        """The last line without its end that people were told of."""
        self._layout = layout
        self._header_lines = {line.strip() for line in layout.header.splitlines()} | {LEFT.strip()}
        self._places: dict[RawLine, RawLine] = {}
        self._ages: dict[bytes, int] = {}
        """For how many polls an unfinished line has been a comment."""

    def sort_out(self, lines: Iterable[RawLine]) -> list[RawLine]:
        """Remembers what a rewrite must keep, and gives the lines that hold records."""
        records = []
        for line in lines:
            text = line.raw.strip()
            if text and text not in self._header_lines and text not in (TAKEN_IN, b"#"):
                self._places[line] = line
                if not text.startswith(b"#"):
                    records.append(line)
        return records

    def take(self, lines: Iterable[RawLine]) -> tuple[list[RawLine], bool]:
        """These are taken in now: where they stand, and whether all were known.

        One that isn't was given before the file was replaced; the same text, elsewhere now, is taken in with it.
        """
        lines = list(lines)
        strays = {line.raw for line in lines if line not in self._places}
        places = [self._places.pop(line) for line in lines if line in self._places]
        if strays:
            self._places = {line: place for line, place in self._places.items() if line.raw not in strays}
        return places, not strays

    def number_of(self, line: RawLine) -> int:
        """Where a line that was given is now, counted from 1; 0 if it isn't known to be in the file any more."""
        place = self._places.get(line)
        return 0 if place is None else place.number

    # -- of files that were replaced -------------------------------------------------------------------

    @property
    def are_all_in_file(self) -> bool:
        """Whether each has its place in the file that has the name."""
        return all(place.offset is not None for place in self._places.values())

    def to_keep(self) -> list[RawLine]:
        """What nobody took in, once each where a replaced file has it too."""
        here = {place.raw for place in self._places.values() if place.offset is not None}
        return [line for line, place in self._places.items() if place.offset is not None or place.raw not in here]

    def only_elsewhere(self) -> list[bytes]:
        """Those of `to_keep` that have no place in the file that has the name."""
        return [line.raw for line in self.to_keep() if self._places[line].offset is None]

    def forget_places(self) -> None:
        """The file is read anew: what it holds will be given again, so only what it does not hold is kept."""
        self._places = {line: place for line, place in self._places.items() if place.offset is None}

    def replace(self, places: dict[RawLine, RawLine]) -> None:
        """The file was built anew with these, and they stand there."""
        self._places = places

    # -- without their end -----------------------------------------------------------------------------

    def keep_unfinished(self, rest: bytes) -> None:
        """The start of a line, as a comment that has no place yet."""
        if rest.strip():
            self._places.setdefault(kept(rest), kept(rest))

    def drop_unfinished(self, rest: bytes) -> list[RawLine]:
        """The comment is wanted no more; gives where it stands in the file."""
        dropped = [line for line in self._places if line.raw == kept(rest).raw]
        places = [self._places.pop(line) for line in dropped]
        return [place for place in places if place.offset is not None]

    def tell_unfinished(self, problems: list[LineProblem]) -> None:
        """A program between two writes is faster, so only what has stood for some polls is told. Once a poll."""
        numbers = {line.raw: place.number for line, place in self._places.items() if line.raw.startswith(_UNFINISHED)}
        self._ages = {raw: self._ages.get(raw, -1) + 1 for raw in numbers}
        for raw, number in numbers.items():
            rest = raw[len(_UNFINISHED) : -1]
            if self._ages[raw] == UNFINISHED_POLL_COUNT and rest != self.told_unfinished:
                self.told_unfinished = rest
                expected = "a line with its end (complete it and take the mark before it away, or remove it)"
                problems.append(self._layout.problem(number, FieldProblem(LINE, expected, "only its start")))


def kept(rest: bytes) -> RawLine:
    """An unfinished line as a comment that has no place yet."""
    return RawLine(0, None, _UNFINISHED + rest + b"\n")
