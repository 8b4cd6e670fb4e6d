"""What the server itself writes to a shared file: as few writes as can be, and never into somebody's line."""

import os

import pytest
from files.shared_world import Server, add, text_of

pytestmark = pytest.mark.usefixtures("start")


def test_lines_taken_in_together_cost_two_writes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    add(server, "".join(f"TX-{index}|x|{index}\n" for index in range(100)))
    calls = []
    real_write, real_pwrite = os.write, os.pwrite

    def write(fd: int, data: bytes) -> int:
        calls.append("write")
        return real_write(fd, data)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        calls.append("pwrite")
        return real_pwrite(fd, data, offset)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "pwrite", pwrite)
    server.tick()
    assert calls == ["write", "pwrite"]
    calls.clear()
    server.pay("TX-9", "TX-7", "TX-8", "TX-1")
    assert calls == ["pwrite", "pwrite"]  # one for the three that stand side by side
    server.expect_in_order()


def test_a_piece_that_comes_just_before_our_rows(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look at the file's end and our append, the first half of a stranger's line arrives."""
    real_write = os.write
    other = os.open(server.file.path, os.O_WRONLY | os.O_APPEND)
    real_write(other, b"TX-1|x|1\n")

    def write(fd: int, data: bytes) -> int:
        if data.startswith(b"TX-1 ") and "TX-2" not in text_of(server):
            real_write(other, b"TX-2|x|2")
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    server.tick()
    monkeypatch.undo()
    server.expect_in_order()
    os.write(other, b"2\n")
    server.ticks(2)
    assert {key: row[2] for key, row in server.db.items()} == {"TX-1": "1", "TX-2": "22"}
    server.expect_in_order()
    assert server.problems == []
    os.close(other)


def test_short_writes_are_mended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    add(server, "TX-1|x|1\nTX-2|x|2\n")
    real_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real_write(fd, data[:30]))
        server.tick()
    server.pay("TX-1")
    server.ticks(2)
    server.expect_in_order()
    assert server.problems == []
