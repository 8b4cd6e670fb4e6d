"""A byte of the write-ahead log that has changed takes no commit away in silence (T32)."""

import shutil
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


def killed(directory: Path, commit_count: int = COMMIT_COUNT) -> Path:
    """A store whose server was killed after so many commits, of three frames or more each, in a log begun anew."""
    path = directory / "served" / "store.sqlite"
    path.parent.mkdir()
    connection = open_database(path, **STORE)  # type: ignore[arg-type]
    for number in range(20):  # So the log has old frames behind the new ones.
        write(connection, number)
    connection.wal_checkpoint("main")
    for number in range(20, 20 + commit_count):
        write(connection, number)
    shutil.copytree(path.parent, directory / "killed")
    connection.close()
    return directory / "killed" / path.name


def write(connection: apsw.Connection, number: int) -> None:
    with transaction(connection):
        connection.execute("INSERT INTO row VALUES (?, zeroblob(9000))", (number,))


def frames_of(log: bytes) -> list[tuple[int, bool]]:
    """Offset of each frame of the log's last beginning, and whether it ends a commit."""
    offsets = range(HEADER_SIZE, len(log), FRAME_SIZE)
    return [(at, log[at + 4 : at + 8] != bytes(4)) for at in offsets if log[at + 8 : at + 16] == log[16:24]]


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
