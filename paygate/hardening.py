"""Keeps the memory of a process that holds secrets away from core files and debuggers (T19, T20)."""

import ctypes
import os
import resource

_PR_GET_DUMPABLE = 3  # linux/prctl.h
_PR_SET_DUMPABLE = 4


class HardeningError(OSError):
    """The system refused a protection; the text names which."""


def protect_process() -> None:
    """No core file, no ptrace by others of the same user, and files private from birth (umask 0077).

    `exec` makes a process dumpable again, so every child that holds secrets calls this for itself. Raises
    HardeningError.
    """
    os.umask(0o077)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        raise HardeningError(f"could not forbid core files (RLIMIT_CORE): {error}") from None
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        raise HardeningError("could not make the process undumpable: this system has no prctl") from None
    if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 or prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HardeningError(f"could not make the process undumpable (PR_SET_DUMPABLE): {reason}")
