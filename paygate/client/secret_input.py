"""Where a program gets a secret from: a descriptor or a private file, never the command line (R4)."""

import os
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.files.state_dir import StateDir, StateError

SECRET_SIZE_MAX: Final = 1_024
"""Bytes in a line that holds a passcode or a password; the longest legal one is 255."""


def read_line_from_fd(fd: int, flag: str) -> str:
    """One line, without its end. `flag` is named in errors. Raises PaygateExit(USAGE).

    Read byte by byte, so that one descriptor may hold the passcode's line and then the password's.
    """
    data = bytearray()
    try:
        while (byte := os.read(fd, 1)) not in (b"", b"\n"):
            data += byte
            if len(data) > SECRET_SIZE_MAX:
                raise PaygateExit(f"{flag} {fd}: a line of over {SECRET_SIZE_MAX} bytes", ExitCode.USAGE)
    except OSError as error:
        raise PaygateExit(f"{flag} {fd}: could not read: {error.strerror}", ExitCode.USAGE) from None
    return _text(bytes(data), f"{flag} {fd}")


def read_line_from_file(path: Path, flag: str) -> str:
    """The only line of a file that nobody else can read (T29). Raises StateError, PaygateExit(USAGE).

    `flag` is named in errors: the option or the environment variable that gave the path.
    """
    try:
        data = StateDir(path.parent).read_secret(path.name)
    except StateError as error:
        raise StateError(f"{flag}: {error}") from None
    return _text(data.removesuffix(b"\n"), f"{flag} {path}")


def _text(data: bytes, where: str) -> str:
    try:
        text = data.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise PaygateExit(f"{where}: not UTF-8", ExitCode.USAGE) from None
    if not text or "\n" in text:
        raise PaygateExit(f"{where}: expected one line", ExitCode.USAGE)
    return text
