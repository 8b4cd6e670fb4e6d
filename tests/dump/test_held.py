"""Pieces that came before their turn: each byte once, whatever overlaps, against a table of single bytes."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from paygate.dump.held import PIECE_COST, HeldBytes, Repeat, repeat

PIECES = st.lists(
    st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=12).map(lambda d: bytes(b % 3 for b in d)))
)


def check_cost(held: HeldBytes, size: int) -> None:
    assert held.cost == size + PIECE_COST * len(held.starts)


@settings(max_examples=500)
@given(pieces=PIECES, from_offset=st.integers(-5, 60))
def test_each_byte_is_the_first_that_came(pieces: list[tuple[int, bytes]], from_offset: int) -> None:
    held, table = HeldBytes(), dict[int, int]()
    for start, data in pieces:
        known = [at for at in range(start, start + len(data)) if at in table]
        differing = [at for at in known if table[at] != data[at - start]]
        found = held.insert(start, data)
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
        run = b"".join(held.take(start))
        assert [table.pop(at) for at in range(start, start + len(run))] == list(run)
    assert not table
    assert held.cost == 0


def test_a_repeat_tells_the_first_and_the_last_byte_that_differ() -> None:
    assert repeat(100, b"abcdef", b"abcdef") == Repeat(100, 6, 0, 0)
    assert repeat(100, b"abcdef", b"aXcdYf") == Repeat(100, 6, 101, 4)
    assert repeat(100, b"abcdef", b"Xbcdef") == Repeat(100, 6, 100, 1)
    assert repeat(100, b"abcdef", b"abcdeX") == Repeat(100, 6, 105, 1)


def test_pieces_that_a_segment_covers_become_one() -> None:
    held = HeldBytes()
    for at in range(1, 100, 2):
        held.insert(at, b"x")
    held.insert(0, b"x" * 100)
    assert held.starts == [0]
    assert held.take(0) == [b"x" * 100]


def test_pieces_take_no_more_memory_than_they_are_counted_with() -> None:
    tracemalloc.start()
    try:
        held = HeldBytes()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            held.insert(1_000_000 + 10 * number, number.to_bytes(4))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= held.cost
