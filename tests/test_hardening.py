"""T20: a process that holds secrets leaves no core file and lets nobody look in."""

import os
import resource
import subprocess
import sys

import pytest

from paygate.hardening import HardeningError, protect_process

PROGRAM = """
import ctypes, os, resource
from paygate.hardening import protect_process
protect_process()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), oct(os.umask(0)))
"""


def test_a_protected_process() -> None:
    # In a child, since there is no way back.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "(0, 0) 0 0o77\n"


def test_a_refusal_names_the_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(os, "umask", lambda mask: mask)
    with pytest.raises(HardeningError, match="RLIMIT_CORE"):
        protect_process()
