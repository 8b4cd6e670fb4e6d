"""How a text record looks: one line of padded columns with `|` between them (R13-R18).

    TX-1001          | 4321     | unpaid    |         1250.00 | M-100

White space around a field counts for nothing on reading. Blank lines and lines that begin with `#` are
comments. What a field may not contain is escaped (`paygate.escape`), so one record is always one line.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Final, Literal, TypeVar

from paygate.escape import escape_field, escape_line, unescape_field

ROW_SIZE_MAX = 4096
"""Bytes in one line, newline included: a few hundred are usual, and one read fetches a row to change."""

SHOWN_COUNT_MAX = 40
"""Characters of a bad field that an error shows: enough to recognise it."""

_R = TypeVar("_R", bound=Sequence[str])
_BATCH_COUNT: Final = 256
"""Rows that are checked and formatted at once while a whole file is built."""
_PLAIN_ASCII: Final = bytes(code for code in range(0x20, 0x7F) if code not in b"\\#")

LINE: Final = "line"
"""Stands for the whole line where a problem names a column. `got` then never holds the line's text."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `secret` keeps its contents out of every message (T19)."""

    name: str
    width: int
    """Characters it is padded to. A wider field is written whole, and its line is out of step."""
    doc: str
    """What it holds, one line for the people who read or write the file."""
    align: Literal["left", "right"] = "left"
    secret: bool = False

    @property
    def template(self) -> str:
        """For `%`: pads a text that needs no escape."""
        return f"%{'' if self.align == 'right' else '-'}{self.width}s"


class FieldProblem(Exception):
    """A converter's word that one field of a line is bad. Its own text leaves out what was there."""

    def __init__(self, column: str, expected: str, got: str) -> None:
        super().__init__(f"{column}: expected {expected}")
        self.column = column
        self.expected = expected
        self.got = got


@dataclass(frozen=True, slots=True)
class LineProblem:
    """A line that can't be used, told to people; `got` is already masked if the column is secret."""

    file: str
    line_number: int
    """Counted from 1; 0 where the line is no longer in the file."""
    column: str
    expected: str
    got: str

    def __str__(self) -> str:
        place = f"{self.file} line {self.line_number}" if self.line_number else self.file
        return f"{place}, {self.column}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class Layout:
    """The columns of one record file, and the one way of writing and reading its lines."""

    file_name: str
    title: str
    """One line: what the file holds."""
    columns: tuple[Column, ...]
    required_count: int
    """Columns that every line has; those after them may be missing in lines that people write."""

    def __post_init__(self) -> None:
        assert 1 <= self.required_count <= len(self.columns)
        assert len(self.columns) >= 2, "a lone empty field would be a blank line, which is a comment"
        assert len({column.name for column in self.columns}) == len(self.columns)

    @cached_property
    def header(self) -> bytes:
        """The comments that a file of ours begins with: what it holds, each column, the column names."""
        names = [column.name.ljust(column.width) for column in self.columns]
        names[0] = f"# {self.columns[0].name}".ljust(self.columns[0].width)
        lines = [f"# {self.title}"]
        lines += [f"#   {column.name}: {column.doc}" for column in self.columns]
        lines.append(" | ".join(names).rstrip())
        return "".join(f"{escape_line(line)}\n" for line in lines).encode()

    def format(self, fields: Sequence[str]) -> bytes:
        """The line for one record: every column, padded, with its newline.

        Raises ValueError if the count of fields is wrong or the line is over ROW_SIZE_MAX.
        """
        return self.format_all([fields])[0]

    def format_all(self, rows: Sequence[Sequence[str]]) -> list[bytes]:
        """`format` for many records, which costs less for each."""
        fields = list(chain.from_iterable(rows))
        if is_plain(fields) and all(len(row) == len(self.columns) for row in rows):
            # All at once; no field has a line's end in it.
            lines = (self._template * len(rows) % tuple(fields)).encode().splitlines(keepends=True)
        else:
            lines = [self._format_escaped(row) for row in rows]
        size_max = max(map(len, lines), default=0)
        if size_max > ROW_SIZE_MAX:
            raise ValueError(f"{self.file_name}: a row of {size_max} bytes is over {ROW_SIZE_MAX}")
        return lines

    def formatted(self, rows: Iterable[_R]) -> Iterator[tuple[_R, bytes]]:
        """Each of any number of records with its line, while few are in memory. Raises as `format` does."""
        iterator = iter(rows)
        while batch := list(islice(iterator, _BATCH_COUNT)):
            yield from zip(batch, self.format_all(batch), strict=True)

    @cached_property
    def _template(self) -> str:
        return f"{' | '.join(column.template for column in self.columns)}\n"

    def _format_escaped(self, fields: Sequence[str]) -> bytes:
        cells = [_pad(column, escape_field(field)) for column, field in zip(self.columns, fields, strict=True)]
        if cells[0].startswith("#"):
            cells[0] = _pad(self.columns[0], f"\\x23{escape_field(fields[0])[1:]}")  # it is no comment
        return f"{' | '.join(cells)}\n".encode()

    def parse(self, line: bytes) -> tuple[str, ...]:
        """The fields of a line that is no comment, one for each column; "" where a trailing one is missing.

        Raises FieldProblem.
        """
        if len(line) > ROW_SIZE_MAX:
            raise FieldProblem(LINE, f"at most {ROW_SIZE_MAX} bytes", f"{len(line)}")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise FieldProblem(LINE, "UTF-8 text", f"other bytes at position {error.start + 1}") from None
        if "\0" in text:
            raise FieldProblem(LINE, "text", "zero bytes, as a power cut leaves them")
        fields = tuple(unescape_field(field.strip()) for field in text.split("|"))
        count = len(self.columns)
        if not self.required_count <= len(fields) <= count:
            wanted = f"{count}" if self.required_count == count else f"{self.required_count} to {count}"
            raise FieldProblem(LINE, f"{wanted} columns with | between them", f"{len(fields)}")
        return fields + ("",) * (count - len(fields))

    def problem(self, line_number: int, bad: FieldProblem) -> LineProblem:
        """What to tell people about a bad field, masked if its column is secret or unknown (fail closed)."""
        public = {column.name for column in self.columns if not column.secret}
        if bad.column == LINE:
            got = bad.got
        elif bad.column not in public:
            got = "something else (not shown)"
        elif not bad.got:
            got = "nothing"
        else:
            shown = bad.got if len(bad.got) <= SHOWN_COUNT_MAX else f"{bad.got[:SHOWN_COUNT_MAX]}..."
            got = f'"{escape_line(shown)}"'
        return LineProblem(self.file_name, line_number, bad.column, bad.expected, got)

    def refusal(self, line_number: int, bad: FieldProblem) -> str:
        """What to tell people about a line that is not taken in, and so stays as its writer wrote it (T19)."""
        text = f"{self.problem(line_number, bad)}; the line is skipped"
        if any(column.secret for column in self.columns):
            text += "; it may hold a secret in clear: mend or remove it"
        return text

    def may_be_cut(self, line: bytes) -> bool:
        """Whether a line without its newline may be the start of a row of ours that a crash cut short.

        Rows of ours are padded; what people write seldom is, to the blank.
        """
        *cells, last = line.decode(errors="replace").split(" | ")
        if "|" in last[:-1]:  # at its end it may be half a separator
            return False
        is_padded = all(cell == _pad(column, cell.strip()) for column, cell in zip(self.columns, cells, strict=False))
        if len(cells) + 1 != len(self.columns):
            return is_padded and len(cells) < len(self.columns)
        return is_padded and last != _pad(self.columns[-1], last.strip())

    def change(self, line: bytes, key: str, changes: Mapping[str, str]) -> bytes | None:
        """The line with some columns changed and its size kept, so that it can be written in place.

        `line` is a complete row whose first field must be `key`, followed by anything. None if it is not, or
        has no room: somebody edited it, and the file must be rebuilt. Raises ValueError if a text is wider
        than its column, KeyError for an unknown column.
        """
        index_of = {column.name: index for index, column in enumerate(self.columns)}
        texts = {index_of[name]: escape_field(text) for name, text in changes.items()}
        assert 0 not in texts, "the first column is the key, and a key is never changed"
        for index, text in texts.items():
            column = self.columns[index]
            if len(text) > column.width:
                raise ValueError(f"{self.file_name}: {len(text)} characters for column {column.name}")
        end = line.find(b"\n")
        cells = line[:end].split(b"|")
        if end < 0 or len(cells) != len(self.columns) or not _is_key(cells[0], key):
            return None
        for index, text in texts.items():
            # Counted in bytes, because bytes are what the line has room for.
            margins = (index > 0) + (index < len(cells) - 1)
            room = len(cells[index]) - margins
            data = text.encode()
            if len(data) > room:
                return None
            padded = data.rjust(room) if self.columns[index].align == "right" else data.ljust(room)
            cells[index] = b" " * (index > 0) + padded + b" " * (index < len(cells) - 1)
        return b"|".join(cells) + b"\n"


def is_plain(fields: Sequence[str]) -> bool:
    """Whether all of these may stand in a row as they are. False for some that may, since `#` matters in few places.

    Asked of many at once, since that costs less than asking `escape_field` for each.
    """
    joined = f"|{'|'.join(fields)}|"
    if joined.isascii():  # `isprintable` asks for each character by itself, and takes five times as long.
        are_plain = not joined.encode().translate(None, _PLAIN_ASCII)
    else:
        are_plain = joined.isprintable() and "\\" not in joined and "#" not in joined
    return (
        are_plain
        and joined.count("|") == len(fields) + 1
        and (" " not in joined or (" |" not in joined and "| " not in joined))
    )


def _pad(column: Column, text: str) -> str:
    return text.rjust(column.width) if column.align == "right" else text.ljust(column.width)


def _is_key(cell: bytes, key: str) -> bool:
    try:
        return unescape_field(cell.decode().strip()) == key
    except UnicodeDecodeError:
        return False
