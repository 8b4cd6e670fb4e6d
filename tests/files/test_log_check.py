"""A byte of the write-ahead log that has changed takes no commit away in silence (T32)."""

import shutil
from itertools import product
from pathlib import Path
from typing import Final

import apsw
import pytest

from paygate.files.sqlite import StoreCorrupt, open_database, open_to_read, transaction

SCHEMA: Final = ["CREATE TABLE row (number INTEGER PRIMARY KEY, text BLOB) STRICT;"]
STORE: Final = {"application_id": 1, "schema": SCHEMA}
HEADER_SIZE, FRAME_HEADER_SIZE = 32, 24
FRAME_SIZE: Final = FRAME_HEADER_SIZE + 4096
COMMIT_COUNT: Final = 4


def killed(directory: Path, *, last_size: int = 9_000) -> Path:
    """A store whose server was killed after some commits, of three frames or more each, in a log begun anew."""
    path = directory / "served" / "store.sqlite"
    path.parent.mkdir()
    connection = open_database(path, **STORE)  # type: ignore[arg-type]
    for number in range(20):  # So the log has old frames behind the new ones.
        write(connection, number)
    connection.wal_checkpoint("main")
    for number in range(20, 20 + COMMIT_COUNT - 1):
        write(connection, number)
    write(connection, 20 + COMMIT_COUNT - 1, last_size)
    shutil.copytree(path.parent, directory / "killed")
    connection.close()
    return directory / "killed" / path.name


def write(connection: apsw.Connection, number: int, size: int = 9_000) -> None:
    with transaction(connection):
        connection.execute("INSERT INTO row VALUES (?, zeroblob(?))", (number, size))


def frames_of(log: bytes) -> list[tuple[int, bool]]:
    """Offset of each frame of the log's last beginning, and whether it ends a commit."""
    offsets = range(HEADER_SIZE, len(log), FRAME_SIZE)
    return [(at, log[at + 4 : at + 8] != bytes(4)) for at in offsets if log[at + 8 : at + 16] == log[16:24]]


def in_two_sectors(offset: int) -> bool:
    """Whether a power cut can leave the one half of a frame's header new and the other old."""
    return offset % 512 > 512 - FRAME_HEADER_SIZE


def rows_in(path: Path) -> int:
    connection = open_database(path, **STORE)  # type: ignore[arg-type]
    try:
        return int(connection.execute("SELECT count(*) FROM row").get)
    finally:
        connection.close()


@pytest.mark.parametrize("place", [1, 6, 12, 17, FRAME_HEADER_SIZE, FRAME_SIZE - 1], ids=lambda place: f"byte {place}")
def test_a_changed_byte_before_the_last_commit_is_refused(tmp_path: Path, place: int) -> None:
    path = killed(tmp_path)
    log_path = path.with_name(f"{path.name}-wal")
    log = log_path.read_bytes()
    frames = frames_of(log)
    ends = [number for number, (_, is_commit) in enumerate(frames, 1) if is_commit]
    assert len(ends) == COMMIT_COUNT
    assert len(frames) < len(log) // FRAME_SIZE
    # A commit's own last frame says that it is one, so without its header the next commit has to tell.
    for number in set(range(1, ends[-2] + 1)) - ({ends[-2]} if place < FRAME_HEADER_SIZE else set()):
        damaged = bytearray(log)
        damaged[frames[number - 1][0] + place] ^= 1
        log_path.write_bytes(damaged)
        with pytest.raises(StoreCorrupt, match=rf"store\.sqlite-wal is damaged: frame {number} is not what was writ"):
            rows_in(path)
        with pytest.raises(StoreCorrupt, match=f"frame {number} "):
            open_to_read(path, application_id=1, version=1)
        assert log_path.read_bytes() == damaged


@pytest.mark.parametrize("commit_count", [1, COMMIT_COUNT])
def test_a_changed_byte_of_the_header_is_refused(tmp_path: Path, commit_count: int) -> None:
    path = killed(tmp_path)
    log_path = path.with_name(f"{path.name}-wal")
    log = log_path.read_bytes()
    ends = [offset + FRAME_SIZE for offset, is_commit in frames_of(log) if is_commit]
    for place, bit in product(range(HEADER_SIZE), (0, 7)):
        damaged = bytearray(log[: ends[commit_count - 1]])
        damaged[place] ^= 1 << bit
        log_path.write_bytes(damaged)
        with pytest.raises(StoreCorrupt, match=r"store\.sqlite-wal is damaged: its header is not what was written"):
            rows_in(path)
        with pytest.raises(StoreCorrupt, match="its header "):
            open_to_read(path, application_id=1, version=1)
        assert log_path.read_bytes() == damaged


def test_a_header_whose_sector_is_gone_is_refused(tmp_path: Path) -> None:
    path = killed(tmp_path)
    log_path = path.with_name(f"{path.name}-wal")
    log_path.write_bytes(bytes(512) + log_path.read_bytes()[512:])
    with pytest.raises(StoreCorrupt, match="its header is not what was written"):
        rows_in(path)


@pytest.mark.parametrize("fill", [b"\0", b"\xa5"], ids=["zeros", "garbage"])
@pytest.mark.parametrize("kept_size", [0, 12, 24, 32])
def test_a_new_log_whose_header_a_power_cut_took_is_no_damage(tmp_path: Path, fill: bytes, kept_size: int) -> None:
    path = killed(tmp_path)
    log_path = path.with_name(f"{path.name}-wal")
    header = log_path.read_bytes()[:kept_size]
    for size in (kept_size, 32, 512, HEADER_SIZE + 3 * FRAME_SIZE):
        log_path.write_bytes(header + fill * (size - len(header)))
        log_path.chmod(0o600)  # the one before went as the store was closed
        assert rows_in(path) == 20


def test_a_header_that_was_to_be_written_anew_over_frames_that_are_in_the_database_is_no_damage(tmp_path: Path) -> None:
    """A disk that fails within the header's write leaves it half new; nothing is lost, so nothing is refused."""
    path = killed(tmp_path)
    log_path = path.with_name(f"{path.name}-wal")
    connection = open_database(path, **STORE)  # type: ignore[arg-type]
    connection.wal_checkpoint("main")
    before = log_path.read_bytes()
    checkpointed = path.read_bytes()
    write(connection, 99)
    header = log_path.read_bytes()[:HEADER_SIZE]
    connection.close()
    assert header != before[:HEADER_SIZE]
    for size in range(HEADER_SIZE + 1):
        path.write_bytes(checkpointed)
        log_path.write_bytes(header[:size] + before[size:])
        log_path.chmod(0o600)
        assert rows_in(path) == 20 + COMMIT_COUNT


def test_what_a_power_cut_can_leave_is_no_damage(tmp_path: Path) -> None:
    path = killed(tmp_path)
    log_path = path.with_name(f"{path.name}-wal")
    log = log_path.read_bytes()
    frames = frames_of(log)
    last = [number for number, (_, is_commit) in enumerate(frames) if is_commit][-2] + 1
    lost = [slice(offset, offset + FRAME_SIZE) for offset, _ in frames[last:]]
    for index in range(len(lost)):  # A commit that was not synced yet: each of its frames may be there or not.
        torn = bytearray(log)
        torn[lost[index]] = bytes(FRAME_SIZE)
        left = tmp_path / f"cut-{index}"
        shutil.copytree(path.parent, left)
        (left / log_path.name).write_bytes(torn)
        assert rows_in(left / path.name) == 20 + COMMIT_COUNT - 1
    assert rows_in(path) == 20 + COMMIT_COUNT


def test_half_a_header_that_a_power_cut_left_is_no_commit(tmp_path: Path) -> None:
    path = killed(tmp_path, last_size=64 * 4_096)
    log_path = path.with_name(f"{path.name}-wal")
    log = log_path.read_bytes()
    frames = frames_of(log)
    ends = [number for number, (_, is_commit) in enumerate(frames) if is_commit]
    first, last = ends[-2] + 1, ends[-1]
    halves = [number for number in range(first + 1, last) if in_two_sectors(frames[number][0])]
    assert halves, "the last commit has no frame whose header lies in two sectors"
    for number in halves:
        torn = bytearray(log)
        torn[frames[first][0] + FRAME_SIZE - 1] ^= 1
        start = frames[number][0]
        old = 512 - start % 512
        # What the sector held before: the start of a commit's last frame, as far as it goes.
        torn[start : start + old] = log[frames[ends[0]][0] :][:old]
        left = tmp_path / f"cut-{number}"
        shutil.copytree(path.parent, left)
        (left / log_path.name).write_bytes(torn)
        assert rows_in(left / path.name) == 20 + COMMIT_COUNT - 1
