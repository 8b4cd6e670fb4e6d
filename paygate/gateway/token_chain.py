"""The hashes over the gateway's rows: chains of what never changes, and one of its own for each row that does (T32).

Tokens are chained as they are issued and payments as they end. The ends of both chains stand in the table `gateway`,
which is written when tokens are issued and at a start. To write it for every payment would cost a page each time, so
what a payment in flight hangs on is the chain's end when it was begun: by that a start knows how long the chain of
payments must be at least, and a later one that is lost is in flight again.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import apsw

from paygate.audit.pages import schema_hash
from paygate.audit.row_hash import CHAIN_START, NextChain, chained, next_chain_of, row_hash, row_text

TOKEN_FIELDS: Final = (
    *("token_number", "transaction_id", "passcode", "merchant_id", "merchant_name", "amount_minor", "currency"),
    "expires_ms",
)
STATE_FIELDS: Final = ("token_number", "state", "utr", "wrong_passcode_count", "locked_until_ms")
FLIGHT_FIELDS: Final = ("place", "payment_number", "terms", "envelope_hash", "begun_ms", "ended_count")
PAYMENT_FIELDS: Final = (
    *("payment_number", "payment_id", "transaction_id", "terms", "envelope_hash", "begun_ms", "outcome", "reason"),
    *("utr", "receipt", "ended_ms", "chain_number"),
)
next_payment_chain: Final = next_chain_of(
    "payment", PAYMENT_FIELDS, {"payment_id", "terms", "envelope_hash", "receipt"}
)
flight_hash: Final = next_chain_of("in_flight", FLIGHT_FIELDS, {"terms", "envelope_hash"})
_TRIGGERS: Final = """
    CREATE TRIGGER payment_stays BEFORE UPDATE ON payment BEGIN SELECT RAISE(ABORT, 'payments never change'); END;
    CREATE TRIGGER payment_remains BEFORE DELETE ON payment BEGIN SELECT RAISE(ABORT, 'payments never go'); END;
    CREATE TRIGGER token_stays BEFORE UPDATE ON token BEGIN SELECT RAISE(ABORT, 'tokens never change'); END;
    CREATE TRIGGER token_remains BEFORE DELETE ON token BEGIN SELECT RAISE(ABORT, 'tokens never go'); END;
"""
_READ_COUNT: Final = 10_000  # rows that are read before they are written, while an older database is taken over

Row = tuple[Any, ...]


class Head(NamedTuple):
    """The lengths of the chains and their last hashes: the one row of the table `gateway`."""

    token_count: int
    token_chain: bytes
    payment_count: int
    payment_chain: bytes
    schema_hash: bytes
    """Of the tables as they were made (`audit/pages.py`); never changes but with the version."""


def with_hashes(
    head: Head, changes: tuple[list[Row], list[Row], Sequence[Row], list[Row], list[Row]]
) -> tuple[tuple[Sequence[Row], ...], Head]:
    """The rows of a transaction (`token_tables.Changes`) as they are written, and the ends of the chains after it."""
    issued, states, begun, ended, paid = changes
    token_count, token_chain, payment_count, payment_chain, schema = head
    if issued:
        issued, token_chain = chained(issued, token_chain, next_token_chain)
    if ended:
        numbered = [(*row, number) for number, row in enumerate(ended, payment_count + 1)]
        ended, payment_chain = chained(numbered, payment_chain, next_payment_chain)
        payment_count += len(ended)
    hanging = [(*row, payment_count) for row in begun]
    begun = [(*row, flight_hash(payment_chain, row)) for row in hanging]
    states = [(*row, state_hash(CHAIN_START, row)) for row in states]
    written = Head(token_count + len(issued), token_chain, payment_count, payment_chain, schema)
    return (issued, states, begun, ended, paid), written


def next_token_chain(chain_before: bytes, values: Sequence[Any]) -> bytes:
    """The hash of a token's row (TOKEN_FIELDS)."""
    return row_hash(chain_before, row_text(values))


state_hash: Final = next_token_chain
"""The hash of a row of `token_state` (STATE_FIELDS), which hangs on CHAIN_START."""


def write_head(connection: apsw.Connection, head: Head) -> None:
    """Keep the ends of the chains, with their hash; within a transaction."""
    row = (*head, row_hash(CHAIN_START, row_text(head)))
    connection.execute("INSERT OR REPLACE INTO gateway VALUES (1, ?, ?, ?, ?, ?, ?)", row)


def chain_all(connection: apsw.Connection) -> None:
    """Leads to version 5: the rows of an older database are hashed as they are."""
    token_count, token_chain = _hash_rows(connection, "token", TOKEN_FIELDS, next_token_chain)
    payment_count, payment_chain = _hash_rows(connection, "payment", PAYMENT_FIELDS, next_payment_chain)
    connection.execute("UPDATE in_flight SET ended_count = ?", (payment_count,))
    _hash_rows(connection, "in_flight", FLIGHT_FIELDS, lambda _, row: flight_hash(payment_chain, row))
    _hash_rows(connection, "token_state", STATE_FIELDS, lambda _, row: state_hash(CHAIN_START, row))
    connection.execute(_TRIGGERS)
    write_head(connection, Head(token_count, token_chain, payment_count, payment_chain, schema_hash(connection)))


def _hash_rows(
    connection: apsw.Connection, table: str, fields: Sequence[str], next_chain: NextChain
) -> tuple[int, bytes]:
    """Give each row its hash. Gives their count and the last one."""
    column = "chain" if table in ("token", "payment") else "row_hash"
    query = (
        f"SELECT {', '.join(fields)} FROM {table} "  # noqa: S608  # constants
        f"WHERE rowid > ? ORDER BY rowid LIMIT {_READ_COUNT}"
    )
    update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608  # constants
    count, chain, last_rowid = 0, CHAIN_START, -1
    while True:
        rows: list[Any] = connection.execute(query, (last_rowid,)).fetchall()
        if not rows:
            return count, chain
        rows, chain = chained(rows, chain, next_chain)
        connection.executemany(update, [(row[-1], row[0]) for row in rows])
        count += len(rows)
        last_rowid = rows[-1][0]
