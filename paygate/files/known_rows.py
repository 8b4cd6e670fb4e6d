"""Passes over the rows of a file that stand there as a server's records have them.

After a start nearly all of a file is rows of our own, unchanged since the last run. To parse each, ask the records for
it and write all of it anew would cost a start some 40 us a row; to compare it with what would be written costs a few.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from paygate.files.layout import Layout
from paygate.files.line_stream import READ_SIZE, LineStream, RawLine

_ROW_COUNT: Final = 256
"""Rows that are compared at once."""


class KnownRows:
    """What `pass_over_known` found."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}
        """Where each row that stands as it should begins, by its first field."""
        self.others: list[RawLine] = []
        """All other lines before the place where it ended: of other people, or rows that say something else."""
        self.is_whole = True
        """Whether neither the header nor a row was missing."""


def pass_over_known(stream: LineStream, layout: Layout, rows: Iterable[Sequence[str]]) -> KnownRows:
    """Read a file from its start for as long as it has the rows of these records, in their order.

    It ends when there are no more rows, or at the end of the file's last whole line; the stream stands there then.
    Raises OSError.
    """
    found = KnownRows()
    iterator = iter(rows)
    header = os.pread(stream.fd, len(layout.header), 0)
    if header == layout.header:
        stream.pass_over(header)
    else:
        found.is_whole = False
    while batch := list(islice(iterator, _ROW_COUNT)):
        lines = layout.format_all(batch)
        block = b"".join(lines)
        offset = stream.read_to
        if os.pread(stream.fd, len(block), offset) == block:
            stream.pass_over(block)
            for row, line in zip(batch, lines, strict=True):
                found.offsets[row[0]] = offset
                offset += len(line)
        elif not _pass_over_one_by_one(stream, zip(batch, lines, strict=True), found):
            found.is_whole = False
            break
    return found


def _pass_over_one_by_one(
    stream: LineStream, expected: Iterable[tuple[Sequence[str], bytes]], found: KnownRows
) -> bool:
    """Whether the file had all of these rows."""
    there = _whole_lines(stream)
    for row, line in expected:
        for raw in there:
            stream.pass_over(raw)
            if raw == line:
                found.offsets[row[0]] = stream.read_to - len(raw)
                break
            found.others.append(RawLine(stream.line_count, stream.read_to - len(raw), raw))
            if len(raw) == len(line) and raw.partition(b"|")[0] == line.partition(b"|")[0]:
                # This row, before a crash kept its last change from the file, or after somebody changed it.
                found.is_whole = False
                break
        else:
            return False
    return True


def _whole_lines(stream: LineStream) -> Iterator[bytes]:
    """The lines from where the stream stands; the caller passes over each. What has no newline is none."""
    data, start = b"", 0
    while True:
        end = data.find(b"\n", start) + 1
        if end:
            yield data[start:end]
            start = end
            continue
        more = os.pread(stream.fd, READ_SIZE, stream.read_to + len(data) - start)
        if not more:
            return
        data, start = data[start:] + more, 0
