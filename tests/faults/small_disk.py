"""A real file system of a few megabytes that can be filled to the last byte, for as long as a test needs it (T30)."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SIZE: Final = "3m"
_BALLAST: Final = "ballast"
_CHUNK_SIZE: Final = 1 << 16


class SmallDisk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / _BALLAST

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as file:
            size = _CHUNK_SIZE
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def make_room(self) -> None:
        """Take the ballast away again."""
        self._ballast.unlink()


def can_mount() -> bool:
    """Whether this user may mount a file system, as root may outside of most containers."""
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[SmallDisk]:
    """An empty private disk at a directory, for the time of a with block. Raises CalledProcessError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = f"size={SIZE},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, timeout=20)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=20)
