"""What a run was on: a figure without its machine says little."""

import importlib.metadata
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

import apsw


def describe_machine(directory: Path) -> dict[str, str]:
    """Date, processor, system, file system of `directory`, versions."""
    versions = {name: importlib.metadata.version(name) for name in ("cryptography", "construct")}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {_file_system(directory)}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{n} {v}" for n, v in versions.items()) + f", SQLite {apsw.sqlite_lib_version()}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    return file_system_of(directory, Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


def file_system_of(directory: Path, mountinfo: str) -> str:
    """The type of the file system that a directory lies on, by the mounts of proc(5): the innermost, mounted last.

    `statfs` has one number for ext2, ext3 and ext4.
    """
    found, depth = "an unknown file system", -1
    for line in mountinfo.splitlines():
        mount, _, what = line.partition(" - ")
        # Blanks and the like are written as octal numbers.
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount.split(" ")[4]))
        if directory.resolve().is_relative_to(point) and len(point.parts) >= depth:
            found, depth = what.split(" ")[0], len(point.parts)
    return found
