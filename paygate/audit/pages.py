"""What SQLite itself says of a database's pages, indexes and references."""

from collections.abc import Iterator
from typing import Any, Final

import apsw

from paygate.audit.findings import Damage, damages_of

_PROBLEM_COUNT_MAX: Final = 100


def page_damages(connection: apsw.Connection) -> Iterator[Damage]:
    """Damaged pages, rows that an index does not have, values that are not of their column's type, lost references."""
    return damages_of(lambda: _page_damages(connection))


def quick_damages(connection: apsw.Connection, *indexed: str) -> Iterator[Damage]:
    """What a start can look at: all pages, and of some tables that their indexes say the same.

    To compare all indexes takes ten times as long as all pages.
    """
    for pragma in ("quick_check(1)", *(f"integrity_check({table})" for table in indexed)):
        for (problem,) in connection.execute(f"PRAGMA {pragma}"):
            if problem != "ok":
                yield Damage("database", "", f"is damaged ({problem})", "whole pages, and indexes as their tables")


def _page_damages(connection: apsw.Connection) -> Iterator[Damage]:
    for (problem,) in connection.execute(f"PRAGMA integrity_check({_PROBLEM_COUNT_MAX})"):
        if problem != "ok":
            yield Damage("database", "", f"is damaged ({problem})", "whole pages, and indexes as their tables")
    rows: Any = connection.execute("PRAGMA foreign_key_check")
    for table, rowid, parent, _ in rows:
        yield Damage(table, str(rowid), f"refers to a {parent} that is not there", f"a row of {parent}")
