"""Adding a line to a shared record as people do (R13, R16, R17), and seeing to it that it is taken in.

For the commands of bank and gateway. They go the same way as everybody's lines, so they work whether a server runs
or not, and need no second door into its database.
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from paygate.escape import escape_field
from paygate.files.file_errors import file_named, unusable
from paygate.files.layout import FieldProblem, Layout
from paygate.files.state_dir import StateDir, StateError

WAIT_S: Final = 10
"""A running server looks once a second; a password costs it an Argon2id more."""
_WAIT_STEP_S: Final = 0.05


def read_rows(directory: Path, layout: Layout) -> list[tuple[str, ...]]:
    """The rows of a record file. Lines that are none are left out: they are the server's to report.

    Raises PaygateExit.
    """
    path = directory / layout.file_name
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise StateError(f"there is no {path}; is --state right, and was the server ever started?") from None
    except OSError as error:
        raise unusable(error, path) from None
    rows = []
    for line in lines:
        if line.strip() and not line.startswith(b"#"):
            try:
                rows.append(layout.parse(line))
            except FieldProblem:
                continue
    return rows


def add_line(directory: Path, layout: Layout, fields: Sequence[str], take_in_now: Callable[[], None]) -> None:
    """Append a line and return when it was taken in.

    `take_in_now` does that while no server runs; it is called with the state directory locked. Raises
    PaygateExit, also when a running server leaves the line where it is.
    """
    path = directory / layout.file_name
    # Without the padding of the server's own rows, so that it can be seen when it was taken in.
    line = f"{'|'.join(escape_field(text) for text in fields)}\n".encode()
    _append(path, line)
    state = StateDir(directory)
    deadline = time.monotonic() + WAIT_S
    while _waits(path, line):
        # Asked each time: whoever has the lock now may be about to end, and never look at the file again.
        if state.try_lock():
            try:
                take_in_now()
            finally:
                state.close()
            if _waits(path, line):
                raise StateError(f"the line added to {path} can't be taken in; it is left there")
            return
        if time.monotonic() >= deadline:
            raise StateError(f"the line added to {path} was not taken in within {WAIT_S} s; the server's log says why")
        time.sleep(_WAIT_STEP_S)


def _waits(path: Path, line: bytes) -> bool:
    try:
        return line in path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return True  # an editor is just putting another in its place
    except OSError as error:
        raise unusable(error, path) from None


def _append(path: Path, line: bytes) -> None:
    try:
        with file_named(path):
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    raise StateError(f"{path}: its last line has no end; end it with a newline first")
                size = os.write(fd, line)
                if size < len(line):
                    _take_back(fd, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
    except OSError as error:
        raise unusable(error, path) from None


def _take_back(fd: int, size: int) -> None:
    """Half a line might pass for a whole one; what others added after it is left, and it with that."""
    end = os.lseek(fd, 0, os.SEEK_CUR)
    if os.fstat(fd).st_size == end:
        os.ftruncate(fd, end - size)
