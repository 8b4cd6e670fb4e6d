"""Rows that stand in a file as they should are passed over, and nothing else is."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.files import known_rows
from paygate.files.known_rows import KnownRows, pass_over_known
from paygate.files.layout import Column, Layout
from paygate.files.line_stream import LineStream

LAYOUT = Layout("Rows.txt", "Rows.", (Column("id", 6, "key"), Column("state", 6, "what changes")), required_count=2)


def rows_of(count: int, state: str = "unpaid") -> list[tuple[str, str]]:
    return [(f"K{number}", state) for number in range(count)]


def text_of(rows: list[tuple[str, str]]) -> bytes:
    return b"".join(LAYOUT.format_all(rows))


def passed_over(path: Path, data: bytes, rows: list[tuple[str, str]]) -> tuple[KnownRows, LineStream, bytes]:
    """What was found, the stream, and what is left for it to read."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        stream = LineStream(fd)
        known = pass_over_known(stream, LAYOUT, rows)
        assert not stream.is_edited(everywhere=True)
        return known, stream, data[stream.read_to :]
    finally:
        os.close(fd)


def test_a_file_that_says_what_it_should_is_passed_over_whole(tmp_path: Path) -> None:
    rows = rows_of(1_000)
    data = LAYOUT.header + text_of(rows)
    known, stream, rest = passed_over(tmp_path / "file", data, rows)
    assert known.is_whole
    assert not known.others
    assert rest == b""
    assert stream.line_count == data.count(b"\n")
    assert [data[at:].split()[0].decode() for at in known.offsets.values()] == [key for key, _ in rows]


def test_lines_behind_the_rows_are_left(tmp_path: Path) -> None:
    rows = rows_of(3)
    known, _, rest = passed_over(tmp_path / "file", LAYOUT.header + text_of(rows) + b"new|line\nhal", rows)
    assert known.is_whole
    assert rest == b"new|line\nhal"


def test_a_row_that_says_something_else_is_given_and_the_others_are_known(tmp_path: Path) -> None:
    rows = rows_of(600)
    stale = [*rows[:300], ("K300", "paid"), *rows[301:]]
    known, _, rest = passed_over(tmp_path / "file", LAYOUT.header + text_of(stale), rows)
    assert not known.is_whole
    assert [line.raw.split()[0] for line in known.others] == [b"K300"]
    assert len(known.offsets) == 599
    assert rest == b""


def test_lines_of_people_among_the_rows_are_given(tmp_path: Path) -> None:
    rows = rows_of(600)
    data = LAYOUT.header + text_of(rows[:300]) + b"# note\nmine|unpaid\n\n" + text_of(rows[300:])
    known, _, rest = passed_over(tmp_path / "file", data, rows)
    assert known.is_whole
    assert [line.raw for line in known.others] == [b"# note\n", b"mine|unpaid\n", b"\n"]
    assert [data[line.offset :].split(b"\n")[0] + b"\n" for line in known.others] == [x.raw for x in known.others]
    assert len(known.offsets) == 600
    assert rest == b""


def test_a_row_that_is_missing_is_told(tmp_path: Path) -> None:
    rows = rows_of(600)
    known, _, _ = passed_over(tmp_path / "file", LAYOUT.header + text_of([*rows[:5], *rows[6:]]), rows)
    assert not known.is_whole


def test_a_header_of_another_version_is_given(tmp_path: Path) -> None:
    rows = rows_of(3)
    known, _, _ = passed_over(tmp_path / "file", b"# another header\n" + text_of(rows), rows)
    assert not known.is_whole
    assert [line.raw for line in known.others] == [b"# another header\n"]
    assert len(known.offsets) == 3


@given(data=st.data(), read_size=st.sampled_from([1, 7, 64, 4096]))
def test_every_line_is_a_known_row_or_given_or_left(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, read_size: int
) -> None:
    rows = rows_of(8)
    own = LAYOUT.format_all(rows)
    others = [b"# comment\n", b"\n", b"X|unpaid\n", *LAYOUT.format_all(rows_of(8, "paid"))]
    lines = data.draw(st.lists(st.sampled_from([*own, *others]), max_size=20) | st.permutations([*own, *others[:3]]))
    tail = data.draw(st.sampled_from([b"", b"K3", own[3][:-1]]))
    content = LAYOUT.header + b"".join(lines) + tail
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_rows, "READ_SIZE", read_size)
        patch.setattr(known_rows, "_ROW_COUNT", 3)
        known, stream, rest = passed_over(tmp_path_factory.mktemp("known") / "file", content, rows)
    known_lines = [(at, own[int(key[1:])]) for key, at in known.offsets.items()]
    for at, line in known_lines:
        assert content[at : at + len(line)] == line
    pieces = sorted([*known_lines, *((line.offset or 0, line.raw) for line in known.others)])
    assert LAYOUT.header + b"".join(piece for _, piece in pieces) + rest == content
    assert stream.line_count == content[: stream.read_to].count(b"\n")
    if known.is_whole:
        assert sorted(known.offsets) == sorted(key for key, _ in rows)
    else:
        assert len(known.offsets) < len(rows)
