"""What tests of shared files start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from files.shared_world import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, {})
    server.tick()
    yield server
    server.file.close()
