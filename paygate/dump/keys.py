"""Loads link keys for `--link-key`: the files that `paygate-bank add-gateway` wrote, as bank and gateway keep them."""

import stat
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit

LINK_KEY_SIZE: Final = 32
"""Bytes of a link key (spec 4.4)."""
KEY_FILE_SIZE_MAX: Final = 1_024
"""Bytes: a key takes 65 in hexadecimal, so a wrong file is refused before it is read whole."""
_OTHERS_MAY_READ: Final = 0o077


def load_link_key(path: Path) -> bytes:
    """The 32 bytes of a link key, from a file of 64 hexadecimal digits on one line.

    Raises PaygateExit, without any of the file's content: it can't be read, others may read it, or it is no such key.
    """
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            data = file.read(KEY_FILE_SIZE_MAX + 1)
    except OSError as error:
        raise _unusable(path, f"could not be read: {error.strerror}") from None
    # T29, as bank and gateway do; what the shell hands in through a pipe has no mode of its own.
    if stat.S_ISREG(mode) and mode & _OTHERS_MAY_READ:
        raise _unusable(path, f"others may read it (mode {stat.S_IMODE(mode):04o}); chmod 600 it first")
    try:
        key = bytes.fromhex(data.decode("ascii").strip()) if len(data) <= KEY_FILE_SIZE_MAX else b""
    except ValueError:  # a UnicodeDecodeError is one too, and holds the bytes
        key = b""
    if len(key) != LINK_KEY_SIZE:
        raise _unusable(path, "expected a link key, 64 hexadecimal digits on one line")
    return key


def _unusable(path: Path, why: str) -> PaygateExit:
    return PaygateExit(f"--link-key {path}: {why}", ExitCode.BAD_STATE)
