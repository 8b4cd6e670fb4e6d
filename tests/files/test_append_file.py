"""A log of our own: LogFiles.txt and its like."""

import errno
import os
from pathlib import Path

import pytest

from paygate.files import append_file
from paygate.files.text_records import AppendFile, ChangingColumns, Column, Layout, LineProblem

LOG = Layout(
    "LogFiles.txt",
    "Every client.",
    (Column("id", 6, "connection"), Column("address", 12, "from where"), Column("ended", 8, "why")),
    required_count=3,
)
ENDED = ChangingColumns(LOG, "ended")


def rows_of(file: AppendFile) -> list[tuple[str, ...]]:
    return [row.fields for row in file.rows()]


def test_rows_of_a_tick_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path, LOG)
    writes = []
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    offsets = file.append([["1", "127.0.0.1", ""], ["2", "127.0.0.2", ""]])
    assert len(writes) == 1
    assert [row.offset for row in file.rows()] == offsets
    assert file.append([]) == []
    assert len(writes) == 1
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.close()


def test_a_field_is_filled_in_later(tmp_path: Path) -> None:
    file = AppendFile(tmp_path, LOG)
    first, second = file.append([["1", "a", ""], ["2", "b", ""]])
    before = file.path.read_bytes()
    assert file.update(ENDED, [(first, "1", ["left"])]) == set()
    assert rows_of(file) == [("1", "a", "left"), ("2", "b", "")]
    assert len(file.path.read_bytes()) == len(before)
    assert file.update(ENDED, [(second, "1", ["left"]), (first, "1", ["gone"])]) == {second}
    assert rows_of(file) == [("1", "a", "gone"), ("2", "b", "")]
    assert file.update(ENDED, [(first + 1, "1", ["left"])]) == {first + 1}
    with pytest.raises(ValueError, match="column ended"):
        file.update(ENDED, [(first, "1", ["far too long"])])
    file.close()


def test_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    file = AppendFile(tmp_path, LOG)
    file.append([["1", "a", "left"]])
    file.close()
    again = AppendFile(tmp_path, LOG)
    again.append([["2", "b", "left"]])
    assert [row[0] for row in rows_of(again)] == ["1", "2"]
    assert again.path.read_bytes().count(LOG.header) == 1
    again.close()


def test_a_row_cut_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    file = AppendFile(tmp_path, LOG)
    file.append([["1", "a", "left"]])
    file.close()
    with file.path.open("ab") as torn:
        torn.write(b"2      | 127")
    again = AppendFile(tmp_path, LOG)
    again.append([["3", "c", "left"]])
    problems: list[LineProblem] = []
    found = list(again.rows(problems.append))
    assert [row.fields[0] for row in found] == ["1", "3"]
    assert [problem.line_number for problem in problems] == [LOG.header.count(b"\n") + 2]
    assert found[-1].line_number == problems[0].line_number + 1
    again.close()


def test_a_full_disk_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path, LOG)
    file.append([["1", "a", "left"]])
    real_write = os.write

    def write_some_then_fail(fd: int, data: bytes) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data[:40])

    monkeypatch.setattr(os, "write", write_some_then_fail)
    with pytest.raises(OSError, match="No space"):
        file.append([["2", "b", "left"], ["3", "c", "left"]])
    monkeypatch.undo()
    assert [row[0] for row in rows_of(file)] == ["1"]
    file.append([["4", "d", "left"]])
    assert [row[0] for row in rows_of(file)] == ["1", "4"]
    file.close()


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / LOG.file_name
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        AppendFile(tmp_path, LOG)
    assert caught.value.filename == str(path)


def test_every_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path, LOG)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    for name, work in (
        ("write", lambda: file.append([["1", "a", ""]])),
        ("pread", lambda: file.update(ENDED, [(0, "1", ["left"])])),
        ("pread", lambda: list(file.rows())),
        ("fsync", lambda: file.rewrite([])),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="Input/output") as caught:
                work()
        assert caught.value.filename == str(file.path)
    file.close()


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path, LOG)
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:7]))
    offsets = file.append([["1", "a", "left"], ["2", "b", "left"]])
    monkeypatch.undo()
    assert [row.offset for row in file.rows()] == offsets
    file.close()


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def cut(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [remove, replace, cut])
def test_a_file_taken_away_is_noticed(harm: object, tmp_path: Path) -> None:
    assert callable(harm)
    file = AppendFile(tmp_path, LOG)
    file.append([["1", "a", "left"]])
    assert not file.check()
    harm(file.path)
    assert file.check()
    assert not file.check()
    file.append([["2", "b", "left"]])
    assert rows_of(file)[-1] == ("2", "b", "left")
    assert file.path.read_bytes().count(LOG.header) == 1
    file.close()


def test_a_rebuild_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path, LOG)
    file.append([["1", "a", "left"]])
    before = file.path.read_bytes()

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            file.rewrite([["9", "z", "left"]])
    assert file.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["LogFiles.txt"]
    offsets = file.rewrite([["7", "x", ""], ["8", "y", ""]])
    assert file.update(ENDED, [(offsets[1], "8", ["left"])]) == set()
    file.append([["9", "z", ""]])
    assert rows_of(file) == [("7", "x", ""), ("8", "y", "left"), ("9", "z", "")]
    file.close()


def test_a_long_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path, LOG)
    offsets = file.append([[str(index), "a", "left"] for index in range(100)])
    monkeypatch.setattr(append_file, "WRITE_SIZE", 37)
    found = list(file.rows())
    assert [row.offset for row in found] == offsets
    assert [row.fields[0] for row in found] == [str(index) for index in range(100)]
    file.close()
