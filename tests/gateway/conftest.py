"""What the gateway's tests share: a world around the core, and a disk that can fail."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from failing_disk import FailingDisk
from gateway.world import World


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    """Registered under its name while the test runs."""
    disk = FailingDisk()
    yield disk
    disk.unregister()


@pytest.fixture
def world(tmp_path: Path, disk: FailingDisk) -> Iterator[World]:
    """A gateway with one unpaid token (`builders`) and an open link to its bank."""
    world = World(tmp_path, disk)
    world.issue()
    world.connect_bank()
    yield world
    disk.is_full = disk.fsync_fails = False
    world.store.close()
