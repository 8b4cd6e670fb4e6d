"""A private directory (T29) with one server at a time (T33)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paygate.cli import ExitCode
from paygate.files.state_dir import SECRET_SIZE_MAX, StateDir, StateError, StateInUse

HOLD_LOCK = """
import pathlib, sys
from paygate.files.state_dir import StateDir
StateDir(pathlib.Path(sys.argv[1])).open()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "var" / "my bank")
    state.create()
    return state


def test_a_new_directory_is_private(state: StateDir) -> None:
    assert state.path.stat().st_mode & 0o777 == 0o700
    state.create()
    state.open()
    state.close()
    state.open()
    state.close()


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o740, 0o755, 0o777])
def test_a_loose_directory_is_refused_with_the_command_that_mends_it(state: StateDir, mode: int) -> None:
    state.path.chmod(mode)
    with pytest.raises(StateError) as caught:
        state.open()
    assert str(caught.value).endswith(f": chmod 700 '{state.path}'")
    assert caught.value.code is ExitCode.BAD_STATE
    subprocess.run(str(caught.value).split(": ")[-1], shell=True, check=True)
    state.open()
    state.close()


def test_a_directory_of_another_user_is_refused(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: state.path.stat().st_uid + 1)
    with pytest.raises(StateError, match=r"belongs to user \d+"):
        state.open()


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no state directory"):
        StateDir(tmp_path / "nowhere").open()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="is no directory"):
        StateDir(tmp_path / "file").open()
    with pytest.raises(StateError, match="could not make"):
        StateDir(tmp_path / "file" / "below").create()


def test_a_second_server_is_refused(state: StateDir) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        assert not state.try_lock()
        with pytest.raises(StateInUse, match=f"process {first.pid} uses the state directory") as caught:
            state.open()
        assert caught.value.code is ExitCode.STATE_IN_USE
        first.kill()
    # The system gives the lock back, however the first one ended.
    assert state.try_lock()
    assert (state.path / "lock").read_text() == f"{os.getpid()}\n"
    state.close()


def test_a_child_does_not_keep_the_lock(state: StateDir) -> None:
    state.open()
    with subprocess.Popen(
        [sys.executable, "-c", "input(1)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"1"  # it runs, so the system has closed what it doesn't inherit
        state.close()
        again = StateDir(state.path)
        assert again.try_lock()
        child.communicate(b"\n")
    again.close()


def test_a_secret_comes_back(state: StateDir) -> None:
    state.write_secret("root.key", b"\x00" * 32)
    assert state.read_secret("root.key") == b"\x00" * 32
    assert (state.path / "root.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in state.path.iterdir()] == ["root.key"]


def test_a_secret_is_not_overwritten_unless_asked(state: StateDir) -> None:
    state.write_secret("root.key", b"first")
    with pytest.raises(StateError, match="exists; move it away"):
        state.write_secret("root.key", b"second")
    assert state.read_secret("root.key") == b"first"
    state.write_secret("root.key", b"third", overwrite=True)
    assert state.read_secret("root.key") == b"third"
    assert [path.name for path in state.path.iterdir()] == ["root.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_loose_secret_is_refused_with_the_command_that_mends_it(state: StateDir, mode: int) -> None:
    state.write_secret("pepper", b"x")
    (state.path / "pepper").chmod(mode)
    with pytest.raises(StateError, match=f"mode {mode:04o}.*: chmod 600 '.*/pepper'$"):
        state.read_secret("pepper")


def test_what_is_no_secret_file_is_refused(state: StateDir) -> None:
    with pytest.raises(StateError, match="No such file"):
        state.read_secret("pepper")
    (state.path / "link").symlink_to("/etc/passwd")
    with pytest.raises(StateError, match="could not read"):
        state.read_secret("link")
    os.mkfifo(state.path / "pipe", 0o600)
    with pytest.raises(StateError, match="no regular file"):
        state.read_secret("pipe")
    state.write_secret("big", bytes(SECRET_SIZE_MAX + 1))
    with pytest.raises(StateError, match="is it the right file"):
        state.read_secret("big")


def test_a_secret_of_another_user_is_refused(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_secret("pepper", b"x")
    monkeypatch.setattr(os, "geteuid", lambda: state.path.stat().st_uid + 1)
    with pytest.raises(StateError, match="belongs to user"):
        state.read_secret("pepper")


def test_a_file_is_replaced_whole(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_atomic("keys", b"old")
    real_write = os.write

    def fail(fd: int, data: bytes) -> int:
        real_write(fd, data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StateError, match="No space left"):
        state.write_atomic("keys", b"new")
    with pytest.raises(StateError, match="No space left"):
        state.write_secret("pepper", b"new")
    monkeypatch.undo()
    assert (state.path / "keys").read_bytes() == b"old"
    assert [path.name for path in state.path.iterdir()] == ["keys"]
    state.write_atomic("keys", b"new")
    assert (state.path / "keys").read_bytes() == b"new"
