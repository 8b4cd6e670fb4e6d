"""Runs a server with a stopwatch around the functions of its stages.

    python -m paygate.bench.staged gateway|bank|decoder --stages-out FILE -- ARGUMENTS

ARGUMENTS are the program's own (`serve --state DIR ...`). FILE says what each stage took, as JSON, once the program
has ended. A staged bank starts staged decoders, which write beside FILE. Counting begins with the server's run, and
anew with the first input after a SIGUSR2 (`Staging.begin`); it ends with the run, or with the tick in which a SIGUSR1
comes (`Staging.end`).
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Final

import apsw

import paygate.bank.__main__
import paygate.bank.decoder
import paygate.gateway.__main__
from paygate.bank.decoding import decoder_argv
from paygate.bench.stages import (
    BEGIN_SIGNAL,
    END_SIGNAL,
    PROGRAMS,
    REST,
    RUNS,
    STAGES,
    WAIT,
    YIELDING,
    Targets,
    staged_argv,
)
from paygate.bench.stopwatch import Function, Stopwatch
from paygate.cli import run

_VFS_NAME: Final = "staged"
_CALIBRATED_FIRST_COUNT: Final = 5
_CALIBRATED_TICKS: Final = 16
"""After so many waits for input the timing's own cost is measured once more, which takes some 30 us."""

MAINS: Final[dict[str, Callable[[], int]]] = {
    "gateway": paygate.gateway.__main__.main,
    "bank": paygate.bank.__main__.main,
    "decoder": lambda: run(paygate.bank.decoder.PROGRAM, paygate.bank.decoder.main),
}


# -- putting the stopwatch around functions --------------------------------------------------------------


def find_target(target: str) -> tuple[Any, str, Any]:
    """Where a target lies: its module or class, its name there, and itself. Raises LookupError if there is none."""
    module_name, _, qualified_name = target.partition(":")
    *path, name = qualified_name.split(".")
    owner: Any = sys.modules.get(module_name)
    for step in path:
        owner = getattr(owner, step, None)
    found = getattr(owner, name, None)
    if not callable(found):
        raise LookupError(f"{target} is gone; name what took its place in paygate/bench/stages.py")
    return owner, name, found


def replace_target(target: str, replacement: Callable[[Any], Any]) -> None:
    """Put `replacement(target)` in its place, also where a module of paygate's has imported it by name.

    Raises LookupError.
    """
    owner, name, found = find_target(target)
    replaced = replacement(found)
    setattr(owner, name, replaced)
    if isinstance(owner, type):
        return
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "paygate":
            for here, value in list(vars(module).items()):
                if value is found:
                    setattr(module, here, replaced)


class _Connection(apsw.Connection):
    """A connection whose methods can be replaced, with such cursors, on files that can be timed."""

    def __init__(self, filename: str, vfs: str | None = None) -> None:
        super().__init__(filename, vfs=vfs or _VFS_NAME)
        self.cursor_factory = apsw.Cursor


class _Cursor(apsw.Cursor):
    """A cursor whose methods can be replaced."""


class _File(apsw.VFSFile):
    """A file whose methods can be replaced."""


class _Vfs(apsw.VFS):
    """SQLite's own, on such files."""

    def __init__(self) -> None:
        super().__init__(_VFS_NAME, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File("", name, flags)


def open_apsw() -> apsw.VFS:
    """Have the stores use types that take replacements, which apsw's own do not. Keep what it gives."""
    apsw.Connection, apsw.Cursor, apsw.VFSFile = _Connection, _Cursor, _File  # type: ignore[assignment,misc]
    return _Vfs()


def time_stages(program: str, watch: Stopwatch) -> None:
    """Put the stopwatch around all functions of a program's stages. Raises LookupError if one is gone."""
    for stage, targets in STAGES[program].items():
        for target in targets:
            replace_target(target, _timing(watch, target, yields=stage in YIELDING))


def _timing(watch: Stopwatch, target: str, *, yields: bool) -> Callable[[Function], Function]:
    def replacement(function: Function) -> Function:
        return watch.yielding(target, function) if yields else watch.timed(target, function)

    return replacement


# -- what is written -------------------------------------------------------------------------------------


def times_taken(program: str, watch: Stopwatch) -> dict[str, Any]:
    """What the stages of a program took, as JSON values: see `stages.ProgramTimes`, and each target by itself."""
    stages = {
        stage: {
            **_time_of(watch, targets, yields=stage in YIELDING),
            "targets": {target: _time_of(watch, (target,), yields=stage in YIELDING) for target in targets},
        }
        for stage, targets in STAGES[program].items()
    }
    stages[REST] = {"ns": watch.net_ns(watch.rest), "cpu_ns": 0, "calls": 0, "targets": {}}
    return {
        "program": program,
        "stages": stages,
        "wall_ns": watch.wall_ns,
        "cpu_ns": watch.cpu_ns,
        "timer_ns": watch.timer_ns,
        "ticks": stages[WAIT]["calls"],
    }


def _time_of(watch: Stopwatch, targets: Targets, *, yields: bool) -> dict[str, int]:
    spent = [watch.spent[target] for target in targets]
    return {
        "ns": sum(map(watch.net_ns, spent)),
        "cpu_ns": sum(map(watch.net_cpu_ns, spent)) if yields else 0,
        "calls": sum(one.calls for one in spent),
    }


def decoder_paths(path: Path) -> Iterator[Path]:
    """Where the decoders of a bank write, one after another."""
    return (path.with_name(f"{path.stem}.decoder-{number}.json") for number in count(1))


def _write(path: Path, value: dict[str, Any]) -> None:
    """Another process may look at any time, and finds the old or the new."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(value, indent=1), encoding="ascii")
    beside.rename(path)


# -- the program -----------------------------------------------------------------------------------------


def main() -> int:
    """The program. Returns the exit code of the program that it runs."""
    parser = argparse.ArgumentParser(description="Runs a server, and says where its time went.", allow_abbrev=False)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--stages-out", required=True, type=Path, metavar="FILE", help="where to write the times")
    parser.add_argument("arguments", nargs="+", metavar="ARGUMENT", help="the program's own, behind a --")
    options = parser.parse_args()
    sys.argv[1:] = options.arguments
    return staged(options.program, options.stages_out, MAINS[options.program])


def staged(program: str, path: Path, program_main: Callable[[], int]) -> int:
    """Run a program's main under the stopwatch and write what the stages took. Gives its exit code."""
    path = path.absolute()
    _write(path, {"program": program, "pid": os.getpid()})
    vfs = open_apsw()
    watch = Stopwatch()
    time_stages(program, watch)
    timed_run = _Run(program, watch)
    replace_target(RUNS[program], timed_run.timed)
    for target in STAGES[program][WAIT]:
        replace_target(target, timed_run.at_wait)
    if program == "bank":
        paths = decoder_paths(path)
        replace_target(
            f"{decoder_argv.__module__}:{decoder_argv.__name__}",
            lambda _: lambda directory: staged_argv("decoder", next(paths), "--state", str(directory)),
        )
    try:
        return program_main()
    finally:
        _write(path, timed_run.times)
        vfs.unregister()


class _Run:
    """A program's run under the stopwatch: its beginning, and what is done at its waits for input."""

    def __init__(self, program: str, watch: Stopwatch) -> None:
        self._program = program
        self._watch = watch
        self._is_to_begin = self._is_to_end = self._is_waiting = self._has_ended = False
        self.times = times_taken(program, watch)
        """What was taken in the run: all zero until it has ended."""

    def timed(self, function: Function) -> Function:
        """The function that is the run."""
        watch = self._watch

        @wraps(function)
        def run_timed(*args: Any, **kwargs: Any) -> Any:
            # Not before, since a server sets its signals when it starts.
            signal.signal(BEGIN_SIGNAL, self._begin_asked)
            signal.signal(END_SIGNAL, self._end_asked)
            watch.begin()
            for _ in range(_CALIBRATED_FIRST_COUNT):
                watch.calibrate()
            try:
                return function(*args, **kwargs)
            finally:
                # Now, since the program's end calls timed functions too.
                self._end()

        return run_timed

    def at_wait(self, wait: Function) -> Function:
        """The wait for input, before which the timing is calibrated every now and then, and after which a run begins.

        At this place nothing is left to do in a tick, and nothing of the next has been done.
        """
        watch, ticks = self._watch, count()

        @wraps(wait)
        def waited(*args: Any, **kwargs: Any) -> Any:
            if self._is_to_end:
                self._end()
            if next(ticks) % _CALIBRATED_TICKS == 0:
                watch.calibrate()
            self._is_waiting = True
            ready = wait(*args, **kwargs)
            self._is_waiting = False
            if self._is_to_begin:
                self._is_to_begin = self._has_ended = False
                watch.begin()
            return ready

        return waited

    def _begin_asked(self, _number: int, _frame: FrameType | None) -> None:
        self._is_to_begin = True

    def _end_asked(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_waiting:
            self._end()
        else:
            self._is_to_end = True

    def _end(self) -> None:
        """Unless it has ended already, and not begun again."""
        self._is_to_end = False
        if not self._has_ended:
            self._has_ended = True
            self._watch.end()
            self.times = times_taken(self._program, self._watch)


if __name__ == "__main__":
    sys.exit(main())
