"""A disk below SQLite that fills up, or whose fsync fails, when a test says so (T30, T31)."""

import apsw

VFS_NAME = "failing-disk"


class FailingDisk(apsw.VFS):
    """The real disk until told otherwise. Errors look as SQLite's own do."""

    def __init__(self) -> None:
        self.is_full = False
        self.fsync_fails = False
        self.write_count = self.sync_count = 0
        super().__init__(VFS_NAME, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":
        """SQLite's name for it."""
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.disk.write_count += 1
        if self.disk.is_full:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.disk.sync_count += 1
        if self.disk.fsync_fails:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)
