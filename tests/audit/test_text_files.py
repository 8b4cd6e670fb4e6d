"""Text records against rows, in both directions, in whatever order they are."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from paygate.audit.text_files import TextFile
from paygate.files.text_records import Column, Layout

LAYOUT = Layout(
    "Things.txt",
    "Things.",
    (Column("key", 6, "which"), Column("secret", 8, "hidden", secret=True), Column("amount", 8, "how much")),
    required_count=3,
)
ROWS = [(f"K{number}", f"s{number}", str(number)) for number in range(9)]


def text_file(
    directory: Path, lines: Iterable[Sequence[str]], *, extra: bytes = b"", is_shared: bool = False
) -> TextFile:
    (directory / LAYOUT.file_name).write_bytes(LAYOUT.header + b"".join(LAYOUT.format_all(list(lines))) + extra)
    return TextFile(directory, LAYOUT, "key", iter(ROWS), is_shared=is_shared)


def problems(file: TextFile) -> list[str]:
    return [f"{f.table} {f.row} {f.problem} ({f.expected})" for f in file.check().findings]


def test_the_same_rows_in_any_order_are_as_they_should_be(tmp_path: Path) -> None:
    for seed in range(20):
        lines = random.Random(seed).sample(ROWS, len(ROWS))
        check = text_file(tmp_path, lines).check()
        assert (check.findings, check.count) == ((), len(ROWS)), seed


FIRST_LINE = LAYOUT.header.count(b"\n") + 1


@pytest.mark.parametrize("seed", range(5))
def test_what_differs_is_named_with_its_line_and_secrets_are_not_shown(tmp_path: Path, seed: int) -> None:
    lines = [("K3", "s3", "4"), ("K5", "other", "5"), *ROWS[:3], ROWS[4], *ROWS[6:]]
    random.Random(seed).shuffle(lines)
    line_of = {line[0]: FIRST_LINE + number for number, line in enumerate(lines)}
    assert sorted(problems(text_file(tmp_path, lines))) == sorted(
        [
            f"line {line_of['K3']} says another amount than the database (3)",
            f"line {line_of['K5']} says another secret than the database ((not shown))",
        ]
    )


def test_lines_and_rows_without_each_other_are_found(tmp_path: Path) -> None:
    lines = [*ROWS[:4], ("K99", "s", "1"), *ROWS[5:], ROWS[7]]
    assert sorted(problems(text_file(tmp_path, lines))) == [
        "file  has no line of key K4 (a line for each row of the database)",
        f"line {FIRST_LINE + 4} is of no row, or of one that has a line (a row of it for each line)",
        f"line {FIRST_LINE + 9} is of no row, or of one that has a line (a row of it for each line)",
    ]
    (finding, *_) = text_file(tmp_path, [*ROWS, ("K99", "s", "1")]).check().findings
    assert finding.file == "Things.txt"
    assert finding.remedy == "start the server, which brings it in step with the database"


def test_a_line_that_is_none_is_a_fault_in_our_own_file_and_waits_in_a_shared_one(tmp_path: Path) -> None:
    (problem,) = problems(text_file(tmp_path, ROWS, extra=b"half a li\n"))
    assert problem.startswith(
        f"line {FIRST_LINE + 9} can't be read: Things.txt line {FIRST_LINE + 9}, line: expected 3"
    )
    check = text_file(tmp_path, ROWS, extra=b"half a li\nK77|new|1\n", is_shared=True).check()
    assert check.findings == ()
    assert [remark.split("; ")[-1] for remark in check.remarks] == [
        "the line waits to be mended",
        "Things.txt: 1 new lines wait to be taken in",
    ]


def test_a_file_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    (finding,) = TextFile(tmp_path, LAYOUT, "key", iter(ROWS)).check().findings
    assert (finding.file, finding.problem) == ("Things.txt", "is not there")
