"""What people are told of a file that can't be used."""

import errno
import os
from pathlib import Path

import pytest

from paygate.cli import ExitCode
from paygate.files.added_line import add_line
from paygate.files.file_errors import check_regular, file_named, unusable
from paygate.files.state_dir import StateError
from paygate.files.text_records import Column, Layout

PLACE = Path("state")
LAYOUT = Layout("Merchant.txt", "Merchants.", (Column("id", 4, ""), Column("amount", 4, "")), required_count=2)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number: int) -> None:
    end = unusable(OSError(number, os.strerror(number), "state/Merchant.txt"), PLACE)
    assert (str(end), end.code) == ("no room on the disk for state/Merchant.txt; free some", ExitCode.STORE_FAILED)


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.EISDIR, "; move it away"),
        (errno.EACCES, "let this user read and write"),
        (errno.EIO, "move it away, and"),
    ],
)
def test_everything_else_is_bad_state_with_its_mend(number: int, mend: str) -> None:
    end = unusable(OSError(number, os.strerror(number), "state/Merchant.txt"), PLACE)
    assert str(end).startswith(f"could not use state/Merchant.txt: {os.strerror(number)}; ")
    assert mend in str(end)
    assert end.code is ExitCode.BAD_STATE


def test_an_error_without_a_name_gets_one() -> None:
    assert "could not use state: " in str(unusable(OSError(errno.EIO, "Input/output error"), PLACE))
    with pytest.raises(OSError, match="output") as caught, file_named(PLACE / "x"):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.filename == "state/x"
    assert str(caught.value) == "[Errno 5] Input/output error: 'state/x'"


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    check_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        check_regular(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        check_regular(tmp_path / "pipe")


def test_half_an_added_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / LAYOUT.file_name
    path.write_bytes(LAYOUT.header)
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:8]))
    with pytest.raises(Exception, match="no room on the disk") as caught:
        add_line(tmp_path, LAYOUT, ("M-1", "1000.00"), lambda: None)
    assert not isinstance(caught.value, StateError)
    assert path.read_bytes() == LAYOUT.header
