"""Rows are changed where they stand, exactly as `Layout.change` would have them, and never anybody's edited line."""

import os
import random
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.escape import escape_field
from paygate.files import in_place
from paygate.files.in_place import RUN_COUNT_MAX, ChangingColumns
from paygate.files.text_records import ROW_SIZE_MAX, Column, Layout

LAYOUT = Layout(
    "PaymentTokensData.txt",
    "Payment tokens.",
    (
        Column("id", 8, "transaction ID"),
        Column("state", 9, "unpaid or paid"),
        Column("amount", 8, "whole number", align="right"),
        Column("UTR", 6, "when paid"),
        Column("name", 5, "for people"),
    ),
    required_count=3,
)
STATE_AND_UTR = ChangingColumns(LAYOUT, "state", "UTR")
EVERY_SET = [
    STATE_AND_UTR,
    ChangingColumns(LAYOUT, "amount"),
    ChangingColumns(LAYOUT, "state", "amount", "UTR", "name"),
    ChangingColumns(LAYOUT, "name"),
]
TEXT = st.text(st.sampled_from("ab12.-é|\\# "), max_size=5)
KEY = st.text(st.sampled_from("ab1é|#"), min_size=1, max_size=9)
NARROW_TEXT = TEXT.filter(lambda text: len(escape_field(text)) <= 5)
TOGETHER = st.sampled_from([1, in_place.TOGETHER_COUNT_MIN])
LINES = st.lists(st.tuples(KEY, TEXT, TEXT, TEXT, st.text(st.sampled_from("ab é"), max_size=7)), max_size=6)


class File:
    """A file of these bytes, and what was told of writes to it."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.write(self.fd, data)
        self.told: list[int] = []

    def apply(self, columns: ChangingColumns, changes: list[tuple[int, str, list[str]]]) -> set[int]:
        return columns.apply(self.fd, self.fd, changes, self._will_write)

    def _will_write(self, offset: int, old: bytes, new: bytes) -> None:
        assert len(old) == len(new)
        assert os.pread(self.fd, len(old), offset) == old
        self.told.append(offset)

    def read(self) -> bytes:
        return os.pread(self.fd, 1 << 20, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def rows_of(count: int) -> list[bytes]:
    return LAYOUT.format_all([(f"TX-{n}", "unpaid", str(n), "", "books") for n in range(count)])


@given(
    st.sampled_from(EVERY_SET),
    LINES,
    st.lists(NARROW_TEXT, min_size=4, max_size=4),
    st.sets(st.integers(0, 5)),
    st.booleans(),
    TOGETHER,
)
def test_any_rows_are_changed_as_a_layout_changes_them(
    tmp_path_factory: pytest.TempPathFactory,
    columns: ChangingColumns,
    lines: list[tuple[str, ...]],
    texts: list[str],
    chosen: set[int],
    is_shifted: bool,
    together_count_min: int,
) -> None:
    rows = LAYOUT.format_all(lines)
    expected, changes, missing, offset = b"", [], set(), 0
    for index, (fields, row) in enumerate(zip(lines, rows, strict=True)):
        new: bytes | None = row
        if index in chosen:
            at = offset + is_shifted
            changes.append((at, fields[0], texts[: len(columns.names)]))
            new = None if is_shifted else LAYOUT.change(row, fields[0], dict(zip(columns.names, texts, strict=False)))
            missing |= {at} if new is None else set()
        expected += new or row
        offset += len(row)
    file = File(tmp_path_factory.getbasetemp() / "rows", b"".join(rows))
    random.Random(1).shuffle(changes)
    with patch.object(in_place, "TOGETHER_COUNT_MIN", together_count_min):
        assert file.apply(columns, changes) == missing
    assert file.read() == expected
    os.close(file.fd)


def test_rows_side_by_side_are_one_read_and_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(2 * RUN_COUNT_MAX)
    size = len(rows[0])
    file = File(path, b"".join(rows))
    calls: list[str] = []
    real_pread, real_pwrite = os.pread, os.pwrite

    def pread(fd: int, size: int, offset: int) -> bytes:
        calls.append("pread")
        return real_pread(fd, size, offset)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        calls.append("pwrite")
        return real_pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "pwrite", pwrite)

    def change(*numbers: int) -> list[str]:
        calls.clear()
        assert columns.apply(file.fd, file.fd, [(n * size, f"TX-{n}", ["paid", "U1"]) for n in numbers]) == set()
        return calls.copy()

    columns = STATE_AND_UTR
    assert change(5, 3, 4) == ["pread", "pwrite"]
    assert change(1, 3, 4) == ["pread", "pwrite"] * 2
    assert change(*range(2 * RUN_COUNT_MAX)) == ["pread", "pwrite"] * 2
    monkeypatch.undo()
    assert file.read() == b"".join(
        LAYOUT.format_all([(f"TX-{n}", "paid", str(n), "U1", "books") for n in range(len(rows))])
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda row: row.replace(b"TX-1", b"TX-9"),
        lambda row: row.replace(b"unpaid   ", b"unpaid"),
        lambda row: row[:11] + b"x" + row[11:-2] + b"\n",  # a character more at the start, one less at the end
        lambda row: row.replace(b"books\n", b"b\n# x\n"),  # another line is in its place
        lambda row: row.replace(b" | unpaid", b"unpaid | "),
        lambda row: row[:-10] + b"|" * 9 + b"\n",
        lambda row: b"# " + row[2:],
        lambda row: b"",
    ],
)
@pytest.mark.parametrize("count", [3, in_place.TOGETHER_COUNT_MIN + 2])
def test_nothing_is_written_into_a_line_that_somebody_edited(path: Path, edit: object, count: int) -> None:
    assert callable(edit)
    rows = rows_of(count)
    offset = len(rows[0])
    data = rows[0] + edit(rows[1]) + b"".join(rows[2:])
    file = File(path, data)
    changes = [(n * offset, f"TX-{n}", ["paid", "U1"]) for n in range(count)]
    file.apply(STATE_AND_UTR, changes)
    lines = data.splitlines(keepends=True)
    for before, after in zip(lines, file.read().splitlines(keepends=True), strict=True):
        # Either the row says what it should, or nothing of the line has changed.
        key = before.split()[0].decode()
        assert after == before or after == LAYOUT.change(before, key, {"state": "paid", "UTR": "U1"})
    assert [line for line in lines if line.startswith(b"# ")] == [
        line for line in file.read().splitlines(keepends=True) if line.startswith(b"# ")
    ]


def test_a_text_wider_than_its_column_is_our_own_fault(path: Path) -> None:
    file = File(path, b"".join(rows_of(1)))
    with pytest.raises(ValueError, match="column state"):
        file.apply(STATE_AND_UTR, [(0, "TX-0", ["being paid", ""])])
    assert file.told == []


def test_many_rows_look_as_each_alone() -> None:
    rows = [("TX-1", "paid", "1", "U1", "books"), ("#2", "a|b", "\\", " x ", ""), ("TX-3", "", "", "", "é\n")]
    assert LAYOUT.format_all(rows) == [LAYOUT.format(row) for row in rows]
    assert LAYOUT.format_all([]) == []
    with pytest.raises(ValueError, match="zip"):
        LAYOUT.format_all([rows[0], rows[0][:3], (*rows[0], "1", "2")])
    with pytest.raises(ValueError, match="over 4096"):
        LAYOUT.format_all([rows[0], ("x" * ROW_SIZE_MAX, "", "", "", "")])
    many = [(f"TX-{n}", "paid", str(n), "", "") for n in range(1000)]
    assert list(LAYOUT.formatted(iter(many))) == [(row, LAYOUT.format(row)) for row in many]
