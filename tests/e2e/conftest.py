"""A whole system of real processes for each test, on ports of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_system import LocalSystem


@pytest.fixture(scope="session")
def created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State directories as `init` makes them; made once, since keys take time, and copied for each test."""
    root = tmp_path_factory.mktemp("created")
    LocalSystem(root).create()
    return root


@pytest.fixture
def stopped_system(created: Path, tmp_path: Path) -> Iterator[LocalSystem]:
    """A system that is made but not started."""
    root = tmp_path / "system"
    shutil.copytree(created, root)
    system = LocalSystem(root)
    yield system
    system.stop()


@pytest.fixture
def system(stopped_system: LocalSystem) -> LocalSystem:
    """A running system."""
    stopped_system.start_bank()
    stopped_system.start_gateway()
    return stopped_system
