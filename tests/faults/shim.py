"""The library that makes file operations fail: compiled when it is needed, preloaded, and led from Python."""

import ctypes
import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("disk_faults.c")
PRELOAD: Final = "LD_PRELOAD"
SHORT: Final = 0
"""In the place of an error's number: half of what was asked is done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which operation of a program fails, and how."""

    kinds: str
    """A pattern of the shell's, as in `@(write|pwrite)`."""
    names: str
    """The same, of names below the state directories, as in `bank/ledger.sqlite*`."""
    nth: int
    """Counted from 1."""
    error_number: int
    """Of errno, or SHORT."""
    is_lasting: bool
    """Whether all later ones fail too."""

    @property
    def text(self) -> str:
        """As the library reads it."""
        return f"{self.kinds} {self.names} {self.nth} {self.error_number} {'always' if self.is_lasting else 'once'}"

    @property
    def error_name(self) -> str:
        """Such as ENOSPC; `short` for half of what was asked."""
        return "short" if self.error_number == SHORT else errno.errorcode[self.error_number]

    def __str__(self) -> str:
        return f"{self.kinds} {self.names} {self.nth} {self.error_name} {'always' if self.is_lasting else 'once'}"


def parse_plan(text: str) -> Plan:
    """A plan as its `str` says it. Raises ValueError."""
    words = text.split()
    if len(words) != 5 or words[4] not in ("once", "always") or not words[2].isdecimal():
        raise ValueError(f"a plan is 'KINDS NAMES NTH ERROR once|always', not {text!r}")
    numbers = {name: number for number, name in errno.errorcode.items()} | {"short": SHORT}
    if words[3] not in numbers:
        raise ValueError(f"{words[3]} is no name of errno, and not 'short'")
    return Plan(words[0], words[1], int(words[2]), numbers[words[3]], words[4] == "always")


def build(directory: Path) -> Path:
    """Compile the library. Raises CalledProcessError, FileNotFoundError without a compiler."""
    library = directory / "disk_faults.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def preloaded(module: str, *arguments: str) -> int:
    """Run a module of the tests under this Python with the library preloaded; gives its exit code."""
    paths = [str(SOURCE.parents[1]), str(SOURCE.parents[2] / "scripts"), str(SOURCE.parents[2])]
    with tempfile.TemporaryDirectory() as directory:
        env = {**os.environ, PRELOAD: str(build(Path(directory))), "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run([sys.executable, "-m", module, *arguments], env=env, check=False).returncode


def begin(root: Path | None, trace: Path | None = None, plan: Plan | None = None) -> None:
    """From now on, in this process: tell what happens below `root`, and let the plan's operation fail.

    None for a root: nothing is told and nothing fails. The library must be preloaded.
    """
    texts = (str(root or ""), str(trace or ""), plan.text if plan else "", "")
    if ctypes.CDLL(None).faults_begin(*(text.encode() for text in texts)) != 0:
        raise ValueError(f"the library refuses plan {plan}")


def environment(library: Path, root: Path, trace: Path, plan: Plan, switch: Path | None = None) -> dict[str, str]:
    """What makes a program that is started with it fail by plan; with a switch, while that file's byte is not 0."""
    return {
        PRELOAD: str(library),
        "FAULTS_ROOT": str(root),
        "FAULTS_TRACE": str(trace),
        "FAULTS_PLAN": plan.text,
        "FAULTS_SWITCH": str(switch or ""),
    }
