"""Flips bits in the files of both stores, and says who noticed (T32).

`PYTHONPATH=tests python -m audit.flips` flips one bit, drawn by the seed, of every byte of both files: that of a bank
and that of a gateway that have been used in every way. Each flip must be noticed by the check that a start makes, or
else by an audit, or change nothing that any query can tell. What a start refuses is told apart from what only an audit
finds: of the rows themselves there must be none of the latter.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import apsw
from audit.pair import KEY_LIST, Pair
from bank_books import IDENTITY, WRONG_VERIFIER

from paygate.audit.findings import Check, Damage, all_findings, damages_of
from paygate.bank.audit import audit_ledger
from paygate.bank.ledger_check import LedgerCheck, head_damages, read_head
from paygate.gateway.audit import audit_tokens
from paygate.gateway.token_check import TokenCheck

STARTS: Final = "refused at start"
AUDITED: Final = "in no row, found by the audit"
HARMLESS: Final = "nothing changed"
SERVED: Final = "FOUND BY THE AUDIT, AND A SERVER WOULD SERVE IT"
UNNOTICED: Final = "NOT NOTICED"

_JOURNAL_BYTES: Final = slice(18, 20)
"""Of a database's header: 2 for a write-ahead log, 1 for none, as an image in memory must have it."""


def used_images(directory: Path) -> dict[str, bytes]:
    """Both stores' files, with rows of every kind in every table."""
    pair = Pair(directory)
    for number in (1, 2, 3):
        pair.pay(number)
    early = pair.begin(4)
    pair.pay(5, verifier=WRONG_VERIFIER)
    fenced = pair.begin(6)
    pair.settle(fenced, pair.fence(fenced))
    pair.settle(early, pair.decide(early))
    pair.begin(7)
    pair.issue(8)
    for _ in range(5):
        pair.try_passcode(8, "wrong")
    for number in (9, 10, 11):
        pair.pay(number, verifier=WRONG_VERIFIER)
    pair.close()
    return {"ledger": pair.books.path.read_bytes(), "tokens": pair.path.read_bytes()}


def opened(image: bytes) -> apsw.Connection:
    """A database in memory with these bytes."""
    whole = bytearray(image)
    if whole[_JOURNAL_BYTES] == b"\2\2":
        whole[_JOURNAL_BYTES] = b"\1\1"
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", bytes(whole))
    return connection


def ledger_damages(connection: apsw.Connection) -> Iterator[Damage]:
    """What a bank's start finds."""
    head = list(head_damages(connection))
    yield from head or LedgerCheck(connection, read_head(connection)).damages()


def token_damages(connection: apsw.Connection) -> Iterator[Damage]:
    """What a gateway's start finds."""
    yield from TokenCheck(connection).damages()


Starts = Callable[[apsw.Connection], Iterator[Damage]]
Audits = Callable[[apsw.Connection], Sequence[Check]]
STORES: Final[dict[str, tuple[Starts, Audits]]] = {
    "ledger": (ledger_damages, lambda connection: audit_ledger(connection, IDENTITY, KEY_LIST)),
    "tokens": (token_damages, audit_tokens),
}


def dumped(connection: apsw.Connection) -> list[tuple[str, ...]]:
    """All that queries can tell of a database: its schema and every row of every table."""
    schema = list(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"))
    rows = [tuple(map(str, row)) for row in schema]
    rows.append(("versions", str(connection.pragma("application_id")), str(connection.pragma("user_version"))))
    for kind, name, *_ in schema:
        if kind == "table":
            columns = [column[1] for column in connection.execute(f"PRAGMA table_info({name})")]
            values = ", ".join(f"quote({column})" for column in columns)
            rows += [(str(name), *map(str, row)) for row in connection.execute(f"SELECT {values} FROM {name}")]
    return rows


@dataclass
class Flips:
    """What became of the flips of one store."""

    store: str
    image: bytes
    counts: Counter[str] = field(default_factory=Counter)
    unnoticed: list[tuple[int, int]] = field(default_factory=list)
    """Places of those that changed a row or a table and would have been served."""
    named: set[str] = field(default_factory=set)
    """The tables that damages were found in."""

    def __post_init__(self) -> None:
        self._whole = dumped(opened(self.image))
        connection = opened(self.image)
        self._versions = connection.pragma("application_id"), connection.pragma("user_version")
        start, audit = STORES[self.store]
        assert list(start(opened(self.image))) == []
        assert all_findings(audit(opened(self.image))) == []

    def flip(self, at: int, bit: int) -> str:
        """One bit of one byte; gives who noticed."""
        image = bytearray(self.image)
        image[at] ^= 1 << bit
        noticed = self._who_notices(bytes(image))
        self.counts[noticed] += 1
        if noticed in (SERVED, UNNOTICED):
            self.unnoticed.append((at, bit))
        return noticed

    def _who_notices(self, image: bytes) -> str:
        start, audit = STORES[self.store]
        try:
            connection = opened(image)
            if (connection.pragma("application_id"), connection.pragma("user_version")) != self._versions:
                return STARTS  # as `open_database` does
            # Errors that the database itself raises end a server too (`files/sqlite.py`).
            damage = next(damages_of(lambda: start(connection)), None)
        except (apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError, apsw.SQLError):
            return STARTS
        if damage is not None:
            self.named.add(damage.table)
            return STARTS
        is_found = bool(all_findings(audit(connection)))
        if dumped(connection) != self._whole:
            return SERVED if is_found else UNNOTICED
        return AUDITED if is_found else HARMLESS


def sample(image: bytes, count: int, chance: random.Random) -> list[tuple[int, int]]:
    """Places to flip: nine of ten among the bytes that are not zero, which are few, the rest anywhere."""
    used = [at for at, byte in enumerate(image) if byte]
    places = [chance.choice(used) if chance.random() < 0.9 else chance.randrange(len(image)) for _ in range(count)]
    return [(at, chance.randrange(8)) for at in places]


def every_byte(image: bytes, chance: random.Random) -> Iterator[tuple[int, int]]:
    """One bit of each."""
    return ((at, chance.randrange(8)) for at in range(len(image)))


def run(flips: Flips, places: Iterable[tuple[int, int]]) -> Flips:
    """All of them."""
    for at, bit in places:
        flips.flip(at, bit)
    return flips


def main() -> int:
    """Every byte of both stores; 1 if any flip went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    is_bad = False
    with TemporaryDirectory() as directory:
        images = used_images(Path(directory))
    for store, image in images.items():
        flips = run(Flips(store, image), every_byte(image, random.Random(options.seed)))
        told = ", ".join(f"{count} {what}" for what, count in sorted(flips.counts.items()))
        sys.stdout.write(f"{store}: {sum(flips.counts.values())} bytes, one bit each: {told}\n")
        for at, bit in flips.unnoticed:
            sys.stdout.write(f"  byte {at}, bit {bit}\n")
        is_bad = is_bad or bool(flips.unnoticed)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
