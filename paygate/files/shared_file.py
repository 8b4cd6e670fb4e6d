"""A text file that people and other programs add lines to while a server runs (R13, R16, R17).

Nothing that anybody appends may get lost, and nobody else knows of a lock. So:

- Others append raw lines. `poll` gives them to the server, which commits them to its database; `take_in_all`
  then appends the normalised rows (O_APPEND, so never over somebody's bytes) and blanks the raw lines, so
  that a plain password in one is gone. A crash in between leaves both, and the next start mends it.
- Lines that can't be used stay exactly where they are, for the person who wrote them to mend.
- `rewrite` builds a new file and swaps it with the old one in one step. Somebody may have the old one open
  and append to it later, so it stays open here and is read on, until nobody has it open for writing.
- An editor may replace the file, or cut it and write it again. `poll` notices and gives all lines anew.

Whatever happens, the caller's part is the same (`rows` are all of the server's records):

    news = file.poll()
    taken = [(line, row) for each line of news.lines that is good, once committed]
    if not file.take_in_all(taken):
        file.rewrite(rows)

One thing can't be seen: a line put into the middle of the file, in place, that leaves the last 4 KiB where
they were. It is found at the next start. And a line that is appended to a replaced file in the second before
this process is killed goes with it.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paygate.files.durable import create_file, fsync_directory, write_all
from paygate.files.layout import LINE, ROW_SIZE_MAX, FieldProblem, Layout, LineProblem
from paygate.files.line_stream import LineStream, RawLine, has_writers
from paygate.files.open_file import OpenFile, swap_in

POLL_SIZE_MAX = 1 << 20
"""Bytes of new lines taken in at one poll (about 10,000 lines), so that a big batch stops no payment."""

UNFINISHED_POLL_COUNT = 3
"""Polls after which a last line without newline is reported: a program between two writes is faster."""

MISSING_POLL_COUNT = 2
"""Polls for which the file may be missing: some editors move the old one away before they write the new."""

WATCHED_COUNT_MAX = 64
"""Replaced files that are still read on; each costs a descriptor. Over it, the oldest is given up."""

_TAKEN_IN = b"# taken in"
_LEFT = b"# Lines that could not be used, and comments:\n"


@dataclass(frozen=True, slots=True)
class News:
    """What a poll found."""

    lines: tuple[RawLine, ...] = ()
    """Lines to validate; no comments, no blank lines. Each is given once, unless the file is replaced."""
    replaced: bool = False
    """The file is new or was edited, and `lines` are all of it: most will be known already."""
    problems: tuple[LineProblem, ...] = ()
    """What to tell people; each is told once."""


@dataclass(slots=True)
class _Watched:
    """A replaced file that somebody may still append to."""

    stream: LineStream
    dealt_with: bytes = b""
    """An unfinished last line that is not wanted from here, unless more of it comes."""


class SharedFile:
    """See the top of this file. Every method may raise OSError."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Opens the file, making it with its header if there is none. The first poll gives all lines."""
        self.layout = layout
        # A symbolic link names the file that people share; that file is the one to replace.
        self.path = (directory / layout.file_name).resolve()
        self._swap = self.path.with_name(f".{self.path.name}.swap")
        self._header_lines = {line.strip() for line in layout.header.splitlines()} | {_LEFT.strip()}
        self._watched: list[_Watched] = []
        self._told: set[str] = set()
        self._told_unfinished = b""
        self._untaken: dict[RawLine, None] = {}
        """Lines that a rewrite must keep: those that nobody took in, and the comments of people."""
        with contextlib.suppress(FileNotFoundError):
            # A crash in `rewrite` left it: perhaps the file that was replaced, with lines not yet read.
            self._watched.append(_Watched(LineStream(os.open(self._swap, os.O_RDONLY))))
        with contextlib.suppress(FileExistsError):
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            write_all(fd, layout.header)
            os.close(fd)
        self._adopt(OpenFile.open(self.path))

    def _adopt(self, files: OpenFile) -> None:
        """Starts on a file of which nothing is known yet."""
        self._files = files
        self._stream = LineStream(files.read)
        self._offsets: dict[str, int] = {}
        """Where the row with this first field begins."""
        self._untaken = {line: None for line in self._untaken if line.offset is None}
        self._whole = True
        """The next poll gives all lines, not only new ones."""
        self._must_rewrite = True
        self._seen = (-1, -1)
        """Size and time of change at the last poll."""
        self._missing_count = self._unfinished_count = 0

    def poll(self) -> News:
        """The lines that came since the last poll. One stat when nothing changed; meant for once a second."""
        problems: list[LineProblem] = []
        status = self._follow(problems)
        lines = [line for old in list(self._watched) for line in self._read_watched(old)]
        if status is None:
            return News(tuple(lines), self._missing_count >= MISSING_POLL_COUNT, tuple(problems))
        replaced = self._whole
        grew = status.st_size > self._stream.read_to
        limit = status.st_size if replaced else min(status.st_size, self._stream.read_to + POLL_SIZE_MAX)
        lines += self._sort_out(self._stream.read(limit))
        self._whole = False
        self._seen = (status.st_size, status.st_mtime_ns)
        unfinished = self._stream.unfinished
        self._unfinished_count = self._unfinished_count + 1 if unfinished and not grew else 0
        if self._unfinished_count == UNFINISHED_POLL_COUNT and unfinished != self._told_unfinished:
            self._told_unfinished = unfinished
            bad = FieldProblem(LINE, "a finished last line (end the line with a newline)", "none")
            problems.append(self.layout.problem(self._stream.line_count + 1, bad))
        return News(tuple(lines), replaced, tuple(problems))

    def take_in_all(self, taken: Iterable[tuple[RawLine, Sequence[str] | None]]) -> bool:
        """Puts normalised rows in the place of raw lines that are committed already; one write for all.

        None for a row means that the record is in the table already, so the raw line is only blanked. False:
        call `rewrite`, which does what is left to do. To be called after each poll, if only with nothing.
        """
        taken = list(taken)
        moved = {line.raw for line, _ in taken if line not in self._untaken}
        for line, _ in taken:
            self._untaken.pop(line, None)
        if moved:
            # The file was replaced or rewritten since the poll, and the same text is elsewhere now.
            self._must_rewrite = True
            self._untaken = {line: None for line in self._untaken if line.raw not in moved}
        rows = [row for _, row in taken if row is not None]
        # After an unfinished line our rows would become part of it. (Before the file's end, it is only the
        # last poll's portion that ended there.)
        unfinished = self._stream.unfinished and self._stream.read_to == self._seen[0]
        self._must_rewrite |= bool(rows and unfinished)
        # A line of a replaced file that was left must come into a file that has a name.
        self._must_rewrite |= any(line.offset is None for line in self._untaken)
        if self._must_rewrite:
            return False
        # The rows first: a crash after them leaves both, which a rewrite mends; blanked alone, neither.
        self._append_rows(rows)
        if not self._must_rewrite:
            self._blank([line for line, _ in taken if line.offset is not None])
        return not self._must_rewrite

    def update(self, key: str, changes: Mapping[str, str]) -> bool:
        """`update_many` for one row."""
        return self.update_many({key: changes})

    def update_many(self, changes: Mapping[str, Mapping[str, str]]) -> bool:
        """Changes columns (name: text) of rows (by first field) in place: one read and one write a row.

        False: somebody edited the file under us, or the key isn't in it; call `rewrite`. Raises ValueError if
        a text is wider than its column.
        """
        for key, texts in changes.items():
            offset = self._offsets.get(key)
            old = b"" if offset is None else os.pread(self._files.read, ROW_SIZE_MAX, offset)
            row = self.layout.change(old, key, texts)
            if offset is None or row is None:
                self._must_rewrite = True
            else:
                self._write_at(offset, row)
        return not self._must_rewrite

    def rewrite(self, rows: Iterable[Sequence[str]]) -> None:
        """Builds the file anew from all of the server's records and puts it in the place of the old one.

        After the rows come, verbatim, the lines that nobody took in and the comments that are not ours. To
        be called at start (the database is the truth) and when another method gave False.
        """
        stream, dealt_with = self._stream, b""
        if self._is_replaced() or self._is_edited(os.fstat(stream.fd)):
            # Somebody dealt with what was left, and all that is there now comes as news after the swap.
            self._untaken = {line: None for line in self._untaken if line.offset is None}
            dealt_with = stream.unfinished
        left = self._lines_to_keep()
        offsets: dict[str, int] = {}
        untaken: dict[RawLine, None] = {}
        size = line_count = 0

        def chunks() -> Iterator[bytes]:
            nonlocal size, line_count, dealt_with
            size, line_count = len(self.layout.header), self.layout.header.count(b"\n")
            yield self.layout.header
            for row in rows:
                line = self.layout.format(row)
                if len(stream.unfinished) > self.layout.columns[0].width and line.startswith(stream.unfinished):
                    dealt_with = stream.unfinished  # a row of ours that a crash cut short, padding and all
                offsets[row[0]] = size
                size, line_count = size + len(line), line_count + 1
                yield line
            for line in (_LEFT, *left) if left else ():
                line_count += 1
                if line is not _LEFT:
                    untaken[RawLine(line_count, size, line)] = None
                size += len(line)
                yield line

        beside = self.path.with_name(f".{self.path.name}.new")
        create_file(beside, chunks())
        files = OpenFile.open(beside)
        # Two names: a half-built `.new` holds nothing of anybody's, a left-over `.swap` may.
        beside.rename(self._swap)
        try:
            displaced = swap_in(self._swap, self.path)
            if displaced is not None and displaced != self._files.identity:
                # Somebody put another file there since the last poll; all of its lines are news.
                self._watched.append(_Watched(LineStream(os.open(self._swap, os.O_RDONLY))))
            self._swap.unlink(missing_ok=True)
            fsync_directory(self.path.parent)
        except BaseException:
            files.close()  # the next poll finds whatever has the name now
            raise

        self._files.close_writers()
        if self._is_edited(os.fstat(stream.fd)):
            stream = LineStream(stream.fd)
        old = _Watched(stream, dealt_with)
        self._watched.append(old)
        self._adopt(files)
        self._stream = LineStream(files.read, read_to=size, line_count=line_count)
        self._offsets, self._untaken = offsets, untaken
        self._must_rewrite = self._whole = False
        if not has_writers(stream.fd) and os.fstat(stream.fd).st_size == stream.read_to:
            self._put_back(old)

    def close(self) -> None:
        """Closes all descriptors; everything was written long ago."""
        self._files.close_writers()
        for stream in (self._stream, *(old.stream for old in self._watched)):
            os.close(stream.fd)
        self._watched.clear()

    def _follow(self, problems: list[LineProblem]) -> os.stat_result | None:
        """Goes over to another file if the name has one; None while there is none that can be used."""
        try:
            status = self.path.stat()
            if (status.st_dev, status.st_ino) != self._files.identity:
                files = OpenFile.open(self.path)
                self._files.close_writers()
                self._watched.append(_Watched(self._stream, self._stream.unfinished))
                self._adopt(files)
                status = os.fstat(files.read)
        except FileNotFoundError:
            self._missing_count += 1
            self._must_rewrite |= self._missing_count >= MISSING_POLL_COUNT
            return None
        except OSError as error:
            bad = FieldProblem(LINE, "a file that this server may read and write", f"{error.strerror}")
            self._tell(bad, problems)
            return None
        self._missing_count = 0
        if self._is_edited(status):
            self._adopt(self._files)
        return status

    def _is_replaced(self) -> bool:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) != self._files.identity

    def _is_edited(self, status: os.stat_result) -> bool:
        """Whether somebody cut the file and wrote it again, or changed it in place, as some editors do."""
        if status.st_size < self._stream.read_to:
            return True
        return (status.st_size, status.st_mtime_ns) != self._seen and self._stream.tail_differs()

    def _lines_to_keep(self) -> list[bytes]:
        """What nobody took in, once each where a replaced file has it too."""
        here = {line.raw for line in self._untaken if line.offset is not None}
        return [line.raw for line in self._untaken if line.offset is not None or line.raw not in here]

    def _sort_out(self, lines: list[RawLine]) -> list[RawLine]:
        """Remembers what a rewrite must keep, and gives the lines that hold records."""
        records = []
        for line in lines:
            text = line.raw.strip()
            if text and text not in self._header_lines and text not in (_TAKEN_IN, b"#"):
                self._untaken[line] = None
                if not text.startswith(b"#"):
                    records.append(line)
        return records

    def _read_watched(self, old: _Watched) -> list[RawLine]:
        # Asked before reading: what is in the file by then is all that will ever come.
        done = not has_writers(old.stream.fd)
        size = os.fstat(old.stream.fd).st_size
        if size < old.stream.read_to:
            old.stream = LineStream(old.stream.fd)
        lines = [RawLine(0, None, line.raw) for line in old.stream.read(size)]
        if lines:
            old.dealt_with = b""
        if done or old in self._watched[:-WATCHED_COUNT_MAX]:
            self._put_back(old)
            self._watched.remove(old)
            os.close(old.stream.fd)
        return self._sort_out(lines)

    def _put_back(self, old: _Watched) -> None:
        """Copies an unfinished last line that nobody can finish in a replaced file to where people see it.

        Not before: whoever is in the middle of it goes on in the file that he has open, and what he appends
        to the new one later must not come right after the copy.
        """
        rest = old.stream.unfinished
        if rest.strip() and rest != old.dealt_with:
            write_all(self._files.append, rest)
            old.dealt_with = rest

    def _append_rows(self, rows: Sequence[Sequence[str]]) -> None:
        lines = [self.layout.format(row) for row in rows]
        data = b"".join(lines)
        start = -1
        while data:
            try:
                size = os.write(self._files.append, data)
            except OSError:
                self._must_rewrite = True  # part of a row may be there
                raise
            # With O_APPEND the system chose the place, and the descriptor's position now tells it.
            end = os.lseek(self._files.append, 0, os.SEEK_CUR)
            self._stream.leave_out(end - size, end)
            self._must_rewrite |= start >= 0  # in two pieces, and perhaps not side by side
            start, data = end - size, data[size:]
        offset = start
        for row, line in zip(rows, lines, strict=True):
            self._offsets[row[0]] = offset
            offset += len(line)
        if start > 0 and os.pread(self._files.read, 1, start - 1) != b"\n":
            self._must_rewrite = True  # somebody is in the middle of a line, and our rows are now in it

    def _blank(self, lines: list[RawLine]) -> None:
        """Writes comments of the same size over raw lines, with one write for lines in a row."""
        runs: list[list[RawLine]] = []
        for line in sorted(lines, key=lambda line: line.offset or 0):
            last = runs[-1][-1] if runs else None
            if last is not None and (last.offset or 0) + len(last.raw) == line.offset:
                runs[-1].append(line)
            else:
                runs.append([line])
        for run in runs:
            raw = b"".join(line.raw for line in run)
            offset = run[0].offset or 0
            if os.pread(self._files.read, len(raw), offset) == raw:
                self._write_at(offset, b"".join(_blanked(line.raw) for line in run))
            else:
                self._must_rewrite = True  # edited in place

    def _write_at(self, offset: int, data: bytes) -> None:
        self._must_rewrite |= os.pwrite(self._files.write, data, offset) != len(data)
        self._stream.wrote_at(offset, data)

    def _tell(self, bad: FieldProblem, problems: list[LineProblem]) -> None:
        problem = self.layout.problem(0, bad)
        if str(problem) not in self._told:
            self._told.add(str(problem))
            problems.append(problem)


def _blanked(raw: bytes) -> bytes:
    size = len(raw) - 1
    return (_TAKEN_IN if size >= len(_TAKEN_IN) else b"#").ljust(size) + b"\n"
