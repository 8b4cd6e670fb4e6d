"""Databases as older versions of paygate left them; `python -m power.older_stores` adds those of the present one.

`older/ledger-3.sql` was written by the paygate whose ledger had version 3, and so on; none is ever made anew. All
ledgers tell the same story, and so do all stores of tokens.
"""

import sqlite3
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import apsw
from bank_books import ENVELOPE_HASH, RAVI_MINOR, WRONG_VERIFIER, Books, build_transfer, payment_id
from builders import NOW_MS, PASSCODE, build_terms
from disk_model import Image
from gateway.world import build_token
from memory_disk import MemoryDisk
from power.story import Story

from paygate.bank.ledger import Resolve
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import BeginPayment, CancelToken, CheckToken, IssueToken, SettlePayment

S = TypeVar("S", bound=Story)

OLDER_EVERY: Final = 5
"""One of so many stories, by its seed, begins with the database of an older paygate; each version in its turn."""
DIRECTORY: Final = Path(__file__).parent / "older"


def versions_of(store_name: str) -> list[int]:
    """The versions of which there is a database, oldest first."""
    return sorted(int(path.stem.partition("-")[2]) for path in DIRECTORY.glob(f"{store_name}-*.sql"))


@cache
def older_image(store_name: str, version: int, path: Path) -> Image:
    """A disk with nothing on it but this database, at this path."""
    disk = MemoryDisk("older")
    connection = apsw.Connection(str(path), vfs=disk.name)
    connection.execute((DIRECTORY / f"{store_name}-{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    image = Image.of(disk.files)
    disk.close()
    return image


def of_older_version(story: S, path: Path) -> S:
    """The story, but one of so many begins with a database of an older version, and with no model of what is in it."""
    versions = versions_of(story.store_name)
    quotient, remainder = divmod(story.seed, OLDER_EVERY)
    if remainder:
        return story
    return replace(story, image=older_image(story.store_name, versions[quotient % len(versions)], path), model=None)


def _make_ledger(path: Path) -> None:
    books = Books(path)
    for number in range(6):
        books.pay(number, amount_minor=1_000 + number)
    books.pay(6, user_id="ravi", verifier=WRONG_VERIFIER)
    books.pay(7, user_id="ravi", amount_minor=RAVI_MINOR + 1)
    books.apply(build_transfer(payment_id=payment_id(8), transaction_id="TX-8", verifier=WRONG_VERIFIER))
    books.apply(Resolve(build_terms(payment_id=payment_id(9), transaction_id="TX-9"), ENVELOPE_HASH))
    books.ledger.close()


def _make_tokens(path: Path) -> None:
    store, now = SqliteTokens(path), Now(1_000_000, NOW_MS)
    tokens = [build_token(transaction_id=f"TX-{n}", amount_minor=1_000 + n) for n in range(10)]
    store.apply([IssueToken(token) for token in tokens], now)
    ends = (
        (TransferOutcome.POSTED, Reason.NONE, "PGBKP12026010200000001"),
        (TransferOutcome.DECLINED, Reason.FUNDS, ""),
        (TransferOutcome.POSTED, Reason.NONE, "PGBKP12026010200000002"),
        None,
        (TransferOutcome.FENCED, Reason.FENCED, ""),
    )
    for number, end in enumerate(ends):
        terms = build_terms(payment_id=payment_id(number), transaction_id=f"TX-{number}", amount_minor=1_000 + number)
        store.apply([BeginPayment(terms, ENVELOPE_HASH)], now)
        if end is not None:
            store.apply([SettlePayment(terms.payment_id, *end, b"receipt %d" % number * 20)], now)
    guesses = [CheckToken("TX-6", "0000")] * 2 + [CheckToken("TX-7", "0000")] * 6
    store.apply([*guesses, CheckToken("TX-5", PASSCODE), CancelToken(tokens[8])], now)
    store.close()


def main() -> int:
    """Write down the databases of this version; 1 if they are there already."""
    with TemporaryDirectory() as directory:
        for store_name, make in (("ledger", _make_ledger), ("tokens", _make_tokens)):
            path = Path(directory) / f"{store_name}.sqlite"
            make(path)
            connection = sqlite3.connect(path)
            pragmas = {
                name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            }
            lines = [*(f"PRAGMA {name} = {value};" for name, value in pragmas.items()), *connection.iterdump()]
            connection.close()
            target = DIRECTORY / f"{store_name}-{pragmas['user_version']}.sql"
            if target.exists():
                print(f"{target} is there; what an older paygate wrote is not made anew", file=sys.stderr)
                return 1
            target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
