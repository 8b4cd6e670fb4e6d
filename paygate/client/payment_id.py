"""Payment IDs in the layout of UUID version 7 (RFC 9562; spec 8.1, PG-TRM-3).

Both servers keep every payment ID for ever in an index. IDs that begin with the time go to its end, where wholly random
ones would each write to a page of their own, the more so the longer the history.
"""

from typing import Final

RANDOMNESS_SIZE: Final = 10
_WALL_MS_BITS: Final = 48
_VERSION: Final = 7 << 76
_VERSION_MASK: Final = 0xF << 76
_VARIANT: Final = 0b10 << 62
_VARIANT_MASK: Final = 0b11 << 62


def make_payment_id(wall_ms: int, randomness: bytes) -> bytes:
    """48 bits of the wall time, 4 bits that say 7, 12 random bits, 2 bits that say 0b10, and 62 random bits.

    `randomness`: 10 bytes from the system's source; six bits of them give their places away. An ID that is made in a
    later millisecond sorts later, until the year 10889.
    """
    assert len(randomness) == RANDOMNESS_SIZE
    number = (wall_ms % (1 << _WALL_MS_BITS)) << 80 | int.from_bytes(randomness)
    number = number & ~_VERSION_MASK | _VERSION
    number = number & ~_VARIANT_MASK | _VARIANT
    return number.to_bytes(16)
