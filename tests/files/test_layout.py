"""How records look, and what is said of bad ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.escape import escape_field
from paygate.files.layout import is_plain
from paygate.files.text_records import LINE, ROW_SIZE_MAX, Column, FieldProblem, Layout

TOKENS = Layout(
    "PaymentTokensData.txt",
    "Payment tokens; add a line at the end to share one.",
    (
        Column("transaction ID", 16, "what the shopper types"),
        Column("passcode", 8, "known to shopper and merchant", secret=True),
        Column("state", 9, "unpaid, in flight or paid"),
        Column("amount", 15, "with two decimals", align="right"),
        Column("merchant", 10, "merchant ID"),
    ),
    required_count=4,
)
FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_a_row_looks_like_this() -> None:
    row = TOKENS.format(["TX-1001", "4321", "unpaid", "1250.00", "M-100"])
    assert row == b"TX-1001          | 4321     | unpaid    |         1250.00 | M-100     \n"


def test_the_header_says_what_the_file_holds() -> None:
    lines = TOKENS.header.decode().splitlines()
    assert lines[0] == "# Payment tokens; add a line at the end to share one."
    assert lines[2] == "#   passcode: known to shopper and merchant"
    assert lines[-1] == "# transaction ID | passcode | state     | amount          | merchant"
    assert all(line.startswith("#") for line in lines)


@given(st.lists(FIELD, min_size=5, max_size=5))
def test_a_row_comes_back(fields: list[str]) -> None:
    row = TOKENS.format(fields)
    assert TOKENS.parse(row) == tuple(fields)
    assert row.count(b"\n") == 1
    assert not row.strip().startswith(b"#")
    assert row.strip()


def test_the_start_of_a_row_is_known_by_its_padding() -> None:
    row = TOKENS.format(["TX-1001", "4321", "unpaid", "1250.00", "M-100"]).rstrip(b"\n")
    assert not TOKENS.may_be_cut(row)
    for size in range(len(row)):
        assert TOKENS.may_be_cut(row[:size]), row[:size]
    for line in (
        b"TX-1001 | 4321 | unpaid | 1250.00 | M-100",
        b"TX-1|4321|unpaid|1",
        b"TX-1001          |4321|unpaid|1",
    ):
        assert not TOKENS.may_be_cut(line)


def test_a_refusal_warns_where_a_secret_may_be_left() -> None:
    bad = FieldProblem("amount", "a number", "x")
    assert TOKENS.refusal(7, bad) == (
        'PaymentTokensData.txt line 7, amount: expected a number, got "x"; the line is skipped; '
        "it may hold a secret in clear: mend or remove it"
    )
    open_layout = Layout("Merchant.txt", "Merchants.", (Column("id", 4, ""), Column("amount", 4, "")), required_count=2)
    assert open_layout.refusal(7, bad).endswith("; the line is skipped")


def test_trailing_columns_may_be_missing_in_lines_of_people() -> None:
    assert TOKENS.parse(b"TX-1|4321|  unpaid |\t1250.00\r\n") == ("TX-1", "4321", "unpaid", "1250.00", "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"TX-1 | 4321 | unpaid", "4 to 5 columns with | between them, got 3"),
        (b"a|b|c|d|e|f", "4 to 5 columns with | between them, got 6"),
        (b"a|b|\xff|d", "UTF-8 text, got other bytes at position 5"),
        (b"a|b|\0\0|d", "text, got zero bytes, as a power cut leaves them"),
        (b"a|b|c|" + b"d" * ROW_SIZE_MAX, f"at most {ROW_SIZE_MAX} bytes, got {ROW_SIZE_MAX + 6}"),
    ],
)
def test_a_line_that_is_no_record(line: bytes, expected: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        TOKENS.parse(line)
    problem = TOKENS.problem(7, caught.value)
    assert str(problem) == f"PaymentTokensData.txt line 7, line: expected {expected}"


def test_a_problem_names_file_line_column_and_what_was_there() -> None:
    bad = FieldProblem("amount", "a decimal amount greater than 0", "12.345")
    assert (
        str(TOKENS.problem(7, bad))
        == 'PaymentTokensData.txt line 7, amount: expected a decimal amount greater than 0, got "12.345"'
    )
    assert TOKENS.problem(7, FieldProblem("amount", "an amount", "")).got == "nothing"
    assert TOKENS.problem(7, FieldProblem("amount", "an amount", "x\n" * 99)).got == '"' + r"x\x0a" * 20 + '..."'


@pytest.mark.parametrize("column", ["passcode", "a column that nobody declared"])
def test_a_secret_is_in_no_message(column: str) -> None:
    bad = FieldProblem(column, "4 digits", "hunter2")
    assert "hunter2" not in str(TOKENS.problem(7, bad))
    assert "hunter2" not in str(bad)
    assert "hunter2" not in repr(bad)
    assert TOKENS.problem(7, FieldProblem(LINE, "x", "3")).got == "3"


def test_a_changed_row_keeps_its_size() -> None:
    row = TOKENS.format(["TX-1", "4321", "unpaid", "1250.00", "M-100"])
    changed = TOKENS.change(row + b"the next row", "TX-1", {"state": "paid", "amount": "1.00", "merchant": "M-2"})
    assert changed == TOKENS.format(["TX-1", "4321", "paid", "1.00", "M-2"])


@pytest.mark.parametrize(
    "line",
    [
        b"TX-2             | 4321     | unpaid    |         1250.00 | M-100     \n",  # another key
        b"TX-1 | 4321 | up | 1250.00 | M-100\n",  # no room
        b"TX-1             | 4321     | unpaid    |         1250.00\n",  # a column is missing
        b"TX-1             | 4321     | unpaid    |         1250.00 | M-100",  # cut
        b"\xff | 4321     | unpaid    |         1250.00 | M-100     \n",
        b"",
    ],
)
def test_a_row_that_somebody_edited_is_not_changed(line: bytes) -> None:
    assert TOKENS.change(line, "TX-1", {"state": "paid"}) is None


def test_bytes_count_when_a_text_is_put_in_place() -> None:
    row = TOKENS.format(["TX-1", "4321", "unpaid", "1.00", "M-100"])
    assert TOKENS.change(row, "TX-1", {"merchant": "é" * 5}) is not None
    assert TOKENS.change(row, "TX-1", {"merchant": "é" * 6}) is None


def test_a_text_wider_than_its_column_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="column state"):
        TOKENS.change(b"", "TX-1", {"state": "being paid"})
    with pytest.raises(KeyError):
        TOKENS.change(b"", "TX-1", {"colour": "red"})
    with pytest.raises(ValueError, match="over 4096"):
        TOKENS.format(["x" * ROW_SIZE_MAX, "", "", "", ""])
    with pytest.raises(ValueError, match="zip"):
        TOKENS.format(["too few"])


@pytest.mark.parametrize("company", ["", "é"])
def test_what_is_plain_needs_no_escape(company: str) -> None:
    for code in range(0x300):
        fields = [f"a{chr(code)}b", company]
        assert is_plain(fields) == (escape_field(fields[0]) == fields[0] and chr(code) != "#")
    assert not is_plain(["a ", company])
    assert not is_plain([" a", company])
    assert is_plain(["a b", company])
