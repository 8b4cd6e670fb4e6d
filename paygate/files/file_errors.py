"""What the system says of a record file, with the file's name and what mends it."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from paygate.cli import ExitCode, PaygateExit
from paygate.files.state_dir import StateError

_MENDS: Final = {
    errno.EISDIR: "move it away",
    errno.EACCES: "let this user read and write it, and its directory",
    errno.EPERM: "let this user read and write it, and its directory",
    errno.EROFS: "put the state where it can be written",
    errno.ELOOP: "remove the link",
}
_ANY_MEND: Final = "move it away, and a new one is made"


def is_no_room(error: OSError) -> bool:
    """Whether the disk, or this user's share of it, is full (T30)."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def unusable(error: OSError, place: Path) -> PaygateExit:
    """How a program ends that needs a file which can't be used; `place` is named if the error names none.

    BAD_STATE; STORE_FAILED if the disk is full.
    """
    name = place if error.filename is None else os.fsdecode(error.filename)
    if is_no_room(error):
        return PaygateExit(f"no room on the disk for {name}; free some", ExitCode.STORE_FAILED)
    return StateError(f"could not use {name}: {error.strerror}; {_MENDS.get(error.errno or 0, _ANY_MEND)}")


@contextlib.contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Lets every OSError in the block name this file, also one of a write or of a file made beside it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        del error.filename2  # None in its place would be told as a second name
        raise


class _HasPath(Protocol):
    @property
    def path(self) -> Path: ...


_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound=_HasPath)


def names_its_file(method: Callable[Concatenate[_S, _P], _T]) -> Callable[Concatenate[_S, _P], _T]:
    """`file_named` for a method of an object that has a `path`."""

    @wraps(method)
    def named(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with file_named(self.path):
            return method(self, *args, **kwargs)

    return named


def check_regular(path: Path) -> None:
    """Raises OSError if something else than a file has the name: opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
