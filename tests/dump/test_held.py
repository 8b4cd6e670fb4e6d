"""Pieces that came before their turn: each byte once, whatever overlaps, against a table of single bytes."""

import tracemalloc
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from paygate.dump.held import PIECE_COST, At, HeldBytes, Repeat, repeat

PIECES = st.lists(
    st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=12).map(lambda d: bytes(b % 3 for b in d)))
)

ONE: Final = At(1_000, 1)


def check_cost(held: HeldBytes, size: int) -> None:
    assert held.cost == size + PIECE_COST * len(held.starts)


@settings(max_examples=500)
@given(pieces=PIECES, from_offset=st.integers(-5, 60))
def test_each_byte_is_the_first_that_came(pieces: list[tuple[int, bytes]], from_offset: int) -> None:
    held, table = HeldBytes(), dict[int, int]()
    for start, data in pieces:
        known = [at for at in range(start, start + len(data)) if at in table]
        differing = [at for at in known if table[at] != data[at - start]]
        found = held.insert(start, data, ONE)
        assert found.size == len(known)
        assert not known or found.offset == known[0]
        if differing:
            assert (found.differs_offset, found.differs_size) == (differing[0], differing[-1] + 1 - differing[0])
        else:
            assert found.differs_size == 0
        for at in range(start, start + len(data)):
            table.setdefault(at, data[at - start])
        check_cost(held, len(table))
    held.move(-from_offset)
    table = {at - from_offset: byte for at, byte in table.items() if at >= from_offset}
    check_cost(held, len(table))
    while held.starts:
        start = held.starts[0]
        run = b"".join(data for data, _ in held.take(start))
        assert [table.pop(at) for at in range(start, start + len(run))] == list(run)
    assert not table
    assert held.cost == 0


@settings(max_examples=500)
@given(pieces=PIECES)
def test_a_run_is_readable_up_to_a_byte_after_the_latest_of_the_packets_that_brought_it(
    pieces: list[tuple[int, bytes]],
) -> None:
    held, numbers = HeldBytes(), dict[int, int]()
    for number, (start, data) in enumerate(pieces, start=1):
        held.insert(start, data, At(1_000 * number, number))
        for at in range(start, start + len(data)):
            numbers.setdefault(at, number)
    while held.starts:
        at = held.starts[0]
        came_latest = expected = 0
        for data, received in held.take(at):
            came_latest = max(came_latest, received.number)
            assert received.time_ns == 1_000 * received.number
            for _ in data:
                expected = max(expected, numbers[at])
                assert came_latest == expected
                at += 1


def test_bytes_keep_their_packet_when_they_come_again_with_new_ones() -> None:
    held = HeldBytes()
    held.insert(0, b"abc", ONE)
    held.insert(3, b"def", At(2_000, 2))
    held.insert(0, b"abcdefghi", At(3_000, 3))
    held.move(-1)
    assert held.take(0) == [(b"bc", ONE), (b"def", At(2_000, 2)), (b"ghi", At(3_000, 3))]


def test_a_repeat_tells_the_first_and_the_last_byte_that_differ() -> None:
    assert repeat(100, b"abcdef", b"abcdef") == Repeat(100, 6, 0, 0)
    assert repeat(100, b"abcdef", b"aXcdYf") == Repeat(100, 6, 101, 4)
    assert repeat(100, b"abcdef", b"Xbcdef") == Repeat(100, 6, 100, 1)
    assert repeat(100, b"abcdef", b"abcdeX") == Repeat(100, 6, 105, 1)


def test_pieces_that_a_segment_covers_become_one() -> None:
    held = HeldBytes()
    for at in range(1, 100, 2):
        held.insert(at, b"x", ONE)
    held.insert(0, b"x" * 100, At(2_000, 2))
    assert held.starts == [0]
    assert held.take(0) == [(b"x" * 100, At(2_000, 2))]


def test_pieces_take_no_more_memory_than_they_are_counted_with() -> None:
    tracemalloc.start()
    try:
        held = HeldBytes()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            held.insert(1_000_000 + 10 * number, number.to_bytes(4), At((1 << 60) + number, 1_000 + number))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= held.cost
