"""One file, open in each of the ways that updating it under other programs' hands takes."""

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from paygate.files.durable import exchange


@dataclass(frozen=True, slots=True)
class OpenFile:
    """Three descriptors of one file."""

    identity: tuple[int, int]
    """Device and inode."""
    read: int
    """Read-only, since only such a descriptor can ask for a read lease (`has_writers`)."""
    write: int
    """For pwrite in place."""
    append: int
    """With O_APPEND, where Linux would append even a pwrite."""

    @classmethod
    def open(cls, path: Path) -> "OpenFile":
        """Opens what has the name. Raises OSError; FileNotFoundError too if it is being replaced just now."""
        with contextlib.ExitStack() as undo:
            fds = []
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND):
                fds.append(os.open(path, flags))
                undo.callback(os.close, fds[-1])
            states = [os.fstat(fd) for fd in fds]
            if len({(state.st_dev, state.st_ino) for state in states}) != 1:
                raise FileNotFoundError(f"{path} was replaced while it was being opened")
            undo.pop_all()
        return cls((states[0].st_dev, states[0].st_ino), *fds)

    def close_writers(self) -> None:
        """Leaves `read` open, whose owner goes on with it."""
        os.close(self.write)
        os.close(self.append)

    def close(self) -> None:
        """Closes all three."""
        self.close_writers()
        os.close(self.read)


def resolved(path: Path) -> Path:
    """A symbolic link names the file that people share; that file is the one to replace. Raises OSError."""
    try:
        return path.resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def swap_in(beside: Path, path: Path) -> tuple[int, int] | None:
    """Gives the file at `beside` the name `path`, in one step.

    Returns device and inode of the file that had the name, which is at `beside` now: perhaps not the one that
    was expected, if somebody was quicker. None if there was none, or if the system can only overwrite it.
    """
    while True:
        try:
            if not exchange(beside, path):
                beside.rename(path)
                return None
            status = beside.stat()
            return status.st_dev, status.st_ino
        except FileNotFoundError:
            # Removed. A link fails if somebody makes one meanwhile, and then the exchange works.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(beside)
                return None
