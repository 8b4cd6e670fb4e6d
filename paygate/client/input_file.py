"""Files that the customer names: read without waiting, and only so much of them."""

import errno
import os
import stat
from pathlib import Path


def read_input_file(path: Path, size_max: int) -> bytes:
    """The first `size_max` bytes of a file. Raises OSError, also for what is no regular file.

    Opened without blocking, since a pipe that has no writer would keep the program waiting for ever.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Of the descriptor, not the name: the file that is checked is the file that is read.
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = b""
        while len(data) < size_max and (chunk := os.read(fd, size_max - len(data))):
            data += chunk
    finally:
        os.close(fd)
    return data
