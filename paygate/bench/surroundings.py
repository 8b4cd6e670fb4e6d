"""What a run was on: a figure without its machine says little."""

import importlib.metadata
import os
import platform
import subprocess
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
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(directory)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "an unknown file system"
