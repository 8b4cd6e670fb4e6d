"""The disk in memory: what a cut takes and what it never takes, and that SQLite on it loses what it may lose."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import apsw
import pytest
from disk_model import SECTOR_SIZE, CutReport, Files, Image, Operation
from memory_disk import MemoryDisk, seed_sqlite

SEEDS = range(400)


@pytest.fixture
def disk() -> Iterator[MemoryDisk]:
    disk = MemoryDisk("memory")
    yield disk
    disk.close()


class Killed(Exception):
    pass


# -- the model -----------------------------------------------------------------------------------------------


def synced_files(**contents: bytes) -> Files:
    return Files(Image.of(contents))


def cuts(files: Files) -> Iterator[tuple[dict[str, bytes], CutReport]]:
    for seed in SEEDS:
        image, report = files.after_cut(Random(seed))
        yield Files(image).contents(), report


def test_what_was_synced_stays_under_any_cut() -> None:
    files = Files()
    files.create("a").write(0, b"x" * 2_000)
    files.names["a"].sync()
    files.sync_names()
    files.create("b").write(0, b"y")  # not synced, and never asked for
    assert {contents["a"] for contents, _ in cuts(files)} == {b"x" * 2_000}


def test_an_unsynced_write_is_kept_lost_or_torn_by_sectors() -> None:
    files = synced_files(a=b"o" * 3 * SECTOR_SIZE)
    files.names["a"].write(100, b"n" * 2 * SECTOR_SIZE)
    assert files.contents()["a"][100:101] == b"n"  # the others see it at once
    found: set[bytes] = set()
    total = CutReport()
    for contents, report in cuts(files):
        found.add(contents["a"])
        total.add(report)
    # It touches three sectors, so there are eight ways, and none harms the bytes beside it.
    assert len(found) == 8
    for content in found:
        assert len(content) == 3 * SECTOR_SIZE
        assert content[:100] == b"o" * 100
        assert content[100 + 2 * SECTOR_SIZE :] == b"o" * (SECTOR_SIZE - 100)
        for start, end in pairwise((100, 512, 1024, 1124)):
            assert len(set(content[start:end])) == 1
    assert total.kept > 20
    assert total.lost > 20
    assert total.torn > 20
    assert total.kept + total.lost + total.torn == len(SEEDS)


def test_no_order_is_kept_between_writes_nor_between_files() -> None:
    files = synced_files(a=b"0" * 2 * SECTOR_SIZE, b=b"0")
    files.names["a"].write(0, b"1")
    files.names["a"].write(SECTOR_SIZE, b"2")
    files.names["b"].write(0, b"3")
    found = {(c["a"][:1], c["a"][SECTOR_SIZE : SECTOR_SIZE + 1], c["b"]) for c, _ in cuts(files)}
    assert len(found) == 8


def test_a_growing_file_may_be_short_or_long_with_anything_in_it() -> None:
    files = synced_files(a=b"o" * 10)
    for offset in (10, 1_000, 2_000):
        files.names["a"].write(offset, b"n" * 100)
    found = [contents["a"] for contents, _ in cuts(files)]
    assert all(content[:10] == b"o" * 10 for content in found)
    sizes = {len(content) for content in found}
    assert {10, 2_100} < sizes
    assert len(sizes) > 20
    gaps = {content[500:1_000] for content in found if len(content) == 2_100}
    assert bytes(500) in gaps
    assert any(set(gap) - {0} for gap in gaps)  # garbage


def test_a_truncation_happens_or_not() -> None:
    files = synced_files(a=b"o" * 1_000)
    files.names["a"].truncate(10)
    assert {len(contents["a"]) for contents, _ in cuts(files)} == {10, 1_000}
    files.names["a"].sync()
    assert {len(contents["a"]) for contents, _ in cuts(files)} == {10}


def test_a_name_is_kept_only_with_its_directory() -> None:
    files = synced_files(old=b"old", gone=b"gone")
    files.create("new").write(0, b"new")
    files.names["new"].sync()
    files.rename("new", "old")
    files.delete("gone")
    found = {tuple(sorted(contents.items())) for contents, _ in cuts(files)}
    # Made or not, renamed or not, deleted or not: a renaming that is kept has its file even if its making was lost.
    olds = {dict(contents)["old"] for contents in found}
    assert olds == {b"old", b"new"}
    assert {"gone" in dict(contents) for contents in found} == {True, False}
    files.sync_names()
    assert {tuple(contents.items()) for contents, _ in cuts(files)} == {(("old", b"new"),)}


def test_a_sync_that_failed_is_not_made_good_by_the_next() -> None:
    files = synced_files(a=b"old")
    files.names["a"].write(0, b"new")
    files.names["a"].fail_to_sync()
    files.names["a"].sync()
    assert files.contents() == {"a": b"new"}
    assert {contents["a"] for contents, _ in cuts(files)} == {b"old"}


def test_an_image_does_not_change_with_what_was_made_of_it_and_holds_what_is_not_synced() -> None:
    files = synced_files(a=b"old")
    files.names["a"].write(0, b"new")
    image = files.image()
    first, second = Files(image), Files(image)
    first.names["a"].write(3, b"er")
    first.names["a"].sync()
    first.delete("a")
    assert second.contents() == files.contents() == {"a": b"new"}
    assert {contents["a"] for contents, _ in cuts(second)} == {b"old", b"new"}


def test_a_recorded_run_can_be_done_again(disk: MemoryDisk) -> None:
    trace: list[Operation] = []
    disk.on_operation = trace.append
    connection = open_wal(disk)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(9000))")
    connection.pragma("wal_checkpoint", "TRUNCATE")
    again = Files()
    for operation in trace:
        again.do(operation)
    assert again.image() == disk.image()
    connection.close()
    assert {operation.kind for operation in trace} == {"create", "write", "sync", "sync names", "truncate", "delete"}


# -- SQLite on it --------------------------------------------------------------------------------------------


def open_wal(disk: MemoryDisk, synchronous: str = "FULL") -> apsw.Connection:
    connection = apsw.Connection("a.db", vfs=disk.name)
    connection.pragma("locking_mode", "EXCLUSIVE")
    assert connection.pragma("journal_mode", "WAL") == "wal"
    connection.pragma("synchronous", synchronous)
    return connection


def open_without_log(disk: MemoryDisk) -> apsw.Connection:
    connection = apsw.Connection("a.db", vfs=disk.name)
    connection.pragma("journal_mode", "OFF")
    return connection


def row_count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").get)


def counts_after_cuts(disk: MemoryDisk, open_it: Callable[[MemoryDisk], apsw.Connection]) -> set[int | str]:
    """How many rows there are after each of many cuts; the error's name where the database is damaged."""
    image = disk.image()
    found: set[int | str] = set()
    for seed in range(100):
        other = MemoryDisk("after cut", image)
        other.cut_power(Random(seed))
        try:
            connection = open_it(other)
            try:
                damage = connection.pragma("integrity_check")
                found.add(row_count(connection) if damage == "ok" else "damaged")
            finally:
                connection.close()
        except apsw.Error as error:
            found.add(type(error).__name__)
        other.close()
    return found


@pytest.mark.parametrize(("synchronous", "is_durable"), [("FULL", True), ("NORMAL", False), ("OFF", False)])
def test_only_full_sync_keeps_every_commit(disk: MemoryDisk, synchronous: str, is_durable: bool) -> None:
    connection = open_wal(disk, synchronous)
    connection.execute("CREATE TABLE t(x)")
    connection.pragma("wal_checkpoint", "TRUNCATE")
    for _ in range(3):
        connection.execute("INSERT INTO t VALUES (zeroblob(2000))")
    found = counts_after_cuts(disk, open_wal)
    if is_durable:
        assert found == {3}
    else:
        assert found & {0, 1, 2}
    connection.close()


def test_a_torn_page_without_a_log_is_seen(disk: MemoryDisk) -> None:
    connection = open_without_log(disk)
    connection.execute("CREATE TABLE t(x); CREATE INDEX i ON t(x)")
    disk.on_operation = raise_at("sync", Killed())
    with pytest.raises(Killed):
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 900) "
            "INSERT INTO t SELECT printf('%09d', x * 7919 % 1000) FROM n"
        )
    connection.close()
    disk.on_operation = None
    assert counts_after_cuts(disk, open_without_log) & {"damaged", "CorruptError"}


def raise_at(kind: str, error: Exception, number: int = 1) -> Callable[[Operation], None]:
    """A hook that raises before the n-th operation of a kind."""
    left = number

    def hook(operation: Operation) -> None:
        nonlocal left
        left -= operation.kind == kind
        if left == 0:
            raise error

    return hook


def insert_for_ever(connection: apsw.Connection) -> None:
    while True:
        connection.execute("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize(
    ("kind", "number", "found"), [("write", 2, 1), ("write", 3, 2), ("sync", 1, 2), ("sync", 2, 3)]
)
def test_a_process_dies_in_the_middle_and_the_next_finds_what_it_wrote(
    disk: MemoryDisk, kind: str, number: int, found: int
) -> None:
    """A commit is two writes, of a page and what comes before it in the log, and a sync."""
    connection = open_wal(disk)
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
    disk.on_operation = raise_at(kind, Killed("now"), number)
    with pytest.raises(Killed, match="now") as caught:
        insert_for_ever(connection)
    assert caught.value.__context__ is None
    disk.on_operation = None
    before = disk.files
    # The dead connection works on a ghost, whose changes nobody sees; closing it is nothing either.
    connection.execute("INSERT INTO t VALUES (3), (4), (5)")
    connection.pragma("wal_checkpoint", "TRUNCATE")
    assert disk.files == before
    after = open_wal(disk)
    assert row_count(after) == found
    connection.close()
    after.execute("INSERT INTO t VALUES (6)")
    after.close()
    assert set(disk.files) == {"a.db"}


def test_an_error_from_the_hook_is_the_disks_and_the_process_lives(disk: MemoryDisk) -> None:
    connection = open_wal(disk)
    connection.execute("CREATE TABLE t(x)")
    disk.on_operation = raise_at("write", apsw.exception_for(apsw.SQLITE_IOERR_WRITE))
    with pytest.raises(apsw.IOError):
        connection.execute("INSERT INTO t VALUES (1)")
    disk.on_operation = None
    connection.execute("INSERT INTO t VALUES (1)")
    assert row_count(connection) == 1
    connection.close()


def test_a_disk_that_fills_up_takes_what_fits(disk: MemoryDisk) -> None:
    connection = open_wal(disk)
    connection.execute("CREATE TABLE t(x)")
    size = len(disk.files["a.db-wal"])
    disk.room_size = 100
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t VALUES (1)")
    assert (disk.room_size, len(disk.files["a.db-wal"])) == (0, size + 100)
    disk.is_full = True
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t VALUES (1)")
    disk.is_full, disk.room_size = False, None
    connection.execute("INSERT INTO t VALUES (1)")
    assert row_count(connection) == 1
    connection.close()


def test_reads_and_syncs_that_fail(disk: MemoryDisk) -> None:
    connection = open_wal(disk)
    connection.execute("CREATE TABLE t(x)")
    disk.fsync_fails = True
    with pytest.raises(apsw.IOError) as caught:
        connection.execute("INSERT INTO t VALUES (1)")
    assert getattr(caught.value, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC
    disk.fsync_fails = False
    disk.kill()
    connection.close()
    disk.read_fails = True
    with pytest.raises(apsw.IOError):
        open_wal(disk)
    disk.read_fails = False


def test_a_second_connection_is_refused_until_the_first_is_dead(disk: MemoryDisk) -> None:
    first = open_wal(disk)
    first.execute("CREATE TABLE t(x)")
    second = apsw.Connection("a.db", vfs=disk.name)
    with pytest.raises(apsw.BusyError):
        second.execute("SELECT * FROM t")
    second.close()
    disk.kill()
    third = open_wal(disk)
    assert row_count(third) == 0
    third.close()
    first.close()


def test_several_disks_at_once(disk: MemoryDisk) -> None:
    other = MemoryDisk("other")
    one, two = open_wal(disk), open_wal(other)
    one.execute("CREATE TABLE t(x)")
    two.execute("CREATE TABLE u(x)")
    one.close()
    two.close()
    assert b"TABLE t" in disk.files["a.db"]
    assert b"TABLE u" in other.files["a.db"]
    other.close()


def test_one_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name, seed in (("1", b"seed"), ("2", b"seed"), ("3", b"other")):
        seed_sqlite(seed)
        disk = MemoryDisk(name)
        connection = open_wal(disk)
        connection.execute("CREATE TABLE t(x)")
        found.append(disk.files)
        connection.close()
        disk.close()
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_sqlite_leaves_the_same_bytes_as_on_a_real_disk(disk: MemoryDisk, tmp_path: Path) -> None:
    def work(path: Path, vfs: str | None) -> Iterator[None]:
        seed_sqlite(b"same")
        connection = apsw.Connection(str(path), vfs=vfs)
        connection.pragma("locking_mode", "EXCLUSIVE")
        connection.pragma("journal_mode", "WAL")
        yield
        for _ in range(9):
            connection.execute("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (zeroblob(9000))")
            yield
        connection.pragma("wal_checkpoint", "RESTART")
        yield
        connection.execute("DELETE FROM t; VACUUM")
        yield
        connection.close()
        yield

    in_memory = [disk.files for _ in work(Path("a.db"), disk.name)]
    real = [{p.name: p.read_bytes() for p in tmp_path.iterdir()} for _ in work(tmp_path / "a.db", None)]
    assert len(in_memory[-2]["a.db-wal"]) > 100_000
    assert in_memory == real


def test_a_directory_that_is_lost_takes_its_files_with_it() -> None:
    files = synced_files()
    files.make_directory("d")
    files.create("d/a").write(0, b"new")
    files.names["d/a"].sync()
    files.link("d/a", "d/b")
    files.sync_names("d")
    assert {tuple(sorted(contents)) for contents, _ in cuts(files)} == {(), ("d/", "d/a", "d/b")}
    files.delete("d/a")
    files.sync_names()
    assert {tuple(sorted(contents)) for contents, _ in cuts(files)} == {("d/", "d/b"), ("d/", "d/a", "d/b")}
    files.sync_names("d")
    assert {tuple(sorted(contents.items())) for contents, _ in cuts(files)} == {(("d/", b""), ("d/b", b"new"))}
