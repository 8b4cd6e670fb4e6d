"""What most tests of the bank need: books in a directory of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bank_books import Books


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path / "ledger.sqlite")
    yield books
    books.ledger.close()
