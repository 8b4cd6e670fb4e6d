"""Programs of others that some tests need, and what happens where one is missing."""

import os
from typing import NoReturn

import pytest


def unavailable(what: str) -> NoReturn:
    """Skip, or fail in CI: a comparison that did not run has found nothing."""
    text = f"{what}; install it with: make test-tools"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)
