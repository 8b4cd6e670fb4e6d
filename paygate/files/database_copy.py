"""A copy of an open database in small steps, between which its server goes on; and how a command asks a server for one.

A store is open for its server alone, so only the server can copy it while it runs. SQLite's backup
(https://www.sqlite.org/backup.html) takes over what the same connection commits between two steps, so the copy is the
database as it is at its last step, and no step has to begin anew.

    backup.request      the command's: where the copy is to go; the server takes it away within its second, and has it
                        locked until it has answered, so that the command sees a server end that was killed
    backup.ID.answer    the server's: empty, or why there is no copy; the command takes it away
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw

from paygate.cli import ExitCode, PaygateExit
from paygate.files.durable import write_all
from paygate.files.sqlite import open_to_read
from paygate.files.state_dir import StateDir, StateError

STEP_PAGE_COUNT: Final = 256
"""Pages of 4 KiB copied at once: some 2 ms, so a server's tick is hardly longer."""
STEP_EVERY_MS: Final = 10
"""Between two steps: at most 100 MB a second are read, and four fifths of the time are the payments'."""
TAKEN_WITHIN_S: Final = 30
"""A running server looks for requests once a second; one that has not by then is no server that can."""
REQUEST_NAME: Final = "backup.request"
_LOOK_EVERY_S: Final = 0.1


class BackupFailed(PaygateExit):
    """No copy was made; the text says why. What there was is as it was."""

    code = ExitCode.USAGE


class DatabaseCopy:
    """A copy in the making: `step` until it says that all is there, then `close`."""

    def __init__(self, connection: apsw.Connection, target: Path) -> None:
        """Make the file, which must not be there, with mode 0600. Raises BackupFailed."""
        self._target = target
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise BackupFailed(f"could not make {target}: {error.strerror}") from None
        with _named(target):
            self._copy = apsw.Connection(str(target))
            # Whoever asked for it makes it durable: an fsync of all of it would be a long tick.
            self._copy.pragma("journal_mode", "OFF")
            self._copy.pragma("synchronous", "OFF")
            self._backup = self._copy.backup("main", connection, "main")

    def step(self, page_count: int = STEP_PAGE_COUNT) -> bool:
        """Copy some pages; gives whether all are there. Raises BackupFailed."""
        with _named(self._target):
            return bool(self._backup.step(page_count))

    def close(self) -> None:
        """End it, whole or not. Raises BackupFailed if the copy's last pages could not be written."""
        with _named(self._target):
            try:
                self._backup.finish()
                # Without a log of its own it is one file; a server that opens it makes its log again.
                self._copy.pragma("locking_mode", "EXCLUSIVE")
                self._copy.pragma("journal_mode", "DELETE")
            finally:
                self._copy.close()


@contextlib.contextmanager
def _named(target: Path) -> Iterator[None]:
    try:
        yield
    except apsw.FullError:
        raise BackupFailed(f"no room on the disk for {target}; free some, or give another place") from None
    except apsw.Error as error:
        raise BackupFailed(f"the copy {target} failed ({error})") from None


def copy_store(directory: Path, name: str, target: Path, *, application_id: int, version: int) -> None:
    """Copy a state directory's database, by its server if one runs. Raises BackupFailed, StateError, StoreError."""
    state = StateDir(directory)
    if not state.try_lock():
        ask_server(state, target)
        return
    try:
        connection = open_to_read(directory / name, application_id=application_id, version=version)
        try:
            copy = DatabaseCopy(connection, target)
            try:
                while not copy.step():
                    pass
            finally:
                copy.close()
        finally:
            connection.close()
    finally:
        state.close()


# -- a server's side -------------------------------------------------------------------------------------


class BackupDesk:
    """Takes requests in and works on one at a time; a failure is answered and never the server's end."""

    def __init__(
        self,
        directory: Path,
        copy_to: Callable[[Path], DatabaseCopy],
        later: Callable[[int, Callable[[], None]], None],
        log: Callable[[str], None],
    ) -> None:
        """`later` calls something after so many milliseconds. What an earlier run left unanswered is taken away."""
        self._state = StateDir(directory)
        self._copy_to = copy_to
        self._later = later
        self._log = log
        self._copy: DatabaseCopy | None = None
        self._request_id = ""
        self._request_fd = -1  # locked, from taking a request to its answer
        for path in directory.glob("backup.*"):
            path.unlink(missing_ok=True)

    def look(self) -> None:
        """Called once a second."""
        path = self._state.path / REQUEST_NAME
        if self._copy is not None or not path.exists():
            return
        try:
            request = json.loads(self._state.read_secret(REQUEST_NAME))
            target, self._request_id = Path(request["target"]), str(int(request["id"]))
            self._request_fd = os.open(path, os.O_RDONLY)
            fcntl.flock(self._request_fd, fcntl.LOCK_EX)  # at once: a command only looks whether it could
        except (StateError, OSError, ValueError, KeyError, TypeError) as error:
            self._log(f"a request for a backup was not understood ({error}); it is taken away")
            path.unlink(missing_ok=True)
            self._let_go()
            return
        path.unlink(missing_ok=True)
        try:
            self._copy = self._copy_to(target)
        except BackupFailed as error:
            self._answer(str(error))
        else:
            self._later(STEP_EVERY_MS, self._step)

    def _step(self) -> None:
        assert self._copy is not None
        try:
            if not self._copy.step():
                self._later(STEP_EVERY_MS, self._step)
                return
        except BackupFailed as error:
            self._end(str(error))
        else:
            self._end("")

    def _end(self, error: str) -> None:
        assert self._copy is not None
        try:
            self._copy.close()
        except BackupFailed as failed:
            error = error or str(failed)
        self._copy = None
        self._answer(error)

    def _answer(self, error: str) -> None:
        self._log(f"backup: {error}" if error else "a backup of the database was made")
        with contextlib.suppress(StateError):  # Nobody can be told; the command gives up by itself.
            self._state.write_atomic(f"backup.{self._request_id}.answer", error.encode())
        self._let_go()

    def _let_go(self) -> None:
        if self._request_fd >= 0:
            os.close(self._request_fd)
            self._request_fd = -1


# -- a command's side ------------------------------------------------------------------------------------


def ask_server(state: StateDir, target: Path) -> None:
    """Have the server of a state directory copy its database, and wait for it. Raises BackupFailed, StateError."""
    request_id = str(time.time_ns())
    answer = state.path / f"backup.{request_id}.answer"
    deadline = time.monotonic() + TAKEN_WITHIN_S
    fd = _put_request(state, {"target": str(target.absolute()), "id": request_id}, deadline)
    try:
        while not answer.exists():
            time.sleep(_LOOK_EVERY_S)
            is_waiting = _is_here(state.path / REQUEST_NAME, fd)
            if not _is_locked(fd) and (not is_waiting or _has_no_server(state)) and not answer.exists():
                raise BackupFailed(f"the server of {state.path} ended before it had made a copy; try again")
            if is_waiting and time.monotonic() >= deadline:
                text = "stop it, or update it, and try again"
                raise BackupFailed(f"the server of {state.path} made no copy within {TAKEN_WITHIN_S} s; {text}")
        error = answer.read_text(encoding="utf-8")
        answer.unlink()
    finally:
        if _is_here(state.path / REQUEST_NAME, fd):
            (state.path / REQUEST_NAME).unlink(missing_ok=True)
        os.close(fd)
    if error:
        raise BackupFailed(error)


def _put_request(state: StateDir, request: dict[str, str], deadline: float) -> int:
    """Put a request where the server looks, behind one that another command left; gives a descriptor of its file."""
    path = state.path / REQUEST_NAME
    beside = path.with_name(f".backup.{request['id']}.request")
    try:
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(fd, json.dumps(request).encode())
            while not _link(beside, path):
                if time.monotonic() >= deadline:
                    raise StateError(f"{path} exists; wait until the server has served it, or move it away")
                time.sleep(_LOOK_EVERY_S)
        except BaseException:
            os.close(fd)
            raise
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"could not write {path}: {error.strerror}") from None
    return fd


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, unless another file has it."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    return True


def _is_here(path: Path, fd: int) -> bool:
    """Whether this path still is the name of this open file, and not gone or another's."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(fd))
    return False


def _is_locked(fd: int) -> bool:
    """Whether a server works on this request."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _has_no_server(state: StateDir) -> bool:
    if not state.try_lock():
        return False
    state.close()
    return True
