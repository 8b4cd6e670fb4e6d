"""Edits in place are found, our own changes are none."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.files.block_sums import BLOCK_SIZE, BlockSums

SIZE = 3 * BLOCK_SIZE + 100


@pytest.fixture
def fd(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (SIZE // 256 + 10))
    return os.open(path, os.O_RDWR)


def sums_of(fd: int, *cuts: int) -> BlockSums:
    """Of the first SIZE bytes, given in pieces."""
    sums = BlockSums()
    for low, high in zip((0, *cuts), (*cuts, SIZE), strict=True):
        sums.append(os.pread(fd, high - low, low))
    return sums


@given(st.lists(st.integers(0, SIZE), max_size=5).map(sorted))
def test_the_pieces_in_which_it_is_read_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "sums"
    path.write_bytes(bytes(range(256)) * (SIZE // 256 + 10))
    fd = os.open(path, os.O_RDONLY)
    assert not sums_of(fd, *cuts).differ(fd)
    os.close(fd)


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE - 1, BLOCK_SIZE, 2 * BLOCK_SIZE + 7, SIZE - 1])
def test_one_byte_is_found_and_nothing_behind_the_end(fd: int, offset: int) -> None:
    sums = sums_of(fd)
    os.pwrite(fd, b"!", SIZE)
    assert not sums.differ(fd)
    os.pwrite(fd, b"!", offset)
    assert sums.differ(fd)
    assert sums.differ(fd, tail_size=100) is (offset >= 3 * BLOCK_SIZE)
    os.close(fd)


def write_in_place(sums: BlockSums, fd: int, offset: int, data: bytes) -> None:
    sums.change(offset, os.pread(fd, len(data), offset), data)
    os.pwrite(fd, data, offset)


@given(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=3 * BLOCK_SIZE))
def test_a_change_anywhere_is_expected(tmp_path_factory: pytest.TempPathFactory, offset: int, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "sums"
    path.write_bytes(bytes(range(256)) * (SIZE // 256 + 20))
    fd = os.open(path, os.O_RDWR)
    sums = sums_of(fd)
    write_in_place(sums, fd, offset, data)
    assert not sums.differ(fd)
    os.close(fd)


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE - 3, 2 * BLOCK_SIZE - 1, SIZE - 2, SIZE + 5])
def test_our_own_change_is_expected_and_hides_nobody_elses(fd: int, offset: int) -> None:
    sums = sums_of(fd)
    for data in (b"hello", b"x" * BLOCK_SIZE, b"y" * 2 * BLOCK_SIZE):
        write_in_place(sums, fd, offset, data)
        assert not sums.differ(fd)
    if offset < SIZE:
        os.pwrite(fd, b"!", offset)
        write_in_place(sums, fd, offset, b"hello")
        assert sums.differ(fd)
    os.close(fd)


def test_a_file_that_was_cut_differs(fd: int) -> None:
    sums = sums_of(fd)
    os.ftruncate(fd, SIZE - 1)
    assert sums.differ(fd)
    os.close(fd)
