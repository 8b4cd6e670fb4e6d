"""A text file that people and other programs add lines to while a server runs (R13, R16, R17).

Nothing that anybody appends may get lost, and nobody else knows of a lock. So:

- Others append raw lines. `poll` gives them to the server, which commits them to its database; `take_in_all`
  then appends the normalised rows (O_APPEND, so never over somebody's bytes) and blanks the raw lines, so
  that a plain password in one is gone. A crash in between leaves both, and the next start mends it.
- Lines that can't be used stay exactly where they are, for the person who wrote them to mend.
- `rewrite` builds a new file and swaps it with the old one in one step. Somebody may have the old one open
  and append to it later, so it stays open here and is read on, until nobody has it open for writing. It keeps a
  name beside the new one until what was appended during the swap is taken in, so a kill meanwhile loses nothing.
- A last line without its newline may be one that somebody is still writing. A rewrite keeps it in the new file
  as a comment (`# unfinished: `), which nothing that others append can run into. If its end comes, the line takes
  the comment's place; if nobody can write the end any more, the text stands at the end of the file again. When a
  file is opened here, though, and nobody has it open for writing, then whoever wrote its last line is done with
  it: it is a whole line, and gets its newline.
- An editor may replace the file, or cut it and write it again. `poll` notices and gives all lines anew.

Whatever happens, the caller's part is the same (`rows` are all of the server's records):

    news = file.poll()
    taken = [(line, row) for each line of news.lines that is good, once committed]
    if not file.take_in_all(taken):
        file.rewrite(rows)

An edit in place is noticed if the system's time of change tells it from our own last write: not if it comes
within some milliseconds of that and leaves the last 4 KiB as they were. It is found at the next change or start.
And a line goes that is appended to a file some seconds after it was replaced, by somebody who had it open all that
time, in the second before this process is killed.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paygate.files.durable import create_file, fsync_directory, write_all
from paygate.files.file_errors import check_regular, names_its_file
from paygate.files.in_place import ChangingColumns
from paygate.files.known_rows import pass_over_known
from paygate.files.layout import LINE, FieldProblem, Layout, LineProblem
from paygate.files.line_stream import LineStream, RawLine, has_writers
from paygate.files.open_file import OpenFile, resolved, swap_in
from paygate.files.own_writes import append_block, blank, end_last_line
from paygate.files.untaken_lines import LEFT, UNFINISHED_POLL_COUNT, UntakenLines, kept

POLL_SIZE_MAX = 1 << 20
"""Bytes of new lines taken in at one poll (about 10,000 lines), so that a big batch stops no payment."""

MISSING_POLL_COUNT = 2
"""Polls for which the file may be missing: some editors move the old one away before they write the new."""

WATCHED_COUNT_MAX = 64
"""Replaced files that are still read on; each costs a descriptor. Over it, the oldest is given up."""


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
    kept: bytes = b""
    """An unfinished last line that stands in the file that has the name, as a comment."""


class SharedFile:
    """See the top of this file. Every method may raise OSError, which names the file."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Opens the file, making it with its header if there is none. The first poll gives all lines."""
        self.layout = layout
        self.path = resolved(directory / layout.file_name)
        self._swap = self.path.with_name(f".{self.path.name}.swap")
        self._beside = self.path.with_name(f".{self.path.name}.new")
        self._watched: list[_Watched] = []
        self._told: set[str] = set()
        self._untaken = UntakenLines(layout)
        self._ahead: list[RawLine] = []
        """Lines that a rewrite read and the next poll gives."""
        self._has_swap = self._swap_was_read = False
        """Whether the last file that was replaced has a name still, and whether a poll has read it since."""
        self._start()

    @names_its_file
    def _start(self) -> None:
        check_regular(self.path)
        # A crash in `rewrite` left it: copies, which may be of a line with a secret.
        self._beside.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            # A crash in `rewrite` left it: perhaps the file that was replaced, with lines not yet read.
            self._watched.append(_Watched(LineStream(os.open(self._swap, os.O_RDONLY))))
        with contextlib.suppress(FileExistsError):
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            write_all(fd, self.layout.header)
            os.close(fd)
        end_last_line(self.path, self.layout)  # see the top of this file
        self._adopt(OpenFile.open(self.path))

    def _adopt(self, files: OpenFile) -> None:
        """Starts on a file of which nothing is known yet."""
        self._files = files
        self._stream = LineStream(files.read)
        self._offsets: dict[str, int] = {}
        """Where the row with this first field begins."""
        self._untaken.forget_places()
        self._ahead.clear()
        self._whole = True
        """The next poll gives all lines, not only new ones."""
        self._must_rewrite = True
        self._known = (-1, -1)
        """Size and time of change after the last poll or our last write."""
        self._polled_size = -1
        self._wrote = self._touched = False
        """Whether we, or others before our last write, wrote since the last poll."""
        self._missing_count = self._unfinished_count = 0

    @names_its_file
    def pass_over_known(self, rows: Iterable[Sequence[str]]) -> None:
        """At start, before the first poll: pass over rows that stand there as the server's records have them.

        The first poll then gives only the other lines, and what it asks for is a rewrite only if the file has not
        all of the rows, or has something to tidy up. Without this call it gives all lines, and the file is rewritten.
        """
        known = pass_over_known(self._stream, self.layout, rows)
        self._offsets = known.offsets
        self._ahead += self._untaken.sort_out(known.others)
        is_tidy = all(self._untaken.number_of(line) for line in known.others)
        # What a crash left in the middle of a rewrite is read, and goes with the next one.
        self._must_rewrite = bool(self._watched) or not (known.is_whole and is_tidy)

    @names_its_file
    def poll(self) -> News:
        """The lines that came since the last poll. One stat when nothing changed; meant for once a second."""
        problems: list[LineProblem] = []
        if self._swap_was_read:  # What an earlier poll gave of it was taken in since, or stands in the new file.
            self._drop_swap()
        status = self._follow(problems)
        lines, self._ahead = self._ahead, []
        for old in list(self._watched):
            lines += self._read_watched(old)
        self._swap_was_read = self._has_swap
        self._untaken.tell_unfinished(problems)
        if status is None:
            return News(tuple(lines), self._missing_count >= MISSING_POLL_COUNT, tuple(problems))
        replaced = self._whole
        grew = status.st_size > self._stream.read_to
        limit = status.st_size if replaced else min(status.st_size, self._stream.read_to + POLL_SIZE_MAX)
        lines += self._untaken.sort_out(self._stream.read(limit))
        self._whole = self._wrote = self._touched = False
        self._known = _stamp(status)
        self._polled_size = status.st_size
        unfinished = self._stream.unfinished
        self._unfinished_count = self._unfinished_count + 1 if unfinished and not grew else 0
        if self._unfinished_count == UNFINISHED_POLL_COUNT and unfinished != self._untaken.told_unfinished:
            self._untaken.told_unfinished = unfinished
            bad = FieldProblem(LINE, "a finished last line (end the line with a newline)", "none")
            problems.append(self.layout.problem(self._stream.line_count + 1, bad))
        return News(tuple(lines), replaced, tuple(problems))

    def number_of(self, line: RawLine) -> int:
        """Where a line that a poll gave is now, counted from 1; for those who tell people of it after a rewrite.

        0 if it isn't known to be in the file any more.
        """
        return self._untaken.number_of(line)

    @names_its_file
    def take_in_all(self, taken: Iterable[tuple[RawLine, Sequence[str] | None]]) -> bool:
        """Puts normalised rows in the place of raw lines that are committed already; one write for all.

        None for a row means that the record is in the table already, so the raw line is only blanked. False:
        call `rewrite`, which does what is left to do. To be called after each poll, if only with nothing.
        """
        taken = list(taken)
        places, are_known = self._untaken.take(line for line, _ in taken)
        # Otherwise the file was replaced since the poll.
        self._must_rewrite |= not are_known
        rows = [row for _, row in taken if row is not None]
        # After an unfinished line our rows would become part of it. (Before the file's end, it is only the
        # last poll's portion that ended there.)
        unfinished = self._stream.unfinished and self._stream.read_to == self._polled_size
        self._must_rewrite |= bool(rows and unfinished)
        # A line of a replaced file that was left must come into a file that has a name.
        self._must_rewrite |= not self._untaken.are_all_in_file
        if self._must_rewrite:
            return False
        if taken:
            with self._writing():
                # The rows first: a crash after them leaves both, which a rewrite mends; blanked alone, neither.
                self._append_rows(rows)
                if not self._must_rewrite:
                    self._blank(place for place in places if place.offset is not None)
        return not self._must_rewrite

    @names_its_file
    def update(self, columns: ChangingColumns, changes: Mapping[str, Sequence[str]]) -> bool:
        """Changes columns of rows (by first field) in place, each row looked at before it is written.

        False: somebody edited the file under us, or the key isn't in it; call `rewrite`. Raises ValueError if
        a text is wider than its column.
        """
        offsets = self._offsets
        there = [(offsets.get(key, -1), key, texts) for key, texts in changes.items()]
        if any(offset < 0 for offset, _, _ in there):
            self._must_rewrite = True
            there = [change for change in there if change[0] >= 0]
        with self._writing():
            missing = columns.apply(self._files.read, self._files.write, there, self._stream.will_write_at)
        self._must_rewrite |= bool(missing)
        return not self._must_rewrite

    @names_its_file
    def rewrite(self, rows: Iterable[Sequence[str]]) -> None:
        """Builds the file anew from all of the server's records and puts it in the place of the old one.

        After the rows come, verbatim, the lines that nobody took in and the comments that are not ours. To
        be called when another method gave False. If somebody has just
        replaced or edited the file, it is left to the next poll, which gives all that is in it.
        """
        if self._is_replaced() or self._is_edited(os.fstat(self._files.read)):
            self._must_rewrite = True
            return
        stream, dealt_with = self._stream, b""
        if self._has_swap:  # It loses its name to the file that is replaced now, so what it has goes into the new one.
            for watched in list(self._watched):
                self._ahead += self._read_watched(watched)
        if not self._whole:
            self._ahead += self._untaken.sort_out(stream.read(os.fstat(stream.fd).st_size))
        rest = stream.unfinished
        is_row = len(rest) > self.layout.columns[0].width
        offsets: dict[str, int] = {}
        untaken: dict[RawLine, RawLine] = {}
        size = line_count = 0

        def chunks() -> Iterator[bytes]:
            nonlocal size, line_count, dealt_with
            size, line_count = len(self.layout.header), self.layout.header.count(b"\n")
            yield self.layout.header
            for row, line in self.layout.formatted(rows):
                if is_row and line.startswith(rest):
                    dealt_with = rest  # a row of ours that a crash cut short, padding and all
                offsets[row[0]] = size
                size, line_count = size + len(line), line_count + 1
                yield line
            left = self._untaken.to_keep()
            if rest.strip() and not dealt_with and kept(rest) not in left:
                left.append(kept(rest))
            if left:
                size, line_count = size + len(LEFT), line_count + 1
                yield LEFT
            for given in left:
                line_count += 1
                untaken[given] = RawLine(line_count, size, given.raw)
                size += len(given.raw)
                yield given.raw

        old_identity = self._files.identity
        create_file(self._beside, chunks())
        files = OpenFile.open(self._beside)
        new = LineStream(files.read, read_to=size, line_count=line_count)
        known = _stamp(os.fstat(files.read))
        # Two names: a half-built `.new` holds nothing of anybody's, a left-over `.swap` may.
        self._beside.rename(self._swap)
        try:
            displaced = swap_in(self._swap, self.path)
            if displaced is not None and displaced != old_identity:
                # Somebody put another file there a moment ago; all of its lines are news.
                self._watched.append(_Watched(LineStream(os.open(self._swap, os.O_RDONLY))))
            if displaced is None:
                self._swap.unlink(missing_ok=True)
            fsync_directory(self.path.parent)
        except BaseException:
            files.close()  # the next poll finds whatever has the name now
            raise

        self._files.close_writers()
        if self._is_edited(os.fstat(stream.fd)):
            stream = LineStream(stream.fd)
        old = _Watched(stream, dealt_with, kept=b"" if dealt_with else rest)
        self._watched.append(old)
        ahead = self._ahead.copy()
        self._adopt(files)
        self._stream, self._known = new, known
        self._offsets, self._ahead = offsets, ahead
        self._untaken.replace(untaken)
        self._must_rewrite = self._whole = False
        self._has_swap, self._swap_was_read = displaced is not None, False
        if not has_writers(stream.fd) and os.fstat(stream.fd).st_size == stream.read_to:
            self._put_back(old)
            if displaced == old_identity:
                self._drop_swap()

    def _drop_swap(self) -> None:
        self._swap.unlink(missing_ok=True)
        fsync_directory(self.path.parent)
        self._has_swap = self._swap_was_read = False

    @names_its_file
    def close(self) -> None:
        """Closes all descriptors. What was added to a replaced file, and not taken in, goes to the one with a name."""
        try:
            for old in list(self._watched):
                self._read_watched(old)
            self._save_untaken()
        finally:
            self._files.close_writers()
            for stream in (self._stream, *(old.stream for old in self._watched)):
                os.close(stream.fd)
            self._watched.clear()

    def _save_untaken(self) -> None:
        raw = self._untaken.only_elsewhere()
        if raw and not (self.path.exists() and not self._is_replaced() and self._ends_whole()):
            # The next start reads it on, as what a crash left.
            create_file(self._swap, raw)
            return
        if raw:
            write_all(self._files.append, b"".join(raw))
        if self._has_swap:
            self._drop_swap()

    def _follow(self, problems: list[LineProblem]) -> os.stat_result | None:
        """Goes over to another file if the name has one; None while there is none that can be used."""
        try:
            status = self.path.stat()
            if (status.st_dev, status.st_ino) != self._files.identity:
                files = OpenFile.open(self.path)
                self._files.close_writers()
                self._watched.append(_Watched(self._stream, dealt_with=self._stream.unfinished))
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
        if self._touched or _stamp(status) != self._known:
            return self._stream.is_edited(everywhere=True)
        # The clock of the file system is coarse: an edit right before or after our own write looks like that.
        return self._wrote and self._stream.is_edited(everywhere=False)

    # -- replaced files, and lines without their end ---------------------------------------------------

    def _read_watched(self, old: _Watched) -> list[RawLine]:
        # Asked before reading: what is in the file by then is all that will ever come.
        done = not has_writers(old.stream.fd)
        size = os.fstat(old.stream.fd).st_size
        if size < old.stream.read_to:
            old.stream = LineStream(old.stream.fd)
        lines = [RawLine(0, None, line.raw) for line in old.stream.read(size)]
        records = self._untaken.sort_out(lines)
        if lines:
            old.dealt_with = b""
        rest = b"" if old.stream.unfinished == old.dealt_with else old.stream.unfinished
        if rest != old.kept:
            # What stands as a comment is in the line now, or in the longer comment. Those come into the file
            # with the rewrite that takes the comment away.
            self._must_rewrite |= bool(self._untaken.drop_unfinished(old.kept))
            self._untaken.keep_unfinished(rest)
            old.kept = rest
        if done or old in self._watched[:-WATCHED_COUNT_MAX]:
            if done:
                self._put_back(old)
            self._watched.remove(old)
            os.close(old.stream.fd)
        return records

    def _put_back(self, old: _Watched) -> None:
        """Moves an unfinished last line that nobody can finish in a replaced file to where people see it.

        Not before: whoever is in the middle of it goes on in the file that he has open, and what he appends
        to the new one later must not come right after the copy. And not into a line that somebody else has
        begun: then it stays a comment.
        """
        rest = old.kept
        if rest.strip() and self._ends_whole():
            with self._writing():
                write_all(self._files.append, rest)
                old.kept, old.dealt_with = b"", rest
                self._blank(self._untaken.drop_unfinished(rest))

    def _ends_whole(self) -> bool:
        size = os.fstat(self._files.read).st_size
        return size == 0 or os.pread(self._files.read, 1, size - 1) == b"\n"

    # -- writing ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around writes of our own, to tell the changes of others from them."""
        self._touched |= _stamp(os.fstat(self._files.read)) != self._known
        self._wrote = True
        try:
            yield
        finally:
            self._known = _stamp(os.fstat(self._files.read))

    def _append_rows(self, rows: Sequence[Sequence[str]]) -> None:
        lines = self.layout.format_all(rows)
        try:
            offset, is_whole = append_block(self._files, self._stream, b"".join(lines))
        except OSError:
            self._must_rewrite = True  # part of a row may be there
            raise
        self._must_rewrite |= not is_whole
        for row, line in zip(rows, lines, strict=True):
            self._offsets[row[0]] = offset
            offset += len(line)

    def _blank(self, lines: Iterable[RawLine]) -> None:
        self._must_rewrite |= not blank(self._files, self._stream, lines)

    def _tell(self, bad: FieldProblem, problems: list[LineProblem]) -> None:
        problem = self.layout.problem(0, bad)
        if str(problem) not in self._told:
            self._told.add(str(problem))
            problems.append(problem)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
