"""A server that is asked for a copy of its database, and is killed before it has made one."""

from pathlib import Path

import pytest

from paygate.files.database_copy import REQUEST_NAME, BackupFailed, ask_server
from paygate.files.state_dir import LOCK_NAME, StateDir


def test_a_server_that_was_killed_and_started_again_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    server = StateDir(tmp_path)
    server.open()
    looks: list[int] = []

    def look(_seconds: float) -> None:
        looks.append(1)
        assert len(looks) < 10, "it waits for ever"
        (tmp_path / REQUEST_NAME).unlink(missing_ok=True)  # The server takes the request,
        if len(looks) > 1:
            (tmp_path / LOCK_NAME).write_text("1\n")  # is killed, and another one has the lock.

    monkeypatch.setattr("paygate.files.database_copy.time.sleep", look)
    with pytest.raises(BackupFailed, match="ended before it had made a copy; try again"):
        ask_server(StateDir(tmp_path), tmp_path / "target")
    server.close()
