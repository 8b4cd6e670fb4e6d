"""Lines that nobody took in, and above all last lines without their end: they outlive everything."""

import os
from pathlib import Path

import pytest
from files.shared_world import LAYOUT, Crash, Server, add, text_of

from paygate.files import own_writes, shared_file
from paygate.files.untaken_lines import UNFINISHED_POLL_COUNT

pytestmark = pytest.mark.usefixtures("start")


def test_a_last_line_that_nobody_is_writing_is_whole_at_the_start(tmp_path: Path) -> None:
    (tmp_path / LAYOUT.file_name).write_text("TX-1|x|1\nTX-2|hunter2|2")
    server = Server(tmp_path, {})
    server.tick()
    server.file.close()
    assert sorted(server.db) == ["TX-1", "TX-2"]
    assert "hunter2" not in text_of(server)
    assert server.problems == []


def test_a_last_line_is_whole_at_the_start_even_if_it_is_bad(tmp_path: Path) -> None:
    (tmp_path / LAYOUT.file_name).write_text("TX-1|x|1\nTX-2|x|bad")
    server = Server(tmp_path, {})
    server.tick()
    server.file.rewrite(server.db.values())  # as servers do when they start, before the next poll
    server.file.close()
    assert text_of(server).endswith("\nTX-2|x|bad\n")


@pytest.mark.parametrize("rewrite_count", [0, 1, 2])
def test_a_last_line_in_the_works_outlives_a_short_run(tmp_path: Path, rewrite_count: int) -> None:
    """A server that finds its port taken ends between the first poll and the second."""
    path = tmp_path / LAYOUT.file_name
    path.write_text("TX-1|x|1\nTX-2|x|12")
    with path.open("a") as late:
        server = Server(tmp_path, {})
        server.tick()
        for _ in range(rewrite_count):
            server.file.rewrite(server.db.values())
        assert "TX-2|x|12" in text_of(server)  # were it killed now
        server.file.close()
        assert text_of(server).endswith("\n# unfinished: TX-2|x|12\n")
        again = Server(tmp_path, server.db)
        again.ticks(UNFINISHED_POLL_COUNT + 2)
        assert sorted(again.db) == ["TX-1"]  # it may be the start of another amount
        assert [problem.line_number for problem in again.problems] == [text_of(again).count("\n")]
        again.file.close()
        late.write("50")


def test_a_line_without_its_end_is_never_out_of_the_file_with_the_name(server: Server) -> None:
    late = server.file.path.open("ab", buffering=0)
    for piece in (b"TX-1|x|", b"12", b"50"):
        late.write(piece)
        for _ in range(2):
            server.tick()
            server.file.rewrite(server.db.values())
            assert text_of(server).count("TX-1|x|") == 1
    assert text_of(server).endswith("\n# unfinished: TX-1|x|1250\n")
    add(server, "TX-2|x|2\n")  # by somebody else, while the first goes on in the file that he has open
    server.tick()
    late.write(b"\n")
    server.ticks(2)
    assert {key: row[2] for key, row in server.db.items()} == {"TX-1": "1250", "TX-2": "2"}
    assert "# unfinished" not in text_of(server)
    server.expect_in_order()
    assert server.problems == []
    late.close()


@pytest.mark.parametrize("crash_at", ["write", "fsync", "rename", "exchange", "unlink"])
def test_a_crash_anywhere_leaves_a_line_without_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch, crash_at: str
) -> None:
    add(server, "TX-1|x|1\nTX-2|x|2")
    server.tick()

    def crash(*_: object, **__: object) -> int:
        raise Crash

    with monkeypatch.context() as patch:
        if crash_at in ("rename", "unlink"):
            patch.setattr(Path, crash_at, crash)
        elif crash_at == "exchange":
            patch.setattr("paygate.files.open_file.exchange", crash)
        else:
            patch.setattr(os, crash_at, crash)
        with pytest.raises(Crash):
            server.file.rewrite(server.db.values())
    assert "TX-2|x|2" in text_of(server)


def test_a_rewrite_that_failed_leaves_no_comment_of_a_line_that_got_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.file.path.open("ab", buffering=0) as late:
        late.write(b"TX-1|x|12")
        server.tick()
        with monkeypatch.context() as patch:
            patch.setattr(shared_file, "create_file", lambda *_: (server.file.path / "full").stat())
            with pytest.raises(OSError, match="directory"):
                server.file.rewrite([])
        late.write(b"50\n")
    server.tick()
    server.file.rewrite(server.db.values())
    assert "unfinished" not in text_of(server)
    server.expect_in_order()


def test_a_line_that_comes_between_a_poll_and_a_rewrite_is_in_the_new_file(server: Server) -> None:
    add(server, "TX-1|x|1\nTX-2|x|bad\nTX-3|x|3")
    server.file.rewrite([])
    assert text_of(server).endswith("\nTX-1|x|1\nTX-2|x|bad\n# taken in            \nTX-3|x|3")
    server.ticks(2)
    add(server, "\n")
    server.ticks(2)
    assert sorted(server.db) == ["TX-1", "TX-3"]
    assert len(server.problems) == 1
    server.expect_in_order()


@pytest.mark.parametrize("end", ["", "TX-other|x|"])
def test_a_late_line_of_a_replaced_file_outlives_the_end(server: Server, end: str) -> None:
    with server.file.path.open("a") as late:
        server.file.rewrite([])
        late.write("TX-1|x|1\nTX-2|x|bad\n")
    add(server, end)  # by somebody who is in the middle of his line
    server.file.close()
    assert text_of(server).endswith(end or "\nTX-1|x|1\nTX-2|x|bad\n")
    again = Server(server.file.path.parent, {})
    again.tick()
    server.file = again.file
    assert sorted(again.db) == ["TX-1"]
    assert text_of(again).count("TX-2|x|bad\n") == 1
    assert (end or "TX-2") in text_of(again)


def test_the_start_of_a_row_that_a_crash_cut_short_is_no_line(server: Server) -> None:
    add(server, "TX-1|x|1250\n")
    server.tick()
    server.file.close()
    row = LAYOUT.format(server.db["TX-1"])
    whole = text_of(server)
    for size in range(15, len(row) - 1):
        server.file.path.write_bytes(LAYOUT.header + row[:size])
        again = Server(server.file.path.parent, server.db)
        again.ticks(UNFINISHED_POLL_COUNT + 2)
        again.file.close()
        assert again.problems == []
        again.expect_in_order()
    assert len(text_of(server)) < len(whole)
    server.file = Server(server.file.path.parent, server.db).file


def test_where_leases_are_not_known_nothing_is_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (own_writes, shared_file):
        monkeypatch.setattr(module, "has_writers", lambda _: True)
    (tmp_path / LAYOUT.file_name).write_text("TX-1|x|1\nTX-2|x|2")
    server = Server(tmp_path, {})
    server.ticks(UNFINISHED_POLL_COUNT + 2)
    server.file.close()
    assert sorted(server.db) == ["TX-1"]
    assert text_of(server).endswith("\n# unfinished: TX-2|x|2\n")
    assert len(server.problems) == 1


def test_an_unfinished_line_waits_and_is_told_once(server: Server) -> None:
    add(server, "TX-1|x|1\nTX-2|hunter2|12")
    server.tick()
    assert sorted(server.db) == ["TX-1"]
    assert text_of(server).endswith("\nTX-2|hunter2|12")
    server.ticks(UNFINISHED_POLL_COUNT + 5)
    number = text_of(server).count("\n") + 1
    assert [str(problem) for problem in server.problems] == [
        f"PaymentTokensData.txt line {number}, line: expected a finished last line "
        "(end the line with a newline), got none"
    ]
    assert "hunter2" not in str(server.problems[0])
    add(server, "50\n")
    server.tick()
    assert server.db["TX-2"][2] == "1250"
    assert "hunter2" not in text_of(server)
    server.expect_in_order()
