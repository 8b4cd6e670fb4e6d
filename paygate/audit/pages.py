"""What SQLite itself says of a database's pages, indexes and references."""

from collections.abc import Iterator
from typing import Any, Final

import apsw

from paygate.audit.findings import Damage, damages_of
from paygate.audit.row_hash import CHAIN_START, row_hash, text_expression

_PROBLEM_COUNT_MAX: Final = 100


def page_damages(connection: apsw.Connection) -> Iterator[Damage]:
    """Damaged pages, rows that an index does not have, values that are not of their column's type, lost references."""
    return damages_of(lambda: _page_damages(connection))


_SCHEMA: Final = f"SELECT {text_expression(('type', 'name', 'tbl_name', 'sql'))} FROM sqlite_schema ORDER BY name"  # noqa: S608


def schema_hash(connection: apsw.Connection) -> bytes:
    """A hash over all tables, indexes and triggers as they are declared: they hold what rows may be."""
    chain = CHAIN_START
    rows: Any = connection.execute(_SCHEMA)
    for (text,) in rows:
        chain = row_hash(chain, text)
    return chain


def schema_damages(connection: apsw.Connection, written: bytes) -> Iterator[Damage]:
    """Whether they are as they were made; `written` is the hash that was kept then."""
    if schema_hash(connection) != written:
        yield Damage("sqlite_schema", "", "is not what was written", "the tables that we made")


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
