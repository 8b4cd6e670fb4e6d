"""The database: what a commit costs, and what its errors are called (T30, T31, T32)."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import apsw
import pytest
from disk_model import Operation
from memory_disk import MemoryDisk

from paygate.cli import ExitCode
from paygate.files import sqlite
from paygate.files.sqlite import (
    StoreCorrupt,
    StoreError,
    StoreFsyncFailed,
    StoreFull,
    open_database,
    transaction,
)
from paygate.files.state_dir import StateError

APPLICATION_ID = 0x50474254
SCHEMA = ["CREATE TABLE t(x INTEGER PRIMARY KEY, y TEXT); CREATE TABLE u(x REFERENCES t(x))"]


class Disk(apsw.VFS):
    """The real disk, until a test says what fails on which file. Errors look as SQLite's own do."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.fsync_fails: set[str] = set()
        self.write_fails: set[str] = set()
        self.system_errno = 0
        self.syncs: list[str] = []
        super().__init__("failing", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "DiskFile":
        return DiskFile(self, name, flags)

    def xGetLastError(self) -> tuple[int, str | None]:
        return self.system_errno, None


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self.disk, self.name = disk, Path(path).name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.name in self.disk.full:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        if self.name in self.disk.write_fails:
            raise apsw.exception_for(apsw.SQLITE_IOERR_WRITE)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.disk.syncs.append(self.name)
        if self.name in self.disk.fsync_fails:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


@pytest.fixture
def db(tmp_path: Path, disk: Disk) -> Iterator[apsw.Connection]:
    connection = open_database(tmp_path / "a.db", application_id=APPLICATION_ID, schema=SCHEMA, vfs="failing")
    disk.syncs.clear()
    yield connection
    disk.full.clear()
    connection.close()


def values(connection: apsw.Connection) -> list[int]:
    return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


def insert(connection: apsw.Connection, x: int) -> None:
    connection.execute("INSERT INTO t(x, y) VALUES (?, 'y')", (x,))


def test_a_commit_is_one_fsync_of_the_log_and_a_read_is_none(db: apsw.Connection, disk: Disk) -> None:
    with transaction(db):
        assert values(db) == []
    with transaction(db):
        db.execute("DELETE FROM t WHERE x = 1")
    assert disk.syncs == []
    with transaction(db):
        insert(db, 1)
    disk.syncs.clear()  # the first one also began the log
    with transaction(db):
        insert(db, 2)
        insert(db, 3)
    assert disk.syncs == ["a.db-wal"]


def test_settings(db: apsw.Connection) -> None:
    assert db.pragma("journal_mode") == "wal"
    assert db.pragma("synchronous") == 2
    assert db.pragma("locking_mode") == "exclusive"
    assert db.pragma("foreign_keys") == 1
    assert db.pragma("trusted_schema") == 0
    assert db.pragma("application_id") == APPLICATION_ID
    with pytest.raises(apsw.ConstraintError), transaction(db):
        db.execute("INSERT INTO u VALUES (99)")


def test_an_exception_rolls_back(db: apsw.Connection) -> None:
    def insert_and_fail() -> None:
        with transaction(db):
            insert(db, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    assert not db.in_transaction
    assert values(db) == []
    with pytest.raises(FileNotFoundError), transaction(db):
        raise FileNotFoundError("the caller's own")


def test_a_full_disk_undoes_the_transaction_and_recovers_by_itself(db: apsw.Connection, disk: Disk) -> None:
    with transaction(db):
        insert(db, 1)
    disk.full.add("a.db-wal")
    with pytest.raises(StoreFull, match="no room on the disk"), transaction(db):
        insert(db, 2)
    with transaction(db):
        assert values(db) == [1]  # reading still works
    disk.full.clear()
    with transaction(db):
        insert(db, 3)
    assert values(db) == [1, 3]


def test_a_failed_fsync_is_not_taken_for_a_full_disk(db: apsw.Connection, disk: Disk) -> None:
    with transaction(db):
        insert(db, 1)
    disk.fsync_fails.add("a.db-wal")
    with pytest.raises(StoreFsyncFailed) as caught, transaction(db):
        insert(db, 2)
    assert not isinstance(caught.value, StoreFull)
    assert caught.value.code is ExitCode.STORE_FAILED
    assert not db.in_transaction
    disk.syncs.clear()
    db.close()
    assert disk.syncs == []  # T31: the disk isn't asked again


def test_a_failed_write_stops_too(db: apsw.Connection, disk: Disk) -> None:
    disk.write_fails.add("a.db-wal")
    with pytest.raises(StoreError) as caught, transaction(db):
        insert(db, 1)
    assert not isinstance(caught.value, StoreFull)
    assert caught.value.code is ExitCode.STORE_FAILED


def test_a_checkpoint_does_not_hide_a_failed_fsync(
    db: apsw.Connection, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGE_COUNT", 1)
    disk.fsync_fails.add("a.db")
    with pytest.raises(StoreFsyncFailed), transaction(db):
        insert(db, 1)


def test_a_full_quota_undoes_the_transaction_and_recovers_by_itself(db: apsw.Connection, disk: Disk) -> None:
    disk.system_errno = errno.EDQUOT
    disk.write_fails.add("a.db-wal")
    with pytest.raises(StoreFull, match="no room"), transaction(db):
        db.execute("INSERT INTO t(x) VALUES (1)")
    disk.write_fails.clear()
    with transaction(db):
        db.execute("INSERT INTO t(x) VALUES (2)")
    assert values(db) == [2]


def test_an_fsync_that_fails_for_want_of_quota_is_no_full_disk(db: apsw.Connection, disk: Disk) -> None:
    disk.system_errno = errno.EDQUOT
    disk.fsync_fails.add("a.db-wal")
    with pytest.raises(StoreFsyncFailed), transaction(db):
        db.execute("INSERT INTO t(x) VALUES (1)")


def test_a_full_quota_at_a_checkpoint_is_no_failed_commit(
    db: apsw.Connection, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGE_COUNT", 1)
    disk.system_errno = errno.EDQUOT
    disk.write_fails.add("a.db")
    with transaction(db):
        db.execute("INSERT INTO t(x) VALUES (1)")
    disk.write_fails.clear()
    assert values(db) == [1]


def test_a_database_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    open_database(path, application_id=APPLICATION_ID, schema=SCHEMA).close()

    def broken(_path: Path) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "stat", broken)
    with pytest.raises(StoreError, match=r"could not look at .*a\.db: Input/output error") as caught:
        open_database(path, application_id=APPLICATION_ID, schema=SCHEMA)
    assert caught.value.code is ExitCode.BAD_STATE


def test_a_full_disk_at_a_checkpoint_is_no_failed_commit(
    db: apsw.Connection, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGE_COUNT", 1)
    disk.full.add("a.db")
    with transaction(db):
        insert(db, 1)
    assert values(db) == [1]
    disk.full.clear()
    with transaction(db):
        insert(db, 2)
    assert "a.db" in disk.syncs


def test_a_checkpoint_happens_by_itself(db: apsw.Connection, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction(db):
        insert(db, 1)
    assert "a.db" not in disk.syncs
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGE_COUNT", 1)
    with transaction(db):
        insert(db, 2)
    assert "a.db" in disk.syncs


def test_a_disk_that_is_full_from_the_start(tmp_path: Path, disk: Disk) -> None:
    disk.full |= {"a.db", "a.db-wal", "a.db-journal"}
    with pytest.raises(StoreFull):
        open_database(tmp_path / "a.db", application_id=APPLICATION_ID, schema=SCHEMA, vfs="failing")


def open_plain(path: Path, schema: list[str] = SCHEMA, application_id: int = APPLICATION_ID) -> apsw.Connection:
    return open_database(path, application_id=application_id, schema=schema)


def test_files_are_private(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        connection = open_plain(tmp_path / "a.db")
        assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
            "a.db": 0o600,
            "a.db-wal": 0o600,
        }
        connection.close()
    finally:
        os.umask(old_mask)


@pytest.mark.parametrize("name", ["a.db", "a.db-wal"])
def test_a_loose_database_is_refused_with_the_command_that_mends_it(tmp_path: Path, name: str) -> None:
    open_plain(tmp_path / "a.db").close()
    (tmp_path / "a.db-wal").touch(0o600)  # as a crash leaves it
    loose = tmp_path / name
    loose.chmod(0o644)
    with pytest.raises(StateError, match=f"mode 0644.*chmod 600 .*{name}$") as caught:
        open_plain(tmp_path / "a.db")
    assert caught.value.code is ExitCode.BAD_STATE
    loose.chmod(0o600)
    open_plain(tmp_path / "a.db").close()


def test_a_database_grows_with_its_schema(tmp_path: Path) -> None:
    connection = open_plain(tmp_path / "a.db")
    insert(connection, 1)
    connection.close()
    longer = [*SCHEMA, "ALTER TABLE t ADD z DEFAULT 5", "CREATE TABLE v(x); INSERT INTO v SELECT z FROM t"]
    connection = open_plain(tmp_path / "a.db", longer)
    assert connection.execute("SELECT * FROM v").get == 5
    connection.close()
    with pytest.raises(StoreError, match="has version 3, made by a newer paygate") as caught:
        open_plain(tmp_path / "a.db")
    assert caught.value.code is ExitCode.BAD_STATE


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    open_plain(tmp_path / "a.db").close()
    with pytest.raises(StoreCorrupt, match="it says version 1, and what leads to 3 does not fit it"):
        open_plain(tmp_path / "a.db", [*SCHEMA, "CREATE TABLE v(x)", "CREATE TABLE v(x)"])
    connection = open_plain(tmp_path / "a.db")
    assert connection.pragma("user_version") == 1
    assert connection.table_exists(None, "v") is False
    connection.close()


def test_a_migration_may_make_a_table_anew_that_others_refer_to(tmp_path: Path) -> None:
    connection = open_plain(tmp_path / "a.db")
    insert(connection, 1)
    connection.execute("INSERT INTO u VALUES (1)")
    connection.close()
    anew = "CREATE TABLE t2(x INTEGER PRIMARY KEY, y TEXT NOT NULL); INSERT INTO t2 SELECT * FROM t{}; DROP TABLE t; "
    anew += "ALTER TABLE t2 RENAME TO t"
    with pytest.raises(StoreCorrupt, match="refers to rows that are not there"):
        open_plain(tmp_path / "a.db", [*SCHEMA, anew.format(" WHERE x > 1")])
    connection = open_plain(tmp_path / "a.db", [*SCHEMA, anew.format("")])
    assert values(connection) == [1]
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO u VALUES (2)")
    connection.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs(x)")
    other.commit()
    other.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database; move it away"):
        open_plain(path)
    open_plain(tmp_path / "b.db").close()
    with pytest.raises(StoreError, match="another program's"):
        open_plain(tmp_path / "b.db", application_id=APPLICATION_ID + 1)
    assert path.read_bytes() == before


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is no database" * 1000)
    path.chmod(0o600)
    with pytest.raises(StoreCorrupt, match="restore it from a backup"):
        open_plain(path)
    path.unlink()
    connection = open_plain(path)
    with transaction(connection):
        for x in range(1000):
            insert(connection, x)
    connection.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    connection = open_plain(path)
    with pytest.raises(StoreCorrupt), transaction(connection):
        values(connection)
    connection.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    connection = open_plain(tmp_path / "a.db")
    program = f"""
import pathlib, sys
from paygate.cli import run
from paygate.files.sqlite import open_database
sys.exit(run("second", lambda: open_database(pathlib.Path(sys.argv[1]), application_id={APPLICATION_ID}, schema=[])))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.STATE_IN_USE
    assert "another process has" in done.stderr
    connection.close()


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory") as caught:
        open_plain(tmp_path / "nowhere" / "a.db")
    assert caught.value.code is ExitCode.BAD_STATE


@pytest.mark.parametrize("room_size", [None, 0])
def test_what_a_start_finds_in_the_log_is_on_disk_before_anybody_is_told(room_size: int | None) -> None:
    """A process that is killed between write and fsync leaves a commit that the next one sees, and may answer by."""
    disk = MemoryDisk("killed")

    def open_it() -> apsw.Connection:
        return open_database(Path("a.db"), application_id=APPLICATION_ID, schema=SCHEMA, vfs="killed")

    def kill(operation: Operation) -> None:
        if operation.kind == "sync":
            raise KeyboardInterrupt

    connection = open_it()
    with transaction(connection):
        insert(connection, 1)
    disk.on_operation = kill
    with pytest.raises(KeyboardInterrupt), transaction(connection):
        insert(connection, 2)
    connection.close()

    disk.on_operation = None
    disk.room_size = room_size
    connection = open_it()
    found = values(connection)
    assert found == [1, 2]
    for seed in range(30):
        after_cut = MemoryDisk("cut", disk.image())
        after_cut.cut_power(Random(seed))
        other = open_database(Path("a.db"), application_id=APPLICATION_ID, schema=SCHEMA, vfs="cut")
        assert values(other) == found, f"cut {seed}"
        other.close()
        after_cut.close()
    disk.room_size = None
    connection.close()
    disk.close()


def test_a_start_that_can_not_write_the_log_anew_is_none() -> None:
    """Where even bytes that have their place need new room, nobody is answered by what may not be on disk (T30, T31).

    Found by the simulator (seed 20156: a failed fsync, a start on a full disk that told "paid", a power cut).
    """
    disk = MemoryDisk("full-start")

    def open_it() -> apsw.Connection:
        return open_database(Path("a.db"), application_id=APPLICATION_ID, schema=SCHEMA, vfs=disk.name)

    connection = open_it()
    with transaction(connection):
        insert(connection, 1)
    disk.fsync_fails = True
    with pytest.raises(StoreFsyncFailed), transaction(connection):
        insert(connection, 2)
    disk.kill()
    connection.close()
    disk.fsync_fails, disk.is_full = False, True
    with pytest.raises(StoreFull, match="free some"):
        open_it()
    disk.is_full = False
    connection = open_it()
    assert values(connection) == [1, 2]
    connection.close()
    disk.close()


def test_what_a_failed_fsync_left_in_the_log_is_written_anew_before_anybody_is_told() -> None:
    """After a failed fsync all see what was written, no later sync keeps it, and a power cut takes it (T31).

    Found by the simulator (seed 82: a failed fsync, a restart and a power cut damaged the ledger).
    """
    disk = MemoryDisk("failed")

    def open_it(name: str = "failed") -> apsw.Connection:
        return open_database(Path("a.db"), application_id=APPLICATION_ID, schema=SCHEMA, vfs=name)

    connection = open_it()
    with transaction(connection):
        insert(connection, 1)
    disk.fsync_fails = True
    with pytest.raises(StoreFsyncFailed), transaction(connection):
        insert(connection, 2)
    disk.kill()
    connection.close()

    disk.fsync_fails = False
    connection = open_it()
    found = values(connection)
    assert found == [1, 2]
    for seed in range(30):
        after_cut = MemoryDisk("cut", disk.image())
        after_cut.cut_power(Random(seed))
        other = open_it("cut")
        assert values(other) == found, f"cut {seed}"
        assert other.pragma("integrity_check") == "ok"
        other.close()
        after_cut.close()
    connection.close()
    disk.close()


def test_a_start_whose_fsync_fails_asks_the_disk_once(tmp_path: Path) -> None:
    """T31: closing after the error would copy the log into the database, and sync again."""
    disk = MemoryDisk("failing-start")
    connection = open_database(Path("a.db"), application_id=APPLICATION_ID, schema=SCHEMA, vfs=disk.name)
    with transaction(connection):
        insert(connection, 1)
    disk.kill()
    connection.close()
    disk.fsync_fails = True
    before = disk.sync_count
    with pytest.raises(StoreFsyncFailed):
        open_database(Path("a.db"), application_id=APPLICATION_ID, schema=SCHEMA, vfs=disk.name)
    assert disk.sync_count == before + 1
    disk.close()


@pytest.mark.parametrize("blob_size", [200_000, 131_072 - 32, 1_500_000])
def test_a_start_after_a_kill_takes_a_log_of_any_size(tmp_path: Path, blob_size: int) -> None:
    """On the system's own disk, whose writes are what SQLite makes of them."""
    killed, state = tmp_path / "killed", tmp_path / "state"
    killed.mkdir()
    state.mkdir()
    path = killed / "a.db"
    connection = open_database(path, application_id=1, schema=("CREATE TABLE v (data BLOB)",))
    with transaction(connection):
        connection.execute("INSERT INTO v VALUES (zeroblob(?))", (blob_size,))
    # As a kill leaves them.
    for name in ("a.db", "a.db-wal"):
        shutil.copy(killed / name, state / name)
    connection.close()
    assert (state / "a.db-wal").stat().st_size > blob_size
    again = open_database(state / "a.db", application_id=1, schema=("CREATE TABLE v (data BLOB)",))
    assert again.execute("SELECT length(data) FROM v").get == blob_size
    again.close()
