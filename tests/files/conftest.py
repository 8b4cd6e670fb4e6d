"""What tests of shared files start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from files.shared_world import Server


@pytest.fixture(params=[False, True], ids=["reads all", "passes over known rows"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which servers of a test start."""
    monkeypatch.setattr(Server, "passes_over_known", request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, {})
    server.tick()
    yield server
    server.file.close()
