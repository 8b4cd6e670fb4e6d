"""Puts failpoints around functions, statements and disk operations of a program, from outside, and counts hits.

Everything is done in the process that is to die, before its `main` runs: functions are replaced wherever a module of
paygate has them, SQL statements are seen by SQLite's tracing, and a database's files through a VFS over the real one.
"""

import functools
import importlib
import mmap
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import apsw
from crash.points import DISK, NUMBERS, POINTS, SQL, Point

HIT_SIZE: Final = 8
"""Bytes of a count in the file of hits: one writer, so a count is whole."""


class Hits:
    """How often each point was come past: a file shared by a program and whoever started it, which outlives a kill."""

    def __init__(self, path: Path) -> None:
        """Open or make the file."""
        size = HIT_SIZE * len(NUMBERS)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def add(self, name: str) -> int:
        """One more; gives how often it was in all."""
        at = HIT_SIZE * NUMBERS[name]
        count = int.from_bytes(self._map[at : at + HIT_SIZE], "little") + 1
        self._map[at : at + HIT_SIZE] = count.to_bytes(HIT_SIZE, "little")
        return count

    def counts(self) -> dict[str, int]:
        """Every point that was come past, and how often."""
        numbers = {name: self._map[HIT_SIZE * n : HIT_SIZE * n + HIT_SIZE] for name, n in NUMBERS.items()}
        return {name: int.from_bytes(data, "little") for name, data in numbers.items() if any(data)}

    def clear(self) -> None:
        """Nothing was come past yet."""
        self._map[:] = bytes(len(self._map))

    def close(self) -> None:
        """Free it; the file stays."""
        self._map.close()


class Hooks:
    """The failpoints of one process. Its children (decoder, encoder) inherit them when they are forks of it."""

    def __init__(self, program: str, command: str, deaths: Mapping[str, int], hits: Hits | None) -> None:
        """`deaths`: at which hit of which point to die. With `hits` every point is counted, otherwise only those."""
        self.program = program
        self._command = command
        self._deaths = dict(deaths)
        self._hits = hits
        self._seen: dict[str, int] = {}
        # Shared with forks: of several decoders that a bank starts one after another only one is to die.
        self._of_children = {name: mmap.mmap(-1, HIT_SIZE) for name in self._deaths if POINTS[name].program != program}
        self._depths: dict[str, list[int]] = {}
        self._disk: apsw.VFS | None = None

    def install(self) -> None:
        """Put all in their places."""
        children = {"bank": "decoder", "client": "encoder"}
        mine = [
            point
            for point in POINTS.values()
            if (point.program == self.program and point.reached_by == self._command)
            or (point.program == children.get(self.program) and self._command in ("serve", "pay"))
        ]
        if self._hits is None:
            mine = [point for point in mine if point.name in self._deaths]
        by_target: dict[str, list[Point]] = {}
        for point in mine:
            by_target.setdefault(point.target, []).append(point)
            if point.within:
                self._depths.setdefault(point.within, [0])
                by_target.setdefault(point.within, [])
        statements = {t.partition(":")[2]: found for t, found in by_target.items() if t.startswith(f"{SQL}:")}
        operations = {t.partition(":")[2]: found for t, found in by_target.items() if t.startswith(f"{DISK}:")}
        for target, points in by_target.items():
            if not target.startswith((f"{SQL}:", f"{DISK}:")):
                replace(target, functools.partial(self._wrapped, self._depths.get(target), points))
        if statements:
            apsw.connection_hooks.append(functools.partial(self._trace, statements))
        if operations:
            # Kept: a VFS that nobody holds is none any more.
            self._disk = _Disk(lambda operation, is_after: self._pass(operations.get(operation, ()), is_after=is_after))

    def _wrapped(self, depth: list[int] | None, points: list[Point], real: Callable[..., Any]) -> Callable[..., Any]:
        before = [point for point in points if not point.is_after]
        after = [point for point in points if point.is_after]

        @functools.wraps(real)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            self._pass(before)
            if depth is None:
                result = real(*arguments, **named)
            else:
                depth[0] += 1
                try:
                    result = real(*arguments, **named)
                finally:
                    depth[0] -= 1
            self._pass(after)
            return result

        return wrapper

    def _pass(self, points: Iterable[Point], *, is_after: bool | None = None) -> None:
        for point in points:
            if is_after is not None and point.is_after is not is_after:
                continue
            if point.program == self.program and (not point.within or self._depths[point.within][0]):
                self._hit(point.name)

    def _hit(self, name: str) -> None:
        if self._hits is not None:
            self._hits.add(name)
        shared = self._of_children.get(name)
        if shared is None:
            count = self._seen[name] = self._seen.get(name, 0) + 1
        else:
            count = int.from_bytes(shared[:], "little") + 1
            shared[:] = count.to_bytes(HIT_SIZE, "little")
        if self._deaths.get(name) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def _trace(self, statements: Mapping[str, list[Point]], connection: apsw.Connection) -> None:
        def trace(_cursor: apsw.Cursor, statement: str, _values: object) -> bool:
            text = statement.lstrip()
            for beginning, points in statements.items():
                if text.startswith(beginning):
                    self._pass(points)
            return True

        connection.exec_trace = trace


def replace(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `wrap` around a function, everywhere where paygate has it. Raises AttributeError if there is none."""
    owner, name, real = find(target)
    wrapped = wrap(real)
    setattr(owner, name, wrapped)
    if isinstance(owner, type):
        return
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "paygate":
            for attribute, value in list(vars(module).items()):
                if value is real:
                    setattr(module, attribute, wrapped)


def find(target: str) -> tuple[Any, str, Callable[..., Any]]:
    """What has the function, its name there, and the function. Raises AttributeError, ImportError."""
    module_name, _, qualified_name = target.partition(":")
    *outer, name = qualified_name.split(".")
    owner: Any = importlib.import_module(module_name)
    for part in outer:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    assert callable(real), target
    return owner, name, real


class _Disk(apsw.VFS):
    """The system's disk, with a look at each operation; SQLite's default from now on."""

    def __init__(self, passed: Callable[[str, bool], None]) -> None:
        self.passed = passed
        super().__init__("crash", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":
        """SQLite's name for it."""
        return _File(self.passed, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """SQLite's name for it."""
        is_log = filename.endswith("-wal")
        if is_log:
            self.passed("wal-delete", False)
        super().xDelete(filename, syncdir)
        if is_log:
            self.passed("wal-delete", True)


class _File(apsw.VFSFile):
    def __init__(
        self, passed: Callable[[str, bool], None], name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._passed = passed
        self._kind = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "database"
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._passed(f"{self._kind}-write", False)
        super().xWrite(data, offset)
        self._passed(f"{self._kind}-write", True)

    def xSync(self, flags: int) -> None:
        self._passed(f"{self._kind}-sync", False)
        super().xSync(flags)
        self._passed(f"{self._kind}-sync", True)
