"""Small file operations that say what they leave behind after a crash. Only descriptors, no file objects."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

WRITE_SIZE = 1 << 16
"""Bytes gathered for one write while a whole file is built: few system calls, little memory.

Not more: ext4 keeps in one piece of its cache what came in one write, and each later change of a row in place costs
that piece's length. Measured: 4 us a change after writes of 1 MiB, 1.4 us after these, 1.2 us after 4 KiB.
"""

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, going on after short writes. Raises OSError, with part of it written."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])


def fsync_directory(path: Path) -> None:
    """Makes the names in a directory (new, renamed, removed) survive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Makes a file of mode 0600 with these contents, on disk when this returns; its name isn't yet.

    A left-over of the same name is removed first, and a failed attempt leaves none.
    """
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        pending = bytearray()
        for chunk in chunks:
            pending += chunk
            if len(pending) >= WRITE_SIZE:
                write_all(fd, bytes(pending))
                pending.clear()
        if pending:
            write_all(fd, bytes(pending))
        os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(fd)


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Puts a new file at `path`: after a crash the old one is there whole, or the new one is."""
    beside = path.with_name(f".{path.name}.new")
    create_file(beside, chunks)
    beside.rename(path)
    fsync_directory(path.parent)


def exchange(left: Path, right: Path) -> bool:
    """Swaps two names in one step, so that whatever was at `right` is at `left` and can't get lost.

    False if this system or file system has no such call. Raises FileNotFoundError if one is missing.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if renameat2(_AT_FDCWD, bytes(left), _AT_FDCWD, bytes(right), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(right))
