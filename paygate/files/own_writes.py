"""Our own writes to a file that others append to: rows at its end, comments over lines that were taken in."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from paygate.files.layout import ROW_SIZE_MAX, Layout
from paygate.files.line_stream import LineStream, RawLine, has_writers
from paygate.files.open_file import OpenFile

TAKEN_IN: Final = b"# taken in"
"""Stands where a line was that is in the table now, so that a plain password in it is gone."""


def append_block(files: OpenFile, stream: LineStream, data: bytes) -> tuple[int, bool]:
    """Adds `data`, and has `stream` leave it out; gives its offset, and whether it is in one piece in lines of its own.

    It isn't if the system wrote it in pieces, which are perhaps not side by side, or if somebody is in the middle of
    a line, in which our data now is. Raises OSError, and then part of it may be there.
    """
    offset, is_whole = -1, True
    while data:
        size = os.write(files.append, data)
        # With O_APPEND the system chose the place, and the descriptor's position now tells it.
        end = os.lseek(files.append, 0, os.SEEK_CUR)
        stream.leave_out(end - size, end)
        is_whole &= offset < 0
        offset, data = end - size, data[size:]
    if offset > 0 and os.pread(files.read, 1, offset - 1) != b"\n":
        is_whole = False
    return offset, is_whole


def blank(files: OpenFile, stream: LineStream, lines: Iterable[RawLine]) -> bool:
    """Writes comments of the same size over raw lines, with one write for lines in a row.

    False if somebody edited one in place. Raises OSError.
    """
    runs: list[list[RawLine]] = []
    for line in sorted(lines, key=lambda line: line.offset or 0):
        last = runs[-1][-1] if runs else None
        if last is not None and (last.offset or 0) + len(last.raw) == line.offset:
            runs[-1].append(line)
        else:
            runs.append([line])
    is_done = True
    for run in runs:
        raw = b"".join(line.raw for line in run)
        offset = run[0].offset or 0
        if os.pread(files.read, len(raw), offset) == raw:
            comments = b"".join(_blanked(line.raw) for line in run)
            stream.will_write_at(offset, raw, comments)
            is_done &= os.pwrite(files.write, comments, offset) == len(comments)
        else:
            is_done = False
    return is_done


def _blanked(raw: bytes) -> bytes:
    size = len(raw) - 1
    return (TAKEN_IN if size >= len(TAKEN_IN) else b"#").ljust(size) + b"\n"


def end_last_line(path: Path, layout: Layout) -> None:
    """Gives a last line its newline, if whoever wrote it is done with the file. Raises OSError.

    What a crash left of a row of ours is no line; a rewrite drops it.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        if has_writers(fd):
            return
        tail = os.pread(fd, ROW_SIZE_MAX, max(0, os.fstat(fd).st_size - ROW_SIZE_MAX))
    finally:
        os.close(fd)
    last = tail.rpartition(b"\n")[2]
    if last.strip() and not layout.may_be_cut(last):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, b"\n")
        finally:
            os.close(fd)
