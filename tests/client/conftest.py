"""What the tests of the program as a process share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from client_program import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.server.close()
    shop.loop.close()
