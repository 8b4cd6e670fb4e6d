"""What strace says of a held program: the system calls of each of its ticks."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from costs.counted_program import GO_FD, TOLD_FD

END_S_MAX: Final = 30
_CALL: Final = re.compile(r"(\w+)\((?:(\d+)\b)?.*?\)? += (-?\d+|\?)")


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One system call."""

    name: str
    fd: int | None
    """Its first argument, if that is a number; for calls on a descriptor, the descriptor."""
    result: int


def strace_argv(log_path: Path) -> list[str]:
    """The command that runs another under strace, so that the other one keeps its process ID."""
    # Without strings, which cost time and may hold secrets; `-D`: strace is the one that steps aside.
    return ["strace", "-D", "-q", "-s0", "-esignal=none", "-o", str(log_path)]


def read_ticks(log_path: Path) -> Iterator[list[SystemCall]]:
    """The system calls of each tick of a program that has ended, in order.

    A tick begins when the gate was told to go, and ends when it tells what it counted.
    """
    tick: list[SystemCall] | None = None
    is_held = False
    for line in _whole_log(log_path).splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        call = SystemCall(found[1], int(found[2]) if found[2] else None, int(found[3]) if found[3] != "?" else 0)
        if call.fd == TOLD_FD and call.name == "write":
            if tick is not None and is_held:
                yield tick
            is_held = True  # The first time there was no tick before: the gate only told that it is closed now.
            tick = None
        elif call.fd == GO_FD and call.name == "read" and call.result == 1:
            tick = []
        elif tick is not None:
            tick.append(call)


def _whole_log(log_path: Path) -> str:
    """strace writes the last of it after the program has ended."""
    deadline_s = time.monotonic() + END_S_MAX
    while "+++ exited with" not in (text := log_path.read_text()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{log_path} does not end")
        time.sleep(0.01)
    return text
