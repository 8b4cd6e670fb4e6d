"""The power-cut campaign in short, and that it finds what it is there to find."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from memory_disk import MemoryDisk, _Handle
from power.__main__ import STORIES, main
from power.cuts import Counts, cut_story
from power.older_stores import OLDER_EVERY, versions_of
from power.story import Violation

from paygate.bank import sqlite_ledger
from paygate.files import sqlite
from paygate.gateway import token_tables

EVERY = 9
"""One of so many points is cut here; `make power-cuts` cuts all."""
STORY_COUNT_MAX = 4
"""Stories within which each mutant must be found."""


def cut_some(name: str, seeds: Iterable[int]) -> Counts:
    counts = Counts()
    for seed in seeds:
        cut_story(STORIES[name](seed), counts, range(seed % EVERY, 10_000, EVERY))
    return counts


@pytest.mark.parametrize("name", STORIES)
def test_what_was_answered_survives_a_cut_and_what_was_not_is_there_whole_or_not_at_all(name: str) -> None:
    counts = cut_some(name, (0, 1, 2))  # the first begins with a database of an older version
    assert counts.cuts > 300
    assert counts.recovery_cuts > 50
    assert counts.kills == counts.points > 25
    report = counts.report
    assert min(report.kept, report.lost, report.torn, report.names_lost, report.sizes_wrong) > 0
    assert counts.unanswered_kept > 0


@pytest.mark.parametrize("name", STORIES)
def test_every_older_version_is_cut_and_all_hold_the_same_once_they_are_taken_over(name: str) -> None:
    held = set()
    present_versions = set()
    for place, version in enumerate(versions_of(name)):
        story = STORIES[name](place * OLDER_EVERY)
        disk = MemoryDisk("older", story.image)
        assert version_of(disk) == version
        store = story.open(disk.name)
        held.add(story.look(store)[0])
        store.close()
        present_versions.add(version_of(disk))
        disk.close()
    assert len(held) == 1
    (present_version,) = present_versions
    missing = set(range(1, present_version)) - set(versions_of(name))
    assert not missing, "with the paygate that makes it: PYTHONPATH=tests python -m power.older_stores"


def version_of(disk: MemoryDisk) -> int:
    """As it stands in the database's header (https://www.sqlite.org/fileformat.html)."""
    (content,) = disk.files.values()
    return int.from_bytes(content[60:64])


def changed(function: Callable[..., Any], old: str, new: str) -> Any:
    """The function, in its module, with another line in its source."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has no such line: {old}"
    module = inspect.getmodule(function)
    assert module is not None
    found: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"changed {function.__qualname__}", "exec"), module.__dict__, found)
    return found[function.__name__]


def synchronous_normal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite, "_prepare", changed(sqlite._prepare, '"synchronous", "FULL"', '"synchronous", "NORMAL"'))


def synchronous_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite, "_prepare", changed(sqlite._prepare, '"synchronous", "FULL"', '"synchronous", "OFF"'))


def answer_before_commit(patch: pytest.MonkeyPatch) -> None:
    """A batch is committed when the next one begins."""
    late = changed(sqlite.transaction, 'connection.execute("COMMIT")', "pass")

    class Late:
        def __init__(self, connection: Any) -> None:
            if connection.in_transaction:
                connection.execute("COMMIT")
            self.context = late(connection)

        def __enter__(self) -> None:
            self.context.__enter__()

        def __exit__(self, *error: Any) -> Any:
            return self.context.__exit__(*error)

    for module in (sqlite_ledger, token_tables):
        patch.setattr(module, "transaction", Late)


def answer_by_what_was_not_synced(patch: pytest.MonkeyPatch) -> None:
    """A start believes the log that a killed process left."""
    patch.setattr(sqlite, "_write_log_anew", lambda connection: None)


def sync_again(patch: pytest.MonkeyPatch) -> None:
    """A failed fsync is tried again, and then it seems well."""
    once = _Handle.xSync

    def twice(self: _Handle, flags: int) -> None:
        try:
            once(self, flags)
        except Exception:
            self.disk.fsync_fails = False
            once(self, flags)

    patch.setattr(_Handle, "xSync", twice)


def forget_names(patch: pytest.MonkeyPatch) -> None:
    """Not a mutant of ours but of SQLite's: no directory is synced."""
    patch.setattr(MemoryDisk, "sync_names", lambda self, name: None)


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize(
    "mutate",
    [
        synchronous_normal,
        synchronous_off,
        answer_before_commit,
        answer_by_what_was_not_synced,
        sync_again,
        forget_names,
    ],
)
def test_a_mutant_is_found(name: str, mutate: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        with pytest.raises(Violation, match=f"(?s){name} story .*again: make power-cuts STORE={name}"):
            cut_some(name, range(STORY_COUNT_MAX))


def test_the_command_counts_and_replays(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["power", "--store", "tokens", "--seed", "3", "--point", "40"])
    assert main() == 0
    told = capsys.readouterr().out
    assert re.search(r"^tokens: 1 stories, 1 points, \d+ cuts", told)
    monkeypatch.setattr(sqlite, "_write_log_anew", lambda connection: None)
    synchronous_off(monkeypatch)
    monkeypatch.setattr("sys.argv", ["power", "--store", "ledger", "--seed", "1", "--cuts", "1"])
    assert main() == 1
    words = capsys.readouterr().err.splitlines()[-1].split()
    assert words[:3] == ["again:", "make", "power-cuts"]
    given = dict(word.split("=") for word in words[3:])
    argv = ["power", *(word for key, value in given.items() for word in (f"--{key.lower()}", value))]
    monkeypatch.setattr("sys.argv", argv)
    assert main() == 1
    assert capsys.readouterr().err.splitlines()[-1].split() == words
