"""For all tests: the order of the files, and Hypothesis profiles.

The profile is chosen with HYPOTHESIS_PROFILE: `fast` for every day, `fuzz` for `make fuzz` (ten minutes).
"""

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

BEGUN_FIRST: Final = ("conform/test_client.py", "conform/test_gateway.py")
"""The files that take longest, longest first. They wait more than they work: begun late, they are waited for."""
_HERE: Final = Path(__file__).parent

# Records of many nested fields are slow to draw the first time; that says nothing about the code under test.
_SLOW_START = [HealthCheck.too_slow]

# A deadline would make a busy machine look like a bug.
settings.register_profile("fast", max_examples=50, deadline=None, suppress_health_check=_SLOW_START)
settings.register_profile("fuzz", max_examples=1_000, deadline=None, suppress_health_check=_SLOW_START)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_configure(config: pytest.Config) -> None:
    """Each process of `make test` begins to collect elsewhere: what one has compiled by then, the others only load."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if number and [(config.rootpath / arg).resolve() for arg in config.args] == [_HERE]:
        parts = sorted(str(path) for path in _HERE.iterdir() if path.is_dir() or path.match("test_*.py"))
        at = int(number) * len(parts) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args = parts[at:] + parts[:at]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest files first; `make test` gives files to its processes in this order, the same in each."""
    places = {_HERE / name: place for place, name in enumerate(BEGUN_FIRST)}
    assert [str(path) for path in places if not path.exists()] == []
    items.sort(key=lambda item: (places.get(item.path, len(places)), item.path))
