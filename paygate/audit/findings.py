"""What an audit looked at and what it found, for people and for programs."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import apsw

RESTORE: Final = "restore it from a backup"
"""What mends a store that is not what was written."""
FINDING_COUNT_MAX: Final = 100
"""Findings of one check that are told; of a store that is damaged throughout the rest says nothing more."""


class Damage(NamedTuple):
    """A row that is not as it must be, before it is known in which file and what to do."""

    table: str
    row: str
    """Which one, such as `7`; empty for the table as a whole."""
    problem: str
    """What is wrong with it, to be read after its name: `is not what was written`."""
    expected: str = "what was written"

    @property
    def where(self) -> str:
        """Its name: `payment 7`."""
        return f"{self.table} {self.row}".rstrip()


class Unreadable(Exception):
    """A row holds text that is none, so that the database can't give it."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage.where)
        self.damage = damage


def readable(table: str, rows: Iterable[Any]) -> Iterator[Any]:
    """The rows of a query on a table that begin with their number. Raises Unreadable."""
    number = 0
    try:
        for row in rows:
            number = row[0]
            yield row
    except UnicodeDecodeError:
        raise Unreadable(Damage(table, f"after {number}", "can't be read")) from None


def damages_of(*steps: Callable[[], Iterator[Damage]]) -> Iterator[Damage]:
    """What the steps of a check find, one after another."""
    for step in steps:
        try:
            yield from step()
        except Unreadable as bad:
            yield bad.damage
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
            # SQLError: our statements are right, so a table or column that they name is not there.
            yield Damage("database", "", f"can't be read ({error})", "whole pages, and the tables that we made")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, what was expected, and what to do."""

    file: str
    table: str
    row: str
    problem: str
    expected: str
    remedy: str = RESTORE

    def __str__(self) -> str:
        where = f"{self.table} {self.row}".rstrip()
        return f"{self.file}: {where} {self.problem} (expected: {self.expected}); {self.remedy}"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: of what, how many of them were looked at, and what was found."""

    name: str
    """Of what, such as `payments`."""
    count: int
    result: str
    """What holds if nothing was found, such as `chain whole`."""
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = field(default=())
    """What is no fault, but should be known."""

    def __str__(self) -> str:
        told = f"{len(self.findings)} findings" if self.findings else self.result
        return f"{self.name} {self.count:,}: {told}"


def check_of(
    name: str,
    result: str,
    findings: Iterable[Finding],
    count: Callable[[], int] = lambda: 0,
    remarks: Sequence[str] = (),
) -> Check:
    """Run a check. `count` is asked afterwards; of the findings, the first hundred are kept."""
    found = tuple(islice(findings, FINDING_COUNT_MAX))
    return Check(name, count(), result, found, tuple(remarks))


def findings_of(file: str, damages: Iterable[Damage], remedy: str = RESTORE) -> Iterator[Finding]:
    """Damages of one file's rows as findings."""
    return (Finding(file, d.table, d.row, d.problem, d.expected, remedy) for d in damages)


def all_findings(checks: Iterable[Check]) -> list[Finding]:
    """What all checks together found."""
    return [finding for check in checks for finding in check.findings]


def report_lines(checks: Sequence[Check], *, as_json: bool) -> Iterator[str]:
    """What to print: a line for each check, each finding and each remark; or one JSON object a check."""
    for check in checks:
        if as_json:
            yield json.dumps(asdict(check))
            continue
        yield str(check)
        yield from (f"  {finding}" for finding in check.findings)
        yield from (f"  remark: {remark}" for remark in check.remarks)
