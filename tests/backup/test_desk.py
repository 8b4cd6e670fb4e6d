"""How a command asks a server for a copy, and what a server makes of what it is asked."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from backup.bank import BankFolder

from paygate.files import database_copy
from paygate.files.database_copy import REQUEST_NAME, BackupDesk, BackupFailed, ask_server
from paygate.files.state_dir import StateDir, StateError


class Desk:
    """A server's desk whose time is the test's."""

    def __init__(self, bank: BankFolder) -> None:
        self.state = StateDir(bank.directory)
        self.state.open()
        self.steps: list[Callable[[], None]] = []
        self.told: list[str] = []
        (bank.directory / "backup.17.answer").touch()  # nobody waited for it
        self.bank = bank
        self.start()

    def start(self) -> None:
        """The server starts."""
        self.desk = BackupDesk(
            self.bank.directory, self.bank.ledger.copy_to, lambda _, step: self.steps.append(step), self.told.append
        )

    def serve(self) -> None:
        """Look, and do all that comes of it."""
        self.desk.look()
        while self.steps:
            self.steps.pop(0)()


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[BankFolder]:
    bank = BankFolder(tmp_path / "bank")
    yield bank
    bank.close()


@pytest.fixture
def desk(bank: BankFolder) -> Iterator[Desk]:
    desk = Desk(bank)
    yield desk
    desk.state.close()


def request(bank: BankFolder, target: Path, request_id: str = "1") -> Path:
    """Ask; gives where the answer will be."""
    text = json.dumps({"target": str(target), "id": request_id})
    StateDir(bank.directory).write_secret(REQUEST_NAME, text.encode())
    return bank.directory / f"backup.{request_id}.answer"


def test_a_request_is_taken_served_in_steps_and_answered(bank: BankFolder, desk: Desk, tmp_path: Path) -> None:
    assert not (bank.directory / "backup.17.answer").exists()
    answer = request(bank, tmp_path / "copy")
    desk.desk.look()
    assert not (bank.directory / REQUEST_NAME).exists()
    # Another one waits for its turn.
    second = request(bank, tmp_path / "second", "2")
    desk.serve()
    assert answer.read_bytes() == b""
    assert not second.exists()
    desk.serve()
    assert second.read_bytes() == b""
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "second").read_bytes() != b""
    assert desk.told == ["a backup of the database was made"] * 2


def test_what_can_not_be_done_is_answered_and_the_server_goes_on(bank: BankFolder, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    answer = request(bank, tmp_path / "there")
    desk.serve()
    assert "could not make" in answer.read_text(encoding="utf-8")
    for bad in (b"", b"[]", b'{"target": 3, "id": "1"}', b'{"target": "x", "id": "../../x"}'):
        StateDir(bank.directory).write_secret(REQUEST_NAME, bad)
        desk.serve()
        assert not (bank.directory / REQUEST_NAME).exists()
        assert "was not understood" in desk.told.pop()
    answer = request(bank, tmp_path / "copy", "5")
    desk.serve()
    assert answer.read_bytes() == b""


def test_a_command_waits_for_its_answer(bank: BankFolder, desk: Desk, tmp_path: Path) -> None:
    failures: list[str] = []

    def ask(target: Path) -> None:
        try:
            ask_server(StateDir(bank.directory), target)
        except BackupFailed as failed:
            failures.append(str(failed))

    for target in (tmp_path / "copy", tmp_path / "copy"):  # the second is there already
        command = Thread(target=ask, args=(target,))
        command.start()
        while command.is_alive():
            desk.serve()
            command.join(0.01)
    (failure,) = failures
    assert "could not make" in failure
    assert not list(bank.directory.glob("backup.*"))


def test_a_command_does_not_wait_for_a_server_that_was_killed(
    bank: BankFolder, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_and_die(_seconds: float) -> None:
        desk.desk.look()
        assert not (bank.directory / REQUEST_NAME).exists()
        os.close(desk.desk._request_fd)  # as the system does with a process that is killed
        desk.steps.clear()

    monkeypatch.setattr("paygate.files.database_copy.time.sleep", take_and_die)
    # Another server has the state directory already, so its lock tells nothing.
    with pytest.raises(BackupFailed, match="ended before it had made a copy; try again"):
        ask_server(StateDir(bank.directory), tmp_path / "copy")


def test_a_command_does_not_wait_for_a_server_that_took_requests_away_as_it_started(
    bank: BankFolder, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_anew(_seconds: float) -> None:
        desk.start()

    monkeypatch.setattr("paygate.files.database_copy.time.sleep", start_anew)
    with pytest.raises(BackupFailed, match="ended before it had made a copy; try again"):
        ask_server(StateDir(bank.directory), tmp_path / "copy")


def test_a_request_that_a_killed_command_left_is_waited_for(bank: BankFolder, desk: Desk, tmp_path: Path) -> None:
    left = request(bank, tmp_path / "left")
    command = Thread(target=ask_server, args=(StateDir(bank.directory), tmp_path / "copy"))
    command.start()
    while command.is_alive():
        desk.serve()
        command.join(0.01)
    assert left.exists()
    assert (tmp_path / "copy").exists()


def test_a_command_gives_up_a_server_that_knows_no_backups_and_leaves_nothing(
    bank: BankFolder, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_copy, "TAKEN_WITHIN_S", 0.2)
    with pytest.raises(BackupFailed, match="made no copy within"):
        ask_server(StateDir(bank.directory), tmp_path / "copy")
    assert not list(bank.directory.glob("backup.*"))
    request(bank, tmp_path / "copy")
    with pytest.raises(StateError, match=r"backup\.request exists"):
        ask_server(StateDir(bank.directory), tmp_path / "copy")
    assert (bank.directory / REQUEST_NAME).exists()  # which is another command's
