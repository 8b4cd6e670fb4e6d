"""A file that people and programs add to while a server runs: nothing that was added gets lost."""

import contextlib
import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from files.shared_world import LAYOUT, STATE, Crash, Server, add, text_of

from paygate.files import line_stream, shared_file
from paygate.files.line_stream import has_writers
from paygate.files.open_file import swap_in as swap_in_really
from paygate.files.shared_file import MISSING_POLL_COUNT
from paygate.files.text_records import SharedFile

pytestmark = pytest.mark.usefixtures("start")


def test_a_line_is_taken_in_and_what_was_typed_is_gone(server: Server) -> None:
    add(server, "TX-1|hunter2|1250\n")
    server.tick()
    assert server.db == {"TX-1": ["TX-1", "*", "1250", "unpaid"]}
    assert "hunter2" not in text_of(server)
    assert text_of(server).splitlines()[-2:] == [
        "# taken in       ",
        "TX-1         | *          |       1250 | unpaid  ",
    ]
    server.ticks(3)
    server.expect_in_order()
    assert server.problems == []


def test_a_quiet_poll_is_one_stat(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.ticks(2)
    calls = []
    for name in ("open", "pread", "fstat", "write", "pwrite"):
        monkeypatch.setattr(os, name, lambda *args, name=name, **_: calls.append((name, args)))
    server.tick()
    monkeypatch.undo()
    assert calls == []


def test_a_row_is_changed_in_place(server: Server) -> None:
    add(server, "TX-1|x|1\nTX-2|x|2\n")
    server.tick()
    inode, before = server.file.path.stat().st_ino, text_of(server)
    server.pay("TX-1")
    assert text_of(server) == before.replace("1 | unpaid", "1 | paid  ", 1)
    assert server.file.path.stat().st_ino == inode
    with pytest.raises(ValueError, match="column state"):
        server.file.update(STATE, {"TX-1": ["far too long"]})
    assert not server.file.update(STATE, {"TX-9": ["paid"]})


def test_a_bad_line_stays_where_it_is_and_is_told_once(server: Server) -> None:
    add(server, "TX-1|x|1\nTX-2 |hunter2| much \n# a remark\nTX-3|x|3\n")
    before = text_of(server)
    server.ticks(3)
    number = before[: before.index("TX-2")].count("\n") + 1
    assert [str(problem) for problem in server.problems] == [
        f'PaymentTokensData.txt line {number}, amount: expected a whole number, got "much"'
    ]
    assert text_of(server).splitlines()[number - 1] == "TX-2 |hunter2| much "
    assert sorted(server.db) == ["TX-1", "TX-3"]


def test_a_rewrite_keeps_bad_lines_and_remarks_and_tells_of_them_at_the_next_start(server: Server) -> None:
    add(server, "TX-2 |x| much \n# a remark\nTX-3|x|3\n")
    server.tick()
    for _ in range(2):
        server.file.rewrite(server.db.values())
        server.ticks(2)
    assert len(server.problems) == 1
    assert text_of(server).endswith(
        "unpaid  \n# Lines that could not be used, and comments:\nTX-2 |x| much \n# a remark\n"
    )
    again = Server(server.file.path.parent, server.db)
    again.ticks(2)
    assert [problem.line_number for problem in again.problems] == [text_of(server).count("\n") - 1]
    again.expect_in_order()
    assert text_of(again).count("TX-2 |x| much \n# a remark\n") == 1
    again.file.close()


def test_a_line_written_in_pieces_is_never_cut_by_our_rows(server: Server) -> None:
    with server.file.path.open("a", buffering=1) as early:
        os.write(early.fileno(), b"TX-1|x|1\nTX-2|x|2")
        server.tick()  # our row for TX-1 may not land in the middle of TX-2
        server.tick()
        os.write(early.fileno(), b"2\nTX-3|x|")
        server.tick()
        os.write(early.fileno(), b"33\n")
    server.ticks(2)
    assert {key: row[2] for key, row in server.db.items()} == {"TX-1": "1", "TX-2": "22", "TX-3": "33"}
    server.expect_in_order()
    assert server.problems == []


def test_a_late_append_to_a_replaced_file_is_news(server: Server) -> None:
    with server.file.path.open("a") as late:
        server.file.rewrite(server.db.values())
        server.file.rewrite(server.db.values())
        server.tick()
        late.write("TX-1|x|1\nTX-2|x|bad\n")
        late.flush()
        server.tick()
        late.write("TX-3|x|3\n")
    server.ticks(2)
    assert sorted(server.db) == ["TX-1", "TX-3"]
    assert len(server.problems) == 1
    assert "TX-2|x|bad\n" in text_of(server)
    server.expect_in_order()


def test_a_bad_late_line_outlives_an_edit_before_it_is_in_a_file_with_a_name(server: Server) -> None:
    with server.file.path.open("a") as late:
        server.file.rewrite(server.db.values())
        late.write("TX-1|x|bad\n")
    assert [line.raw for line in server.file.poll().lines] == [b"TX-1|x|bad\n"]
    edit_by_rename(server.file.path, "TX-2|x|2\n")
    server.ticks(2)
    assert sorted(server.db) == ["TX-2"]
    assert text_of(server).endswith("\nTX-1|x|bad\n")


def test_replaced_files_are_given_up_when_nobody_can_write_to_them(server: Server) -> None:
    server.tick()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index in range(200):
        add(server, f"TX-{index}|x|1\n")
        server.file.rewrite(server.db.values())
        server.tick()
    server.ticks(2)
    assert len(server.db) == 200
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_replaced_files_are_bounded_even_if_they_stay_open(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_file, "WATCHED_COUNT_MAX", 3)
    writers = []
    for index in range(10):
        writers.append(server.file.path.open("a"))
        writers[-1].write(f"TX-{index}|x|1\n")
        server.file.rewrite(server.db.values())
        writers[-1].flush()
        server.tick()
    assert len(server.db) == 10
    server.expect_in_order()
    for writer in writers:
        writer.close()


def test_a_line_that_its_writer_left_unfinished_in_a_replaced_file(server: Server) -> None:
    late = server.file.path.open("a")
    server.file.rewrite(server.db.values())
    late.write("TX-1|hunter2|12")
    late.flush()
    server.ticks(10)
    assert text_of(server).endswith("\n# unfinished: TX-1|hunter2|12\n")
    number = text_of(server).count("\n")
    assert [problem.line_number for problem in server.problems] == [number]
    assert "got only its start" in str(server.problems[0])
    assert "hunter2" not in str(server.problems[0])
    late.close()
    server.ticks(10)
    assert server.db == {}
    assert text_of(server).endswith("\nTX-1|hunter2|12")
    assert text_of(server).count("TX-1") == 1
    assert len(server.problems) == 1
    add(server, "50\n")
    server.ticks(2)
    assert server.db["TX-1"][2] == "1250"
    server.expect_in_order()


def test_a_writer_that_goes_over_to_the_new_file_after_finishing_its_line(server: Server) -> None:
    with server.file.path.open("a") as old:
        old.write("TX-1|x|1\nTX-2|x|")
        old.flush()
        server.ticks(2)
        old.write("2\n")
    add(server, "TX-3|x|3\n")
    server.ticks(2)
    assert sorted(server.db) == ["TX-1", "TX-2", "TX-3"]
    server.expect_in_order()
    assert server.problems == []


# -- numbers ---------------------------------------------------------------------------------------------


def test_a_line_is_found_by_its_number_after_any_rewrite(server: Server) -> None:
    add(server, "TX-1|x|bad\nTX-2|x|2\n# remark\nTX-3|x|worse\n")
    first, good, last = server.file.poll().lines
    for count in range(3):
        rows = [[f"R{index}", "*", "1", "paid"] for index in range(count * 5)]
        server.file.rewrite(rows)
        lines = text_of(server).encode().splitlines(keepends=True)
        for line in (first, good, last):
            assert lines[server.file.number_of(line) - 1] == line.raw
    assert server.file.take_in_all([(good, None)])
    assert server.file.number_of(good) == 0


# -- edits in place --------------------------------------------------------------------------------------


def fill(server: Server) -> None:
    """More rows than an edit near the start could be seen behind, and some time since the last write."""
    add(server, "".join(f"TX-{index}|x|{index}\n" for index in range(300)))
    server.ticks(2)
    assert server.file.path.stat().st_size > 3 * 4096
    pass_time(server)


def pass_time(server: Server) -> None:
    """The last write was an hour ago."""
    status = server.file.path.stat()
    os.utime(server.file.path, ns=(status.st_atime_ns, status.st_mtime_ns - 3_600_000_000_000))
    server.tick()


def overwrite(server: Server, old: bytes, new: bytes) -> None:
    assert len(old) == len(new)
    with server.file.path.open("r+b") as file:
        file.seek(file.read().index(old))
        file.write(new)


@pytest.mark.parametrize("paid", [(), ("TX-5",), ("TX-299",), ("TX-17",)])
def test_an_edited_value_is_noticed_and_put_right(server: Server, paid: tuple[str, ...]) -> None:
    fill(server)
    overwrite(server, b"         17 | unpaid", b"       9999 | unpaid")
    server.pay(*paid)  # our own change after it doesn't hide it
    news = server.file.poll()
    assert news.replaced
    assert any(b" 9999 |" in line.raw for line in news.lines)
    assert not server.file.take_in_all([(line, None) for line in news.lines])
    server.file.rewrite(server.db.values())
    server.tick()
    server.expect_in_order()


def test_an_edited_value_is_noticed_when_lines_are_added_at_the_same_time(server: Server) -> None:
    fill(server)
    overwrite(server, b"         17 | unpaid", b"       9999 | unpaid")
    add(server, "TX-new|x|1\n")
    server.ticks(2)
    assert "TX-new" in server.db
    server.expect_in_order()


def test_our_own_changes_are_no_edit_and_cost_no_reading(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(server)
    add(server, "TX-a|x|1\n")
    server.tick()
    sizes: list[int] = []
    real_pread = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return real_pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    for number in range(10):
        server.pay(f"TX-{number * 30}", "TX-a")
        assert not server.file.poll().replaced
    assert max(sizes) <= 3 * 4096
    sizes.clear()
    server.tick()
    assert sizes == []


# -- files that can't be used ----------------------------------------------------------------------------


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / LAYOUT.file_name
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        SharedFile(tmp_path, LAYOUT)
    assert caught.value.filename == str(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file") as caught_pipe:
        SharedFile(tmp_path, LAYOUT)
    assert caught_pipe.value.filename == str(path)


def test_a_link_that_goes_round_is_refused(tmp_path: Path) -> None:
    path = tmp_path / LAYOUT.file_name
    path.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        SharedFile(tmp_path, LAYOUT)


def edit_by_rename(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    other.rename(path)


def edit_by_backup(path: Path, text: str) -> None:
    path.rename(path.with_name("backup"))
    path.write_text(text)


def edit_in_place(path: Path, text: str) -> None:
    path.write_text(text)


EDITS = [edit_by_rename, edit_by_backup, edit_in_place]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("place", ["top", "middle", "end"])
def test_an_editor(server: Server, edit: object, place: str) -> None:
    assert callable(edit)
    add(server, "".join(f"TX-{index}|x|{index}\n" for index in range(30)) + "TX-bad|x|bad\n")
    server.tick()
    server.pay("TX-3")
    lines = text_of(server).splitlines(keepends=True)
    new = "TX-new|hunter2|5\n"
    lines.insert({"top": 0, "middle": len(lines) // 2, "end": len(lines)}[place], new)
    edit(server.file.path, "".join(lines).replace("TX-bad|x|bad", "TX-mended|x|6"))
    server.pay("TX-4")
    server.tick()
    server.pay("TX-5")
    server.ticks(2)
    assert len(server.db) == 32
    assert "hunter2" not in text_of(server)
    assert "TX-bad" not in text_of(server)
    server.expect_in_order()
    assert len(server.problems) == 1


@pytest.mark.parametrize("edit", EDITS)
def test_an_editor_that_writes_no_last_newline(server: Server, edit: object) -> None:
    assert callable(edit)
    add(server, "TX-1|x|1\n")
    server.tick()
    edit(server.file.path, f"{text_of(server)}TX-2|x|2")
    server.ticks(10)
    assert len(server.problems) == 1
    edit(server.file.path, f"{text_of(server)}\n")
    server.ticks(2)
    assert sorted(server.db) == ["TX-1", "TX-2"]
    assert len(server.problems) == 1
    assert text_of(server).count("TX-2") == 1
    server.expect_in_order()


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_between_a_poll_and_a_rewrite(server: Server, edit: object) -> None:
    assert callable(edit)
    add(server, "TX-bad|x|bad\nTX-mended|x|bad\nTX-cut|x|1")
    server.ticks(2)
    mended = text_of(server).replace("mended|x|bad\n", "mended|x|6\nTX-new|x|7\n").replace("cut|x|1", "cut|x|15\n")
    edit(server.file.path, mended)
    server.file.rewrite(server.db.values())
    server.ticks(3)
    assert {key: row[2] for key, row in server.db.items()} == {"TX-mended": "6", "TX-new": "7", "TX-cut": "15"}
    server.expect_in_order()
    assert text_of(server).count("TX-bad") == 1
    assert text_of(server).count("TX-mended") == 1
    assert text_of(server).count("TX-cut") == 1


def test_a_removed_file_is_made_again(server: Server) -> None:
    add(server, "TX-1|x|1\nTX-bad|x|bad\n")
    server.tick()
    server.file.path.unlink()
    server.pay("TX-1")
    server.ticks(MISSING_POLL_COUNT + 1)
    server.expect_in_order()
    assert "TX-bad|x|bad\n" in text_of(server)
    assert server.file.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_can_not_be_opened_is_told_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def refuse(path: Path, *args: int) -> int:
        if Path(path) == server.file.path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *args)

    edit_by_rename(server.file.path, "TX-1|x|1\n")
    monkeypatch.setattr(os, "open", refuse)
    server.ticks(3)
    assert [str(problem) for problem in server.problems] == [
        "PaymentTokensData.txt, line: expected a file that this server may read and write, got Permission denied"
    ]
    monkeypatch.undo()
    server.tick()
    assert sorted(server.db) == ["TX-1"]


def test_lines_may_be_taken_in_later(server: Server) -> None:
    """A verifier may take several ticks to compute, and the file may be rewritten meanwhile."""
    add(server, "TX-1|hunter2|1\n")
    (line,) = server.file.poll().lines
    server.file.rewrite([])
    assert "hunter2" in text_of(server)
    assert server.file.poll().lines == ()
    server.db["TX-1"] = ["TX-1", "*", "1", "unpaid"]
    assert text_of(server).splitlines()[server.file.number_of(line) - 1] == "TX-1|hunter2|1"
    assert server.file.take_in_all([(line, server.db["TX-1"])])
    assert server.file.number_of(line) == 0
    assert "hunter2" not in text_of(server)
    server.expect_in_order()


def test_many_lines_come_in_bounded_portions(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_file, "POLL_SIZE_MAX", 50)
    monkeypatch.setattr(line_stream, "READ_SIZE", 7)
    add(server, "".join(f"TX-{index}|x|{index}\n" for index in range(40)))
    inode = server.file.path.stat().st_ino
    server.tick()
    assert 0 < len(server.db) < 10
    server.ticks(200)
    assert len(server.db) == 40
    assert server.file.path.stat().st_ino == inode  # without a rewrite
    server.expect_in_order()
    assert server.problems == []


@pytest.mark.parametrize("crash_at", ["write", "pwrite", "fsync", "rename", "exchange", "unlink", None])
@pytest.mark.parametrize("portion", [0, 20])
def test_a_crash_anywhere_loses_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, crash_at: str | None, portion: int
) -> None:
    add(server, "TX-1|x|1\n")
    server.tick()
    add(server, "TX-2|hunter2|2\nTX-bad|x|bad\n# remark\n")
    late = server.file.path.open("a")

    def crash(*args: object, **_: object) -> int:
        late.write("TX-late|x|3\n")
        late.flush()
        if portion and isinstance(args[-1], bytes):
            real_write(int(str(args[0])), args[-1][:portion])
        raise Crash

    real_write = os.write
    with monkeypatch.context() as patch:
        if crash_at in ("rename", "unlink"):
            patch.setattr(Path, crash_at, crash)
        elif crash_at == "exchange":
            patch.setattr("paygate.files.open_file.exchange", crash)
        elif crash_at:
            patch.setattr(os, crash_at, crash)
        try:
            server.tick()
            server.file.rewrite(server.db.values())
        except Crash:
            pass
        else:
            assert crash_at is None
            crash_at = "nothing"
            late.write("TX-late|x|3\n")
            late.flush()
            server.tick()
    late.close()
    if crash_at == "pwrite":
        assert "hunter2" in text_of(server)  # the row is there already, and the raw line still is
        assert "\nTX-2         | " in text_of(server)

    server.file.close()
    again = Server(server.file.path.parent, server.db)
    server.file = again.file
    again.ticks(3)
    assert sorted(again.db) == ["TX-1", "TX-2", "TX-late"]
    again.expect_in_order()
    assert "hunter2" not in text_of(again)
    assert text_of(again).count("TX-bad|x|bad\n") == 1
    assert text_of(again).count("# remark\n") == 1


@pytest.mark.parametrize("crash_at", ["link", "unlink"])
def test_a_crash_while_the_swap_is_under_way(server: Server, monkeypatch: pytest.MonkeyPatch, crash_at: str) -> None:
    """Right after the exchange the old file, with a line not read yet, is at the other name."""

    def crash(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".swap"):
            raise Crash
        real_unlink(path, missing_ok)

    real_unlink = Path.unlink
    add(server, "TX-1|x|1\n")
    if crash_at == "link":
        server.file.path.unlink()  # somebody removed the file, so the new one gets its name by a link
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(Crash):
            server.file.rewrite([])
    again = Server(server.file.path.parent, {})
    again.ticks(3)
    assert sorted(again.db) == ["TX-1"]
    again.expect_in_order()
    assert [path.name for path in server.file.path.parent.iterdir()] == [LAYOUT.file_name]
    again.file.close()


@pytest.mark.parametrize("comes", ["as it is swapped", "after it was swapped", "between two swaps"])
def test_a_line_that_comes_as_the_file_is_replaced_outlives_a_kill(
    server: Server, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    add(server, "TX-1|x|1\n")
    server.ticks(2)
    with server.file.path.open("a") as late:

        def swap_in(beside: Path, path: Path) -> tuple[int, int] | None:
            if comes == "as it is swapped" and not late.closed:
                late.write("TX-late|x|3\n")
                late.close()
            return swap_in_really(beside, path)

        monkeypatch.setattr("paygate.files.shared_file.swap_in", swap_in)
        server.file.rewrite(server.db.values())
        if not late.closed:
            late.write("TX-late|x|3\n")
            late.flush()
        if comes == "between two swaps":
            server.file.rewrite(server.db.values())
    # The process is killed before it has looked again.
    again = Server(server.file.path.parent, server.db)
    again.ticks(3)
    assert sorted(again.db) == ["TX-1", "TX-late"]
    again.expect_in_order()
    assert [path.name for path in server.file.path.parent.iterdir()] == [LAYOUT.file_name]
    again.file.close()


def test_a_replaced_file_keeps_its_name_for_one_look_only(server: Server) -> None:
    """It may hold plain passwords, so nobody who has it open for long keeps it there."""
    add(server, "TX-1|x|1\n")
    server.tick()
    with server.file.path.open("a"):
        server.file.rewrite(server.db.values())
        server.ticks(2)
        assert [path.name for path in server.file.path.parent.iterdir()] == [LAYOUT.file_name]


@pytest.mark.parametrize("portion", [0, 1, 30])
def test_a_full_disk_loses_nothing(server: Server, monkeypatch: pytest.MonkeyPatch, portion: int) -> None:
    add(server, "TX-1|x|1\nTX-2|x|2\n")
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        if portion and not data.startswith(rest_of(portion)):
            return real_write(fd, data[:portion])
        raise OSError(errno.ENOSPC, "No space left on device")

    def rest_of(size: int) -> bytes:
        return LAYOUT.format(["TX-1", "*", "1", "unpaid"])[size : size + 5]

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left") as caught:
            server.tick()
    assert caught.value.filename == str(server.file.path)
    server.ticks(2)
    assert len(server.db) == 2
    server.expect_in_order()
    assert server.problems == []


def test_a_system_without_exchange(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paygate.files.open_file.exchange", lambda *_: False)
    with server.file.path.open("a") as late:
        server.file.rewrite([])
        late.write("TX-1|x|1\n")
    server.ticks(2)
    assert sorted(server.db) == ["TX-1"]
    server.expect_in_order()


def test_a_shared_file_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    target = tmp_path / "shared" / "tokens.txt"
    target.write_text("TX-1|x|1\n")
    (tmp_path / LAYOUT.file_name).symlink_to(target)
    server = Server(tmp_path, {})
    server.ticks(2)
    assert "unpaid" in target.read_text()
    assert (tmp_path / LAYOUT.file_name).is_symlink()
    server.file.close()


def test_secrets_are_not_in_the_repr_of_a_line(server: Server) -> None:
    add(server, "TX-1|hunter2|1\n")
    assert "hunter2" not in repr(server.file.poll())


def test_who_has_a_file_open_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDONLY)
    with path.open("ab"):
        assert has_writers(fd)
    assert not has_writers(fd)
    os.close(fd)


WRITER = """
import os, random, sys
path, name, pieces, count, seed = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5]
chance = random.Random(seed)
fd = os.open(path, os.O_WRONLY | os.O_APPEND)
index = stop = 0
while index < count:
    if index >= stop:
        # Each go-ahead is for 200 lines, so that a slow reader has ticks between them.
        sys.stdin.buffer.read(1)
        stop += 200
    batch = "".join(f"{name}-{number}|hunter2|{number}\\n" for number in range(index, index + chance.randrange(1, 5)))
    index += batch.count("\\n")
    cut = chance.randrange(len(batch)) if pieces == "pieces" else 0
    for piece in (batch[:cut], batch[cut:]):
        os.write(fd, piece.encode())
    if chance.random() < 0.3:
        # As `echo >> file` does, or a program that keeps the file open through any number of rewrites.
        os.close(fd)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
print(index)
"""


# Two programs that write half lines at the same time would spoil each other's, with or without a server.
@pytest.mark.parametrize(("writer_count", "pieces"), [(3, "lines"), (1, "pieces")])
def test_real_programs_append_while_everything_else_goes_on(server: Server, writer_count: int, pieces: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    paid: set[str] = set()
    tick_count = 0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        WRITER,
                        str(server.file.path),
                        f"W{number}",
                        pieces,
                        "3000",
                        f"{seed}{number}",
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
            for number in range(writer_count)
        ]
        while any(writer.poll() is None for writer in writers):
            tick_count += 1
            for writer in writers:
                assert writer.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it has written all
                    writer.stdin.write(b".")
            server.tick()
            if chance.random() < 0.3:
                server.file.rewrite(server.db.values())
            keys = chance.sample(sorted(server.db), min(len(server.db), 3))
            server.pay(*keys)
            paid.update(keys)
        counts = [int(writer.stdout.read()) for writer in writers if writer.stdout is not None]
    assert len(counts) == writer_count
    assert tick_count >= 3000 // 200
    server.ticks(5)
    expected = {f"W{writer}-{index}" for writer, count in enumerate(counts) for index in range(count)}
    assert set(server.db) == expected, f"seed {seed}"
    assert server.problems == [], f"seed {seed}"
    assert {key for key, row in server.db.items() if row[3] == "paid"} == paid
    server.expect_in_order()
    assert "hunter2" not in text_of(server)


def test_a_copy_that_a_kill_left_is_gone_after_the_start(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be of a line with a plain password."""

    def crash(path: Path, target: Path) -> None:
        raise Crash

    add(server, "TX-1|hunter2|bad\n")
    server.tick()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(Crash):
            server.file.rewrite([])
    directory = server.file.path.parent
    assert any(b"hunter2" in path.read_bytes() for path in directory.iterdir() if path.name.endswith(".new"))
    server.file.path.write_bytes(LAYOUT.header)
    Server(directory, {}).ticks(3)
    assert [path.name for path in directory.iterdir()] == [LAYOUT.file_name]
