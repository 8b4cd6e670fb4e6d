"""Without a compiler or on another system than Linux, nothing here can make a file operation fail."""

import shutil
import sys

import pytest
from outside_tools import unavailable


@pytest.fixture(autouse=True, scope="session")
def _preloadable() -> None:
    if sys.platform != "linux":
        pytest.skip("the library that makes file operations fail is preloaded as Linux does it")
    if shutil.which("cc") is None:
        unavailable("a C compiler (cc) is missing")
