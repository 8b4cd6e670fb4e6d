"""The text records against the database: every line and every row, in both directions."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paygate.audit.findings import Check, Finding, check_of
from paygate.files.text_records import FieldProblem, Layout

REBUILT: Final = "start the server, which brings it in step with the database"
"""What mends a text record: the database is what counts."""
_READ_SIZE: Final = 1 << 20

Fields = tuple[str, ...]


@dataclass(slots=True)
class TextFile:
    """One record file and what it should say."""

    directory: Path
    layout: Layout
    key_column: str
    """The column that says which row a line is."""
    rows: Iterable[Fields]
    """What the database says, in the order of the file as far as it can be known."""
    is_known_elsewhere: Callable[[Fields], bool] = lambda _: False
    """Whether a line is of something that only the file knows, as refused attempts."""
    is_shared: bool = False
    """Whether people add lines, which wait to be taken in."""
    unknown_remedy: str = REBUILT
    """What to do about a line of which the database knows nothing."""
    remarks: list[str] = field(default_factory=list)
    count: int = 0

    def check(self) -> Check:
        """Look at the whole file."""
        found = list(self._findings())
        result = "say what the database says"
        return check_of(f"lines of {self.layout.file_name}", result, found, lambda: self.count, self.remarks)

    def _findings(self) -> Iterator[Finding]:
        key_index = [column.name for column in self.layout.columns].index(self.key_column)
        lines_left: dict[str, tuple[int, Fields]] = {}
        rows_left: dict[str, Fields] = {}
        rows = iter(self.rows)
        seen_twice: list[tuple[int, str]] = []
        waiting_count = 0
        try:
            for number, line in text_lines(self.directory / self.layout.file_name):
                try:
                    fields = self.layout.parse(line)
                except FieldProblem as bad:
                    problem = self.layout.problem(number, bad)
                    if self.is_shared:
                        self.remarks.append(f"{problem}; the line waits to be mended")
                    else:
                        yield self._finding(number, f"can't be read: {problem}", "a row as the server writes it")
                    continue
                self.count += 1
                if self.is_known_elsewhere(fields):
                    continue
                key = fields[key_index]
                row = next(rows, None)
                if row is not None and row[key_index] == key:
                    yield from self._compare(number, fields, row)
                    continue
                # Lines and rows that are not side by side wait for each other.
                if row is not None:
                    rows_left[row[key_index]] = row
                if key in lines_left:
                    seen_twice.append((number, key))
                lines_left[key] = number, fields
                for left in {key, *([row[key_index]] if row else [])}:
                    if left in lines_left and left in rows_left:
                        yield from self._compare(*lines_left.pop(left), rows_left.pop(left))
        except FileNotFoundError:
            yield Finding(self.layout.file_name, "file", "", "is not there", "the file", REBUILT)
            return
        except OSError as error:
            yield Finding(self.layout.file_name, "file", "", f"can't be read ({error.strerror})", "the file", REBUILT)
            return
        for row in rows:
            rows_left[row[key_index]] = row
        for key in lines_left.keys() & rows_left.keys():
            yield from self._compare(*lines_left.pop(key), rows_left.pop(key))
        for key in rows_left:
            yield self._finding(0, f"has no line of {self.key_column} {key}", "a line for each row of the database")
        for number, key in seen_twice:
            yield self._finding(number, f"is one more of {self.key_column} {key}", "one line each")
        for number, _ in lines_left.values():
            if self.is_shared:
                waiting_count += 1
            else:
                yield self._finding(
                    number, "is of no row, or of one that has a line", "a row of it for each line", self.unknown_remedy
                )
        if waiting_count:
            self.remarks.append(f"{self.layout.file_name}: {waiting_count} new lines wait to be taken in")

    def _compare(self, number: int, fields: Fields, row: Fields) -> Iterator[Finding]:
        for column, said, expected in zip(self.layout.columns, fields, row, strict=True):
            if said != expected:
                shown = "(not shown)" if column.secret else expected or "nothing"
                yield self._finding(number, f"says another {column.name} than the database", shown)

    def _finding(self, number: int, problem: str, expected: str, remedy: str = REBUILT) -> Finding:
        place = ("line", str(number)) if number else ("file", "")
        return Finding(self.layout.file_name, *place, problem, expected, remedy)


def text_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every line that is no comment; reading changes nothing. Raises OSError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.lstrip().startswith(b"#"):
                yield number, line
