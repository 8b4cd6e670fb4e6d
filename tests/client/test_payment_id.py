"""The layout of payment IDs, and their order."""

from random import Random
from uuid import UUID

import pytest

from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.codec import limits

WALL_MS = 1_795_000_000_123


@pytest.mark.pg("PG-TRM-3")
def test_a_payment_id_has_the_layout_of_uuid_version_7() -> None:
    # The example of RFC 9562, A.6.
    made = make_payment_id(0x017F22E279B0, bytes.fromhex("0cc3") + bytes.fromhex("18c4dc0c0c07398f"))
    assert UUID(bytes=made) == UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")


@pytest.mark.parametrize("fill", [0x00, 0xFF])
def test_version_and_variant_hold_whatever_the_random_bits_are(fill: int) -> None:
    made = UUID(bytes=make_payment_id(WALL_MS, bytes([fill]) * RANDOMNESS_SIZE))
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == WALL_MS


def test_of_80_random_bits_74_are_kept() -> None:
    none = int.from_bytes(make_payment_id(WALL_MS, bytes(RANDOMNESS_SIZE)))
    bits = [
        int.from_bytes(make_payment_id(WALL_MS, (1 << n).to_bytes(RANDOMNESS_SIZE))) ^ none
        for n in range(8 * RANDOMNESS_SIZE)
    ]
    assert len({bit for bit in bits if bit}) == 74


def test_ids_made_later_sort_later() -> None:
    rng = Random(7)
    times_ms = [0, 1, 255, 256, 65_535, 65_536, WALL_MS, WALL_MS + 1, limits.TIME_MS_MAX]
    made = [make_payment_id(at_ms, rng.randbytes(RANDOMNESS_SIZE)) for at_ms in times_ms]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_clock_before_1970_or_beyond_the_layout_still_gives_an_id() -> None:
    for at_ms in (-1, 1 << 48):
        assert len(make_payment_id(at_ms, bytes(RANDOMNESS_SIZE))) == limits.PAYMENT_ID_SIZE
