"""How small the limits of a run are: in half of them what fills up after thousands of payments is full after a few.

What happens at a limit (balances written, something held in memory let go, rows read ahead, receipts in several trees,
a link that waits for its turn) is code that a world of ten payments would never come to. Drawn for each seed.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

SMALL_SHARE: Final = 0.5
"""Of the seeds; the others have the limits as they are."""
_LIMITS: Final = (
    ("paygate.bank.ledger_batch.READ_AHEAD_COUNT_MIN", (1, 2, 8)),
    ("paygate.bank.ledger_rows.BALANCE_COUNT_MAX", (1, 2, 3, 4_096)),
    ("paygate.bank.sqlite_ledger.ABSENT_COUNT_MAX", (0, 1, 16_384)),
    ("paygate.bank.sqlite_ledger.MERCHANT_COUNT_MAX", (0, 1, 16_384)),
    ("paygate.bank.sqlite_ledger._SIGNED_COUNT_MAX", (1, 2, 32)),
    ("paygate.gateway.sqlite_tokens.HELD_TOKEN_COUNT_MAX", (0, 1, 3, 10_000)),
    ("paygate.gateway.sqlite_tokens.UNKNOWN_TRIED_COUNT_MAX", (1, 10_000)),
    ("paygate.gateway.core.TURN_FRAME_COUNT_MAX", (1, 2, 8)),
)


@contextmanager
def small_limits(source: random.Random) -> Iterator[None]:
    """Within it the limits are as `source` has them."""
    is_small = source.random() < SMALL_SHARE
    with pytest.MonkeyPatch.context() as patch:
        for name, choices in _LIMITS:
            limit = source.choice(choices)
            if is_small:
                patch.setattr(name, limit)
        yield
