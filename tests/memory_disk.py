"""A disk in memory below SQLite whose process may die and whose power may go: `SqliteTokens(path, vfs=disk.name)`.

What a power cut does to it is told in `disk_model.py`. Of that model SQLite is told, as on Unix, that a write leaves
the bytes beside it alone (powersafe overwrite). As SQLite does on Unix, the first sync of a journal or write-ahead log
after it was opened syncs the directory, and with it every name; and so does a deletion that is asked to.

One disk serves one process: `kill` ends all that has it open. A connection that was open then may be used and closed as
if nothing had happened, but it works on a ghost of the files that nobody else sees, and calls no hook.

There is no shared memory, so WAL needs `locking_mode=EXCLUSIVE`, which paygate's stores have.
"""

import hashlib
from collections.abc import Callable
from random import Random
from typing import Final

import apsw
from disk_model import CutReport, File, Files, Image, Operation, parent_of

_UNIX_SECTOR_SIZE: Final = 4096
_UNIX_CHARACTERISTICS: Final = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE | apsw.SQLITE_IOCAP_SUBPAGE_READ
# What SQLite's own VFS for Unix says of files.
_LOG_FLAGS: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


def seed_sqlite(seed: bytes) -> None:
    """Let SQLite draw the same numbers from now on, for all of this process: the salts of its logs come from them."""
    source = _Seed(hashlib.sha256(seed).digest())
    apsw.randomness(0)  # forget the seed that it has
    apsw.randomness(1)  # ask for another, now
    source.unregister()


class _Seed(apsw.VFS):
    """SQLite asks the VFS that is the default one at that time, and never again."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        super().__init__("seed", "", makedefault=True)

    def xRandomness(self, numbytes: int) -> bytes:
        return (self._data * (numbytes // len(self._data) + 1))[:numbytes]


class MemoryDisk(apsw.VFS):
    """The disk of one process. Close it when no connection uses it any more."""

    on_operation: Callable[[Operation], None] | None = None
    """Called before whatever changes or syncs files.

    If it raises an `apsw.Error`, that is the disk's error. If it raises anything else, the process was killed at that
    point: the operation is not done, and the exception comes out of SQLite as it is.
    """
    is_full: bool = False
    """Every write fails for want of room (T30)."""
    room_size: int | None = None
    """By how many more bytes files may grow. Of a write that needs more, what fits is written; then it fails (T30)."""
    fsync_fails: bool = False
    """Every sync fails, and what it should have kept will never be, whatever is synced later (T31)."""
    read_fails: bool = False
    """Every read fails (EIO)."""

    def __init__(self, name: str, image: Image | None = None) -> None:
        """`name` is what SQLite knows it by: each at a time needs its own. The files are those of the image."""
        self.name = name
        self.write_count = self.sync_count = 0
        self._model = Files(image)
        self._boot_number = 1
        self._handles: set[_Handle] = set()
        super().__init__(name, "")

    def close(self) -> None:
        """SQLite knows it no longer. All its connections must be closed, or forgotten after `kill`."""
        self.unregister()

    # -- what is there, and its end --------------------------------------------------------------------

    @property
    def files(self) -> dict[str, bytes]:
        """What a look from outside sees, synced or not, by name."""
        return self._model.contents()

    def image(self) -> Image:
        """All files as they are, with what is not synced yet; `Image.of(disk.files)` is the same with all synced."""
        return self._model.image()

    def kill(self) -> None:
        """The process dies. What it wrote stays, synced or not."""
        self.restore(self._model.image())

    def cut_power(self, randomness: Random) -> CutReport:
        """The process dies and so does the machine. What was not synced may be lost or torn."""
        image, report = self._model.after_cut(randomness)
        self.restore(image)
        return report

    def restore(self, image: Image) -> None:
        """The process dies, and the next one finds these files."""
        for handle in self._handles:
            handle.is_dead = True
        self._handles.clear()
        self._boot_number += 1
        self._model = Files(image)

    def before(self, operation: Operation) -> None:
        """Let the hook see what is about to be done."""
        if self.on_operation is None:
            return
        try:
            self.on_operation(operation)
        except apsw.Error:
            raise
        except BaseException:
            self.kill()
            raise

    # -- what SQLite asks of a VFS ---------------------------------------------------------------------

    def xFullPathname(self, name: str) -> str:
        """With the number of the start in it: what a dead connection asks for by name is told by that."""
        return f"/{self._boot_number}/{name}"

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_Handle":  # type: ignore[override]
        """Any object with a file's methods will do for apsw."""
        flags[1] = flags[0]
        if name is None:
            return _Handle(self, "", File(), is_dead=True)
        own_name = self._own_name(name if isinstance(name, str) else name.filename())
        if own_name is None:
            return _Handle(self, "", File(), is_dead=True)
        file = self._model.names.get(own_name)
        if file is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.exception_for(apsw.SQLITE_CANTOPEN)
            self.before(Operation("create", own_name))
            file = self._model.create(own_name)
        handle = _Handle(self, own_name, file, syncs_names=bool(flags[0] & _LOG_FLAGS))
        self._handles.add(handle)
        return handle

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Of a journal that is over, or a log that has been copied."""
        name = self._own_name(filename)
        if name is None:
            return
        if name not in self._model.names:
            raise apsw.exception_for(apsw.SQLITE_IOERR_DELETE_NOENT)
        self.before(Operation("delete", name))
        self._model.delete(name)
        if syncdir:
            self.sync_names(name)

    def xAccess(self, pathname: str, flags: int) -> bool:
        """Whether there is such a file."""
        return self._own_name(pathname) in self._model.names

    def sync_names(self, name: str) -> None:
        """Sync the directory that this name is in."""
        directory = parent_of(name)
        self.before(Operation("sync names", directory))
        self._model.sync_names(directory)

    def forget(self, handle: "_Handle") -> None:
        """It was closed."""
        self._handles.discard(handle)

    def lock_level_of_others(self, handle: "_Handle") -> int:
        """The highest lock that another handle has on the same file."""
        return max((h.lock_level for h in self._handles if h.file is handle.file and h is not handle), default=0)

    def _own_name(self, full_name: str) -> str | None:
        """The name as it was given to `apsw.Connection`; None if whoever asks is dead."""
        boot_number, _, name = full_name[1:].partition("/")
        return name if boot_number == str(self._boot_number) else None


class _Handle:
    """What one connection has open. Errors look as SQLite's own do."""

    def __init__(
        self, disk: MemoryDisk, name: str, file: File, *, syncs_names: bool = False, is_dead: bool = False
    ) -> None:
        """`syncs_names`: the first sync is one of the directory too. `is_dead`: nobody else sees the file."""
        self.disk = disk
        self.name = name
        self.file = file
        self.syncs_names = syncs_names
        self.is_dead = is_dead
        self.lock_level = 0

    def xRead(self, amount: int, offset: int) -> bytes | bytearray:
        if self.disk.read_fails and not self.is_dead:
            raise apsw.exception_for(apsw.SQLITE_IOERR_READ)
        return self.file.content[offset : offset + amount]

    def xWrite(self, data: bytes, offset: int) -> None:
        data = bytes(data)
        disk = self.disk
        if self.is_dead:
            self.file.write(offset, data)
            return
        disk.before(Operation("write", self.name, offset, data))
        disk.write_count += 1
        if disk.is_full:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        if disk.room_size is not None:
            growth = max(0, offset + len(data) - len(self.file.content))
            missing_size = growth - disk.room_size
            disk.room_size -= min(growth, disk.room_size)
            if missing_size > 0:
                self.file.write(offset, data[: max(0, len(data) - missing_size)])
                raise apsw.exception_for(apsw.SQLITE_FULL)
        self.file.write(offset, data)

    def xTruncate(self, newsize: int) -> None:
        if not self.is_dead:
            self.disk.before(Operation("truncate", self.name, newsize))
        self.file.truncate(newsize)

    def xSync(self, flags: int) -> None:
        if self.is_dead:
            return
        disk = self.disk
        disk.before(Operation("sync", self.name))
        disk.sync_count += 1
        if disk.fsync_fails:
            self.file.fail_to_sync()
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        self.file.sync()
        if self.syncs_names:
            self.syncs_names = False
            disk.sync_names(self.name)

    def xFileSize(self) -> int:
        return len(self.file.content)

    def xLock(self, level: int) -> None:
        if self.is_dead:
            # SQLite then leaves the log alone when it closes.
            raise apsw.exception_for(apsw.SQLITE_BUSY)
        others = self.disk.lock_level_of_others(self)
        refused_from = {apsw.SQLITE_LOCK_SHARED: apsw.SQLITE_LOCK_PENDING, apsw.SQLITE_LOCK_RESERVED: level}
        if others >= refused_from.get(level, apsw.SQLITE_LOCK_SHARED):
            raise apsw.exception_for(apsw.SQLITE_BUSY)
        self.lock_level = max(self.lock_level, level)

    def xUnlock(self, level: int) -> None:
        self.lock_level = min(self.lock_level, level)

    def xCheckReservedLock(self) -> bool:
        return self.disk.lock_level_of_others(self) >= apsw.SQLITE_LOCK_RESERVED

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return _UNIX_SECTOR_SIZE

    def xDeviceCharacteristics(self) -> int:
        return _UNIX_CHARACTERISTICS

    def xClose(self) -> None:
        self.disk.forget(self)
