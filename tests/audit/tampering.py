"""Rows changed as somebody would who may write the file, past what the tables themselves refuse."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw


@contextmanager
def without_triggers(connection: apsw.Connection) -> Iterator[None]:
    """Take the triggers that keep rows as they are out, and put them in again as they were."""
    triggers = list(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in triggers:
        connection.execute(str(sql))
