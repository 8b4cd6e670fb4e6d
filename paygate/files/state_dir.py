"""The directory where a running system keeps its state: private (T29), and one server's at a time (T33)."""

import contextlib
import errno
import fcntl
import os
import shlex
import stat
from itertools import takewhile
from pathlib import Path

from paygate.cli import ExitCode, PaygateExit
from paygate.files.durable import create_file, fsync_directory, replace_file

LOCK_NAME = "lock"
SECRET_SIZE_MAX = 1 << 20
"""Bytes in a secret file; keys are far smaller, and a wrong file is refused before it fills the memory."""


class StateError(PaygateExit):
    """The state directory or a secret in it can't be used; the text says what mends it."""

    code = ExitCode.BAD_STATE


class StateInUse(StateError):
    """Another server has the directory (T33)."""

    code = ExitCode.STATE_IN_USE


class StateDir:
    """A state directory. It is locked from `open` or a successful `try_lock` until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd = -1

    def create(self) -> None:
        """Makes the directory (mode 0700) and those above it; nothing if it is there. Raises StateError."""
        upwards = [self.path, *self.path.parents]
        try:
            missing = list(takewhile(lambda directory: not directory.is_dir(), upwards))
            # A power cut that takes a name takes all that is below it, so each is synced before the next is made.
            if missing and len(missing) < len(upwards):
                # Also that of the lowest which is there: a crash may have come before it was. If its place can't be
                # read, somebody else made it.
                with contextlib.suppress(PermissionError):
                    fsync_directory(upwards[len(missing)].parent)
            for directory in reversed(missing or [self.path]):
                directory.mkdir(mode=0o700 if directory is self.path else 0o777, exist_ok=True)
                fsync_directory(directory.parent)
        except OSError as error:
            raise StateError(f"could not make the state directory {self.path}: {error.strerror}") from None

    def open(self) -> None:
        """Checks owner and mode and takes the lock. Raises StateError, StateInUse."""
        if not self.try_lock():
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.path / LOCK_NAME).read_text(encoding="ascii"))
                raise StateInUse(f"process {pid} uses the state directory {self.path}; end it, or give another")
            raise StateInUse(f"another process uses the state directory {self.path}; end it, or give another")

    def try_lock(self) -> bool:
        """As `open`, but False if another process has the lock: a server runs. Raises StateError."""
        assert self._lock_fd < 0, "locked already"
        self._check_directory()
        try:
            # The descriptor isn't inherited through exec, so a child can't hold the lock on its own.
            fd = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateError(f"could not open {self.path / LOCK_NAME}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)  # for people; the lock itself is the system's
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError as error:
            os.close(fd)
            raise StateError(f"could not lock {self.path / LOCK_NAME}: {error.strerror}") from None
        self._lock_fd = fd
        return True

    def close(self) -> None:
        """Gives the lock back, if it is held."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def read_secret(self, name: str, what: str = "secret") -> bytes:
        """The contents of a secret file, refused if anybody else could have read or made it (T29).

        Raises StateError, whose text calls the file by `what` it is to the user.
        """
        path = self.path / name
        try:
            # Without blocking, since what has the name may be a pipe.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            is_link = error.errno == errno.ELOOP
            why = "it is a symbolic link; put the file itself there" if is_link else error.strerror
            raise StateError(f"could not read the {what} {path}: {why}") from None
        try:
            # Of the descriptor, not the name: the file that is checked is the file that is read.
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StateError(f"the {what} {path} is no regular file; put the file itself there")
            check_private(path, status, 0o600)
            data = b""
            while chunk := os.read(fd, SECRET_SIZE_MAX + 1 - len(data)):
                data += chunk
        except OSError as error:
            raise StateError(f"could not read the {what} {path}: {error.strerror}") from None
        finally:
            os.close(fd)
        if len(data) > SECRET_SIZE_MAX:
            raise StateError(f"the {what} {path} is over {SECRET_SIZE_MAX} bytes; is it the right file?")
        return data

    def write_secret(self, name: str, data: bytes, *, overwrite: bool = False) -> None:
        """Keeps a secret in a file of mode 0600, on disk when this returns; never half of it.

        Raises StateError, in particular if there is one already and `overwrite` isn't set: a key that is
        overwritten by mistake is gone.
        """
        path = self.path / name
        beside = path.with_name(f".{name}.new")
        try:
            if overwrite:
                replace_file(path, [data])
                return
            create_file(beside, [data])
            try:
                path.hardlink_to(beside)  # unlike a rename, it fails if the name is taken
            finally:
                beside.unlink()
            fsync_directory(self.path)
        except FileExistsError:
            raise StateError(f"the secret {path} exists; move it away if it is to be replaced") from None
        except OSError as error:
            raise StateError(f"could not write the secret {path}: {error.strerror}") from None

    def write_atomic(self, name: str, data: bytes) -> None:
        """Puts a file of mode 0600 at the name, on disk when this returns: old or new, never half.

        Raises StateError.
        """
        try:
            replace_file(self.path / name, [data])
        except OSError as error:
            raise StateError(f"could not write {self.path / name}: {error.strerror}") from None

    def _check_directory(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            raise StateError(f"there is no state directory {self.path}; make it first, or give another") from None
        except OSError as error:
            raise StateError(f"could not use the state directory {self.path}: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise StateError(f"{self.path} is no directory; give another")
        check_private(self.path, status, 0o700)


def check_private(path: Path, status: os.stat_result, mode: int) -> None:
    """Refuse what belongs to another user or is open to others; `mode` is what mends it (T29). Raises StateError."""
    quoted = shlex.quote(str(path))
    if status.st_uid != os.geteuid():
        mend = f"chown {os.geteuid()} {quoted}"
        raise StateError(f"{path} belongs to user {status.st_uid}; if you trust its contents: {mend}")
    if status.st_mode & 0o077:
        raise StateError(f"{path} is open to other users (mode {status.st_mode & 0o777:04o}): chmod {mode:o} {quoted}")
