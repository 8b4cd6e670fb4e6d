"""The hashes of rows: what is hashed never changes, or no ledger opens any more."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import pytest

from paygate.audit.row_hash import CHAIN_START, NextChain, chained
from paygate.bank.ledger_chain import next_payment_chain, next_posting_chain

PAYMENT: Final = (7, "GW1", b"\0" * 16, "TX-7", b"terms", b"h" * 32, 1, 0, "PGBKP12026010200000001", 0, b"r" * 520)
POSTING: Final = (14, 7, 3, -125_000)


def reference(chain_before: bytes, values: Sequence[Any]) -> bytes:
    hashed = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return hashlib.sha256(chain_before + b"".join(len(h).to_bytes(4) + h for h in hashed)).digest()


@pytest.mark.parametrize(
    ("next_chain", "row"),
    [
        (next_payment_chain, PAYMENT),
        (next_payment_chain, (*PAYMENT[:8], None, *PAYMENT[9:])),
        (next_payment_chain, (*PAYMENT[:10], b"r" * 5_000)),
        (next_payment_chain, (0, "", b"", "\u20b9", b"", b"", 3, 10, None, 2**63 - 1, b"")),
        (next_posting_chain, POSTING),
        (next_posting_chain, (1, None, 1, -(2**63))),
    ],
    ids=["posted", "declined", "large", "extreme", "posting", "opening"],
)
def test_a_row_is_hashed_with_the_one_before_each_value_behind_its_size(
    next_chain: NextChain, row: tuple[Any, ...]
) -> None:
    assert next_chain(CHAIN_START, row) == reference(CHAIN_START, row)
    rows, last = chained([row, row], CHAIN_START, next_chain)
    first = reference(CHAIN_START, row)
    assert last == reference(first, row)
    assert rows == [(*row, first), (*row, last)]


@pytest.mark.parametrize("at", range(len(PAYMENT)))
@pytest.mark.parametrize("value", ["text", b"bytes", 1.5, None, 123_456], ids=repr)
def test_a_damaged_row_may_hold_anything_and_has_another_hash(at: int, value: Any) -> None:
    damaged = (*PAYMENT[:at], value, *PAYMENT[at + 1 :])
    assert next_payment_chain(CHAIN_START, damaged) != next_payment_chain(CHAIN_START, PAYMENT)
