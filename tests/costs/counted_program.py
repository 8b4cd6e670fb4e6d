"""Runs a server's real program in lock step, and counts what each of its ticks does.

    python -m costs.counted_program gateway|bank|decoder DIR -- ARGUMENTS

ARGUMENTS are the program's own. DIR holds two FIFOs, `go` and `told`. At first the program runs freely. Once HOLD is
in `go`, it stops before each tick (a server's `Loop.run_once`, a decoder's read of its stdin), says in `told` what the
tick before did, as one line of JSON, and waits for GO. So whoever plays the other ends writes all of a batch first, and
the batch is exact. While it is held its clocks stand still, so that timers fall due where the other commands in `go`
say: LATER moves the clocks to when text records are written. Others put a fault in (`costs.faults`).

Memory is counted in a run of its own, since what counts calls needs memory. System calls are not counted here: strace
sees them, and tells the ticks by the descriptors of the two FIFOs.
"""

import argparse
import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

import apsw
from costs.faults import FAULTS, NO_FAULT, connections
from cryptography.hazmat.primitives.asymmetric import ed25519

import paygate.bank.__main__
import paygate.bank.decoder
import paygate.gateway.__main__
from paygate.cli import run
from paygate.files.text_records import WRITE_DELAY_MS
from paygate.net.loop import Loop

GO: Final = b"g"
HOLD: Final = b"h"
FREE: Final = b"f"
LATER: Final = b"l"
GO_FD: Final = 900
TOLD_FD: Final = 901
"""Fixed, and above all that a program opens, so that a log of system calls shows where a tick ends."""
PRELOADED: Final = "COUNTING_LIBRARY"
"""Environment variable: the path of the preloaded `counting.c`, if memory is what is counted in this run."""

MAINS: Final[dict[str, Callable[[], int]]] = {
    "gateway": paygate.gateway.__main__.main,
    "bank": paygate.bank.__main__.main,
    "decoder": lambda: run(paygate.bank.decoder.PROGRAM, paygate.bank.decoder.main),
}


class Counter(Protocol):
    """Counts something of each tick."""

    def begin(self) -> None:
        """A tick begins."""

    def end(self) -> dict[str, int]:
        """It has ended; gives what it did."""


class Memory:
    """The counters of the preloaded `counting.c`."""

    def __init__(self, library_path: str) -> None:
        library = ctypes.CDLL(library_path)
        self._is_counting = ctypes.c_int.in_dll(library, "is_counting")
        names = {
            "allocations": "allocation_count",
            "bytes allocated": "allocated_size",
            "bytes copied": "copied_size",
        }
        self._counters = {text: ctypes.c_ulonglong.in_dll(library, name) for text, name in names.items()}

    def begin(self) -> None:
        for counter in self._counters.values():
            counter.value = 0
        self._is_counting.value = 1

    def end(self) -> dict[str, int]:
        self._is_counting.value = 0
        return {text: counter.value for text, counter in self._counters.items()}


class Calls:
    """SQL by apsw's trace, signatures by a key that counts, functions by the interpreter's profile hook."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}
        apsw.connection_hooks.append(self._hook)
        real = ed25519.Ed25519PrivateKey.from_private_bytes

        def counted(data: bytes) -> _CountedKey:
            return _CountedKey(real(data), lambda: self._add("signatures"))

        ed25519.Ed25519PrivateKey.from_private_bytes = counted  # type: ignore[method-assign,assignment]

    def begin(self) -> None:
        self._found = {}
        sys.setprofile(self._called)

    def end(self) -> dict[str, int]:
        sys.setprofile(None)
        return self._found

    def _add(self, name: str, count: int = 1) -> None:
        self._found[name] = self._found.get(name, 0) + count

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename != __file__:
            self._add("function calls")

    def _hook(self, connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_PROFILE, self._traced)

    def _traced(self, event: dict[str, Any]) -> None:
        if event["code"] == apsw.SQLITE_TRACE_STMT:
            self._add("SQL statements")
            self._add(f"SQL {event['sql'].split(maxsplit=1)[0].strip(';').upper()}")
        else:
            self._add("SQL steps", event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])


class _CountedKey(ed25519.Ed25519PrivateKey):
    """A private key that tells of each signature."""

    def __init__(self, key: ed25519.Ed25519PrivateKey, on_sign: Callable[[], None]) -> None:
        self._key = key
        self._on_sign = on_sign

    def sign(self, data: "bytes | bytearray | memoryview[int]") -> bytes:
        self._on_sign()
        return self._key.sign(data)

    def public_key(self) -> ed25519.Ed25519PublicKey:
        return self._key.public_key()

    def private_bytes(self, *arguments: Any) -> bytes:
        return self._key.private_bytes(*arguments)

    def private_bytes_raw(self) -> bytes:
        return self._key.private_bytes_raw()

    def __copy__(self) -> "_CountedKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "_CountedKey":
        return self


class Gate:
    """Holds the program before a tick."""

    def __init__(self, directory: Path, counter: Counter) -> None:
        for name, fd in (("go", GO_FD), ("told", TOLD_FD)):
            opened = os.open(directory / name, os.O_RDWR)  # both ways, so that it waits for nobody
            os.dup2(opened, fd, inheritable=False)
            os.close(opened)
        os.set_blocking(GO_FD, False)
        self._counter = counter
        self._fault = contextlib.ExitStack()
        self._is_held = False
        self._stopped_ns = {"monotonic_ns": 0, "time_ns": 0}
        for name in self._stopped_ns:
            setattr(time, name, self._clock(name, getattr(time, name)))

    def pass_through(self) -> None:
        """Before a tick."""
        if not self._is_held:
            if not self._is_told_to_hold():
                return
            self._stopped_ns = {name: getattr(time, name)() for name in self._stopped_ns}
            self._is_held = True
            os.set_blocking(GO_FD, True)
            self._tell(_descriptors())
        else:
            self._tell(self._counter.end())
        if self._is_to_go_on_held():
            self._counter.begin()
        else:
            self._is_held = False
            os.set_blocking(GO_FD, False)

    def _is_told_to_hold(self) -> bool:
        try:
            return os.read(GO_FD, 1) == HOLD
        except BlockingIOError:
            return False

    def _tell(self, told: Mapping[str, object]) -> None:
        os.write(TOLD_FD, json.dumps(told).encode() + b"\n")

    def _is_to_go_on_held(self) -> bool:
        """Take commands until one of them lets the program go on; gives whether it is held again after the tick."""
        while (command := os.read(GO_FD, 1)) not in (GO, FREE):
            if command == LATER:
                self._stopped_ns = {name: ns + WRITE_DELAY_MS * 1_000_000 for name, ns in self._stopped_ns.items()}
                continue
            self._fault.close()
            if command != NO_FAULT:
                self._fault.enter_context(FAULTS[command]())
        return command == GO

    def _clock(self, name: str, real: Callable[[], int]) -> Callable[[], int]:
        return lambda: self._stopped_ns[name] if self._is_held else real()


def _descriptors() -> dict[str, str]:
    """What this process has open: by the descriptor, its path, or `socket:[...]`."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found[entry.name] = str(entry.readlink())
    return found


def install(gate: Gate, program: str) -> None:
    """Put the gate before each of the program's ticks."""
    if program == "decoder":
        real_read = os.read

        def read(fd: int, size: int) -> bytes:
            if fd == 0:
                gate.pass_through()
            return real_read(fd, size)

        os.read = read
        return
    real_run_once = Loop.run_once

    def run_once(self: Loop, timeout_ms: int | None = None) -> None:
        gate.pass_through()
        real_run_once(self, timeout_ms)

    Loop.run_once = run_once  # type: ignore[method-assign]


def main() -> int:
    """The program. Returns the exit code of the program that it runs."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("program", choices=MAINS)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("arguments", nargs="+", metavar="ARGUMENT")
    options = parser.parse_args()
    sys.argv[1:] = options.arguments
    apsw.connection_hooks.append(connections.append)
    library = os.environ.get(PRELOADED)
    install(Gate(options.directory, Memory(library) if library else Calls()), options.program)
    return MAINS[options.program]()


if __name__ == "__main__":
    sys.exit(main())
